//! Opening and migrating the database.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{
    Connection, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params,
};
use rustix::io::Errno;

use super::{StoreError, crash, lock};
use crate::hash::TreeDigest;
use crate::listing::{Listing, ListingError};

/// A migration: its script, and what is done after it in the same transaction.
type Migration = (&'static str, fn(&Transaction<'_>) -> rusqlite::Result<()>);

/// Each migration, in order; the schema's number is how many were applied.
const MIGRATIONS: [Migration; 6] = [
    (include_str!("../../store-schema/0001_initial.sql"), |_| {
        Ok(())
    }),
    (
        include_str!("../../store-schema/0002_collection.sql"),
        move_listings,
    ),
    (
        include_str!("../../store-schema/0003_hermeticity.sql"),
        |_| Ok(()),
    ),
    (
        include_str!("../../store-schema/0004_encoded_layers.sql"),
        |_| Ok(()),
    ),
    (
        include_str!("../../store-schema/0005_materials.sql"),
        |_| Ok(()),
    ),
    (include_str!("../../store-schema/0006_pushes.sql"), |_| {
        Ok(())
    }),
];

/// Prepared statements that are kept.
const STATEMENTS: usize = 64;

/// How long a writer waits for another process's transaction.
const BUSY: Duration = Duration::from_secs(60);

pub(super) fn path(root: &Path) -> PathBuf {
    root.join("kiln.db")
}

/// Opens the database, making or migrating it if that has to be done.
pub(super) fn open(root: &Path) -> Result<Connection, StoreError> {
    let path = path(root);
    let failed = |source| StoreError::Database {
        path: path.clone(),
        source,
    };
    let is_empty = std::fs::metadata(&path).map_or(0, |found| found.len()) == 0;
    if is_empty && has_objects(root) {
        return Err(StoreError::NoDatabase(root.to_owned()));
    }
    // Turning the write-ahead log on does not wait for others who do the same.
    let alone = if has_write_ahead_log(&path) {
        None
    } else {
        Some(lock::take(root.join("locks").join("database"))?)
    };
    let mut connection = Connection::open(&path).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    // NORMAL: a power cut may lose the last transactions, never the database.
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;
             PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;",
        )
        .map_err(failed)?;
    if alone.is_some() {
        crash::point("database: made");
    }
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    let found = version(&connection).map_err(failed)?;
    let known = newest();
    if found > known {
        return Err(newer(root, found));
    }
    if found == 0 && has_objects(root) {
        return Err(StoreError::NoDatabase(root.to_owned()));
    }
    if found < known {
        migrate(&mut connection).map_err(failed)?;
    }
    Ok(connection)
}

/// Returns whether there is a store that this process may not, or cannot, write.
pub(super) fn is_read_only(root: &Path) -> bool {
    use rustix::fs::{Access, access};
    let database = path(root);
    database.exists()
        && [root, &database].iter().any(|path| {
            let denied = access(*path, Access::WRITE_OK);
            matches!(denied, Err(Errno::ROFS | Errno::ACCESS | Errno::PERM))
        })
}

/// Opens a database that cannot be written. SQLite would make files beside it to share
/// its write-ahead log (<https://www.sqlite.org/wal.html#readonly>).
pub(super) fn open_read_only(root: &Path) -> Result<Connection, StoreError> {
    let path = path(root);
    let failed = |source| StoreError::Database {
        path: path.clone(),
        source,
    };
    let beside = |suffix: &str| {
        let name = format!("kiln.db-{suffix}");
        std::fs::metadata(root.join(name)).is_ok_and(|found| found.len() > 0)
    };
    let (alone, how) = match (beside("wal"), beside("shm")) {
        // It was closed, and is whole.
        (false, _) => (false, "&immutable=1"),
        // It is open elsewhere.
        (true, true) => (false, ""),
        // Nobody has it open, and who had it last did not end it.
        (true, false) => (true, "&vfs=unix-none"),
    };
    let mut uri = b"file:".to_vec();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(byte) {
            uri.push(*byte);
        } else {
            uri.extend(format!("%{byte:02x}").bytes());
        }
    }
    uri.extend(format!("?mode=ro{how}").bytes());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(OsStr::from_bytes(&uri), flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    if alone {
        connection
            .pragma_update(None, "locking_mode", "EXCLUSIVE")
            .map_err(failed)?;
    }
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    let (found, known) = (version(&connection).map_err(failed)?, newest());
    if found > known {
        return Err(newer(root, found));
    }
    if found < known {
        return Err(StoreError::Older {
            path: root.to_owned(),
            found,
            known,
        });
    }
    Ok(connection)
}

fn newest() -> u32 {
    u32::try_from(MIGRATIONS.len()).expect("a handful of migrations")
}

fn newer(root: &Path, found: u32) -> StoreError {
    StoreError::Newer {
        path: root.to_owned(),
        found,
        known: newest(),
    }
}

/// Returns whether a store has objects, and not just some that were brought before the
/// machine stopped and their database with them.
fn has_objects(root: &Path) -> bool {
    let unsynced = std::fs::metadata(root.join("locks").join("unsynced"));
    let objects = std::fs::read_dir(root.join("store"));
    unsynced.map_or(0, |unsynced| unsynced.len()) == 0
        && objects.is_ok_and(|mut objects| objects.next().is_some())
}

/// Returns whether a database file says, in its header, that it is in WAL mode already
/// (bytes 18 and 19 are 2; <https://www.sqlite.org/fileformat.html>).
fn has_write_ahead_log(path: &Path) -> bool {
    let mut header = [0; 20];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut header))
        .is_ok_and(|()| header.ends_with(&[2, 2]))
}

fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    // Tables are replaced by new ones of the same name: what refers to them stays.
    connection.execute_batch("PRAGMA foreign_keys = OFF")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have migrated while this one waited for the lock.
    let applied = version(&transaction)?;
    for (number, (script, then)) in (1_u32..).zip(MIGRATIONS) {
        if number > applied {
            transaction.execute_batch(script)?;
            crash::point("migrate: script applied");
            then(&transaction)?;
            transaction.pragma_update(None, "user_version", number)?;
            crash::point("migrate: version set");
        }
    }
    transaction.commit()?;
    crash::point("migrate: committed");
    connection.execute_batch("PRAGMA foreign_keys = ON")
}

/// Second migration: from one row for each directory to one for each object's listing.
fn move_listings(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let objects: Vec<(i64, [u8; 32])> = transaction
        .prepare("SELECT id, tree FROM objects")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (id, tree) in objects {
        let listing = Listing::decode(TreeDigest::from_bytes(tree), |digest| {
            transaction
                .prepare_cached("SELECT message FROM directories WHERE digest = ?1")?
                .query_row([digest.as_bytes()], |row| row.get(0))
                .optional()
                .map_err(Unmoved::from)
        });
        match listing {
            Ok(listing) => {
                transaction
                    .prepare_cached("INSERT INTO listings (object, messages) VALUES (?1, ?2)")?
                    .execute(params![id, listing.encode().to_bytes()])?;
            }
            // Without a row the object counts as damaged, which `verify` tells.
            Err(Unmoved::Damaged) => {}
            Err(Unmoved::Database(error)) => return Err(error),
        }
    }
    transaction.execute_batch("DROP TABLE directories")
}

enum Unmoved {
    Database(rusqlite::Error),
    Damaged,
}

impl From<rusqlite::Error> for Unmoved {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<ListingError> for Unmoved {
    fn from(_: ListingError) -> Self {
        Self::Damaged
    }
}
