//! Where blobs were sent.

use rusqlite::params;

use super::{Store, StoreError};
use crate::hash::Sha256Digest;

/// Most repositories that are remembered for one question.
const MOST: i64 = 3;

impl Store {
    /// Returns repositories of a registry to which a blob was sent, but the given one;
    /// the registry may have lost it since.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn pushed_elsewhere(
        &self,
        host: &str,
        digest: Sha256Digest,
        but: &str,
    ) -> Result<Vec<String>, StoreError> {
        self.query(
            "SELECT repository FROM pushes
             WHERE host = ?1 AND digest = ?2 AND repository <> ?3 ORDER BY repository LIMIT ?4",
            params![host, digest.as_bytes(), but, MOST],
            |row| row.get(0),
        )
    }

    /// Records that a repository of a registry has blobs.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn record_pushes(
        &self,
        host: &str,
        repository: &str,
        digests: &[Sha256Digest],
    ) -> Result<(), StoreError> {
        let _writing = self.writing()?;
        self.in_transaction(|transaction| {
            for digest in digests {
                transaction.execute(
                    "INSERT OR IGNORE INTO pushes (host, digest, repository) VALUES (?1, ?2, ?3)",
                    params![host, digest.as_bytes(), repository],
                )?;
            }
            Ok(())
        })
    }
}
