//! The processes of the sandbox: server, monitor, init and builder; and the supervisor, if
//! asked for.
//!
//! The server is this executable started again, so it has one thread, no descriptors but
//! its own, and none of the parent's memory. It keeps one monitor waiting, which performs the
//! plan of the next run. The monitor holds one end of a pipe whose other end the parent holds
//! (the life line): when that end closes, it kills init, and with init the kernel kills
//! everything in the namespaces.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::apply::Ahead;
use crate::mounts::Copied;
use crate::namespaces::Reserve;
use crate::step::Step;
use crate::supervise::{self, Supervision};
use crate::trial::{self, TRIAL_ARGUMENT};
use crate::wire::{DESCRIPTORS, Report, receive, receive_descriptors, send};
use crate::{apply, identity, namespaces, seccomp, sys};

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

/// Keeps a monitor waiting for the next message, until the parent's end of the socket closes.
fn serve() -> io::Result<()> {
    sys::close_from(3)?;
    // Interrupts from the parent's terminal are the parent's to judge.
    nix::unistd::setsid()?;
    let socket = sys::take_standard_input()?;
    let id_map = if nix::unistd::geteuid().is_root() {
        namespaces::id_map().ok()
    } else {
        None
    };
    seccomp::compile();
    identity::read_clocks();
    sys::ignore_children()?;
    loop {
        let (taken, taken_writer) = io::pipe()?;
        match sys::fork() {
            Ok(Some(_)) => {
                drop(taken_writer);
                // Nothing is said when the socket ended before there was a run. Then, or when
                // the monitor was killed, there is nothing left to do here: a parent that asks
                // again finds the socket closed and starts another server.
                if (&taken).read_exact(&mut [0]).is_err() {
                    return Ok(());
                }
            }
            Ok(None) => {
                drop(taken);
                wait_for_run(socket, taken_writer, id_map)
            }
            Err(error) => match receive_descriptors(&socket)? {
                Some(descriptors) => Pipes::of(descriptors).fork_failed(&error)?,
                None => return Ok(()),
            },
        }
    }
}

/// As the monitor of the next run: waits for it. It was forked when the last run began, and
/// makes ahead what it can: together that is a sixth of a small run.
fn wait_for_run(socket: OwnedFd, mut taken: io::PipeWriter, id_map: Option<OwnedFd>) -> ! {
    if sys::reset_children().is_err() {
        sys::exit_now(3);
    }
    let mut asked = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let reserve = match poll(&mut asked, PollTimeout::ZERO) {
        Ok(0) => Reserve::make(id_map.is_some()).ok(),
        // Somebody waits already.
        _ => None,
    };
    let Ok(Some(descriptors)) = receive_descriptors(&socket) else {
        sys::exit_now(0)
    };
    drop(socket);
    // A server that was killed meanwhile starts no other monitor; this run is not hurt by that.
    drop(taken.write_all(b"!"));
    drop(taken);
    monitor(Pipes::of(descriptors), Ahead { id_map, reserve })
}

/// The descriptors that the monitor and its children share.
pub(crate) struct Pipes {
    /// The plan, and then silence until the parent ends.
    life: File,
    /// Reports to the parent.
    status: File,
    /// What the builder's output goes to: a pipe, or its terminal.
    pub output: OwnedFd,
    /// What its errors go to; mostly the same.
    pub errors: OwnedFd,
}

impl Pipes {
    fn of([life, status, output, errors]: [OwnedFd; DESCRIPTORS]) -> Self {
        Self {
            life: life.into(),
            status: status.into(),
            output,
            errors,
        }
    }

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

fn monitor(mut pipes: Pipes, ahead: Ahead) -> ! {
    match receive::<Vec<Step>>(&mut pipes.life) {
        Ok(Some(steps)) => apply::perform(&steps, pipes, ahead),
        Ok(None) => sys::exit_now(3),
        Err(error) => pipes.fail("read the plan", &error),
    }
}

/// The supervisor's line to the others.
pub(crate) struct Line {
    /// Who it dies with.
    pub monitor: Pid,
    /// Where the builder sends what the supervisor is asked by.
    pub socket: OwnedFd,
    /// What the supervisor needs on older kernels.
    pub processes: Option<OwnedFd>,
}

/// As the supervisor: answers the build's calls until none of its processes is left.
pub(crate) fn supervise(
    mut pipes: Pipes,
    line: Line,
    supervision: &Supervision,
    processors: Option<&BTreeSet<usize>>,
) -> ! {
    if let Err(errno) = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL) {
        pipes.fail("follow the monitor", &errno.into());
    }
    // A monitor that died before that call cannot send the signal any more.
    if Pid::parent() != line.monitor {
        sys::exit_now(3);
    }
    let Pipes {
        life,
        mut status,
        output,
        errors,
    } = pipes;
    drop((life, output, errors));
    let Err(error) = supervise::supervise(supervision, processors, line.socket, line.processes)
    else {
        sys::exit_now(SERVED)
    };
    let report = unsupervised(error.what, error.source.raw_os_error().unwrap_or(0));
    sys::exit_now(if send(&mut status, &report).is_ok() {
        TOLD
    } else {
        3
    })
}

/// How a supervisor ends: no process is left that could ask it, or it said why.
const SERVED: i32 = 0;
const TOLD: i32 = 1;

fn unsupervised(what: &str, errno: i32) -> Report {
    Report::Unsupervised {
        what: what.to_owned(),
        errno,
    }
}

/// As the monitor: waits for init to end, or kills it when the parent lets go or the
/// supervisor fails. What the build could write to in memory is copied back then.
pub(crate) fn watch(
    pipes: &mut Pipes,
    init: Pid,
    mut supervisor: Option<Pid>,
    copied: &[Copied],
) -> ! {
    // Whatever ended the wait, init is killed next.
    let waited = wait_for_end(pipes, init, &mut supervisor);
    let kill = |process| nix::sys::signal::kill(process, Signal::SIGKILL);
    // A dead supervisor holds no process of the build back from its end.
    if let Some(supervisor) = supervisor
        && (kill(supervisor).is_err() || sys::wait_any(supervisor.as_raw()).is_err())
    {
        sys::exit_now(3);
    }
    // Either it has ended, which makes this harmless, or it must.
    if kill(init).is_err() {
        sys::exit_now(3);
    }
    // Init can be waited for only when every process of its namespace is dead.
    let Ok((_, _, usage)) = sys::wait_any(init.as_raw()) else {
        sys::exit_now(3)
    };
    for one in copied {
        if let Err(error) = one.copy_back() {
            let step = format!("copy `{}` back from memory", one.source().display());
            pipes.fail(&step, &error);
        }
    }
    let told = waited.and_then(|()| pipes.tell(&Report::Used(sys::used(&usage))));
    sys::exit_now(if told.is_ok() { 0 } else { 3 })
}

/// Waits until init has ended, the parent lets go, or the supervisor fails; the supervisor
/// is taken when it is dead and collected.
fn wait_for_end(pipes: &mut Pipes, init: Pid, supervisor: &mut Option<Pid>) -> io::Result<()> {
    let init_end = end_of(init)?;
    let mut supervisor_end = supervisor.map(end_of).transpose()?;
    loop {
        let mut watched: Vec<PollFd<'_>> = [Some(&init_end), supervisor_end.as_ref()]
            .into_iter()
            .flatten()
            .map(AsFd::as_fd)
            .chain([pipes.life.as_fd()])
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        match poll(&mut watched, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            result => result?,
        };
        // First, since a build whose supervisor is dead may end at once.
        let ended = supervisor_end.is_some() && watched.get(1).and_then(PollFd::any) == Some(true);
        let Some(process) = supervisor.take_if(|_| ended) else {
            return Ok(());
        };
        supervisor_end = None;
        match sys::decode_status(sys::wait_any(process.as_raw())?.1) {
            Ok(SERVED) => {}
            Ok(TOLD) => return Ok(()),
            _ => return pipes.tell(&unsupervised("go on to the end of the build", libc::ECHILD)),
        }
    }
}

/// Returns a descriptor that can be read when a process has ended.
fn end_of(process: Pid) -> io::Result<OwnedFd> {
    let process = rustix::process::Pid::from_raw(process.as_raw())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let flags = rustix::process::PidfdFlags::empty();
    Ok(rustix::process::pidfd_open(process, flags)?)
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
        Err(error) => error.raw_os_error() == Some(libc::EAGAIN),
    }
}
