//! Making an image: layers from the cache or anew, then its documents.

use std::fs::File;

use rayon::prelude::*;

use super::manifest::{self, Document, Layer};
use super::{ImageError, Referrer, access, encode, layer};
use crate::derivation::{Compression, Definition, Image as Declared, Platform};
use crate::projection::{LayerPlan, Projection};
use crate::store::{Store, finish};

/// An image whose layers lie in the store's cache.
#[derive(Debug, Clone)]
pub struct Image {
    /// The image's name.
    pub name: String,
    /// What it runs on.
    pub platform: Platform,
    /// The configuration.
    pub config: Document,
    /// The manifest; its digest is the image's.
    pub manifest: Document,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// Documents that refer to it and go where it goes.
    pub referrers: Vec<Referrer>,
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
    compression: Compression,
) -> Result<Image, ImageError> {
    let blobs = store.images().join("blobs");
    std::fs::create_dir_all(&blobs).map_err(access("create", &blobs))?;
    let layers: Vec<Layer> = projection
        .layers
        .par_iter()
        .map(|plan| make_layer(store, plan, compression))
        .collect::<Result<_, _>>()?;
    let config = manifest::config(declared, &layers)?;
    let manifest = manifest::manifest(definition, &config, &layers)?;
    Ok(Image {
        name: definition.meta.name.to_string(),
        platform: declared.platform.clone(),
        config,
        manifest,
        layers,
        referrers: Vec::new(),
    })
}

fn make_layer(
    store: &Store,
    plan: &LayerPlan,
    compression: Compression,
) -> Result<Layer, ImageError> {
    let key = plan.key();
    let encoder = encode::encoder(compression);
    let layer = |blob| Layer {
        title: plan.title.clone(),
        compression,
        blob,
    };
    if let Some(blob) = store.layer(key, encoder.as_deref())? {
        return Ok(layer(blob));
    }
    let directory = store.images().join("blobs");
    let file = tempfile::Builder::new()
        .prefix("layer-")
        .tempfile_in(&directory)
        .map_err(access("create a file in", &directory))?;
    let open = |digest, executable| File::open(store.blob_path(digest, executable));
    let blob = encode::encode(compression, file.as_file(), |to| {
        layer::write(plan, to, open)
    })
    .and_then(|blob| finish(file.as_file()).map(|()| blob))
    .map_err(access("write a layer into", &directory))?;
    let path = store.layer_file(blob.digest);
    file.persist(&path)
        .map_err(|error| access("keep", &path)(error.error))?;
    store.record_layer(key, encoder.as_deref(), blob)?;
    Ok(layer(blob))
}
