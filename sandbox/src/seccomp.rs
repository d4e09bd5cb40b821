//! Which system calls a builder may make.
//!
//! One filter: an allow-list by number, the x86-64 table as of Linux 6.12 without the groups
//! below. Anything else, unknown calls of newer kernels and the x32 table included, answers
//! `ENOSYS`, which programs take for an older kernel. Calls on extended attributes answer
//! `ENOTSUP`: no object holds any. Some calls answer `EPERM` because of their arguments. A
//! call from another instruction set kills the process.

use std::io;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

use nix::libc;
use seccompiler::BpfProgram;

use crate::table::Test::{Any, Is, IsNot};
use crate::table::{self, Answer, Test};

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

/// Setuid and setgid bits of a mode.
const SETUID_SETGID: u32 = 0o6000;

/// The flags of `open` with which it may create a file (`O_CREAT`, `__O_TMPFILE`).
const CREATING: u32 = libc::O_CREAT.unsigned_abs() | 0o20_000_000;

/// The flags of `clone` for new namespaces. That of time (`CLONE_NEWTIME`) is part of the
/// signal number there, so only `unshare` can ask for it.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .unsigned_abs();
const NEWTIME: u32 = libc::CLONE_NEWTIME.unsigned_abs();

const UNIX: u32 = libc::AF_UNIX.unsigned_abs();
const NETLINK: u32 = libc::AF_NETLINK.unsigned_abs();

/// The filter, which is the same for every run.
static COMPILED: OnceLock<BpfProgram> = OnceLock::new();

/// Compiles the filter, so that processes forked from here need not.
pub(crate) fn compile() -> &'static BpfProgram {
    COMPILED.get_or_init(|| table::filter(0..=LAST, answer, Answer::Errno(libc::ENOSYS)))
}

/// Installs the filter in the calling process, for good.
pub(crate) fn install() -> io::Result<()> {
    seccompiler::apply_filter(compile()).map_err(io::Error::other)
}

/// Returns what a call answers.
fn answer(number: u32) -> Answer {
    let call = i64::from(number);
    let closed = CLOSED.iter().any(|(_, calls)| calls.contains(&call));
    if XATTR.contains(&call) {
        Answer::Errno(libc::ENOTSUP)
    } else if closed || !TABLE.iter().any(|range| range.contains(&number)) {
        Answer::Errno(libc::ENOSYS)
    } else {
        let refused = refused(call);
        if refused.is_empty() {
            Answer::Allow
        } else {
            Answer::Refuse(refused, libc::EPERM)
        }
    }
}

/// Returns for which arguments a call is refused: where all tests of a list hold.
fn refused(call: i64) -> Vec<Vec<Test>> {
    match call {
        // Setuid and setgid bits, wherever a mode is given (measured: `open` and `mknod` can
        // set them too). The mode of `open` counts only when a file may be created.
        libc::SYS_chmod
        | libc::SYS_fchmod
        | libc::SYS_creat
        | libc::SYS_mknod
        | libc::SYS_mkdir => {
            vec![vec![Any(1, SETUID_SETGID)]]
        }
        libc::SYS_fchmodat | libc::SYS_mknodat | libc::SYS_mkdirat => {
            vec![vec![Any(2, SETUID_SETGID)]]
        }
        libc::SYS_open => vec![vec![Any(1, CREATING), Any(2, SETUID_SETGID)]],
        libc::SYS_openat => vec![vec![Any(2, CREATING), Any(3, SETUID_SETGID)]],
        libc::SYS_clone => vec![vec![Any(0, NAMESPACES)]],
        libc::SYS_unshare => vec![vec![Any(0, NAMESPACES | NEWTIME)]],
        // Typing into a terminal, and the console's selection.
        libc::SYS_ioctl => vec![
            vec![Is(1, request(libc::TIOCSTI))],
            vec![Is(1, request(libc::TIOCLINUX))],
        ],
        // Local, IPv4, IPv6 and routing information; no other protocol family. Of netlink,
        // routing information alone: the rest configures or watches the machine.
        libc::SYS_socket => vec![
            vec![
                IsNot(0, UNIX),
                IsNot(0, libc::AF_INET.unsigned_abs()),
                IsNot(0, libc::AF_INET6.unsigned_abs()),
                IsNot(0, NETLINK),
            ],
            vec![Is(0, NETLINK), IsNot(2, libc::NETLINK_ROUTE.unsigned_abs())],
        ],
        libc::SYS_socketpair => vec![vec![IsNot(0, UNIX)]],
        _ => Vec::new(),
    }
}

fn request(number: libc::Ioctl) -> u32 {
    u32::try_from(number).expect("requests of terminals are short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_closes_what_it_says() {
        let number = |call: i64| u32::try_from(call).unwrap();
        for (reason, calls) in CLOSED {
            assert!(!reason.is_empty());
            for call in calls {
                assert_eq!(answer(number(*call)), Answer::Errno(libc::ENOSYS), "{call}");
            }
        }
        assert_eq!(answer(number(libc::SYS_execve)), Answer::Allow);
        assert_eq!(
            answer(number(libc::SYS_lsetxattr)),
            Answer::Errno(libc::ENOTSUP)
        );
        assert_eq!(answer(400), Answer::Errno(libc::ENOSYS));
        assert!(TABLE.iter().all(|range| *range.end() <= LAST));
    }

    #[test]
    fn the_filter_refuses_by_argument() {
        let program = compile();
        let asked = |call: i64, arguments: [u64; 6]| {
            let number = u32::try_from(call).unwrap();
            let answer = table::tests::asked(program, number, arguments);
            match answer & libc::SECCOMP_RET_ACTION_FULL {
                libc::SECCOMP_RET_ALLOW => 0,
                _ => answer & libc::SECCOMP_RET_DATA,
            }
        };
        let refused = u32::try_from(libc::EPERM).unwrap();
        let argument = |at: usize, value: u64| {
            let mut arguments = [0; 6];
            arguments[at] = value;
            arguments
        };
        // Where each call has its mode, as its manual page says.
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
            for bits in [0o4000, 0o2000, 0o6755, 0o104_644] {
                assert_eq!(
                    asked(call, argument(mode, bits)),
                    refused,
                    "{call} {bits:o}"
                );
            }
            for bits in [0, 0o1777, 0o100_644] {
                assert_eq!(asked(call, argument(mode, bits)), 0, "{call} {bits:o}");
            }
        }
        let flags = |flags: i32| u64::from(flags.unsigned_abs());
        for (call, first) in [(libc::SYS_open, 1), (libc::SYS_openat, 2)] {
            let open = |how: i32, mode: u64| {
                let mut arguments = argument(first, flags(how));
                arguments[first + 1] = mode;
                asked(call, arguments)
            };
            for creating in [libc::O_CREAT | libc::O_EXCL, libc::O_TMPFILE] {
                assert_eq!(open(creating | libc::O_RDWR, 0o4755), refused);
                assert_eq!(open(creating | libc::O_RDWR, 0o2755), refused);
                assert_eq!(open(creating | libc::O_RDWR, 0o1755), 0);
            }
            assert_eq!(open(libc::O_RDONLY | libc::O_DIRECTORY, 0o6755), 0);
        }
        for flag in [
            libc::CLONE_NEWNS,
            libc::CLONE_NEWCGROUP,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
        ] {
            for call in [libc::SYS_clone, libc::SYS_unshare] {
                let found = asked(call, argument(0, flags(flag | libc::CLONE_VM)));
                assert_eq!(found, refused, "{call} {flag:x}");
            }
        }
        let time = argument(0, flags(libc::CLONE_NEWTIME));
        assert_eq!(asked(libc::SYS_unshare, time), refused);
        assert_eq!(asked(libc::SYS_unshare, argument(0, 0x400)), 0);
        let thread = libc::CLONE_VM | libc::CLONE_THREAD | libc::SIGCHLD | 0x80;
        assert_eq!(asked(libc::SYS_clone, argument(0, flags(thread))), 0);
        for (value, expected) in [(0x5412, refused), (0x541c, refused), (0x5413, 0)] {
            assert_eq!(asked(libc::SYS_ioctl, argument(1, value)), expected);
        }
        for family in 0..64 {
            let local = flags(libc::AF_UNIX);
            let pair = asked(libc::SYS_socketpair, argument(0, family));
            assert_eq!(pair == 0, family == local, "{family}");
            let [inet, inet6, netlink] =
                [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(flags);
            for protocol in [0, 1, 15, 16] {
                let mut arguments = argument(0, family);
                arguments[2] = protocol;
                let open =
                    [local, inet, inet6].contains(&family) || (family == netlink && protocol == 0);
                let found = asked(libc::SYS_socket, arguments);
                assert_eq!(found == 0, open, "{family} {protocol}");
            }
        }
    }
}
