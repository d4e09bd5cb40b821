//! The three processes inside: monitor, init and builder; and the supervisor, if asked for.
//!
//! The monitor is this executable started again, so it has one thread, no descriptors but
//! the standard three, and none of the parent's memory. It holds one end of a pipe whose
//! other end the parent holds (the life line): when that end closes, it kills init, and
//! with init the kernel kills everything in the namespaces.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use crate::plan::{self, Builder, Step};
use crate::request::SandboxRequest;
use crate::supervise::{Supervision, hand_over, supervise};
use crate::wire::{Report, receive, send};
use crate::{apply, seccomp, sys};

/// The argument that turns this executable into the monitor.
pub(crate) const CHILD_ARGUMENT: &str = "__kiln-sandbox-child";

/// The step in which the host's permission is needed.
pub(crate) const ENTER: &str = "enter new namespaces";

/// Becomes the sandbox child, and never returns, if this process was started as one.
///
/// Call it first in `main`: no thread may exist yet.
pub fn enter_if_asked() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments
        .next()
        .is_some_and(|argument| argument == CHILD_ARGUMENT)
    {
        monitor();
    }
}

/// The descriptors that the monitor and its children share.
struct Pipes {
    /// The request, and then silence until the parent ends.
    life: File,
    /// Reports to the parent.
    status: File,
    /// What the builder writes.
    log: OwnedFd,
}

impl Pipes {
    /// Moves the standard descriptors out of the way, to where `execve` closes them.
    fn take() -> io::Result<Self> {
        let away = |number| -> io::Result<OwnedFd> {
            let standard = sys::adopt(number);
            let moved = rustix::io::fcntl_dupfd_cloexec(&standard, 10)?;
            // The standard numbers stay taken, so that nothing else ends up there.
            std::mem::forget(standard);
            Ok(moved)
        };
        Ok(Self {
            life: away(0)?.into(),
            status: away(1)?.into(),
            log: away(2)?,
        })
    }

    fn fail(&mut self, step: &str, source: &io::Error) -> ! {
        fail(&mut self.status, step, source)
    }
}

fn fail(status: &mut File, step: &str, source: &io::Error) -> ! {
    let errno = source.raw_os_error().unwrap_or(0);
    let report = Report::Failed {
        step: step.to_owned(),
        errno,
    };
    // If even this fails, the parent sees a child that said nothing.
    sys::exit_now(if send(status, &report).is_ok() { 1 } else { 3 })
}

fn monitor() -> ! {
    if sys::close_from(3).is_err() {
        sys::exit_now(3);
    }
    let Ok(mut pipes) = Pipes::take() else {
        sys::exit_now(3)
    };
    let request = match receive::<SandboxRequest>(&mut pipes.life) {
        Ok(Some(request)) => request,
        Ok(None) => sys::exit_now(3),
        Err(error) => pipes.fail("read the request", &error),
    };
    if let Err(error) = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL) {
        pipes.fail("follow the parent", &error.into());
    }
    if let Err(error) = enter_namespaces(request.uid, request.gid) {
        pipes.fail(ENTER, &error);
    }
    let steps = plan::steps(&request, |source| {
        std::fs::symlink_metadata(source).is_ok_and(|metadata| metadata.is_dir())
    });
    let builder = plan::builder(&request);
    let (alive, alive_writer) = match io::pipe() {
        Ok((reader, writer)) => (OwnedFd::from(reader), OwnedFd::from(writer)),
        Err(error) => pipes.fail("make a pipe", &error),
    };
    // The supervisor stays outside the PID namespace, where no build has a name for it.
    let (supervisor, socket) = match &builder.supervision {
        None => (None, None),
        Some(supervision) => {
            let (supervisors, socket) = match socket_to_supervisor() {
                Ok(ends) => ends,
                Err(error) => pipes.fail("make a socket", &error),
            };
            match sys::fork() {
                Ok(None) => {
                    drop((alive_writer, socket));
                    let cores = builder.cores.as_ref();
                    become_supervisor(pipes, &alive, supervision, cores, supervisors)
                }
                Ok(Some(supervisor)) => (Some(supervisor), Some(socket)),
                Err(error) => pipes.fail("start the supervisor", &error),
            }
        }
    };
    if let Err(errno) = nix::sched::unshare(CloneFlags::CLONE_NEWPID) {
        pipes.fail(ENTER, &errno.into());
    }
    match sys::fork() {
        Ok(None) => {
            drop(alive_writer);
            init(pipes, &alive, &steps, &builder, socket)
        }
        Ok(Some(init)) => {
            drop((alive, socket));
            watch(pipes, init, supervisor)
        }
        Err(error) => pipes.fail("start init", &error),
    }
}

/// Enters every namespace but that of processes, which only children enter.
fn enter_namespaces(uid: u32, gid: u32) -> io::Result<()> {
    let (outer_uid, outer_gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    nix::sched::unshare(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP
            | CloneFlags::from_bits_retain(libc::CLONE_NEWTIME),
    )?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {outer_uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {outer_gid} 1"))
}

/// Returns the supervisor's end and the builder's, on which the listener travels.
fn socket_to_supervisor() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Answers the build's calls until none of its processes is left.
fn become_supervisor(
    mut pipes: Pipes,
    alive: &OwnedFd,
    supervision: &Supervision,
    cores: Option<&BTreeSet<usize>>,
    socket: OwnedFd,
) -> ! {
    follow(&mut pipes, alive);
    drop((pipes.life, pipes.log));
    let Err(error) = supervise(supervision, cores, socket) else {
        sys::exit_now(0)
    };
    let report = Report::Unsupervised {
        what: error.what.to_owned(),
        errno: error.source.raw_os_error().unwrap_or(0),
    };
    sys::exit_now(if send(&mut pipes.status, &report).is_ok() {
        1
    } else {
        3
    })
}

/// Lets this process die with the monitor.
fn follow(pipes: &mut Pipes, alive: &OwnedFd) {
    if let Err(error) = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL) {
        pipes.fail("follow the monitor", &error.into());
    }
    // A monitor that died before that call cannot send the signal any more.
    let mut watched = [PollFd::new(alive.as_fd(), PollFlags::POLLIN)];
    if poll(&mut watched, PollTimeout::ZERO) != Ok(0) {
        sys::exit_now(3);
    }
}

/// Returns a descriptor that is readable when a process has ended.
fn end_of(process: Pid) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(process.as_raw())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(rustix::process::pidfd_open(
        pid,
        rustix::process::PidfdFlags::empty(),
    )?)
}

/// Waits until init has ended, the parent lets go, or the supervisor fails.
fn wait_for_end(
    life: &File,
    status: &mut File,
    init: Pid,
    supervisor: &mut Option<Pid>,
) -> io::Result<()> {
    let init_end = end_of(init)?;
    let mut supervisor_end = supervisor.map(end_of).transpose()?;
    loop {
        let descriptors = [Some(life.as_fd()), Some(init_end.as_fd())];
        let mut watched: Vec<PollFd> = descriptors
            .into_iter()
            .chain([supervisor_end.as_ref().map(AsFd::as_fd)])
            .flatten()
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        match poll(&mut watched, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            result => result?,
        };
        if watched.iter().take(2).any(|fd| fd.any() == Some(true)) {
            return Ok(());
        }
        let Some(ended) = supervisor.take() else {
            return Ok(());
        };
        match sys::decode_status(sys::wait_any(ended.as_raw())?.1) {
            // No process is left that could ask it.
            Ok(0) => supervisor_end = None,
            // It said why.
            Ok(1) => return Ok(()),
            _ => {
                return send(
                    status,
                    &Report::Unsupervised {
                        what: "go on to the end of the build".to_owned(),
                        errno: libc::ECHILD,
                    },
                );
            }
        }
    }
}

/// Waits for init to end, or kills it when the parent lets go or the supervisor fails.
fn watch(mut pipes: Pipes, init: Pid, mut supervisor: Option<Pid>) -> ! {
    drop(pipes.log);
    // Whatever ended the wait, init is killed next.
    let waited = wait_for_end(&pipes.life, &mut pipes.status, init, &mut supervisor);
    let kill = |pid| nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
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
    let micros =
        |time: libc::timeval| u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0);
    let report = Report::Used {
        cpu_micros: micros(usage.ru_utime) + micros(usage.ru_stime),
        peak_memory_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    };
    sys::exit_now(
        if waited.is_ok() && send(&mut pipes.status, &report).is_ok() {
            0
        } else {
            3
        },
    )
}

fn init(
    mut pipes: Pipes,
    alive: &OwnedFd,
    steps: &[Step],
    builder: &Builder,
    socket: Option<OwnedFd>,
) -> ! {
    follow(&mut pipes, alive);
    if let Err(failure) = apply::apply(steps) {
        pipes.fail(&failure.step, &failure.source);
    }
    let pid = match sys::fork() {
        Ok(None) => become_program(pipes, builder, socket.as_ref()),
        Ok(Some(pid)) => pid,
        Err(error) => pipes.fail("start the builder", &error),
    };
    drop(socket);
    // Only the builder writes to the log, and only the monitor holds the life line.
    let Pipes { mut status, .. } = pipes;
    loop {
        match sys::wait_any(-1) {
            Ok((ended, raw, _)) if ended == pid.as_raw() => {
                let report = match sys::decode_status(raw) {
                    Ok(status) => Report::Exited(status),
                    Err(signal) => Report::Signaled(signal),
                };
                // Whatever else still runs dies with this process.
                sys::exit_now(if send(&mut status, &report).is_ok() {
                    0
                } else {
                    3
                });
            }
            Ok(_) => {}
            Err(error) => fail(&mut status, "wait for the builder", &error),
        }
    }
}

fn become_program(mut pipes: Pipes, builder: &Builder, socket: Option<&OwnedFd>) -> ! {
    let (step, error) = match prepare(&pipes, builder, socket) {
        Err(failure) => failure,
        Ok((program, arguments, environment)) => (
            format!(
                "execute `{}`",
                builder.command.first().map_or("", String::as_str)
            ),
            sys::execute(&program, &arguments, &environment),
        ),
    };
    pipes.fail(&step, &error)
}

type Prepared = (CString, Vec<CString>, Vec<CString>);

/// Does everything up to `execve`; names the step that failed.
fn prepare(
    pipes: &Pipes,
    builder: &Builder,
    socket: Option<&OwnedFd>,
) -> Result<Prepared, (String, io::Error)> {
    let words = |words: &[String]| -> io::Result<Vec<CString>> {
        words
            .iter()
            .map(|word| CString::new(word.as_str()).map_err(io::Error::other))
            .collect()
    };
    let arguments = words(&builder.command);
    let environment = words(&builder.environment);
    step("open a session", || Ok(nix::unistd::setsid().map(drop)?))?;
    step("set the limits", || set_limits(builder))?;
    step("set the umask", || {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(builder.umask));
        Ok(())
    })?;
    step("choose processors", || choose_cores(builder))?;
    if !builder.aslr {
        step("fix addresses", || {
            use nix::sys::personality::{Persona, get, set};
            Ok(set(get()? | Persona::ADDR_NO_RANDOMIZE).map(drop)?)
        })?;
    }
    step("enter the working directory", || {
        Ok(rustix::process::chdir(builder.working_directory.as_str())?)
    })?;
    step("connect the standard descriptors", || {
        let null = File::open("/dev/null")?;
        sys::duplicate_to(null.as_fd(), 0)?;
        sys::duplicate_to(pipes.log.as_fd(), 1)?;
        sys::duplicate_to(pipes.log.as_fd(), 2)
    })?;
    step("reset signals", sys::reset_signals)?;
    step("close every other descriptor", || {
        sys::close_on_execute_from(3)
    })?;
    let arguments = step("prepare the arguments", || arguments)?;
    let environment = step("prepare the environment", || environment)?;
    let program = step("prepare the arguments", || {
        arguments
            .first()
            .cloned()
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    })?;
    step("install the system call filters", || {
        for filter in seccomp::filters().map_err(io::Error::other)? {
            seccompiler::apply_filter(&filter).map_err(io::Error::other)?;
        }
        Ok(())
    })?;
    if let (Some(supervision), Some(socket)) = (&builder.supervision, socket) {
        step("call the supervisor", || hand_over(supervision, socket))?;
    }
    Ok((program, arguments, environment))
}

fn step<T>(name: &str, run: impl FnOnce() -> io::Result<T>) -> Result<T, (String, io::Error)> {
    run().map_err(|error| (name.to_owned(), error))
}

/// The stack that programs start with; it also fixes how long arguments may be.
const STACK: u64 = 8 << 20;

fn set_limits(builder: &Builder) -> io::Result<()> {
    let limits = [
        (Resource::RLIMIT_CORE, Some(0)),
        (Resource::RLIMIT_STACK, Some(STACK)),
        (Resource::RLIMIT_NPROC, builder.limits.processes),
        (Resource::RLIMIT_NOFILE, builder.limits.open_files),
        (Resource::RLIMIT_FSIZE, builder.limits.file_bytes),
    ];
    for (resource, limit) in limits {
        if let Some(limit) = limit {
            let (_, hard) = getrlimit(resource)?;
            let limit = limit.min(hard);
            setrlimit(resource, limit, limit)?;
        }
    }
    Ok(())
}

fn choose_cores(builder: &Builder) -> io::Result<()> {
    let Some(cores) = &builder.cores else {
        return Ok(());
    };
    let mut set = nix::sched::CpuSet::new();
    for core in cores {
        set.set(*core)?;
    }
    Ok(nix::sched::sched_setaffinity(Pid::from_raw(0), &set)?)
}
