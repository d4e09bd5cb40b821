//! Parts of the kernel that no build needs, and the doors around the filter.

use crate::attempt::{Place, Twin, refuses};

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
