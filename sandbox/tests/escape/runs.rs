//! What runs of one launcher could have in common: namespaces, some of which are made
//! before there is a run.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use kiln_sandbox::{End, Ids, Launcher};

use crate::attempt::{Place, hear, used_launcher};
use crate::programs::programs;

/// Returns the namespaces that a run prints, and those of the runs that are started while it
/// goes on.
fn namespaces_of_runs(launcher: &Launcher, runs: usize) -> Vec<BTreeSet<String>> {
    let Some(others) = runs.checked_sub(1) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    let (end, log) = hear(launcher, &Place::new().request("namespaces"), |line| {
        all.push(line.split_whitespace().map(str::to_owned).collect());
        all.extend(namespaces_of_runs(launcher, others));
    });
    assert_eq!(end, End::Cancelled, "{log}");
    all
}

fn namespaces_here() -> BTreeSet<String> {
    // That of time is entered by children.
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    kinds
        .map(|kind| link(format!("/proc/self/ns/{kind}").as_ref()).unwrap())
        .into()
}

fn link(path: &Path) -> Option<String> {
    Some(
        std::fs::read_link(path)
            .ok()?
            .to_string_lossy()
            .into_owned(),
    )
}

#[test]
fn sharing_a_namespace_with_the_host_or_another_run() {
    let launcher = Launcher::new(programs().child.clone());
    let mut all = namespaces_of_runs(&launcher, 3);
    all.push(namespaces_here());
    for (at, one) in all.iter().enumerate() {
        assert_eq!(one.len(), 8, "{one:?}");
        for other in &all[at + 1..] {
            assert!(one.is_disjoint(other), "{one:?} {other:?}");
        }
    }
}

/// Returns the network namespaces that children of this process's children hold.
fn held() -> BTreeSet<String> {
    let children = |process: &str| -> Vec<String> {
        let path = format!("/proc/{process}/task/{process}/children");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    let descriptors = |process: String| {
        std::fs::read_dir(format!("/proc/{process}/fd"))
            .into_iter()
            .flatten()
            .filter_map(|entry| link(&entry.ok()?.path()))
            .filter(|target| target.starts_with("net:"))
            .collect::<Vec<_>>()
    };
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .flat_map(|thread| {
            let path = thread.unwrap().path().join("children");
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.split_whitespace()
                .flat_map(children)
                .flat_map(descriptors)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Not an act: it shows that the other tests try what they are meant to.
#[test]
fn entering_what_was_made_ahead() {
    let place = Place::new();
    let request = place.request("namespaces");
    let launcher = used_launcher(&programs().child);
    let entered = || {
        // It was begun when the last run began; on a busy machine it may take a while.
        std::thread::sleep(Duration::from_millis(20));
        let before = held();
        let mut found = false;
        hear(&launcher, &request, |line| {
            found = line.split_whitespace().any(|one| before.contains(one));
        });
        found
    };
    // A range of ids has a user namespace of its own around all others.
    assert_eq!((0..50).any(|_| entered()), request.ids == Ids::One);
}
