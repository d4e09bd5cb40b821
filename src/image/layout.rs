//! OCI image layout directories.
//!
//! A new layout is made beside its place and renamed into it. In one that is there,
//! missing blobs are added, existing ones checked, and the index is replaced last, so
//! that it never names what is not there.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::assemble::{Blob, Image};
use super::{ImageError, Referrer, Tag, access, manifest, referrer};
use crate::hash::Sha256Digest;
use crate::store::{Store, finish, is_untouched};

/// The content of `oci-layout`.
pub const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Largest index that is read, in bytes.
const MAX_INDEX: u64 = 16 << 20;

/// Writes an image into a layout directory under a tag.
///
/// # Errors
/// [`ImageError::NotALayout`] when something else is there, [`ImageError::DamagedBlob`],
/// [`ImageError::Access`].
pub fn write(store: &Store, image: &Image, directory: &Path, tag: &Tag) -> Result<(), ImageError> {
    let is_layout = directory.join("oci-layout").is_file();
    let is_empty = match std::fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(ImageError::NotALayout(directory.to_owned()));
        }
        Err(error) => return Err(access("read", directory)(error)),
    };
    if is_layout {
        return fill(store, image, directory, tag);
    }
    if !is_empty {
        return Err(ImageError::NotALayout(directory.to_owned()));
    }
    let parent = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    std::fs::create_dir_all(&parent).map_err(access("create", &parent))?;
    let staging = tempfile::Builder::new()
        .prefix(".kiln-layout-")
        .tempdir_in(&parent)
        .map_err(access("create a directory in", &parent))?;
    fill(store, image, staging.path(), tag)?;
    // A temporary directory is private; a layout is for others to read.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(staging.path(), open).map_err(access("open up", staging.path()))?;
    let staging = staging.keep();
    std::fs::rename(&staging, directory).map_err(access("move the layout to", directory))
}

fn fill(store: &Store, image: &Image, directory: &Path, tag: &Tag) -> Result<(), ImageError> {
    if *tag == Tag::Default {
        refuse_taken(directory, image)?;
    }
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(access("create", &blobs))?;
    for (digest, size, blob) in image.blobs() {
        let path = blobs.join(digest.to_string());
        if path.exists() {
            check_touched(&path, digest, size)?;
            continue;
        }
        match blob {
            Blob::Bytes(bytes) => replace(&path, bytes)?,
            Blob::Cached => {
                let from = store.layer_file(digest);
                check_touched(&from, digest, size)?;
                link_or_copy(&from, &path)?;
            }
        }
    }
    replace(&directory.join("oci-layout"), MARKER)?;
    let index_path = directory.join("index.json");
    let mut entries = read_index(&index_path)?;
    entries.retain(|entry| tag_of(entry) != Some(tag.as_str()));
    entries.push(manifest::index_entry(
        &image.manifest,
        &image.platform,
        tag.as_str(),
    ));
    entries.extend(image.referrers.iter().map(Referrer::index_entry));
    referrer::prune(&mut entries);
    let index = manifest::index(&entries)?;
    // What is right already is not written again.
    if std::fs::read(&index_path).is_ok_and(|bytes| bytes == index.bytes) {
        return Ok(());
    }
    replace(&index_path, &index.bytes)
}

fn tag_of(entry: &Value) -> Option<&str> {
    entry
        .pointer("/annotations/org.opencontainers.image.ref.name")
        .and_then(Value::as_str)
}

/// Refuses to take the default tag away from another image; a newer one of the same name
/// may have it.
fn refuse_taken(directory: &Path, image: &Image) -> Result<(), ImageError> {
    for entry in read_index(&directory.join("index.json"))? {
        if tag_of(&entry) != Some(Tag::Default.as_str()) {
            continue;
        }
        let digest = entry.get("digest").and_then(Value::as_str).unwrap_or("");
        let title = title_of(directory, digest)?;
        if title.as_deref() != Some(image.name.as_str()) {
            return Err(ImageError::TagTaken {
                directory: directory.to_owned(),
                image: title.unwrap_or_else(|| digest.to_owned()),
            });
        }
    }
    Ok(())
}

/// Returns the title that a manifest of a layout gives its image.
fn title_of(directory: &Path, digest: &str) -> Result<Option<String>, ImageError> {
    let Some(Ok(digest)) = digest
        .strip_prefix("sha256:")
        .map(str::parse::<Sha256Digest>)
    else {
        return Ok(None);
    };
    let path = directory.join("blobs/sha256").join(digest.to_string());
    let Ok(file) = File::open(&path) else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    file.take(MAX_INDEX)
        .read_to_end(&mut bytes)
        .map_err(access("read", &path))?;
    // What is no manifest is another image.
    let manifest: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    Ok(manifest
        .pointer("/annotations/org.opencontainers.image.title")
        .and_then(Value::as_str)
        .map(str::to_owned))
}

fn read_index(path: &Path) -> Result<Vec<Value>, ImageError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(access("read", path))?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_INDEX)
        .read_to_end(&mut bytes)
        .map_err(access("read", path))?;
    let index: Value = serde_json::from_slice(&bytes)
        .map_err(|error| access("read", path)(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    Ok(index
        .get("manifests")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default())
}

/// Checks a blob: one that was finished here and not written to since is as it was hashed.
pub(super) fn check_touched(
    path: &Path,
    digest: Sha256Digest,
    size: u64,
) -> Result<(), ImageError> {
    let metadata = std::fs::symlink_metadata(path).map_err(access("look at", path))?;
    if is_untouched(&metadata, size) {
        return Ok(());
    }
    check(path, digest, size)
}

/// Hashes a blob and compares it with its name.
fn check(path: &Path, digest: Sha256Digest, size: u64) -> Result<(), ImageError> {
    let mut file = File::open(path).map_err(access("read", path))?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 17];
    let mut length = 0_u64;
    loop {
        let count = file.read(&mut block).map_err(access("read", path))?;
        if count == 0 {
            break;
        }
        hasher.update(block.get(..count).unwrap_or(&block));
        length += count as u64;
    }
    if length == size && Sha256Digest::from_bytes(hasher.finalize().into()) == digest {
        return Ok(());
    }
    Err(ImageError::DamagedBlob {
        path: path.to_owned(),
        expected: digest,
    })
}

fn temporary(path: &Path) -> Result<tempfile::NamedTempFile, ImageError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    tempfile::Builder::new()
        .prefix(".kiln-")
        .permissions(readable)
        .tempfile_in(parent)
        .map_err(access("create a file in", parent))
}

/// Puts a file in place whole, or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let mut file = temporary(path)?;
    file.write_all(bytes).map_err(access("write", path))?;
    file.persist(path)
        .map_err(|error| access("write", path)(error.error))?;
    Ok(())
}

/// Gives a finished layer another name, or copies it to another file system. A layout's
/// blob cannot be written to, as that of the cache.
fn link_or_copy(from: &Path, to: &Path) -> Result<(), ImageError> {
    if std::fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    let mut file = temporary(to)?;
    let mut source = File::open(from).map_err(access("read", from))?;
    io::copy(&mut source, file.as_file_mut())
        .and_then(|_| finish(file.as_file()))
        .map_err(access("write", to))?;
    file.persist(to)
        .map_err(|error| access("write", to)(error.error))?;
    Ok(())
}
