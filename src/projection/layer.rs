//! What one layer holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use super::Placed;
use crate::hash::json::write_text;
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
    /// Makes a layer of entries, with plain directories above them where none are.
    pub fn new(title: String, mut entries: BTreeMap<RelPath, Placed>) -> Self {
        let mut missing = BTreeSet::new();
        // Neighbours mostly lie in one directory: what is above it is looked for once.
        let mut held = "";
        for path in entries.keys() {
            let parent = path.parent_str();
            if parent != held {
                let above = path.ancestors();
                missing.extend(above.filter(|above| !entries.contains_key(above)));
                held = parent;
            }
        }
        entries.extend(missing.into_iter().map(|path| (path, Placed::directory())));
        Self { title, entries }
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
    pub fn key(&self) -> BlobDigest {
        BlobDigest::of(&self.canonical())
    }

    /// Returns the entries as canonical JSON, written at once: a document of values would
    /// take many times the memory for each of a layer's thousands of files.
    fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(b"{\"entries\":[");
        for (number, (path, placed)) in self.entries.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            placed.write(path, &mut out);
        }
        out.extend_from_slice(b"],\"schema\":\"kiln.layer.v2\"}");
        out
    }

    /// Iterates over the entries in tree order.
    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, &Placed)> {
        self.entries.iter()
    }
}

impl Placed {
    /// Appends the canonical JSON of an entry: an array.
    ///
    /// # Panics
    /// Never: memory takes all that is written. Sizes of files are below 2^53, so that they
    /// are exact in JSON.
    fn write(&self, path: &RelPath, out: &mut Vec<u8>) {
        let (user, group) = self.owner;
        out.push(b'[');
        write_text(path.as_str(), out);
        let written = match &self.entry {
            Entry::File {
                digest, size_bytes, ..
            } => write!(
                out,
                ",{},{user},{group},\"file\",\"{digest}\",{size_bytes}",
                self.mode
            ),
            Entry::Directory => write!(out, ",{},{user},{group},\"directory\"", self.mode),
            Entry::Symlink { target } => {
                let written = write!(out, ",{},{user},{group},\"symlink\",", self.mode);
                write_text(target, out);
                written
            }
        };
        written.expect("memory takes all that is written");
        out.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::hash::json::canonical;

    /// Returns what the canonical form is of, for the writer of all documents.
    fn document(layer: &LayerPlan) -> Value {
        let entries: Vec<_> = layer
            .iter()
            .map(|(path, placed)| {
                let path = path.as_str();
                let (user, group) = placed.owner;
                let mut entry = vec![json!(path), json!(placed.mode), json!(user), json!(group)];
                entry.extend(match &placed.entry {
                    Entry::File {
                        digest, size_bytes, ..
                    } => vec![json!("file"), json!(digest.to_string()), json!(size_bytes)],
                    Entry::Directory => vec![json!("directory")],
                    Entry::Symlink { target } => vec![json!("symlink"), json!(target)],
                });
                entry
            })
            .collect();
        json!({ "schema": "kiln.layer.v2", "entries": entries })
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let file = (any::<[u8; 4]>(), 0..1_u64 << 53, any::<bool>());
        prop_oneof![
            Just(Entry::Directory),
            file.prop_map(|(content, size_bytes, executable)| Entry::File {
                digest: BlobDigest::of(&content),
                size_bytes,
                executable,
            }),
            any::<String>().prop_map(|target| Entry::Symlink { target }),
        ]
    }

    fn placed() -> impl Strategy<Value = Placed> {
        (entry(), any::<u32>(), any::<(u32, u32)>()).prop_map(|(entry, mode, owner)| Placed {
            entry,
            mode,
            owner,
            object: None,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_at_once_is_the_canonical_document(
            entries in proptest::collection::vec(
                // Names with all that JSON escapes, or must not, and some of any kind.
                ("[a\\x01-\\x1f\"\\\\\x7f\u{e9}\u{2028}\u{fb33}\u{1f600}/]{1,9}|\\PC{1,9}", placed()),
                0..8,
            )
        ) {
            let entries = entries
                .into_iter()
                .filter_map(|(path, placed)| Some((path.parse().ok()?, placed)))
                .collect();
            let layer = LayerPlan::new("any".to_owned(), entries);
            let expected = canonical(&document(&layer)).unwrap();
            prop_assert_eq!(layer.canonical(), expected);
        }
    }
}
