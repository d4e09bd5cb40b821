//! OCI archives and Docker archives: a layout in one tar file.
//!
//! An OCI archive is the layout directory as a tar. A Docker archive has the same blobs
//! and a `manifest.json` that names them, so that engines of either kind load it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::Path;

use serde_json::json;
use tar::{Builder, EntryType, Header};

use super::assemble::Image;
use super::layer::{Member, append};
use super::parcel::{Blob, Parcel};
use super::{ImageError, Tag, access, layout, manifest};
use crate::hash::json::canonical;

/// Which programs an archive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Those that read OCI layouts.
    Oci,
    /// Docker's engine, and those that read its archives.
    Docker,
}

/// What the image is called in an archive, in the way of its readers.
#[derive(Debug, Clone, Copy)]
pub enum Naming<'a> {
    /// By a tag.
    Oci(&'a Tag),
    /// By a name and a tag.
    Docker {
        /// The image itself: such an archive names its configuration and layers.
        image: &'a Image,
        /// The repository.
        name: &'a str,
        /// The tag.
        tag: &'a Tag,
    },
}

/// What happens to a file that stands where an archive goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// An archive that kiln wrote is replaced, anything else refused.
    ReplaceOwn,
    /// Any regular file is replaced.
    Replace,
}

/// Writes a parcel into an archive file, whole or not at all.
///
/// # Errors
/// [`ImageError::NotAFile`] and [`ImageError::NotOwn`] for what stands there already,
/// [`ImageError::DamagedBlob`] for a cached layer that has changed, [`ImageError::Access`].
pub fn write(
    parcel: &Parcel<'_>,
    file: &Path,
    naming: &Naming<'_>,
    existing: Existing,
) -> Result<(), ImageError> {
    refuse_others(file, existing)?;
    let (Naming::Oci(tag) | Naming::Docker { tag, .. }) = *naming;
    let parent = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary = tempfile::Builder::new()
        .prefix(".kiln-archive-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(parent)
        .map_err(access("create a file in", parent))?;
    let mut tar = Builder::new(BufWriter::with_capacity(1 << 18, temporary));
    let failed = || access("write", file);
    let put = |tar: &mut Builder<_>, name: &str, bytes: &[u8]| {
        append(tar, &Member::file(name, bytes.len() as u64), bytes)
    };
    for directory in ["blobs/", "blobs/sha256/"] {
        let member = Member {
            kind: EntryType::Directory,
            mode: 0o755,
            ..Member::file(directory, 0)
        };
        append(&mut tar, &member, io::empty()).map_err(failed())?;
    }
    for (digest, blob) in parcel.files() {
        let name = format!("blobs/sha256/{digest}");
        match blob {
            Blob::Bytes(bytes) => put(&mut tar, &name, bytes).map_err(failed())?,
            Blob::File(from, size) => {
                layout::check_touched(&from, digest, size)?;
                let content = File::open(&from).map_err(access("read", &from))?;
                append(&mut tar, &Member::file(&name, size), content).map_err(failed())?;
            }
        }
    }
    let index = manifest::index(&parcel.index_entries(tag.as_str()), &BTreeMap::new())?;
    put(&mut tar, "index.json", &index.bytes).map_err(failed())?;
    if let Naming::Docker { image, name, tag } = naming {
        let layers: Vec<String> = image
            .layers
            .iter()
            .map(|layer| format!("blobs/sha256/{}", layer.blob.digest))
            .collect();
        let document = json!([{
            "Config": format!("blobs/sha256/{}", image.config.digest),
            "RepoTags": [format!("{name}:{tag}")],
            "Layers": layers,
        }]);
        let bytes = canonical(&document).map_err(|source| ImageError::Json {
            document: "manifest.json",
            source,
        })?;
        put(&mut tar, "manifest.json", &bytes).map_err(failed())?;
    }
    put(&mut tar, "oci-layout", layout::MARKER).map_err(failed())?;
    let mut writer = tar.into_inner().map_err(failed())?;
    writer.flush().map_err(failed())?;
    let temporary = writer
        .into_inner()
        .map_err(|error| failed()(error.into_error()))?;
    temporary
        .persist(file)
        .map_err(|error| failed()(error.error))?;
    Ok(())
}

/// Refuses to write over what is not an archive that was written here before: a device
/// or a directory always, another file unless it may be replaced.
fn refuse_others(file: &Path, existing: Existing) -> Result<(), ImageError> {
    let metadata = match std::fs::symlink_metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(access("look at", file))?,
    };
    if !metadata.is_file() {
        return Err(ImageError::NotAFile(file.to_owned()));
    }
    if existing == Existing::Replace {
        return Ok(());
    }
    let mut first = [0; HEADER];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut first));
    match read {
        Ok(()) if is_own(&first) => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            Err(access("read", file)(error))
        }
        _ => Err(ImageError::NotOwn(file.to_owned())),
    }
}

/// Length of a tar header, in bytes.
const HEADER: usize = 512;

/// Returns whether a tar starts as all archives from here do: with the directory of
/// blobs, made one second after 1970.
fn is_own(first: &[u8; HEADER]) -> bool {
    let header = Header::from_byte_slice(first);
    header.path_bytes().as_ref() == b"blobs/"
        && header.entry_type() == EntryType::Directory
        && header
            .mtime()
            .is_ok_and(|mtime| mtime == super::layer::MTIME)
}
