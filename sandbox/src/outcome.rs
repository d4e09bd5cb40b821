//! How a run ended, and what it used.

use std::time::Duration;

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// What it used.
    pub usage: Usage,
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
    /// Bytes of log.
    pub log_bytes: u64,
}
