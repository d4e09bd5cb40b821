//! Setuid and setgid files, by every system call that takes a mode; and device nodes.

use crate::attempt::{Twin, refuses};

fn set_id_by(call: &str, errors: &[&str]) {
    for bits in ["4755", "2755", "6755", "4000"] {
        refuses(&format!("mode {call} {bits}"), Twin::Anyone, errors);
    }
    // The kernel takes 32 bits of a register of 64: a filter must not see more.
    refuses(&format!("mode-wide {call} 4755"), Twin::Anyone, errors);
}

#[test]
fn a_setuid_file_by_chmod() {
    set_id_by("chmod", &["EPERM"]);
}

#[test]
fn a_setuid_file_by_fchmod() {
    set_id_by("fchmod", &["EPERM"]);
}

#[test]
fn a_setuid_file_by_fchmodat() {
    set_id_by("fchmodat", &["EPERM"]);
}

#[test]
fn a_setuid_file_by_fchmodat2() {
    for bits in ["4755", "2755"] {
        refuses(
            &format!("mode fchmodat2 {bits}"),
            Twin::SomeHosts,
            &["ENOSYS"],
        );
    }
}

#[test]
fn a_setuid_file_by_open() {
    set_id_by("open", &["EPERM"]);
}

#[test]
fn a_setuid_file_by_openat() {
    set_id_by("openat", &["EPERM"]);
}

#[test]
fn a_setuid_file_by_openat2() {
    refuses("mode openat2 4755", Twin::Anyone, &["ENOSYS"]);
    refuses("mode openat2 2755", Twin::Anyone, &["ENOSYS"]);
}

#[test]
fn a_setuid_file_by_creat() {
    set_id_by("creat", &["EPERM"]);
}

#[test]
fn a_setuid_file_by_mknod() {
    set_id_by("mknod", &["EPERM"]);
}

#[test]
fn a_setuid_file_by_mknodat() {
    set_id_by("mknodat", &["EPERM"]);
}

#[test]
fn a_setuid_file_that_gets_its_name_later() {
    set_id_by("tmpfile", &["EPERM"]);
}

/// The kernel itself ignores the bits here, so the twin shows only that the call is made.
#[test]
fn a_setgid_directory_by_mkdir() {
    set_id_by("mkdir", &["EPERM"]);
    set_id_by("mkdirat", &["EPERM"]);
}

#[test]
fn a_device_node() {
    refuses("device c {output}/made", Twin::Root, &["EPERM"]);
    refuses("device b {output}/made", Twin::Root, &["EPERM"]);
}
