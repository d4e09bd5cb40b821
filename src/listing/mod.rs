//! A file tree as data: what stands at each path, sorted, with its digest.
//!
//! In: entries, or the `Directory` messages of a tree. Out: a [`Listing`], the messages,
//! and the tree's digest. A listing always holds the parent directory of each entry, and
//! iterates in the order of a sorted walk. This stage is pure; `tree` makes listings from
//! disks, `image` and `policy` read them.

pub mod compare;
pub mod facts;
pub mod image;
pub mod links;
pub mod link;

use std::collections::BTreeMap;

use crate::hash::directory::{Directory, DirectoryError, DirectoryNode, Encoded, FileNode};
use crate::hash::path::{MAX_DEPTH, PathError};
use crate::hash::{BlobDigest, RelPath, TreeDigest};

/// What stands at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// BLAKE3 of the content.
        digest: BlobDigest,
        /// Length of the content.
        size_bytes: u64,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, as it stands in the link.
        target: String,
    },
}

/// Entries that are not a tree.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// A path below something that is not a directory.
    #[error("`{path}` stands below `{parent}`, which is not a directory")]
    NotDirectory {
        /// The entry.
        path: RelPath,
        /// Its parent.
        parent: RelPath,
    },
    /// A directory message that the tree needs is not there.
    #[error("the directory `/{path}` (`{digest}`) is missing")]
    Missing {
        /// Where in the tree; empty at the root.
        path: String,
        /// The digest of the missing message.
        digest: TreeDigest,
    },
    /// A directory message that is not canonical, or whose digest is another.
    #[error("the directory `/{path}` is damaged")]
    Damaged {
        /// Where in the tree; empty at the root.
        path: String,
        /// Why.
        source: DirectoryError,
    },
    /// There are more entries than the reader takes.
    #[error("the tree has more than {0} entries")]
    TooLarge(usize),
    /// The tree is nested too deeply or has an impossible name.
    #[error("the tree has an entry that no listing can hold")]
    Path(#[from] PathError),
}

/// A file tree, sorted, with every parent directory present.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    entries: BTreeMap<RelPath, Entry>,
}

impl Listing {
    /// Builds a listing from entries in any order.
    ///
    /// # Errors
    /// [`ListingError::NotDirectory`] when the parent of an entry is absent or is not a
    /// directory.
    pub fn new(entries: BTreeMap<RelPath, Entry>) -> Result<Self, ListingError> {
        // Neighbours mostly have the same parent: it is looked for once.
        let mut sound = "";
        for path in entries.keys() {
            if path.parent_str() == sound {
                continue;
            }
            if let Some(parent) = path.parent()
                && !matches!(entries.get(&parent), Some(Entry::Directory))
            {
                return Err(ListingError::NotDirectory {
                    path: path.clone(),
                    parent,
                });
            }
            sound = path.parent_str();
        }
        Ok(Self { entries })
    }

    /// Returns what stands at a path.
    pub fn get(&self, path: &RelPath) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// As [`Self::get`], with the path as the listing holds it.
    pub fn find(&self, path: &RelPath) -> Option<(&RelPath, &Entry)> {
        self.entries.get_key_value(path)
    }

    /// Iterates in the order of a sorted walk: a directory before what it holds.
    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, &Entry)> {
        self.entries.iter()
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there is no entry at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the sum of all files' lengths, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.entries
            .values()
            .map(|entry| match entry {
                Entry::File { size_bytes, .. } => *size_bytes,
                Entry::Directory | Entry::Symlink { .. } => 0,
            })
            .sum()
    }

    /// Encodes the tree: every directory's message by digest, and the root's.
    pub fn encode(&self) -> EncodedTree {
        let mut open: Vec<(&str, Directory)> = vec![("", Directory::default())];
        let mut messages = BTreeMap::new();
        for (path, entry) in &self.entries {
            let parent = path.parent_str();
            while open.last().is_some_and(|(at, _)| *at != parent) {
                close(&mut open, &mut messages);
            }
            let name = path.file_name().to_owned();
            match entry {
                Entry::Directory => open.push((path.as_str(), Directory::default())),
                Entry::File {
                    digest,
                    size_bytes,
                    executable,
                } => {
                    let node = FileNode {
                        digest: *digest,
                        size_bytes: *size_bytes,
                        executable: *executable,
                    };
                    if let Some((_, directory)) = open.last_mut() {
                        directory.files.insert(name, node);
                    }
                }
                Entry::Symlink { target } => {
                    if let Some((_, directory)) = open.last_mut() {
                        directory.symlinks.insert(name, target.clone());
                    }
                }
            }
        }
        while open.len() > 1 {
            close(&mut open, &mut messages);
        }
        let root = open
            .pop()
            .map(|(_, directory)| directory)
            .unwrap_or_default()
            .encode();
        let node = root.node();
        messages.insert(root.digest, root.bytes);
        EncodedTree {
            root: node,
            messages,
        }
    }

    /// Returns the digest of the tree.
    pub fn digest(&self) -> TreeDigest {
        self.encode().root.digest
    }

    /// Reads a tree from what [`EncodedTree::to_bytes`] gave.
    ///
    /// # Errors
    /// [`ListingError`] when a message is missing or damaged, or the tree too deep.
    pub fn from_bytes(root: TreeDigest, bytes: &[u8]) -> Result<Self, ListingError> {
        Self::from_bytes_bounded(root, bytes, usize::MAX)
    }

    /// As [`Listing::from_bytes`], for bytes that nobody vouches for.
    ///
    /// # Errors
    /// [`ListingError::TooLarge`] with more entries than `most`; equal directories in one
    /// another make many of few bytes.
    pub fn from_bytes_bounded(
        root: TreeDigest,
        bytes: &[u8],
        most: usize,
    ) -> Result<Self, ListingError> {
        let mut messages: BTreeMap<[u8; 32], &[u8]> = BTreeMap::new();
        let mut rest = bytes;
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            // A length that leads too far leaves a message missing, which is told below.
            let Some((message, after)) = after.split_at_checked(length) else {
                break;
            };
            messages.insert(*blake3::hash(message).as_bytes(), message);
            rest = after;
        }
        // Counted before any is made: each directory once, however often it is used.
        if most < usize::MAX && count(root, &messages, &mut BTreeMap::new(), "")? > most {
            return Err(ListingError::TooLarge(most));
        }
        Self::decode(root, |digest| {
            Ok(messages.get(digest.as_bytes()).map(|bytes| bytes.to_vec()))
        })
    }

    /// Reads a tree from its `Directory` messages.
    ///
    /// `lookup` returns the message of a digest; each is checked against that digest.
    ///
    /// # Errors
    /// [`ListingError`] when a message is missing or damaged, or the tree too deep; the
    /// lookup's own error passes through.
    pub fn decode<E: From<ListingError>>(
        root: TreeDigest,
        mut lookup: impl FnMut(TreeDigest) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Self, E> {
        let mut read = |at: Option<&RelPath>, digest| -> Result<_, E> {
            let shown = || at.map(RelPath::to_string).unwrap_or_default();
            if at.is_some_and(|path| path.components().count() > MAX_DEPTH) {
                return Err(too_deep(shown()).into());
            }
            let bytes = lookup(digest)?.ok_or_else(|| ListingError::Missing {
                path: shown(),
                digest,
            })?;
            let directory = Directory::decode(&bytes).map_err(|source| ListingError::Damaged {
                path: shown(),
                source,
            })?;
            // What decodes is canonical, so its bytes are the ones that were hashed.
            if blake3::hash(&bytes).as_bytes() != digest.as_bytes() {
                let source = DirectoryError::NotCanonical;
                return Err(ListingError::Damaged {
                    path: shown(),
                    source,
                }
                .into());
            }
            Ok(children(directory).into_iter())
        };
        // What comes in the order of a walk needs no search for its place in the map.
        let mut entries = Vec::new();
        let mut open = vec![(None, read(None, root)?)];
        while let Some((at, children)) = open.last_mut() {
            let Some((name, child)) = children.next() else {
                open.pop();
                continue;
            };
            let path = match at {
                None => name.parse(),
                Some(parent) => RelPath::join(parent, &name),
            };
            let path = path.map_err(ListingError::Path)?;
            match child {
                Child::Leaf(entry) => entries.push((path, entry)),
                Child::Directory(digest) => {
                    let children = read(Some(&path), digest)?;
                    entries.push((path.clone(), Entry::Directory));
                    open.push((Some(path), children));
                }
            }
        }
        let entries = entries.into_iter().collect();
        Ok(Self { entries })
    }
}

/// What a directory holds under one name.
enum Child {
    /// Anything but a directory.
    Leaf(Entry),
    /// A directory.
    Directory(TreeDigest),
}

/// Returns what a directory holds, by name.
fn children(directory: Directory) -> Vec<(String, Child)> {
    let file = |node: FileNode| Entry::File {
        digest: node.digest,
        size_bytes: node.size_bytes,
        executable: node.executable,
    };
    let files = directory.files.into_iter();
    let files = files.map(|(name, node)| (name, Child::Leaf(file(node))));
    let links = directory.symlinks.into_iter();
    let links = links.map(|(name, target)| (name, Child::Leaf(Entry::Symlink { target })));
    let below = directory.directories.into_iter();
    let below = below.map(|(name, node)| (name, Child::Directory(node.digest)));
    let mut children: Vec<_> = files.chain(links).chain(below).collect();
    children.sort_by(|(one, _), (two, _)| one.cmp(two));
    children
}

/// Counts the entries of a directory and of all below it, each directory once. What is
/// missing or damaged has none, which is told when it is read.
///
/// # Errors
/// [`ListingError::Path`] where it is too deep.
fn count(
    directory: TreeDigest,
    messages: &BTreeMap<[u8; 32], &[u8]>,
    counted: &mut BTreeMap<TreeDigest, usize>,
    at: &str,
) -> Result<usize, ListingError> {
    if let Some(count) = counted.get(&directory) {
        return Ok(*count);
    }
    if at.matches('/').count() > MAX_DEPTH {
        return Err(too_deep(at.trim_start_matches('/').to_owned()));
    }
    let message = messages.get(directory.as_bytes());
    let Some(Ok(found)) = message.map(|bytes| Directory::decode(bytes)) else {
        return Ok(0);
    };
    let mut total = found.files.len() + found.symlinks.len() + found.directories.len();
    for (name, node) in &found.directories {
        let below = count(node.digest, messages, counted, &format!("{at}/{name}"))?;
        total = total.saturating_add(below);
    }
    counted.insert(directory, total);
    Ok(total)
}

fn too_deep(path: String) -> ListingError {
    ListingError::Path(PathError::NotRelative {
        path,
        reason: "it is nested more than 64 deep",
    })
}

/// A tree's `Directory` messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedTree {
    /// The root's digest and encoded length.
    pub root: DirectoryNode,
    /// Every distinct directory of the tree, the root's included, by digest.
    pub messages: BTreeMap<TreeDigest, Vec<u8>>,
}

impl EncodedTree {
    /// Returns all messages in the order of their digests, each after its length as four
    /// bytes, least significant first.
    ///
    /// # Panics
    /// When a directory's message has 4 GiB, which no file system's directory gives.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in self.messages.values() {
            let length = u32::try_from(message.len()).expect("a directory below 4 GiB");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(message);
        }
        bytes
    }
}

/// Encodes the innermost open directory and enters it into its parent.
fn close(open: &mut Vec<(&str, Directory)>, messages: &mut BTreeMap<TreeDigest, Vec<u8>>) {
    if let Some((path, directory)) = open.pop() {
        let encoded: Encoded = directory.encode();
        let node = encoded.node();
        messages.insert(encoded.digest, encoded.bytes);
        if let Some((_, parent)) = open.last_mut() {
            let name = path.rsplit('/').next().unwrap_or(path);
            parent.directories.insert(name.to_owned(), node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> Entry {
        Entry::File {
            digest: BlobDigest::of(content.as_bytes()),
            size_bytes: content.len() as u64,
            executable: false,
        }
    }

    fn listing(entries: &[(&str, Entry)]) -> Listing {
        let entries = entries
            .iter()
            .map(|(path, entry)| (path.parse().unwrap(), entry.clone()))
            .collect();
        Listing::new(entries).unwrap()
    }

    #[test]
    fn encodes_and_decodes() {
        let tree = listing(&[
            ("a", Entry::Directory),
            ("a/b", Entry::Directory),
            ("a/b/c", file("c")),
            ("a/z", file("z")),
            (
                "a.b",
                Entry::Symlink {
                    target: "a/b".to_owned(),
                },
            ),
            ("empty", Entry::Directory),
        ]);
        let encoded = tree.encode();
        let back = Listing::decode::<ListingError>(encoded.root.digest, |digest| {
            Ok(encoded.messages.get(&digest).cloned())
        });
        assert_eq!(back.unwrap(), tree);
        assert_eq!(tree.size_bytes(), 2);
    }

    #[test]
    fn an_entry_needs_its_parent() {
        let orphan = BTreeMap::from([("a/b".parse().unwrap(), file("x"))]);
        assert!(matches!(
            Listing::new(orphan),
            Err(ListingError::NotDirectory { .. })
        ));
    }

    #[test]
    fn a_missing_message_is_named() {
        let tree = listing(&[("a", Entry::Directory), ("a/b", file("x"))]);
        let encoded = tree.encode();
        let result = Listing::decode::<ListingError>(encoded.root.digest, |digest| {
            Ok((digest == encoded.root.digest).then(|| encoded.messages[&digest].clone()))
        });
        assert!(matches!(result, Err(ListingError::Missing { path, .. }) if path == "a"));
    }
}
