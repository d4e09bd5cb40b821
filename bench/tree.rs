//! Writes the input of the measurements: `tree SEED FILES DIRECTORY`.
//!
//! Every fourth file has the content of the one before it, in another directory. Lengths
//! go from 1 KiB to 1 MiB with many small files and few large ones: 20,000 files have
//! 1 GiB in all. One file in ten is executable. Equal arguments give equal bytes. It has
//! no dependency, so that `rustc` alone makes a static program of it that runs in any
//! sandbox.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Directories that the files are spread over, in each of [`OUTER`].
const INNER: usize = 20;
/// Directories at the top.
const OUTER: usize = 10;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seed, files, directory] = arguments.as_slice() else {
        return Err(io::Error::other("usage: tree SEED FILES DIRECTORY"));
    };
    let number = |text: &str| text.parse().map_err(io::Error::other);
    write_tree(number(seed)?, number(files)?, Path::new(directory))
}

fn write_tree(seed: usize, files: usize, top: &Path) -> io::Result<()> {
    for outer in 0..OUTER {
        for inner in 0..INNER {
            fs::create_dir_all(place(top, outer * INNER + inner))?;
        }
    }
    let mut block = vec![0; 1 << 20];
    for index in 0..files {
        let content = if index % 4 == 3 { index - 1 } else { index };
        let bytes = &mut block[..length(content, files)];
        fill(bytes, (seed * files + content) as u64, content % 2 == 1);
        let mode = if index % 10 == 0 { 0o755 } else { 0o644 };
        let path = place(top, index % (INNER * OUTER)).join(format!("file-{index}"));
        File::options()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?
            .write_all(bytes)?;
    }
    Ok(())
}

fn place(top: &Path, number: usize) -> PathBuf {
    top.join(format!("part-{}", number / INNER))
        .join(format!("section-{}", number % INNER))
}

/// Returns a file's length: the power of an even spread, on a scale of powers.
fn length(content: usize, files: usize) -> usize {
    // A step that shares no factor with the number of files visits each place once.
    let place = content * 7_919 % files;
    let spread = (place as f64 + 0.5) / files as f64;
    let kibibytes = 1024_f64.powf(spread.powf(3.3));
    (kibibytes * 1024.0) as usize
}

/// Fills a file: with lines of words, or with bytes of any value.
fn fill(bytes: &mut [u8], seed: u64, text: bool) {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for word in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mut random = state.to_le_bytes();
        if text {
            for byte in &mut random {
                *byte = b'a' + *byte % 26;
            }
            random[7] = if random[0] == b'q' { b'\n' } else { b' ' };
        }
        word.copy_from_slice(&random[..word.len()]);
    }
}
