//! Copies and clears trees, through descriptors and without following a link.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};

use nix::libc;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, fchmod, futimens,
    mkdirat, mknodat, openat, readlinkat, seek, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

/// Deepest tree that is copied or cleared; each level holds two descriptors.
const MAX_DEPTH: usize = 200;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// What is done about FIFOs and sockets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// They are refused.
    Refused,
    /// They are made anew; nothing is at their other end.
    Made,
}

/// Copies what a directory holds, in the order of names: content, modes and times.
/// Set-id bits are left behind.
///
/// # Errors
/// What the system says, and for anything but directories, files and symbolic links.
pub(crate) fn copy(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let from = openat(from, ".", DIRECTORY, Mode::empty())?;
    copy_directory(&from, to, MAX_DEPTH, Others::Refused)
}

/// Copies FIFOs and sockets too. Whoever owns what is copied, the copy is this process's.
///
/// # Errors
/// What the system says, and for a device.
pub(crate) fn copy_all(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let from = openat(from, ".", DIRECTORY, Mode::empty())?;
    copy_directory(&from, to, MAX_DEPTH, Others::Made)
}

/// Deletes what a directory holds.
///
/// # Errors
/// What the system says.
pub(crate) fn clear(directory: &OwnedFd) -> io::Result<()> {
    let directory = openat(directory, ".", DIRECTORY, Mode::empty())?;
    clear_directory(&directory, MAX_DEPTH)
}

/// Returns the names in a directory, sorted.
fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn deeper(depth: usize) -> io::Result<usize> {
    depth
        .checked_sub(1)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENAMETOOLONG))
}

fn clear_directory(directory: &OwnedFd, depth: usize) -> io::Result<()> {
    for name in names(directory)? {
        match unlinkat(directory, &name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                let inner = openat(directory, &name, DIRECTORY, Mode::empty())?;
                clear_directory(&inner, deeper(depth)?)?;
                unlinkat(directory, &name, AtFlags::REMOVEDIR)?;
            }
            other => other?,
        }
    }
    Ok(())
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, depth: usize, others: Others) -> io::Result<()> {
    for name in names(from)? {
        let stat = statat(from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(to, &name, Mode::RWXU)?;
                let inner = openat(to, &name, DIRECTORY, Mode::empty())?;
                let source = openat(from, &name, DIRECTORY, Mode::empty())?;
                copy_directory(&source, &inner, deeper(depth)?, others)?;
                seal(&inner, &stat)?;
            }
            FileType::RegularFile => {
                let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut source = File::from(openat(from, &name, read, Mode::empty())?);
                let mut copied = File::from(openat(to, &name, write, Mode::RWXU)?);
                copy_file(&mut source, &mut copied)?;
                seal(&copied.into(), &stat)?;
            }
            FileType::Symlink => {
                symlinkat(readlinkat(from, &name, Vec::new())?, to, &name)?;
                utimensat(to, &name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            kind @ (FileType::Fifo | FileType::Socket) if others == Others::Made => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o777);
                mknodat(to, &name, kind, mode, 0)?;
            }
            _ => return Err(io::Error::from_raw_os_error(libc::ENOTSUP)),
        }
    }
    Ok(())
}

/// Copies what a file holds; where it holds nothing, so does the copy.
fn copy_file(from: &mut File, to: &mut File) -> io::Result<()> {
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut at = 0;
    while at < size {
        let start = match seek(from.as_fd(), SeekFrom::Data(at)) {
            // Nothing but a hole is left.
            Err(Errno::NXIO) => return Ok(()),
            other => other?,
        };
        let end = seek(from.as_fd(), SeekFrom::Hole(start))?;
        from.seek(io::SeekFrom::Start(start))?;
        to.seek(io::SeekFrom::Start(start))?;
        io::copy(&mut from.by_ref().take(end - start), to)?;
        at = end;
    }
    Ok(())
}

fn seal(copied: &OwnedFd, stat: &Stat) -> io::Result<()> {
    fchmod(copied, Mode::from_raw_mode(stat.st_mode & 0o777))?;
    Ok(futimens(copied, &times(stat))?)
}

fn times(stat: &Stat) -> Timestamps {
    let at = |tv_sec, tv_nsec: u64| Timespec {
        tv_sec,
        tv_nsec: i64::try_from(tv_nsec).unwrap_or(0),
    };
    Timestamps {
        last_access: at(stat.st_atime, stat.st_atime_nsec),
        last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
    }
}
