//! The cache of layers: files in `images/blobs/`, named by their SHA-256, and which plan
//! and encoder gave each.
//!
//! A file that is finished has the modification time [`MTIME`] and cannot be written to.
//! One that still has them, and its length, is what was hashed when it was made: whoever
//! changes a file changes its time. So a layer of a gigabyte is linked into a layout, not
//! read again. When it was last used is its access time.

use std::fs::{File, FileTimes, Metadata, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::{OptionalExtension as _, params};

use super::{Store, StoreError};
use crate::hash::{BlobDigest, Sha256Digest};

/// Modification time of finished files, in seconds since 1970.
pub const MTIME: u64 = 1;

/// Permission bits of finished files.
const MODE: u32 = 0o444;

/// A layer as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachedLayer {
    /// SHA-256 of the tar.
    pub diff_id: Sha256Digest,
    /// SHA-256 of the file: the tar itself, or what an encoder made of it.
    pub digest: Sha256Digest,
    /// Length of the file, in bytes.
    pub size_bytes: u64,
}

/// Marks a finished file, so that [`is_untouched`] knows it.
///
/// # Errors
/// What setting the time or the mode fails with.
pub fn finish(file: &File) -> std::io::Result<()> {
    file.set_permissions(Permissions::from_mode(MODE))?;
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(MTIME);
    let now = SystemTime::now();
    file.set_times(FileTimes::new().set_modified(modified).set_accessed(now))
}

/// Returns whether a file was finished here and not written to since.
pub fn is_untouched(metadata: &Metadata, size_bytes: u64) -> bool {
    metadata.is_file()
        && metadata.len() == size_bytes
        && metadata.mode() & 0o777 == MODE
        && metadata.mtime() == MTIME.cast_signed()
        && metadata.mtime_nsec() == 0
}

impl Store {
    /// Returns where the layer of a digest is kept, if it is.
    pub fn layer_file(&self, digest: Sha256Digest) -> PathBuf {
        self.images().join("blobs").join(digest.to_string())
    }

    /// Returns the layer that a plan and an encoder gave before, if its file is still as it
    /// was made. It counts as used now.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn layer(
        &self,
        plan: BlobDigest,
        encoder: Option<&str>,
    ) -> Result<Option<CachedLayer>, StoreError> {
        let row: Option<([u8; 32], [u8; 32], i64)> = self.with_database(|connection| {
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            match encoder {
                None => connection.query_row(
                    "SELECT diff_id, diff_id, size_bytes FROM layers WHERE plan = ?1",
                    [plan.as_bytes()],
                    read,
                ),
                Some(encoder) => connection.query_row(
                    "SELECT diff_id, digest, size_bytes FROM encoded_layers
                     WHERE plan = ?1 AND encoder = ?2",
                    params![plan.as_bytes(), encoder],
                    read,
                ),
            }
            .optional()
            .map_err(|source| self.failed(source))
        })?;
        let found = row.map(|(diff_id, digest, size)| CachedLayer {
            diff_id: Sha256Digest::from_bytes(diff_id),
            digest: Sha256Digest::from_bytes(digest),
            size_bytes: u64::try_from(size).unwrap_or(0),
        });
        Ok(found.filter(|layer| use_file(&self.layer_file(layer.digest), layer.size_bytes)))
    }

    /// Records the layer that a plan and an encoder gave.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn record_layer(
        &self,
        plan: BlobDigest,
        encoder: Option<&str>,
        layer: CachedLayer,
    ) -> Result<(), StoreError> {
        let CachedLayer {
            diff_id,
            digest,
            size_bytes,
        } = layer;
        let size = i64::try_from(size_bytes).unwrap_or(i64::MAX);
        let _writing = self.writing()?;
        self.with_database(|connection| {
            match encoder {
                None => connection.execute(
                    "INSERT OR REPLACE INTO layers (plan, diff_id, size_bytes) VALUES (?1, ?2, ?3)",
                    params![plan.as_bytes(), diff_id.as_bytes(), size],
                ),
                Some(encoder) => connection.execute(
                    "INSERT OR REPLACE INTO encoded_layers
                     (plan, encoder, diff_id, digest, size_bytes) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        plan.as_bytes(),
                        encoder,
                        diff_id.as_bytes(),
                        digest.as_bytes(),
                        size
                    ],
                ),
            }
            .map(drop)
            .map_err(|source| self.failed(source))
        })
    }

    /// Forgets layers but those that are kept.
    pub(super) fn forget_layers_but(
        &self,
        keep: impl Fn(Sha256Digest) -> bool,
    ) -> Result<(), StoreError> {
        let found: Vec<[u8; 32]> = self.query(
            "SELECT diff_id FROM layers UNION SELECT digest FROM encoded_layers",
            [],
            |row| row.get(0),
        )?;
        for digest in found {
            if !keep(Sha256Digest::from_bytes(digest)) {
                self.in_transaction(|transaction| {
                    transaction.execute("DELETE FROM layers WHERE diff_id = ?1", [digest])?;
                    transaction.execute("DELETE FROM encoded_layers WHERE digest = ?1", [digest])
                })?;
            }
        }
        Ok(())
    }
}

/// Returns whether a file is as it was made, and notes that it is used.
fn use_file(path: &Path, size_bytes: u64) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    if !file
        .metadata()
        .is_ok_and(|metadata| is_untouched(&metadata, size_bytes))
    {
        return false;
    }
    // In a store that cannot be written to, nothing is swept either.
    if let Err(error) = file.set_times(FileTimes::new().set_accessed(SystemTime::now())) {
        tracing::debug!(%error, "the use of a layer is not noted");
    }
    true
}
