//! Limits on a run as a whole. They need a host that delegates control groups: where it
//! does not, each test says so and ends.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use kiln_sandbox::{Cancel, End, Groups, Launcher, SandboxRequest, Together};

use common::{launcher, printed, run_with, shell};

/// Returns a launcher, if runs can be limited as a whole here.
fn grouping() -> Option<Launcher> {
    let launcher = launcher();
    match launcher.groups() {
        Ok(_) => Some(launcher),
        Err(none) => {
            println!("skipped: {} ({})", none.why, none.remedy);
            None
        }
    }
}

fn limited(script: &str, together: Together) -> SandboxRequest {
    let mut request = shell(script);
    request.limits.together = together;
    request
}

fn memory(megabytes: u64) -> Together {
    Together {
        memory_bytes: Some(megabytes << 20),
        ..Together::default()
    }
}

/// Returns the groups of kiln anywhere below a directory.
fn groups_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().starts_with("kiln-") {
                found.push(entry.path());
            }
            found.extend(groups_below(&entry.path()));
        }
    }
    found
}

/// Returns those of a process.
fn groups_of(process: u32) -> Vec<PathBuf> {
    let mut found = groups_below(Path::new("/sys/fs/cgroup"));
    let mine = format!("kiln-{process}-");
    found.retain(|path| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with(&mine)
    });
    found
}

fn until(done: impl Fn() -> bool) -> bool {
    (0..3000).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        done()
    })
}

/// Starts another parent, and returns it and its run's group when processes are in that.
fn hold(word: &str) -> (Child, PathBuf) {
    let parent = Command::new(env!("CARGO_BIN_EXE_kiln-sandbox-child"))
        .args(["--hold", word])
        .spawn()
        .unwrap();
    let group = || {
        groups_of(parent.id()).into_iter().find(|path| {
            std::fs::read_to_string(path.join("cgroup.procs"))
                .is_ok_and(|text| text.lines().count() > 2)
        })
    };
    assert!(until(|| group().is_some()));
    let found = group().unwrap();
    (parent, found)
}

/// As systemd makes them for a service with `Delegate=` and `DelegateSubgroup=`: kiln is in
/// a group below one that gives its children no controllers until somebody says so.
#[test]
fn a_group_that_was_just_delegated_is_used() {
    let Some(_) = grouping() else { return };
    let (mut parent, group) = hold(&format!("word-{}-delegated", std::process::id()));
    parent.kill().unwrap();
    parent.wait().unwrap();
    let delegated = group.with_file_name(format!("test-{}", std::process::id()));
    let inner = delegated.join("inner");
    std::fs::create_dir_all(&inner).unwrap();
    let output = Command::new("sh")
        .args([
            "-c",
            "echo $$ > \"$1/cgroup.procs\" && exec \"$2\" --probe",
            "sh",
        ])
        .arg(&inner)
        .arg(env!("CARGO_BIN_EXE_kiln-sandbox-child"))
        .output()
        .unwrap();
    let given = std::fs::read_to_string(delegated.join("cgroup.subtree_control")).unwrap();
    assert!(until(
        || std::fs::remove_dir(&inner).is_ok() || !inner.exists()
    ));
    std::fs::remove_dir(&delegated).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("limits on a build as a whole: works"),
        "{said}"
    );
    for one in ["memory", "pids"] {
        assert!(given.split_whitespace().any(|name| name == one), "{given}");
    }
}

#[test]
fn all_processes_together_have_so_much_memory() {
    let Some(launcher) = grouping() else { return };
    let end = |script: &str, megabytes| {
        run_with(&launcher, &limited(script, memory(megabytes)))
            .0
            .end
    };
    // In one process, in several, and in a directory in memory.
    let one = "perl -e '$x = \"x\" x 100_000_000'";
    let several = "for i in 1 2 3 4; do perl -e '$x = \"x\" x 30_000_000; sleep 2' & done; \
                   for i in 1 2 3 4; do wait -n || exit 1; done";
    let file = "head -c 100000000 /dev/zero > /tmp/file";
    for script in [one, several, file] {
        assert_eq!(end(script, 80), End::OutOfMemory, "{script}");
        assert_eq!(end(script, 1000), End::Exited(0), "{script}");
    }
    // A failure for another reason is one.
    assert_eq!(end("exit 3", 80), End::Exited(3));
}

#[test]
fn all_processes_together_are_so_many() {
    let Some(launcher) = grouping() else { return };
    let script = "exec perl -e 'for (1..40) { defined(my $p = fork) or exit 7; $p or sleep 60 }'";
    let end = |processes| {
        let together = Together {
            processes: Some(processes),
            ..Together::default()
        };
        run_with(&launcher, &limited(script, together)).0.end
    };
    assert_eq!(end(20), End::ProcessLimit);
    assert_eq!(end(60), End::Exited(0));
}

#[test]
fn all_processes_together_use_so_many_processors() {
    let Some(launcher) = grouping() else { return };
    if launcher.groups() != Ok(Groups { processors: true }) {
        return println!("skipped: processor time is not delegated");
    }
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return println!("skipped: there is one processor");
    }
    let script = "for i in 1 2; do timeout 4 bash -c 'while :; do :; done' & done; wait; exit 0";
    let used = |processors| {
        let together = Together {
            processors,
            ..Together::default()
        };
        let (outcome, log) = run_with(&launcher, &limited(script, together));
        assert_eq!(outcome.end, End::Exited(0), "{log}");
        outcome.usage.cpu.as_secs_f64() / 4.0
    };
    let one = used(Some(1));
    assert!(one < 1.2, "{one}");
    // A machine that has other things to do gives less at times.
    assert!((0..10).any(|_| used(None) > one * 1.2), "{one}");
}

#[test]
fn a_build_does_not_see_its_group() {
    let Some(_) = grouping() else { return };
    let text = printed(&limited("cat /proc/self/cgroup", memory(500)));
    assert!(text.lines().all(|line| line.ends_with(":/")), "{text}");
}

#[test]
fn no_group_remains() {
    let Some(launcher) = grouping() else { return };
    let missing = {
        let mut request = limited("true", memory(500));
        request.command = vec!["/missing".to_owned()];
        request
    };
    let mut slow = limited("sleep 60", memory(500));
    slow.limits.wall = Some(Duration::from_millis(50));
    let cancel = Cancel::new().unwrap();
    for _ in 0..10 {
        for request in [
            &limited("true", memory(500)),
            &limited("exit 3", memory(500)),
            &limited("head -c 100000000 /dev/zero > /tmp/file", memory(60)),
            &missing,
            &slow,
        ] {
            // However it ends.
            drop(launcher.run(request, &mut |_| {}, &cancel));
        }
    }
    // Other tests of this process may be at it.
    std::thread::sleep(Duration::from_secs(6));
    for path in groups_of(std::process::id()) {
        let members = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        assert!(!members.is_empty() || !path.exists(), "{}", path.display());
    }
}

#[test]
fn what_a_killed_parent_leaves_is_swept_away() {
    let Some(_) = grouping() else { return };
    let word = format!("word-{}-group", std::process::id());
    let (mut parent, _) = hold(&word);
    let process = parent.id();
    parent.kill().unwrap();
    parent.wait().unwrap();
    // The next launcher looks for a place, and finds what is left when all in it is dead.
    assert!(until(|| {
        launcher().groups().unwrap();
        groups_of(process).is_empty()
    }));
}
