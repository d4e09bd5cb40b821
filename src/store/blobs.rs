//! The names in the blob pool, looked up from its own directory: a store may lie deep,
//! and each file of an object is looked up more than once.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    Access, AtFlags, CWD, Mode, OFlags, RenameFlags, accessat, linkat, mkdirat, openat,
    renameat_with,
};
use rustix::io::{Errno, Result};

use super::StoreError;
use super::pool::access;
use crate::hash::BlobDigest;

/// The pool's directory, open.
#[derive(Debug)]
pub(super) struct Blobs {
    directory: OwnedFd,
}

/// Where the pool has a file, below its directory: `<2>/<digest>`, with `x` after it if
/// the file is executable.
#[derive(Debug)]
pub(super) struct BlobName(String);

impl BlobName {
    pub(super) fn new(digest: BlobDigest, executable: bool) -> Self {
        let text = digest.to_string();
        let (shard, _) = text.split_at(2);
        let suffix = if executable { "x" } else { "" };
        Self(format!("{shard}/{text}{suffix}"))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn shard(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
}

impl Blobs {
    pub(super) fn open(root: &Path) -> std::result::Result<Self, StoreError> {
        let path = root.join("blobs");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, &path, flags, Mode::empty())
            .map_err(|errno| access("open the directory", &path, errno.into()))?;
        Ok(Self { directory })
    }

    /// Returns whether the pool has a file.
    pub(super) fn has(&self, name: &BlobName) -> bool {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        accessat(&self.directory, name.as_str(), Access::EXISTS, flags).is_ok()
    }

    /// Links a file of the pool into another directory.
    pub(super) fn link_out(&self, name: &BlobName, parent: &OwnedFd, to: &str) -> Result<()> {
        linkat(&self.directory, name.as_str(), parent, to, AtFlags::empty())
    }

    /// Makes a sealed file of another directory the pool's as well; [`Errno::EXIST`] if
    /// the pool has one.
    pub(super) fn link_in(&self, parent: &OwnedFd, from: &str, name: &BlobName) -> Result<()> {
        self.with_shard(name, || {
            linkat(
                parent,
                from,
                &self.directory,
                name.as_str(),
                AtFlags::empty(),
            )
        })
    }

    /// As [`Blobs::link_in`], for a file by its path.
    pub(super) fn link_path_in(&self, from: &Path, name: &BlobName) -> Result<()> {
        self.with_shard(name, || {
            linkat(CWD, from, &self.directory, name.as_str(), AtFlags::empty())
        })
    }

    /// Moves a sealed file into the pool; [`Errno::EXIST`] if the pool has one.
    pub(super) fn move_in(&self, from: &Path, name: &BlobName) -> Result<()> {
        self.with_shard(name, || {
            renameat_with(
                CWD,
                from,
                &self.directory,
                name.as_str(),
                RenameFlags::NOREPLACE,
            )
        })
    }

    /// Runs, and once more after making the file's directory if that is not there.
    fn with_shard(&self, name: &BlobName, run: impl Fn() -> Result<()>) -> Result<()> {
        match run() {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mode = Mode::from_raw_mode(0o755);
        match mkdirat(&self.directory, name.shard(), mode) {
            Ok(()) | Err(Errno::EXIST) => run(),
            Err(errno) => Err(errno),
        }
    }
}
