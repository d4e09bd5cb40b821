//! The members of a tar, one after the other.
//!
//! Headers are read as container runtimes read them (Go's `archive/tar`): ustar, PAX and
//! GNU's long names. Whatever two readers could read in two ways is refused: a checksum
//! that is wrong, a size that is no number, two long names for one member.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};

use super::limits::MAX_EXTENSION;
use crate::tree::scan::read_block;

const BLOCK: usize = 512;

/// A tar that cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// It ends in the middle, or the stream broke.
    #[error("it ends early: {0}")]
    Read(#[from] io::Error),
    /// A header that is none.
    #[error("the header at byte {at} {problem}")]
    Header {
        /// Where it starts.
        at: u64,
        /// What is wrong.
        problem: &'static str,
    },
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of a file.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name, as it stands there.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Where a link leads, as it stands there.
    pub link: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Length of its data, in bytes.
    pub size_bytes: u64,
    /// A device's numbers.
    pub numbers: (u32, u32),
    /// Extended attributes.
    pub attributes: BTreeMap<String, Vec<u8>>,
    /// For a file with holes: its length with them, while its data has none.
    pub sparse_bytes: Option<u64>,
}

/// Reads members from a stream.
pub struct Reader<R> {
    inner: R,
    /// Where the stream is.
    at: u64,
    /// Data of the member that was not read yet.
    left: u64,
    /// Zeros after it.
    padding: u64,
}

/// What extended headers say of the next member.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    user: Option<u32>,
    group: Option<u32>,
    sparse: Option<u64>,
    attributes: BTreeMap<String, Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Starts at the start of a tar.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            at: 0,
            left: 0,
            padding: 0,
        }
    }

    /// Returns where the stream is: after a header, where its data starts.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Returns the data of the member that [`Reader::next`] gave last.
    pub fn data(&mut self) -> Data<'_, R> {
        Data(self)
    }

    /// Returns the next member, or `None` at the end.
    ///
    /// # Errors
    /// [`TarError`].
    #[expect(clippy::should_implement_trait, reason = "a member borrows the stream")]
    pub fn next(&mut self) -> Result<Option<Member>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            if !self.skip_rest()? {
                return Ok(None);
            }
            let start = self.at;
            let wrong = |problem| TarError::Header { at: start, problem };
            let Some(header) = self.block()? else {
                return Ok(None);
            };
            if header.iter().all(|&byte| byte == 0) {
                return match self.block()? {
                    Some(second) if second.iter().any(|&byte| byte != 0) => {
                        Err(wrong("is followed by a member after the end"))
                    }
                    _ => Ok(None),
                };
            }
            if !checksum_is_right(&header) {
                return Err(wrong("has a wrong checksum"));
            }
            let size = number(field(&header, 124, 12)).ok_or(wrong("has no size"))?;
            match header.get(156).copied().unwrap_or(0) {
                b'x' | b'X' => {
                    let records = self.extension(size, start)?;
                    extensions.read_records(&records).map_err(wrong)?;
                }
                b'g' => {
                    // Go's reader passes over it too: it says nothing of one member.
                    self.extension(size, start)?;
                }
                b'L' if extensions.path.is_some() => return Err(wrong("gives a second name")),
                b'L' => extensions.path = Some(cut(&self.extension(size, start)?).to_vec()),
                b'K' if extensions.link.is_some() => return Err(wrong("gives a second target")),
                b'K' => extensions.link = Some(cut(&self.extension(size, start)?).to_vec()),
                kind => {
                    let member = self.member(&header, kind, size, extensions);
                    return member.map(Some).map_err(|error| match error {
                        MemberError::Wrong(problem) => wrong(problem),
                        MemberError::Tar(error) => error,
                    });
                }
            }
        }
    }

    fn member(
        &mut self,
        header: &[u8; BLOCK],
        kind: u8,
        size: u64,
        extensions: Extensions,
    ) -> Result<Member, MemberError> {
        let wrong = MemberError::Wrong;
        let path = extensions.path.unwrap_or_else(|| name(header));
        let mut sparse_bytes = extensions.sparse;
        let kind = match kind {
            // Before POSIX, a directory was a file with `/` at its end.
            0 | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => {
                let real = number(field(header, 483, 12)).ok_or(wrong("has no real size"))?;
                sparse_bytes = Some(real);
                let mut continues = header.get(482).copied().unwrap_or(0) != 0;
                while continues {
                    let more = self.block().map_err(MemberError::Tar)?;
                    let more = more.ok_or(wrong("lacks the rest of its map"))?;
                    continues = more.get(504).copied().unwrap_or(0) != 0;
                }
                Kind::File
            }
            _ => return Err(wrong("is of a kind that layers do not have")),
        };
        // Only a file has data, whatever its header says.
        let size_bytes = match kind {
            Kind::File => extensions.size.unwrap_or(size),
            _ => 0,
        };
        self.left = size_bytes;
        self.padding = padding(size_bytes);
        let small = |at, length| number(field(header, at, length)).and_then(|n| n.try_into().ok());
        let id = |at| small(at, 8).ok_or(wrong("has an owner that is no number"));
        Ok(Member {
            kind,
            link: extensions
                .link
                .unwrap_or_else(|| cut(field(header, 157, 100)).to_vec()),
            mode: small(100, 8).ok_or(wrong("has a mode that is no number"))? & 0o7777,
            owner: (
                extensions.user.map_or_else(|| id(108), Ok)?,
                extensions.group.map_or_else(|| id(116), Ok)?,
            ),
            size_bytes,
            numbers: (small(329, 8).unwrap_or(0), small(337, 8).unwrap_or(0)),
            attributes: extensions.attributes,
            sparse_bytes,
            path,
        })
    }

    /// Passes over what is left of a member; returns whether anything can follow. After
    /// the last member some writers leave the zeros out, and runtimes let them.
    fn skip_rest(&mut self) -> Result<bool, TarError> {
        let (left, padding) = (self.left, self.padding);
        self.left = 0;
        self.padding = 0;
        if self.skip(left)? < left {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(self.skip(padding)? == padding)
    }

    /// Passes over bytes; returns over how many.
    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        let skipped = io::copy(&mut (&mut self.inner).take(bytes), &mut io::sink())?;
        self.at += skipped;
        Ok(skipped)
    }

    /// Reads a block; `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        match read_block(&mut self.inner, &mut block)?.len() {
            0 => Ok(None),
            BLOCK => {
                self.at += BLOCK as u64;
                Ok(Some(block))
            }
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    /// Reads the data of an extended header.
    fn extension(&mut self, size: u64, start: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION {
            let problem = "is an extended one of more than 1 MiB";
            return Err(TarError::Header { at: start, problem });
        }
        let mut bytes = Vec::new();
        (&mut self.inner).take(size).read_to_end(&mut bytes)?;
        self.at += bytes.len() as u64;
        if (bytes.len() as u64) < size {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.padding = padding(size);
        Ok(bytes)
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Passes over the data of a member without reading it. The stream may end before.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn jump(&mut self) -> io::Result<()> {
        let rest = self.left.saturating_add(self.padding);
        let by = i64::try_from(rest).map_err(io::Error::other)?;
        self.inner.seek_relative(by)?;
        self.at += rest;
        self.left = 0;
        self.padding = 0;
        Ok(())
    }
}

/// Why a member is none.
enum MemberError {
    Wrong(&'static str),
    Tar(TarError),
}

/// The data of a member.
pub struct Data<'a, R>(&'a mut Reader<R>);

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.0.left).unwrap_or(usize::MAX);
        let most = most.min(into.len());
        let Some(into) = into.get_mut(..most).filter(|into| !into.is_empty()) else {
            return Ok(0);
        };
        let count = self.0.inner.read(into)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.left -= count as u64;
        self.0.at += count as u64;
        Ok(count)
    }
}

impl Extensions {
    /// Reads PAX records: `LENGTH KEY=VALUE\n`, the length in decimal and of all of it.
    fn read_records(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        const BROKEN: &str = "has a broken record";
        while !bytes.is_empty() {
            let space = bytes.iter().position(|&byte| byte == b' ').ok_or(BROKEN)?;
            let length: usize = decimal(bytes.get(..space).unwrap_or_default())
                .and_then(|length| length.try_into().ok())
                .ok_or(BROKEN)?;
            let record = bytes.get(space + 1..length).ok_or(BROKEN)?;
            let record = record.strip_suffix(b"\n").ok_or(BROKEN)?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(BROKEN)?;
            let key = std::str::from_utf8(record.get(..equals).unwrap_or_default());
            let value = record.get(equals + 1..).unwrap_or_default();
            self.read_record(key.map_err(|_| BROKEN)?, value)?;
            bytes = bytes.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    fn read_record(&mut self, key: &str, value: &[u8]) -> Result<(), &'static str> {
        let text = |value: &[u8]| {
            if value.contains(&0) {
                return Err("has a name with NUL");
            }
            Ok(Some(value.to_vec()))
        };
        let count = |value| decimal(value).ok_or("has a record that is no number");
        let id = |value| -> Result<_, &'static str> {
            Ok(Some(
                count(value)?
                    .try_into()
                    .map_err(|_| "has an owner that is too large")?,
            ))
        };
        match key {
            "path" if self.path.is_some() => return Err("gives a second name"),
            "linkpath" if self.link.is_some() => return Err("gives a second target"),
            "path" | "GNU.sparse.name" => self.path = text(value)?,
            "linkpath" => self.link = text(value)?,
            "size" => self.size = Some(count(value)?),
            "uid" => self.user = id(value)?,
            "gid" => self.group = id(value)?,
            "GNU.sparse.realsize" | "GNU.sparse.size" => self.sparse = Some(count(value)?),
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    self.attributes.insert(name.to_owned(), value.to_vec());
                }
            }
        }
        Ok(())
    }
}

/// Returns how many zeros fill up the last block of so many bytes; a size may be as large
/// as a hostile header says.
fn padding(size_bytes: u64) -> u64 {
    size_bytes.wrapping_neg() % BLOCK as u64
}

fn field(header: &[u8; BLOCK], at: usize, length: usize) -> &[u8] {
    header.get(at..at + length).unwrap_or_default()
}

/// Returns what stands before the first NUL.
fn cut(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Returns the name of a plain header; POSIX's form has a second part before it.
fn name(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = cut(field(header, 0, 100));
    let prefix = cut(field(header, 345, 155));
    if field(header, 257, 6) == b"ustar\0" && !prefix.is_empty() {
        return [prefix, b"/", name].concat();
    }
    name.to_vec()
}

fn decimal(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Reads a number: octal digits, or base 256 where the first bit is set.
fn number(bytes: &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    if first & 0x80 != 0 {
        // A negative one is none of a size or an id.
        if first & 0x40 != 0 {
            return None;
        }
        return bytes
            .iter()
            .enumerate()
            .try_fold(0_u64, |value, (at, &byte)| {
                let byte = if at == 0 { byte & 0x3f } else { byte };
                value.checked_mul(256)?.checked_add(u64::from(byte))
            });
    }
    let text = std::str::from_utf8(cut(bytes)).ok()?.trim();
    if text.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(text, 8).ok()
}

fn checksum_is_right(header: &[u8; BLOCK]) -> bool {
    let Some(said) = number(field(header, 148, 8)) else {
        return false;
    };
    let byte = |(at, &byte): (usize, &u8)| {
        if (148..156).contains(&at) { b' ' } else { byte }
    };
    let unsigned: u64 = header.iter().enumerate().map(|b| u64::from(byte(b))).sum();
    // Old programs summed signed bytes.
    let signed: i64 = header
        .iter()
        .enumerate()
        .map(|b| i64::from(byte(b).cast_signed()))
        .sum();
    said == unsigned || i64::try_from(said) == Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_beyond_every_stream_is_the_end_and_no_overflow() {
        for size in ["18446744073709551615", "18446744073709551104"] {
            let mut tar = tar::Builder::new(Vec::new());
            tar.append_pax_extensions([("size", size.as_bytes())])
                .unwrap();
            let mut header = tar::Header::new_ustar();
            header.set_path("file").unwrap();
            header.set_size(3);
            header.set_cksum();
            tar.append(&header, b"abc".as_slice()).unwrap();
            let bytes = tar.into_inner().unwrap();
            let mut reader = Reader::new(bytes.as_slice());
            let member = reader.next().unwrap().unwrap();
            assert_eq!(member.size_bytes.to_string(), size);
            assert!(matches!(reader.next(), Err(TarError::Read(_))));
        }
    }
}
