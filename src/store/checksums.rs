//! Hashes of files that other formats than kiln's demand, computed when they are first
//! asked for.

use std::fs::File;

use rusqlite::{OptionalExtension as _, params};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::pool::access;
use super::{Store, StoreError};
use crate::hash::copy::each_block;
use crate::hash::{BlobDigest, Checksums, Sha256Digest};

impl Store {
    /// Returns the checksums of a file of the pool, and keeps them.
    ///
    /// # Errors
    /// [`StoreError::Access`] when the file cannot be read, [`StoreError::Database`].
    pub fn checksums(&self, digest: BlobDigest, executable: bool) -> Result<Checksums, StoreError> {
        if let Some(known) = self.known_checksums(digest)? {
            return Ok(known);
        }
        let path = self.blob_path(digest, executable);
        let mut file = File::open(&path).map_err(|source| access("read", &path, source))?;
        let (mut sha1, mut sha256) = (Sha1::new(), Sha256::new());
        let unread = |source| access("read", &path, source);
        each_block(&mut file, unread, |bytes| {
            sha1.update(bytes);
            sha256.update(bytes);
            Ok(())
        })?;
        let checksums = Checksums {
            sha1: sha1.finalize().into(),
            sha256: Sha256Digest::from_bytes(sha256.finalize().into()),
        };
        if !self.read_only {
            self.in_transaction(|transaction| {
                transaction.execute(
                    "INSERT OR REPLACE INTO checksums (blob, sha1, sha256) VALUES (?1, ?2, ?3)",
                    params![
                        digest.as_bytes(),
                        checksums.sha1,
                        checksums.sha256.as_bytes()
                    ],
                )
            })?;
        }
        Ok(checksums)
    }

    fn known_checksums(&self, digest: BlobDigest) -> Result<Option<Checksums>, StoreError> {
        self.with_database(|connection| {
            connection
                .query_row(
                    "SELECT sha1, sha256 FROM checksums WHERE blob = ?1",
                    [digest.as_bytes()],
                    |row| {
                        Ok(Checksums {
                            sha1: row.get(0)?,
                            sha256: Sha256Digest::from_bytes(row.get(1)?),
                        })
                    },
                )
                .optional()
                .map_err(|source| self.failed(source))
        })
    }

    /// Forgets the checksums of files that the pool does not have.
    pub(super) fn forget_checksums(&self) -> Result<(), StoreError> {
        let known: Vec<[u8; 32]> =
            self.query("SELECT blob FROM checksums", [], |row| row.get(0))?;
        for blob in known {
            let digest = BlobDigest::from_bytes(blob);
            let there = [false, true]
                .into_iter()
                .any(|executable| self.blob_path(digest, executable).exists());
            if !there {
                self.in_transaction(|transaction| {
                    transaction.execute("DELETE FROM checksums WHERE blob = ?1", [blob])
                })?;
            }
        }
        Ok(())
    }
}
