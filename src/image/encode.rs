//! From a layer's tar to the bytes that are kept and sent, hashed on the way.
//!
//! One thread makes the tar, one hashes it, one writes or compresses it; blocks of
//! [`BLOCK`] bytes pass between them. Bytes depend on the tar alone, on no number of
//! threads and no size of a write:
//!
//! - gzip: each block is a member of its own (RFC 1952, section 2.2), made by libdeflate
//!   at one level, without a time;
//! - zstd: one frame, by the library's own threads, which cut the input into jobs of a
//!   fixed size however many they are; without a checksum and without a declared length.
//!
//! The encoder's name, version and settings are recorded with what it made: another
//! version may give other bytes, of the same tar.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZero;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use libdeflater::{CompressionLvl, Compressor};
use sha2::{Digest as _, Sha256};

use super::layer::Sink;
use crate::derivation::Compression;
use crate::hash::Sha256Digest;
use crate::hash::copy::{ALIGNMENT, aligned};
use crate::store::CachedLayer;

/// Length of a block, in bytes.
pub const BLOCK: usize = 1 << 20;

/// Most blocks that wait for each thread.
const QUEUE: usize = 8;

/// At level 1 twice as fast as at 6, and 2 % larger (a tar of 1 GiB).
const GZIP_LEVEL: i32 = 1;

/// What `zstd` itself takes.
const ZSTD_LEVEL: i32 = 3;

/// Returns which encoder, of which version, with which settings a compression means;
/// `None` for none.
pub fn encoder(compression: Compression) -> Option<String> {
    match compression {
        Compression::None => None,
        Compression::Gzip => Some(format!(
            "libdeflate {LIBDEFLATE}, level {GZIP_LEVEL}, members of 1 MiB"
        )),
        Compression::Zstd => Some(format!(
            "zstd {}, level {ZSTD_LEVEL}",
            zstd::zstd_safe::version_string()
        )),
    }
}

/// The version of the C library in the one version of the crate that `Cargo.toml` takes.
const LIBDEFLATE: &str = "1.26";

/// Writes what `produce` writes into a file, encoded, and returns what came out.
///
/// # Errors
/// What `produce`, the encoder or the file fail with.
pub fn encode(
    compression: Compression,
    file: &File,
    produce: impl FnOnce(&mut Blocks) -> io::Result<()>,
) -> io::Result<CachedLayer> {
    std::thread::scope(|scope| {
        let (to_hash, hashed) = sync_channel(QUEUE);
        let (to_file, written) = sync_channel(QUEUE);
        let hasher = scope.spawn(move || hash(&hashed));
        let writer = scope.spawn(move || match compression {
            Compression::None => plain(file, &written).map(|()| None),
            Compression::Gzip => gzip(Counter::new(file), &written).map(Some),
            Compression::Zstd => zstd(Counter::new(file), &written).map(Some),
        });
        let mut blocks = Blocks {
            block: Block::new(),
            sent: VecDeque::new(),
            to: [to_hash, to_file],
        };
        let produced = produce(&mut blocks).and_then(|()| blocks.send());
        drop(blocks);
        let ended = || io::Error::other("a thread ended early");
        let written = writer.join().map_err(|_| ended())?;
        let (diff_id, length) = hasher.join().map_err(|_| ended())?;
        // What went wrong with the file explains why no more could be produced.
        let encoded = written?;
        produced?;
        let (digest, size_bytes) = encoded.unwrap_or((diff_id, length));
        Ok(CachedLayer {
            diff_id,
            digest,
            size_bytes,
        })
    })
}

/// Up to [`BLOCK`] bytes of a tar, where the kernel copies them to fast.
#[derive(Debug)]
struct Block {
    buffer: Vec<u8>,
    filled: usize,
}

impl Block {
    fn new() -> Self {
        Self {
            buffer: vec![0; BLOCK + ALIGNMENT],
            filled: 0,
        }
    }

    /// Returns the part that is free.
    fn free(&mut self) -> &mut [u8] {
        let block = aligned(&mut self.buffer).get_mut(..BLOCK);
        block
            .unwrap_or_default()
            .get_mut(self.filled..)
            .unwrap_or_default()
    }
}

impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.buffer.as_ptr().align_offset(ALIGNMENT);
        let filled = self.buffer.get(start..start + self.filled);
        filled.unwrap_or_default()
    }
}

/// Cuts what is written into blocks.
#[derive(Debug)]
pub struct Blocks {
    block: Block,
    /// Blocks that were sent, to be used again when both threads are done with them.
    sent: VecDeque<Arc<Block>>,
    to: [SyncSender<Arc<Block>>; 2],
}

impl Blocks {
    fn send(&mut self) -> io::Result<()> {
        if self.block.filled == 0 {
            return Ok(());
        }
        let fresh = self.fresh();
        let block = Arc::new(std::mem::replace(&mut self.block, fresh));
        self.sent.push_back(Arc::clone(&block));
        for to in &self.to {
            to.send(Arc::clone(&block))
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(())
    }

    fn fresh(&mut self) -> Block {
        match self.sent.pop_front().map(Arc::try_unwrap) {
            None => Block::new(),
            Some(Ok(mut block)) => {
                block.filled = 0;
                block
            }
            Some(Err(in_use)) => {
                self.sent.push_front(in_use);
                Block::new()
            }
        }
    }

    /// Notes that so many bytes of the free part were filled.
    fn fill(&mut self, count: usize) -> io::Result<()> {
        self.block.filled += count;
        if self.block.filled == BLOCK {
            self.send()?;
        }
        Ok(())
    }
}

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // As much as there is room for.
        let mut from = bytes;
        let count = from.read(self.block.free())?;
        self.fill(count)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Blocks {
    /// Reads straight into the blocks.
    fn write_from(&mut self, from: &mut impl Read) -> io::Result<u64> {
        let mut written = 0;
        loop {
            match from.read(self.block.free()) {
                Ok(0) => return Ok(written),
                Ok(count) => {
                    self.fill(count)?;
                    written += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn hash(blocks: &Receiver<Arc<Block>>) -> (Sha256Digest, u64) {
    let mut hasher = Sha256::new();
    let mut length = 0;
    for block in blocks {
        hasher.update(&**block);
        length += block.len() as u64;
    }
    (Sha256Digest::from_bytes(hasher.finalize().into()), length)
}

fn plain(mut file: &File, blocks: &Receiver<Arc<Block>>) -> io::Result<()> {
    for block in blocks {
        file.write_all(&block)?;
    }
    Ok(())
}

fn gzip(mut to: Counter<'_>, blocks: &Receiver<Arc<Block>>) -> io::Result<(Sha256Digest, u64)> {
    let level = CompressionLvl::new(GZIP_LEVEL)
        .map_err(|_| io::Error::other("libdeflate has no such level"))?;
    let at_once = threads();
    while let Ok(first) = blocks.recv() {
        let mut batch = vec![first];
        batch.extend(blocks.try_iter().take(at_once - 1));
        // Threads of its own: those of the pool may all wait for a layer each.
        let members = std::thread::scope(|scope| {
            let running: Vec<_> = batch
                .iter()
                .map(|block| scope.spawn(move || member(level, block)))
                .collect();
            running
                .into_iter()
                .map(|thread| {
                    let ended = |_| Err(io::Error::other("a thread ended early"));
                    thread.join().unwrap_or_else(ended)
                })
                .collect::<io::Result<Vec<_>>>()
        })?;
        for member in members {
            to.write_all(&member)?;
        }
    }
    Ok(to.finish())
}

fn member(level: CompressionLvl, block: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressor = Compressor::new(level);
    let mut member = vec![0; compressor.gzip_compress_bound(block.len())];
    let length = compressor
        .gzip_compress(block, &mut member)
        .map_err(|_| io::Error::other("libdeflate refused a block"))?;
    member.truncate(length);
    Ok(member)
}

/// Returns how many threads compress one layer: at least one.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn zstd(to: Counter<'_>, blocks: &Receiver<Arc<Block>>) -> io::Result<(Sha256Digest, u64)> {
    let mut encoder = zstd::Encoder::new(to, ZSTD_LEVEL)?;
    encoder.include_checksum(false)?;
    encoder.include_contentsize(false)?;
    // At least one: without, the library goes another way, to other bytes.
    encoder.multithread(u32::try_from(threads()).unwrap_or(1))?;
    for block in blocks {
        encoder.write_all(&block)?;
    }
    Ok(encoder.finish()?.finish())
}

/// Hashes and counts what goes into a file.
struct Counter<'a> {
    to: &'a File,
    hasher: Sha256,
    length: u64,
}

impl<'a> Counter<'a> {
    fn new(to: &'a File) -> Self {
        Self {
            to,
            hasher: Sha256::new(),
            length: 0,
        }
    }

    fn finish(self) -> (Sha256Digest, u64) {
        (
            Sha256Digest::from_bytes(self.hasher.finalize().into()),
            self.length,
        )
    }
}

impl Write for Counter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or(bytes));
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use super::*;

    /// Text that compresses, of a given length, the same each time.
    fn text(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b"etaoin shrdlu\n\0\x7fELF"[(state >> 24) as usize % 19]
        })
        .take(length)
        .collect()
    }

    fn encoded(compression: Compression, bytes: &[u8], pieces: usize) -> (Vec<u8>, CachedLayer) {
        let mut file = tempfile::tempfile().unwrap();
        let layer = encode(compression, &file, |blocks| {
            bytes
                .chunks(pieces)
                .try_for_each(|piece| blocks.write_all(piece))
        })
        .unwrap();
        let mut found = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut found).unwrap();
        assert_eq!(layer.diff_id, Sha256Digest::of(bytes));
        assert_eq!(layer.digest, Sha256Digest::of(&found));
        assert_eq!(layer.size_bytes, found.len() as u64);
        (found, layer)
    }

    #[test]
    fn golden_bytes() {
        let bytes = text(3 * BLOCK + 1000);
        let digest = |compression| encoded(compression, &bytes, 8192).1.digest.to_string();
        insta::assert_snapshot!(digest(Compression::None), @"59cdd75e68eb6c561442fadb903c93ad0b3fb8923d1c8a1773071d086382b822");
        insta::assert_snapshot!(digest(Compression::Gzip), @"889e4d2749fd374b41b303caac6def526a54bef233cd41c6321d85a2c394b65e");
        insta::assert_snapshot!(digest(Compression::Zstd), @"a2f4e8daca0b269a140aab416ffb1ce16edc1ff5698fd640a3a7d4a27ba5dfd4");
    }

    #[test]
    fn encoders_are_named_with_version_and_settings() {
        let names = Compression::NAMES.map(|(_, compression)| encoder(compression));
        let expected = [
            None,
            Some("libdeflate 1.26, level 1, members of 1 MiB".to_owned()),
            Some("zstd 1.5.7, level 3".to_owned()),
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn the_size_of_writes_reaches_no_byte() {
        let bytes = text(9 * BLOCK + 7);
        for (_, compression) in Compression::NAMES {
            let (one, _) = encoded(compression, &bytes, 1000);
            let (other, _) = encoded(compression, &bytes, 3 * BLOCK);
            assert!(one == other, "{compression:?}");
        }
    }

    #[test]
    fn other_decoders_agree() {
        let bytes = text(2 * BLOCK + 5);
        let (gzipped, _) = encoded(Compression::Gzip, &bytes, BLOCK);
        let mut found = Vec::new();
        let mut decoder = flate2::read::MultiGzDecoder::new(gzipped.as_slice());
        decoder.read_to_end(&mut found).unwrap();
        assert!(found == bytes);
        let (zstd, _) = encoded(Compression::Zstd, &bytes, BLOCK);
        assert!(zstd::decode_all(zstd.as_slice()).unwrap() == bytes);
    }

    #[test]
    fn as_many_layers_at_once_as_there_are_threads_do_not_wait_for_one_another() {
        use rayon::prelude::*;
        let bytes = text(2 * BLOCK);
        for (_, compression) in Compression::NAMES {
            let digests: Vec<Sha256Digest> = (0..4 * rayon::current_num_threads())
                .into_par_iter()
                .map(|_| encoded(compression, &bytes, BLOCK).1.digest)
                .collect();
            assert!(digests.windows(2).all(|pair| pair[0] == pair[1]));
        }
    }

    #[test]
    fn what_cannot_be_produced_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        for (_, compression) in Compression::NAMES {
            let result = encode(compression, &file, |blocks| {
                blocks.write_all(&text(2 * BLOCK))?;
                Err(io::Error::other("gone"))
            });
            assert_eq!(result.unwrap_err().to_string(), "gone");
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_the_error() {
        let file = File::open("/dev/null").unwrap();
        for (_, compression) in Compression::NAMES {
            let result = encode(compression, &file, |blocks| {
                (0..64).try_for_each(|_| blocks.write_all(&text(BLOCK)))
            });
            assert_eq!(
                result.unwrap_err().raw_os_error(),
                Some(9),
                "{compression:?}"
            );
        }
    }
}
