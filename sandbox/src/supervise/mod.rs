//! Variations that a static program observes too: a supervisor answers in the kernel's place.
//!
//! Only a request with a [`Supervision`] has one. Nothing is preloaded into the build: a
//! filter hands the calls that a knob is about to the supervisor (seccomp's user
//! notification), which writes the answer into the caller. Two things need more:
//!
//! - libc reads the clock, and random bytes, without a call, from code that the kernel maps
//!   (the vDSO). So each `execve` is reported too: the supervisor seizes the caller with
//!   ptrace until the new program stops before its first instruction, turns
//!   `AT_SYSINFO_EHDR` of its auxiliary vector into `AT_IGNORE`, and lets go of it. No
//!   process is traced for longer, so forks, threads, signals and stops are the kernel's.
//! - A call that waits for an absolute time must wait for the real one. It is interrupted
//!   before it starts, repeated with a pointer to a shifted copy below its stack, and let go
//!   of when it returns with its registers as they were.
//!
//! ```text
//! monitor ── supervisor: same user namespace, outside the PID namespace, CAP_SYS_PTRACE only
//!   └─ init ── builder: installs the filter, sends the listener, executes the program
//! ```
//!
//! The supervisor is a process of its own, so that nothing a build makes it wait for keeps
//! the monitor from ending the run. It stands outside the PID namespace, so a build has no
//! name for it: it cannot be signalled or traced, and `TracerPid` says 0. It dies with the
//! monitor; when it dies first, the monitor ends the run, and the run fails.
//!
//! | file | what it does |
//! |---|---|
//! | `filter` | PURE: which calls a request's knobs ask about, as a filter |
//! | `auxv` | PURE: finds the auxiliary vector on a new program's stack |
//! | `random` | PURE: the stream of a seed |
//! | `clock` | shifted clocks, and what waits for one |
//! | `machine` | names, memory and processors |
//! | `directory` | the order of directory entries |
//! | `tracer` | seizes, rewrites, lets go |
//! | `serve` | builder's and supervisor's sides: hands over the listener, and the loop |
//! | `sys` | the system calls that no library wraps |
//!
//! # What a build can still tell
//!
//! - The processor answers `CPUID`, `RDTSC` and `RDPID` itself, and `self/auxv` below `/proc`
//!   says what is so. `/proc/uptime` is zero, as without a supervisor. Where the request
//!   shows the host's `/proc` ([`Machine::Host`]), all of it says what is so; else the plan
//!   covers `cpuinfo`, `stat`, `meminfo` and the kernel's name with what is told here.
//! - File times (`stat`, `statx`, `utimensat` with `UTIME_NOW`) are the kernel's, unshifted.
//!   That is why the clock goes forward only: make accepts files that are old, and complains
//!   of files from the future. `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME` are as without.
//! - `/dev/urandom`, `/dev/random` and `RDRAND` are random; `getrandom` and `AT_RANDOM` come
//!   from the seed, in the order in which the build's processes ask.
//! - A program that looks for the vDSO in `/proc/self/maps` or `/proc/self/auxv` finds it.
//! - `Seccomp_filters` in `/proc/self/status` counts one more, and a build cannot listen to
//!   a filter of its own (`EBUSY`).
//! - The supervisor is one of the processes that the request allows the user (`RLIMIT_NPROC`).
//! - A signal that arrives in the microseconds between a call and its reception, and whose
//!   handler asks for no restart, ends the call with `EINTR`, which these calls do not know
//!   otherwise.
//! - A 32-bit program is killed by its first call, as without a supervisor.
//! - A program that the build may execute but not read, and whose owner is nobody inside,
//!   cannot be rewritten: it ends the run with an error.
//! - Each answer takes some ten microseconds, where the vDSO takes a fraction of one.
//!
//! [`Machine::Host`]: crate::request::Machine::Host
//!
//! x86-64 and Linux 5.19; the order of directories that a thread with descriptors of its own
//! lists (`unshare(CLONE_FILES)`) needs Linux 6.9, and so does that of any thread whose
//! process's first has ended. What cannot be varied ends the run with an error.

mod auxv;
mod clock;
mod directory;
mod filter;
mod machine;
mod random;
mod serve;
mod sys;
mod tracer;

use std::fmt;
use std::num::NonZeroU16;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::validate::RequestError;

pub(crate) use serve::{hand_over, line, supervise};
pub(crate) use sys::processes;

/// What the supervisor changes; `None` leaves the kernel's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervision {
    /// How far the wall clock is ahead of the host's. There is no way back: the times of
    /// files are the kernel's, and make complains of files from the future.
    pub clock_ahead: Option<Duration>,
    /// What `uname` says of the kernel, whatever `SandboxRequest::release` asks for.
    pub kernel: Option<KernelName>,
    /// The size of memory, in bytes, that `sysinfo` says.
    pub memory_bytes: Option<u64>,
    /// How much longer than it has the machine says (`sysinfo`) that it has been up.
    pub uptime_ahead: Option<Duration>,
    /// How many processors a program that did not choose some itself may use, it is told.
    /// It runs on those of the request.
    pub cores: Option<NonZeroU16>,
    /// What `getrandom` and `AT_RANDOM` are computed from.
    pub random_seed: Option<[u8; 32]>,
    /// The order in which directories are listed. `.` and `..` come first in all of them.
    pub directory_order: Option<DirectoryOrder>,
}

/// What a kernel calls itself; the machine and the operating system stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelName {
    /// As in `uname -r`.
    pub release: String,
    /// As in `uname -v`.
    pub version: String,
}

/// An order of the entries of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryOrder {
    /// The file system's, from its end.
    Reversed,
    /// By a hash of name and number: the same on every file system.
    Hashed(u64),
}

/// The farthest that a clock goes ahead: a century.
const FARTHEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The longest text of `uname`.
const LONGEST_NAME: usize = 64;

impl Supervision {
    /// Refuses what cannot be said to a program.
    pub(crate) fn validate(&self) -> Result<(), RequestError> {
        for ahead in [self.clock_ahead, self.uptime_ahead].into_iter().flatten() {
            if ahead > FARTHEST {
                return Err(RequestError::Ahead(ahead));
            }
        }
        let names = self
            .kernel
            .iter()
            .flat_map(|kernel| [&kernel.release, &kernel.version]);
        for name in names {
            if name.is_empty() || name.len() > LONGEST_NAME || name.contains('\0') {
                return Err(RequestError::KernelName(name.clone()));
            }
        }
        Ok(())
    }

    /// Returns whether programs must not read from the vDSO.
    fn hides_vdso(&self) -> bool {
        self.clock_ahead.is_some() || self.random_seed.is_some()
    }
}

impl fmt::Display for Supervision {
    /// Names what is varied.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let knobs = [
            (self.clock_ahead.is_some(), "the wall clock"),
            (self.kernel.is_some(), "the kernel's name"),
            (self.memory_bytes.is_some(), "memory"),
            (self.uptime_ahead.is_some(), "uptime"),
            (self.cores.is_some(), "processors"),
            (self.random_seed.is_some(), "random bytes"),
            (self.directory_order.is_some(), "directories"),
        ];
        let mut names = knobs.iter().filter(|(varied, _)| *varied);
        match names.next() {
            None => f.write_str("nothing"),
            Some((_, first)) => {
                f.write_str(first)?;
                names.try_for_each(|(_, name)| write!(f, ", {name}"))
            }
        }
    }
}

/// What ended a supervision, and with it the run.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct SuperviseError {
    /// What was tried.
    pub what: &'static str,
    /// What the system said.
    pub source: std::io::Error,
}

/// Says what was tried, beside what the system said.
trait Tried<T> {
    fn tried(self, what: &'static str) -> Result<T, SuperviseError>;
}

impl<T, E: Into<std::io::Error>> Tried<T> for Result<T, E> {
    fn tried(self, what: &'static str) -> Result<T, SuperviseError> {
        self.map_err(|source| SuperviseError {
            what,
            source: source.into(),
        })
    }
}

/// A system call that waits for an answer.
#[derive(Debug, Clone, Copy)]
struct Call {
    /// The notification's number.
    id: u64,
    /// The calling thread, as seen from outside.
    thread: i32,
    /// The call's number in the kernel's table.
    number: i64,
    /// Its arguments.
    arguments: [u64; 6],
}

/// What happens to a call.
#[derive(Debug)]
enum Reply {
    /// It returns this.
    Value(i64),
    /// It fails with this error number.
    Error(i32),
    /// The kernel performs it.
    Proceed,
    /// It is interrupted, and repeated with another time.
    Repeat(clock::Absolute),
    /// The caller is dead.
    Gone,
}

/// Writes an answer into the caller, and returns what the call returns.
fn deliver(call: &Call, address: u64, bytes: &[u8], value: i64) -> Result<Reply, SuperviseError> {
    match sys::write_memory(call.thread, address, bytes) {
        Ok(()) => Ok(Reply::Value(value)),
        Err(error) => unreachable_memory(error),
    }
}

/// Tells a caller's bad pointer and a caller's death from what ends the run.
fn unreachable_memory(error: std::io::Error) -> Result<Reply, SuperviseError> {
    use nix::libc::{EFAULT, ESRCH};
    match error.raw_os_error() {
        Some(EFAULT) => Ok(Reply::Error(EFAULT)),
        Some(ESRCH) => Ok(Reply::Gone),
        _ => Err(error).tried("reach the memory of a program it supervises"),
    }
}
