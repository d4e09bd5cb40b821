//! What was left behind, and why: for people who ask what an image does not have.

use std::collections::BTreeMap;

use super::leave::{LeaveOut, left_out};
use super::reach::Reached;
use super::{Content, Objects};
use crate::hash::{RelPath, StorePath};
use crate::listing::{Entry, Listing};

/// Why a file is not in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A rule leaves it out.
    Rule(&'static LeaveOut),
    /// The image takes other files of the package.
    NotChosen,
    /// No taken file needs it.
    NotNeeded,
}

/// A file, or a directory with all it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Where, in its object.
    pub path: RelPath,
    /// Why.
    pub why: Why,
    /// How many files and links it is.
    pub files: usize,
    /// Their lengths together, in bytes.
    pub size_bytes: u64,
}

/// Returns what each object has that is not taken, a directory of which nothing is taken
/// as one.
pub fn left<'a>(
    contents: &[Content],
    objects: &'a Objects,
    reached: &Reached,
) -> BTreeMap<&'a StorePath, Vec<Left>> {
    let none = BTreeMap::new();
    let mut all = BTreeMap::new();
    for (object, held) in objects {
        let taken = reached.taken.get(object).unwrap_or(&none);
        let chosen = contents.iter().any(|content| content.object == *object);
        let why = |path: &RelPath| match left_out(path) {
            Some(rule) => Why::Rule(rule),
            None if chosen => Why::NotChosen,
            None => Why::NotNeeded,
        };
        let mut lines: Vec<Left> = Vec::new();
        for (path, entry) in held.listing.iter() {
            if taken.contains_key(path) {
                continue;
            }
            let files = usize::from(*entry != Entry::Directory);
            let size_bytes = match entry {
                Entry::File { size_bytes, .. } => *size_bytes,
                _ => 0,
            };
            if let Some(last) = lines.last_mut()
                && path.is_below(&last.path)
                && why(path) == last.why
            {
                last.files += files;
                last.size_bytes += size_bytes;
                continue;
            }
            let whole = *entry != Entry::Directory || is_left(&held.listing, path, taken, &why);
            if whole {
                lines.push(Left {
                    path: path.clone(),
                    why: why(path),
                    files,
                    size_bytes,
                });
            }
        }
        lines.retain(|line| line.files > 0);
        if !lines.is_empty() {
            all.insert(object, lines);
        }
    }
    all
}

/// Returns whether all below a directory is left, for one reason.
fn is_left<R>(
    listing: &Listing,
    directory: &RelPath,
    taken: &BTreeMap<RelPath, R>,
    why: &impl Fn(&RelPath) -> Why,
) -> bool {
    let reason = why(directory);
    listing
        .iter()
        .filter(|(path, _)| path.is_below(directory))
        .all(|(path, entry)| {
            !taken.contains_key(path) && (*entry == Entry::Directory || why(path) == reason)
        })
}
