//! A directory as the Remote Execution API's `Directory` message, in its one canonical form.
//!
//! A tree is hashed bottom up: each directory is encoded as below, the BLAKE3 of those
//! bytes is its digest, and the digest and the encoded length stand in its parent. The
//! root's digest is the tree's digest. A server that speaks the Remote Execution API with
//! BLAKE3 can hold our trees as they are.
//!
//! | message | field | wire | content |
//! |---|---|---|---|
//! | `Directory` | 1 `files` | bytes, repeated | `FileNode`, by ascending name |
//! | | 2 `directories` | bytes, repeated | `DirectoryNode`, by ascending name |
//! | | 3 `symlinks` | bytes, repeated | `SymlinkNode`, by ascending name |
//! | `FileNode` | 1 `name` | bytes | UTF-8, one path component |
//! | | 2 `digest` | bytes | `Digest` of the file's bytes |
//! | | 4 `is_executable` | varint | 1, or the field is absent |
//! | `DirectoryNode` | 1 `name`, 2 `digest` | bytes | `Digest` of the encoded `Directory` |
//! | `SymlinkNode` | 1 `name`, 2 `target` | bytes | the target as it stands in the link |
//! | `Digest` | 1 `hash` | bytes | 64 lower-case hexadecimal characters |
//! | | 2 `size_bytes` | varint | absent when 0 |
//!
//! Fields appear in ascending order of number, lengths and varints in their shortest
//! form; names ascend by byte and are unique over all three lists; nothing else may
//! appear. Source: `build/bazel/remote/execution/v2/remote_execution.proto`, message
//! `Directory`, whose comment gives the canonical form.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;

use super::path::MAX_COMPONENT;
use super::{BlobDigest, TreeDigest};

/// Longest encoded directory that is decoded, in bytes: room for some 500,000 entries.
pub const MAX_ENCODED: usize = 64 << 20;

/// Longest symlink target, in bytes: one less than Linux' `PATH_MAX` with its NUL.
pub const MAX_TARGET: usize = 4095;

/// A file of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileNode {
    /// BLAKE3 of the content.
    pub digest: BlobDigest,
    /// Length of the content.
    pub size_bytes: u64,
    /// Whether the file may be executed.
    pub executable: bool,
}

/// A subdirectory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryNode {
    /// BLAKE3 of the subdirectory's canonical encoding.
    pub digest: TreeDigest,
    /// Length of that encoding.
    pub size_bytes: u64,
}

/// One level of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directory {
    /// Regular files by name.
    pub files: BTreeMap<String, FileNode>,
    /// Subdirectories by name.
    pub directories: BTreeMap<String, DirectoryNode>,
    /// Targets of symbolic links by name.
    pub symlinks: BTreeMap<String, String>,
}

/// A directory's canonical bytes and their digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// BLAKE3 of [`Encoded::bytes`].
    pub digest: TreeDigest,
    /// The canonical encoding.
    pub bytes: Vec<u8>,
}

impl Encoded {
    /// Returns how a parent names this directory.
    pub fn node(&self) -> DirectoryNode {
        DirectoryNode {
            digest: self.digest,
            size_bytes: self.bytes.len() as u64,
        }
    }
}

/// Bytes that are not a canonical directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// The bytes end within a field, or a length is impossible.
    #[error("a directory message is cut short at byte {0}")]
    Truncated(usize),
    /// The message is larger than [`MAX_ENCODED`].
    #[error("a directory message of {0} bytes is larger than 64 MiB")]
    TooLarge(usize),
    /// A field that the canonical form does not have.
    #[error("a directory message has an unknown field (tag {tag}) at byte {at}")]
    UnknownField {
        /// The tag as read.
        tag: u64,
        /// Offset of the tag.
        at: usize,
    },
    /// A name that cannot be a directory entry.
    #[error("a directory message names an entry `{0}`, which no directory can hold")]
    BadName(String),
    /// One name twice.
    #[error("a directory message names the entry `{0}` twice")]
    Duplicate(String),
    /// A digest that is not one.
    #[error("a directory message has a malformed digest")]
    BadDigest(#[from] super::DigestError),
    /// A string that is not UTF-8, or a link target that is empty, too long or has NUL.
    #[error("a directory message has a malformed text at byte {0}")]
    BadText(usize),
    /// Well formed, but not the one canonical encoding of what it says.
    #[error("a directory message is not in canonical form")]
    NotCanonical,
}

impl Directory {
    /// Returns the canonical encoding and its digest.
    pub fn encode(&self) -> Encoded {
        let mut out = Vec::new();
        let mut node = Vec::new();
        for (name, file) in &self.files {
            node.clear();
            put_bytes(&mut node, 1, name.as_bytes());
            put_digest(&mut node, file.digest.as_bytes(), file.size_bytes);
            if file.executable {
                put_varint(&mut node, 4 << 3);
                put_varint(&mut node, 1);
            }
            put_bytes(&mut out, 1, &node);
        }
        for (name, directory) in &self.directories {
            node.clear();
            put_bytes(&mut node, 1, name.as_bytes());
            put_digest(&mut node, directory.digest.as_bytes(), directory.size_bytes);
            put_bytes(&mut out, 2, &node);
        }
        for (name, target) in &self.symlinks {
            node.clear();
            put_bytes(&mut node, 1, name.as_bytes());
            put_bytes(&mut node, 2, target.as_bytes());
            put_bytes(&mut out, 3, &node);
        }
        Encoded {
            digest: TreeDigest::from_bytes(*blake3::hash(&out).as_bytes()),
            bytes: out,
        }
    }

    /// Decodes a canonical encoding; whatever is accepted encodes to the same bytes again.
    ///
    /// # Errors
    /// [`DirectoryError`] for anything that [`Directory::encode`] would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, DirectoryError> {
        if bytes.len() > MAX_ENCODED {
            return Err(DirectoryError::TooLarge(bytes.len()));
        }
        let mut directory = Self::default();
        let mut reader = Reader { bytes, at: 0 };
        while let Some(field) = reader.field()? {
            match field {
                (1, Value::Bytes(node)) => directory.put_file(node)?,
                (2, Value::Bytes(node)) => directory.put_directory(node)?,
                (3, Value::Bytes(node)) => directory.put_symlink(node)?,
                (number, _) => return Err(reader.unknown(number)),
            }
        }
        if directory.encode().bytes != bytes {
            return Err(DirectoryError::NotCanonical);
        }
        Ok(directory)
    }

    fn claim(&self, name: &[u8]) -> Result<String, DirectoryError> {
        let name = checked_name(name)?;
        if self.files.contains_key(&name)
            || self.directories.contains_key(&name)
            || self.symlinks.contains_key(&name)
        {
            return Err(DirectoryError::Duplicate(name));
        }
        Ok(name)
    }

    fn put_file(&mut self, bytes: &[u8]) -> Result<(), DirectoryError> {
        let mut reader = Reader { bytes, at: 0 };
        let (mut name, mut digest, mut executable) = (&b""[..], &b""[..], false);
        while let Some(field) = reader.field()? {
            match field {
                (1, Value::Bytes(value)) => name = value,
                (2, Value::Bytes(value)) => digest = value,
                (4, Value::Varint(1)) => executable = true,
                (number, _) => return Err(reader.unknown(number)),
            }
        }
        let (hash, size_bytes) = read_digest(digest)?;
        let node = FileNode {
            digest: hash.parse()?,
            size_bytes,
            executable,
        };
        let name = self.claim(name)?;
        self.files.insert(name, node);
        Ok(())
    }

    fn put_directory(&mut self, bytes: &[u8]) -> Result<(), DirectoryError> {
        let (name, digest) = two_fields(bytes)?;
        let (hash, size_bytes) = read_digest(digest)?;
        let node = DirectoryNode {
            digest: hash.parse()?,
            size_bytes,
        };
        let name = self.claim(name)?;
        self.directories.insert(name, node);
        Ok(())
    }

    fn put_symlink(&mut self, bytes: &[u8]) -> Result<(), DirectoryError> {
        let (name, target) = two_fields(bytes)?;
        let target = std::str::from_utf8(target)
            .ok()
            .filter(|text| !text.is_empty() && text.len() <= MAX_TARGET && !text.contains('\0'))
            .ok_or(DirectoryError::BadText(0))?
            .to_owned();
        let name = self.claim(name)?;
        self.symlinks.insert(name, target);
        Ok(())
    }
}

fn checked_name(bytes: &[u8]) -> Result<String, DirectoryError> {
    let shown = || {
        String::from_utf8_lossy(bytes)
            .chars()
            .take(80)
            .collect::<String>()
    };
    match std::str::from_utf8(bytes) {
        Ok(name)
            if !name.is_empty()
                && name.len() <= MAX_COMPONENT
                && name != "."
                && name != ".."
                && !name.contains(['/', '\0']) =>
        {
            Ok(name.to_owned())
        }
        _ => Err(DirectoryError::BadName(shown())),
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).expect("seven bits fit a byte") | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).expect("below 0x80"));
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_digest(out: &mut Vec<u8>, hash: &[u8; 32], size_bytes: u64) {
    let mut hex = [0; 64];
    HEXLOWER.encode_mut(hash, &mut hex);
    let mut size = Vec::with_capacity(11);
    if size_bytes != 0 {
        put_varint(&mut size, 2 << 3);
        put_varint(&mut size, size_bytes);
    }
    // The hash takes 64 bytes after its tag and its length.
    put_varint(out, 2 << 3 | 2);
    put_varint(out, 66 + size.len() as u64);
    put_bytes(out, 1, &hex);
    out.extend_from_slice(&size);
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, DirectoryError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self
                .bytes
                .get(self.at)
                .ok_or(DirectoryError::Truncated(self.at))?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DirectoryError::NotCanonical)
    }

    fn field(&mut self) -> Result<Option<(u64, Value<'a>)>, DirectoryError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        match tag & 7 {
            0 => Ok(Some((tag >> 3, Value::Varint(self.varint()?)))),
            2 => {
                let length = self.varint()?;
                let end = usize::try_from(length)
                    .ok()
                    .and_then(|length| self.at.checked_add(length))
                    .ok_or(DirectoryError::Truncated(self.at))?;
                let value = self
                    .bytes
                    .get(self.at..end)
                    .ok_or(DirectoryError::Truncated(self.at))?;
                self.at = end;
                Ok(Some((tag >> 3, Value::Bytes(value))))
            }
            _ => Err(DirectoryError::UnknownField { tag, at: self.at }),
        }
    }

    fn unknown(&self, number: u64) -> DirectoryError {
        DirectoryError::UnknownField {
            tag: number << 3,
            at: self.at,
        }
    }
}

fn two_fields(bytes: &[u8]) -> Result<(&[u8], &[u8]), DirectoryError> {
    let mut reader = Reader { bytes, at: 0 };
    let (mut first, mut second) = (&b""[..], &b""[..]);
    while let Some(field) = reader.field()? {
        match field {
            (1, Value::Bytes(value)) => first = value,
            (2, Value::Bytes(value)) => second = value,
            (number, _) => return Err(reader.unknown(number)),
        }
    }
    Ok((first, second))
}

fn read_digest(bytes: &[u8]) -> Result<(&str, u64), DirectoryError> {
    let mut reader = Reader { bytes, at: 0 };
    let (mut hash, mut size_bytes) = ("", 0);
    while let Some(field) = reader.field()? {
        match field {
            (1, Value::Bytes(value)) => {
                hash =
                    std::str::from_utf8(value).map_err(|_| DirectoryError::BadText(reader.at))?;
            }
            (2, Value::Varint(value)) => size_bytes = value,
            (number, _) => return Err(reader.unknown(number)),
        }
    }
    Ok((hash, size_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Directory {
        let mut directory = Directory::default();
        let file = FileNode {
            digest: BlobDigest::of(b"hi\n"),
            size_bytes: 3,
            executable: true,
        };
        directory.files.insert("run".to_owned(), file);
        directory.symlinks.insert("go".to_owned(), "run".to_owned());
        directory
            .directories
            .insert("empty".to_owned(), Directory::default().encode().node());
        directory
    }

    #[test]
    fn round_trip() {
        let encoded = sample().encode();
        assert_eq!(Directory::decode(&encoded.bytes), Ok(sample()));
    }

    #[test]
    fn refuses_what_it_would_not_write() {
        let good = sample().encode().bytes;
        for cut in 1..good.len() {
            // A prefix that ends between two nodes is a smaller directory, not an error.
            if let Ok(smaller) = Directory::decode(&good[..cut]) {
                assert_eq!(smaller.encode().bytes, &good[..cut]);
            }
        }
        let mut twice = good.clone();
        twice.extend_from_slice(&good);
        assert!(matches!(
            Directory::decode(&twice),
            Err(DirectoryError::Duplicate(_))
        ));

        let mut evil = Directory::default();
        evil.symlinks.insert("..".to_owned(), "x".to_owned());
        assert!(matches!(
            Directory::decode(&evil.encode().bytes),
            Err(DirectoryError::BadName(_))
        ));
        // A length in two bytes where one would do.
        assert!(Directory::decode(&[0x1a, 0x86, 0x00, 0x0a, 1, b'a', 0x12, 1, b'b']).is_err());
    }
}
