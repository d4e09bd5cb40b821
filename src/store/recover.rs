//! The first opening after the machine stopped with content that was not on the disk.
//!
//! The file system may have lost the bytes of files, files, and whole trees; the database
//! may have lost its last transactions. What was synced is sound. So: trees without a row
//! go, objects that were not noted as synced are hashed again, what can be put together
//! from sound copies is, and what cannot is forgotten with all that needs it, so that the
//! next build makes it again. Files of the pool that no object has go unseen, since a
//! later build would trust them; so do cached layers.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rusqlite::Transaction;

use super::objects::names_json;
use super::pool::access;
use super::verify::{entries, verify_blobs};
use super::{ObjectInfo, Store, StoreError, crash};
use crate::hash::StorePath;
use crate::listing::Entry;
use crate::tree::remove_tree;

/// Something that happens while a store is opened, and takes a while.
#[derive(Debug, Clone, Copy)]
pub enum Opening<'a> {
    /// Another process checks the store after a stop of the machine.
    Waiting,
    /// The machine stopped; what was not on the disk is hashed again.
    Checking {
        /// How many objects.
        objects: usize,
        /// The sum of their files' lengths.
        bytes: u64,
    },
    /// That is done.
    Checked(&'a Recovered),
}

/// What became of the objects that were not on the disk when the machine stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// How many were hashed again.
    pub checked: usize,
    /// Those that were damaged and are whole again.
    pub restored: Vec<StorePath>,
    /// Those that were lost, and those that named them.
    pub forgotten: Vec<StorePath>,
    /// Roots that kept one of those.
    pub roots: Vec<String>,
}

impl Store {
    /// Makes the store consistent again; the caller keeps writers out.
    pub(super) fn recover(&self, watch: &dyn Fn(Opening<'_>)) -> Result<Recovered, StoreError> {
        self.remove_unrecorded(&self.unrecorded()?)?;
        crash::point("recover: unrecorded trees removed");
        let objects = self.unsynced_objects()?;
        watch(Opening::Checking {
            objects: objects.len(),
            bytes: objects.iter().map(|object| object.size_bytes).sum(),
        });
        let pool = verify_blobs(self.blobs_of(&objects), &|_| {});
        let damage = self.verify(&objects, &pool, &|| {})?;
        let damaged: BTreeSet<&StorePath> = damage.iter().map(|damage| &damage.object).collect();
        let blobs: Vec<PathBuf> = pool.damaged.iter().map(|(path, _)| path.clone()).collect();
        self.remove_files(&blobs)?;
        crash::point("recover: damaged files removed");
        let mut recovered = Recovered {
            checked: objects.len(),
            ..Recovered::default()
        };
        let mut lost = Vec::new();
        for object in objects
            .iter()
            .filter(|object| damaged.contains(&object.path))
        {
            let path = object.path.clone();
            if self.restore_alone(&path)? {
                recovered.restored.push(path);
            } else {
                lost.push(path);
            }
            crash::point("recover: object restored");
        }
        (recovered.forgotten, recovered.roots) = self.forget(&lost)?;
        self.sweep_pool()?;
        self.forget_layers()?;
        self.forget_evaluations()?;
        self.sync_files()?;
        crash::point("recover: on the disk");
        self.in_transaction(|transaction| {
            transaction
                .execute("UPDATE objects SET synced = 1 WHERE synced = 0", [])
                .map(drop)
        })?;
        crash::point("recover: noted");
        watch(Opening::Checked(&recovered));
        Ok(recovered)
    }

    /// Returns the objects that are not noted as synced, in the order of their adding.
    fn unsynced_objects(&self) -> Result<Vec<ObjectInfo>, StoreError> {
        self.object_rows(
            "SELECT path, tree, size_bytes, entries FROM objects WHERE synced = 0 ORDER BY id",
        )
    }

    /// Returns the pool's files for the content of objects; a damaged listing has none.
    fn blobs_of(&self, objects: &[ObjectInfo]) -> Vec<PathBuf> {
        let mut blobs = BTreeSet::new();
        for object in objects {
            let Ok(listing) = self.listing(&object.path) else {
                continue;
            };
            for (_, entry) in listing.iter() {
                if let Entry::File {
                    digest, executable, ..
                } = entry
                {
                    blobs.insert(self.blob_path(*digest, *executable));
                }
            }
        }
        blobs.into_iter().collect()
    }

    /// Removes objects and all that names them, with what is recorded of them. Returns
    /// what went, and the names of the roots that went with it.
    fn forget(&self, lost: &[StorePath]) -> Result<(Vec<StorePath>, Vec<String>), StoreError> {
        if lost.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let mut changing = self.changing()?;
        let rows: Vec<(i64, String)> = self.query(
            "WITH RECURSIVE lost (id) AS (
               SELECT id FROM objects WHERE path IN (SELECT value FROM json_each(?1))
               UNION SELECT e.object FROM edges e JOIN lost l ON e.target = l.id)
             SELECT o.id, o.path FROM lost l JOIN objects o ON o.id = l.id ORDER BY o.id DESC",
            [names_json(lost)],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let names: Vec<String> = rows.iter().map(|(_, name)| name.clone()).collect();
        changing.note(&names)?;
        let roots = self.in_durable_transaction(|transaction| {
            let mut roots = Vec::new();
            let ids: Vec<i64> = rows.iter().map(|(id, _)| *id).collect();
            for id in &ids {
                roots.extend(delete_roots(transaction, *id)?);
            }
            super::sweep::delete_objects(transaction, &ids)?;
            super::sweep::count_removal(transaction)?;
            Ok(roots)
        })?;
        crash::point("recover: rows deleted");
        let mut forgotten = Vec::new();
        for name in &names {
            let path = StorePath::from_base_name(name)?;
            remove_tree(&self.host_path(&path))?;
            crash::point("recover: tree removed");
            forgotten.push(path);
        }
        changing.done()?;
        Ok((forgotten, roots))
    }

    /// Forgets every cached layer: they are made again from objects.
    fn forget_layers(&self) -> Result<(), StoreError> {
        self.in_durable_transaction(|transaction| {
            transaction.execute_batch("DELETE FROM layers; DELETE FROM encoded_layers")
        })?;
        crash::point("recover: layers forgotten");
        let directory = self.images().join("blobs");
        if !directory.exists() {
            return Ok(());
        }
        for layer in entries(&directory)? {
            std::fs::remove_file(&layer).map_err(|source| access("remove", &layer, source))?;
        }
        Ok(())
    }
}

fn delete_roots(transaction: &Transaction<'_>, object: i64) -> rusqlite::Result<Vec<String>> {
    transaction
        .prepare_cached("DELETE FROM roots WHERE object = ?1 RETURNING name")?
        .query_map([object], |row| row.get(0))?
        .collect()
}
