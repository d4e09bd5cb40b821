//! One pass over a tree's bytes: BLAKE3 digests and references together.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Seek as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use rayon::prelude::*;
use rustix::fs::{AtFlags, Dir, FileType, OFlags, readlinkat, statat};

use super::references::{Scanner, Wanted};
use super::{TreeError, TreeRoot};
use crate::hash::copy::{ALIGNMENT, aligned};
use crate::hash::directory::MAX_TARGET;
use crate::hash::{BlobDigest, RelPath, StorePath};
use crate::listing::{Entry, Listing};

/// Bytes read at once. Larger files are hashed on several threads.
pub const BLOCK: usize = 1 << 20;

/// Most that is decompressed of one gzip file while looking for hidden references.
const MAX_DECOMPRESSED: u64 = 256 << 20;

/// A store path found in a tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// The file or symbolic link that contains it.
    pub file: RelPath,
    /// Offset of the digest's first character in the file or the link's target.
    pub offset: u64,
    /// What is named.
    pub target: StorePath,
}

/// What a tree holds.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// Every entry with its digest.
    pub listing: Listing,
    /// For each file and candidate, the first place where it is named; sorted.
    pub references: Vec<Hit>,
    /// Every place where a scratch path is named; sorted.
    pub scratch: Vec<Hit>,
}

/// An entry with its hits; the flag tells those of scratch paths.
type Scanned = (RelPath, Entry, Vec<(Hit, bool)>);

/// What a walk finds at a path, before any content is read.
#[derive(Debug)]
pub struct Found {
    /// What it is.
    pub kind: FoundKind,
    /// Its permission bits.
    pub mode: u32,
    /// Its modification time, in whole seconds since 1970.
    pub mtime: i64,
    /// Its inode on the tree's file system.
    pub inode: u64,
}

/// The kinds of entries that objects have.
#[derive(Debug)]
pub enum FoundKind {
    /// A regular file and its length in bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(String),
}

/// Walks, hashes and searches a tree, in parallel over files.
///
/// # Errors
/// [`TreeError`] for whatever an object cannot hold, and when reading fails.
pub fn scan(root: &TreeRoot, wanted: &Wanted) -> Result<Scan, TreeError> {
    scan_files(root, wanted, &hash_only)
}

/// Hashes a file whose blocks go to a sink as well; `true` stands for an executable file.
pub type FileSink<'a> = dyn Fn(&mut File, bool, &mut dyn FnMut(&[u8])) -> std::io::Result<(BlobDigest, u64)>
    + Sync
    + 'a;

fn hash_only(
    file: &mut File,
    _executable: bool,
    search: &mut dyn FnMut(&[u8]),
) -> std::io::Result<(BlobDigest, u64)> {
    hash_stream(file, |bytes| {
        search(bytes);
        Ok(())
    })
}

/// As [`scan`], with the reading of each file left to `read`, which must show every block
/// to the function that it is given, and return the digest and the length.
///
/// # Errors
/// As [`scan`].
pub fn scan_files(
    root: &TreeRoot,
    wanted: &Wanted,
    read: &FileSink<'_>,
) -> Result<Scan, TreeError> {
    let found = walk(root)?;
    let scanned: Vec<Scanned> = found
        .into_par_iter()
        .map(|(path, found)| scan_entry(root, path, found, wanted, read))
        .collect::<Result<_, _>>()?;
    gather(scanned)
}

/// As [`scan_files`], of one entry of the root's directory and nothing else in it.
///
/// # Errors
/// As [`scan`].
pub fn scan_one(
    root: &TreeRoot,
    name: &CStr,
    wanted: &Wanted,
    read: &FileSink<'_>,
) -> Result<Scan, TreeError> {
    let path = child(None, name)?;
    let found = inspect(root, root.fd(), name, &path)?;
    gather(vec![scan_entry(root, path, found, wanted, read)?])
}

fn gather(mut scanned: Vec<Scanned>) -> Result<Scan, TreeError> {
    scanned.par_sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
    let mut result = Scan::default();
    for (hit, is_scratch) in scanned.iter_mut().flat_map(|(.., hits)| hits.drain(..)) {
        if is_scratch {
            &mut result.scratch
        } else {
            &mut result.references
        }
        .push(hit);
    }
    result.references.sort();
    result.scratch.sort();
    let entries: BTreeMap<RelPath, Entry> = scanned
        .into_iter()
        .map(|(path, entry, _)| (path, entry))
        .collect();
    result.listing = Listing::new(entries)?;
    Ok(result)
}

/// Returns the listing of a tree that is not searched for references.
///
/// # Errors
/// As [`scan`].
pub fn list(root: &TreeRoot) -> Result<Listing, TreeError> {
    scan(root, &Wanted::default()).map(|scan| scan.listing)
}

/// Returns every entry of a tree, in no particular order. The directories of each level
/// are read in parallel.
///
/// # Errors
/// [`TreeError`] for whatever an object cannot hold, and when reading fails.
pub fn walk(root: &TreeRoot) -> Result<Vec<(RelPath, Found)>, TreeError> {
    let mut result = read_directory(root, None)?;
    let mut level = 0..result.len();
    while !level.is_empty() {
        let read: Vec<Result<Vec<(RelPath, Found)>, TreeError>> = result
            .get(level)
            .unwrap_or_default()
            .par_iter()
            .filter(|(_, found)| matches!(found.kind, FoundKind::Directory))
            .map(|(path, _)| read_directory(root, Some(path)))
            .collect();
        let start = result.len();
        for entries in read {
            result.extend(entries?);
        }
        level = start..result.len();
    }
    Ok(result)
}

/// Returns what a directory of a tree holds, or the tree's own directory.
fn read_directory(
    root: &TreeRoot,
    at: Option<&RelPath>,
) -> Result<Vec<(RelPath, Found)>, TreeError> {
    let failed = |errno: rustix::io::Errno| TreeError::Access {
        operation: "read the directory",
        path: at.map_or_else(|| root.path().to_owned(), |path| root.shown(path)),
        source: errno.into(),
    };
    let opened = at
        .map(|path| root.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY))
        .transpose()?;
    let directory = opened.as_ref().map_or(root.fd(), |fd| fd.as_fd());
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let path = child(at, name)?;
        let found = inspect(root, directory, name, &path)?;
        entries.push((path, found));
    }
    Ok(entries)
}

fn child(parent: Option<&RelPath>, name: &CStr) -> Result<RelPath, TreeError> {
    let name = name.to_str().map_err(|_| TreeError::NotUtf8 {
        shown: match parent {
            Some(parent) => format!("{parent}/{}", name.to_string_lossy()),
            None => name.to_string_lossy().into_owned(),
        },
    })?;
    Ok(match parent {
        Some(parent) => parent.join(name)?,
        None => name.parse()?,
    })
}

fn inspect(
    root: &TreeRoot,
    directory: BorrowedFd<'_>,
    name: &CStr,
    path: &RelPath,
) -> Result<Found, TreeError> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| root.failed("examine", path, errno))?;
    let refuse = |kind| {
        Err(TreeError::Kind {
            path: path.to_string(),
            kind,
        })
    };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FoundKind::File(u64::try_from(stat.st_size).unwrap_or(0)),
        FileType::Directory => FoundKind::Directory,
        FileType::Symlink => {
            let target = readlinkat(directory, name, Vec::new())
                .map_err(|errno| root.failed("read the link", path, errno))?;
            let target = target
                .into_string()
                .ok()
                .filter(|target| !target.is_empty() && target.len() <= MAX_TARGET)
                .ok_or_else(|| TreeError::TargetNotUtf8 {
                    path: path.to_string(),
                })?;
            FoundKind::Symlink(target)
        }
        FileType::Socket => return refuse("socket"),
        FileType::Fifo => return refuse("FIFO"),
        FileType::CharacterDevice => return refuse("character device"),
        FileType::BlockDevice => return refuse("block device"),
        FileType::Unknown => return refuse("file of unknown type"),
    };
    Ok(Found {
        kind,
        mode: stat.st_mode & 0o7777,
        mtime: stat.st_mtime,
        inode: stat.st_ino,
    })
}

fn scan_entry(
    root: &TreeRoot,
    path: RelPath,
    found: Found,
    wanted: &Wanted,
    read: &FileSink<'_>,
) -> Result<Scanned, TreeError> {
    let mut hits = Vec::new();
    let named = path.file_name().as_bytes();
    Scanner::new(wanted).feed(named, |_, _, is_scratch| {
        if is_scratch {
            hits.push(());
        }
    });
    if !hits.is_empty() {
        return Err(TreeError::ScratchInName {
            path: path.to_string(),
        });
    }
    let mut hits = Vec::new();
    let mut record = |target: &StorePath, offset, is_scratch| {
        hits.push((
            Hit {
                file: path.clone(),
                offset,
                target: target.clone(),
            },
            is_scratch,
        ));
    };
    let entry = match found.kind {
        FoundKind::Directory => Entry::Directory,
        FoundKind::Symlink(target) => {
            Scanner::new(wanted).feed(target.as_bytes(), &mut record);
            Entry::Symlink { target }
        }
        FoundKind::File(_) => {
            let mut file = root.open_file(&path)?;
            let failed = |source| TreeError::Access {
                operation: "read",
                path: root.shown(&path),
                source,
            };
            let executable = found.mode & 0o111 != 0;
            let mut scanner = Scanner::new(wanted);
            let mut gzip = None;
            let (digest, size_bytes) = read(&mut file, executable, &mut |bytes| {
                gzip.get_or_insert(bytes.starts_with(&[0x1f, 0x8b, 8]));
                scanner.feed(bytes, &mut record);
            })
            .map_err(failed)?;
            if gzip == Some(true) && !wanted.is_empty() {
                search_compressed(root, &path, wanted, &mut record)?;
            }
            Entry::File {
                digest,
                size_bytes,
                executable,
            }
        }
    };
    Ok((path, entry, hits))
}

thread_local! {
    /// A buffer for each thread: a fresh one for every file would have to be zeroed.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Runs with this thread's buffer of [`BLOCK`] bytes, whose content is whatever was left
/// there.
pub fn with_block<T>(run: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = BUFFER.take();
    buffer.resize(BLOCK + ALIGNMENT, 0);
    let result = run(aligned(&mut buffer).get_mut(..BLOCK).unwrap_or_default());
    BUFFER.replace(buffer);
    result
}

/// Reads a file to its end into a buffer that grows as needed; its bytes do not start where
/// the buffer does. One buffer serves for many files, so that none has to be zeroed for
/// each.
///
/// # Errors
/// What reading fails with.
pub fn read_whole<'a>(file: &mut File, buffer: &'a mut Vec<u8>) -> std::io::Result<&'a [u8]> {
    let length = file.metadata()?.len();
    // One more, so that the end is seen where it is expected.
    let mut wanted = usize::try_from(length)
        .unwrap_or(usize::MAX)
        .saturating_add(1);
    loop {
        let room = wanted.saturating_add(ALIGNMENT);
        if buffer.len() < room {
            buffer.resize(room, 0);
        }
        let filled = read_block(file, aligned(buffer))?.len();
        if filled < wanted {
            return Ok(aligned(buffer).get(..filled).unwrap_or_default());
        }
        // It grew since its length was asked for.
        file.rewind()?;
        wanted = wanted.saturating_mul(2);
    }
}

/// Reads a stream to its end in constant memory, in blocks of [`BLOCK`] bytes of which
/// only the last is shorter; returns its digest and its length. Blocks of large files are
/// hashed on all threads.
///
/// # Errors
/// What reading fails with.
pub fn hash_stream(
    stream: &mut impl Read,
    mut on_block: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<(BlobDigest, u64)> {
    with_block(|block| {
        let mut hasher = blake3::Hasher::new();
        let mut total = 0_u64;
        loop {
            let bytes = read_block(stream, block)?;
            on_block(bytes)?;
            if bytes.len() == BLOCK && total > 0 {
                hasher.update_rayon(bytes);
            } else {
                hasher.update(bytes);
            }
            total += bytes.len() as u64;
            if bytes.len() < BLOCK {
                let digest = BlobDigest::from_bytes(*hasher.finalize().as_bytes());
                return Ok((digest, total));
            }
        }
    })
}

/// Reads the next [`BLOCK`] bytes of a stream, or what it has left.
///
/// # Errors
/// What reading fails with.
pub fn read_block<'a>(stream: &mut impl Read, block: &'a mut [u8]) -> std::io::Result<&'a [u8]> {
    let mut filled = 0;
    while let Some(rest @ [_, ..]) = block.get_mut(filled..) {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(block.get(..filled).unwrap_or_default())
}

/// Looks into a gzip file: a reference there counts, a scratch path cannot be rewritten.
fn search_compressed(
    root: &TreeRoot,
    path: &RelPath,
    wanted: &Wanted,
    record: &mut impl FnMut(&StorePath, u64, bool),
) -> Result<(), TreeError> {
    let mut decoder =
        flate2::read::MultiGzDecoder::new(root.open_file(path)?).take(MAX_DECOMPRESSED);
    let mut scanner = Scanner::new(wanted);
    let mut block = vec![0; BLOCK];
    let mut named_scratch = false;
    // Bytes that only look like gzip end the search early: they hide nothing from us that
    // a program could unpack either.
    while let Ok(count @ 1..) = decoder.read(&mut block) {
        scanner.feed(
            block.get(..count).unwrap_or(&block),
            |target, _, is_scratch| {
                if is_scratch {
                    named_scratch = true;
                } else {
                    record(target, 0, false);
                }
            },
        );
    }
    if named_scratch {
        return Err(TreeError::ScratchInCompressed {
            path: path.to_string(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan_of(make: impl FnOnce(&std::path::Path)) -> Result<Scan, TreeError> {
        let top = tempfile::tempdir().unwrap();
        make(top.path());
        scan(&TreeRoot::open(top.path()).unwrap(), &Wanted::default())
    }

    #[test]
    fn sockets_and_fifos_are_refused_with_their_path() {
        let socket = scan_of(|top| {
            std::fs::create_dir(top.join("run")).unwrap();
            drop(std::os::unix::net::UnixListener::bind(top.join("run/socket")).unwrap());
        });
        let Err(TreeError::Kind { path, kind }) = socket else {
            panic!("{socket:?}")
        };
        assert_eq!((path.as_str(), kind), ("run/socket", "socket"));
        let fifo = scan_of(|top| {
            nix::unistd::mkfifo(&top.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        });
        assert!(
            matches!(fifo, Err(TreeError::Kind { kind: "FIFO", .. })),
            "{fifo:?}"
        );
    }

    #[test]
    fn names_and_targets_must_be_utf_8() {
        use std::os::unix::ffi::OsStrExt;
        let bad = std::ffi::OsStr::from_bytes(b"\xff");
        let name = scan_of(|top| std::fs::write(top.join(bad), "").unwrap());
        assert!(matches!(name, Err(TreeError::NotUtf8 { .. })), "{name:?}");
        let target = scan_of(|top| std::os::unix::fs::symlink(bad, top.join("l")).unwrap());
        assert!(
            matches!(target, Err(TreeError::TargetNotUtf8 { .. })),
            "{target:?}"
        );
    }

    #[test]
    fn hits_inside_gzip_are_found_and_scratch_paths_there_are_refused() {
        use std::io::Write;
        let path = |byte| {
            let digest = crate::hash::ObjectDigest::from_bytes([byte; 32]);
            StorePath::new(digest, "x".parse().unwrap())
        };
        let (candidate, scratch) = (path(1), path(2));
        let wanted = Wanted::new([&candidate], [&scratch]);
        let packed = |named: &StorePath| {
            let top = tempfile::tempdir().unwrap();
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            write!(gzip, "see {named}/bin").unwrap();
            std::fs::write(top.path().join("page.gz"), gzip.finish().unwrap()).unwrap();
            scan(&TreeRoot::open(top.path()).unwrap(), &wanted)
        };
        assert_eq!(packed(&candidate).unwrap().references.len(), 1);
        assert!(matches!(
            packed(&scratch),
            Err(TreeError::ScratchInCompressed { .. })
        ));
    }
}
