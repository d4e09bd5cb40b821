//! What can be computed again, kept beside the store for this executable alone.
//!
//! One file for each thing in the store's `evaluations/`. It begins with what tells the
//! executable that wrote it from every other build of kiln; anything else in the file's
//! place (another version's bytes, half a file) is as good as no file. The bytes are
//! bincode: they never leave this machine and this executable, and nobody is hurt if they
//! are lost.

use std::fs::Metadata;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::Store;

/// Largest file that is read, in bytes: a million packages have less.
const MAX_BYTES: usize = 512 << 20;

/// A file that was changed so shortly before it was read may have changed after it without
/// a sign: clocks of file systems tick slowly. Its content is compared instead.
const TICK: Duration = Duration::from_secs(1);

/// What changes when a file does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns what tells this executable from every other build of kiln.
    fn own() -> Option<Self> {
        Self::read(Path::new("/proc/self/exe"))
    }

    pub(super) fn read(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::of)
    }

    /// Returns whether the file was last changed well before a moment.
    pub(super) fn is_older_than(&self, moment: Duration) -> bool {
        let changed = u64::try_from(self.changed.0).unwrap_or(0);
        Duration::from_secs(changed) + TICK + TICK < moment
    }
}

/// Returns what was kept at a place by this executable.
pub(super) fn recall<T: DeserializeOwned>(path: &Path) -> Option<T> {
    if std::fs::metadata(path).ok()?.len() > MAX_BYTES as u64 {
        return None;
    }
    let bytes = std::fs::read(path).ok()?;
    let (executable, read): (Stamp, usize) =
        bincode::serde::decode_from_slice(&bytes, configuration()).ok()?;
    if executable != Stamp::own()? {
        return None;
    }
    let (kept, _) = bincode::serde::decode_from_slice(bytes.get(read..)?, configuration()).ok()?;
    Some(kept)
}

/// Keeps something at a place. Only speed is lost where that fails.
pub(super) fn keep<T: Serialize>(path: &Path, kept: &T) {
    let result = Stamp::own()
        .ok_or(std::io::ErrorKind::NotFound.into())
        .and_then(|executable| write(path, &executable, kept));
    if let Err(error) = result {
        tracing::debug!(%error, "not kept at `{}`", path.display());
    }
}

fn write<T: Serialize>(path: &Path, executable: &Stamp, kept: &T) -> std::io::Result<()> {
    let encode = std::io::Error::other;
    let mut bytes = bincode::serde::encode_to_vec(executable, configuration()).map_err(encode)?;
    bincode::serde::encode_into_std_write(kept, &mut bytes, configuration()).map_err(encode)?;
    let directory = path.parent().unwrap_or(path);
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn configuration() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_BYTES>()
}

/// Returns the place of what some texts name.
pub(super) fn place<'a>(store: &Store, parts: impl IntoIterator<Item = &'a [u8]>) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    for part in [env!("CARGO_PKG_VERSION").as_bytes()]
        .into_iter()
        .chain(parts)
    {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    store
        .evaluations()
        .join(hasher.finalize().to_hex().as_str())
}
