//! Tries the locks from inside, as the last thing before the program runs.
//!
//! Closing a door and finding it closed are two things. What is tried here is tried by the
//! builder itself, with the privileges that the program will have.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use nix::errno::Errno;
use rustix::fs::{CWD, Mode, StatVfsMountFlags, mkdirat, statvfs};
use serde::{Deserialize, Serialize};

/// A lock that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lock {
    /// A new user namespace could be made, and with it every capability regained.
    UserNamespace,
    /// A set of capabilities is not empty.
    Capabilities,
    /// Executing a file could grant privileges.
    NoNewPrivileges,
    /// System calls are not filtered.
    Filters,
    /// `/` can be written to.
    Root,
    /// An input, `/` or `/proc` is not mounted read-only.
    ReadOnly(String),
    /// There is an interface beside loopback.
    Network,
    /// The host's root is still mounted.
    OldRoot,
    /// A lock could not be tried.
    Untried(String),
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserNamespace => write!(f, "a new user namespace can be made"),
            Self::Capabilities => write!(f, "a capability is left"),
            Self::NoNewPrivileges => write!(f, "new privileges can be gained"),
            Self::Filters => write!(f, "system calls are not filtered"),
            Self::Root => write!(f, "`/` can be written to"),
            Self::ReadOnly(path) => write!(f, "`{path}` is not read-only"),
            Self::Network => write!(f, "there is a network beside loopback"),
            Self::OldRoot => write!(f, "the host's root is still there"),
            Self::Untried(what) => write!(f, "`{what}` could not be read"),
        }
    }
}

/// What the kernel says of the process when every lock holds.
const STATUS: [(&str, &str, Lock); 7] = [
    ("CapInh:", NO_CAPABILITY, Lock::Capabilities),
    ("CapPrm:", NO_CAPABILITY, Lock::Capabilities),
    ("CapEff:", NO_CAPABILITY, Lock::Capabilities),
    ("CapBnd:", NO_CAPABILITY, Lock::Capabilities),
    ("CapAmb:", NO_CAPABILITY, Lock::Capabilities),
    ("NoNewPrivs:", "1", Lock::NoNewPrivileges),
    ("Seccomp:", "2", Lock::Filters),
];

const NO_CAPABILITY: &str = "0000000000000000";

/// Names of the directory that nobody can make.
const FORBIDDEN: &str = "/.written";

/// Tries every lock, and returns the first that does not hold.
pub(crate) fn check(read_only: &[String]) -> Result<(), Lock> {
    // First, since the next would succeed without it.
    status(&read("/proc/self/status")?)?;
    if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER) != Err(Errno::EPERM) {
        return Err(Lock::UserNamespace);
    }
    if mkdirat(CWD, FORBIDDEN, Mode::RWXU).is_ok() {
        return Err(Lock::Root);
    }
    for path in read_only {
        let mount = statvfs(path.as_str()).map_err(|_| Lock::Untried(path.clone()))?;
        if !mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(Lock::ReadOnly(path.clone()));
        }
    }
    interfaces(&read("/proc/self/net/dev")?)?;
    roots(&read("/proc/self/mountinfo")?)
}

fn read(path: &str) -> Result<String, Lock> {
    let read = || -> io::Result<String> {
        let mut text = String::with_capacity(8192);
        File::open(path)?.read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|_| Lock::Untried(path.to_owned()))
}

fn status(text: &str) -> Result<(), Lock> {
    for (name, expected, lock) in STATUS {
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim);
        if found != Some(expected) {
            return Err(lock);
        }
    }
    Ok(())
}

/// The first two lines are headings; then each line starts with an interface.
fn interfaces(text: &str) -> Result<(), Lock> {
    let others = text
        .lines()
        .skip(2)
        .any(|line| line.trim_start().split(':').next() != Some("lo"));
    if others { Err(Lock::Network) } else { Ok(()) }
}

/// The fifth field of each line is where a mount is; the old root was at `/` too.
fn roots(text: &str) -> Result<(), Lock> {
    let roots = text
        .lines()
        .filter(|line| line.split(' ').nth(4) == Some("/"))
        .count();
    if roots == 1 {
        Ok(())
    } else {
        Err(Lock::OldRoot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_of_the_status_counts() {
        let good: String = STATUS
            .iter()
            .map(|(name, value, _)| format!("{name}\t{value}\n"))
            .collect::<Vec<_>>()
            .concat();
        assert_eq!(status(&good), Ok(()));
        for (name, value, lock) in STATUS {
            let line = format!("{name}\t{value}\n");
            assert_eq!(status(&good.replace(&line, "")), Err(lock.clone()));
            let other = format!("{name}\t0000000000000400\n");
            assert_eq!(status(&good.replace(&line, &other)), Err(lock));
        }
    }

    #[test]
    fn an_interface_and_a_second_root_are_seen() {
        let heading = "Inter-| Receive\n face |bytes\n";
        assert_eq!(interfaces(&format!("{heading}    lo: 0 0\n")), Ok(()));
        assert_eq!(
            interfaces(&format!("{heading}    lo: 0 0\n  eth0: 0\n")),
            Err(Lock::Network)
        );
        let root = "20 1 0:5 / / ro - tmpfs none rw\n";
        assert_eq!(roots(root), Ok(()));
        assert_eq!(roots(&root.repeat(2)), Err(Lock::OldRoot));
        assert_eq!(roots(""), Err(Lock::OldRoot));
    }
}
