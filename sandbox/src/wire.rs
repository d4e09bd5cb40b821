//! What travels between the parent and the child it started: one machine, one executable,
//! one moment, so the encoding (bincode) need not outlive any of them.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::lock::Lock;
use crate::request::Weakness;

/// Largest message, in bytes: requests hold a script and a few hundred paths.
const MAX: usize = 64 << 20;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<MAX>> = bincode::config::standard()
    .with_fixed_int_encoding()
    .with_limit::<MAX>();

/// What the child tells the parent.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Report {
    /// A step failed, with the system's error number.
    Failed { step: String, errno: i32 },
    /// The host does not permit a step, with the system's error number.
    Forbidden { step: String, errno: i32 },
    /// The supervisor could not do its part, with the system's error number.
    Unsupervised { what: String, errno: i32 },
    /// A program that maps ids refused to, or the file that they are written to.
    Unmapped { by: String, said: String },
    /// The program exited.
    Exited(i32),
    /// The program was killed.
    Signaled(i32),
    /// What all processes used.
    Used(Used),
    /// The program ended when no other process fitted under the limit.
    AtProcessLimit,
    /// Something is missing on this host that the request does without.
    Missing(Weakness),
    /// Something is missing on this host that the request needs.
    Needed(Weakness),
    /// A lock does not hold.
    Open(Lock),
}

/// What the processes of a run used that were waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Used {
    pub cpu_micros: u64,
    pub peak_memory_bytes: u64,
    pub written_bytes: u64,
}

/// The most descriptors of one message: life line, status, output and errors of a run.
pub(crate) const DESCRIPTORS: usize = 4;

/// Sends descriptors, at most [`DESCRIPTORS`] of them.
pub(crate) fn send_descriptors<const COUNT: usize>(
    socket: &OwnedFd,
    descriptors: [BorrowedFd<'_>; COUNT],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(
        socket,
        &[IoSlice::new(b"!")],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives descriptors; `None` when the other end is closed.
pub(crate) fn receive_descriptors<const COUNT: usize>(
    socket: &OwnedFd,
) -> io::Result<Option<[OwnedFd; COUNT]>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = loop {
        let slices = &mut [IoSliceMut::new(&mut byte)];
        match recvmsg(socket, slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    descriptors
        .try_into()
        .map(Some)
        .map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Writes one message: its length in four bytes, then its encoding.
pub(crate) fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let bytes = bincode::serde::encode_to_vec(message, CONFIG).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut framed = length.to_le_bytes().to_vec();
    framed.extend_from_slice(&bytes);
    to.write_all(&framed)
}

/// Reads one message; `None` at the end of the stream.
pub(crate) fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = usize::try_from(u32::from_le_bytes(length)).map_err(io::Error::other)?;
    if length > MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message is too long",
        ));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    let (message, used): (T, usize) =
        bincode::serde::decode_from_slice(&bytes, CONFIG).map_err(io::Error::other)?;
    if used != bytes.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message has trailing bytes",
        ));
    }
    Ok(Some(message))
}
