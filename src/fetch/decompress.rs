//! Decompression by what the bytes are, not by what the file is called.

use std::io::{self, BufRead, BufReader, Read};

/// Most memory that an xz stream may ask for, in KiB: what `xz -9` needs, and some.
const XZ_MEMORY_KIB: u32 = 256 << 10;

/// Largest window of a zstd stream, as a power of two: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Returns a reader of the decompressed stream; what is in no known format is passed on.
pub(super) fn reader<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(1 << 17, source);
    let start = source.fill_buf()?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::bufread::MultiGzDecoder::new(source))
    } else if start.starts_with(b"\xfd7zXZ\0") {
        Box::new(lzma_rust2::XzReader::new_mem_limit(
            source,
            true,
            XZ_MEMORY_KIB,
        ))
    } else if start.starts_with(b"BZh") {
        Box::new(bzip2::bufread::MultiBzDecoder::new(source))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::Decoder::with_buffer(source)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        Box::new(decoder)
    } else {
        Box::new(source)
    })
}
