//! Mounts, roots and namespaces.

use crate::attempt::{Place, Twin, refuses};

fn own(act: &str, error: &str) {
    refuses(act, Twin::OwnNamespaces, &[error]);
}

#[test]
fn mounting() {
    own("mount {output}", "ENOSYS");
    own("bind {output} {output}", "ENOSYS");
    own("move-mount {output}", "ENOSYS");
    own("fsopen", "ENOSYS");
}

#[test]
fn remounting() {
    own("remount {output}", "ENOSYS");
    own("mount-setattr {output}", "ENOSYS");
    own("fspick {output}", "ENOSYS");
    for path in ["/", "/proc", "/input", "/dev/null"] {
        assert_eq!(
            Place::new().inside(&format!("remount {path}")),
            "refused ENOSYS"
        );
    }
}

#[test]
fn unmounting() {
    own("unmount {output}", "ENOSYS");
    for path in ["/", "/proc", "/input", "/dev/shm"] {
        assert_eq!(
            Place::new().inside(&format!("unmount {path}")),
            "refused ENOSYS"
        );
    }
}

#[test]
fn taking_hold_of_a_mount() {
    own("open-tree {output}", "ENOSYS");
}

#[test]
fn changing_the_root() {
    own("chroot {output}", "ENOSYS");
    own("pivot-root", "ENOSYS");
}

#[test]
fn entering_a_namespace() {
    own("setns /proc/self/ns/mnt", "ENOSYS");
}

/// User, mount, network, PID, IPC, UTS and cgroup.
const NAMESPACES: [&str; 7] = [
    "10000000", "00020000", "40000000", "20000000", "08000000", "04000000", "02000000",
];

#[test]
fn creating_a_namespace_by_unshare() {
    for flag in NAMESPACES {
        own(&format!("unshare {flag}"), "EPERM");
    }
    // The time namespace, which only `unshare` can ask for.
    own("unshare 80", "EPERM");
    // With bits beyond those that the kernel reads.
    assert_eq!(Place::new().inside("unshare 110000000"), "refused EPERM");
}

#[test]
fn creating_a_namespace_by_clone() {
    for flag in NAMESPACES {
        own(&format!("clone {flag}"), "EPERM");
        own(&format!("clone3 {flag}"), "ENOSYS");
    }
    own("clone 110000000", "EPERM");
}
