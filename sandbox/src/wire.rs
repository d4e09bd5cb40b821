//! What travels between the parent and the child it started: one machine, one executable,
//! one moment, so the encoding (bincode) need not outlive any of them.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};

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
    /// The supervisor could not do its part, with the system's error number.
    Unsupervised { what: String, errno: i32 },
    /// The program exited.
    Exited(i32),
    /// The program was killed.
    Signaled(i32),
    /// What all processes used: processor time in microseconds, memory in bytes.
    Used {
        cpu_micros: u64,
        peak_memory_bytes: u64,
    },
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
