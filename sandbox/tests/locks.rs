//! Leaves a lock open, and sees it found from inside before the program runs.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use kiln_sandbox::{Access, Caller, Lock, SandboxError, SandboxRequest, Step, steps};

use common::{bind, launcher, shell};

/// Performs a changed plan of a program that leaves a mark, and returns the open lock.
fn open(change: impl Fn(&mut Vec<Step>)) -> Lock {
    let directory = tempfile::tempdir().unwrap();
    let mut request: SandboxRequest = shell("echo ran > /mark/file");
    request
        .nodes
        .push(bind("/mark", directory.path(), Access::ReadWrite));
    request.nodes.push(bind("/in", "/etc", Access::ReadOnly));
    let mut plan = steps(&request, Caller::current());
    let launcher = launcher();
    launcher.perform_for_test(&request, &plan).unwrap();
    let mark = directory.path().join("file");
    assert!(mark.exists(), "the plan does not work as it is");
    std::fs::remove_file(&mark).unwrap();
    change(&mut plan);
    let result = launcher.perform_for_test(&request, &plan);
    assert!(!mark.exists(), "the program ran");
    match result {
        Err(SandboxError::Open { lock }) => lock,
        other => panic!("{other:?}"),
    }
}

fn without(left_out: impl Fn(&Step) -> bool) -> Lock {
    open(|plan| {
        let before = plan.len();
        plan.retain(|step| !left_out(step));
        assert!(plan.len() < before);
    })
}

#[test]
fn capabilities_that_are_kept_are_found() {
    assert_eq!(
        without(|step| *step == Step::DropCapabilities),
        Lock::Capabilities
    );
}

#[test]
fn filters_that_are_missing_are_found() {
    assert_eq!(
        without(|step| *step == Step::FilterSystemCalls),
        Lock::Filters
    );
}

#[test]
fn an_old_root_that_is_still_there_is_found() {
    assert_eq!(without(|step| *step == Step::DropOldRoot), Lock::OldRoot);
}

#[test]
fn a_root_that_is_not_sealed_is_found() {
    // Landlock would guard it too.
    assert_eq!(
        without(|step| matches!(step, Step::SealRoot | Step::Landlock { .. })),
        Lock::Root
    );
    assert_eq!(
        without(|step| *step == Step::SealRoot),
        Lock::ReadOnly("/".to_owned())
    );
}

#[test]
fn an_input_that_can_be_written_is_found() {
    let lock = open(|plan| {
        for step in plan {
            if let Step::Capture { source, access } = step
                && source == "/etc"
            {
                *access = Access::ReadWrite;
            }
        }
    });
    assert_eq!(lock, Lock::ReadOnly("/in".to_owned()));
}
