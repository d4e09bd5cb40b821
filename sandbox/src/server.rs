//! The parent's hold on the server that starts monitors.
//!
//! Executing a large program costs more than a whole small run, so one server is started
//! for all runs of a launcher and forks one for each, ahead of time. It ends when its socket
//! closes, that is when the last launcher is dropped or the parent dies.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{Access, MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::child::CHILD_ARGUMENT;
use crate::sys;
use crate::wire::{DESCRIPTORS, send_descriptors};

/// Names the executable that runs, even if its file was replaced meanwhile.
pub(crate) const RUNNING: &str = "/proc/self/exe";

/// A server that is running, or was.
#[derive(Debug)]
pub(crate) struct Server {
    /// Closing it makes the server end.
    socket: Option<OwnedFd>,
    child: Child,
}

impl Server {
    /// Starts an executable as the server.
    pub(crate) fn start(program: &Path) -> io::Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let instead = unchangeable(program)?;
        let started = match &instead {
            Some(file) => PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
            None => program.to_owned(),
        };
        let child = Command::new(started)
            .arg0("kiln")
            .arg(CHILD_ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            socket: Some(ours),
            child,
        })
    }

    /// Asks for a monitor that uses a life line, a status pipe, and what output and errors
    /// are written to.
    pub(crate) fn ask(&self, descriptors: [BorrowedFd<'_>; DESCRIPTORS]) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        send_descriptors(socket, descriptors)
    }
}

/// Returns what to execute instead of an executable that its caller could change; nothing
/// for another.
///
/// A build can make its first process execute the sandbox's own executable (a script whose
/// interpreter is `/proc/self/exe`) and so get hold of the file (CVE-2019-5736). What it
/// holds then must not be a file of the host that it may chmod.
fn unchangeable(program: &Path) -> io::Result<Option<OwnedFd>> {
    let executable = File::open(program)?;
    let found = executable.metadata()?;
    let writable = rustix::fs::access(program, Access::WRITE_OK).is_ok();
    if found.uid() != nix::unistd::geteuid().as_raw() && !writable {
        return Ok(None);
    }
    match read_only(program, &found) {
        Ok(mount) => Ok(Some(mount)),
        // A copy does as well, and takes longer.
        Err(_) => sealed_copy(executable).map(Some),
    }
}

/// Returns an executable by a mount that only grants reading, whoever owns the file.
fn read_only(program: &Path, expected: &Metadata) -> io::Result<OwnedFd> {
    // A name for a mount that is in the namespace: the link leads to one that is not.
    let path = if program == Path::new(RUNNING) {
        std::fs::read_link(program)?
    } else {
        program.to_owned()
    };
    let mount = sys::read_only_mount(&path)?;
    // What is there by that name now may be another file.
    let found = rustix::fs::fstat(&mount)?;
    if (found.st_dev, found.st_ino) == (expected.dev(), expected.ino()) {
        Ok(mount)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Returns a copy in memory, which nobody can change.
fn sealed_copy(mut executable: File) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = match memfd_create(c"kiln", flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 do not know the flag, and make every such file executable.
        Err(Errno::INVAL) => memfd_create(c"kiln", flags)?,
        other => other?,
    };
    let mut copy = File::from(copy);
    io::copy(&mut executable, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}

impl Drop for Server {
    fn drop(&mut self) {
        self.socket = None;
        // It ends by itself; waiting only keeps it from staying a zombie, and cannot fail
        // but for a parent that lets the kernel collect its children.
        drop(self.child.wait());
    }
}
