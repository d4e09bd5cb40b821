//! What goes to a layout, an archive or a registry: an image or an index of several, with
//! everything it leads to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::assemble::Image;
use super::manifest::{Document, INDEX_TYPE, MANIFEST_TYPE};
use super::{Referrer, manifest};
use crate::derivation::Platform;
use crate::hash::Sha256Digest;
use crate::store::Store;

/// A document that names blobs, or other documents.
#[derive(Debug, Clone, Copy)]
pub struct Manifest<'a> {
    /// Its media type.
    pub media_type: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Their digest.
    pub digest: Sha256Digest,
}

impl<'a> Manifest<'a> {
    /// Names a document by its media type.
    pub fn new(media_type: &'a str, document: &'a Document) -> Self {
        Self {
            media_type,
            bytes: &document.bytes,
            digest: document.digest,
        }
    }
}

/// Where a blob's bytes come from.
#[derive(Debug, Clone)]
pub enum Blob<'a> {
    /// From memory.
    Bytes(&'a [u8]),
    /// From a file that nobody changes, with its length in bytes. It is checked unless it
    /// shows that it was finished here ([`crate::store::is_untouched`]).
    File(PathBuf, u64),
}

impl Blob<'_> {
    /// Returns its length, in bytes.
    pub fn size_bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, size_bytes) => *size_bytes,
        }
    }
}

/// An image or an index of several, with everything it leads to.
#[derive(Debug, Clone)]
pub struct Parcel<'a> {
    /// Its title: a newer one of the same may take over the tag that images get by
    /// themselves.
    pub title: Option<&'a str>,
    /// What a tag names.
    pub top: Manifest<'a>,
    /// Where it runs; `None` for an index, whose entries say it.
    pub platform: Option<&'a Platform>,
    /// The manifests that an index names.
    pub below: Vec<Manifest<'a>>,
    /// Manifests that refer to others of these, with the entry that names each in the
    /// index of a layout.
    pub beside: Vec<(Manifest<'a>, Value)>,
    /// Configurations, layers, and the content of what refers to them.
    pub blobs: BTreeMap<Sha256Digest, Blob<'a>>,
}

impl<'a> Parcel<'a> {
    /// Wraps up an image whose layers lie in a store's cache.
    pub fn of_image(image: &'a Image, store: &Store) -> Self {
        let config = (image.config.digest, Blob::Bytes(&image.config.bytes));
        let layers = image.layers.iter().map(|layer| {
            let file = store.layer_file(layer.blob.digest);
            (layer.blob.digest, Blob::File(file, layer.blob.size_bytes))
        });
        let contents = image.referrers.iter().flat_map(Referrer::blobs);
        let contents = contents.map(|(digest, bytes)| (digest, Blob::Bytes(bytes)));
        let beside = |referrer: &'a Referrer| {
            let manifest = Manifest::new(MANIFEST_TYPE, &referrer.manifest);
            (manifest, referrer.index_entry())
        };
        Self {
            title: Some(&image.name),
            top: Manifest::new(MANIFEST_TYPE, &image.manifest),
            platform: Some(&image.platform),
            below: Vec::new(),
            beside: image.referrers.iter().map(beside).collect(),
            blobs: [config].into_iter().chain(layers).chain(contents).collect(),
        }
    }

    /// Wraps up an index and the images that it names; what refers to them is added to it.
    pub fn of_index(title: Option<&'a str>, index: &'a Document) -> Self {
        Self {
            title,
            top: Manifest::new(INDEX_TYPE, index),
            platform: None,
            below: Vec::new(),
            beside: Vec::new(),
            blobs: BTreeMap::new(),
        }
    }

    /// Returns every manifest, those first that others name or refer to; the one that a tag
    /// names comes after those it names.
    pub fn manifests(&self) -> impl Iterator<Item = Manifest<'a>> {
        let beside = self.beside.iter().map(|(manifest, _)| *manifest);
        let below = self.below.iter().copied();
        below.chain([self.top]).chain(beside)
    }

    /// Returns everything that a layout holds as a file, by digest.
    pub(super) fn files(&self) -> BTreeMap<Sha256Digest, Blob<'a>> {
        let mut files = self.blobs.clone();
        let manifests = self.manifests();
        files.extend(manifests.map(|manifest| (manifest.digest, Blob::Bytes(manifest.bytes))));
        files
    }

    /// Returns the entries that name it in the index of a layout.
    pub(super) fn index_entries(&self, tag: &str) -> Vec<Value> {
        let mut entries = vec![manifest::index_entry(&self.top, self.platform, Some(tag))];
        entries.extend(self.beside.iter().map(|(_, entry)| entry.clone()));
        entries
    }

    /// Returns how many bytes its blobs have.
    pub fn size_bytes(&self) -> u64 {
        self.blobs.values().map(Blob::size_bytes).sum()
    }
}
