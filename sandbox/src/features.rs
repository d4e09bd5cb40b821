//! Tries what the host allows, by using it.

use crate::cancel::Cancel;
use crate::error::{SandboxError, blocking_setting};
use crate::launch::Launcher;
use crate::outcome::End;
use crate::request::{Access, Node, SandboxRequest};

/// Something that sandboxes need of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// What.
    pub name: &'static str,
    /// Whether it works here.
    pub state: FeatureState,
}

/// Whether a feature works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeatureState {
    /// It was used and worked.
    Works,
    /// It does not work.
    Missing {
        /// What was observed.
        why: String,
        /// What to change.
        remedy: String,
    },
}

/// Uses each feature once and reports what happened.
pub fn features(launcher: &Launcher) -> Vec<Feature> {
    vec![Feature {
        name: "sandbox",
        state: whole_sandbox(launcher),
    }]
}

/// Runs a small program in a complete sandbox: namespaces, mounts, filters.
fn whole_sandbox(launcher: &Launcher) -> FeatureState {
    let missing = |why: String, remedy: &str| FeatureState::Missing {
        why,
        remedy: remedy.to_owned(),
    };
    // The probe's program is the host's own shell, with the libraries that it needs.
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
                source: top.into(),
                access: Access::ReadOnly,
            }),
            _ => {}
        }
    }
    let command = ["/bin/sh", "-c", "exit 0"].map(str::to_owned);
    let mut request = SandboxRequest::new(command.to_vec());
    request.nodes = nodes;
    request.limits.wall = Some(std::time::Duration::from_secs(10));
    let cancel = match Cancel::new() {
        Ok(cancel) => cancel,
        Err(error) => return missing(error.to_string(), "raise the limit of open files"),
    };
    match launcher.run(&request, &mut |_| {}, &cancel) {
        Ok(outcome) if outcome.end == End::Exited(0) => FeatureState::Works,
        Ok(outcome) => missing(
            format!("a shell in the sandbox ended with {:?}", outcome.end),
            "run a shell of this machine by hand and see why it fails",
        ),
        Err(SandboxError::Forbidden {
            step,
            setting,
            source,
        }) => missing(format!("cannot {step}: {source}"), &setting),
        Err(error) => {
            let mut why = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                why = format!("{why}: {cause}");
                source = cause.source();
            }
            missing(why, &blocking_setting())
        }
    }
}
