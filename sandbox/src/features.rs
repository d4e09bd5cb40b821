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
use crate::launch::Launcher;
use crate::outcome::End;
use crate::request::{Access, Node, SandboxRequest, Weakness};
use crate::trial::{self, Trial};

/// Something that sandboxes need of the host, or are better for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// What.
    pub name: &'static str,
    /// The layer that it is, if a request may do without it ([`SandboxRequest::weak`]).
    pub weakness: Option<Weakness>,
    /// Whether it works here.
    pub state: FeatureState,
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
const NAMESPACES: [(&str, CloneFlags, Option<Weakness>); 7] = [
    ("mount namespace", CloneFlags::CLONE_NEWNS, None),
    ("process namespace", CloneFlags::CLONE_NEWPID, None),
    ("network namespace", CloneFlags::CLONE_NEWNET, None),
    ("IPC namespace", CloneFlags::CLONE_NEWIPC, None),
    ("host name namespace", CloneFlags::CLONE_NEWUTS, None),
    (
        "cgroup namespace",
        CloneFlags::CLONE_NEWCGROUP,
        Some(Weakness::CgroupNamespace),
    ),
    (
        "time namespace",
        CloneFlags::from_bits_retain(nix::libc::CLONE_NEWTIME),
        Some(Weakness::TimeNamespace),
    ),
];

const KERNEL: &str = "use Linux 5.12 or later, built with every kind of namespace";

/// Uses each feature once and reports what happened, the whole sandbox last.
pub fn features(launcher: &Launcher) -> Vec<Feature> {
    let mut features = vec![feature(
        "user namespace",
        None,
        trial::perform(launcher, Trial::Namespaces(0)),
        blocking_setting,
    )];
    for (name, flags, weakness) in NAMESPACES {
        let trial = Trial::Namespaces(flags.bits());
        let remedy = weakness.map_or(KERNEL, Weakness::remedy);
        features.push(feature(
            name,
            weakness,
            trial::perform(launcher, trial),
            || remedy.to_owned(),
        ));
    }
    features.push(feature(
        "system call filters",
        None,
        trial::perform(launcher, Trial::Filters),
        || "use a kernel built with `CONFIG_SECCOMP_FILTER`".to_owned(),
    ));
    features.push(landlock());
    features.push(root_outside(launcher));
    features.push(Feature {
        name: "sandbox",
        weakness: None,
        state: whole_sandbox(launcher),
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
    weakness: Option<Weakness>,
    result: io::Result<()>,
    remedy: impl FnOnce() -> String,
) -> Feature {
    let state = match result {
        Ok(()) => works("made and left"),
        Err(error) => missing(error.to_string(), remedy()),
    };
    Feature {
        name,
        weakness,
        state,
    }
}

fn landlock() -> Feature {
    let remedy = Weakness::Landlock.remedy();
    Feature {
        name: "Landlock",
        weakness: Some(Weakness::Landlock),
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
        weakness: Some(Weakness::RootOutside),
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

/// Runs a small program in a complete sandbox: namespaces, mounts, filters.
fn whole_sandbox(launcher: &Launcher) -> FeatureState {
    let command = ["/bin/sh", "-c", "exit 0"].map(str::to_owned);
    let mut request = SandboxRequest::new(command.to_vec());
    request.nodes = host_tree();
    request.limits.wall = Some(Duration::from_secs(10));
    request.weak = BTreeSet::from(Weakness::ALL);
    let cancel = match Cancel::new() {
        Ok(cancel) => cancel,
        Err(error) => return missing(error.to_string(), "raise the limit of open files"),
    };
    match launcher.run(&request, &mut |_| {}, &cancel) {
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
            missing(why, blocking_setting())
        }
    }
}
