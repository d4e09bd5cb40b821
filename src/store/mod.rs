//! The store: immutable objects on disk, and a database of facts about them.
//!
//! In: sealed-to-be trees with the references they may hold, and facts (actions,
//! realisations, builds, proofs). Out: store paths, listings, references, facts.
//! What always holds: an object is moved into place whole and only then recorded, so a
//! row always has its object; a tree without a row is unfinished work and is replaced.
//! All SQL of kiln is in this folder; all of its schema is in `store-schema/`.
//!
//! ```text
//! <store>/
//!   store/<digest>-<name>/   the objects: files 0444 or 0555, directories 0555, times 1
//!   blobs/<2>/<digest>[x]    one inode for each distinct file; objects link to it
//!   kiln.db                  SQLite: the facts
//!   logs/<2>/<action>-<n>.zst
//!   downloads/<sha256>       fetched bytes, also those whose hash was not the wanted one
//!   images/                  layer cache and image layouts
//!   failed/<action>/         the work of the last builds that failed
//!   evaluations/             what can be computed again; can be deleted at any time
//!   leases/                  one file for each process that uses objects: their names
//!   locks/                   one file for each action that is being realised, and others
//!   tmp/<random>/            work in progress, private; removed when its owner is gone
//! ```

pub mod add;
mod blobs;
mod checksums;
pub(crate) mod crash;
mod database;
pub mod facts;
mod failed;
mod ingest;
mod layers;
mod leases;
mod links;
pub mod lock;
mod objects;
mod pool;
mod pushes;
mod reach;
mod recover;
mod register;
mod restore;
mod roots;
mod runs;
mod scratch;
mod sweep;
mod sync;
mod transfer;
pub mod verify;

pub use add::{Addition, ObjectPlan};
pub use facts::{Hermeticity, Lacking, Origin, Producer, Realisation};
pub use layers::{CachedLayer, finish, is_untouched};
pub use leases::Looking;
pub use lock::ActionLock;
pub use objects::ObjectInfo;
pub use recover::{Opening, Recovered};
pub use register::{Production, plan_tree};
pub use roots::Root;
pub use runs::{BuildRecord, ProofRecord, Verdict};
pub use scratch::Scratch;
pub use sweep::{Census, Known, Swept};
pub use transfer::StreamError;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rusqlite::{Connection, TransactionBehavior};

use crate::hash::{ActionDigest, ObjectName, PathError, StorePath};
use crate::listing::ListingError;
use crate::tree::TreeError;

/// What the store cannot do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory of the store.
    #[error("cannot {operation} `{}`", path.display())]
    Access {
        /// What was tried, as a verb.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A tree that is to become an object, or one that is.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A tree that cannot become an object.
    #[error("`{name}` cannot become an object")]
    Addition {
        /// What it was to be called.
        name: ObjectName,
        /// Why.
        source: TreeError,
    },
    /// The database refused.
    #[error("the store's database `{}` failed", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The database was written by a newer kiln.
    #[error("the store `{}` has schema {found}, this kiln knows schemas up to {known}", path.display())]
    Newer {
        /// The store's directory.
        path: PathBuf,
        /// The schema found.
        found: u32,
        /// The newest schema known.
        known: u32,
    },
    /// The database was written by an older kiln, and cannot be migrated.
    #[error("the store `{}` has schema {found}; it cannot be brought to {known}, since it can only be read", path.display())]
    Older {
        /// The store's directory.
        path: PathBuf,
        /// The schema found.
        found: u32,
        /// The schema that is needed.
        known: u32,
    },
    /// There are objects, and no database that knows them.
    #[error("the store `{}` holds objects, and its database is empty", .0.display())]
    NoDatabase(PathBuf),
    /// Something has to be written that can only be read.
    #[error("the store `{}` can only be read", .0.display())]
    ReadOnly(PathBuf),
    /// A row that cannot have been written by kiln.
    #[error("the store's database holds a malformed {what}: `{value}`")]
    Malformed {
        /// What kind of value.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// An object that is not in the store.
    #[error("`{0}` is not in the store")]
    Unknown(StorePath),
    /// An action that is not in the store.
    #[error("no action `{0}` is in the store")]
    UnknownAction(ActionDigest),
    /// A listing in the database is damaged.
    #[error("the listing of `{path}` is damaged")]
    Listing {
        /// The object.
        path: StorePath,
        /// Why.
        source: ListingError,
    },
    /// A stream of objects.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Two outputs name each other, so neither can be hashed first.
    #[error("the outputs {} name each other; an output's digest cannot depend on itself", .0.join(" and "))]
    OutputCycle(Vec<String>),
}

impl From<PathError> for StoreError {
    fn from(source: PathError) -> Self {
        Self::Malformed {
            what: "path",
            value: source.to_string(),
        }
    }
}

impl StoreError {
    /// Returns whether the cause is a full disk or quota.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Access { source, .. } => matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ),
            Self::Tree(error) | Self::Addition { source: error, .. } => error.is_disk_full(),
            Self::Database { source, .. } => {
                source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            }
            _ => false,
        }
    }

    /// Returns whether the database's bytes are not what SQLite wrote.
    pub fn is_corrupt(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        matches!(self, Self::Database { source, .. }
            if matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)))
    }
}

/// An open store. Any number of processes may have one open at once.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    blobs: blobs::Blobs,
    database: Mutex<Connection>,
    lease: Mutex<Option<leases::Lease>>,
    /// Whether it lies where nothing can be written; then it is looked at as it is.
    read_only: bool,
}

impl Store {
    /// As [`Store::open_watched`], watched by nobody.
    ///
    /// # Errors
    /// As [`Store::open_watched`].
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Self::open_watched(root, &|_| {})
    }

    /// Opens the store in a directory, creating what is missing, migrating what is old,
    /// removing what dead processes left behind, and checking what may not have reached
    /// the disk before the machine stopped. A store that can only be read is opened as it
    /// is, to be looked at.
    ///
    /// # Errors
    /// [`StoreError::Access`] when there is no store and none can be made,
    /// [`StoreError::Newer`] when it belongs to a newer kiln.
    pub fn open_watched(root: &Path, watch: &dyn Fn(Opening<'_>)) -> Result<Self, StoreError> {
        if database::is_read_only(root) {
            return Ok(Self {
                root: root.to_owned(),
                blobs: blobs::Blobs::open(root)?,
                database: Mutex::new(database::open_read_only(root)?),
                lease: Mutex::new(None),
                read_only: true,
            });
        }
        for directory in [
            "store",
            "blobs",
            "logs",
            "downloads",
            "images",
            "leases",
            "locks",
            "tmp",
        ] {
            let path = root.join(directory);
            let mut builder = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(
                &mut builder,
                if directory == "tmp" { 0o700 } else { 0o755 },
            );
            builder
                .recursive(true)
                .create(&path)
                .map_err(|source| StoreError::Access {
                    operation: "create the store directory",
                    path,
                    source,
                })?;
        }
        let database = database::open(root)?;
        let store = Self {
            root: root.to_owned(),
            blobs: blobs::Blobs::open(root)?,
            database: Mutex::new(database),
            lease: Mutex::new(None),
            read_only: false,
        };
        scratch::remove_abandoned(&store.root.join("tmp"))?;
        store.mend_if_needed()?;
        store.settle(watch)?;
        Ok(store)
    }

    /// Returns the store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns where an object lies on this machine.
    pub fn host_path(&self, path: &StorePath) -> PathBuf {
        self.root.join("store").join(path.base_name())
    }

    /// Returns the directory of fetched files.
    pub fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// Returns the directory of layers and image layouts.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Returns the directory of what was evaluated before, of requests and of files'
    /// contents; whatever is in it may be deleted.
    pub fn evaluations(&self) -> PathBuf {
        self.root.join("evaluations")
    }

    /// Forgets every remembered evaluation.
    ///
    /// # Errors
    /// [`StoreError::Tree`] when a file cannot be deleted.
    pub fn forget_evaluations(&self) -> Result<(), StoreError> {
        empty_directory(&self.evaluations())
    }

    /// Makes a private directory on the store's file system, removed when dropped.
    ///
    /// # Errors
    /// [`StoreError::Access`] when it cannot be created, [`StoreError::ReadOnly`].
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        self.must_be_writable()?;
        Scratch::create(&self.root.join("tmp"))
    }

    /// Fails where the store can only be read.
    fn must_be_writable(&self) -> Result<(), StoreError> {
        if self.read_only {
            return Err(StoreError::ReadOnly(self.root.clone()));
        }
        Ok(())
    }

    fn with_database<T>(
        &self,
        run: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // A panic elsewhere cannot leave a transaction half done: SQLite rolls it back.
        let mut connection = self
            .database
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        run(&mut connection)
    }

    /// Returns every row of a query.
    fn query<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.with_database(|connection| {
            connection
                .prepare_cached(sql)
                .and_then(|mut statement| statement.query_map(params, row)?.collect())
                .map_err(|source| self.failed(source))
        })
    }

    /// Runs in a transaction that writes.
    fn in_transaction<T>(
        &self,
        run: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.must_be_writable()?;
        self.with_database(|connection| {
            transact(connection, run).map_err(|source| self.failed(source))
        })
    }

    /// As [`Store::in_transaction`], and what it wrote is on the disk afterwards.
    fn in_durable_transaction<T>(
        &self,
        run: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.in_transaction_with(
            "PRAGMA synchronous = FULL",
            "PRAGMA synchronous = NORMAL",
            run,
        )
    }

    /// As [`Store::in_durable_transaction`], for a change that deletes by itself whatever
    /// depends on the rows that it deletes: SQLite does not look for any.
    fn in_sweeping_transaction<T>(
        &self,
        run: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.in_transaction_with(
            "PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF",
            "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON",
            |transaction| {
                let result = run(transaction)?;
                if cfg!(debug_assertions) {
                    let broken: i64 = transaction.query_row(
                        "SELECT count(*) FROM pragma_foreign_key_check",
                        [],
                        |row| row.get(0),
                    )?;
                    assert_eq!(broken, 0, "a row depends on one that is gone");
                }
                Ok(result)
            },
        )
    }

    /// Runs in a transaction that writes, between two changes of the connection.
    fn in_transaction_with<T>(
        &self,
        before: &str,
        after: &str,
        run: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.must_be_writable()?;
        self.with_database(|connection| {
            connection
                .execute_batch(before)
                .and_then(|()| {
                    let result = transact(connection, run);
                    connection.execute_batch(after)?;
                    result
                })
                .map_err(|source| self.failed(source))
        })
    }

    fn failed(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Database {
            path: database::path(&self.root),
            source,
        }
    }
}

fn transact<T>(
    connection: &mut Connection,
    run: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let result = run(&transaction)?;
    transaction.commit()?;
    Ok(result)
}

/// Deletes what a directory holds. The directory itself stays: another process may be
/// putting something into it.
fn empty_directory(directory: &Path) -> Result<(), StoreError> {
    if directory.is_dir() {
        for entry in verify::entries(directory)? {
            crate::tree::remove_tree(&entry)?;
        }
    }
    Ok(())
}
