//! Copies a tree into the sandbox, through descriptors and without following a link.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::libc;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps, fchmod, futimens, mkdirat, openat,
    readlinkat, statat, symlinkat, utimensat,
};

/// Deepest tree that is copied; each level holds two descriptors.
const MAX_DEPTH: usize = 200;

/// Copies what a directory holds, in the order of names: content, modes and times.
/// Set-id bits are left behind.
///
/// # Errors
/// What the system says, and for anything but directories, files and symbolic links.
pub(crate) fn copy(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    copy_directory(&openat(from, ".", flags, Mode::empty())?, to, MAX_DEPTH)
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, depth: usize) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in Dir::read_from(from)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let stat = statat(from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let depth = depth
                    .checked_sub(1)
                    .ok_or_else(|| io::Error::from_raw_os_error(libc::ENAMETOOLONG))?;
                mkdirat(to, &name, Mode::RWXU)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = openat(to, &name, flags, Mode::empty())?;
                copy_directory(&openat(from, &name, flags, Mode::empty())?, &inner, depth)?;
                seal(&inner, &stat)?;
            }
            FileType::RegularFile => {
                let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut source = File::from(openat(from, &name, read, Mode::empty())?);
                let mut copied = File::from(openat(to, &name, write, Mode::RWXU)?);
                io::copy(&mut source, &mut copied)?;
                seal(&copied.into(), &stat)?;
            }
            FileType::Symlink => {
                symlinkat(readlinkat(from, &name, Vec::new())?, to, &name)?;
                utimensat(to, &name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            _ => return Err(io::Error::from_raw_os_error(libc::ENOTSUP)),
        }
    }
    Ok(())
}

fn seal(copied: &OwnedFd, stat: &rustix::fs::Stat) -> io::Result<()> {
    fchmod(copied, Mode::from_raw_mode(stat.st_mode & 0o777))?;
    Ok(futimens(copied, &times(stat))?)
}

fn times(stat: &rustix::fs::Stat) -> Timestamps {
    let at = |tv_sec, tv_nsec: u64| Timespec {
        tv_sec,
        tv_nsec: i64::try_from(tv_nsec).unwrap_or(0),
    };
    Timestamps {
        last_access: at(stat.st_atime, stat.st_atime_nsec),
        last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
    }
}
