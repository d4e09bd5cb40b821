//! A layer: its tar's members, with facts about their contents.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::document::Descriptor;
use super::limits::{MAX_MEMBERS, MAX_NAMES};
use super::tar::{Kind, Member, Reader};
use super::{InspectError, Progress, printable, source, stream};
use crate::hash::{BlobDigest, RelPath, Sha256Digest};
use crate::listing::facts::ContentFacts;
use crate::listing::image::{ImageEntry, ImageLayer, Node};
use crate::tree::facts::Scanner;

/// What a layer does, in the order of its tar.
#[derive(Debug, Clone)]
pub struct ReadLayer {
    /// Its number, from 0.
    pub index: usize,
    /// What names it, and its length.
    pub layer: ImageLayer,
    /// What it changes.
    pub changes: Vec<(RelPath, Change)>,
    /// Facts about each distinct content.
    pub facts: BTreeMap<BlobDigest, ContentFacts>,
}

impl ReadLayer {
    /// Returns the same layer at another place.
    #[must_use]
    pub fn at(&self, index: usize) -> Self {
        let mut layer = self.clone();
        layer.index = index;
        for (_, change) in &mut layer.changes {
            if let Change::Put(entry) | Change::Link(_, entry) = change {
                entry.layer = index;
            }
        }
        layer
    }
}

/// What a member of a layer does at its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It puts something there.
    Put(ImageEntry),
    /// It gives a file another name; the entry is filled in once the file is known.
    Link(RelPath, ImageEntry),
    /// It removes what lower layers have there.
    Whiteout,
    /// It removes what lower layers have below.
    Opaque,
}

/// What is left of the limits on all layers together.
#[derive(Debug, Default)]
pub struct Budget {
    members: AtomicU64,
    names: AtomicU64,
}

impl Budget {
    fn take(&self, member: &Member) -> Result<(), InspectError> {
        let attributes = member.attributes.iter();
        let attributes: usize = attributes.map(|(key, value)| key.len() + value.len()).sum();
        let bytes = (member.path.len() + member.link.len() + attributes) as u64;
        let members = self.members.fetch_add(1, Ordering::Relaxed);
        let names = self.names.fetch_add(bytes, Ordering::Relaxed);
        let limit = if members >= MAX_MEMBERS {
            format!("{MAX_MEMBERS} members in all layers")
        } else if names >= MAX_NAMES {
            format!("{MAX_NAMES} bytes in all names")
        } else {
            return Ok(());
        };
        Err(InspectError::TooLarge {
            // Which of the layers that are read at once meets the limit is chance.
            what: "the image".to_owned(),
            limit,
        })
    }
}

/// Reads a layer and checks every digest that names it.
///
/// # Errors
/// [`InspectError`].
pub fn read(
    index: usize,
    descriptor: &Descriptor,
    diff_id: Sha256Digest,
    blob: &mut (dyn Read + Send),
    budget: &Budget,
    progress: &dyn Progress,
) -> Result<ReadLayer, InspectError> {
    let title = match descriptor.digest {
        Some(digest) => format!("sha256:{digest}"),
        None => format!("sha256:{diff_id}"),
    };
    let parse = |tar: &mut dyn Read| members(index, &source::name(descriptor), tar, budget);
    let ((changes, facts), size_bytes) = stream::read(descriptor, diff_id, blob, progress, parse)?;
    Ok(ReadLayer {
        index,
        layer: ImageLayer { title, size_bytes },
        changes,
        facts,
    })
}

type Members = (Vec<(RelPath, Change)>, BTreeMap<BlobDigest, ContentFacts>);

/// Reads every member of a layer's tar.
///
/// # Errors
/// [`InspectError::Layer`], [`InspectError::TooLarge`].
pub fn members(
    index: usize,
    name: &str,
    tar: &mut dyn Read,
    budget: &Budget,
) -> Result<Members, InspectError> {
    let wrong = |problem: String| InspectError::Layer {
        layer: format!("layer {} ({name})", index + 1),
        problem,
    };
    let mut reader = Reader::new(tar);
    let mut changes = Vec::new();
    let mut facts = BTreeMap::new();
    while let Some(member) = reader.next().map_err(|error| wrong(error.to_string()))? {
        budget.take(&member)?;
        let shown = || shown(&member.path);
        let refuse = |why: String| wrong(format!("`{}` {why}", shown()));
        let Some(path) = member_path(&member.path).map_err(refuse)? else {
            continue;
        };
        if let Some(change) = whiteout(&path).map_err(refuse)? {
            changes.extend(change);
            continue;
        }
        let node = match member.kind {
            Kind::Directory => Node::Directory,
            Kind::Fifo => Node::Fifo,
            Kind::Character | Kind::Block => Node::Device {
                block: member.kind == Kind::Block,
                numbers: member.numbers,
            },
            Kind::Symlink => Node::Symlink {
                target: text(&member.link).map_err(refuse)?,
            },
            Kind::HardLink => {
                let target = member_path(&member.link)
                    .map_err(|why| refuse(format!("is a hard link to a name that {why}")))?;
                let target = target.ok_or_else(|| refuse("is a hard link to the root".into()))?;
                let entry = entry(&member, Node::Directory, index);
                changes.push((path, Change::Link(target, entry)));
                continue;
            }
            Kind::File => {
                let (digest, content) = scan(&mut reader, member.size_bytes)
                    .map_err(|error| refuse(format!("ends early: {error}")))?;
                facts.entry(digest).or_insert(content);
                let size_bytes = member.sparse_bytes.unwrap_or(member.size_bytes);
                Node::File { digest, size_bytes }
            }
        };
        changes.push((path, Change::Put(entry(&member, node, index))));
    }
    Ok((changes, facts))
}

fn entry(member: &Member, node: Node, layer: usize) -> ImageEntry {
    let mut entry = ImageEntry::new(node, member.mode, layer);
    entry.owner = member.owner;
    entry.attributes = member.attributes.clone();
    entry
}

/// Files that hold more than this in memory are read one at a time.
const LARGE: usize = 8 << 20;

/// Held by whoever reads a large file: it bounds the memory, whatever the processors.
static ONE_LARGE: Mutex<()> = Mutex::new(());

/// Reads one file's content: its digest, and facts about it.
fn scan(
    reader: &mut Reader<&mut dyn Read>,
    size_bytes: u64,
) -> std::io::Result<(BlobDigest, ContentFacts)> {
    let mut hasher = blake3::Hasher::new();
    let mut scanner = Scanner::expecting(size_bytes);
    let _held = (size_bytes > LARGE as u64).then(|| ONE_LARGE.lock());
    let mut data = reader.data();
    let mut block = vec![0; (64 << 10).min(usize::try_from(size_bytes).unwrap_or(64 << 10))];
    loop {
        let count = data.read(&mut block)?;
        if count == 0 {
            break;
        }
        let read = block.get(..count).unwrap_or_default();
        hasher.update(read);
        scanner.update(read);
    }
    let digest = BlobDigest::from_bytes(*hasher.finalize().as_bytes());
    Ok((digest, scanner.finish()))
}

/// Returns what a whiteout does; `None` for any other name. Names that overlay file
/// systems keep for themselves do nothing.
#[expect(clippy::option_option, reason = "a whiteout of nothing is one too")]
fn whiteout(path: &RelPath) -> Result<Option<Option<(RelPath, Change)>>, String> {
    let Some(name) = path.file_name().strip_prefix(".wh.") else {
        return Ok(None);
    };
    if name == ".wh..opq" {
        return Ok(Some(path.parent().map(|parent| (parent, Change::Opaque))));
    }
    if name.starts_with(".wh.") {
        return Ok(Some(None));
    }
    let removed = match path.parent() {
        Some(parent) => parent.join(name),
        None => name.parse(),
    };
    match removed {
        Ok(removed) => Ok(Some(Some((removed, Change::Whiteout)))),
        Err(_) => Err("is a whiteout of no name".to_owned()),
    }
}

/// Returns a name for people, short and without what moves a terminal's cursor.
fn shown(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes).chars().take(200).collect();
    printable(&text)
}

/// Returns bytes as text; each byte that is no UTF-8 stands as `\xFF`. That cannot be read
/// in two ways: a text that has such a form itself is refused.
fn text(bytes: &[u8]) -> Result<String, String> {
    match std::str::from_utf8(bytes) {
        Ok(text) if has_escape(text) => Err("has a name that looks like an escaped one".to_owned()),
        Ok(text) => Ok(text.to_owned()),
        Err(_) => {
            let mut text = String::new();
            for chunk in bytes.utf8_chunks() {
                text.push_str(chunk.valid());
                for byte in chunk.invalid() {
                    text.push_str(&format!("\\x{byte:02X}"));
                }
            }
            Ok(text)
        }
    }
}

fn has_escape(text: &str) -> bool {
    text.match_indices("\\x").any(|(at, _)| {
        let digits = text.as_bytes().get(at + 2..at + 4);
        digits.is_some_and(|digits| {
            digits
                .first()
                .is_some_and(|first| b"89ABCDEF".contains(first))
                && digits
                    .iter()
                    .all(|d| d.is_ascii_digit() || b"ABCDEF".contains(d))
        })
    })
}

/// Returns a member's path below the root, as runtimes take it: a leading `/` or `./`
/// means the root, and `None` is the root itself. `..` is refused.
fn member_path(bytes: &[u8]) -> Result<Option<RelPath>, String> {
    let text = text(bytes)?;
    let parts: Vec<&str> = text
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.is_empty() {
        return Ok(None);
    }
    if parts.contains(&"..") {
        return Err("leads out of the image: it has a `..`".to_owned());
    }
    parts
        .join("/")
        .parse()
        .map(Some)
        .map_err(|error| match error {
            crate::hash::PathError::NotRelative { reason, .. } => {
                format!("has a name that kiln refuses: {reason}")
            }
            other => other.to_string(),
        })
}
