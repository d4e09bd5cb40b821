//! Processes of the host, and the sandbox's own init.

use crate::attempt::{HostProcess, Place, Twin, refuses, run};

/// Starts a process of the host that a probe can look for.
fn bystander(word: &str) -> HostProcess {
    HostProcess::start(Place::new().command(&format!("wait {word}")))
}

#[test]
fn seeing_a_host_process() {
    let _bystander = bystander("seen-outside-only");
    // The needle is assembled by the probe's argument list, which it leaves out itself.
    refuses("find seen-outside-only", Twin::Anyone, &["ESRCH"]);
}

#[test]
fn touching_a_host_process() {
    let bystander = bystander("untouched");
    let id = bystander.id();
    for act in ["signal", "process-descriptor", "limit"] {
        refuses(&format!("{act} {id}"), Twin::Anyone, &["ESRCH"]);
    }
    refuses(&format!("trace {id}"), Twin::SomeHosts, &["ENOSYS"]);
}

#[test]
fn killing_every_process_there_is() {
    let mut bystander = bystander("alive");
    let inside = Place::new().inside("kill-all");
    assert!(
        ["worked", "refused ESRCH"].contains(&inside.as_str()),
        "{inside}"
    );
    assert!(bystander.runs());
}

/// Init must live to report how the build ended.
#[test]
fn killing_init() {
    // The kernel lets nobody kill a namespace's init from within; Landlock says so.
    let inside = Place::new().inside("kill-init");
    assert!(
        ["worked", "refused EPERM"].contains(&inside.as_str()),
        "{inside}"
    );
    let bystander = bystander("killed");
    let place = Place::new();
    assert_eq!(place.outside(&format!("kill {}", bystander.id())), "worked");
}

/// The sandbox's init is the sandbox's own executable, and was once in the host's root.
#[test]
fn reading_init() {
    let bystander = bystander("read");
    let place = Place::new();
    for act in [
        "read /proc/{}/root/proc/version",
        "open-path /proc/{}/root",
        "open-path /proc/{}/cwd",
        "open-path /proc/{}/exe",
        "read-link /proc/{}/exe",
        "read /proc/{}/environ",
        "read /proc/{}/maps",
        "read /proc/{}/auxv",
        "read /proc/{}/ns/mnt",
        "read-link /proc/{}/fd/0",
    ] {
        let outside = act.replace("{}", &bystander.id().to_string());
        place.try_twin(&outside, Twin::Anyone);
        assert_eq!(
            place.inside(&act.replace("{}", "1")),
            "refused EACCES",
            "{act}"
        );
    }
    refuses("trace 1", Twin::SomeHosts, &["ENOSYS"]);
}

#[test]
fn tracing() {
    refuses("trace-child", Twin::SomeHosts, &["ENOSYS"]);
}

#[test]
fn reading_and_writing_another_process_s_memory() {
    refuses("read-memory", Twin::SomeHosts, &["ENOSYS"]);
    refuses("write-memory", Twin::SomeHosts, &["ENOSYS"]);
}

#[test]
fn taking_another_process_s_descriptor() {
    refuses("take-descriptor", Twin::SomeHosts, &["ENOSYS"]);
}

/// The host's environment may hold secrets; the builder has none of it.
#[test]
fn the_caller_s_environment() {
    let place = Place::new();
    let mut outside = place.command("content /proc/self/environ");
    let outside = outside.env("SECRET", "word").output().unwrap();
    assert!(String::from_utf8_lossy(&outside.stdout).contains("SECRET=word"));
    let request = place.request("content /proc/self/environ");
    assert_eq!(run(&request), ("worked".to_owned(), String::new()));
}
