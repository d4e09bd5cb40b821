//! From a layer's tar to the bytes that are kept and sent, hashed on the way.
//!
//! One thread makes the tar, one hashes it, one writes it; where it is compressed, as many
//! as there are processors do that, each block by itself, in order at the end. Bytes depend
//! on the tar alone, on no number of threads and no size of a write:
//!
//! - gzip: each block of 1 MiB is a member of its own (RFC 1952, section 2.2), made by
//!   libdeflate at one level, without a time;
//! - zstd: each block of 2 MiB is a frame of its own (RFC 8878, section 3), with its length
//!   and without a checksum.
//!
//! Units of a block whose samples do not get shorter are stored, as members and frames of
//! their own: what is compressed already, as much in images is, would cost the most and gain
//! nothing.
//!
//! The encoder's name, version and settings are recorded with what it made: another
//! version may give other bytes, of the same tar.

mod blocks;
mod compress;
mod pool;

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel, sync_channel};

use sha2::{Digest as _, Sha256};

use crate::derivation::Compression;
use crate::hash::Sha256Digest;
use crate::hash::copy::Block;
use crate::store::CachedLayer;
pub use blocks::Blocks;
use compress::block_bytes;
pub use compress::encoder;
use pool::Pending;

/// Most blocks that wait for each thread.
const QUEUE: usize = 4;

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
            _ => compressed(compression, file, &written).map(Some),
        });
        let mut blocks = Blocks::new(block_bytes(compression), [to_hash, to_file]);
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

/// Compresses blocks on all processors and writes them in their order.
fn compressed(
    compression: Compression,
    file: &File,
    blocks: &Receiver<Arc<Block>>,
) -> io::Result<(Sha256Digest, u64)> {
    std::thread::scope(|scope| {
        // How many are under way is the pool's to say.
        let (in_order, pending) = channel::<Pending>();
        let writer = scope.spawn(move || {
            let mut to = Counter::new(file);
            for pending in pending {
                let (packed, leave) = pending.wait()?;
                to.write_all(&packed)?;
                drop((packed, leave));
            }
            Ok(to.finish())
        });
        let mut submitted = Ok(());
        for block in blocks {
            let sent = pool::submit(compression, block).map(|pending| in_order.send(pending));
            match sent {
                Ok(Ok(())) => {}
                // The writer has stopped, and says why.
                Ok(Err(_)) => break,
                Err(error) => {
                    submitted = Err(error);
                    break;
                }
            }
        }
        drop(in_order);
        let written = writer
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a thread ended early")))?;
        submitted.map(|()| written)
    })
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
    use std::io::{Read as _, Seek as _};

    use super::*;

    const BLOCK: usize = 1 << 20;

    /// Bytes that nothing makes shorter.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[4]
        })
        .take(length)
        .collect()
    }

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
        let bytes = [text(4 * BLOCK), noise(2 * BLOCK), text(1000)].concat();
        let digest = |compression| encoded(compression, &bytes, 8192).1.digest.to_string();
        insta::assert_snapshot!(digest(Compression::None), @"d16bbeb335cb5cbb5941a8c78478a562b3d44f022dae24df7876380a8c6e6e41");
        insta::assert_snapshot!(digest(Compression::Gzip), @"b16a0b8e8abfbbef3352a1b4511b9d5ac9169ce0b10cd0300fe3c1093d21ea42");
        insta::assert_snapshot!(digest(Compression::Zstd), @"9d1084bc0925832b40a3a8a59149e784f9b246bf07c27cfddd89227c24272488");
    }

    #[test]
    fn encoders_are_named_with_version_and_settings() {
        let names = Compression::NAMES.map(|(_, compression)| encoder(compression));
        let expected = [
            None,
            Some(
                "libdeflate 1.26, level 1, members of at most 1 MiB, units of 128 KiB stored whose samples stay as long"
                    .to_owned(),
            ),
            Some(
                "zstd 1.5.7, fast, hash table of 2^18, matches of 6, frames of at most 2 MiB, units of 128 KiB stored whose samples stay as long"
                    .to_owned(),
            ),
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
    fn what_does_not_shrink_is_stored_and_the_rest_is_not() {
        for (_, compression) in Compression::NAMES
            .into_iter()
            .filter(|(_, c)| *c != Compression::None)
        {
            let (mixed, _) = encoded(
                compression,
                &[text(2 * BLOCK), noise(2 * BLOCK)].concat(),
                BLOCK,
            );
            let (alone, _) = encoded(compression, &text(2 * BLOCK), BLOCK);
            assert!(
                alone.len() < 3 * BLOCK / 2,
                "{compression:?}: {}",
                alone.len()
            );
            let stored = mixed.len() - alone.len();
            assert!(
                (2 * BLOCK..2 * BLOCK + 4096).contains(&stored),
                "{compression:?}: {stored}"
            );
        }
    }

    #[test]
    fn of_a_block_some_units_are_stored() {
        const UNIT: usize = 128 << 10;
        for (compression, block) in [(Compression::Gzip, BLOCK), (Compression::Zstd, 2 * BLOCK)] {
            // Noise in the third and fourth unit, and in the last.
            let bytes = [
                text(2 * UNIT),
                noise(2 * UNIT),
                text(block - 5 * UNIT),
                noise(UNIT),
            ]
            .concat();
            let (mixed, _) = encoded(compression, &bytes, BLOCK);
            let (alone, _) = encoded(compression, &text(block - 3 * UNIT), BLOCK);
            let more = mixed.len() - alone.len();
            assert!(
                (3 * UNIT..3 * UNIT + UNIT / 8).contains(&more),
                "{compression:?}: {more}"
            );
            // They stand there as they are.
            let stored = &noise(UNIT)[..1000];
            let times = mixed
                .windows(1000)
                .filter(|window| *window == stored)
                .count();
            assert_eq!(times, 2, "{compression:?}");
        }
    }

    #[test]
    fn other_decoders_agree() {
        let lengths = [2 * BLOCK + 5, 3 * BLOCK + 7, 1, BLOCK / 8, BLOCK / 4];
        let bytes = lengths
            .map(|length| [text(length), noise(length)].concat())
            .concat();
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
