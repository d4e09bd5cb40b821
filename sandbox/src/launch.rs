//! The parent: starts the child, reads the log, enforces limits, and returns only when
//! everything in the namespaces is dead.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::child::{CHILD_ARGUMENT, ENTER};
use crate::outcome::{End, Outcome, Usage};
use crate::request::{Limits, RequestError, SandboxRequest};
use crate::sys;
use crate::wire::{Report, receive, send};

/// A run that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The request asks for what cannot be.
    #[error("the sandbox request is not valid")]
    Request(#[from] RequestError),
    /// The child could not be started.
    #[error("cannot start `{}` as the sandbox", program.display())]
    Spawn {
        /// The executable.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host forbids what a sandbox needs.
    #[error("this machine does not allow an ordinary user to {step}")]
    Forbidden {
        /// What was tried.
        step: String,
        /// What to change, in words.
        setting: String,
        /// What the system said.
        source: io::Error,
    },
    /// A step failed.
    #[error("the sandbox could not {step}")]
    Step {
        /// What was tried.
        step: String,
        /// What the system said.
        source: io::Error,
    },
    /// The supervisor failed, and the run was ended.
    #[error("the sandbox's supervisor could not {what}")]
    Supervision {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The child ended without a word.
    #[error("the sandbox ended without saying how the build ended")]
    Silent,
    /// Reading from the child failed.
    #[error("lost the connection to the sandbox")]
    Connection(#[source] io::Error),
}

/// Ends runs early; clones share one state.
#[derive(Debug, Clone)]
pub struct Cancel {
    shared: Arc<CancelState>,
}

#[derive(Debug)]
struct CancelState {
    /// Readable for ever once the writer is gone.
    reader: PipeReader,
    writer: Mutex<Option<PipeWriter>>,
}

impl Cancel {
    /// Makes one that is not cancelled.
    ///
    /// # Errors
    /// When the system has no more descriptors.
    pub fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self {
            shared: Arc::new(CancelState {
                reader,
                writer: Mutex::new(Some(writer)),
            }),
        })
    }

    /// Ends every run that shares this, now and in the future.
    pub fn cancel(&self) {
        self.shared
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Returns whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.shared
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
    }
}

/// Starts sandboxes.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
}

impl Launcher {
    /// Uses an executable whose `main` calls [`crate::enter_if_asked`] first.
    pub fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// Uses the running executable, even if its file was replaced meanwhile.
    pub fn current() -> Self {
        Self::new(PathBuf::from("/proc/self/exe"))
    }

    /// Runs a request to its end. `log` sees what the program writes, as it writes it.
    ///
    /// # Errors
    /// [`SandboxError`] when the program did not run; however it ended is an [`Outcome`].
    pub fn run(
        &self,
        request: &SandboxRequest,
        log: &mut dyn FnMut(&[u8]),
        cancel: &Cancel,
    ) -> Result<Outcome, SandboxError> {
        request.validate()?;
        let started = Instant::now();
        let mut child = self.spawn()?;
        let mut run = Run::new(&mut child, &request.limits, started)?;
        if let Some(life) = &mut run.life {
            send(life, request).map_err(SandboxError::Connection)?;
        }
        run.watch(log, cancel).map_err(SandboxError::Connection)?;
        let (killed, reports, log_bytes) = (run.killed, run.reports, run.log_bytes);
        child.wait().map_err(SandboxError::Connection)?;
        finish(killed, &reports, started.elapsed(), log_bytes)
    }

    fn spawn(&self) -> Result<Child, SandboxError> {
        Command::new(&self.program)
            .arg0("kiln")
            .arg(CHILD_ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| SandboxError::Spawn {
                program: self.program.clone(),
                source,
            })
    }
}

/// A run in progress.
struct Run {
    /// Closing it makes the monitor kill everything.
    life: Option<std::process::ChildStdin>,
    status: std::process::ChildStdout,
    log: Option<std::process::ChildStderr>,
    limits: Limits,
    started: Instant,
    heard: Instant,
    log_bytes: u64,
    killed: Option<End>,
    received: Vec<u8>,
    reports: Vec<Report>,
}

impl Run {
    fn new(child: &mut Child, limits: &Limits, started: Instant) -> Result<Self, SandboxError> {
        let status = child.stdout.take().ok_or(SandboxError::Silent)?;
        let log = child.stderr.take().ok_or(SandboxError::Silent)?;
        for fd in [status.as_fd(), log.as_fd()] {
            sys::set_nonblocking(fd).map_err(SandboxError::Connection)?;
        }
        Ok(Self {
            life: child.stdin.take(),
            status,
            log: Some(log),
            limits: limits.clone(),
            started,
            heard: started,
            log_bytes: 0,
            killed: None,
            received: Vec::new(),
            reports: Vec::new(),
        })
    }

    fn kill(&mut self, why: End) {
        self.killed.get_or_insert(why);
        self.life = None;
    }

    /// Returns when the next limit is reached, and which.
    fn deadline(&self) -> Option<(Instant, End)> {
        if self.killed.is_some() {
            return None;
        }
        let wall = self
            .limits
            .wall
            .map(|limit| (self.started + limit, End::WallLimit));
        let silence = self
            .limits
            .silence
            .map(|limit| (self.heard + limit, End::SilenceLimit));
        wall.into_iter().chain(silence).min_by_key(|(at, _)| *at)
    }

    /// Reads until the monitor has closed its side, which it does when all is dead.
    fn watch(&mut self, log: &mut dyn FnMut(&[u8]), cancel: &Cancel) -> io::Result<()> {
        loop {
            let deadline = self.deadline();
            let timeout = deadline.map_or(PollTimeout::NONE, |(at, _)| {
                let left = at.saturating_duration_since(Instant::now());
                // Rounded up, so that the limit has passed when the call returns.
                let millis = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
                PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
            });
            let (status_ready, log_ready, cancelled) = self.wait_for_news(timeout, cancel)?;
            if log_ready {
                self.read_log(log)?;
            }
            if cancelled {
                self.kill(End::Cancelled);
            }
            if let Some((at, end)) = self.deadline()
                && Instant::now() >= at
            {
                self.kill(end);
            }
            if status_ready && self.read_status()? {
                // All writers are dead: what is left in the pipe is all there is.
                return self.read_log(log);
            }
        }
    }

    fn wait_for_news(
        &self,
        timeout: PollTimeout,
        cancel: &Cancel,
    ) -> io::Result<(bool, bool, bool)> {
        let mut watched = vec![PollFd::new(self.status.as_fd(), PollFlags::POLLIN)];
        let log_at = self.log.as_ref().map(|log| {
            watched.push(PollFd::new(log.as_fd(), PollFlags::POLLIN));
            watched.len() - 1
        });
        let cancel_at = self.killed.is_none().then(|| {
            watched.push(PollFd::new(cancel.shared.reader.as_fd(), PollFlags::POLLIN));
            watched.len() - 1
        });
        match poll(&mut watched, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = |at: Option<usize>| {
            at.and_then(|at| watched.get(at))
                .and_then(PollFd::any)
                .unwrap_or(false)
        };
        Ok((ready(Some(0)), ready(log_at), ready(cancel_at)))
    }

    /// Takes everything that is in the log's pipe now.
    fn read_log(&mut self, log: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut block = vec![0; 1 << 16];
        while let Some(pipe) = &mut self.log {
            match pipe.read(&mut block) {
                Ok(0) => self.log = None,
                Ok(count) => {
                    self.heard = Instant::now();
                    let room = self.limits.log_bytes.unwrap_or(u64::MAX) - self.log_bytes;
                    let kept = count.min(usize::try_from(room).unwrap_or(usize::MAX));
                    self.log_bytes += kept as u64;
                    log(block.get(..kept).unwrap_or(&[]));
                    if kept < count {
                        self.kill(End::LogLimit);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes what the child reported; returns whether it has ended.
    fn read_status(&mut self) -> io::Result<bool> {
        let mut block = [0; 4096];
        loop {
            match self.status.read(&mut block) {
                Ok(0) => {
                    let mut rest = self.received.as_slice();
                    while let Some(report) = receive::<Report>(&mut rest)? {
                        self.reports.push(report);
                    }
                    return Ok(true);
                }
                Ok(count) if self.received.len() < 1 << 16 => {
                    self.received
                        .extend_from_slice(block.get(..count).unwrap_or(&[]));
                }
                Ok(_) => return Err(io::Error::other("the sandbox reports without end")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn finish(
    killed: Option<End>,
    reports: &[Report],
    wall: Duration,
    log_bytes: u64,
) -> Result<Outcome, SandboxError> {
    let mut usage = Usage {
        wall,
        log_bytes,
        ..Usage::default()
    };
    let mut end = killed;
    let mut failure = None;
    for report in reports {
        match report {
            Report::Exited(status) => end = end.or(Some(End::Exited(*status))),
            Report::Signaled(signal) => end = end.or(Some(End::Signaled(*signal))),
            Report::Used {
                cpu_micros,
                peak_memory_bytes,
            } => {
                usage.cpu = Duration::from_micros(*cpu_micros);
                usage.peak_memory_bytes = *peak_memory_bytes;
            }
            Report::Failed { step, errno } => {
                let source = io::Error::from_raw_os_error(*errno);
                failure.get_or_insert_with(|| explain(step.clone(), source));
            }
            // Whatever the program did then, it did not see what was asked for.
            Report::Unsupervised { what, errno } if killed.is_none() => {
                return Err(SandboxError::Supervision {
                    what: what.clone(),
                    source: io::Error::from_raw_os_error(*errno),
                });
            }
            Report::Unsupervised { .. } => {}
        }
    }
    match (failure, end) {
        (Some(failure), None | Some(End::Exited(_))) => Err(failure),
        (_, Some(end)) => Ok(Outcome { end, usage }),
        (_, None) => Err(SandboxError::Silent),
    }
}

/// Tells a host that forbids namespaces from any other failure.
fn explain(step: String, source: io::Error) -> SandboxError {
    if step != ENTER {
        return SandboxError::Step { step, source };
    }
    SandboxError::Forbidden {
        step,
        setting: blocking_setting(),
        source,
    }
}

/// Returns what on this host keeps users from making namespaces, and what to do about it.
pub(crate) fn blocking_setting() -> String {
    let value = |path: &str| {
        std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    let set =
        |key: &str, value: &str| format!("`{key}` forbids it; as root: `sysctl -w {key}={value}`");
    if value("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        return set("kernel.unprivileged_userns_clone", "1");
    }
    if value("/proc/sys/user/max_user_namespaces") == "0" {
        return set("user.max_user_namespaces", "15000");
    }
    if value("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        return set("kernel.apparmor_restrict_unprivileged_userns", "0");
    }
    "no kernel setting forbids it, so the container or service that runs kiln does \
     (its seccomp or AppArmor profile must allow `unshare`)"
        .to_owned()
}
