//! Tries what the host allows, by using it.
//!
//! Each feature is tried with the smallest act that needs it, in a process of its own; the
//! last is a whole sandbox. What does not work comes with what to change.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::sched::CloneFlags;

use crate::cancel::Cancel;
use crate::error::{SandboxError, blocking_setting};
use crate::landlock;
use crate::launch::{Groups, Launcher};
use crate::outcome::End;
use crate::request::{Access, Ids, Node, SandboxRequest, Weakness};
use crate::supervise::{DirectoryOrder, Supervision};
use crate::trial::{self, Trial};

/// Something that sandboxes need of the host, or are better for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// What.
    pub name: &'static str,
    /// What needs it.
    pub need: Need,
    /// Whether it works here.
    pub state: FeatureState,
}

/// What needs a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Every run.
    Always,
    /// Every run whose request does not say that it does without
    /// ([`SandboxRequest::weak`]).
    Layer(Weakness),
    /// Runs that ask for it.
    Asked,
}

/// Whether a feature works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeatureState {
    /// It was used and worked.
    Works {
        /// What was observed.
        note: String,
    },
    /// It does not work.
    Missing {
        /// What was observed.
        why: String,
        /// What to change.
        remedy: String,
    },
}

/// Namespaces that are tried each alone, together with a user namespace.
const NAMESPACES: [(&str, CloneFlags, Need); 7] = [
    ("mount namespace", CloneFlags::CLONE_NEWNS, Need::Always),
    ("process namespace", CloneFlags::CLONE_NEWPID, Need::Always),
    ("network namespace", CloneFlags::CLONE_NEWNET, Need::Always),
    ("IPC namespace", CloneFlags::CLONE_NEWIPC, Need::Always),
    (
        "host name namespace",
        CloneFlags::CLONE_NEWUTS,
        Need::Always,
    ),
    (
        "cgroup namespace",
        CloneFlags::CLONE_NEWCGROUP,
        Need::Layer(Weakness::CgroupNamespace),
    ),
    (
        "time namespace",
        CloneFlags::from_bits_retain(nix::libc::CLONE_NEWTIME),
        Need::Layer(Weakness::TimeNamespace),
    ),
];

const KERNEL: &str = "use Linux 5.12 or later, built with every kind of namespace";

/// Uses each feature once and reports what happened, the whole sandbox last.
pub fn features(launcher: &Launcher) -> Vec<Feature> {
    let mut features = vec![feature(
        "user namespace",
        Need::Always,
        trial::perform(launcher, Trial::Namespaces(0)),
        blocking_setting,
    )];
    for (name, flags, need) in NAMESPACES {
        let trial = Trial::Namespaces(flags.bits());
        let remedy = match need {
            Need::Layer(weakness) => weakness.remedy(),
            Need::Always | Need::Asked => KERNEL,
        };
        features.push(feature(name, need, trial::perform(launcher, trial), || {
            remedy.to_owned()
        }));
    }
    features.push(feature(
        "system call filters",
        Need::Always,
        trial::perform(launcher, Trial::Filters),
        || "use a kernel built with `CONFIG_SECCOMP_FILTER`".to_owned(),
    ));
    features.push(landlock());
    features.push(root_outside(launcher));
    features.push(Feature {
        name: "sandbox",
        need: Need::Always,
        state: whole_sandbox(launcher, None, |_| {}),
    });
    features.push(Feature {
        name: "limits on a build as a whole",
        need: Need::Asked,
        state: match launcher.groups() {
            Ok(Groups { processors: true }) => works("a process joined a control group of its own"),
            Ok(Groups { processors: false }) => works(
                "a process joined a control group of its own; processor time is not delegated \
                 and not limited (`systemd-run --user --scope -p Delegate=yes kiln …`)",
            ),
            Err(none) => missing(none.why, none.remedy),
        },
    });
    features.push(Feature {
        name: "supervisor",
        need: Need::Asked,
        state: whole_sandbox(
            launcher,
            Some("a shell was told another time than it is"),
            |request| request.supervision = Some(supervision()),
        ),
    });
    features.push(Feature {
        name: "range of ids",
        need: Need::Asked,
        state: whole_sandbox(
            launcher,
            Some("a shell ran among 65536 users and groups, of which the caller is one"),
            |request| request.ids = Ids::Range,
        ),
    });
    features
}

fn missing(why: impl Into<String>, remedy: impl Into<String>) -> FeatureState {
    FeatureState::Missing {
        why: why.into(),
        remedy: remedy.into(),
    }
}

fn works(note: impl Into<String>) -> FeatureState {
    FeatureState::Works { note: note.into() }
}

fn feature(
    name: &'static str,
    need: Need,
    result: io::Result<()>,
    remedy: impl FnOnce() -> String,
) -> Feature {
    let state = match result {
        Ok(()) => works("made and left"),
        Err(error) => missing(error.to_string(), remedy()),
    };
    Feature { name, need, state }
}

fn landlock() -> Feature {
    let remedy = Weakness::Landlock.remedy();
    Feature {
        name: "Landlock",
        need: Need::Layer(Weakness::Landlock),
        state: match landlock::version() {
            Ok(Some(version)) if version >= 6 => works(format!("version {version}")),
            Ok(Some(version)) => works(format!(
                "version {version}: files only, signals and abstract sockets from version 6 on"
            )),
            Ok(None) => missing("the kernel does not have it enabled", remedy),
            Err(error) => missing(error.to_string(), remedy),
        },
    }
}

/// Tries whether root's sandboxes can be another user's outside.
fn root_outside(launcher: &Launcher) -> Feature {
    let state = if nix::unistd::geteuid().is_root() {
        match trial::perform(launcher, Trial::IdMap) {
            Ok(()) => works("root's builds leave root's user id"),
            Err(error) => missing(
                format!("root's builds keep root's user id outside: {error}"),
                Weakness::RootOutside.remedy(),
            ),
        }
    } else {
        works("the caller is an ordinary user")
    };
    Feature {
        name: "no root outside",
        need: Need::Layer(Weakness::RootOutside),
        state,
    }
}

/// Returns the host's own shell, with the libraries that it needs.
fn host_tree() -> Vec<Node> {
    let mut nodes = Vec::new();
    for top in ["/usr", "/lib", "/lib64", "/bin", "/nix", "/gnu"] {
        match std::fs::symlink_metadata(top) {
            Ok(metadata) if metadata.is_symlink() => {
                if let Ok(target) = std::fs::read_link(top) {
                    nodes.push(Node::Symlink {
                        path: top.to_owned(),
                        target: target.to_string_lossy().into_owned(),
                    });
                }
            }
            Ok(metadata) if metadata.is_dir() => nodes.push(Node::Bind {
                path: top.to_owned(),
                source: PathBuf::from(top),
                access: Access::ReadOnly,
            }),
            _ => {}
        }
    }
    nodes
}

/// Returns what takes everything that a supervisor does: calls that are answered, and
/// programs that are rewritten.
fn supervision() -> Supervision {
    Supervision {
        clock_ahead: Some(Duration::from_secs(86_400)),
        directory_order: Some(DirectoryOrder::Reversed),
        ..Supervision::default()
    }
}

/// Runs a small program in a complete sandbox: namespaces, mounts, filters, and what else
/// is asked for; `note` says that it was.
fn whole_sandbox(
    launcher: &Launcher,
    note: Option<&str>,
    ask: impl FnOnce(&mut SandboxRequest),
) -> FeatureState {
    let command = ["/bin/sh", "-c", "exit 0"].map(str::to_owned);
    let mut request = SandboxRequest::new(command.to_vec());
    request.nodes = host_tree();
    request.limits.wall = Some(Duration::from_secs(10));
    request.weak = BTreeSet::from(Weakness::ALL);
    ask(&mut request);
    let cancel = match Cancel::new() {
        Ok(cancel) => cancel,
        Err(error) => return missing(error.to_string(), "raise the limit of open files"),
    };
    match launcher.run(&request, &mut |_| {}, &cancel) {
        Ok(outcome)
            if outcome.end == End::Exited(0)
                && let Some(note) = note =>
        {
            works(note)
        }
        Ok(outcome) if outcome.end == End::Exited(0) && outcome.missing.is_empty() => {
            works("a shell ran in all namespaces, with no privilege and no network")
        }
        Ok(outcome) if outcome.end == End::Exited(0) => {
            let names: Vec<String> = outcome.missing.iter().map(ToString::to_string).collect();
            works(format!("a shell ran, without {}", names.join(" and ")))
        }
        Ok(outcome) => missing(
            format!("a shell in the sandbox ended with {:?}", outcome.end),
            "run a shell of this machine by hand and see why it fails",
        ),
        Err(SandboxError::Forbidden {
            step,
            setting,
            source,
        }) => missing(format!("cannot {step}: {source}"), setting),
        Err(error) => {
            let mut why = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                why = format!("{why}: {cause}");
                source = cause.source();
            }
            missing(why, error.remedy().unwrap_or_else(blocking_setting))
        }
    }
}
