//! Private working directories that do not outlive their owner.
//!
//! Each has a lock file beside it, held as long as the owner lives. A directory whose
//! lock can be taken belongs to nobody any more and is removed by the next `open`.

use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{StoreError, crash};
use crate::tree::{TreeError, remove_tree};

/// A private directory (mode 0700) on the store's file system, removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl Scratch {
    pub(super) fn create(parent: &Path) -> Result<Self, StoreError> {
        let failed = |operation, path: &Path, source| StoreError::Access {
            operation,
            path: path.to_owned(),
            source,
        };
        // The lock comes first: a directory without one would look abandoned.
        loop {
            let lock = tempfile::Builder::new()
                .prefix("work-")
                .suffix(".lock")
                .tempfile_in(parent)
                .and_then(|file| file.keep().map_err(|error| error.error))
                .map_err(|source| failed("create a working directory in", parent, source))?;
            let (held, lock) = lock;
            held.lock()
                .map_err(|source| failed("lock", &lock, source))?;
            // A cleaner may have taken the lock in between and removed the file.
            if !lock.exists() {
                continue;
            }
            crash::point("scratch: locked");
            let path = lock.with_extension("");
            std::fs::DirBuilder::new()
                .mode(0o700)
                .create(&path)
                .map_err(|source| failed("create the working directory", &path, source))?;
            return Ok(Self {
                path,
                lock,
                _held: held,
            });
        }
    }

    /// Moves the directory to where it stays, in place of nothing.
    pub(super) fn keep(self, to: &Path) -> Result<(), StoreError> {
        // Renaming needs write permission on a directory that changes its parent.
        super::register::make_movable(&self.path);
        std::fs::rename(&self.path, to).map_err(|source| StoreError::Access {
            operation: "keep the working directory as",
            path: to.to_owned(),
            source,
        })
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next `open`, which reports failure.
        if let Err(error) = remove_tree(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "a working directory stays for now");
            return;
        }
        crash::point("scratch: directory removed");
        if let Err(error) = std::fs::remove_file(&self.lock) {
            tracing::debug!(%error, path = %self.lock.display(), "a lock file stays for now");
        }
    }
}

pub(super) fn remove_abandoned(parent: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Access {
        operation: "clean up",
        path: parent.to_owned(),
        source,
    };
    for entry in std::fs::read_dir(parent).map_err(failed)? {
        let lock = entry.map_err(failed)?.path();
        if lock.extension().is_none_or(|extension| extension != "lock") {
            // Who lives made the lock first and removes it last.
            if !lock.with_extension("lock").exists() {
                match remove_tree(&lock) {
                    // Another process removes it as well.
                    Err(TreeError::Access { source, .. })
                        if source.kind() == std::io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
            continue;
        }
        let Ok(file) = File::open(&lock) else {
            continue;
        };
        if file.try_lock().is_err() {
            continue;
        }
        remove_tree(&lock.with_extension(""))?;
        match std::fs::remove_file(&lock) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_owner_keeps_its_directory_and_a_dead_one_does_not() {
        let parent = tempfile::tempdir().unwrap();
        let living = Scratch::create(parent.path()).unwrap();
        std::fs::write(living.path().join("file"), "x").unwrap();
        std::fs::write(parent.path().join("work-dead.lock"), "").unwrap();
        std::fs::create_dir_all(parent.path().join("work-dead/deep")).unwrap();
        std::fs::create_dir_all(parent.path().join("work-lost/deep")).unwrap();
        remove_abandoned(parent.path()).unwrap();
        assert!(living.path().join("file").exists());
        assert!(!parent.path().join("work-dead").exists());
        assert!(!parent.path().join("work-lost").exists());
        drop(living);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
