//! Takes one layer away, and sees what the other holds: each of two guards over one thing
//! must hold alone, or it is none.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use kiln_sandbox::{Access, Caller, End, FeatureState, SandboxRequest, Step, features, steps};

use common::{bind, launcher, shell};

/// Returns how a request ends when its plan lacks some steps, and nobody checks for them.
fn end(request: &SandboxRequest, left_out: impl Fn(&Step) -> bool) -> End {
    let mut plan = steps(request, Caller::current());
    plan.retain(|step| !matches!(step, Step::CheckLocks { .. }) && !left_out(step));
    launcher().perform_for_test(request, &plan).unwrap().end
}

fn landlock(step: &Step) -> bool {
    matches!(step, Step::Landlock { .. })
}

#[test]
fn landlock_guards_what_a_mount_does_not() {
    let seal = |step: &Step| *step == Step::SealRoot;
    let request = shell("echo x > /made || exit 3");
    assert_eq!(end(&request, |_| false), End::Exited(3));
    assert_eq!(end(&request, seal), End::Exited(3));
    assert_eq!(end(&request, landlock), End::Exited(3));
    assert_eq!(
        end(&request, |step| seal(step) || landlock(step)),
        End::Exited(0)
    );
}

#[test]
fn landlock_leaves_what_is_granted() {
    let directory = tempfile::tempdir().unwrap();
    let mut request = shell(
        "set -e; cd /data; mkdir a b; echo x > a/f; mv a/f b/g; ln b/g h; ln -s h s; rm b/g; \
         rmdir a; truncate -s 0 h; mkfifo p; echo x > /dev/null; echo x > /dev/stdout; \
         touch /tmp/x /dev/shm/y; ! mv h /usr/h 2>/dev/null",
    );
    request
        .nodes
        .push(bind("/data", directory.path(), Access::ReadWrite));
    assert_eq!(end(&request, |_| false), End::Exited(0));
}

/// Returns whether Landlock keeps signals in here: its version 6 does (Linux 6.12).
fn knows_signals() -> bool {
    let found = features(&launcher());
    let landlock = found.iter().find(|feature| feature.name == "Landlock");
    match landlock.map(|feature| &feature.state) {
        Some(FeatureState::Works { note }) => !note.contains("signals"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn landlock_keeps_signals_in() {
    if !knows_signals() {
        return println!("skipped: Landlock is older than version 6 here");
    }
    let request = shell("sleep 60 & kill -TERM $! || exit 4; kill -0 1 2>/dev/null || exit 3");
    assert_eq!(end(&request, |_| false), End::Exited(3));
    assert_eq!(end(&request, landlock), End::Exited(0));
}
