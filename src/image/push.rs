//! Sending an image to a registry.

use std::fs::File;

use super::assemble::{Blob, Image};
use super::manifest::Document;
use super::registry::push::{self, Came, Content, Manifest};
use super::registry::{Reference, Registry};
use super::{ImageError, access, layout};
use crate::store::Store;

/// The media type of image manifests.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

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

/// Sends an image's blobs, then its manifest under a tag, then the manifests of what refers
/// to it. `sent` is told of bytes that
/// need no sending any more; their sum is [`size_bytes`].
///
/// # Errors
/// [`ImageError::Registry`], [`ImageError::DamagedBlob`], [`ImageError::Store`].
pub fn push(
    store: &Store,
    image: &Image,
    registry: &Registry,
    sent: &(dyn Fn(u64) + Sync),
) -> Result<Pushed, ImageError> {
    let Reference {
        host, repository, ..
    } = registry.reference();
    let referrers = image.referrers.iter().map(|referrer| &referrer.manifest);
    let manifests: Vec<&Document> = [&image.manifest].into_iter().chain(referrers).collect();
    let mut blobs = Vec::new();
    for (digest, size_bytes, blob) in image.blobs() {
        // Manifests are no blobs to a registry.
        if manifests.iter().any(|manifest| manifest.digest == digest) {
            continue;
        }
        let content = match blob {
            Blob::Bytes(bytes) => Content::Bytes(bytes),
            Blob::Cached => {
                let path = store.layer_file(digest);
                layout::check_touched(&path, digest, size_bytes)?;
                Content::File(File::open(&path).map_err(access("read", &path))?)
            }
        };
        blobs.push(push::Blob {
            digest,
            size_bytes,
            content,
            known_in: store.pushed_elsewhere(host, digest, repository)?,
        });
    }
    let came = push::push_blobs(registry, &blobs, sent)?;
    // Documents refer to the image by its digest, so that they follow it, without a tag.
    for (number, document) in manifests.iter().enumerate() {
        let tag = (number == 0).then(|| registry.reference().tag());
        push::push_manifest(registry, &manifest_of(document), tag)?;
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

fn manifest_of(document: &Document) -> Manifest<'_> {
    Manifest {
        media_type: MANIFEST,
        bytes: &document.bytes,
        digest: document.digest,
    }
}

/// Returns how many bytes of blobs an image has.
pub fn size_bytes(image: &Image) -> u64 {
    let blobs = image.blobs().into_iter();
    blobs.map(|(_, size_bytes, _)| size_bytes).sum()
}
