//! Taking objects out of the store: which there are, and removing those that `gc` chose.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rayon::prelude::*;
use rusqlite::{Connection, Transaction};

use super::pool::access;
use super::verify::entries;
use super::{Scratch, Store, StoreError, crash};
use crate::hash::StorePath;
use crate::tree::remove_tree;

/// Objects that are removed under one lock, so that others wait for moments only.
const BATCH: usize = 512;

/// How long a file that can be had again is kept.
const CACHED: Duration = Duration::from_secs(86400);

/// An object as garbage collection sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its path.
    pub path: StorePath,
    /// Sum of its files' lengths, in bytes.
    pub size_bytes: u64,
    /// When it was last used, in seconds since 1970, to the hour.
    pub used_at: i64,
    /// The objects that it names, as places in [`Census::objects`].
    pub targets: Vec<usize>,
}

/// Every object with what it names, and what living processes use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// The objects, in the order in which they were added: what is named comes first.
    pub objects: Vec<Known>,
    /// Objects that living processes use, by place.
    pub leased: BTreeSet<usize>,
}

/// What a removal removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects.
    pub objects: usize,
    /// Files that nothing has any more.
    pub files: usize,
    /// Bytes of those files.
    pub file_bytes: u64,
}

impl Store {
    /// Counts every object.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Malformed`] or [`StoreError::Access`].
    pub fn census(&self) -> Result<Census, StoreError> {
        let rows: Vec<(i64, String, i64, i64)> = self.query(
            "SELECT id, path, size_bytes, used_at FROM objects ORDER BY id",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )?;
        let edges: Vec<(i64, i64)> = self.query("SELECT object, target FROM edges", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        let leased_names = self.leased()?;
        let ids: Vec<i64> = rows.iter().map(|(id, ..)| *id).collect();
        let place = |id: i64| ids.binary_search(&id).ok();
        let mut census = Census::default();
        for (index, (_, path, size_bytes, used_at)) in rows.into_iter().enumerate() {
            if leased_names.contains(&path) {
                census.leased.insert(index);
            }
            census.objects.push(Known {
                path: StorePath::from_base_name(&path)?,
                size_bytes: u64::try_from(size_bytes).unwrap_or(0),
                used_at,
                targets: Vec::new(),
            });
        }
        for (object, target) in edges {
            if let (Some(object), Some(target)) = (place(object), place(target))
                && let Some(known) = census.objects.get_mut(object)
            {
                known.targets.push(target);
            }
        }
        Ok(census)
    }

    /// Removes objects, those that name others before those they name.
    ///
    /// An object that a root or a living process keeps by now, or that another object
    /// names, stays. `goes_on` is asked before each batch, with the number of objects
    /// that are done. Returns how many were removed.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed before stays removed, and the store is whole.
    pub fn remove_objects(
        &self,
        victims: &[StorePath],
        goes_on: &mut dyn FnMut(usize) -> bool,
    ) -> Result<usize, StoreError> {
        let mut removed = 0;
        let _writing = self.writing()?;
        let trash = self.scratch()?;
        // Deleting files takes as long as deleting rows: one thread for each.
        std::thread::scope(|scope| {
            let (send, receive) = std::sync::mpsc::channel::<PathBuf>();
            let deleting = scope.spawn(move || {
                receive
                    .into_iter()
                    .try_for_each(|batch| remove_tree(&batch))
                    .map_err(StoreError::from)
            });
            for (number, batch) in victims.chunks(BATCH).enumerate() {
                if !goes_on(number * BATCH) {
                    break;
                }
                let (count, moved) = self.remove_batch(batch, &trash, number)?;
                removed += count;
                if send.send(moved).is_err() {
                    break;
                }
            }
            drop(send);
            deleting.join().unwrap_or(Ok(()))
        })?;
        Ok(removed)
    }

    /// Removes the rows of one batch, and moves the trees out of the way.
    fn remove_batch(
        &self,
        batch: &[StorePath],
        trash: &Scratch,
        number: usize,
    ) -> Result<(usize, PathBuf), StoreError> {
        let into = trash.path().join(number.to_string());
        std::fs::create_dir(&into).map_err(|source| access("create", &into, source))?;
        let mut changing = self.changing()?;
        let leased = self.leased()?;
        let names: Vec<String> = batch
            .iter()
            .map(StorePath::base_name)
            .filter(|name| !leased.contains(name))
            .collect();
        changing.note(&names)?;
        crash::point("remove: noted");
        // A row that came back when the machine stops would have no tree.
        let gone = self.in_sweeping_transaction(|transaction| {
            let gone = delete_free(transaction, &names)?;
            if !gone.is_empty() {
                count_removal(transaction)?;
            }
            Ok(gone)
        })?;
        crash::point("remove: rows deleted");
        for name in &gone {
            let from = self.root().join("store").join(name);
            super::register::make_movable(&from);
            match std::fs::rename(&from, into.join(name)) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(access("move the object from", &from, source));
                }
                _ => {}
            }
            crash::point("remove: tree moved");
        }
        let count = gone.len();
        changing.done()?;
        crash::point("remove: done");
        Ok((count, into))
    }

    /// Removes files of the pool that no object links to.
    ///
    /// # Errors
    /// [`StoreError::Access`].
    pub fn sweep_pool(&self) -> Result<Swept, StoreError> {
        let pool = self.root().join("blobs");
        let mut shards = entries(&pool)?;
        shards.retain(|shard| shard.is_dir());
        let found: Vec<(usize, u64)> = shards
            .par_iter()
            .map(|shard| {
                let mut found = (0, 0);
                for blob in entries(shard)? {
                    let metadata = match std::fs::symlink_metadata(&blob) {
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                        other => other.map_err(|source| access("examine", &blob, source))?,
                    };
                    if metadata.nlink() > 1 || !metadata.is_file() {
                        continue;
                    }
                    // Who links to it now keeps the content; only the name goes.
                    match std::fs::remove_file(&blob) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            return Err(access("remove", &blob, error));
                        }
                        _ => {}
                    }
                    crash::point("sweep: file removed");
                    found.0 += 1;
                    found.1 += metadata.len();
                }
                Ok(found)
            })
            .collect::<Result<_, StoreError>>()?;
        crash::point("sweep: pool swept");
        Ok(Swept {
            objects: 0,
            files: found.iter().map(|(count, _)| count).sum(),
            file_bytes: found.iter().map(|(_, bytes)| bytes).sum(),
        })
    }

    /// Removes downloads and cached layers that were not used for a day, and what
    /// processes that died while they made some left of them. All can be had again.
    ///
    /// # Errors
    /// [`StoreError::Access`], [`StoreError::Database`].
    pub fn sweep_caches(&self) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        let mut kept = BTreeSet::new();
        let layers = self.images().join("blobs");
        for directory in [self.downloads(), layers.clone()] {
            if !directory.exists() {
                continue;
            }
            for file in entries(&directory)? {
                match remove_if_old(&file) {
                    Ok(Some(length)) => {
                        swept.files += 1;
                        swept.file_bytes += length;
                    }
                    Ok(None) => drop(kept.insert(file)),
                    // It had another name while it was made.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(source) => return Err(access("remove", &file, source)),
                }
            }
        }
        self.forget_layers_but(|digest| kept.contains(&layers.join(digest.to_string())))?;
        self.forget_checksums()?;
        Ok(swept)
    }

    /// Returns how many times objects were removed from this store: as long as it stays
    /// the same, whatever was there is there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn removals(&self) -> Result<u64, StoreError> {
        self.with_database(|connection| {
            count_of_removals(connection).map_err(|source| self.failed(source))
        })
    }

    /// Keeps other processes from collecting; `None` if one does already.
    ///
    /// # Errors
    /// [`StoreError::Access`] when the lock cannot be used.
    pub fn collect_alone(&self) -> Result<Option<impl Drop + use<>>, StoreError> {
        Ok(self.collecting()?.map(Alone))
    }
}

/// Removes a file that was not used for long; returns its length if it went.
fn remove_if_old(file: &Path) -> std::io::Result<Option<u64>> {
    let metadata = std::fs::symlink_metadata(file)?;
    // A layer's time of modification says nothing. A time in the future is no reason to go.
    let used = metadata.modified()?.max(metadata.accessed()?);
    let age = used.elapsed().unwrap_or_default();
    if !metadata.is_file() || age < CACHED {
        return Ok(None);
    }
    std::fs::remove_file(file)?;
    Ok(Some(metadata.len()))
}

/// Holds the lock of collection.
struct Alone(std::fs::File);

impl Drop for Alone {
    fn drop(&mut self) {
        // Closing the file would do; to say it is clearer.
        drop(self.0.unlock());
    }
}

/// The mark that counts removals.
const REMOVALS: &str = "removals";

pub(super) fn count_of_removals(connection: &Connection) -> rusqlite::Result<u64> {
    let count: Option<i64> = connection
        .prepare_cached("SELECT CAST(value AS INTEGER) FROM marks WHERE name = ?1")?
        .query_map([REMOVALS], |row| row.get(0))?
        .next()
        .transpose()?;
    Ok(count
        .and_then(|count| u64::try_from(count).ok())
        .unwrap_or(0))
}

pub(super) fn count_removal(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO marks (name, value) VALUES (?1, '1')
             ON CONFLICT (name) DO UPDATE SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT)",
        )?
        .execute([REMOVALS])
        .map(drop)
}

/// Deletes the rows of those objects that nothing needs, with all that depends on them;
/// returns their names. What names others has to come before them.
fn delete_free<'a>(
    transaction: &Transaction<'_>,
    names: &'a [String],
) -> rusqlite::Result<Vec<&'a String>> {
    let (mut gone, mut ids) = (Vec::new(), Vec::new());
    for name in names {
        let id: Option<i64> = transaction
            .prepare_cached(
                "SELECT id FROM objects o WHERE path = ?1
                 AND NOT EXISTS (SELECT 1 FROM edges WHERE target = o.id)
                 AND NOT EXISTS (SELECT 1 FROM roots WHERE object = o.id)",
            )?
            .query_map([name], |row| row.get(0))?
            .next()
            .transpose()?;
        let Some(id) = id else { continue };
        // Now what it alone named is free as well.
        transaction
            .prepare_cached("DELETE FROM edges WHERE object = ?1")?
            .execute([id])?;
        gone.push(name);
        ids.push(id);
    }
    delete_objects(transaction, &ids)?;
    Ok(gone)
}

/// Deletes the rows of objects and whatever depends on them, dependents first. An action
/// that gave one of them and other outputs has to be done again for it, so the others are
/// no longer its outputs either.
///
/// Each table is gone through once: row by row, with SQLite following the foreign keys,
/// this takes most of a collection's time.
pub(super) fn delete_objects(transaction: &Transaction<'_>, ids: &[i64]) -> rusqlite::Result<()> {
    let ids = serde_json::json!(ids).to_string();
    for table in [
        "DELETE FROM object_references WHERE object IN (SELECT value FROM json_each(?1))",
        "DELETE FROM edges WHERE object IN (SELECT value FROM json_each(?1))",
        "DELETE FROM self_positions WHERE object IN (SELECT value FROM json_each(?1))",
        "DELETE FROM listings WHERE object IN (SELECT value FROM json_each(?1))",
        "DELETE FROM links WHERE action IN (SELECT action FROM realisations
           WHERE object IN (SELECT value FROM json_each(?1)))",
        "DELETE FROM realisations WHERE action IN (SELECT action FROM realisations
           WHERE object IN (SELECT value FROM json_each(?1)))",
        "DELETE FROM objects WHERE id IN (SELECT value FROM json_each(?1))",
    ] {
        transaction.prepare_cached(table)?.execute([&ids])?;
    }
    Ok(())
}
