//! Sending an image to a registry.

use std::fs::File;

use super::parcel::{Blob, Parcel};
use super::registry::push::{self, Came, Content};
use super::registry::{Reference, Registry};
use super::{ImageError, access, layout};
use crate::store::Store;

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Blobs that were sent, and their bytes.
    pub sent: (usize, u64),
    /// Blobs that the registry had in another repository, and their bytes.
    pub mounted: (usize, u64),
    /// Blobs that were there, and their bytes.
    pub there: (usize, u64),
}

/// Sends a parcel: its blobs, then the manifests that others name, then the one that gets
/// the tag, then those that refer to it. `sent` is told of bytes that need no sending any
/// more; their sum is [`Parcel::size_bytes`]. `sources` are repositories of the same
/// registry that have its blobs.
///
/// # Errors
/// [`ImageError::Registry`], [`ImageError::DamagedBlob`], [`ImageError::Store`].
pub fn push(
    store: &Store,
    parcel: &Parcel<'_>,
    registry: &Registry,
    sources: &[String],
    sent: &(dyn Fn(u64) + Sync),
) -> Result<Pushed, ImageError> {
    let Reference {
        host, repository, ..
    } = registry.reference();
    let mut blobs = Vec::new();
    for (digest, blob) in &parcel.blobs {
        let content = match blob {
            Blob::Bytes(bytes) => Content::Bytes(bytes),
            Blob::File(path, size_bytes) => {
                layout::check_touched(path, *digest, *size_bytes)?;
                Content::File(File::open(path).map_err(access("read", path))?)
            }
        };
        let mut known_in = store.pushed_elsewhere(host, *digest, repository)?;
        known_in.extend(
            sources
                .iter()
                .filter(|source| *source != repository)
                .cloned(),
        );
        blobs.push(push::Blob {
            digest: *digest,
            size_bytes: blob.size_bytes(),
            content,
            known_in,
        });
    }
    let came = push::push_blobs(registry, &blobs, sent)?;
    for manifest in parcel.manifests() {
        let is_top = manifest.digest == parcel.top.digest;
        let tag = is_top.then(|| registry.reference().tag());
        push::push_manifest(registry, &manifest, tag)?;
    }
    let digests: Vec<_> = blobs.iter().map(|blob| blob.digest).collect();
    store.record_pushes(host, repository, &digests)?;
    let mut pushed = Pushed::default();
    for (came, blob) in came.iter().zip(&blobs) {
        let (count, bytes) = match came {
            Came::Sent => &mut pushed.sent,
            Came::Mounted => &mut pushed.mounted,
            Came::WasThere => &mut pushed.there,
        };
        *count += 1;
        *bytes += blob.size_bytes;
    }
    Ok(pushed)
}
