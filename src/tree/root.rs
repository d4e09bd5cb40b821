//! A directory as a capability: every path is resolved beneath it, links are not followed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use super::TreeError;
use crate::hash::RelPath;

/// Opens a regular file and nothing else: no device that never ends, no pipe that waits.
///
/// # Errors
/// What opening fails with; of the kind `Other` for what is not a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("it is not a regular file"))
}

/// An open directory, and its path for messages.
#[derive(Debug)]
pub struct TreeRoot {
    fd: OwnedFd,
    path: PathBuf,
}

impl TreeRoot {
    /// Opens a directory; its last component must not be a symbolic link.
    ///
    /// # Errors
    /// [`TreeError::Access`] when it cannot be opened or is no directory.
    pub fn open(path: &Path) -> Result<Self, TreeError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty()).map_err(|errno| TreeError::Access {
            operation: "open the directory",
            path: path.to_owned(),
            source: errno.into(),
        })?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// Returns the directory's descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Returns where an entry lies on this machine, for messages.
    pub fn shown(&self, path: &RelPath) -> PathBuf {
        self.path.join(path.as_str())
    }

    /// Returns where the directory itself lies on this machine.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens an entry beneath the root without following any link or crossing a mount.
    ///
    /// # Errors
    /// [`TreeError::Access`] with the system's reason.
    pub fn open_beneath(&self, path: &RelPath, flags: OFlags) -> Result<OwnedFd, TreeError> {
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // The kernel asks for a retry when a rename elsewhere races with the resolution.
        for _ in 0..64 {
            match openat2(&self.fd, path.as_str(), flags, Mode::empty(), resolve) {
                Err(rustix::io::Errno::AGAIN) => {}
                Ok(fd) => return Ok(fd),
                Err(errno) => return Err(self.failed("open", path, errno)),
            }
        }
        Err(self.failed("open", path, rustix::io::Errno::AGAIN))
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// [`TreeError::Access`] with the system's reason.
    pub fn open_file(&self, path: &RelPath) -> Result<File, TreeError> {
        self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK)
            .map(File::from)
    }

    /// Opens the directory that holds an entry, to act on the entry by its last component.
    ///
    /// # Errors
    /// [`TreeError::Access`] with the system's reason.
    pub fn open_parent(&self, path: &RelPath) -> Result<OwnedFd, TreeError> {
        match path.parent() {
            Some(parent) => self.open_beneath(&parent, OFlags::RDONLY | OFlags::DIRECTORY),
            None => self.fd.try_clone().map_err(|source| TreeError::Access {
                operation: "open",
                path: self.path.clone(),
                source,
            }),
        }
    }

    pub(super) fn failed(
        &self,
        operation: &'static str,
        path: &RelPath,
        errno: rustix::io::Errno,
    ) -> TreeError {
        TreeError::Access {
            operation,
            path: self.shown(path),
            source: errno.into(),
        }
    }
}
