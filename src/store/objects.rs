//! What the database knows of objects: listings, references, closures.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Transaction, params};

use super::reach::{Numbers, reach};
use super::{Store, StoreError};
use crate::closure::{Graph, Reference};
use crate::hash::object::Position;
use crate::hash::{StorePath, TreeDigest};
use crate::listing::{EncodedTree, Listing};
use crate::tree::Hit;

/// One object as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its path.
    pub path: StorePath,
    /// Digest of the tree as it lies on disk.
    pub tree: TreeDigest,
    /// Sum of its files' lengths, in bytes.
    pub size_bytes: u64,
    /// Number of files, directories and links.
    pub entries: u64,
}

fn parse_base(text: &str) -> Result<StorePath, StoreError> {
    StorePath::from_base_name(text).map_err(|_| StoreError::Malformed {
        what: "store path",
        value: text.to_owned(),
    })
}

fn parse_tree(bytes: &[u8]) -> Result<TreeDigest, StoreError> {
    <[u8; 32]>::try_from(bytes)
        .map(TreeDigest::from_bytes)
        .map_err(|_| StoreError::Malformed {
            what: "digest",
            value: format!("{} bytes", bytes.len()),
        })
}

pub(super) fn names_json<'a>(paths: impl IntoIterator<Item = &'a StorePath>) -> String {
    let names: Vec<String> = paths.into_iter().map(StorePath::base_name).collect();
    serde_json::json!(names).to_string()
}

impl Store {
    /// Returns what is recorded of an object, or `None` when it is not in the store.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn object(&self, path: &StorePath) -> Result<Option<ObjectInfo>, StoreError> {
        self.query(
            "SELECT path, tree, size_bytes, entries FROM objects WHERE path = ?1",
            [path.base_name()],
            object_row,
        )?
        .pop()
        .map(object_info)
        .transpose()
    }

    /// Returns every object, sorted by name, then by digest.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn objects(&self) -> Result<Vec<ObjectInfo>, StoreError> {
        let mut objects =
            self.object_rows("SELECT path, tree, size_bytes, entries FROM objects")?;
        objects.sort_by(|a, b| {
            (a.path.name(), a.path.digest()).cmp(&(b.path.name(), b.path.digest()))
        });
        Ok(objects)
    }

    /// Returns the objects that a query without parameters selects, in its order.
    pub(super) fn object_rows(&self, sql: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.query(sql, [], object_row)?
            .into_iter()
            .map(object_info)
            .collect()
    }

    /// Returns the listing of an object.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], or [`StoreError::Listing`] when the database is damaged.
    pub fn listing(&self, path: &StorePath) -> Result<Listing, StoreError> {
        let row: Option<([u8; 32], Option<Vec<u8>>)> = self
            .query(
                "SELECT o.tree, l.messages FROM objects o LEFT JOIN listings l ON l.object = o.id
                 WHERE o.path = ?1",
                [path.base_name()],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?
            .pop();
        let (tree, messages) = row.ok_or_else(|| StoreError::Unknown(path.clone()))?;
        Listing::from_bytes(
            TreeDigest::from_bytes(tree),
            messages.as_deref().unwrap_or_default(),
        )
        .map_err(|source| StoreError::Listing {
            path: path.clone(),
            source,
        })
    }

    /// Returns what an object names, itself not included, sorted.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn references(&self, path: &StorePath) -> Result<Vec<Reference>, StoreError> {
        let rows: Vec<(String, String, i64)> = self.query(
            "SELECT target.path, r.file, r.offset FROM object_references r
             JOIN objects o ON o.id = r.object JOIN objects target ON target.id = r.target
             WHERE o.path = ?1",
            [path.base_name()],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        let mut references = rows
            .into_iter()
            .map(|(target, file, offset)| reference(parse_base(&target)?, &file, offset))
            .collect::<Result<Vec<_>, StoreError>>()?;
        references.sort();
        Ok(references)
    }

    /// Returns the places where an object names itself, sorted.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn self_references(&self, path: &StorePath) -> Result<Vec<Reference>, StoreError> {
        let rows: Vec<(String, i64)> = self.query(
            "SELECT p.file, p.offset FROM self_positions p
             JOIN objects o ON o.id = p.object WHERE o.path = ?1",
            [path.base_name()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let mut references = rows
            .into_iter()
            .map(|(file, offset)| reference(path.clone(), &file, offset))
            .collect::<Result<Vec<_>, StoreError>>()?;
        references.sort();
        Ok(references)
    }

    /// Returns objects and everything they reference, transitively, sorted.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when a start is not in the store.
    pub fn closure<'a>(
        &self,
        starts: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<BTreeSet<StorePath>, StoreError> {
        Ok(self
            .closure_sizes(starts)?
            .into_iter()
            .map(|(path, _)| path)
            .collect())
    }

    /// Returns a closure with the size of each object in bytes, sorted by path.
    ///
    /// # Errors
    /// As [`Store::closure`].
    pub fn closure_sizes<'a>(
        &self,
        starts: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<Vec<(StorePath, u64)>, StoreError> {
        let mut closure: Vec<(StorePath, u64)> = self
            .reach(starts, |_, _| {})?
            .into_iter()
            .map(|(_, path, size_bytes)| (path, size_bytes))
            .collect();
        closure.sort_unstable();
        Ok(closure)
    }

    /// Returns the objects of a closure by their numbers, each with its size in bytes;
    /// `edge` is told of each object that names another.
    fn reach<'a>(
        &self,
        starts: impl IntoIterator<Item = &'a StorePath>,
        edge: impl FnMut(i64, i64),
    ) -> Result<Vec<(i64, StorePath, u64)>, StoreError> {
        let mut numbers = Numbers::default();
        for start in starts {
            let found = self.query(
                "SELECT id FROM objects WHERE path = ?1",
                [start.base_name()],
                |row| row.get(0),
            )?;
            let number = found.first();
            numbers.insert(*number.ok_or_else(|| StoreError::Unknown(start.clone()))?);
        }
        let mut rows: Vec<(i64, String, i64)> = Vec::new();
        self.with_database(|connection| {
            let found = reach(connection, numbers, edge).and_then(|numbers| {
                let mut statement = connection.prepare_cached(
                    "SELECT id, path, size_bytes FROM objects WHERE id BETWEEN ?1 AND ?2",
                )?;
                numbers.rows(&mut statement, |row| {
                    rows.push((row.get(0)?, row.get(1)?, row.get(2)?));
                    Ok(())
                })
            });
            found.map_err(|source| self.failed(source))
        })?;
        rows.into_iter()
            .map(|(number, path, size)| {
                Ok((number, parse_base(&path)?, u64::try_from(size).unwrap_or(0)))
            })
            .collect()
    }

    /// Returns which object of a closure names which, for graph questions.
    ///
    /// # Errors
    /// As [`Store::closure`].
    pub fn reference_graph(&self, start: &StorePath) -> Result<Graph, StoreError> {
        self.graph_of(std::slice::from_ref(start))
    }

    /// As [`Store::reference_graph`], of several objects together.
    ///
    /// # Errors
    /// As [`Store::closure`].
    pub fn graph_of(&self, starts: &[StorePath]) -> Result<Graph, StoreError> {
        let mut edges = Vec::new();
        let found = self.reach(starts, |object, target| edges.push((object, target)))?;
        let paths: BTreeMap<i64, &StorePath> = found
            .iter()
            .map(|(number, path, _)| (*number, path))
            .collect();
        let mut graph: Graph = paths
            .values()
            .map(|path| ((*path).clone(), Vec::new()))
            .collect();
        for (object, target) in edges {
            if let (Some(object), Some(target)) = (paths.get(&object), paths.get(&target))
                && let Some(targets) = graph.get_mut(*object)
            {
                targets.push((*target).clone());
            }
        }
        graph.values_mut().for_each(|targets| targets.sort());
        Ok(graph)
    }
}

fn reference(target: StorePath, file: &str, offset: i64) -> Result<Reference, StoreError> {
    Ok(Reference {
        target,
        file: file.parse()?,
        offset: u64::try_from(offset).unwrap_or(0),
    })
}

type ObjectRow = (String, Vec<u8>, i64, i64);

fn object_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<ObjectRow> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn object_info((path, tree, size_bytes, entries): ObjectRow) -> Result<ObjectInfo, StoreError> {
    Ok(ObjectInfo {
        path: parse_base(&path)?,
        tree: parse_tree(&tree)?,
        size_bytes: u64::try_from(size_bytes).unwrap_or(0),
        entries: u64::try_from(entries).unwrap_or(0),
    })
}

/// Everything that is recorded when an object is registered.
pub(super) struct NewObject<'a> {
    pub path: &'a StorePath,
    pub tree: &'a EncodedTree,
    pub listing: &'a Listing,
    pub positions: &'a [Position],
    pub references: &'a [Hit],
    pub now: i64,
}

/// Inserts an object; every target of its references must be there already.
pub(super) fn insert(transaction: &Transaction<'_>, new: &NewObject<'_>) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO objects (path, tree, size_bytes, entries, registered_at, used_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
        )?
        .execute(params![
            new.path.base_name(),
            new.tree.root.digest.as_bytes(),
            i64::try_from(new.listing.size_bytes()).unwrap_or(i64::MAX),
            i64::try_from(new.listing.len()).unwrap_or(i64::MAX),
            new.now
        ])?;
    let id = transaction.last_insert_rowid();
    transaction
        .prepare_cached("INSERT INTO listings (object, messages) VALUES (?1, ?2)")?
        .execute(params![id, new.tree.to_bytes()])?;
    let offset = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
    for position in new.positions {
        transaction
            .prepare_cached(
                "INSERT INTO self_positions (object, file, offset) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![id, position.path.as_str(), offset(position.offset)])?;
    }
    let mut targets: BTreeMap<&StorePath, i64> = BTreeMap::new();
    for hit in new.references {
        let target = match targets.get(&hit.target) {
            Some(target) => *target,
            None => {
                let target = transaction
                    .prepare_cached("SELECT id FROM objects WHERE path = ?1")?
                    .query_row([hit.target.base_name()], |row| row.get(0))?;
                transaction
                    .prepare_cached("INSERT INTO edges (object, target) VALUES (?1, ?2)")?
                    .execute([id, target])?;
                targets.insert(&hit.target, target);
                target
            }
        };
        transaction
            .prepare_cached(
                "INSERT INTO object_references (object, target, file, offset)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![id, target, hit.file.as_str(), offset(hit.offset)])?;
    }
    Ok(())
}
