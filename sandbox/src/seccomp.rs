//! Which system calls a builder may make.
//!
//! Two filters, both of which must agree:
//!
//! 1. An allow-list by number: the x86-64 table as of Linux 6.12 without the groups below.
//!    Anything else, unknown calls of newer kernels and the x32 table included, answers
//!    `ENOSYS`, which programs take for an older kernel. Calls on extended attributes
//!    answer `ENOTSUP`: no object holds any. A call from another instruction set kills the
//!    process.
//! 2. What is refused with `EPERM` because of its arguments.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

use crate::table::{self, Answer};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// The x86-64 system call table as of Linux 6.12.
const TABLE: [RangeInclusive<u32>; 2] = [0..=334, 424..=462];

/// The last number of the table.
const LAST: u32 = 462;

/// Calls that no build needs, by the reason why each group is closed.
const CLOSED: [(&str, &[i64]); 10] = [
    (
        "mounts and roots: the file tree is the request's",
        &[
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
            STATMOUNT,
            LISTMOUNT,
        ],
    ),
    (
        "namespaces: one set, made by init",
        &[libc::SYS_setns, libc::SYS_clone3],
    ),
    (
        "modes behind a pointer, which a filter cannot read",
        &[libc::SYS_openat2, libc::SYS_fchmodat2],
    ),
    (
        "other processes' memory and descriptors",
        &[
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_kcmp,
            libc::SYS_pidfd_getfd,
            libc::SYS_process_madvise,
            libc::SYS_process_mrelease,
        ],
    ),
    (
        "keyrings outlive a build",
        &[libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl],
    ),
    (
        "large or young parts of the kernel with a history of holes",
        &[
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_fanotify_init,
            libc::SYS_fanotify_mark,
            libc::SYS_name_to_handle_at,
            libc::SYS_open_by_handle_at,
            libc::SYS_lookup_dcookie,
            libc::SYS_vmsplice,
            libc::SYS_remap_file_pages,
            libc::SYS_modify_ldt,
        ],
    ),
    (
        "the machine itself",
        &[
            libc::SYS_reboot,
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_iopl,
            libc::SYS_ioperm,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_acct,
            libc::SYS_syslog,
            libc::SYS_quotactl,
            libc::SYS_quotactl_fd,
            libc::SYS_nfsservctl,
            libc::SYS_uselib,
            libc::SYS_ustat,
            libc::SYS_sysfs,
            libc::SYS__sysctl,
            libc::SYS_vhangup,
        ],
    ),
    (
        "clocks and names that belong to the host",
        &[
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_clock_adjtime,
            libc::SYS_adjtimex,
            libc::SYS_sethostname,
            libc::SYS_setdomainname,
        ],
    ),
    (
        "placement of memory on the machine's nodes",
        &[
            libc::SYS_mbind,
            libc::SYS_migrate_pages,
            libc::SYS_move_pages,
            libc::SYS_set_mempolicy,
        ],
    ),
    (
        "secret memory cannot be inspected",
        &[libc::SYS_memfd_secret],
    ),
];

/// Numbers that the C library crate does not name yet.
const STATMOUNT: i64 = 457;
const LISTMOUNT: i64 = 458;

/// Calls on extended attributes.
const XATTR: [i64; 12] = [
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
];

/// The protocol family of netlink, as a system call's argument.
const NETLINK: u64 = libc::AF_NETLINK.unsigned_abs() as u64;

const SETUID_SETGID: [u64; 2] = [0o4000, 0o2000];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Failure = seccompiler::BackendError;

/// The filters, which are the same for every run.
static COMPILED: OnceLock<Vec<BpfProgram>> = OnceLock::new();

/// Compiles the filters, so that processes forked from here need not.
pub(crate) fn compile() -> io::Result<()> {
    if COMPILED.get().is_none() {
        // Whoever came first compiled the same.
        drop(COMPILED.set(filters().map_err(io::Error::other)?));
    }
    Ok(())
}

/// Installs the filters in the calling process, for good.
pub(crate) fn install() -> io::Result<()> {
    compile()?;
    for filter in COMPILED.get().into_iter().flatten() {
        seccompiler::apply_filter(filter).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Returns the filters, in the order in which they are installed.
fn filters() -> Result<Vec<BpfProgram>, Failure> {
    let by_argument = SeccompFilter::new(
        refused()?,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        TargetArch::x86_64,
    )?;
    Ok(vec![
        table::filter(0..=LAST, answer, Answer::Errno(libc::ENOSYS)),
        by_argument.try_into()?,
    ])
}

/// Returns what a call answers because of its number alone.
fn answer(number: u32) -> Answer {
    let call = i64::from(number);
    let closed = CLOSED.iter().any(|(_, calls)| calls.contains(&call));
    if XATTR.contains(&call) {
        Answer::Errno(libc::ENOTSUP)
    } else if closed || !TABLE.iter().any(|range| range.contains(&number)) {
        Answer::Errno(libc::ENOSYS)
    } else {
        Answer::Allow
    }
}

fn has_bits(argument: u8, bits: u64) -> Result<SeccompCondition, Failure> {
    let operation = SeccompCmpOp::MaskedEq(bits);
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, bits)
}

fn equals(argument: u8, value: u64) -> Result<SeccompCondition, Failure> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

fn differs(argument: u8, value: i32) -> Result<SeccompCondition, Failure> {
    let value = u64::from(value.unsigned_abs());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)
}

fn refused() -> Result<Rules, Failure> {
    let mut rules = Rules::new();
    // Setuid and setgid bits, wherever a mode is given (measured: `open` and `mknod` can
    // set them too).
    for (call, mode) in [
        (libc::SYS_chmod, 1),
        (libc::SYS_fchmod, 1),
        (libc::SYS_fchmodat, 2),
        (libc::SYS_creat, 1),
        (libc::SYS_mknod, 1),
        (libc::SYS_mknodat, 2),
        (libc::SYS_mkdir, 1),
        (libc::SYS_mkdirat, 2),
    ] {
        for bits in SETUID_SETGID {
            rules
                .entry(call)
                .or_default()
                .push(SeccompRule::new(vec![has_bits(mode, bits)?])?);
        }
    }
    // The mode of `open` counts only when a file may be created.
    const TMPFILE: u64 = 0o20_000_000;
    for (call, flags, mode) in [(libc::SYS_open, 1, 2), (libc::SYS_openat, 2, 3)] {
        for creating in [u64::from(libc::O_CREAT.unsigned_abs()), TMPFILE] {
            for bits in SETUID_SETGID {
                let rule =
                    SeccompRule::new(vec![has_bits(flags, creating)?, has_bits(mode, bits)?])?;
                rules.entry(call).or_default().push(rule);
            }
        }
    }
    // New namespaces.
    for flag in [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ] {
        let bits = u64::from(flag.unsigned_abs());
        for call in [libc::SYS_clone, libc::SYS_unshare] {
            rules
                .entry(call)
                .or_default()
                .push(SeccompRule::new(vec![has_bits(0, bits)?])?);
        }
    }
    // CLONE_NEWTIME is part of the signal number in `clone`, so only `unshare` can ask for it.
    const NEWTIME: u64 = 0x80;
    rules
        .entry(libc::SYS_unshare)
        .or_default()
        .push(SeccompRule::new(vec![has_bits(0, NEWTIME)?])?);
    // Typing into a terminal, and the console's selection.
    for request in [libc::TIOCSTI, libc::TIOCLINUX] {
        let rule = SeccompRule::new(vec![equals(1, request)?])?;
        rules.entry(libc::SYS_ioctl).or_default().push(rule);
    }
    // Sockets: local, IPv4, IPv6 and routing information; no other protocol family.
    let others = vec![
        differs(0, libc::AF_UNIX)?,
        differs(0, libc::AF_INET)?,
        differs(0, libc::AF_INET6)?,
        differs(0, libc::AF_NETLINK)?,
    ];
    let not_local = vec![differs(0, libc::AF_UNIX)?];
    rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(not_local)?]);
    // Of netlink, routing information alone: the rest configures or watches the machine.
    let netlink = vec![equals(0, NETLINK)?, differs(2, libc::NETLINK_ROUTE)?];
    rules.insert(
        libc::SYS_socket,
        vec![SeccompRule::new(others)?, SeccompRule::new(netlink)?],
    );
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_and_close_what_they_say() {
        assert_eq!(filters().unwrap().len(), 2);
        let answer = |call: i64| answer(u32::try_from(call).unwrap());
        for (reason, calls) in CLOSED {
            assert!(!reason.is_empty());
            for call in calls {
                assert_eq!(answer(*call), Answer::Errno(libc::ENOSYS), "{call}");
            }
        }
        assert_eq!(answer(libc::SYS_execve), Answer::Allow);
        assert_eq!(answer(libc::SYS_lsetxattr), Answer::Errno(libc::ENOTSUP));
        assert_eq!(answer(400), Answer::Errno(libc::ENOSYS));
        assert!(TABLE.iter().all(|range| *range.end() <= LAST));
    }
}
