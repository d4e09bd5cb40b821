//! Who the processes are, inside and outside, and what they may do.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use nix::sys::resource::{Resource as Kernel, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Gid, Pid, Uid};
use nix::{libc, unistd};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
};

use crate::mounts::{self, Captured};
use crate::request::Clocks;
use crate::step::Resource;
use crate::sys;

/// The user and group that root's sandboxes have outside: from a range that distributions
/// and container engines leave alone, so that it owns no file and no other process.
pub(crate) const OUTSIDE: u32 = 1_879_100_000;

/// Becomes [`OUTSIDE`], and makes it the owner of the pipes and terminals that the program is
/// given. What was captured must appear as its own; a file system that cannot do that keeps its
/// owners, which is enough for reading what everyone may read, and not for writing. Returns
/// whether all could be done; if not, nothing has changed but that nothing is mapped.
///
/// Capabilities outside stay until the user namespace is entered, which takes them: a host
/// that lets only root make namespaces lets root's sandboxes be.
pub(crate) fn leave_root(
    can_map: bool,
    captured: &mut VecDeque<Captured>,
    streams: &[BorrowedFd<'_>],
) -> io::Result<bool> {
    if !can_map {
        return Ok(false);
    }
    if !captured.iter().all(Captured::serves) {
        for one in captured {
            *one = mounts::capture(&one.source, one.access, None)?;
        }
        return Ok(false);
    }
    for stream in streams {
        // Its owner alone may open a pipe or a terminal again, as `/dev/stdout` does.
        let (uid, gid) = (Uid::from_raw(OUTSIDE), Gid::from_raw(OUTSIDE));
        unistd::fchown(stream, Some(uid), Some(gid))?;
    }
    become_outside()?;
    Ok(true)
}

/// Becomes [`OUTSIDE`], and keeps the capabilities.
pub(crate) fn become_outside() -> io::Result<()> {
    set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    let (uid, gid) = (Uid::from_raw(OUTSIDE), Gid::from_raw(OUTSIDE));
    unistd::setgroups(&[])?;
    unistd::setresgid(gid, gid, gid)?;
    unistd::setresuid(uid, uid, uid)?;
    // Who changes its ids loses its own entries in `/proc`, which the maps are written to.
    Ok(nix::sys::prctl::set_dumpable(true)?)
}

/// Where the offsets are read and written of a time namespace that no process is in yet.
const OFFSETS: &str = "/proc/self/timens_offsets";

/// The offsets of the time namespace that the server is in, and all that it forks.
static INHERITED: OnceLock<String> = OnceLock::new();

/// Reads the offsets that new namespaces begin with, so that processes forked from here
/// need not. Why they cannot be read is told when clocks are to be set.
pub(crate) fn read_clocks() {
    drop(inherited_offsets());
}

fn inherited_offsets() -> io::Result<&'static str> {
    if let Some(offsets) = INHERITED.get() {
        return Ok(offsets);
    }
    let offsets = std::fs::read_to_string(OFFSETS)?;
    Ok(INHERITED.get_or_init(|| offsets))
}

/// Sets the clocks of a time namespace that no process is in yet.
pub(crate) fn set_clocks(clocks: Clocks) -> io::Result<()> {
    // A new namespace begins with the offsets of the caller's own, in which its clocks are
    // read here; offsets always count from the machine's clocks.
    let inherited = inherited_offsets()?;
    let mut offsets = String::new();
    for (name, clock, wanted) in [
        (
            "monotonic",
            ClockId::CLOCK_MONOTONIC,
            clocks.monotonic_seconds,
        ),
        ("boottime", ClockId::CLOCK_BOOTTIME, clocks.boot_seconds),
    ] {
        let now = clock_gettime(clock)?;
        let nanoseconds = inherited_offset(inherited, name)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?
            + i128::from(wanted) * SECOND
            - (i128::from(now.tv_sec()) * SECOND + i128::from(now.tv_nsec()));
        let (seconds, rest) = (
            nanoseconds.div_euclid(SECOND),
            nanoseconds.rem_euclid(SECOND),
        );
        offsets.push_str(&format!("{name} {seconds} {rest}\n"));
    }
    std::fs::write(OFFSETS, offsets)
}

/// One, in nanoseconds.
const SECOND: i128 = 1_000_000_000;

/// Reads a line of a name, seconds and nanoseconds; returns nanoseconds.
fn inherited_offset(text: &str, name: &str) -> Option<i128> {
    let mut words = text
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_whitespace();
    let mut number = || words.next()?.parse::<i128>().ok();
    Some(number()? * SECOND + number()?)
}

/// Maps one user and one group of the new user namespace to who this process was outside.
pub(crate) fn map_ids(uid: u32, gid: u32, (outer_uid, outer_gid): (Uid, Gid)) -> io::Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {outer_uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {outer_gid} 1"))
}

/// Lets the next process of this PID namespace have a number.
pub(crate) fn next_pid(pid: u32) -> io::Result<()> {
    std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())
}

/// Joins a session keyring that is new, empty, and gone with the run.
pub(crate) fn new_keyring() -> io::Result<()> {
    match sys::join_new_keyring() {
        // A kernel without keyrings has none to share.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other,
    }
}

/// What changing ids takes inside a range of them, and nothing else:
///
/// | capability | what for |
/// |---|---|
/// | `CAP_SETUID`, `CAP_SETGID` | becoming another user, another group, and leaving groups |
/// | `CAP_CHOWN` | giving files to them |
/// | `CAP_FOWNER` | modes and times of files that were given away: `tar` and `install` set the owner first |
/// | `CAP_DAC_OVERRIDE` | entering, changing and deleting what they own |
///
/// Each holds for files and processes whose ids are in the range, and for none other.
pub(crate) const OVER_IDS: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID);

/// Gives up every capability but those over ids, and every way to regain one. Who becomes
/// another user keeps them; who becomes user 0 and then another loses them, as everywhere.
pub(crate) fn keep_id_capabilities() -> io::Result<()> {
    bound(OVER_IDS)?;
    let all = capabilities(None)?;
    set_capabilities(
        None,
        CapabilitySets {
            inheritable: OVER_IDS,
            ..all
        },
    )?;
    for capability in OVER_IDS.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    // Programs that change users (setpriv, many daemons) ask to keep capabilities meanwhile,
    // and give up when they may not ask. There are no others than these to keep.
    let open = CapabilitiesSecureBits::NO_SETUID_FIXUP | CapabilitiesSecureBits::KEEP_CAPS_LOCKED;
    set_capabilities_secure_bits(LOCKED.difference(open))?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: OVER_IDS,
            permitted: OVER_IDS,
            inheritable: OVER_IDS,
        },
    )?;
    Ok(())
}

/// Ways to regain capabilities, closed for good.
const LOCKED: CapabilitiesSecureBits = CapabilitiesSecureBits::NO_ROOT
    .union(CapabilitiesSecureBits::NO_ROOT_LOCKED)
    .union(CapabilitiesSecureBits::NO_SETUID_FIXUP)
    .union(CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED)
    .union(CapabilitiesSecureBits::KEEP_CAPS_LOCKED)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED);

/// Returns every capability that a kernel can have, those without a name yet too.
pub(crate) fn every_capability() -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number))
}

/// Lets this process and what it starts have no capabilities beyond these.
fn bound(keep: CapabilitySet) -> io::Result<()> {
    for capability in every_capability().filter(|capability| !keep.contains(*capability)) {
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first that this kernel does not know: it and all that follow cannot be
            // gained either.
            Err(rustix::io::Errno::INVAL) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Gives up every capability, and every way to regain one.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    bound(CapabilitySet::empty())?;
    set_capabilities_secure_bits(LOCKED)?;
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    Ok(())
}

/// Sets a limit, or the caller's own where that is lower.
pub(crate) fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let kernel = match resource {
        Resource::CoreBytes => Kernel::RLIMIT_CORE,
        Resource::StackBytes => Kernel::RLIMIT_STACK,
        Resource::Processes => Kernel::RLIMIT_NPROC,
        Resource::OpenFiles => Kernel::RLIMIT_NOFILE,
        Resource::FileBytes => Kernel::RLIMIT_FSIZE,
        Resource::MemoryBytes => Kernel::RLIMIT_AS,
    };
    let (_, hard) = getrlimit(kernel)?;
    let value = value.min(hard);
    Ok(setrlimit(kernel, value, value)?)
}

/// Restricts the process to some processors.
pub(crate) fn choose_processors(cores: &BTreeSet<usize>) -> io::Result<()> {
    let mut set = nix::sched::CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    Ok(nix::sched::sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Adds to what the kernel pretends to the process.
pub(crate) fn add_personality(persona: nix::sys::personality::Persona) -> io::Result<()> {
    use nix::sys::personality::{get, set};
    Ok(set(get()? | persona).map(drop)?)
}
