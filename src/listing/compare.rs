//! How two file trees differ.

use std::cmp::Ordering;

use super::{Entry, Listing};
use crate::hash::RelPath;

/// A path at which two trees differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference<'a> {
    /// Where.
    pub path: &'a RelPath,
    /// What only stands in the one tree, or stands in both and is not the same.
    pub change: Change<'a>,
}

/// What is different at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<'a> {
    /// Only the second tree has it.
    Added(&'a Entry),
    /// Only the first tree has it.
    Removed(&'a Entry),
    /// Both have it: first in the one, then in the other form.
    Changed(&'a Entry, &'a Entry),
}

impl Change<'_> {
    /// Returns by how many bytes the second tree is larger here.
    pub fn growth_bytes(&self) -> i64 {
        let size = |entry: &Entry| match entry {
            Entry::File { size_bytes, .. } => i64::try_from(*size_bytes).unwrap_or(i64::MAX),
            Entry::Directory | Entry::Symlink { .. } => 0,
        };
        match self {
            Self::Added(entry) => size(entry),
            Self::Removed(entry) => -size(entry),
            Self::Changed(old, new) => size(new) - size(old),
        }
    }
}

/// Returns every path at which two trees differ, in the order of a sorted walk.
pub fn compare<'a>(old: &'a Listing, new: &'a Listing) -> Vec<Difference<'a>> {
    let mut found = Vec::new();
    let (mut before, mut after) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (Some((path, _)), Some((next, _))) => path.cmp(next),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let was = if order.is_le() { before.next() } else { None };
        let is = if order.is_ge() { after.next() } else { None };
        let (path, change) = match (was, is) {
            (Some((path, was)), Some((_, is))) if was != is => (path, Change::Changed(was, is)),
            (Some(_), Some(_)) => continue,
            (Some((path, was)), None) => (path, Change::Removed(was)),
            (None, Some((path, is))) => (path, Change::Added(is)),
            (None, None) => return found,
        };
        found.push(Difference { path, change });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::hash::BlobDigest;

    fn file(text: &str) -> Entry {
        Entry::File {
            digest: BlobDigest::of(text.as_bytes()),
            size_bytes: text.len() as u64,
            executable: false,
        }
    }

    fn tree(files: &[(&str, &str)]) -> Listing {
        let entries: BTreeMap<_, _> = files
            .iter()
            .map(|(path, text)| (path.parse().unwrap(), file(text)))
            .collect();
        Listing::new(entries).unwrap()
    }

    #[test]
    fn what_was_added_removed_and_changed_comes_in_order() {
        let old = tree(&[("a", "1"), ("b", "1"), ("d", "1"), ("f", "1")]);
        let new = tree(&[("b", "222"), ("c", "1"), ("d", "1"), ("g", "1")]);
        let found = compare(&old, &new);
        let shown: Vec<(&str, i64)> = found
            .iter()
            .map(|difference| (difference.path.as_str(), difference.change.growth_bytes()))
            .collect();
        assert_eq!(shown, [("a", -1), ("b", 2), ("c", 1), ("f", -1), ("g", 1)]);
        assert!(matches!(found[0].change, Change::Removed(_)));
        assert!(matches!(found[1].change, Change::Changed(_, _)));
        assert!(matches!(found[2].change, Change::Added(_)));
        assert!(compare(&old, &old).is_empty());
    }
}
