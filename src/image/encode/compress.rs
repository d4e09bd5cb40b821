//! One block, compressed or stored.

use std::io;

use libdeflater::CompressionLvl;
use zstd::bulk;

use crate::derivation::Compression;

/// The version of the C library in the one version of the crate that `Cargo.toml` takes.
const LIBDEFLATE: &str = "1.26";

/// At level 1 twice as fast as at 6, and 2 % larger (a tar of 1 GiB).
const GZIP_LEVEL: i32 = 1;

/// What `zstd` itself takes.
const ZSTD_LEVEL: i32 = 3;

/// A level at which it looks for next to nothing.
const ZSTD_STORED: i32 = -7;

/// Samples of a block that are compressed first, and the length of each, in bytes.
const SAMPLES: usize = 8;
const SAMPLE: usize = 4 << 10;

/// Returns which encoder, of which version, with which settings a compression means;
/// `None` for none.
pub fn encoder(compression: Compression) -> Option<String> {
    match compression {
        Compression::None => None,
        Compression::Gzip => Some(format!(
            "libdeflate {LIBDEFLATE}, level {GZIP_LEVEL}, members of 1 MiB, stored where samples stay as long"
        )),
        Compression::Zstd => Some(format!(
            "zstd {}, level {ZSTD_LEVEL}, frames of 2 MiB, stored where samples stay as long",
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
    Zstd {
        usual: bulk::Compressor<'static>,
        stored: bulk::Compressor<'static>,
    },
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
            Compression::Zstd => Self::Zstd {
                usual: bulk::Compressor::new(ZSTD_LEVEL)?,
                stored: bulk::Compressor::new(ZSTD_STORED)?,
            },
            Compression::Gzip | Compression::None => Self::Gzip {
                usual: gzip(GZIP_LEVEL)?,
                stored: gzip(0)?,
            },
        })
    }

    /// Compresses a block, or stores it if its samples stay as long.
    pub(super) fn compress(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        let shrinks = self.shrinks(block)?;
        match self {
            Self::Gzip { usual, stored } => gzip(if shrinks { usual } else { stored }, block),
            Self::Zstd { usual, stored } => (if shrinks { usual } else { stored }).compress(block),
        }
    }

    /// Returns whether samples of a block get shorter by a hundredth at least; of a short
    /// block it is not worth asking.
    fn shrinks(&mut self, block: &[u8]) -> io::Result<bool> {
        if block.len() < 2 * SAMPLES * SAMPLE {
            return Ok(true);
        }
        let mut length = 0;
        for sample in block.chunks(block.len() / SAMPLES).take(SAMPLES) {
            let sample = sample.get(..SAMPLE).unwrap_or(sample);
            length += match self {
                Self::Gzip { usual, .. } => gzip(usual, sample)?,
                Self::Zstd { usual, .. } => usual.compress(sample)?,
            }
            .len();
        }
        Ok(length < SAMPLES * SAMPLE / 100 * 99)
    }
}

fn gzip(compressor: &mut libdeflater::Compressor, block: &[u8]) -> io::Result<Vec<u8>> {
    let mut member = vec![0; compressor.gzip_compress_bound(block.len())];
    let length = compressor
        .gzip_compress(block, &mut member)
        .map_err(|_| io::Error::other("libdeflate refused a block"))?;
    member.truncate(length);
    member.shrink_to_fit();
    Ok(member)
}
