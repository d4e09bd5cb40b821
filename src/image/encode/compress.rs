//! One block, compressed or stored.

use std::io;

use libdeflater::CompressionLvl;
use zstd::bulk;
use zstd::zstd_safe::{CParameter, Strategy};

use crate::derivation::Compression;

/// The version of the C library in the one version of the crate that `Cargo.toml` takes.
const LIBDEFLATE: &str = "1.26";

/// At level 1 twice as fast as at 6, and 2 % larger (a tar of 1 GiB).
const GZIP_LEVEL: i32 = 1;

/// One search for each place, with a table four times as large as level 2 has. Level 3, which
/// `zstd` itself takes, makes two: 1.3 to 2.3 times as much work, for 2.6 % fewer bytes (a tar
/// of 1.1 GiB of Debian's programs and libraries).
const ZSTD_LEVEL: i32 = 2;
const ZSTD_PARAMETERS: [CParameter; 4] = [
    CParameter::Strategy(Strategy::ZSTD_fast),
    CParameter::WindowLog(21),
    CParameter::HashLog(18),
    CParameter::MinMatch(6),
];

/// Length of the units of which each is compressed or stored, in bytes.
const UNIT: usize = 128 << 10;

/// Samples of a unit that are compressed first, and the length of each, in bytes.
const SAMPLES: usize = 4;
const SAMPLE: usize = 1 << 10;

/// Returns which encoder, of which version, with which settings a compression means;
/// `None` for none.
pub fn encoder(compression: Compression) -> Option<String> {
    match compression {
        Compression::None => None,
        Compression::Gzip => Some(format!(
            "libdeflate {LIBDEFLATE}, level {GZIP_LEVEL}, members of at most 1 MiB, units of 128 KiB stored whose samples stay as long"
        )),
        Compression::Zstd => Some(format!(
            "zstd {}, fast, hash table of 2^18, matches of 6, frames of at most 2 MiB, units of 128 KiB stored whose samples stay as long",
            zstd::zstd_safe::version_string()
        )),
    }
}

/// Returns the length of the blocks that are compressed each by itself, in bytes.
pub(super) fn block_bytes(compression: Compression) -> usize {
    match compression {
        Compression::None | Compression::Gzip => 1 << 20,
        Compression::Zstd => 2 << 20,
    }
}

/// What compresses blocks, one after the other.
pub(super) enum Compressor {
    Gzip {
        usual: libdeflater::Compressor,
        stored: libdeflater::Compressor,
    },
    Zstd(bulk::Compressor<'static>),
}

impl Compressor {
    /// Prepares one.
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        let gzip = |level| {
            let level = CompressionLvl::new(level);
            let level = level.map_err(|_| io::Error::other("libdeflate has no such level"))?;
            Ok::<_, io::Error>(libdeflater::Compressor::new(level))
        };
        Ok(match compression {
            Compression::Zstd => {
                let mut compressor = bulk::Compressor::new(ZSTD_LEVEL)?;
                for parameter in ZSTD_PARAMETERS {
                    compressor.set_parameter(parameter)?;
                }
                Self::Zstd(compressor)
            }
            Compression::Gzip | Compression::None => Self::Gzip {
                usual: gzip(GZIP_LEVEL)?,
                stored: gzip(0)?,
            },
        })
    }

    /// Compresses a block; neighbouring units that are compressed, and such that are stored,
    /// are a member or frame together.
    pub(super) fn compress(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        let mut packed = Vec::new();
        let mut rest = block;
        for (length, shrinks) in self.parts(block)? {
            let (part, after) = rest.split_at(length);
            rest = after;
            let part = match self {
                Self::Gzip { usual, stored } => gzip(if shrinks { usual } else { stored }, part)?,
                Self::Zstd(usual) if shrinks => usual.compress(part)?,
                Self::Zstd(_) => stored_frame(part)?,
            };
            if packed.is_empty() {
                packed = part;
            } else {
                packed.extend_from_slice(&part);
            }
        }
        Ok(packed)
    }

    /// Cuts a block where units that shrink meet such that do not; returns the length of each
    /// part, and which it is.
    fn parts(&mut self, block: &[u8]) -> io::Result<Vec<(usize, bool)>> {
        let mut parts: Vec<(usize, bool)> = Vec::new();
        for unit in block.chunks(UNIT) {
            let shrinks = self.shrinks(unit)?;
            match parts.last_mut() {
                Some((length, kind)) if *kind == shrinks => *length += unit.len(),
                _ => parts.push((unit.len(), shrinks)),
            }
        }
        Ok(parts)
    }

    /// Returns whether samples of a unit get shorter by a hundredth at least; of a short unit
    /// it is not worth asking.
    fn shrinks(&mut self, unit: &[u8]) -> io::Result<bool> {
        if unit.len() < 2 * SAMPLES * SAMPLE {
            return Ok(true);
        }
        let mut length = 0;
        for sample in unit.chunks(unit.len() / SAMPLES).take(SAMPLES) {
            let sample = sample.get(..SAMPLE).unwrap_or(sample);
            length += match self {
                Self::Gzip { usual, .. } => gzip(usual, sample)?,
                Self::Zstd(usual) => usual.compress(sample)?,
            }
            .len();
        }
        Ok(length < SAMPLES * SAMPLE / 100 * 99)
    }
}

fn gzip(compressor: &mut libdeflater::Compressor, part: &[u8]) -> io::Result<Vec<u8>> {
    let mut member = vec![0; compressor.gzip_compress_bound(part.len())];
    let length = compressor
        .gzip_compress(part, &mut member)
        .map_err(|_| io::Error::other("libdeflate refused a block"))?;
    member.truncate(length);
    member.shrink_to_fit();
    Ok(member)
}

/// Returns a frame of zstd that holds bytes as they are (RFC 8878, sections 3.1.1 and 3.1.1.2):
/// its encoder copies such bytes too, but only after a search at every level.
fn stored_frame(bytes: &[u8]) -> io::Result<Vec<u8>> {
    const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
    /// The content is one segment, and its length stands in four bytes.
    const DESCRIPTOR: u8 = 0b1010_0000;
    /// Longest content of a block, in bytes.
    const BLOCK: usize = 128 << 10;
    const LAST: u32 = 1;
    let mut frame = Vec::with_capacity(bytes.len() + 4 * (bytes.len() / BLOCK + 4));
    frame.extend_from_slice(&MAGIC);
    frame.push(DESCRIPTOR);
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    frame.extend_from_slice(&length.to_le_bytes());
    let mut blocks = bytes.chunks(BLOCK).peekable();
    while let Some(block) = blocks.next() {
        // Of type 0: raw.
        let length = u32::try_from(block.len()).map_err(io::Error::other)?;
        let header = length << 3 | if blocks.peek().is_none() { LAST } else { 0 };
        let [one, two, three, _] = header.to_le_bytes();
        frame.extend_from_slice(&[one, two, three]);
        frame.extend_from_slice(block);
    }
    Ok(frame)
}
