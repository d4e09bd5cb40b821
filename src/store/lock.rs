//! Locks between processes.
//!
//! | file in `locks/` | shared by | alone |
//! |---|---|---|
//! | `<action>` | | who realises the action; others wait and take the result |
//! | `objects` | who looks whether objects are there and leases them | who adds or removes objects, for a moment |
//! | `collection` | | who collects garbage |
//! | `database` | | who makes the database |
//! | `unsynced` | who brings content into the store | who notes that all of it is on the disk, for a moment; who checks the store after the machine stopped |
//!
//! All are `flock` locks: the kernel frees them when their holder dies. `unsynced` is
//! taken before `objects`, and nobody waits for another lock while holding `objects`, so
//! there is no deadlock.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Store, StoreError, crash};
use crate::hash::{ActionDigest, StorePath};
use crate::tree::{TreeRoot, remove_tree, seal};

/// Held while an action is realised; dropping it lets the next process in.
#[derive(Debug)]
pub struct ActionLock {
    _held: File,
    path: PathBuf,
}

impl Drop for ActionLock {
    fn drop(&mut self) {
        // Who waits for it finds it gone, and makes another.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "a lock file stays for now");
        }
    }
}

/// Held while objects are added or removed. What is about to change is written into the
/// lock's file first: who finds something there knows that the writer died, and mends it.
#[derive(Debug)]
pub(super) struct Changing {
    file: File,
    path: PathBuf,
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
        self.must_be_writable()?;
        let path = self.lock_path(&action.to_string());
        let mut waiting = Some(waiting);
        loop {
            let held = open(path.clone())?;
            if !try_lock(&held, &path)? {
                if let Some(waiting) = waiting.take() {
                    waiting();
                }
                held.lock().map_err(|source| failed(path.clone(), source))?;
            }
            if leads_to(&path, &held).map_err(|source| failed(path.clone(), source))? {
                return Ok(ActionLock { _held: held, path });
            }
        }
    }

    /// Returns whether some process realises an action now.
    ///
    /// # Errors
    /// [`StoreError::Access`] when the lock file cannot be used.
    pub fn is_being_realised(&self, action: ActionDigest) -> Result<bool, StoreError> {
        let path = self.lock_path(&action.to_string());
        match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(failed(path, source)),
            Ok(file) => try_lock(&file, &path).map(|free| !free),
        }
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.root().join("locks").join(name)
    }

    /// Keeps objects from being added and removed while it is looked which there are.
    pub(super) fn looking(&self) -> Result<Option<File>, StoreError> {
        let path = self.lock_path("objects");
        let held = match (self.read_only, File::open(&path)) {
            (false, _) => open(path.clone())?,
            (true, Ok(held)) => held,
            // Nobody has ever changed anything in it.
            (true, Err(error)) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            (true, Err(source)) => return Err(failed(path, source)),
        };
        held.lock_shared().map_err(|source| failed(path, source))?;
        Ok(Some(held))
    }

    /// Keeps every other process from looking at which objects there are.
    pub(super) fn changing(&self) -> Result<Changing, StoreError> {
        self.must_be_writable()?;
        let path = self.lock_path("objects");
        let file = take(path.clone())?;
        let mut changing = Changing { file, path };
        let unfinished = changing.read()?;
        if !unfinished.is_empty() {
            self.mend(&unfinished)?;
            changing.done()?;
        }
        Ok(changing)
    }

    /// Mends what a process left that died while it changed objects: a tree without a row
    /// was not yet added, or is removed already; one with a row may not be sealed.
    pub(super) fn mend_if_needed(&self) -> Result<(), StoreError> {
        let path = self.lock_path("objects");
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.len() > 0 => self.changing().map(drop),
            _ => Ok(()),
        }
    }

    fn mend(&self, unfinished: &[String]) -> Result<(), StoreError> {
        for name in unfinished {
            let Ok(path) = StorePath::from_base_name(name) else {
                continue;
            };
            let tree = self.host_path(&path);
            if self.object(&path)?.is_none() {
                remove_tree(&tree)?;
            } else if tree.is_dir() {
                seal::seal_root(&TreeRoot::open(&tree)?)?;
            }
            crash::point("mend: object mended");
        }
        Ok(())
    }

    /// Keeps other processes from collecting garbage; `None` if one does.
    pub(super) fn collecting(&self) -> Result<Option<File>, StoreError> {
        self.must_be_writable()?;
        let path = self.lock_path("collection");
        let held = open(path.clone())?;
        Ok(try_lock(&held, &path)?.then_some(held))
    }
}

impl Changing {
    fn read(&mut self) -> Result<Vec<String>, StoreError> {
        let mut bytes = Vec::new();
        self.file
            .read_to_end(&mut bytes)
            .map_err(|source| failed(self.path.clone(), source))?;
        // Nothing of it need have reached the disk when the machine stopped.
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Notes the base names of objects that are about to come or go.
    pub(super) fn note(&mut self, names: &[String]) -> Result<(), StoreError> {
        let mut text = names.join("\n");
        text.push('\n');
        self.write(text.as_bytes())
    }

    /// Notes that all that was noted is done.
    pub(super) fn done(&mut self) -> Result<(), StoreError> {
        self.write(b"")
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file
            .rewind()
            .and_then(|()| self.file.set_len(0))
            .and_then(|()| self.file.write_all(bytes))
            .map_err(|source| failed(self.path.clone(), source))
    }
}

/// Returns whether a path still leads to an open file.
fn leads_to(path: &Path, file: &File) -> std::io::Result<bool> {
    let open = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits for a lock file and holds it until the file is dropped.
pub(super) fn take(path: PathBuf) -> Result<File, StoreError> {
    let held = open(path.clone())?;
    held.lock().map_err(|source| failed(path, source))?;
    Ok(held)
}

/// Takes a lock if nobody else holds it; returns whether it is held now.
pub(super) fn try_lock(file: &File, path: &Path) -> Result<bool, StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(std::fs::TryLockError::WouldBlock) => Ok(false),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(path.to_owned(), source)),
    }
}

fn open(path: PathBuf) -> Result<File, StoreError> {
    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|source| failed(path, source))
}

pub(super) fn failed(path: PathBuf, source: std::io::Error) -> StoreError {
    StoreError::Access {
        operation: "lock",
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waited_for_a_lock_holds_the_one_that_others_find() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let action = ActionDigest::from_bytes([7; 32]);
        let first = store.lock_action(action, || {}).unwrap();
        let (waits, is_waiting) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| store.lock_action(action, || waits.send(()).unwrap()));
            is_waiting.recv().unwrap();
            drop(first);
            let second = second.join().unwrap().unwrap();
            assert!(store.is_being_realised(action).unwrap());
            drop(second);
        });
        assert!(!store.is_being_realised(action).unwrap());
        assert!(!store.lock_path(&action.to_string()).exists());
    }
}
