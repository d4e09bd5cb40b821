//! How an image is to be run, for programs that run containers.
//!
//! In: an image as declared, and the code of its programs. Out: the configuration of an OCI
//! runtime, a pod of Kubernetes, options of Podman and Docker, and the system calls that
//! the programs can make as a filter for seccomp. All say the same: a root that cannot be
//! changed, no capability, no new privileges, and writable directories in memory from which
//! nothing can be executed. Pure.
//!
//! | file | what it does |
//! |---|---|
//! | [`oci`] | `config.json` of a runtime bundle |
//! | [`kubernetes`] | a pod with its security context and volumes |
//! | [`options`] | options of Podman and Docker |
//! | [`seccomp`] | a filter that lets some system calls through |
//! | [`code`] | which system calls a program's code can make |

pub mod code;
pub mod kubernetes;
pub mod oci;
pub mod options;
pub mod seccomp;

use crate::derivation::{Definition, Image};

/// How an image is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// The image's name.
    pub name: String,
    /// The program and its arguments.
    pub arguments: Vec<String>,
    /// The program and the arguments that are always given.
    pub entrypoint: Vec<String>,
    /// Variables, `NAME=VALUE`, sorted.
    pub environment: Vec<String>,
    /// Where the program starts.
    pub working_directory: String,
    /// User and group.
    pub user: (u32, u32),
    /// Directories that can be written to, absolute, sorted.
    pub writable: Vec<String>,
    /// Ports that it listens on, such as `8080/tcp`, sorted.
    pub ports: Vec<String>,
}

/// Bytes that a writable directory may hold, where the program that runs the container does
/// not say otherwise.
pub const WRITABLE_BYTES: u64 = 64 << 20;

/// What every container gets whose image says nothing about it.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Runtime {
    /// Takes from an image's definition how it is to be run.
    pub fn new(definition: &Definition, image: &Image) -> Self {
        let mut environment: Vec<String> = image
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !image.environment.contains_key("PATH") {
            environment.push(PATH.to_owned());
        }
        environment.sort();
        let mut arguments = image.entrypoint.clone();
        arguments.extend(image.command.iter().cloned());
        Self {
            name: definition.meta.name.to_string(),
            arguments,
            entrypoint: image.entrypoint.clone(),
            environment,
            working_directory: image.working_directory.clone(),
            user: image.user,
            writable: image
                .writable
                .iter()
                .map(|path| format!("/{path}"))
                .collect(),
            ports: image.ports.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image with everything that formats have to write.
    pub(super) fn example() -> Runtime {
        Runtime {
            name: "demo".to_owned(),
            arguments: ["/bin/demo", "-x", "it's"].map(str::to_owned).to_vec(),
            entrypoint: ["/bin/demo", "-x"].map(str::to_owned).to_vec(),
            environment: ["A=b c", "PATH=/bin"].map(str::to_owned).to_vec(),
            working_directory: "/srv".to_owned(),
            user: (65534, 65533),
            writable: ["/tmp", "/var/lib/demo"].map(str::to_owned).to_vec(),
            ports: vec!["8080/tcp".to_owned()],
        }
    }
}
