//! Locks between processes: one realises an action, the others wait and take its result.

use std::fs::File;
use std::path::PathBuf;

use super::{Store, StoreError};
use crate::hash::ActionDigest;

/// Held while an action is realised; dropping it lets the next process in.
#[derive(Debug)]
pub struct ActionLock {
    _held: File,
}

impl Store {
    /// Waits until no other process realises an action, and keeps others out.
    ///
    /// `waiting` is called once if another process holds the lock.
    ///
    /// # Errors
    /// [`StoreError::Access`] when the lock file cannot be used.
    pub fn lock_action(
        &self,
        action: ActionDigest,
        waiting: impl FnOnce(),
    ) -> Result<ActionLock, StoreError> {
        let path = self.root().join("locks").join(action.to_string());
        let held = open(path.clone())?;
        match held.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                waiting();
                held.lock().map_err(|source| failed(path, source))?;
            }
            Err(std::fs::TryLockError::Error(source)) => return Err(failed(path, source)),
        }
        Ok(ActionLock { _held: held })
    }

    /// Keeps other processes from moving objects into place for a moment.
    pub(super) fn lock_registration(&self) -> Result<File, StoreError> {
        take(self.root().join("locks").join("registration"))
    }
}

/// Waits for a lock file and holds it until the file is dropped.
pub(super) fn take(path: PathBuf) -> Result<File, StoreError> {
    let held = open(path.clone())?;
    held.lock().map_err(|source| failed(path, source))?;
    Ok(held)
}

fn open(path: PathBuf) -> Result<File, StoreError> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| failed(path, source))
}

fn failed(path: PathBuf, source: std::io::Error) -> StoreError {
    StoreError::Access {
        operation: "lock",
        path,
        source,
    }
}
