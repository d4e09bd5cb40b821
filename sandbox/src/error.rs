//! Why a run did not happen, and what on this host is in its way.

use std::io;
use std::path::PathBuf;

use crate::lock::Lock;
use crate::range::NoRange;
use crate::request::Weakness;
use crate::validate::RequestError;

/// A run that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The request asks for what cannot be.
    #[error("the sandbox request is not valid")]
    Request(#[from] RequestError),
    /// The child could not be started.
    #[error("cannot start `{}` as the sandbox", program.display())]
    Spawn {
        /// The executable.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host forbids what a sandbox needs.
    #[error("this machine does not allow an ordinary user to {step}")]
    Forbidden {
        /// What was tried.
        step: String,
        /// What to change, in words.
        setting: String,
        /// What the system said.
        source: io::Error,
    },
    /// A step failed.
    #[error("the sandbox could not {step}")]
    Step {
        /// What was tried.
        step: String,
        /// What the system said.
        source: io::Error,
    },
    /// The host lacks something that the request does not do without.
    #[error("this machine does not provide {missing}")]
    Weaker {
        /// What is missing.
        missing: Weakness,
    },
    /// The caller has no range of ids, which the request asks for.
    #[error("this machine gives its user no range of ids")]
    NoRange(#[from] NoRange),
    /// The program that maps ids refused to, or the kernel's file that root writes them to.
    #[error("`{by}` gives the sandbox no range of ids: {said}")]
    Unmapped {
        /// Which program, or which file.
        by: String,
        /// What it said.
        said: String,
    },
    /// A lock did not hold when it was tried, so the program did not run.
    #[error("the sandbox is not closed: {lock}")]
    Open {
        /// Which lock.
        lock: Lock,
    },
    /// The supervisor failed, and the run was ended.
    #[error("the sandbox's supervisor could not {what}")]
    Supervision {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The child ended without a word.
    #[error("the sandbox ended without saying how the build ended")]
    Silent,
    /// Reading from the child failed.
    #[error("lost the connection to the sandbox")]
    Connection(#[source] io::Error),
}

/// What a supervisor needs of the host.
const SUPERVISOR: &str = "a supervisor needs Linux 5.19 or later (6.9 where threads with \
     descriptors of their own list directories), and a host that lets its own processes be \
     traced and filtered";

/// What keeps a program that maps ids from doing so.
const UNMAPPED: &str = "let `newuidmap` and `newgidmap` have their privilege (setuid root, or file \
     capabilities), on a file system mounted without `nosuid`, and start kiln without \
     `no_new_privs`, as a user with the group that `/etc/passwd` says; in a container, lend ids \
     that the container itself has";

impl SandboxError {
    /// Returns what to change on this host, in words, where that is known.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Forbidden { setting, .. } => Some(setting.clone()),
            Self::Weaker { missing } => Some(missing.remedy().to_owned()),
            Self::NoRange(missing) => Some(missing.remedy()),
            Self::Unmapped { .. } => Some(UNMAPPED.to_owned()),
            Self::Supervision { .. } => Some(SUPERVISOR.to_owned()),
            _ => None,
        }
    }
}

/// Returns what on this host keeps users from making namespaces, and what to do about it.
pub(crate) fn blocking_setting() -> String {
    let value = |path: &str| {
        std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let set =
        |key: &str, value: &str| format!("`{key}` forbids it; as root: `sysctl -w {key}={value}`");
    if value("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        return set("kernel.unprivileged_userns_clone", "1");
    }
    if value("/proc/sys/user/max_user_namespaces") == "0" {
        return set("user.max_user_namespaces", "15000");
    }
    if value("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        return format!(
            "{}, or give this executable an AppArmor profile with the rule `userns,`",
            set("kernel.apparmor_restrict_unprivileged_userns", "0")
        );
    }
    "no kernel setting forbids it, so the container or service that runs kiln does: its \
     seccomp and AppArmor profiles must allow `unshare` and `mount` (for a container \
     engine: `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`)"
        .to_owned()
}
