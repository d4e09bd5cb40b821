//! Opening and migrating the database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// Each migration, in order; the schema's number is how many were applied.
const MIGRATIONS: [&str; 1] = [include_str!("../../store-schema/0001_initial.sql")];

/// How long a writer waits for another process's transaction.
const BUSY: Duration = Duration::from_secs(60);

pub(super) fn path(root: &Path) -> PathBuf {
    root.join("kiln.db")
}

pub(super) fn open(root: &Path) -> Result<Connection, StoreError> {
    let path = path(root);
    let failed = |source| StoreError::Database {
        path: path.clone(),
        source,
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
    connection.set_prepared_statement_cache_capacity(64);
    let known = u32::try_from(MIGRATIONS.len()).expect("a handful of migrations");
    let found = version(&connection).map_err(failed)?;
    if found > known {
        return Err(StoreError::Newer {
            path: root.to_owned(),
            found,
            known,
        });
    }
    if found < known {
        migrate(&mut connection).map_err(failed)?;
    }
    Ok(connection)
}

fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have migrated while this one waited for the lock.
    let applied = version(&transaction)?;
    for (number, script) in (1_u32..).zip(MIGRATIONS) {
        if number > applied {
            transaction.execute_batch(script)?;
            transaction.pragma_update(None, "user_version", number)?;
        }
    }
    transaction.commit()
}
