//! Uses one feature of the host in a process of its own, which nothing outlives.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};

use crate::launch::Launcher;
use crate::{group, identity, namespaces, seccomp};

/// The argument that turns this executable into a trial.
pub(crate) const TRIAL_ARGUMENT: &str = "__kiln-sandbox-trial";

/// What is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trial {
    /// A user namespace, and others in it, by their flags.
    Namespaces(i32),
    /// The system call filters.
    Filters,
    /// Ids of a namespace that root's files could be shown with.
    IdMap,
    /// Joining a control group.
    Join(PathBuf),
}

/// Tries something; the error is the system's own.
pub(crate) fn perform(launcher: &Launcher, trial: Trial) -> io::Result<()> {
    let word = match trial {
        Trial::Namespaces(flags) => flags.to_string(),
        Trial::Filters => FILTERS.to_owned(),
        Trial::IdMap => ID_MAP.to_owned(),
        Trial::Join(group) => format!("{JOIN}{}", group.display()),
    };
    let status = Command::new(launcher.program())
        .arg0("kiln")
        .args([TRIAL_ARGUMENT, &word])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    match status.code() {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::Error::other(status.to_string())),
    }
}

const FILTERS: &str = "filters";
const ID_MAP: &str = "id-map";
const JOIN: &str = "join:";

/// As the trial: does it, and returns the exit status, which is the system's error number.
pub(crate) fn answer(word: &str) -> i32 {
    let done = match word {
        FILTERS => install_filters(),
        ID_MAP => namespaces::id_map().map(drop),
        word => match word.strip_prefix(JOIN) {
            Some(group) => group::join(group.as_ref()),
            None => enter(word),
        },
    };
    match done {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(libc::EINVAL),
    }
}

fn enter(flags: &str) -> io::Result<()> {
    let flags: i32 = flags.parse().map_err(io::Error::other)?;
    let outside = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    // As in a sandbox: the caller is the only user there is.
    identity::map_ids(0, 0, outside)?;
    Ok(unshare(CloneFlags::from_bits_retain(flags))?)
}

fn install_filters() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    seccomp::install()
}
