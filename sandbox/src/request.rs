//! What can be asked of the sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::supervise::Supervision;

/// Everything a run may observe and use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRequest {
    /// What `/` holds beside `/dev`, `/proc` and `/tmp`; created in this order, missing
    /// parent directories included.
    pub nodes: Vec<Node>,
    /// The program's absolute path inside, and its arguments.
    pub command: Vec<String>,
    /// Exactly the variables that the program gets.
    pub environment: BTreeMap<String, String>,
    /// Where the program starts: an absolute path inside.
    pub working_directory: String,
    /// What `uname -n` says inside.
    pub host_name: String,
    /// The user inside. Outside it is the user who asks.
    pub uid: u32,
    /// The group inside. Outside it is the group who asks.
    pub gid: u32,
    /// The file mode creation mask.
    pub umask: u32,
    /// Processors that may be used; `None` leaves the caller's.
    pub cores: Option<BTreeSet<usize>>,
    /// Whether addresses are randomised.
    pub aslr: bool,
    /// When and where the run is stopped.
    pub limits: Limits,
    /// What a supervisor answers in the kernel's place; `None` starts none.
    pub supervision: Option<Supervision>,
}

/// Something in the sandbox's file tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    /// An empty directory, read-only as all of `/` is.
    Directory {
        /// Where, absolute.
        path: String,
    },
    /// A symbolic link.
    Symlink {
        /// Where, absolute.
        path: String,
        /// Its target, as it stands in the link.
        target: String,
    },
    /// A small file.
    File {
        /// Where, absolute.
        path: String,
        /// Its content.
        content: Vec<u8>,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A file or directory of the host.
    Bind {
        /// Where, absolute.
        path: String,
        /// What, absolute, on the host.
        source: PathBuf,
        /// Whether it can be changed.
        access: Access,
    },
}

/// Whether something of the host can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// It cannot.
    ReadOnly,
    /// It can.
    ReadWrite,
}

/// When and where a run is stopped; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// From start to end.
    pub wall: Option<Duration>,
    /// Without a byte of log.
    pub silence: Option<Duration>,
    /// Bytes of log.
    pub log_bytes: Option<u64>,
    /// Processes of the caller's user at once (`RLIMIT_NPROC` in the user namespace).
    pub processes: Option<u64>,
    /// Open files of one process.
    pub open_files: Option<u64>,
    /// Bytes of one file.
    pub file_bytes: Option<u64>,
}

/// A request that is refused before anything is created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No program.
    #[error("the request has no command")]
    NoCommand,
    /// A path that is not absolute, or has `.`, `..`, an empty component, or NUL.
    #[error("`{0}` is not a plain absolute path")]
    Path(String),
    /// A text with NUL, which no system call can take.
    #[error("`{0}` contains NUL")]
    Nul(String),
    /// Two nodes at one path, or one below another that is no plain directory.
    #[error("`{path}` overlaps with `{other}`")]
    Overlap {
        /// The later node.
        path: String,
        /// The earlier node.
        other: String,
    },
    /// A path that the sandbox provides itself.
    #[error("`{0}` is provided by the sandbox itself")]
    Reserved(String),
    /// A source that is not there.
    #[error("`{0}` does not exist, so it cannot be shown to the build")]
    MissingSource(PathBuf),
    /// A variable name that is empty or has `=`.
    #[error("`{0}` is not a variable name")]
    Variable(String),
    /// A host name that is empty or longer than 64 bytes.
    #[error("`{0}` is not a host name")]
    HostName(String),
    /// What `uname` is to say of the kernel, if empty, longer than 64 bytes, or with NUL.
    #[error("`{0}` is not a kernel's release or version")]
    KernelName(String),
    /// A clock that is more than a century ahead.
    #[error("a clock cannot be {0:?} ahead, only a century")]
    Ahead(Duration),
}

/// Paths that the sandbox provides itself.
const PROVIDED: [&str; 3] = ["/dev", "/proc", "/tmp"];

impl Node {
    /// Returns where the node stands.
    pub fn path(&self) -> &str {
        match self {
            Self::Directory { path }
            | Self::Symlink { path, .. }
            | Self::File { path, .. }
            | Self::Bind { path, .. } => path,
        }
    }
}

fn plain(path: &str) -> Result<(), RequestError> {
    let good = path.strip_prefix('/').is_some_and(|rest| {
        rest.split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'))
    });
    if good {
        Ok(())
    } else {
        Err(RequestError::Path(path.to_owned()))
    }
}

fn no_nul(text: &str) -> Result<(), RequestError> {
    if text.contains('\0') {
        Err(RequestError::Nul(text.to_owned()))
    } else {
        Ok(())
    }
}

fn below(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.starts_with('/'))
}

impl SandboxRequest {
    /// Returns a request for a program in an empty world: no nodes, no variables, no
    /// limits, and else what every build observes.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            nodes: Vec::new(),
            command,
            environment: BTreeMap::new(),
            working_directory: "/".to_owned(),
            host_name: "localhost".to_owned(),
            uid: 1000,
            gid: 100,
            umask: 0o022,
            cores: None,
            aslr: false,
            limits: Limits::default(),
            supervision: None,
        }
    }

    /// Refuses what cannot be done, before anything is created.
    ///
    /// # Errors
    /// The first [`RequestError`] in the order of the fields.
    pub fn validate(&self) -> Result<(), RequestError> {
        let mut placed: BTreeMap<&str, bool> = BTreeMap::new();
        for node in &self.nodes {
            let path = node.path();
            plain(path)?;
            if PROVIDED.iter().any(|own| path == *own || below(path, own)) {
                return Err(RequestError::Reserved(path.to_owned()));
            }
            let overlap = placed.iter().find(|(other, is_directory)| {
                path == **other || below(other, path) || (below(path, other) && !**is_directory)
            });
            if let Some((other, _)) = overlap {
                return Err(RequestError::Overlap {
                    path: path.to_owned(),
                    other: (*other).to_owned(),
                });
            }
            placed.insert(path, matches!(node, Node::Directory { .. }));
            match node {
                Node::Symlink { target, .. } => no_nul(target)?,
                Node::Bind { source, .. } => {
                    if !source.is_absolute() {
                        return Err(RequestError::Path(source.display().to_string()));
                    }
                    if std::fs::symlink_metadata(source).is_err() {
                        return Err(RequestError::MissingSource(source.clone()));
                    }
                }
                Node::Directory { .. } | Node::File { .. } => {}
            }
        }
        plain(self.command.first().ok_or(RequestError::NoCommand)?)?;
        self.command.iter().try_for_each(|word| no_nul(word))?;
        for (name, value) in &self.environment {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(RequestError::Variable(name.clone()));
            }
            no_nul(value)?;
        }
        if self.working_directory != "/" {
            plain(&self.working_directory)?;
        }
        if self.host_name.is_empty() || self.host_name.len() > 64 || self.host_name.contains('\0') {
            return Err(RequestError::HostName(self.host_name.clone()));
        }
        self.supervision
            .as_ref()
            .map_or(Ok(()), Supervision::validate)
    }
}
