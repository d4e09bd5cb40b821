//! Both sides of a supervision: the builder hands over the listener, the supervisor answers.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::directory::{Directories, Moved};
use super::machine::{self, Cores};
use super::random::Stream;
use super::sys::Answer;
use super::tracer::{START_AGAIN, Tracer};
use super::{Call, Reply, SuperviseError, Supervision, Tried, clock, deliver, filter, sys};
use crate::wire::{receive_descriptors, send_descriptors};

/// The most random bytes of one answer.
const MOST_RANDOM: u64 = 64 << 10;

/// Returns the supervisor's end and the builder's of the socket that the listener travels on.
pub(crate) fn line() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Installs the filter in the builder and sends its listener to the supervisor.
///
/// The builder becomes visible to the supervisor, until it executes its program: there is
/// no other process that could look.
pub(crate) fn hand_over(supervision: &Supervision, socket: &OwnedFd) -> io::Result<()> {
    nix::sys::prctl::set_dumpable(true)?;
    let program = filter::program(supervision).map_err(io::Error::other)?;
    let listener = sys::listen(&program)?;
    send_descriptors(socket, [listener.as_fd()])
}

/// Receives the listener; `None` when the builder ended before it sent one.
fn take_listener(socket: &OwnedFd) -> Result<Option<OwnedFd>, SuperviseError> {
    let listener = receive_descriptors(socket).tried("receive the filter's listener")?;
    Ok(listener.map(|[listener]| listener))
}

/// Answers until no process that could ask is left.
pub(crate) fn supervise(
    supervision: &Supervision,
    cores: Option<&BTreeSet<usize>>,
    socket: OwnedFd,
    processes: Option<OwnedFd>,
) -> Result<(), SuperviseError> {
    give_up_rights().tried("give up what a supervisor does not need")?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children
        .thread_block()
        .tried("wait for the programs it supervises")?;
    let news = SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .tried("wait for the programs it supervises")?;
    let mut answers = Answers::new(supervision, cores, processes)?;
    let Some(listener) = take_listener(&socket)? else {
        return Ok(());
    };
    drop(socket);
    match sys::wake_callers_at_once(listener.as_fd()) {
        // Older kernels wake them a little later.
        Ok(()) | Err(_) => {}
    }
    loop {
        let mut watched = [
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(news.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).tried("wait for calls"),
        }
        let [calls, stops] = watched.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        if stops.contains(PollFlags::POLLIN) {
            while news
                .read_signal()
                .tried("wait for the programs it supervises")?
                .is_some()
            {}
            answers.tracer.take_news(answers.random.as_mut())?;
        }
        if calls.contains(PollFlags::POLLIN) {
            if let Some(call) = sys::receive(listener.as_fd()).tried("receive a call")? {
                answers.give(listener.as_fd(), &call)?;
            }
        } else if calls.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            return Ok(());
        }
    }
}

/// Keeps the one capability that reaching into the build needs, also where a program of the
/// build hides its memory.
fn give_up_rights() -> io::Result<()> {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
    let trace = CapabilitySet::SYS_PTRACE;
    set_capabilities(
        None,
        CapabilitySets {
            effective: trace,
            permitted: trace,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    nix::sys::prctl::set_no_new_privs()?;
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// What takes an answer back that did not arrive.
enum Undo {
    Nothing,
    Random(u64),
    Directory(Moved),
}

/// All that answers are made from.
struct Answers<'a> {
    supervision: &'a Supervision,
    tracer: Tracer,
    cores: Option<Cores>,
    random: Option<Stream>,
    directories: Option<Directories>,
}

impl<'a> Answers<'a> {
    fn new(
        supervision: &'a Supervision,
        cores: Option<&BTreeSet<usize>>,
        processes: Option<OwnedFd>,
    ) -> Result<Self, SuperviseError> {
        let told = supervision.cores;
        Ok(Self {
            supervision,
            tracer: Tracer::new(supervision),
            cores: told.map(|told| Cores::new(told, cores)).transpose()?,
            random: supervision.random_seed.map(Stream::new),
            directories: supervision
                .directory_order
                .map(|order| Directories::new(order, processes)),
        })
    }

    /// Answers one call.
    fn give(&mut self, listener: BorrowedFd<'_>, call: &Call) -> Result<(), SuperviseError> {
        const ANSWER: &str = "answer a call";
        let waiting = || sys::is_waiting(listener, call.id).tried(ANSWER);
        if !waiting()? {
            return Ok(());
        }
        let (reply, undo) = match self.reply(call) {
            Ok(found) => found,
            // A thread that was killed meanwhile can be neither seized nor written to.
            Err(_) if !waiting()? => return Ok(()),
            Err(error) => return Err(error),
        };
        let answer = match reply {
            Reply::Value(value) => Answer::Value(value),
            Reply::Error(number) => Answer::Error(number),
            Reply::Proceed => Answer::Proceed,
            Reply::Repeat(_) => Answer::Error(START_AGAIN),
            Reply::Gone if !waiting()? => return Ok(()),
            // It would wait for ever.
            Reply::Gone => return Err(io::Error::from_raw_os_error(libc::ESRCH)).tried(ANSWER),
        };
        if sys::answer(listener, call.id, answer).tried(ANSWER)? {
            return Ok(());
        }
        match undo {
            Undo::Nothing => Ok(()),
            Undo::Random(count) => {
                if let Some(stream) = &mut self.random {
                    stream.give_back(count);
                }
                Ok(())
            }
            Undo::Directory(moved) => moved.undo().tried(ANSWER),
        }
    }

    fn reply(&mut self, call: &Call) -> Result<(Reply, Undo), SuperviseError> {
        let supervision = self.supervision;
        let reply = match call.number {
            libc::SYS_execve | libc::SYS_execveat => {
                self.tracer
                    .expect_program(call)
                    .tried("seize a program that it supervises")?;
                Reply::Proceed
            }
            libc::SYS_uname => match &supervision.kernel {
                Some(kernel) => machine::uname(call, kernel)?,
                None => Reply::Proceed,
            },
            libc::SYS_sysinfo => machine::sysinfo(call, supervision)?,
            libc::SYS_sched_getaffinity => match &self.cores {
                Some(cores) => cores.reply(call)?,
                None => Reply::Proceed,
            },
            libc::SYS_getrandom => return self.random(call),
            libc::SYS_getdents64 | libc::SYS_getdents => match &mut self.directories {
                Some(directories) => {
                    let (reply, moved) = directories.reply(call)?;
                    return Ok((reply, moved.map_or(Undo::Nothing, Undo::Directory)));
                }
                None => Reply::Proceed,
            },
            _ if self.tracer.is_repetition(call) => Reply::Proceed,
            _ => match supervision.clock_ahead {
                Some(ahead) => clock::reply(call, ahead)?,
                None => Reply::Proceed,
            },
        };
        if let Reply::Repeat(absolute) = reply {
            self.tracer
                .expect_repetition(call, absolute)
                .tried("interrupt a wait")?;
        }
        Ok((reply, Undo::Nothing))
    }

    fn random(&mut self, call: &Call) -> Result<(Reply, Undo), SuperviseError> {
        /// `GRND_NONBLOCK`, `GRND_RANDOM`, `GRND_INSECURE`; the last two exclude each other.
        const FLAGS: u64 = 7;
        const EXCLUSIVE: u64 = 6;
        let [address, room, flags, ..] = call.arguments;
        let flags = flags & 0xffff_ffff;
        if flags & !FLAGS != 0 || flags & EXCLUSIVE == EXCLUSIVE {
            return Ok((Reply::Error(libc::EINVAL), Undo::Nothing));
        }
        let Some(stream) = &mut self.random else {
            return Ok((Reply::Proceed, Undo::Nothing));
        };
        let count = room.min(MOST_RANDOM);
        let bytes = stream.take(usize::try_from(count).unwrap_or(0));
        let reply = deliver(call, address, &bytes, i64::try_from(count).unwrap_or(0))?;
        if matches!(reply, Reply::Value(_)) {
            return Ok((reply, Undo::Random(count)));
        }
        stream.give_back(count);
        Ok((reply, Undo::Nothing))
    }
}
