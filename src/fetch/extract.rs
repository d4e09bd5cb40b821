//! Creating files from an archive, strictly.
//!
//! Everything is created anew in a directory that nobody else writes to, by paths that are
//! resolved beneath it without following links. Whatever is unusual is an error, never
//! skipped: an absolute path, `..`, a name that is not UTF-8, an entry below a link, a
//! device, a second entry of one name, a link out of the tree.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, futimens, linkat, mkdirat, openat, symlinkat, utimensat};

use super::FetchError;
use crate::hash::RelPath;
use crate::hash::directory::MAX_TARGET;
use crate::tree::seal::TIMES;
use crate::tree::{TreeError, TreeRoot};

/// Most bytes of content that one tree may get: 16 GiB.
const MAX_BYTES: u64 = 16 << 30;

/// Most entries that one tree may get.
const MAX_ENTRIES: usize = 2_000_000;

/// Where links may point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// Within the tree, by relative paths.
    Inside,
    /// Anywhere: the tree becomes the root of a sandbox, where they are resolved.
    Root,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    Directory,
    File,
    Symlink,
}

/// A tree that is being made, by several threads if wanted.
pub(super) struct Extraction {
    root: TreeRoot,
    links: Links,
    made: Mutex<BTreeMap<RelPath, Made>>,
    bytes: AtomicU64,
}

fn tree_error(path: &Path, source: TreeError) -> FetchError {
    match source {
        TreeError::Access {
            operation,
            path,
            source,
        } => FetchError::Access {
            operation,
            path,
            source,
        },
        other => FetchError::Tree {
            path: path.to_owned(),
            problem: other.to_string(),
        },
    }
}

impl Extraction {
    pub(super) fn new(into: &Path, links: Links) -> Result<Self, FetchError> {
        let root = TreeRoot::open(into).map_err(|error| tree_error(into, error))?;
        Ok(Self {
            root,
            links,
            made: Mutex::default(),
            bytes: AtomicU64::new(0),
        })
    }

    fn failed(&self, path: &RelPath, errno: rustix::io::Errno) -> FetchError {
        FetchError::Access {
            operation: "create",
            path: self.root.shown(path),
            source: errno.into(),
        }
    }

    /// Claims a path, creating the directories above it. `false`: it is a directory that
    /// is there already.
    fn claim(&self, path: &RelPath, kind: Made) -> Result<bool, Refusal> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        for above in path.ancestors() {
            match made.get(&above) {
                Some(Made::Directory) => {}
                Some(_) => {
                    return Err(Refusal::Member(format!(
                        "stands below `{above}`, which is no directory"
                    )));
                }
                None => {
                    self.make_directory(&above).map_err(Refusal::Other)?;
                    made.insert(above, Made::Directory);
                }
            }
        }
        match made.get(path) {
            Some(Made::Directory) if kind == Made::Directory => return Ok(false),
            Some(_) => return Err(Refusal::Twice),
            None => {}
        }
        if made.len() >= MAX_ENTRIES {
            return Err(Refusal::TooLarge(format!("{MAX_ENTRIES} entries")));
        }
        if kind == Made::Directory {
            self.make_directory(path).map_err(Refusal::Other)?;
        }
        made.insert(path.clone(), kind);
        Ok(true)
    }

    fn make_directory(&self, path: &RelPath) -> Result<(), FetchError> {
        let parent = self
            .root
            .open_parent(path)
            .map_err(|error| tree_error(self.root.path(), error))?;
        mkdirat(&parent, path.file_name(), Mode::from_raw_mode(0o755))
            .map_err(|errno| self.failed(path, errno))
    }

    pub(super) fn directory(&self, path: &RelPath) -> Result<(), Refusal> {
        self.claim(path, Made::Directory).map(drop)
    }

    /// Creates a file with the content of a reader, which must have `size` bytes.
    pub(super) fn file(
        &self,
        path: &RelPath,
        executable: bool,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), Refusal> {
        if self
            .bytes
            .fetch_add(size, Ordering::Relaxed)
            .saturating_add(size)
            > MAX_BYTES
        {
            return Err(Refusal::TooLarge("16 GiB".to_owned()));
        }
        self.claim(path, Made::File)?;
        let parent = self.parent(path)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(if executable { 0o755 } else { 0o644 });
        let file = openat(&parent, path.file_name(), flags, mode)
            .map_err(|errno| Refusal::Other(self.failed(path, errno)))?;
        let mut file = File::from(file);
        copy_exactly(content, &mut file, size, || self.root.shown(path))?;
        futimens(&file, &TIMES).map_err(|errno| Refusal::Other(self.failed(path, errno)))
    }

    pub(super) fn symlink(&self, path: &RelPath, target: &str) -> Result<(), Refusal> {
        if target.is_empty() || target.len() > MAX_TARGET || target.contains('\0') {
            return Err(Refusal::Member(
                "is a link with an impossible target".to_owned(),
            ));
        }
        if self.links == Links::Inside && !stays_inside(path, target) {
            return Err(Refusal::Member(format!(
                "is a link out of the archive, to `{target}`"
            )));
        }
        self.claim(path, Made::Symlink)?;
        let parent = self.parent(path)?;
        symlinkat(target, &parent, path.file_name())
            .and_then(|()| utimensat(&parent, path.file_name(), &TIMES, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(|errno| Refusal::Other(self.failed(path, errno)))
    }

    /// Creates another name for a file of the same archive.
    pub(super) fn hard_link(&self, path: &RelPath, target: &RelPath) -> Result<(), Refusal> {
        let known = {
            let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            made.get(target).copied()
        };
        if known != Some(Made::File) {
            return Err(Refusal::Member(format!(
                "is a hard link to `{target}`, which is no earlier file of the archive"
            )));
        }
        self.claim(path, Made::File)?;
        let (from, to) = (self.parent(target)?, self.parent(path)?);
        linkat(
            &from,
            target.file_name(),
            &to,
            path.file_name(),
            AtFlags::empty(),
        )
        .map_err(|errno| Refusal::Other(self.failed(path, errno)))
    }

    fn parent(&self, path: &RelPath) -> Result<std::os::fd::OwnedFd, Refusal> {
        self.root
            .open_parent(path)
            .map_err(|error| Refusal::Other(tree_error(self.root.path(), error)))
    }

    /// Gives every directory its time; call it when everything is made.
    pub(super) fn finish(self) -> Result<(), FetchError> {
        let made = self
            .made
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        for (path, kind) in made.iter().rev() {
            if *kind == Made::Directory {
                let fd = self
                    .root
                    .open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)
                    .map_err(|error| tree_error(self.root.path(), error))?;
                futimens(&fd, &TIMES).map_err(|errno| FetchError::Access {
                    operation: "set the time of",
                    path: self.root.shown(path),
                    source: errno.into(),
                })?;
            }
        }
        Ok(())
    }
}

/// Why an entry was not created.
pub(super) enum Refusal {
    /// The member itself is wrong.
    Member(String),
    /// There is one of that name already.
    Twice,
    /// The whole is too large.
    TooLarge(String),
    /// Reading the archive failed.
    Read(io::Error),
    /// This machine failed.
    Other(FetchError),
}

impl Refusal {
    /// Completes the error with the archive and the member.
    pub(super) fn at(self, archive: &Path, member: &str) -> FetchError {
        let archive = archive.to_owned();
        match self {
            Self::Member(problem) => FetchError::Member {
                archive,
                member: member.escape_debug().to_string(),
                problem,
            },
            Self::Twice => FetchError::Member {
                archive,
                member: member.escape_debug().to_string(),
                problem: "stands in it twice".to_owned(),
            },
            Self::TooLarge(limit) => FetchError::TooLarge { archive, limit },
            Self::Read(source) => FetchError::Archive { archive, source },
            Self::Other(error) => error,
        }
    }
}

fn copy_exactly(
    from: &mut dyn Read,
    to: &mut File,
    size: u64,
    shown: impl FnOnce() -> std::path::PathBuf,
) -> Result<(), Refusal> {
    let mut block = vec![
        0;
        usize::try_from(size)
            .unwrap_or(usize::MAX)
            .clamp(1, 1 << 17)
    ];
    let mut left = size;
    while left > 0 {
        let want = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = from
            .read(block.get_mut(..want).unwrap_or_default())
            .map_err(Refusal::Read)?;
        if count == 0 {
            return Err(Refusal::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        let written = io::Write::write_all(to, block.get(..count).unwrap_or_default());
        if let Err(source) = written {
            return Err(Refusal::Other(FetchError::Access {
                operation: "write",
                path: shown(),
                source,
            }));
        }
        left -= count as u64;
    }
    Ok(())
}

/// Returns whether a link's target, taken word by word, stays below the tree's root.
fn stays_inside(path: &RelPath, target: &str) -> bool {
    if target.starts_with('/') {
        return false;
    }
    let mut depth = path.components().count() - 1;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return false,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}
