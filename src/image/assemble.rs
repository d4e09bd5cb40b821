//! Making an image: layers from the cache or anew, then its documents.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;

use rayon::prelude::*;

use super::manifest::{self, Document, Layer};
use super::{ImageError, access, layer};
use crate::derivation::{Definition, Image as Declared};
use crate::hash::Sha256Digest;
use crate::projection::{LayerPlan, Projection};
use crate::store::Store;

/// An image whose layers lie in the store's cache.
#[derive(Debug, Clone)]
pub struct Image {
    /// The image's name.
    pub name: String,
    /// The configuration.
    pub config: Document,
    /// The manifest; its digest is the image's.
    pub manifest: Document,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
}

/// Where a blob's bytes come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Blob<'a> {
    /// From memory.
    Bytes(&'a [u8]),
    /// From the store's layer cache.
    Cached,
}

impl Image {
    /// Returns every blob: digest, length, and where its bytes are; sorted, each once.
    pub(super) fn blobs(&self) -> Vec<(Sha256Digest, u64, Blob<'_>)> {
        let mut blobs = vec![
            (
                self.config.digest,
                self.config.bytes.len() as u64,
                Blob::Bytes(&self.config.bytes),
            ),
            (
                self.manifest.digest,
                self.manifest.bytes.len() as u64,
                Blob::Bytes(&self.manifest.bytes),
            ),
        ];
        blobs.extend(
            self.layers
                .iter()
                .map(|layer| (layer.diff_id, layer.size_bytes, Blob::Cached)),
        );
        blobs.sort_by_key(|(digest, _, _)| *digest);
        blobs.dedup_by_key(|(digest, _, _)| *digest);
        blobs
    }
}

/// Returns where the store keeps a layer.
pub(super) fn cached(store: &Store, digest: Sha256Digest) -> PathBuf {
    store.images().join("blobs").join(digest.to_string())
}

/// Makes the layers of a projection and the documents of the image.
///
/// # Errors
/// [`ImageError`] when a file of the store cannot be read or a layer not be written.
pub fn assemble(
    store: &Store,
    definition: &Definition,
    declared: &Declared,
    projection: &Projection,
) -> Result<Image, ImageError> {
    let blobs = store.images().join("blobs");
    std::fs::create_dir_all(&blobs).map_err(access("create", &blobs))?;
    let layers: Vec<Layer> = projection
        .layers
        .par_iter()
        .map(|plan| make_layer(store, plan))
        .collect::<Result<_, _>>()?;
    let config = manifest::config(declared, &layers)?;
    let manifest = manifest::manifest(definition, &config, &layers)?;
    Ok(Image {
        name: definition.meta.name.to_string(),
        config,
        manifest,
        layers,
    })
}

fn make_layer(store: &Store, plan: &LayerPlan) -> Result<Layer, ImageError> {
    let key = plan.key();
    if let Some((diff_id, size_bytes)) = store.layer(key)? {
        // A file of that name and length is what was written and hashed before;
        // `kiln store verify` and the writing of layouts hash it again.
        let there = std::fs::metadata(cached(store, diff_id));
        if there.is_ok_and(|there| there.len() == size_bytes) {
            return Ok(Layer {
                title: plan.title.clone(),
                diff_id,
                size_bytes,
            });
        }
    }
    let directory = store.images().join("blobs");
    let file = tempfile::Builder::new()
        .prefix("layer-")
        .tempfile_in(&directory)
        .map_err(access("create a file in", &directory))?;
    let mut writer = BufWriter::with_capacity(1 << 18, file);
    let open = |digest, executable| File::open(store.blob_path(digest, executable));
    let (diff_id, size_bytes) =
        layer::write(plan, &mut writer, open).map_err(access("write a layer into", &directory))?;
    writer
        .flush()
        .map_err(access("write a layer into", &directory))?;
    let file = writer
        .into_inner()
        .map_err(|error| access("write a layer into", &directory)(error.into_error()))?;
    let path = cached(store, diff_id);
    file.persist(&path)
        .map_err(|error| access("keep", &path)(error.error))?;
    store.record_layer(key, diff_id, size_bytes)?;
    Ok(Layer {
        title: plan.title.clone(),
        diff_id,
        size_bytes,
    })
}
