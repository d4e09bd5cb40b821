//! Parts of the kernel that no build needs, and the doors around the filter.

use crate::attempt::{Place, Twin, refuses, run};

#[test]
fn loading_a_key() {
    refuses("add-key", Twin::Anyone, &["ENOSYS"]);
    refuses("request-key", Twin::Anyone, &["ENOSYS"]);
    refuses("join-keyring", Twin::Anyone, &["ENOSYS"]);
}

#[test]
fn using_io_uring() {
    refuses("io-uring", Twin::SomeHosts, &["ENOSYS"]);
}

#[test]
fn using_bpf() {
    refuses("bpf", Twin::Root, &["ENOSYS"]);
}

#[test]
fn using_perf() {
    refuses("perf", Twin::SomeHosts, &["ENOSYS"]);
}

#[test]
fn using_userfaultfd() {
    refuses("userfaultfd", Twin::SomeHosts, &["ENOSYS"]);
}

#[test]
fn comparing_processes_by_kcmp() {
    refuses("kcmp", Twin::SomeHosts, &["ENOSYS"]);
}

#[test]
fn opening_a_file_by_handle() {
    refuses("handle {input}/file", Twin::Root, &["ENOSYS"]);
    // The root directory of the file system that an input lies on, without a name.
    refuses("guessed-handle {input}", Twin::SomeHosts, &["ENOSYS"]);
}

#[test]
fn typing_into_the_terminal() {
    refuses("tiocsti", Twin::SomeHosts, &["EPERM"]);
    // The kernel takes 32 bits of the request: a filter must not see more.
    refuses("tiocsti-wide", Twin::SomeHosts, &["EPERM"]);
}

#[test]
fn a_call_of_the_32_bit_table() {
    let place = Place::new();
    place.try_twin("int80", Twin::SomeHosts);
    assert_eq!(place.inside("int80"), "Signaled(31)");
}

/// Kernels without that table answer with the same error, so this fails only on one with.
#[test]
fn a_call_of_the_x32_table() {
    refuses("x32", Twin::SomeHosts, &["ENOSYS"]);
}

/// Numbers that no header names yet: what a newer kernel adds is not allowed by itself.
#[test]
fn calls_that_the_filter_does_not_know() {
    for number in 463..=500 {
        let act = format!("number {number}");
        assert_eq!(Place::new().inside(&act), "refused ENOSYS", "{act}");
    }
    // The twin is a call with invalid arguments that is on the list.
    assert_eq!(Place::new().inside("number 3"), "refused EBADF");
}

#[test]
fn reading_the_kernel_s_log_and_clock() {
    refuses("kernel-log", Twin::SomeHosts, &["ENOSYS"]);
    refuses("read-clock-state", Twin::Anyone, &["ENOSYS"]);
}

#[test]
fn hiding_memory_and_watching_files() {
    refuses("secret-memory", Twin::SomeHosts, &["ENOSYS"]);
    refuses("watch-files", Twin::SomeHosts, &["ENOSYS"]);
    refuses("local-descriptors", Twin::Anyone, &["ENOSYS"]);
}

#[test]
fn raising_its_priority() {
    refuses("raise-priority", Twin::Root, &["EACCES", "EPERM"]);
}

/// A build may ask to be user 0 inside; it is not root for that.
#[test]
fn the_powers_of_user_0() {
    for act in [
        "socket 2 3 1",
        "socket 17 3 3",
        "device c /tmp/made",
        "raise-priority",
    ] {
        let place = Place::new();
        let mut request = place.request(act);
        (request.uid, request.gid) = (0, 0);
        let (inside, _) = run(&request);
        assert!(
            ["refused EPERM", "refused EACCES"].contains(&inside.as_str()),
            "{act}: {inside}"
        );
    }
    let place = Place::new();
    let mut request = place.request("content /proc/self/status");
    (request.uid, request.gid) = (0, 0);
    let sets = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with("Cap"));
        lines
            .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
            .collect()
    };
    assert_eq!(sets(&run(&request).1), ["0000000000000000"; 5]);
    let outside = place
        .command("own content /proc/self/status")
        .output()
        .unwrap();
    let outside = sets(&String::from_utf8(outside.stdout).unwrap());
    assert!(outside.iter().any(|set| set.contains('f')), "{outside:?}");
}
