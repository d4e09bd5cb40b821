//! When a run has ended, everything that it started is dead.
//!
//! The daemons hold a lock on a file that the host sees too: while one lives, nobody else
//! gets it. No clock is needed.

use std::fs::{File, TryLockError};

use kiln_sandbox::End;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::attempt::{Place, run_until_heard};
use crate::programs::is_second_run;

/// Returns whether some process holds the lock.
fn is_held(place: &Place) -> bool {
    let file = File::open(place.path("output").join("lock")).unwrap();
    match file.try_lock() {
        Ok(()) => false,
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(error)) => panic!("{error}"),
    }
}

/// Kills the daemon that the twin left behind.
fn end_daemon(place: &Place) {
    let id = std::fs::read_to_string(place.path("output").join("lock")).unwrap();
    kill(Pid::from_raw(id.parse().unwrap()), Signal::SIGKILL).unwrap();
}

fn dies_with_the_run(kind: &str) {
    let act = format!("daemon {kind} {{output}}/lock");
    if !is_second_run() {
        let outside = Place::new();
        assert!(outside.command(&act).status().unwrap().success());
        let survived = is_held(&outside);
        end_daemon(&outside);
        assert!(survived, "outside, a {kind} daemon outlives its parent");
    }
    let inside = Place::new();
    assert_eq!(inside.inside(&act), "worked");
    assert!(!is_held(&inside), "a {kind} daemon outlived its run");
}

#[test]
fn a_daemon_by_double_fork() {
    dies_with_the_run("forked");
}

#[test]
fn a_daemon_in_a_session_of_its_own() {
    dies_with_the_run("session");
}

#[test]
fn a_daemon_that_is_stopped() {
    dies_with_the_run("stopped");
}

#[test]
fn a_daemon_that_ignores_every_signal() {
    dies_with_the_run("deaf");
}

#[test]
fn a_build_that_ignores_every_signal() {
    let place = Place::new();
    let (end, log) = run_until_heard(&place.request("deaf {output}/lock"), || {
        assert!(is_held(&place), "it runs and holds the lock");
    });
    assert_eq!((end, log.as_str()), (End::Cancelled, "deaf\n"));
    assert!(!is_held(&place));
}
