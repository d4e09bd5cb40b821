//! PURE: a request becomes a list of steps, in the order in which they are performed.
//!
//! The list can be printed and reviewed; `apply` performs it and decides nothing.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use crate::request::{Access, Limits, Node, SandboxRequest};
use crate::supervise::Supervision;

/// One thing that init does before the builder starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Stop mount events from travelling in or out.
    MakeMountsPrivate,
    /// Take hold of a file or directory of the host, as a mount that is not yet attached.
    Capture {
        /// What.
        source: PathBuf,
        /// Whether it can be changed inside.
        access: Access,
    },
    /// Mount the file system that becomes `/`, on top of the host's, and enter it.
    MountRoot,
    /// Create a directory and its missing parents.
    Directory {
        /// Where, relative to the new root.
        path: String,
    },
    /// Create a symbolic link.
    Symlink {
        /// Where, relative to the new root.
        path: String,
        /// Its target.
        target: String,
    },
    /// Create a file.
    File {
        /// Where, relative to the new root.
        path: String,
        /// Its content.
        content: Vec<u8>,
        /// Whether it may be executed.
        executable: bool,
    },
    /// Attach what was captured first and is not attached yet.
    Attach {
        /// Where, relative to the new root.
        path: String,
        /// Whether it is a directory of the host.
        directory: bool,
    },
    /// Mount an empty file system that can be written to.
    MountTmpfs {
        /// Where, relative to the new root.
        path: String,
        /// The mode of its root, in octal digits.
        mode: &'static str,
    },
    /// Mount a read-only `/proc` of the new PID namespace: where root asks for the sandbox,
    /// the files of `/proc/sys` belong to the user inside.
    MountProc,
    /// Make the new root `/`, and let go of the old one for good.
    PivotRoot,
    /// Make `/` itself read-only; what is mounted below keeps its own access.
    SealRoot,
    /// Bring up the loopback interface, the only one there is.
    LoopbackUp,
    /// Set the host name, and an empty domain.
    HostName(String),
    /// Give up every capability, for good.
    DropCapabilities,
    /// Never gain a privilege by executing anything.
    NoNewPrivileges,
    /// Keep init's memory and executable out of the builder's reach.
    Undumpable,
}

/// What the builder does to itself before it becomes the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builder {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `NAME=value`, sorted by name.
    pub environment: Vec<String>,
    /// Where it starts.
    pub working_directory: String,
    /// The file mode creation mask.
    pub umask: u32,
    /// Processors that may be used.
    pub cores: Option<BTreeSet<usize>>,
    /// Whether addresses are randomised.
    pub aslr: bool,
    /// The limits that the kernel enforces.
    pub limits: Limits,
    /// What the supervisor answers, if there is one.
    pub supervision: Option<Supervision>,
}

/// Devices of the host that every build may use.
const DEVICES: [&str; 5] = ["full", "null", "random", "urandom", "zero"];

/// Links that every `/dev` has.
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
];

fn relative(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

/// Returns the steps that init performs.
///
/// `is_directory` tells what a source on the host is.
pub fn steps(request: &SandboxRequest, is_directory: impl Fn(&PathBuf) -> bool) -> Vec<Step> {
    let mut steps = vec![Step::MakeMountsPrivate];
    for device in DEVICES {
        // Read-only keeps the node's owner and mode from being changed; a device can be
        // written to all the same.
        steps.push(Step::Capture {
            source: PathBuf::from("/dev").join(device),
            access: Access::ReadOnly,
        });
    }
    for node in &request.nodes {
        if let Node::Bind { source, access, .. } = node {
            steps.push(Step::Capture {
                source: source.clone(),
                access: *access,
            });
        }
    }
    steps.push(Step::MountRoot);
    for device in DEVICES {
        steps.push(Step::Attach {
            path: format!("dev/{device}"),
            directory: false,
        });
    }
    for (path, target) in DEVICE_LINKS {
        steps.push(Step::Symlink {
            path: path.to_owned(),
            target: target.to_owned(),
        });
    }
    for node in &request.nodes {
        let path = relative(node.path());
        steps.push(match node {
            Node::Directory { .. } => Step::Directory { path },
            Node::Symlink { target, .. } => Step::Symlink {
                path,
                target: target.clone(),
            },
            Node::File {
                content,
                executable,
                ..
            } => Step::File {
                path,
                content: content.clone(),
                executable: *executable,
            },
            Node::Bind { source, .. } => Step::Attach {
                path,
                directory: is_directory(source),
            },
        });
    }
    steps.extend([
        Step::MountTmpfs {
            path: "dev/shm".to_owned(),
            mode: "1777",
        },
        Step::MountTmpfs {
            path: "tmp".to_owned(),
            mode: "1777",
        },
        Step::MountProc,
        Step::PivotRoot,
        Step::SealRoot,
        Step::LoopbackUp,
        Step::HostName(request.host_name.clone()),
        Step::DropCapabilities,
        Step::NoNewPrivileges,
        Step::Undumpable,
    ]);
    steps
}

/// Returns what the builder does to itself.
pub fn builder(request: &SandboxRequest) -> Builder {
    Builder {
        command: request.command.clone(),
        environment: request
            .environment
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect(),
        working_directory: request.working_directory.clone(),
        umask: request.umask,
        cores: request.cores.clone(),
        aslr: request.aslr,
        limits: request.limits.clone(),
        supervision: request.supervision.clone(),
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeMountsPrivate => write!(f, "make mounts private"),
            Self::Capture { source, access } => {
                write!(f, "capture `{}` ({access:?})", source.display())
            }
            Self::MountRoot => write!(f, "mount the new root"),
            Self::Directory { path } => write!(f, "create the directory `/{path}`"),
            Self::Symlink { path, target } => write!(f, "link `/{path}` to `{target}`"),
            Self::File { path, content, .. } => {
                write!(f, "create the file `/{path}` of {} bytes", content.len())
            }
            Self::Attach { path, .. } => write!(f, "attach `/{path}`"),
            Self::MountTmpfs { path, .. } => write!(f, "mount an empty `/{path}`"),
            Self::MountProc => write!(f, "mount `/proc`"),
            Self::PivotRoot => write!(f, "leave the old root"),
            Self::SealRoot => write!(f, "make `/` read-only"),
            Self::LoopbackUp => write!(f, "bring up the loopback interface"),
            Self::HostName(name) => write!(f, "set the host name `{name}`"),
            Self::DropCapabilities => write!(f, "drop every capability"),
            Self::NoNewPrivileges => write!(f, "forbid new privileges"),
            Self::Undumpable => write!(f, "hide init from the build"),
        }
    }
}
