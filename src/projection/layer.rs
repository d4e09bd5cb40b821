//! What one layer holds.

use std::collections::BTreeMap;

use serde_json::json;

use super::EXECUTABLE_MODE;
use crate::hash::json::canonical;
use crate::hash::{BlobDigest, RelPath};
use crate::listing::Entry;

/// What a layer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPlan {
    /// Where it comes from, for the image's history.
    pub title: String,
    entries: BTreeMap<RelPath, (Entry, u32)>,
}

impl LayerPlan {
    /// Starts a layer without entries.
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            entries: BTreeMap::new(),
        }
    }

    /// Adds an entry with its permission bits, and the directories above it.
    pub fn insert(&mut self, path: &RelPath, entry: Entry, mode: u32) {
        for above in path.ancestors() {
            self.entries
                .entry(above)
                .or_insert((Entry::Directory, EXECUTABLE_MODE));
        }
        self.entries.insert(path.clone(), (entry, mode));
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns what identifies the layer's bytes before they are made: the digest of its
    /// entries as canonical JSON. The title is not part of it.
    ///
    /// # Panics
    /// Never: sizes of files are below 2^53.
    pub fn key(&self) -> BlobDigest {
        let entries: Vec<_> = self
            .entries
            .iter()
            .map(|(path, (entry, mode))| match entry {
                Entry::File {
                    digest, size_bytes, ..
                } => {
                    json!([path.as_str(), mode, "file", digest.to_string(), size_bytes])
                }
                Entry::Directory => json!([path.as_str(), mode, "directory"]),
                Entry::Symlink { target } => json!([path.as_str(), mode, "symlink", target]),
            })
            .collect();
        let document = json!({ "schema": "kiln.layer.v1", "entries": entries });
        BlobDigest::of(&canonical(&document).expect("sizes are below 2^53"))
    }

    /// Iterates over the entries with their permission bits, in tree order.
    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, &(Entry, u32))> {
        self.entries.iter()
    }
}
