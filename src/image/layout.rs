//! OCI image layout directories.
//!
//! A new layout is made beside its place and renamed into it. In one that is there,
//! missing blobs are added, existing ones checked, and the index is replaced last, so
//! that it never names what is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::parcel::{Blob, Parcel};
use super::{ImageError, Tag, access, manifest, referrer};
use crate::hash::Sha256Digest;
use crate::hash::copy::copy_hashing;
use crate::store::{finish, is_untouched};

/// The content of `oci-layout`.
pub const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Largest index that is read, in bytes.
const MAX_INDEX: u64 = 16 << 20;

/// Writes a parcel into a layout directory under a tag.
///
/// # Errors
/// [`ImageError::NotALayout`] when something else is there, [`ImageError::DamagedBlob`],
/// [`ImageError::Access`].
pub fn write(parcel: &Parcel<'_>, directory: &Path, tag: &Tag) -> Result<(), ImageError> {
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
        return fill(parcel, directory, tag);
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
    fill(parcel, staging.path(), tag)?;
    // A temporary directory is private; a layout is for others to read.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(staging.path(), open).map_err(access("open up", staging.path()))?;
    let staging = staging.keep();
    std::fs::rename(&staging, directory).map_err(access("move the layout to", directory))
}

fn fill(parcel: &Parcel<'_>, directory: &Path, tag: &Tag) -> Result<(), ImageError> {
    if *tag == Tag::Default {
        refuse_taken(directory, parcel)?;
    }
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(access("create", &blobs))?;
    for (digest, blob) in parcel.files() {
        let path = blobs.join(digest.to_string());
        if path.exists() {
            check_touched(&path, digest, blob.size_bytes())?;
            continue;
        }
        match blob {
            Blob::Bytes(bytes) => replace(&path, bytes)?,
            Blob::File(from, size_bytes) => {
                check_touched(&from, digest, size_bytes)?;
                link_or_copy(&from, &path)?;
            }
        }
    }
    replace(&directory.join("oci-layout"), MARKER)?;
    let index_path = directory.join("index.json");
    let mut entries = read_index(&index_path)?;
    entries.retain(|entry| tag_of(entry) != Some(tag.as_str()));
    entries.extend(parcel.index_entries(tag.as_str()));
    let below = below(directory, &entries)?;
    referrer::prune(&mut entries, &below);
    let index = manifest::index(&entries, &BTreeMap::new())?;
    // What is right already is not written again.
    if std::fs::read(&index_path).is_ok_and(|bytes| bytes == index.bytes) {
        return Ok(());
    }
    replace(&index_path, &index.bytes)
}

/// Indexes in indexes that are followed.
const MAX_DEPTH: usize = 4;

/// Returns the digests of the manifests that indexes of a layout name, at any depth.
fn below(directory: &Path, entries: &[Value]) -> Result<BTreeSet<String>, ImageError> {
    let mut below = BTreeSet::new();
    let mut round = entries.to_vec();
    for _ in 0..MAX_DEPTH {
        let mut next = Vec::new();
        for entry in round {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
            if ![manifest::INDEX_TYPE, DOCKER_LIST].contains(&text("mediaType")) {
                continue;
            }
            let inner = document(directory, text("digest"))?;
            let inner = inner.get("manifests").and_then(Value::as_array);
            next.extend(inner.into_iter().flatten().cloned());
        }
        let digests = next
            .iter()
            .filter_map(|entry| entry.get("digest")?.as_str());
        below.extend(digests.map(str::to_owned));
        round = next;
    }
    Ok(below)
}

/// What Docker calls an index.
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

fn tag_of(entry: &Value) -> Option<&str> {
    entry
        .pointer("/annotations/org.opencontainers.image.ref.name")
        .and_then(Value::as_str)
}

/// Refuses to take the default tag away from another image; a newer one of the same name
/// may have it.
fn refuse_taken(directory: &Path, parcel: &Parcel<'_>) -> Result<(), ImageError> {
    for entry in read_index(&directory.join("index.json"))? {
        if tag_of(&entry) != Some(Tag::Default.as_str()) {
            continue;
        }
        let digest = entry.get("digest").and_then(Value::as_str).unwrap_or("");
        if digest == format!("sha256:{}", parcel.top.digest) {
            continue;
        }
        let document = document(directory, digest)?;
        let title = document.pointer(TITLE).and_then(Value::as_str);
        if title.is_none() || title != parcel.title {
            return Err(ImageError::TagTaken {
                directory: directory.to_owned(),
                image: title.unwrap_or(digest).to_owned(),
            });
        }
    }
    Ok(())
}

/// Where a manifest or an index has its title.
const TITLE: &str = "/annotations/org.opencontainers.image.title";

/// Returns a manifest or an index of a layout; what is not there, or none, is null.
fn document(directory: &Path, digest: &str) -> Result<Value, ImageError> {
    let Some(Ok(digest)) = digest
        .strip_prefix("sha256:")
        .map(str::parse::<Sha256Digest>)
    else {
        return Ok(Value::Null);
    };
    let path = directory.join("blobs/sha256").join(digest.to_string());
    let Ok(file) = File::open(&path) else {
        return Ok(Value::Null);
    };
    let mut bytes = Vec::new();
    file.take(MAX_INDEX)
        .read_to_end(&mut bytes)
        .map_err(access("read", &path))?;
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
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
    let (found, length) = copy_hashing(&mut file, &mut io::sink(), |_| {})
        .map_err(|error| access("read", path)(error.into()))?;
    if length == size && found == digest {
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
