//! The system calls of the supervisor that no library wraps.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use seccompiler::BpfProgram;

use super::Call;

/// What ptrace reports of a thread beside its stops for signals.
pub(crate) const TRACE_OPTIONS: i32 =
    libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Installs a filter in the calling process, and returns what its notifications are read from.
///
/// Once a notification is read, only death interrupts its caller (Linux 5.19).
pub(crate) fn listen(filter: &BpfProgram) -> io::Result<OwnedFd> {
    const WAIT_KILLABLE: libc::c_ulong = 1 << 5;
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `sock_filter` of both crates is the kernel's structure of eight bytes; the
    // kernel copies `len` of them and writes nothing.
    let listener = check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE,
            &raw const program,
        )
    })?;
    let listener = i32::try_from(listener).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

/// Lets an answer wake its caller on the processor where it was given (Linux 6.6).
pub(crate) fn wake_callers_at_once(listener: BorrowedFd<'_>) -> io::Result<()> {
    const SYNC_WAKE_UP: libc::c_ulong = 1;
    // SAFETY: the request takes a number, not a pointer.
    check(libc::c_long::from(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
            SYNC_WAKE_UP,
        )
    }))?;
    Ok(())
}

/// Reads one notification; `None` when its caller is gone meanwhile.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> io::Result<Option<Call>> {
    // SAFETY: all-zero bytes are a valid `seccomp_notif`, and what the kernel asks for.
    let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one such structure, which lives until the call returns.
    let result = check(libc::c_long::from(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut notification,
        )
    }));
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
        Err(error) => Err(error),
        Ok(_) => Ok(Some(Call {
            id: notification.id,
            thread: notification.pid.cast_signed(),
            number: i64::from(notification.data.nr),
            arguments: notification.data.args,
        })),
    }
}

/// What a notification is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The call's result.
    Value(i64),
    /// The call's error number.
    Error(i32),
    /// The kernel performs the call.
    Proceed,
}

/// Answers a notification; returns whether its caller was still waiting.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> io::Result<bool> {
    const PROCEED: u32 = 1;
    let (val, error, flags) = match answer {
        Answer::Value(value) => (value, 0, 0),
        Answer::Error(number) => (0, -number, 0),
        Answer::Proceed => (0, 0, PROCEED),
    };
    let response = libc::seccomp_notif_resp {
        id,
        val,
        error,
        flags,
    };
    // SAFETY: the kernel reads one such structure, which lives until the call returns.
    let result = check(libc::c_long::from(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw const response,
        )
    }));
    still_there(result, libc::ENOENT)
}

/// Returns whether a notification's caller still waits, so that its number means it.
pub(crate) fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> io::Result<bool> {
    // SAFETY: the kernel reads eight bytes, which live until the call returns.
    let result = check(libc::c_long::from(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
            &raw const id,
        )
    }));
    still_there(result, libc::ENOENT)
}

fn still_there(result: io::Result<libc::c_long>, gone: i32) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(gone) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads another process's memory; fewer bytes where the readable part ends before.
pub(crate) fn read_memory(thread: i32, address: u64, into: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let remote = at(address, into.len())?;
    // SAFETY: the kernel writes at most `iov_len` bytes to `into`; addresses of the other
    // process mean nothing in this one.
    let count = check(unsafe {
        libc::process_vm_readv(thread, &raw const local, 1, &raw const remote, 1, 0) as _
    })?;
    usize::try_from(count).map_err(io::Error::other)
}

/// Reads exactly as many bytes as there is room for.
pub(crate) fn read_exactly(thread: i32, address: u64, into: &mut [u8]) -> io::Result<()> {
    if read_memory(thread, address, into)? == into.len() {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EFAULT))
    }
}

/// Writes to another process's memory, where that process could write itself.
pub(crate) fn write_memory(thread: i32, address: u64, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let local = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let remote = at(address, bytes.len())?;
    // SAFETY: the kernel only reads from `bytes`; addresses of the other process mean
    // nothing in this one.
    let count = check(unsafe {
        libc::process_vm_writev(thread, &raw const local, 1, &raw const remote, 1, 0) as _
    })?;
    if usize::try_from(count).is_ok_and(|count| count == bytes.len()) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EFAULT))
    }
}

fn at(address: u64, length: usize) -> io::Result<libc::iovec> {
    let address = usize::try_from(address).map_err(io::Error::other)?;
    Ok(libc::iovec {
        iov_base: std::ptr::without_provenance_mut(address),
        iov_len: length,
    })
}

fn ptrace(request: libc::c_uint, thread: i32, data: usize) -> io::Result<()> {
    // SAFETY: the requests below take a number, or a pointer to a structure that their
    // callers hold until this returns.
    check(unsafe { libc::ptrace(request, thread, 0_usize, data) })?;
    Ok(())
}

/// Starts to trace a thread, without stopping it.
pub(crate) fn seize(thread: i32) -> io::Result<()> {
    let options = usize::try_from(TRACE_OPTIONS).map_err(io::Error::other)?;
    ptrace(libc::PTRACE_SEIZE, thread, options)
}

/// Makes a traced thread stop when it next leaves the kernel.
pub(crate) fn interrupt(thread: i32) -> io::Result<()> {
    ptrace(libc::PTRACE_INTERRUPT, thread, 0)
}

/// Lets a stopped thread run to the entry or the exit of a system call.
pub(crate) fn run_to_call(thread: i32) -> io::Result<()> {
    ptrace(libc::PTRACE_SYSCALL, thread, 0)
}

/// Lets go of a stopped thread, with a signal or 0.
pub(crate) fn let_go(thread: i32, signal: i32) -> io::Result<()> {
    let signal = usize::try_from(signal).map_err(io::Error::other)?;
    ptrace(libc::PTRACE_DETACH, thread, signal)
}

/// Returns which thread a program was executed by.
pub(crate) fn executing_thread(process: i32) -> io::Result<i32> {
    let mut thread: libc::c_ulong = 0;
    ptrace(
        libc::PTRACE_GETEVENTMSG,
        process,
        (&raw mut thread).expose_provenance(),
    )?;
    i32::try_from(thread).map_err(io::Error::other)
}

/// Returns a stopped thread's registers.
pub(crate) fn registers(thread: i32) -> io::Result<libc::user_regs_struct> {
    // SAFETY: all-zero bytes are valid registers.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    ptrace(
        libc::PTRACE_GETREGS,
        thread,
        (&raw mut registers).expose_provenance(),
    )?;
    Ok(registers)
}

/// Sets a stopped thread's registers.
pub(crate) fn set_registers(thread: i32, registers: &libc::user_regs_struct) -> io::Result<()> {
    ptrace(
        libc::PTRACE_SETREGS,
        thread,
        std::ptr::from_ref(registers).expose_provenance(),
    )
}

/// Returns the next news of a traced thread, without waiting: its number and raw status.
pub(crate) fn next_news() -> io::Result<Option<(i32, i32)>> {
    let mut status = 0;
    // SAFETY: the pointer is valid for writing until the call returns.
    let found = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    match check(found.into()) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some((found, status))),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names a thread, not only a process (Linux 6.9).
const THREAD: u32 = libc::O_EXCL.unsigned_abs();

/// Opens what tells a thread's process, where the kernel cannot copy from a thread itself:
/// `/proc` of now, since the supervisor comes to stand in the build's root.
pub(crate) fn processes() -> io::Result<Option<OwnedFd>> {
    match pidfd_open(
        rustix::process::getpid(),
        PidfdFlags::from_bits_retain(THREAD),
    ) {
        Err(Errno::INVAL) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(Some(rustix::fs::open("/proc", flags, Mode::empty())?))
        }
        named => named.map(|_| None).map_err(io::Error::from),
    }
}

/// Returns a copy of another thread's descriptor; `processes` is what [`processes`] opened.
///
/// # Errors
/// The system's; `EOPNOTSUPP` where the thread has descriptors that its process has not,
/// before Linux 6.9.
pub(crate) fn duplicate(
    processes: Option<&OwnedFd>,
    thread: i32,
    number: i32,
) -> io::Result<OwnedFd> {
    let Some(processes) = processes else {
        return copy_from(thread, number, PidfdFlags::from_bits_retain(THREAD));
    };
    match copy_from(thread, number, PidfdFlags::empty()) {
        // It is not the first of its process (the second is what Linux 6.18 says).
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
            duplicate_of_process(processes, thread, number)
        }
        other => other,
    }
}

/// Copies from a thread's process: nearly always, threads share their descriptors.
fn duplicate_of_process(processes: &OwnedFd, thread: i32, number: i32) -> io::Result<OwnedFd> {
    let copied = copy_from(process_of(processes, thread)?, number, PidfdFlags::empty());
    let own = format!("{thread}/fd/{number}");
    let own = match rustix::fs::statat(processes, own, AtFlags::empty()) {
        Err(Errno::NOENT) => return Err(Errno::BADF.into()),
        own => own?,
    };
    if let Ok(copied) = copied {
        let about = rustix::fs::fstat(&copied)?;
        if (about.st_dev, about.st_ino) == (own.st_dev, own.st_ino) {
            return Ok(copied);
        }
    }
    Err(Errno::OPNOTSUPP.into())
}

fn copy_from(holder: i32, number: i32, flags: PidfdFlags) -> io::Result<OwnedFd> {
    let holder = Pid::from_raw(holder).ok_or(io::ErrorKind::InvalidInput)?;
    let holder = pidfd_open(holder, flags)?;
    Ok(pidfd_getfd(
        holder.as_fd(),
        number,
        PidfdGetfdFlags::empty(),
    )?)
}

/// Returns the process that a thread belongs to.
fn process_of(processes: &OwnedFd, thread: i32) -> io::Result<i32> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(processes, format!("{thread}/status"), flags, Mode::empty())
    {
        Err(Errno::NOENT) => return Err(Errno::SRCH.into()),
        file => File::from(file?),
    };
    let status = io::read_to_string(file)?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    process
        .and_then(|process| process.trim().parse().ok())
        .ok_or_else(|| Errno::SRCH.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::mpsc::channel;

    fn proc() -> OwnedFd {
        File::open("/proc").unwrap().into()
    }

    /// Runs something in a thread, and something else while that thread lives; both are
    /// given what the first returned.
    fn beside<T: Send>(of_thread: impl FnOnce() -> T + Send, then: impl FnOnce(i32, &T)) {
        let (tell, told) = channel();
        let (end, ended) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let thread = nix::unistd::gettid().as_raw();
                tell.send((thread, of_thread())).unwrap();
                assert!(ended.recv().is_err());
            });
            let (thread, made) = told.recv().unwrap();
            then(thread, &made);
            drop(end);
        });
    }

    #[test]
    fn a_thread_s_descriptor_is_copied_on_new_kernels_and_old_ones() {
        let open = || File::open("/proc/self/status").unwrap();
        beside(open, |thread, file| {
            let proc = proc();
            // What this kernel needs, and what an old one does.
            for processes in [processes().unwrap(), Some(proc)] {
                let processes = processes.as_ref();
                let copy = duplicate(processes, thread, file.as_raw_fd()).unwrap();
                // One position, so it is the same open file.
                let at = rustix::fs::tell(file).unwrap() + 3;
                rustix::fs::seek(&copy, rustix::fs::SeekFrom::Start(at)).unwrap();
                assert_eq!(rustix::fs::tell(file).unwrap(), at);
                let bad = duplicate(processes, thread, 1_000_000).unwrap_err();
                assert_eq!(bad.raw_os_error(), Some(libc::EBADF));
            }
        });
    }

    #[test]
    fn a_thread_with_descriptors_of_its_own_is_not_taken_for_its_process() {
        let open = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).unwrap();
            // Numbers that the process has something else at, and nothing.
            let copy = |number| {
                let file = File::open("/proc/self/status").unwrap();
                // SAFETY: the call takes no memory; the number is this thread's alone.
                check(unsafe { libc::dup2(file.as_raw_fd(), number) }.into()).unwrap();
            };
            copy(0);
            copy(900);
        };
        beside(open, |thread, ()| {
            let proc = proc();
            for number in [0, 900] {
                let error = duplicate(Some(&proc), thread, number).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{number}");
            }
        });
    }
}
