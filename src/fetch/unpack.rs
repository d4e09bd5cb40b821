//! Unpacking source archives.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use tar::{Archive, EntryType};

use super::FetchError;
use super::decompress;
use super::extract::{Extraction, Links, Refusal};
use crate::hash::RelPath;

/// Most bytes that are read from the decompressed stream: what may be unpacked, and its
/// headers. It ends an archive that decompresses to more than it could ever hold.
pub(super) const MAX_STREAM: u64 = 20 << 30;

/// Unpacks a tar archive into an empty directory that exists.
///
/// The compression is told by the content: gzip, xz, bzip2, zstd or none. If everything
/// stands below a single top-level directory, that directory is left out. Files become
/// 0644 or 0755, directories 0755; everything has modification time 1, so that no file
/// looks older than another.
///
/// # Errors
/// [`FetchError::Member`] for a member that is refused, [`FetchError::Archive`] for bytes
/// that are no archive or end early, [`FetchError::TooLarge`], [`FetchError::Access`].
pub fn unpack(archive: &Path, into: &Path) -> Result<(), FetchError> {
    let access = |operation, path: &Path, source| FetchError::Access {
        operation,
        path: path.to_owned(),
        source,
    };
    let staging = into.with_extension("unpacking");
    std::fs::create_dir(&staging).map_err(|source| access("create", &staging, source))?;
    let extraction = Extraction::new(&staging, Links::Inside)?;
    let file = File::open(archive).map_err(|source| access("read", archive, source))?;
    let stream = decompress::reader(file).map_err(|source| FetchError::Archive {
        archive: archive.to_owned(),
        source,
    })?;
    extract_tar(archive, stream, &extraction, &|path| Some(path))?;
    extraction.finish()?;

    let mut top = Vec::new();
    for entry in std::fs::read_dir(&staging).map_err(|source| access("read", &staging, source))? {
        top.push(entry.map_err(|source| access("read", &staging, source))?);
    }
    let from = match top.as_slice() {
        [single] if single.file_type().is_ok_and(|kind| kind.is_dir()) => single.path(),
        _ => staging.clone(),
    };
    std::fs::rename(&from, into).map_err(|source| access("move", &from, source))?;
    if from != staging {
        std::fs::remove_dir(&staging).map_err(|source| access("remove", &staging, source))?;
    }
    Ok(())
}

/// Extracts every member of a tar stream; `place` says where, or leaves one out.
pub(super) fn extract_tar(
    archive: &Path,
    stream: impl Read,
    extraction: &Extraction,
    place: &dyn Fn(RelPath) -> Option<RelPath>,
) -> Result<(), FetchError> {
    let broken = |source| FetchError::Archive {
        archive: archive.to_owned(),
        source,
    };
    let mut tar = Archive::new(stream.take(MAX_STREAM));
    let mut members = 0_u64;
    for entry in tar.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        members += 1;
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            continue;
        }
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refused = |refusal: Refusal| refusal.at(archive, &shown);
        let Some(path) = member_path(&entry.path_bytes()).map_err(refused)? else {
            continue;
        };
        let Some(path) = place(path) else { continue };
        let result = match kind {
            EntryType::Regular | EntryType::Continuous => {
                let executable = entry.header().mode().map_err(broken)? & 0o111 != 0;
                let size = entry.size();
                extraction.file(&path, executable, size, &mut entry)
            }
            EntryType::Directory => extraction.directory(&path),
            EntryType::Symlink => {
                link_target(&entry).and_then(|target| extraction.symlink(&path, &target))
            }
            EntryType::Link => link_target(&entry)
                .and_then(|target| member_path(target.as_bytes()))
                .and_then(|target| match target.and_then(place) {
                    Some(target) => extraction.hard_link(&path, &target),
                    None => Err(Refusal::Member("is a hard link to nothing".to_owned())),
                }),
            other => Err(Refusal::Member(format!("is {}", kind_in_words(other)))),
        };
        result.map_err(refused)?;
    }
    if members == 0 {
        return Err(broken(std::io::Error::other("it has no members")));
    }
    Ok(())
}

fn kind_in_words(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Char => "a character device",
        EntryType::Block => "a block device",
        EntryType::Fifo => "a FIFO",
        EntryType::GNUSparse => "a sparse file in GNU's old format",
        _ => "of a kind that source archives do not have",
    }
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String, Refusal> {
    let bytes = entry
        .link_name_bytes()
        .ok_or_else(|| Refusal::Member("is a link without a target".to_owned()))?;
    String::from_utf8(bytes.into_owned())
        .map_err(|_| Refusal::Member("is a link whose target is not UTF-8".to_owned()))
}

/// Returns a member's path; `None` is the archive's own root (`./`).
fn member_path(bytes: &[u8]) -> Result<Option<RelPath>, Refusal> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Refusal::Member("has a name that is not UTF-8".to_owned()))?;
    if text.starts_with('/') {
        return Err(Refusal::Member("has an absolute name".to_owned()));
    }
    let mut plain = text.trim_end_matches('/');
    while let Some(rest) = plain.strip_prefix("./") {
        plain = rest;
    }
    if plain.is_empty() || plain == "." {
        return Ok(None);
    }
    plain
        .parse()
        .map(Some)
        .map_err(|error: crate::hash::PathError| match error {
            crate::hash::PathError::NotRelative { reason, .. } => {
                Refusal::Member(format!("has a name that kiln refuses: {reason}"))
            }
            other => Refusal::Member(other.to_string()),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;
    use tar::{Builder, Header};

    /// Appends a member with a raw name, as a hostile archive would have it.
    fn member(tar: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, link: &str, data: &[u8]) {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        header.set_size(data.len() as u64);
        header.set_cksum();
        tar.append(&header, data).unwrap();
    }

    type Member<'a> = (&'a str, EntryType, &'a str, &'a [u8]);

    fn archive(members: &[Member<'_>]) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for (name, kind, link, data) in members {
            member(&mut tar, name, *kind, link, data);
        }
        tar.into_inner().unwrap()
    }

    fn unpack_bytes(bytes: &[u8]) -> Result<tempfile::TempDir, FetchError> {
        let top = tempfile::tempdir().unwrap();
        std::fs::write(top.path().join("archive"), bytes).unwrap();
        std::fs::create_dir(top.path().join("into")).unwrap();
        unpack(&top.path().join("archive"), &top.path().join("into"))?;
        Ok(top)
    }

    const FILE: EntryType = EntryType::Regular;
    const LINK: EntryType = EntryType::Symlink;

    #[test]
    fn a_single_top_directory_is_left_out_in_every_compression() {
        let plain = archive(&[
            ("top/", EntryType::Directory, "", b""),
            ("top/run", FILE, "", b"x"),
            ("top/same", EntryType::Link, "top/run", b""),
            ("top/link", LINK, "run", b""),
        ]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&plain).unwrap();
        let mut xz =
            lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).unwrap();
        xz.write_all(&plain).unwrap();
        let compressed = [
            gzip.finish().unwrap(),
            bzip2.finish().unwrap(),
            xz.finish().unwrap(),
            zstd::encode_all(plain.as_slice(), 1).unwrap(),
            plain,
        ];
        for bytes in compressed {
            let top = unpack_bytes(&bytes).unwrap();
            let run = std::fs::metadata(top.path().join("into/run")).unwrap();
            assert_eq!((run.mode() & 0o7777, run.mtime()), (0o755, 1));
            assert_eq!(
                std::fs::metadata(top.path().join("into/same"))
                    .unwrap()
                    .len(),
                1
            );
            assert_eq!(
                std::fs::read_link(top.path().join("into/link")).unwrap(),
                Path::new("run")
            );
            assert!(!top.path().join("into.unpacking").exists());
        }
    }

    #[test]
    fn several_top_entries_stay() {
        let top = unpack_bytes(&archive(&[("a", FILE, "", b""), ("b", FILE, "", b"")])).unwrap();
        assert!(top.path().join("into/a").exists());
    }

    #[test]
    fn hostile_members_are_named_and_nothing_is_written_outside() {
        let cases: [(&str, &[Member<'_>]); 11] = [
            ("../out", &[("../out", FILE, "", b"x")]),
            ("a/../../out", &[("a/../../out", FILE, "", b"x")]),
            ("/etc/passwd", &[("/etc/passwd", FILE, "", b"x")]),
            ("abs", &[("abs", LINK, "/etc/passwd", b"")]),
            ("d/up", &[("d/up", LINK, "../../x", b"")]),
            ("l/x", &[("l", LINK, "d", b""), ("l/x", FILE, "", b"x")]),
            ("hard", &[("hard", EntryType::Link, "../archive", b"")]),
            ("hard", &[("hard", EntryType::Link, "missing", b"")]),
            ("dev", &[("dev", EntryType::Char, "", b"")]),
            ("fifo", &[("fifo", EntryType::Fifo, "", b"")]),
            (
                "twice",
                &[("twice", FILE, "", b"x"), ("twice", FILE, "", b"y")],
            ),
        ];
        for (name, members) in cases {
            match unpack_bytes(&archive(members)) {
                Err(FetchError::Member { member, .. }) => assert_eq!(member, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn broken_archives_are_errors() {
        let good = archive(&[("top/run", FILE, "", &[7; 4000])]);
        for bytes in [
            &good[..1500],
            b"not an archive at all",
            b"",
            &[0x1f, 0x8b, 8, 0],
        ] {
            assert!(
                matches!(unpack_bytes(bytes), Err(FetchError::Archive { .. })),
                "{bytes:?}"
            );
        }
    }
}
