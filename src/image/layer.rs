//! The one tar that a layer's plan gives.
//!
//! Entries stand in the order of a sorted walk, parent directories first. Headers are
//! POSIX ustar; a name or link target of more than 100 bytes stands in a PAX record
//! before them. Owner and group are 0 without names, the time is one second after 1970,
//! no holes, no links between files; two blocks of zeros end it.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::hash::{BlobDigest, Sha256Digest};
use crate::listing::Entry;
use crate::projection::LayerPlan;

/// Modification time of every entry, in seconds since 1970.
pub const MTIME: u64 = 1;

/// Longest name that a plain header holds, in bytes.
const PLAIN_NAME: usize = 100;

/// Writes the layer's tar; returns its SHA-256 and its length.
///
/// `open` returns the content of a file by its digest.
///
/// # Errors
/// What reading a file or writing the tar fails with.
pub fn write<R: Read>(
    plan: &LayerPlan,
    to: impl Write,
    open: impl Fn(BlobDigest, bool) -> io::Result<R>,
) -> io::Result<(Sha256Digest, u64)> {
    let mut tar = Builder::new(Counter {
        to,
        hasher: Sha256::new(),
        length: 0,
    });
    for (path, (entry, mode)) in plan.iter() {
        match entry {
            Entry::Directory => {
                append(
                    &mut tar,
                    &format!("{path}/"),
                    EntryType::Directory,
                    *mode,
                    "",
                    0,
                    io::empty(),
                )?;
            }
            Entry::Symlink { target } => {
                append(
                    &mut tar,
                    path.as_str(),
                    EntryType::Symlink,
                    0o777,
                    target,
                    0,
                    io::empty(),
                )?;
            }
            Entry::File {
                digest,
                size_bytes,
                executable,
            } => {
                let content = open(*digest, *executable)?;
                append(
                    &mut tar,
                    path.as_str(),
                    EntryType::Regular,
                    *mode,
                    "",
                    *size_bytes,
                    content,
                )?;
            }
        }
    }
    let mut counter = tar.into_inner()?;
    counter.flush()?;
    Ok((
        Sha256Digest::from_bytes(counter.hasher.finalize().into()),
        counter.length,
    ))
}

/// Appends one entry; the content must have exactly the given length.
pub(super) fn append<W: Write>(
    tar: &mut Builder<W>,
    name: &str,
    kind: EntryType,
    mode: u32,
    target: &str,
    size_bytes: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut records: Vec<(&str, &[u8])> = Vec::new();
    if target.len() > PLAIN_NAME {
        records.push(("linkpath", target.as_bytes()));
    }
    if name.len() > PLAIN_NAME {
        records.push(("path", name.as_bytes()));
    }
    if !records.is_empty() {
        tar.append_pax_extensions(records)?;
    }
    let mut header = Header::new_ustar();
    fill(&mut header.as_old_mut().name, name);
    fill(&mut header.as_old_mut().linkname, target);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME);
    header.set_size(size_bytes);
    header.set_device_major(0)?;
    header.set_device_minor(0)?;
    header.set_cksum();
    let mut content = Exactly {
        from: content,
        left: size_bytes,
    };
    tar.append(&header, &mut content)?;
    if content.left > 0 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "a file is shorter than recorded",
        ));
    }
    Ok(())
}

/// Puts as much of a name into a header's field as fits; the whole is in a PAX record.
fn fill(field: &mut [u8], text: &str) {
    for (to, from) in field.iter_mut().zip(text.as_bytes()) {
        *to = *from;
    }
}

/// Reads a given number of bytes, and is an error where there are more.
struct Exactly<R> {
    from: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "a file is longer than recorded")
        })?;
        Ok(count)
    }
}

/// Hashes and counts what passes through.
struct Counter<W> {
    to: W,
    hasher: Sha256,
    length: u64,
}

impl<W: Write> Write for Counter<W> {
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
    use super::*;

    fn file(text: &str, executable: bool) -> Entry {
        let digest = BlobDigest::of(text.as_bytes());
        Entry::File {
            digest,
            size_bytes: text.len() as u64,
            executable,
        }
    }

    fn plan() -> LayerPlan {
        let mut plan = LayerPlan::new("test");
        plan.insert(&"bin/run".parse().unwrap(), file("hi\n", true), 0o555);
        plan.insert(
            &"bin/go".parse().unwrap(),
            Entry::Symlink {
                target: "run".to_owned(),
            },
            0o555,
        );
        plan.insert(&"tmp".parse().unwrap(), Entry::Directory, 0o1777);
        let long = format!("share/{}/ünï", "x".repeat(120));
        plan.insert(&long.parse().unwrap(), file("", false), 0o444);
        plan
    }

    fn write(plan: &LayerPlan) -> (Vec<u8>, Sha256Digest) {
        let mut bytes = Vec::new();
        let open = |digest, _| {
            let text: &[u8] = if digest == BlobDigest::of(b"hi\n") {
                b"hi\n"
            } else {
                b""
            };
            Ok(text)
        };
        let (digest, length) = super::write(plan, &mut bytes, open).unwrap();
        assert_eq!(length, bytes.len() as u64);
        assert_eq!(digest, Sha256Digest::of(&bytes));
        (bytes, digest)
    }

    #[test]
    fn golden_bytes() {
        let (_, digest) = write(&plan());
        insta::assert_snapshot!(digest.to_string(), @"36f01c58abab8aeeabaced01d442b84144edb959e3ca832258b578040f6e3f2b");
        insta::assert_snapshot!(plan().key().to_string(), @"bac64447c234b59f952837b348534519c484d29677bd0fb364d7a40a9fd0e6e1");
    }

    #[test]
    fn other_readers_agree_on_what_it_holds() {
        let (bytes, _) = write(&plan());
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                entry
                    .unwrap()
                    .path()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        let long = format!("share/{}", "x".repeat(120));
        assert_eq!(
            names,
            [
                "bin/",
                "bin/go",
                "bin/run",
                "share/",
                &format!("{long}/"),
                &format!("{long}/ünï"),
                "tmp/"
            ]
        );
    }

    #[test]
    fn a_file_of_another_length_is_an_error() {
        for text in ["h", "hi\nmore"] {
            let result = super::write(&plan(), Vec::new(), |_, _| Ok(text.as_bytes()));
            assert!(result.is_err(), "{text}");
        }
    }
}
