//! What one layer holds.

use std::collections::BTreeMap;

use serde_json::json;

use super::Placed;
use crate::hash::json::canonical;
use crate::hash::{BlobDigest, RelPath};
use crate::listing::Entry;

/// What a layer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPlan {
    /// Where it comes from, for the image's history.
    pub title: String,
    entries: BTreeMap<RelPath, Placed>,
}

impl LayerPlan {
    /// Starts a layer without entries.
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            entries: BTreeMap::new(),
        }
    }

    /// Adds an entry, and plain directories above it where none are.
    pub fn insert(&mut self, path: &RelPath, placed: Placed) {
        for above in path.ancestors() {
            self.entries.entry(above).or_insert_with(Placed::directory);
        }
        self.entries.insert(path.clone(), placed);
    }

    /// Returns whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the sum of its files' lengths, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.entries.values().map(Placed::size_bytes).sum()
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
            .map(|(path, placed)| {
                let path = path.as_str();
                let Placed { mode, owner, .. } = placed;
                let (user, group) = owner;
                match &placed.entry {
                    Entry::File {
                        digest, size_bytes, ..
                    } => json!([
                        path,
                        mode,
                        user,
                        group,
                        "file",
                        digest.to_string(),
                        size_bytes
                    ]),
                    Entry::Directory => json!([path, mode, user, group, "directory"]),
                    Entry::Symlink { target } => {
                        json!([path, mode, user, group, "symlink", target])
                    }
                }
            })
            .collect();
        let document = json!({ "schema": "kiln.layer.v2", "entries": entries });
        BlobDigest::of(&canonical(&document).expect("sizes are below 2^53"))
    }

    /// Iterates over the entries in tree order.
    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, &Placed)> {
        self.entries.iter()
    }
}
