//! The one tar that a layer's plan gives.
//!
//! Entries stand in the order of a sorted walk, parent directories first. Headers are
//! POSIX ustar; a name or link target of more than 100 bytes stands in a PAX record
//! before them. Owner and group are 0 without names, the time is one second after 1970,
//! no holes, no links between files; two blocks of zeros end it.

use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

use crate::hash::copy::each_block;

use crate::hash::BlobDigest;
use crate::listing::Entry;
use crate::projection::LayerPlan;

/// Modification time of every entry, in seconds since 1970.
pub const MTIME: u64 = 1;

/// Longest name that a plain header holds, in bytes.
const PLAIN_NAME: usize = 100;

/// Length of the blocks of a tar, in bytes: content is filled up to a whole one.
const TAR_BLOCK: usize = 512;

/// Somewhere to write a tar.
pub trait Sink: Write {
    /// Writes what a reader gives, to its end; returns how many bytes that were.
    ///
    /// # Errors
    /// What reading or writing fails with.
    fn write_from(&mut self, from: &mut impl Read) -> io::Result<u64> {
        let mut written = 0;
        each_block(from, std::convert::identity, |bytes| {
            written += bytes.len() as u64;
            self.write_all(bytes)
        })?;
        Ok(written)
    }
}

impl<S: Sink> Sink for &mut S {
    fn write_from(&mut self, from: &mut impl Read) -> io::Result<u64> {
        (**self).write_from(from)
    }
}

impl Sink for Vec<u8> {}
impl Sink for io::Sink {}
impl<W: Write> Sink for io::BufWriter<W> {}

/// Writes the layer's tar.
///
/// `open` returns the content of a file by its digest.
///
/// # Errors
/// What reading a file or writing the tar fails with.
pub fn write<R: Read>(
    plan: &LayerPlan,
    to: impl Sink,
    open: impl Fn(BlobDigest, bool) -> io::Result<R>,
) -> io::Result<()> {
    let mut tar = Builder::new(to);
    for (path, placed) in plan.iter() {
        let member = Member {
            mode: placed.mode,
            owner: placed.owner,
            ..Member::file(path.as_str(), placed.size_bytes())
        };
        match &placed.entry {
            Entry::Directory => {
                let name = &format!("{path}/");
                let kind = EntryType::Directory;
                let member = Member {
                    name,
                    kind,
                    ..member
                };
                append(&mut tar, &member, io::empty())?;
            }
            Entry::Symlink { target } => {
                let member = Member {
                    kind: EntryType::Symlink,
                    mode: 0o777,
                    target,
                    ..member
                };
                append(&mut tar, &member, io::empty())?;
            }
            Entry::File {
                digest, executable, ..
            } => append(&mut tar, &member, open(*digest, *executable)?)?,
        }
    }
    tar.into_inner()?.flush()
}

/// What a tar says of one entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    /// Where it is; a directory's ends with a slash.
    pub name: &'a str,
    /// What it is.
    pub kind: EntryType,
    /// Its permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Where a link points; empty for all else.
    pub target: &'a str,
    /// Length of its content, in bytes.
    pub size_bytes: u64,
}

impl<'a> Member<'a> {
    /// Returns a file that its owner may write.
    pub fn file(name: &'a str, size_bytes: u64) -> Self {
        Self {
            name,
            kind: EntryType::Regular,
            mode: 0o644,
            owner: (0, 0),
            target: "",
            size_bytes,
        }
    }
}

/// Appends one entry; the content must have exactly the given length.
pub(super) fn append<W: Sink>(
    tar: &mut Builder<W>,
    member: &Member<'_>,
    content: impl Read,
) -> io::Result<()> {
    let Member {
        name,
        kind,
        mode,
        owner: (user, group),
        target,
        size_bytes,
    } = *member;
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
    header.set_uid(u64::from(user));
    header.set_gid(u64::from(group));
    header.set_mtime(MTIME);
    header.set_size(size_bytes);
    header.set_device_major(0)?;
    header.set_device_minor(0)?;
    header.set_cksum();
    let mut content = Exactly {
        from: content,
        left: size_bytes,
    };
    // Not through the builder, which copies everything once more.
    tar.append(&header, io::empty())?;
    let written = tar.get_mut().write_from(&mut content)?;
    let over = usize::try_from(written % TAR_BLOCK as u64).unwrap_or(0);
    if over > 0 {
        let filling = [0; TAR_BLOCK];
        tar.get_mut()
            .write_all(filling.get(over..).unwrap_or_default())?;
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::hash::Sha256Digest;
    use crate::projection::Placed;

    fn file(text: &str, executable: bool) -> Entry {
        let digest = BlobDigest::of(text.as_bytes());
        Entry::File {
            digest,
            size_bytes: text.len() as u64,
            executable,
        }
    }

    fn plan() -> LayerPlan {
        let mut entries = BTreeMap::new();
        let mut insert = |path: &str, entry, mode, owner| {
            let placed = Placed {
                entry,
                mode,
                owner,
                object: None,
            };
            entries.insert(path.parse().unwrap(), placed);
        };
        insert("bin/run", file("hi\n", true), 0o555, (0, 0));
        let target = "run".to_owned();
        insert("bin/go", Entry::Symlink { target }, 0o555, (0, 0));
        insert("tmp", Entry::Directory, 0o1777, (0, 0));
        let long = format!("share/{}/ünï", "x".repeat(120));
        insert(&long, file("", false), 0o444, (0, 0));
        LayerPlan::new("test".to_owned(), entries)
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
        super::write(plan, &mut bytes, open).unwrap();
        let digest = Sha256Digest::of(&bytes);
        (bytes, digest)
    }

    #[test]
    fn golden_bytes() {
        let (_, digest) = write(&plan());
        insta::assert_snapshot!(digest.to_string(), @"36f01c58abab8aeeabaced01d442b84144edb959e3ca832258b578040f6e3f2b");
        insta::assert_snapshot!(plan().key().to_string(), @"f8ea072e557b054c3fdd2bb1e3ae9ca1868bec79257036b9336db703e97ffe80");
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
