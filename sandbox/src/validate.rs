//! What is refused before anything is created.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::range;
use crate::request::{Access, Ids, Node, SandboxRequest, Stdin};
use crate::supervise::Supervision;

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
    /// A host or domain name that is empty or longer than 64 bytes.
    #[error("`{0}` is not a host name")]
    HostName(String),
    /// A process number that init cannot give.
    #[error("process number {0} is not between 2 and 4194303")]
    FirstPid(u32),
    /// A terminal and another standard input at once.
    #[error("a program on a terminal has no other standard input")]
    TerminalInput,
    /// A user or group that is not in the range of ids that was asked for.
    #[error("the id {0} is not one of 0 to 65535, which a range of ids holds")]
    Id(u32),
    /// A file that can be written, where a range of ids was asked for: only a directory can
    /// be copied back.
    #[error("`{0}` is no directory, so it cannot be written by a range of ids")]
    WritableFile(PathBuf),
    /// What `uname` is to say of the kernel, if empty, longer than 64 bytes, or with NUL.
    #[error("`{0}` is not a kernel's release or version")]
    KernelName(String),
    /// A clock that is more than a century ahead.
    #[error("a clock cannot be {0:?} ahead, only a century")]
    Ahead(Duration),
}

/// Paths that the sandbox provides itself.
const PROVIDED: [&str; 3] = ["/dev", "/proc", "/tmp"];

/// Largest process number of Linux on 64-bit machines.
const MAX_PID: u32 = (1 << 22) - 1;

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

fn exists(source: &Path) -> Result<(), RequestError> {
    if !source.is_absolute() {
        return Err(RequestError::Path(source.display().to_string()));
    }
    if std::fs::symlink_metadata(source).is_err() {
        return Err(RequestError::MissingSource(source.to_owned()));
    }
    Ok(())
}

fn name(name: &str) -> Result<(), RequestError> {
    if name.is_empty() || name.len() > 64 || name.contains('\0') {
        return Err(RequestError::HostName(name.to_owned()));
    }
    Ok(())
}

impl SandboxRequest {
    /// Refuses what cannot be done, before anything is created.
    ///
    /// # Errors
    /// The first [`RequestError`] in the order of the fields.
    pub fn validate(&self) -> Result<(), RequestError> {
        self.validate_nodes()?;
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
        self.validate_ids()?;
        name(&self.host_name)?;
        name(&self.domain_name)?;
        if let Some(pid) = self.first_pid
            && !(2..=MAX_PID).contains(&pid)
        {
            return Err(RequestError::FirstPid(pid));
        }
        if let Stdin::File(source) = &self.stdin {
            exists(source)?;
        }
        if self.terminal.is_some() && self.stdin != Stdin::Null {
            return Err(RequestError::TerminalInput);
        }
        self.supervision
            .as_ref()
            .map_or(Ok(()), Supervision::validate)
    }

    fn validate_ids(&self) -> Result<(), RequestError> {
        if self.ids == Ids::One {
            return Ok(());
        }
        if let Some(id) = [self.uid, self.gid]
            .into_iter()
            .find(|id| *id >= range::COUNT)
        {
            return Err(RequestError::Id(id));
        }
        for node in &self.nodes {
            if let Node::Bind {
                source,
                access: Access::ReadWrite,
                ..
            } = node
                && !std::fs::symlink_metadata(source).is_ok_and(|found| found.is_dir())
            {
                return Err(RequestError::WritableFile(source.clone()));
            }
        }
        Ok(())
    }

    /// Refuses nodes that overlap, in time that grows as their number does.
    fn validate_nodes(&self) -> Result<(), RequestError> {
        let mut placed: BTreeMap<&str, bool> = BTreeMap::new();
        for node in &self.nodes {
            let path = node.path();
            plain(path)?;
            if PROVIDED.iter().any(|own| at_or_below(path, own)) {
                return Err(RequestError::Reserved(path.to_owned()));
            }
            if let Some(other) = overlap(&placed, path) {
                return Err(RequestError::Overlap {
                    path: path.to_owned(),
                    other: other.to_owned(),
                });
            }
            placed.insert(path, matches!(node, Node::Directory { .. }));
            match node {
                Node::Symlink { target, .. } => no_nul(target)?,
                Node::Bind { source, .. } | Node::Copy { source, .. } => exists(source)?,
                Node::Directory { .. } | Node::File { .. } | Node::Tmpfs { .. } => {}
            }
        }
        Ok(())
    }
}

fn at_or_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns an earlier node that is at the path or below it, or above it and no directory.
fn overlap<'a>(placed: &BTreeMap<&'a str, bool>, path: &str) -> Option<&'a str> {
    if let Some((other, _)) = placed.get_key_value(path) {
        return Some(other);
    }
    let inside = format!("{path}/");
    let from = (Bound::Included(inside.as_str()), Bound::Unbounded);
    if let Some((other, _)) = placed.range::<str, _>(from).next()
        && other.starts_with(&inside)
    {
        return Some(other);
    }
    path.match_indices('/')
        .filter_map(|(end, _)| placed.get_key_value(path.get(..end)?))
        .find_map(|(other, is_directory)| (!is_directory).then_some(*other))
}
