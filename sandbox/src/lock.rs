//! Tries the locks from inside, as the last thing before the program runs.
//!
//! Closing a door and finding it closed are two things. What is tried here is tried by the
//! builder itself, with the privileges that the program will have.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use nix::errno::Errno;
use rustix::fs::{AtFlags, CWD, Mode, StatxFlags, chownat, mkdirat, statx};
use rustix::thread::{
    CapabilitySet, SecureComputingMode, capabilities, capability_is_in_ambient_set,
    capability_is_in_bounding_set, no_new_privs, secure_computing_mode,
};
use serde::{Deserialize, Serialize};

use crate::identity::{self, OVER_IDS};
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

/// What the kernel lets this process do. Asked for call by call: to have it written as text
/// in `/proc` takes several times as long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    inheritable: CapabilitySet,
    permitted: CapabilitySet,
    effective: CapabilitySet,
    bounding: CapabilitySet,
    ambient: CapabilitySet,
    no_new_privileges: bool,
    calls: SecureComputingMode,
}

impl Held {
    fn current() -> io::Result<Self> {
        let sets = capabilities(None)?;
        let (mut bounding, mut ambient) = (CapabilitySet::empty(), CapabilitySet::empty());
        for capability in identity::every_capability() {
            match capability_is_in_bounding_set(capability) {
                Ok(held) => bounding.set(capability, held),
                // The first that this kernel does not know; so are all that follow.
                Err(rustix::io::Errno::INVAL) => break,
                Err(errno) => return Err(errno.into()),
            }
            ambient.set(capability, capability_is_in_ambient_set(capability)?);
        }
        Ok(Self {
            inheritable: sets.inheritable,
            permitted: sets.permitted,
            effective: sets.effective,
            bounding,
            ambient,
            no_new_privileges: no_new_privs()?,
            calls: secure_computing_mode()?,
        })
    }

    fn judge(&self, ids: Ids) -> Result<(), Lock> {
        let allowed = match ids {
            Ids::One => CapabilitySet::empty(),
            Ids::Range => OVER_IDS,
        };
        let sets = [
            self.inheritable,
            self.permitted,
            self.effective,
            self.bounding,
            self.ambient,
        ];
        if sets != [allowed; 5] {
            Err(Lock::Capabilities)
        } else if !self.no_new_privileges {
            Err(Lock::NoNewPrivileges)
        } else if self.calls != SecureComputingMode::Filter {
            Err(Lock::Filters)
        } else {
            Ok(())
        }
    }
}

/// Names of the directory that nobody can make.
const FORBIDDEN: &str = "/.written";

/// Tries every lock, and returns the first that does not hold.
pub(crate) fn check(read_only: &[String], ids: Ids) -> Result<(), Lock> {
    // First, since the next would succeed without it.
    let privileges = Held::current();
    let privileges = privileges.map_err(|_| Lock::Untried("its own privileges".to_owned()))?;
    privileges.judge(ids)?;
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
        // An owner that stays as it is. Whether there may be writing at all is judged first.
        match chownat(CWD, path.as_str(), None, None, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::ROFS) => {}
            Ok(()) | Err(rustix::io::Errno::PERM) => return Err(Lock::ReadOnly(path.clone())),
            Err(_) => return Err(Lock::Untried(path.clone())),
        }
    }
    interfaces(&read("/proc/self/net/dev")?)?;
    old_root()
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

/// The first two lines are headings; then each line starts with an interface.
fn interfaces(text: &str) -> Result<(), Lock> {
    let others = text
        .lines()
        .skip(2)
        .any(|line| line.trim_start().split(':').next() != Some("lo"));
    if others { Err(Lock::Network) } else { Ok(()) }
}

/// The old root lay on top of the new one when that took its place. The way up from `/` leads
/// back to `/`, and from there to whatever still lies on top.
fn old_root() -> Result<(), Lock> {
    let mount = |path: &str| -> io::Result<u64> {
        let found = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?;
        if found.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(found.stx_mnt_id)
    };
    let untried = |_| Lock::Untried("/..".to_owned());
    if mount("/").map_err(untried)? == mount("/..").map_err(untried)? {
        Ok(())
    } else {
        Err(Lock::OldRoot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_privilege_counts() {
        let other = CapabilitySet::NET_RAW;
        for (ids, allowed) in [(Ids::One, CapabilitySet::empty()), (Ids::Range, OVER_IDS)] {
            let good = Held {
                inheritable: allowed,
                permitted: allowed,
                effective: allowed,
                bounding: allowed,
                ambient: allowed,
                no_new_privileges: true,
                calls: SecureComputingMode::Filter,
            };
            assert_eq!(good.judge(ids), Ok(()));
            let sets: [fn(&mut Held) -> &mut CapabilitySet; 5] = [
                |held| &mut held.inheritable,
                |held| &mut held.permitted,
                |held| &mut held.effective,
                |held| &mut held.bounding,
                |held| &mut held.ambient,
            ];
            for set in sets {
                let mut more = good;
                set(&mut more).insert(other);
                assert_eq!(more.judge(ids), Err(Lock::Capabilities), "{more:?}");
                let mut changed = good;
                set(&mut changed).toggle(CapabilitySet::CHOWN);
                assert_eq!(changed.judge(ids), Err(Lock::Capabilities), "{changed:?}");
            }
            let free = Held {
                no_new_privileges: false,
                ..good
            };
            assert_eq!(free.judge(ids), Err(Lock::NoNewPrivileges));
            for calls in [SecureComputingMode::Disabled, SecureComputingMode::Strict] {
                let unfiltered = Held { calls, ..good };
                assert_eq!(unfiltered.judge(ids), Err(Lock::Filters));
            }
        }
        assert_eq!(OVER_IDS.bits(), 0xcb);
    }

    #[test]
    fn the_kernel_tells_what_its_text_tells() {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
        };
        let held = Held::current().unwrap();
        for (name, set) in [
            ("CapInh:", held.inheritable),
            ("CapPrm:", held.permitted),
            ("CapEff:", held.effective),
            ("CapBnd:", held.bounding),
            ("CapAmb:", held.ambient),
        ] {
            assert_eq!(set.bits(), number(name), "{name}");
        }
        assert_eq!(u64::from(held.no_new_privileges), number("NoNewPrivs:"));
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
    fn another_interface_is_seen() {
        let heading = "Inter-| Receive\n face |bytes\n";
        assert_eq!(interfaces(&format!("{heading}    lo: 0 0\n")), Ok(()));
        assert_eq!(
            interfaces(&format!("{heading}    lo: 0 0\n  eth0: 0\n")),
            Err(Lock::Network)
        );
    }
}
