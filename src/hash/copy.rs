//! Copying bytes and hashing them on the way.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::ops::Deref;

use sha2::{Digest as _, Sha256};

use super::Sha256Digest;

/// Where a buffer has to start, in bytes, that the kernel reads files into: copying into
/// one that starts elsewhere took 2.4 times as long on an AMD EPYC (1 GiB in files of page
/// cache, `read` of 8 KiB to 1 MiB: 0.4 s at a multiple of 32, 0.95 s beside one).
pub const ALIGNMENT: usize = 64;

/// Length of the blocks that are copied, in bytes.
const BLOCK: usize = 1 << 17;

/// Returns what follows the first aligned byte of a buffer, which is up to [`ALIGNMENT`]
/// bytes shorter than the buffer.
pub fn aligned(buffer: &mut [u8]) -> &mut [u8] {
    let skipped = buffer.as_ptr().align_offset(ALIGNMENT);
    buffer.get_mut(skipped..).unwrap_or_default()
}

/// A buffer of a fixed length that starts where the kernel copies fast, filled from its
/// start.
#[derive(Debug)]
pub struct Block {
    buffer: Vec<u8>,
    length: usize,
    filled: usize,
}

impl Block {
    /// Makes an empty one of a length, in bytes.
    pub fn new(length: usize) -> Self {
        Self {
            buffer: vec![0; length + ALIGNMENT],
            length,
            filled: 0,
        }
    }

    /// Returns its length, in bytes.
    pub fn capacity(&self) -> usize {
        self.length
    }

    /// Returns the part that is free.
    pub fn free(&mut self) -> &mut [u8] {
        let block = aligned(&mut self.buffer).get_mut(..self.length);
        block
            .unwrap_or_default()
            .get_mut(self.filled..)
            .unwrap_or_default()
    }

    /// Notes that so many bytes of the free part were filled.
    pub fn fill(&mut self, count: usize) {
        self.filled += count;
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Returns whether nothing more goes into it.
    pub fn is_full(&self) -> bool {
        self.filled >= self.length
    }
}

/// What was filled.
impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.buffer.as_ptr().align_offset(ALIGNMENT);
        let filled = self.buffer.get(start..start + self.filled);
        filled.unwrap_or_default()
    }
}

/// Why a copy ended early.
#[derive(Debug)]
pub enum CopyError {
    /// Reading failed, after so many bytes.
    Read(io::Error, u64),
    /// Writing failed.
    Write(io::Error),
}

impl From<CopyError> for io::Error {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Read(error, _) | CopyError::Write(error) => error,
        }
    }
}

/// Copies everything, and returns its SHA-256 and its length in bytes. `progress` is told
/// how many bytes were copied so far.
///
/// # Errors
/// [`CopyError`].
pub fn copy_hashing(
    from: &mut impl Read,
    to: &mut impl Write,
    mut progress: impl FnMut(u64),
) -> Result<(Sha256Digest, u64), CopyError> {
    let mut hasher = Sha256::new();
    let copied = Cell::new(0_u64);
    let unread = |error| CopyError::Read(error, copied.get());
    each_block(from, unread, |bytes| {
        hasher.update(bytes);
        to.write_all(bytes).map_err(CopyError::Write)?;
        copied.set(copied.get() + bytes.len() as u64);
        progress(copied.get());
        Ok(())
    })?;
    let digest = Sha256Digest::from_bytes(hasher.finalize().into());
    Ok((digest, copied.get()))
}

/// Reads everything, and gives it to `each` block by block, from where the kernel copies
/// to fast.
///
/// # Errors
/// What `unread` makes of an error of reading; what `each` fails with.
pub fn each_block<E>(
    from: &mut impl Read,
    unread: impl Fn(io::Error) -> E,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0; BLOCK + ALIGNMENT];
    let block = aligned(&mut buffer);
    loop {
        match from.read(block) {
            Ok(0) => return Ok(()),
            Ok(count) => each(block.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unread(error)),
        }
    }
}
