//! The processes of the sandbox: server, monitor, init and builder.
//!
//! The server is this executable started again, so it has one thread, no descriptors but
//! its own, and none of the parent's memory. For each run it forks a monitor, which
//! performs the plan. The monitor holds one end of a pipe whose other end the parent holds
//! (the life line): when that end closes, it kills init, and with init the kernel kills
//! everything in the namespaces.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::step::Step;
use crate::trial::{self, TRIAL_ARGUMENT};
use crate::wire::{Report, receive, receive_descriptors, send};
use crate::{apply, identity, seccomp, sys};

/// The argument that turns this executable into the server.
pub(crate) const CHILD_ARGUMENT: &str = "__kiln-sandbox-child";

/// Becomes the sandbox's server, and never returns, if this process was started as one.
///
/// Call it first in `main`: no thread may exist yet.
pub fn enter_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next().unwrap_or_default();
    if first == CHILD_ARGUMENT {
        // There is nobody to tell: the parent sees a server that is gone.
        sys::exit_now(if serve().is_ok() { 0 } else { 3 });
    } else if first == TRIAL_ARGUMENT {
        let trial = arguments.next().unwrap_or_default();
        sys::exit_now(trial::answer(&trial.to_string_lossy()));
    }
}

/// Starts a monitor for each message, until the parent's end of the socket closes.
fn serve() -> io::Result<()> {
    sys::close_from(3)?;
    // Interrupts from the parent's terminal are the parent's to judge.
    nix::unistd::setsid()?;
    let socket = sys::take_standard_input()?;
    let id_map = if nix::unistd::geteuid().is_root() {
        identity::id_map().ok()
    } else {
        None
    };
    seccomp::compile()?;
    sys::ignore_children()?;
    while let Some([life, status, log]) = receive_descriptors(&socket)? {
        let pipes = Pipes {
            life: life.into(),
            status: status.into(),
            log,
        };
        match sys::fork() {
            Ok(Some(_)) => {}
            Ok(None) => {
                drop(socket);
                monitor(pipes, id_map)
            }
            Err(error) => pipes.fork_failed(&error)?,
        }
    }
    Ok(())
}

/// The descriptors that the monitor and its children share.
pub(crate) struct Pipes {
    /// The plan, and then silence until the parent ends.
    life: File,
    /// Reports to the parent.
    status: File,
    /// What the builder writes to.
    pub log: OwnedFd,
}

impl Pipes {
    /// Reports that a step failed, and ends the process.
    pub(crate) fn fail(&mut self, step: &str, source: &io::Error) -> ! {
        self.end(&failed(step, source))
    }

    /// Reports why there is no run, and ends the process.
    pub(crate) fn end(&mut self, report: &Report) -> ! {
        // If even this fails, the parent sees a child that said nothing.
        sys::exit_now(if self.tell(report).is_ok() { 1 } else { 3 })
    }

    /// Reports something.
    pub(crate) fn tell(&mut self, report: &Report) -> io::Result<()> {
        send(&mut self.status, report)
    }

    fn fork_failed(mut self, source: &io::Error) -> io::Result<()> {
        self.tell(&failed("start a monitor", source))
    }
}

fn failed(step: &str, source: &io::Error) -> Report {
    Report::Failed {
        step: step.to_owned(),
        errno: source.raw_os_error().unwrap_or(0),
    }
}

fn monitor(mut pipes: Pipes, id_map: Option<OwnedFd>) -> ! {
    if let Err(error) = sys::reset_children() {
        pipes.fail("wait for its children", &error);
    }
    match receive::<Vec<Step>>(&mut pipes.life) {
        Ok(Some(steps)) => apply::perform(&steps, pipes, id_map),
        Ok(None) => sys::exit_now(3),
        Err(error) => pipes.fail("read the plan", &error),
    }
}

/// As the monitor: waits for init to end, or kills it when the parent lets go.
pub(crate) fn watch(pipes: &mut Pipes, init: Pid) -> ! {
    let init_fd = rustix::process::Pid::from_raw(init.as_raw())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
        .and_then(|pid| {
            Ok(rustix::process::pidfd_open(
                pid,
                rustix::process::PidfdFlags::empty(),
            )?)
        });
    if let Ok(init_fd) = init_fd {
        loop {
            let mut watched = [
                PollFd::new(pipes.life.as_fd(), PollFlags::POLLIN),
                PollFd::new(init_fd.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut watched, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => {}
                _ => break,
            }
        }
    }
    // Either it has ended, which makes this harmless, or it must.
    if nix::sys::signal::kill(init, Signal::SIGKILL).is_err() {
        sys::exit_now(3);
    }
    // Init can be waited for only when every process of its namespace is dead.
    let Ok((_, _, usage)) = sys::wait_any(init.as_raw()) else {
        sys::exit_now(3)
    };
    let report = Report::Used(sys::used(&usage));
    sys::exit_now(if pipes.tell(&report).is_ok() { 0 } else { 3 })
}

/// As init: dies with the monitor from now on, or at once if that is dead already.
pub(crate) fn follow_monitor(alive: &OwnedFd) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // A monitor that died before that call cannot send the signal any more.
    let mut watched = [PollFd::new(alive.as_fd(), PollFlags::POLLIN)];
    if poll(&mut watched, PollTimeout::ZERO) != Ok(0) {
        sys::exit_now(3);
    }
    Ok(())
}

/// As init: collects what dies until the builder has ended, and ends with it.
pub(crate) fn reap(pipes: &mut Pipes, builder: Pid, process_limit: Option<u64>) -> ! {
    loop {
        match sys::wait_any(-1) {
            Ok((ended, raw, _)) if ended == builder.as_raw() => {
                let report = match sys::decode_status(raw) {
                    Ok(status) => Report::Exited(status),
                    Err(signal) => Report::Signaled(signal),
                };
                if report != Report::Exited(0)
                    && process_limit.is_some_and(at_process_limit)
                    && pipes.tell(&Report::AtProcessLimit).is_err()
                {
                    sys::exit_now(3);
                }
                // Whatever else still runs dies with this process.
                sys::exit_now(if pipes.tell(&report).is_ok() { 0 } else { 3 });
            }
            Ok(_) => {}
            Err(error) => pipes.fail("wait for the builder", &error),
        }
    }
}

/// Returns whether the limit was reached when the builder ended, by trying to start one
/// more process in its place.
fn at_process_limit(limit: u64) -> bool {
    let lowered = getrlimit(Resource::RLIMIT_NPROC).and_then(|(_, hard)| {
        let others = limit.min(hard).saturating_sub(1);
        setrlimit(Resource::RLIMIT_NPROC, others, hard)
    });
    if lowered.is_err() {
        return false;
    }
    match sys::fork() {
        Ok(None) => sys::exit_now(0),
        // It is collected by the kernel when init ends.
        Ok(Some(_)) => false,
        Err(error) => error.raw_os_error() == Some(nix::libc::EAGAIN),
    }
}
