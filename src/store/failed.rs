//! What failed builds left behind, kept so that a person can look at it.
//!
//! `failed/<action>/` is the working directory of the last run of an action that failed:
//! `build/` and `outputs/`. The newest few are kept; a run that succeeds removes its own.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::pool::access;
use super::{Scratch, Store, StoreError};
use crate::hash::ActionDigest;
use crate::tree::remove_tree;

/// How many are kept: enough to look at a bad day, not enough to fill a disk.
const KEPT: usize = 8;

/// This part of the disk must be free: one in twenty.
const SPARE: u64 = 20;

impl Store {
    /// Returns where a failed run of an action left its work, if that is kept.
    pub fn failed_work(&self, action: ActionDigest) -> Option<PathBuf> {
        let path = self.failed_path(action);
        path.is_dir().then_some(path)
    }

    /// Keeps the work of a run that failed, instead of what was kept of the action before.
    /// On a disk that is nearly full, nothing is kept.
    ///
    /// # Errors
    /// [`StoreError::Access`] or [`StoreError::Tree`] when it cannot be moved.
    pub fn keep_failed(&self, action: ActionDigest, work: Scratch) -> Result<(), StoreError> {
        let directory = self.root().join("failed");
        self.forget_failed(action)?;
        let space = rustix::fs::statvfs(self.root())
            .map_err(|errno| access("examine", self.root(), errno.into()))?;
        if space.f_bavail < space.f_blocks / SPARE {
            return Ok(());
        }
        std::fs::create_dir_all(&directory)
            .map_err(|source| access("create", &directory, source))?;
        work.keep(&self.failed_path(action))?;
        for old in oldest(&directory, KEPT)? {
            remove_tree(&old)?;
        }
        Ok(())
    }

    /// Deletes what is kept of an action.
    ///
    /// # Errors
    /// [`StoreError::Tree`] when it cannot be deleted.
    pub fn forget_failed(&self, action: ActionDigest) -> Result<(), StoreError> {
        Ok(remove_tree(&self.failed_path(action))?)
    }

    /// Deletes all that is kept of failed runs.
    ///
    /// # Errors
    /// [`StoreError::Tree`] when something cannot be deleted.
    pub fn forget_all_failed(&self) -> Result<(), StoreError> {
        super::empty_directory(&self.root().join("failed"))
    }

    fn failed_path(&self, action: ActionDigest) -> PathBuf {
        self.root().join("failed").join(action.to_string())
    }
}

/// Returns the entries of a directory but for the newest few.
fn oldest(directory: &Path, keep: usize) -> Result<Vec<PathBuf>, StoreError> {
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    for path in super::verify::entries(directory)? {
        let time = std::fs::symlink_metadata(&path)
            .and_then(|metadata| metadata.modified())
            .map_err(|source| access("examine", &path, source))?;
        found.push((time, path));
    }
    found.sort();
    found.truncate(found.len().saturating_sub(keep));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}
