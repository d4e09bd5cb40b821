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

use crate::identity::OVER_IDS;
use crate::range::COUNT;
use crate::request::Ids;

/// A lock that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lock {
    /// A new user namespace could be made, and with it every capability regained.
    UserNamespace,
    /// A set of capabilities is not empty; with a range of ids, not what that takes.
    Capabilities,
    /// There are other ids than those of the range, or they are numbered otherwise.
    Ids,
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
            Self::Ids => write!(f, "there are other ids than were asked for"),
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
const STATUS: [(&str, Expected, Lock); 7] = [
    ("CapInh:", Expected::Capabilities, Lock::Capabilities),
    ("CapPrm:", Expected::Capabilities, Lock::Capabilities),
    ("CapEff:", Expected::Capabilities, Lock::Capabilities),
    ("CapBnd:", Expected::Capabilities, Lock::Capabilities),
    ("CapAmb:", Expected::Capabilities, Lock::Capabilities),
    ("NoNewPrivs:", Expected::Word("1"), Lock::NoNewPrivileges),
    ("Seccomp:", Expected::Word("2"), Lock::Filters),
];

#[derive(Clone, Copy)]
enum Expected {
    Capabilities,
    Word(&'static str),
}

impl Expected {
    fn word(self, ids: Ids) -> String {
        match (self, ids) {
            (Self::Capabilities, Ids::One) => format!("{:016x}", 0),
            (Self::Capabilities, Ids::Range) => format!("{:016x}", OVER_IDS.bits()),
            (Self::Word(word), _) => word.to_owned(),
        }
    }
}

/// Names of the directory that nobody can make.
const FORBIDDEN: &str = "/.written";

/// Tries every lock, and returns the first that does not hold.
pub(crate) fn check(read_only: &[String], ids: Ids) -> Result<(), Lock> {
    // First, since the next would succeed without it.
    status(&read("/proc/self/status")?, ids)?;
    if ids == Ids::Range {
        for map in ["/proc/self/uid_map", "/proc/self/gid_map"] {
            same_numbers(&read(map)?)?;
        }
    }
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

/// A map has a line for each row of ids: the first inside, the first outside, how many. The
/// rows must follow one another and be the range, all under their own numbers.
fn same_numbers(map: &str) -> Result<(), Lock> {
    let end = map.lines().try_fold(0, |next: u32, line| {
        let mut words = line.split_whitespace().map(str::parse::<u32>);
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count)), None)
                if (inside, outside) == (next, next) =>
            {
                next.checked_add(count)
            }
            _ => None,
        }
    });
    if end == Some(COUNT) {
        Ok(())
    } else {
        Err(Lock::Ids)
    }
}

fn status(text: &str, ids: Ids) -> Result<(), Lock> {
    for (name, expected, lock) in STATUS {
        let expected = expected.word(ids);
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim);
        if found != Some(expected.as_str()) {
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
        for ids in [Ids::One, Ids::Range] {
            let line = |name: &str, value: &str| format!("{name}\t{value}\n");
            let good: String = STATUS
                .iter()
                .map(|(name, value, _)| line(name, &value.word(ids)))
                .collect::<Vec<_>>()
                .concat();
            assert_eq!(status(&good, ids), Ok(()));
            for (name, value, lock) in STATUS {
                let found = line(name, &value.word(ids));
                assert_eq!(status(&good.replace(&found, ""), ids), Err(lock.clone()));
                let other = line(name, "0000000000000400");
                assert_eq!(status(&good.replace(&found, &other), ids), Err(lock));
            }
        }
        assert_eq!(Expected::Capabilities.word(Ids::Range), "00000000000000cb");
    }

    #[test]
    fn other_ids_are_seen() {
        for good in [
            "         0          0      65536\n",
            "0 0 1000\n1000 1000 1\n1001 1001 64535\n",
        ] {
            assert_eq!(same_numbers(good), Ok(()), "{good}");
        }
        for other in [
            "",
            "0 0 65535\n",
            "0 0 4294967295\n",
            "0 1000 65536\n",
            "0 0 1000\n1000 1001 1\n1001 1001 64535\n",
            "0 0 1000\n1001 1001 64535\n",
            "0 0 65536\n65536 65536 1\n",
            "0 0 65536 0\n",
            "0 0 x\n",
        ] {
            assert_eq!(same_numbers(other), Err(Lock::Ids), "{other}");
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
