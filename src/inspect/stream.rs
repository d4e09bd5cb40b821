//! A blob as a tar: hashed as it is stored, decompressed, bounded, and hashed again.
//!
//! One thread reads, hashes the stored bytes and decompresses; another hashes the tar, if it
//! is another than those bytes, and reads its members. Between them are a few blocks, so that neither runs ahead.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use sha2::{Digest as _, Sha256};

use super::document::Descriptor;
use super::limits::{MAX_LAYER, MAX_RATIO, RATIO_FROM, ZSTD_WINDOW_LOG};
use super::{InspectError, Progress, source};
use crate::hash::Sha256Digest;
use crate::hash::copy::Block;
use crate::tree::scan::read_block;

/// Bytes that go from one thread to the other at once.
const BLOCK: usize = 256 << 10;

/// Bytes that tell how a stream is compressed.
const MAGIC: usize = 4;

/// Blocks that wait between the threads.
const WAITING: usize = 4;

/// Whether bytes start a gzip stream.
fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(&[0x1f, 0x8b])
}

/// Whether bytes start a zstd stream: a frame, or one that is to be passed over.
fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || start.get(1..4) == Some(&[0x2a, 0x4d, 0x18])
}

/// Returns whether a stream that starts so is not compressed.
pub(super) fn is_plain(start: &[u8]) -> bool {
    !is_gzip(start) && !is_zstd(start)
}

/// Returns the decompressed stream; one in no known format is passed on.
pub(super) fn decompressed<'a>(
    mut source: impl BufRead + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let start = source.fill_buf()?;
    Ok(if is_gzip(start) {
        Box::new(flate2::bufread::MultiGzDecoder::new(source))
    } else if is_zstd(start) {
        let mut decoder = zstd::Decoder::with_buffer(source)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        Box::new(decoder)
    } else {
        Box::new(source)
    })
}

/// Compares what was read of a blob with what its descriptor says.
///
/// # Errors
/// [`InspectError::Damaged`].
pub fn check(
    name: &str,
    blob: &Descriptor,
    size_bytes: u64,
    digest: Sha256Digest,
) -> Result<(), InspectError> {
    let damaged = |problem: String| InspectError::Damaged {
        blob: name.to_owned(),
        problem,
    };
    if size_bytes != blob.size_bytes {
        let more = if size_bytes > blob.size_bytes {
            "more"
        } else {
            "fewer"
        };
        let said = blob.size_bytes;
        return Err(damaged(format!("it has {more} bytes than the {said} said")));
    }
    match blob.digest {
        Some(expected) if expected != digest => {
            Err(damaged(format!("it hashes to `sha256:{digest}`")))
        }
        _ => Ok(()),
    }
}

/// Reads a blob's tar with a function, then to its end, and checks size, digest and
/// diffID. Returns what the function gave, and the length of the tar.
///
/// # Errors
/// The function's own, unless the blob is damaged, which explains it; [`InspectError`].
pub(super) fn read<T>(
    blob: &Descriptor,
    diff_id: Sha256Digest,
    bytes: &mut (dyn Read + Send),
    progress: &dyn Progress,
    parse: impl FnOnce(&mut dyn Read) -> Result<T, InspectError>,
) -> Result<(T, u64), InspectError> {
    let name = source::name(blob);
    let mut start = [0; MAGIC];
    let start =
        read_block(&mut &mut *bytes, &mut start).map_err(|source| InspectError::Access {
            name: name.clone(),
            source,
        })?;
    // What is not compressed is its own tar, and hashed once.
    let plain = is_plain(start);
    let mut bytes = start.chain(bytes);
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(WAITING);
        let send = move |block| sender.send(block).is_ok();
        let stored = scope.spawn(move || store(blob, &mut bytes, progress, &send));
        let mut tar = TarStream {
            receiver: Some(receiver),
            block: Block::new(0),
            at: 0,
            hasher: (!plain).then(Sha256::new),
            length: 0,
        };
        let parsed = parse(&mut tar);
        let drained = match &parsed {
            Ok(_) => io::copy(&mut tar, &mut io::sink()).err(),
            Err(_) => None,
        };
        tar.receiver = None;
        let stored = stored.join().map_err(|_| InspectError::Damaged {
            blob: name.clone(),
            problem: "its decoder failed".to_owned(),
        })?;
        let broken = |error: io::Error| match limit(&error) {
            Some(what) => InspectError::TooLarge {
                what: name.clone(),
                limit: what,
            },
            None => InspectError::Damaged {
                blob: name.clone(),
                problem: error.to_string(),
            },
        };
        // Where the stream itself broke, what its reader says of it is of no use.
        if let Some(error) = stored.error {
            return Err(broken(error));
        }
        // And what is not what was named explains whatever its reader says.
        check(&name, blob, stored.length, stored.digest)?;
        let parsed = parsed?;
        if let Some(error) = drained {
            return Err(broken(error));
        }
        let found = match tar.hasher {
            Some(hasher) => Sha256Digest::from_bytes(hasher.finalize().into()),
            None => stored.digest,
        };
        if found != diff_id {
            return Err(InspectError::Damaged {
                blob: name,
                problem: format!(
                    "its tar hashes to `sha256:{found}`, and the configuration says `sha256:{diff_id}`"
                ),
            });
        }
        Ok((parsed, tar.length))
    })
}

/// What the reading thread found.
struct Stored {
    length: u64,
    digest: Sha256Digest,
    error: Option<io::Error>,
}

/// Reads and decompresses a blob, and sends its tar.
fn store(
    blob: &Descriptor,
    bytes: &mut (dyn Read + Send),
    progress: &dyn Progress,
    send: &dyn Fn(Block) -> bool,
) -> Stored {
    let counted = AtomicU64::new(0);
    let mut hasher = Sha256::new();
    let hashing = Hashing {
        // One byte more than it should have tells that it has more.
        inner: bytes.take(blob.size_bytes.saturating_add(1)),
        hasher: &mut hasher,
        counted: &counted,
        progress,
    };
    let mut stream = BufReader::with_capacity(BLOCK, hashing);
    let error = pump(&mut stream, &counted, send).err();
    // What a decoder leaves behind its last byte counts too.
    let rest = match &error {
        None => io::copy(&mut stream, &mut io::sink()).err(),
        Some(_) => None,
    };
    drop(stream);
    Stored {
        length: counted.load(Ordering::Relaxed),
        digest: Sha256Digest::from_bytes(hasher.finalize().into()),
        error: error.or(rest),
    }
}

/// Moves the decompressed stream on, block by block, within the limits.
fn pump(
    stream: &mut BufReader<Hashing<'_, impl Read + Send>>,
    counted: &AtomicU64,
    send: &dyn Fn(Block) -> bool,
) -> io::Result<()> {
    let mut decoder = decompressed(stream)?;
    let mut total = 0_u64;
    loop {
        let mut block = Block::new(BLOCK);
        let filled = read_block(&mut decoder, block.free())?.len();
        total += filled as u64;
        if total > MAX_LAYER {
            return Err(Limit(format!("a layer has {MAX_LAYER} bytes at most")).into());
        }
        if total > RATIO_FROM && total / MAX_RATIO > counted.load(Ordering::Relaxed) {
            let limit = format!("it decompresses to more than {MAX_RATIO} times its size");
            return Err(Limit(limit).into());
        }
        block.fill(filled);
        if filled == 0 || !send(block) {
            return Ok(());
        }
    }
}

/// A limit that a stream breaks.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Limit(String);

impl From<Limit> for io::Error {
    fn from(limit: Limit) -> Self {
        Self::other(limit)
    }
}

fn limit(error: &io::Error) -> Option<String> {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Limit>())
        .map(|limit| limit.0.clone())
}

/// Hashes and counts what is read.
struct Hashing<'a, R> {
    inner: R,
    hasher: &'a mut Sha256,
    counted: &'a AtomicU64,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.hasher.update(into.get(..count).unwrap_or_default());
        self.counted.fetch_add(count as u64, Ordering::Relaxed);
        self.progress.read(count as u64);
        Ok(count)
    }
}

/// The tar as it comes from the other thread.
struct TarStream {
    receiver: Option<Receiver<Block>>,
    block: Block,
    at: usize,
    /// `None` where the other thread hashes the same bytes.
    hasher: Option<Sha256>,
    length: u64,
}

impl Read for TarStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            let received = self.receiver.as_ref().and_then(|from| from.recv().ok());
            self.block = match received {
                Some(block) => block,
                None => return Ok(0),
            };
            self.at = 0;
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&*self.block);
            }
            self.length += self.block.len() as u64;
        }
        let rest = self.block.get(self.at..).unwrap_or_default();
        let count = rest.len().min(into.len());
        if let (Some(into), Some(rest)) = (into.get_mut(..count), rest.get(..count)) {
            into.copy_from_slice(rest);
        }
        self.at += count;
        Ok(count)
    }
}
