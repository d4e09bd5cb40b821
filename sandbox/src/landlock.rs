//! Landlock: a second guard on what may be written, and a fence around signals and
//! abstract sockets.
//!
//! Mounts already keep a build from writing elsewhere; Landlock keeps it from doing so
//! where a mount was forgotten. Reading and executing are not restricted: whatever is in
//! the tree was put there to be read. See the kernel's `Documentation/userspace-api/landlock.rst`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::libc;
use rustix::fs::{Mode, OFlags, open};

use crate::sys;

/// The rights to change files, by the version of the interface that knows them.
const WRITE_FILE: u64 = 1 << 1;
const VERSION_1: u64 = WRITE_FILE | REMOVE | MAKE;
const REMOVE: u64 = 1 << 4 | 1 << 5;
const MAKE: u64 = 1 << 6 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEVICE: u64 = 1 << 15;

/// What a rule about a file that is no directory can hold.
const OF_FILES: u64 = WRITE_FILE | TRUNCATE | IOCTL_DEVICE;

/// Abstract sockets and signals.
const SCOPES: u64 = 1 << 0 | 1 << 1;

/// Returns the version of Landlock that works here; `None` where there is none.
///
/// # Errors
/// When the kernel answers anything but a version or "not here".
pub(crate) fn version() -> io::Result<Option<u32>> {
    match sys::landlock_version() {
        Ok(version) => Ok(Some(version)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Lets this process and what it starts write to these trees and files, and to its
/// terminal, and to nothing else. Returns whether there is a Landlock to do so.
pub(crate) fn restrict(
    trees: &[String],
    files: &[String],
    terminal: BorrowedFd<'_>,
) -> io::Result<bool> {
    let Some(version) = version()? else {
        return Ok(false);
    };
    let rights = rights(version);
    let rules = sys::landlock_create(rights, if version >= 6 { SCOPES } else { 0 })?;
    for (paths, rights) in [(trees, rights), (files, rights & OF_FILES)] {
        for path in paths {
            let at = open(path.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            sys::landlock_allow(&rules, at.as_fd(), rights)?;
        }
    }
    if rustix::termios::isatty(terminal) {
        sys::landlock_allow(&rules, terminal, rights & OF_FILES)?;
    }
    sys::landlock_restrict(&rules)?;
    Ok(true)
}

fn rights(version: u32) -> u64 {
    let mut rights = VERSION_1;
    for (since, right) in [(2, REFER), (3, TRUNCATE), (5, IOCTL_DEVICE)] {
        if version >= since {
            rights |= right;
        }
    }
    rights
}
