//! Objects with all they need as one stream of bytes, and back.
//!
//! ```text
//! "kiln-export-v1\n"
//! for each object, each after all that it names, and otherwise sorted by path:
//!   1                                     one byte
//!   length, base name                     u16 and text
//!   count, then length and base name each u32 and u16 and text: what it names, sorted
//!   digest                                32 bytes: its tree
//!   length, directories                   u64 and the messages, each after its u32 length
//!   bytes of each file of the tree in the order of a sorted walk, except of content that
//!   came before in the stream
//! 0, then BLAKE3 of all that came before  one byte and 32 bytes
//! ```
//!
//! Numbers stand least significant byte first. A reader believes nothing: content is
//! hashed on arrival, names are made anew from what arrived, references are looked for
//! again, to what is said and to all that came before. Nothing enters the store before
//! the stream's end.

mod export;
mod import;

use std::io::{self, Read, Write};

use super::StoreError;
use crate::hash::StorePath;

const MAGIC: &[u8] = b"kiln-export-v1\n";

/// Longest base name: a digest, `-` and a name.
const MAX_NAME: usize = 256;
/// Most objects that one object names, and most objects of a stream.
const MAX_OBJECTS: usize = 1 << 20;
/// Longest directory messages of one object, in bytes.
const MAX_MESSAGES: u64 = 128 << 20;
/// Most entries of one object: far above any real package.
const MAX_ENTRIES: usize = 1 << 19;

/// A stream that is not what [`Store::export`] writes.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It cannot be read or written.
    #[error("the stream broke off after {at} bytes")]
    Broken {
        /// Bytes before the failure.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("the stream is wrong at byte {at}: {problem}")]
    Wrong {
        /// Bytes before the place.
        at: u64,
        /// What is wrong.
        problem: String,
    },
}

/// Counts and hashes what passes.
struct Counted<T> {
    inner: T,
    hasher: blake3::Hasher,
    at: u64,
}

impl<T> Counted<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hasher: blake3::Hasher::new(),
            at: 0,
        }
    }

    fn broken(&self, source: io::Error) -> StoreError {
        let source = match source.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(source.kind(), "it ends too early"),
            _ => source,
        };
        StreamError::Broken {
            at: self.at,
            source,
        }
        .into()
    }

    fn wrong(&self, problem: impl Into<String>) -> StoreError {
        StreamError::Wrong {
            at: self.at,
            problem: problem.into(),
        }
        .into()
    }
}

impl<T: Write> Counted<T> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner
            .write_all(bytes)
            .map_err(|source| self.broken(source))?;
        self.hasher.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn put_name(&mut self, path: &StorePath) -> Result<(), StoreError> {
        let name = path.base_name();
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.put(&length.to_le_bytes())?;
        self.put(name.as_bytes())
    }
}

impl<T: Read> Read for Counted<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.at += count as u64;
        Ok(count)
    }
}

impl<T: Read> Counted<T> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)
            .map_err(|source| self.broken(source))?;
        Ok(bytes)
    }

    /// Reads so many bytes, without believing that so many come.
    fn take_bytes(&mut self, length: u64) -> Result<Vec<u8>, StoreError> {
        let bytes = self.take_bytes_at_most(length)?;
        if bytes.len() as u64 == length {
            return Ok(bytes);
        }
        Err(self.broken(io::ErrorKind::UnexpectedEof.into()))
    }

    fn take_bytes_at_most(&mut self, length: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        Read::take(&mut *self, length)
            .read_to_end(&mut bytes)
            .map_err(|source| self.broken(source))?;
        Ok(bytes)
    }

    fn take_name(&mut self) -> Result<StorePath, StoreError> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        if length > MAX_NAME {
            return Err(self.wrong(format!("a name of {length} bytes")));
        }
        let bytes = self.take_bytes(length as u64)?;
        let text = String::from_utf8_lossy(&bytes);
        StorePath::from_base_name(&text)
            .map_err(|error| self.wrong(format!("`{text}` is no object's name ({error})")))
    }
}
