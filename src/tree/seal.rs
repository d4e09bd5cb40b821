//! Giving a tree the modes and times of an object, and rewriting paths in it.
//!
//! Files become 0444 or 0555 and directories 0555, everything has modification time 1.
//! An inode is changed only through a descriptor that was opened beneath the tree's root,
//! and only if no other name leads to it: a file with several links is copied first.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{
    AtFlags, Mode, OFlags, Timespec, Timestamps, fchmod, futimens, openat, renameat, symlinkat,
    unlinkat, utimensat,
};

use super::references::DigestText;
use super::{TreeError, TreeRoot};
use crate::hash::digest::BASE32_LEN;
use crate::hash::{BlobDigest, RelPath};
use crate::listing::{Entry, Listing};

/// Bytes to put at an offset of a file, or of a symbolic link's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Patch {
    /// Where the digest part begins.
    pub offset: u64,
    /// What it becomes.
    pub text: DigestText,
}

const MTIME: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// The times of everything that kiln makes: one second after 1970.
pub const TIMES: Timestamps = Timestamps {
    last_access: MTIME,
    last_modification: MTIME,
};

/// Gives a file its final mode and time, after breaking hard links. `parent` is the
/// directory that holds it.
///
/// # Errors
/// [`TreeError::Access`] with the system's reason.
pub fn seal_file(
    root: &TreeRoot,
    parent: &OwnedFd,
    path: &RelPath,
    executable: bool,
) -> Result<(), TreeError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(parent, path.file_name(), flags, Mode::empty())
        .map_err(|errno| root.failed("open", path, errno))?;
    let mut file = File::from(file);
    let links = file
        .metadata()
        .map_err(|source| access(root, "examine", path, source))?
        .nlink();
    if links > 1 {
        file = copy_apart(root, parent, path, &mut file)?;
    }
    seal_open_file(file.as_fd(), executable).map_err(|errno| root.failed("seal", path, errno))
}

/// Gives an open file its final mode and time.
///
/// # Errors
/// The system's reason.
pub fn seal_open_file(file: BorrowedFd<'_>, executable: bool) -> rustix::io::Result<()> {
    let mode = if executable { 0o555 } else { 0o444 };
    fchmod(file, Mode::from_raw_mode(mode))?;
    futimens(file, &TIMES)
}

/// Gives a directory its final mode and time; call it after everything in it is sealed.
///
/// # Errors
/// [`TreeError::Access`] with the system's reason.
pub fn seal_directory(root: &TreeRoot, path: &RelPath) -> Result<(), TreeError> {
    let fd = root.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    fchmod(&fd, Mode::from_raw_mode(0o555)).map_err(|errno| root.failed("seal", path, errno))?;
    futimens(&fd, &TIMES).map_err(|errno| root.failed("seal", path, errno))
}

/// Gives the tree's own directory its final mode and time. Moving a directory needs write
/// permission on it, so this comes after the move.
///
/// # Errors
/// [`TreeError::Access`] with the system's reason.
pub fn seal_root(root: &TreeRoot) -> Result<(), TreeError> {
    let failed = |errno: rustix::io::Errno| TreeError::Access {
        operation: "seal",
        path: root.path().to_owned(),
        source: errno.into(),
    };
    fchmod(root.fd(), Mode::from_raw_mode(0o555)).map_err(failed)?;
    futimens(root.fd(), &TIMES).map_err(failed)
}

/// Gives a symbolic link its final time.
///
/// # Errors
/// [`TreeError::Access`] with the system's reason.
pub fn seal_symlink(root: &TreeRoot, parent: &OwnedFd, path: &RelPath) -> Result<(), TreeError> {
    utimensat(parent, path.file_name(), &TIMES, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| root.failed("seal", path, errno))
}

/// Lets the owner read every file and enter every directory of a tree, whatever modes a
/// build left behind. It walks by descriptors and follows no link.
///
/// # Errors
/// [`TreeError::Access`] with the system's reason.
pub fn make_readable(root: &TreeRoot) -> Result<(), TreeError> {
    use rustix::fs::{Dir, FileType, chmodat, statat};
    let failed = |errno: rustix::io::Errno| TreeError::Access {
        operation: "open up",
        path: root.path().to_owned(),
        source: errno.into(),
    };
    fchmod(root.fd(), Mode::RWXU).map_err(failed)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = openat(root.fd(), ".", flags, Mode::empty()).map_err(failed)?;
    let mut pending = vec![top];
    while let Some(directory) = pending.pop() {
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            let wanted = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => 0o700,
                FileType::RegularFile => 0o400,
                _ => continue,
            };
            let mode = stat.st_mode & 0o777;
            if mode & wanted != wanted {
                // Not a link, as was just seen, and nobody else writes here any more.
                chmodat(
                    &directory,
                    name,
                    Mode::from_raw_mode(mode | wanted),
                    AtFlags::empty(),
                )
                .map_err(failed)?;
            }
            if wanted == 0o700 {
                pending.push(openat(&directory, name, flags, Mode::empty()).map_err(failed)?);
            }
        }
    }
    Ok(())
}

/// Makes every directory of a tree writable by its owner, so that entries can be replaced.
///
/// # Errors
/// [`TreeError::Access`] with the system's reason.
pub fn unlock_directories(root: &TreeRoot, listing: &Listing) -> Result<(), TreeError> {
    fchmod(root.fd(), Mode::RWXU).map_err(|errno| TreeError::Access {
        operation: "open up",
        path: root.path().to_owned(),
        source: errno.into(),
    })?;
    for (path, entry) in listing.iter() {
        if matches!(entry, Entry::Directory) {
            let fd = root.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            fchmod(&fd, Mode::RWXU).map_err(|errno| root.failed("open up", path, errno))?;
        }
    }
    Ok(())
}

/// Returns the digest that a file would have with patches applied.
///
/// # Errors
/// [`TreeError::Access`] when reading fails.
pub fn patched_digest(
    root: &TreeRoot,
    path: &RelPath,
    patches: &[Patch],
) -> Result<BlobDigest, TreeError> {
    let mut file = root.open_file(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; 1 << 20];
    let mut at = 0_u64;
    loop {
        let count = file
            .read(&mut block)
            .map_err(|source| access(root, "read", path, source))?;
        if count == 0 {
            return Ok(BlobDigest::from_bytes(*hasher.finalize().as_bytes()));
        }
        let bytes = block.get_mut(..count).unwrap_or_default();
        apply_to_block(bytes, at, patches);
        hasher.update(bytes);
        at += count as u64;
    }
}

fn apply_to_block(block: &mut [u8], block_at: u64, patches: &[Patch]) {
    let block_end = block_at + block.len() as u64;
    for patch in patches {
        let patch_end = patch.offset + BASE32_LEN as u64;
        let (start, end) = (patch.offset.max(block_at), patch_end.min(block_end));
        if start >= end {
            continue;
        }
        let within = |at: u64, base: u64| usize::try_from(at - base).unwrap_or(usize::MAX);
        let into = within(start, block_at)..within(end, block_at);
        let from = within(start, patch.offset)..within(end, patch.offset);
        if let (Some(into), Some(from)) = (block.get_mut(into), patch.text.get(from)) {
            into.copy_from_slice(from);
        }
    }
}

/// Returns a symbolic link's target with patches applied.
pub fn patched_target(target: &str, patches: &[Patch]) -> String {
    let mut bytes = target.as_bytes().to_vec();
    apply_to_block(&mut bytes, 0, patches);
    String::from_utf8(bytes).expect("ASCII characters replace ASCII characters")
}

/// Applies patches to a file on disk.
///
/// # Errors
/// [`TreeError::Access`] with the system's reason.
pub fn patch_file(root: &TreeRoot, path: &RelPath, patches: &[Patch]) -> Result<(), TreeError> {
    let reader = root.open_file(path)?;
    fchmod(&reader, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| root.failed("open up", path, errno))?;
    let file = File::from(root.open_beneath(path, OFlags::RDWR)?);
    for patch in patches {
        file.write_all_at(&patch.text, patch.offset)
            .map_err(|source| access(root, "rewrite", path, source))?;
    }
    Ok(())
}

/// Replaces a symbolic link by one with another target.
///
/// # Errors
/// [`TreeError::Access`] with the system's reason.
pub fn replace_symlink(root: &TreeRoot, path: &RelPath, target: &str) -> Result<(), TreeError> {
    let parent = root.open_parent(path)?;
    unlinkat(&parent, path.file_name(), AtFlags::empty())
        .and_then(|()| symlinkat(target, &parent, path.file_name()))
        .map_err(|errno| root.failed("rewrite the link", path, errno))
}

fn copy_apart(
    root: &TreeRoot,
    parent: &OwnedFd,
    path: &RelPath,
    file: &mut File,
) -> Result<File, TreeError> {
    // Several threads may copy in one directory at once: the name is the file's own.
    let name = format!(
        ".kiln-copy-{}",
        blake3::hash(path.as_str().as_bytes()).to_hex()
    );
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = openat(parent, name.as_str(), flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| root.failed("copy", path, errno))?;
    let mut copy = File::from(copy);
    file.seek(SeekFrom::Start(0))
        .and_then(|_| std::io::copy(file, &mut copy))
        .and_then(|_| copy.flush())
        .map_err(|source| access(root, "copy", path, source))?;
    renameat(parent, name.as_str(), parent, path.file_name())
        .map_err(|errno| root.failed("copy", path, errno))?;
    Ok(copy)
}

fn access(
    root: &TreeRoot,
    operation: &'static str,
    path: &RelPath,
    source: std::io::Error,
) -> TreeError {
    TreeError::Access {
        operation,
        path: root.shown(path),
        source,
    }
}
