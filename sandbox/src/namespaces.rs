//! Namespaces: those that a run enters, and some that are made before there is a run.
//!
//! A network namespace takes the kernel longer than all the others together, and nothing in
//! it depends on the run. So the monitor that waits for one has a few made ahead
//! ([`Reserve`]). They serve one run and no other: they are held by the process that
//! becomes its monitor.
//!
//! A process that enters a user namespace cannot come back, and root's monitor has more to
//! do outside. So they are made by another one, the holder, which ends when the monitor has
//! hold of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;

use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Pid, Uid};

use crate::identity::{self, OUTSIDE};
use crate::request::Weakness;
use crate::step::Entry;
use crate::sys;

/// What can be made ahead, the user namespace first: it owns the others. One of mounts
/// would show what was mounted then; those of processes and time are entered by children
/// alone, after the run has set them.
const RESERVED: [(CloneFlags, &str); 3] = [
    (CloneFlags::CLONE_NEWUSER, "user"),
    (CloneFlags::CLONE_NEWNET, "net"),
    (CloneFlags::CLONE_NEWIPC, "ipc"),
];

fn reserved() -> CloneFlags {
    RESERVED.iter().map(|(flag, _)| *flag).collect()
}

/// Namespaces made ahead, which no process is in.
pub(crate) struct Reserve {
    /// Who made them: nobody else can write the maps of the user namespace.
    owner: Uid,
    /// In the order of [`RESERVED`].
    namespaces: Vec<OwnedFd>,
}

impl Reserve {
    /// Makes namespaces for a process that leaves root before it enters them, or for one
    /// that stays who it is.
    ///
    /// # Errors
    /// The system's. A run that enters new ones instead fails the same way and says why.
    pub(crate) fn make(leaves_root: bool) -> io::Result<Self> {
        let enter = || {
            if leaves_root {
                identity::become_outside()?;
            }
            unshare(reserved())?;
            // A host may let anyone make namespaces and then confine who did (as Ubuntu 24.04
            // does). This process is confined then, and the monitor would not be: what the
            // host withholds from the one, the other must not use.
            sys::loopback_up()
        };
        let take = |holder: Pid| {
            let open = |(_, name)| File::open(format!("/proc/{holder}/ns/{name}"));
            RESERVED
                .into_iter()
                .map(|one| open(one).map(OwnedFd::from))
                .collect()
        };
        let owner = if leaves_root {
            Uid::from_raw(OUTSIDE)
        } else {
            Uid::effective()
        };
        let namespaces = with_holder(enter, take)?;
        Ok(Self { owner, namespaces })
    }

    /// Enters them if they are this process's to enter; returns what it is in now: all or
    /// nothing.
    fn enter(self) -> io::Result<CloneFlags> {
        if self.owner != Uid::effective() {
            return Ok(CloneFlags::empty());
        }
        let mut entered = CloneFlags::empty();
        for (namespace, (flag, _)) in self.namespaces.into_iter().zip(RESERVED) {
            match setns(namespace, flag) {
                Ok(()) => entered |= flag,
                Err(_) if entered.is_empty() => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(entered)
    }
}

/// Returns a user namespace in which root is [`OUTSIDE`], as a map for mounts; nothing
/// where this process may not make one.
pub(crate) fn id_map() -> io::Result<OwnedFd> {
    let enter = || Ok(unshare(CloneFlags::CLONE_NEWUSER)?);
    with_holder(enter, |holder| {
        let process = format!("/proc/{holder}");
        std::fs::write(format!("{process}/uid_map"), format!("0 {OUTSIDE} 1"))?;
        std::fs::write(format!("{process}/gid_map"), format!("0 {OUTSIDE} 1"))?;
        Ok(File::open(format!("{process}/ns/user"))?.into())
    })
}

/// Lets another process enter something, takes from it what is to be kept, and ends it.
fn with_holder<T>(
    enter: impl FnOnce() -> io::Result<()>,
    take: impl FnOnce(Pid) -> io::Result<T>,
) -> io::Result<T> {
    let (ready, ready_writer) = io::pipe()?;
    let (over, over_writer) = io::pipe()?;
    let Some(holder) = sys::fork()? else {
        drop((ready, over_writer));
        let entered = enter().and_then(|()| Ok(rustix::io::write(&ready_writer, b"!")?));
        // The other end is closed when all is taken, or when who would take it is dead.
        let waited = entered.and_then(|_| (&over).read(&mut [0]));
        sys::exit_now(i32::from(waited.is_err()))
    };
    drop((ready_writer, over));
    let taken = (&ready).read_exact(&mut [0]).and_then(|()| take(holder));
    drop(over_writer);
    sys::wait_any(holder.as_raw())?;
    taken
}

/// Enters a namespace of each kind that no other process is in, and returns the kinds that
/// this host does not give: its kernel was built without them, or a setting allows none.
///
/// That of processes is one that only children enter.
pub(crate) fn enter(processes: Entry, reserve: Option<Reserve>) -> io::Result<BTreeSet<Weakness>> {
    let entered = reserve.map_or(Ok(CloneFlags::empty()), Reserve::enter)?;
    let of_processes = match processes {
        Entry::Now => CloneFlags::CLONE_NEWPID,
        Entry::Later => CloneFlags::empty(),
    };
    let needed = of_processes
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | reserved().difference(entered);
    let optional = [
        (CloneFlags::CLONE_NEWCGROUP, Weakness::CgroupNamespace),
        (
            CloneFlags::from_bits_retain(libc::CLONE_NEWTIME),
            Weakness::TimeNamespace,
        ),
    ];
    let all = optional.iter().fold(needed, |all, (flag, _)| all | *flag);
    if unshare(all).is_ok() {
        return Ok(BTreeSet::new());
    }
    // The call does all or nothing; what is wrong with the others is told by this one.
    unshare(needed)?;
    Ok(optional
        .into_iter()
        .filter(|(flag, _)| unshare(*flag).is_err())
        .map(|(_, weakness)| weakness)
        .collect())
}

/// Lets the next child be process 1 of a new namespace.
pub(crate) fn enter_process_namespace() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWPID)?)
}
