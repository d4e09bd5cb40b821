//! What the database knows of objects: listings, references, closures.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

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

impl Store {
    /// Returns what is recorded of an object, or `None` when it is not in the store.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn object(&self, path: &StorePath) -> Result<Option<ObjectInfo>, StoreError> {
        let row = self.with_database(|connection| {
            connection
                .prepare_cached(
                    "SELECT path, tree, size_bytes, entries FROM objects WHERE path = ?1",
                )
                .and_then(|mut statement| {
                    statement
                        .query_row([path.base_name()], object_row)
                        .optional()
                })
                .map_err(|source| self.failed(source))
        })?;
        row.map(object_info).transpose()
    }

    /// Returns every object, sorted by name, then by digest.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn objects(&self) -> Result<Vec<ObjectInfo>, StoreError> {
        let rows = self.with_database(|connection| {
            connection
                .prepare_cached("SELECT path, tree, size_bytes, entries FROM objects")
                .and_then(|mut statement| {
                    statement
                        .query_map([], object_row)?
                        .collect::<rusqlite::Result<Vec<_>>>()
                })
                .map_err(|source| self.failed(source))
        })?;
        let mut objects: Vec<ObjectInfo> = rows
            .into_iter()
            .map(object_info)
            .collect::<Result<_, _>>()?;
        objects.sort_by(|a, b| {
            (a.path.name(), a.path.digest()).cmp(&(b.path.name(), b.path.digest()))
        });
        Ok(objects)
    }

    /// Returns the listing of an object.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], or [`StoreError::Listing`] when the database is damaged.
    pub fn listing(&self, path: &StorePath) -> Result<Listing, StoreError> {
        let info = self
            .object(path)?
            .ok_or_else(|| StoreError::Unknown(path.clone()))?;
        self.with_database(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT message FROM directories WHERE digest = ?1")
                .map_err(|source| self.failed(source))?;
            Listing::decode(info.tree, |digest| {
                statement
                    .query_row([digest.as_bytes()], |row| row.get::<_, Vec<u8>>(0))
                    .optional()
                    .map_err(|source| Failure::Store(self.failed(source)))
            })
            .map_err(|failure| match failure {
                Failure::Store(error) => error,
                Failure::Listing(source) => StoreError::Listing {
                    path: path.clone(),
                    source,
                },
            })
        })
    }

    /// Returns what an object names, itself not included, sorted.
    ///
    /// # Errors
    /// [`StoreError::Unknown`], [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn references(&self, path: &StorePath) -> Result<Vec<Reference>, StoreError> {
        let rows: Vec<(String, String, i64)> = self.with_database(|connection| {
            connection
                .prepare_cached(
                    "SELECT target.path, r.file, r.offset FROM object_references r
                     JOIN objects o ON o.id = r.object JOIN objects target ON target.id = r.target
                     WHERE o.path = ?1",
                )
                .and_then(|mut statement| {
                    statement
                        .query_map([path.base_name()], |row| {
                            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                        })?
                        .collect()
                })
                .map_err(|source| self.failed(source))
        })?;
        let mut references = rows
            .into_iter()
            .map(|(target, file, offset)| {
                Ok(Reference {
                    target: parse_base(&target)?,
                    file: file.parse()?,
                    offset: u64::try_from(offset).unwrap_or(0),
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        references.sort();
        Ok(references)
    }

    /// Returns the places where an object names itself, sorted.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn self_references(&self, path: &StorePath) -> Result<Vec<Reference>, StoreError> {
        let rows: Vec<(String, i64)> = self.with_database(|connection| {
            connection
                .prepare_cached(
                    "SELECT p.file, p.offset FROM self_positions p
                     JOIN objects o ON o.id = p.object WHERE o.path = ?1",
                )
                .and_then(|mut statement| {
                    statement
                        .query_map([path.base_name()], |row| Ok((row.get(0)?, row.get(1)?)))?
                        .collect()
                })
                .map_err(|source| self.failed(source))
        })?;
        let mut references = rows
            .into_iter()
            .map(|(file, offset)| {
                let offset = u64::try_from(offset).unwrap_or(0);
                Ok(Reference {
                    target: path.clone(),
                    file: file.parse()?,
                    offset,
                })
            })
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
        let mut closure = BTreeSet::new();
        let mut pending: Vec<StorePath> = Vec::new();
        for start in starts {
            if self.object(start)?.is_none() {
                return Err(StoreError::Unknown(start.clone()));
            }
            pending.push(start.clone());
        }
        while let Some(path) = pending.pop() {
            if closure.contains(&path) {
                continue;
            }
            for target in self.targets(&path)? {
                if !closure.contains(&target) {
                    pending.push(target);
                }
            }
            closure.insert(path);
        }
        Ok(closure)
    }

    fn targets(&self, path: &StorePath) -> Result<Vec<StorePath>, StoreError> {
        let rows: Vec<String> = self.with_database(|connection| {
            connection
                .prepare_cached(
                    "SELECT DISTINCT target.path FROM object_references r
                     JOIN objects o ON o.id = r.object JOIN objects target ON target.id = r.target
                     WHERE o.path = ?1",
                )
                .and_then(|mut statement| {
                    statement
                        .query_map([path.base_name()], |row| row.get(0))?
                        .collect()
                })
                .map_err(|source| self.failed(source))
        })?;
        rows.iter().map(|row| parse_base(row)).collect()
    }

    /// Returns the references of every object in a closure, for graph questions.
    ///
    /// # Errors
    /// As [`Store::references`].
    pub fn reference_graph(&self, closure: &BTreeSet<StorePath>) -> Result<Graph, StoreError> {
        closure
            .iter()
            .map(|path| Ok((path.clone(), self.references(path)?)))
            .collect()
    }
}

enum Failure {
    Store(StoreError),
    Listing(crate::listing::ListingError),
}

impl From<crate::listing::ListingError> for Failure {
    fn from(error: crate::listing::ListingError) -> Self {
        Self::Listing(error)
    }
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

pub(super) fn exists(connection: &Connection, path: &StorePath) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM objects WHERE path = ?1")?
        .exists([path.base_name()])
}

/// Inserts an object; every target of its references must be there already.
pub(super) fn insert(transaction: &Transaction<'_>, new: &NewObject<'_>) -> rusqlite::Result<()> {
    {
        let mut statement = transaction.prepare_cached(
            "INSERT OR IGNORE INTO directories (digest, message) VALUES (?1, ?2)",
        )?;
        for (digest, message) in &new.tree.messages {
            statement.execute(params![digest.as_bytes(), message])?;
        }
    }
    transaction.execute(
        "INSERT INTO objects (path, tree, size_bytes, entries, registered_at)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            new.path.base_name(),
            new.tree.root.digest.as_bytes(),
            i64::try_from(new.listing.size_bytes()).unwrap_or(i64::MAX),
            i64::try_from(new.listing.len()).unwrap_or(i64::MAX),
            new.now
        ],
    )?;
    let id = transaction.last_insert_rowid();
    let offset = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
    for position in new.positions {
        transaction
            .prepare_cached(
                "INSERT INTO self_positions (object, file, offset) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![id, position.path.as_str(), offset(position.offset)])?;
    }
    for hit in new.references {
        transaction
            .prepare_cached(
                // A target that is not recorded violates NOT NULL, as it must.
                "INSERT INTO object_references (object, target, file, offset)
                 VALUES (?1, (SELECT id FROM objects WHERE path = ?2), ?3, ?4)",
            )?
            .execute(params![
                id,
                hit.target.base_name(),
                hit.file.as_str(),
                offset(hit.offset)
            ])?;
    }
    Ok(())
}
