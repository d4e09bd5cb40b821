//! The parent's hold on the server that starts monitors.
//!
//! Executing a large program costs more than a whole small run, so one server is started
//! for all runs of a launcher and forks for each. It ends when its socket closes, that is
//! when the last launcher is dropped or the parent dies.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::child::CHILD_ARGUMENT;
use crate::wire::send_descriptors;

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
        let child = Command::new(program)
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

    /// Asks for a monitor that uses a life line, a status pipe and a log.
    pub(crate) fn ask(&self, descriptors: [BorrowedFd<'_>; 3]) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        send_descriptors(socket, descriptors)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.socket = None;
        // It ends by itself; waiting only keeps it from staying a zombie, and cannot fail
        // but for a parent that lets the kernel collect its children.
        drop(self.child.wait());
    }
}
