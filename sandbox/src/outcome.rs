//! How a run ended, and what it used.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::request::Weakness;

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// What it used.
    pub usage: Usage,
    /// What this host lacks of what the request allows to be missing: if not empty, the
    /// sandbox was weaker than a sandbox can be.
    pub missing: BTreeSet<Weakness>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The program exited with this status.
    Exited(i32),
    /// The program was killed by this signal.
    Signaled(i32),
    /// It took longer than allowed.
    WallLimit,
    /// It was silent for longer than allowed.
    SilenceLimit,
    /// It wrote more log than allowed.
    LogLimit,
    /// It failed when it had as many processes as allowed, so that not one more could be
    /// started. That this made it fail is likely, and not known.
    ProcessLimit,
    /// It failed, and a process of it was killed since all together wanted more memory than
    /// they may have.
    OutOfMemory,
    /// It was killed for writing a file beyond the allowed size. A program that ignores
    /// that signal, or is not the first of the run, fails with a status of its own.
    FileLimit,
    /// The caller cancelled it.
    Cancelled,
}

/// What a run used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// From start to end.
    pub wall: Duration,
    /// Processor time of all processes that were waited for.
    pub cpu: Duration,
    /// Largest resident size of a single process, in bytes.
    pub peak_memory_bytes: u64,
    /// Bytes that those processes gave to file systems on a disk, whether they reached it
    /// or were deleted first; what stays in memory (tmpfs) is not counted.
    pub written_bytes: u64,
    /// Bytes of log.
    pub log_bytes: u64,
}
