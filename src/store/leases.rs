//! What processes use now, and must not lose.
//!
//! Each process that relies on objects has a file in `leases/`, locked as long as it
//! lives, with a base name on each line. Garbage collection keeps what is named there
//! and all that it needs. An object is looked up and leased under the same shared lock
//! under which none is removed, so there is no moment in between.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use rusqlite::params;

use super::facts::Realisation;
use super::{Store, StoreError, crash};
use crate::hash::{ActionDigest, StorePath};

/// How much older than now the recorded time of the last use may be, in seconds: finer
/// would cost a write in every run, and nobody collects by the minute.
const USE_GRAIN: i64 = 3600;

/// Longest lease that is read, in bytes: a million objects have less.
const MAX_LEASE: u64 = 256 << 20;

/// The lease of this process: made when first needed, gone when the store is closed.
#[derive(Debug)]
pub(super) struct Lease {
    path: PathBuf,
    file: File,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A file that stays is found unlocked by the next collection, and removed.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "a lease file stays for now");
        }
    }
}

impl Lease {
    fn create(directory: &Path) -> Result<Self, StoreError> {
        loop {
            let (file, path) = tempfile::Builder::new()
                .prefix("lease-")
                .tempfile_in(directory)
                .and_then(|file| file.keep().map_err(|error| error.error))
                .map_err(|source| failed("create a lease in", directory, source))?;
            file.lock()
                .map_err(|source| failed("lock", &path, source))?;
            // A collection may have taken it for a dead one in between.
            if path.exists() {
                return Ok(Self { path, file });
            }
        }
    }

    fn append(&mut self, names: &[String]) -> Result<(), StoreError> {
        let mut text = names.join("\n");
        text.push('\n');
        self.file
            .write_all(text.as_bytes())
            .map_err(|source| failed("write", &self.path, source))
    }
}

/// While it lives, no object is removed. What was found is leased by [`Looking::finish`].
#[derive(Debug)]
pub struct Looking<'a> {
    store: &'a Store,
    found: Vec<String>,
    /// Rows whose last use was noted long ago.
    stale: Vec<i64>,
    now: i64,
    _shared: Option<File>,
}

impl Store {
    /// Starts to look which objects there are.
    ///
    /// Do not add objects before [`Looking::finish`]: that would wait for ever.
    ///
    /// # Errors
    /// [`StoreError::Access`] when the lock cannot be used.
    pub fn look(&self) -> Result<Looking<'_>, StoreError> {
        Ok(Looking {
            store: self,
            found: Vec::new(),
            stale: Vec::new(),
            now: super::runs::now(),
            _shared: self.looking()?,
        })
    }

    /// Leases objects; the caller holds the lock on objects in one way or the other.
    pub(super) fn lease(&self, names: &[String]) -> Result<(), StoreError> {
        // Where nothing can be noted, nobody is kept from removing it.
        if names.is_empty() || self.read_only {
            return Ok(());
        }
        let mut lease = self
            .lease
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match lease.as_mut() {
            Some(lease) => lease.append(names),
            None => {
                let mut made = Lease::create(&self.root().join("leases"))?;
                crash::point("lease: made");
                made.append(names)?;
                *lease = Some(made);
                Ok(())
            }
        }
    }

    /// Returns the base names of all objects that living processes lease, and removes the
    /// leases of dead ones.
    pub(super) fn leased(&self) -> Result<BTreeSet<String>, StoreError> {
        let directory = self.root().join("leases");
        let mut names = BTreeSet::new();
        let entries = std::fs::read_dir(&directory)
            .map_err(|source| failed("read the directory", &directory, source))?;
        for entry in entries {
            let path = entry
                .map_err(|source| failed("read the directory", &directory, source))?
                .path();
            let Ok(file) = File::open(&path) else {
                continue;
            };
            match file.try_lock() {
                Ok(()) => {
                    if let Err(error) = std::fs::remove_file(&path)
                        && error.kind() != std::io::ErrorKind::NotFound
                    {
                        return Err(failed("remove the lease", &path, error));
                    }
                }
                Err(_) => {
                    let mut text = String::new();
                    file.take(MAX_LEASE)
                        .read_to_string(&mut text)
                        .map_err(|source| failed("read the lease", &path, source))?;
                    names.extend(text.lines().map(str::to_owned));
                }
            }
        }
        Ok(names)
    }
}

impl Looking<'_> {
    /// Returns what an action produced, and keeps it.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn realisation(&mut self, action: ActionDigest) -> Result<Option<Realisation>, StoreError> {
        let Some((realisation, uses)) = self.store.realisation_and_uses(action)? else {
            return Ok(None);
        };
        let old = self.now - USE_GRAIN;
        self.stale.extend(
            uses.iter()
                .filter(|noted| noted.used_at < old)
                .map(|noted| noted.id),
        );
        self.found
            .extend(realisation.outputs.values().map(StorePath::base_name));
        Ok(Some(realisation))
    }

    /// Returns whether an object is there, and keeps it if it is.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn object(&mut self, path: &StorePath) -> Result<bool, StoreError> {
        let there = self.store.object(path)?.is_some();
        if there {
            self.found.push(path.base_name());
        }
        Ok(there)
    }

    /// Leases what was found to this process, and lets others change objects again.
    ///
    /// # Errors
    /// [`StoreError::Access`] when the lease cannot be written, [`StoreError::Database`].
    pub fn finish(self) -> Result<(), StoreError> {
        self.store.lease(&self.found)?;
        if self.stale.is_empty() || self.store.read_only {
            return Ok(());
        }
        self.store.in_transaction(|transaction| {
            let mut statement =
                transaction.prepare_cached("UPDATE objects SET used_at = ?2 WHERE id = ?1")?;
            for id in &self.stale {
                statement.execute(params![id, self.now])?;
            }
            Ok(())
        })
    }
}

fn failed(operation: &'static str, path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Access {
        operation,
        path: path.to_owned(),
        source,
    }
}
