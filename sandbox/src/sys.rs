//! The system calls that no library wraps safely: with those of the supervisor, the only
//! `unsafe` code of kiln.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::libc;
use nix::unistd::{ForkResult, Pid};

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Splits the process in two; `None` is the child.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the child of a process with several threads may only make async-signal-safe
    // calls; this process was executed afresh and never started a thread.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Changes attributes of a mount and of everything mounted below it.
pub(crate) fn mount_setattr(mount: &OwnedFd, set: u64, recursive: bool) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is open, the path is an empty NUL-terminated string, and the
    // structure lives until the call returns; its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: nothing in this process uses those descriptors afterwards: it calls this
    // first thing after being executed, or right before it executes another program.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })?;
    Ok(())
}

/// Lets `execve` close every descriptor from `first` on.
pub(crate) fn close_on_execute_from(first: u32) -> io::Result<()> {
    // SAFETY: no descriptor is closed by this call; the flag only marks them.
    check(unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    })?;
    Ok(())
}

/// Resets every signal to its default action and unblocks all.
pub(crate) fn reset_signals() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL installs no handler. SIGKILL, SIGSTOP and the two signals that
        // the C library keeps refuse, and have their default action anyway.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    nix::sys::signal::SigSet::empty()
        .thread_set_mask()
        .map_err(io::Error::from)
}

/// Brings up the loopback interface of the current network namespace.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = (*from).cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(io::Error::other)?;
    // SAFETY: the descriptor is an open socket and the structure lives until the call returns.
    check(libc::c_long::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    }))?;
    Ok(())
}

/// Sets the NIS domain name of the current UTS namespace.
pub(crate) fn set_domain_name(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and the length describe the same readable bytes.
    check(libc::c_long::from(unsafe {
        libc::setdomainname(name.as_ptr().cast(), name.len())
    }))?;
    Ok(())
}

/// Returns a descriptor of the calling process that stays open, from its number.
pub(crate) fn adopt(number: i32) -> OwnedFd {
    // SAFETY: called once for each of the standard descriptors, right after the process was
    // executed, before anything else could own them.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Makes one descriptor another's copy, which survives `execve`.
pub(crate) fn duplicate_to(from: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: `dup2` on open descriptors has no memory effects; what `number` named before
    // is given up on purpose.
    check(libc::c_long::from(unsafe {
        libc::dup2(from.as_raw_fd(), number)
    }))?;
    Ok(())
}

/// Waits for any child; returns its process id, its raw status, and what it used.
pub(crate) fn wait_any(pid: i32) -> io::Result<(i32, i32, libc::rusage)> {
    let mut status = 0;
    // SAFETY: all-zero bytes are a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are valid for writing until the call returns.
        let found = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if found >= 0 {
            return Ok((found, status, usage));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Becomes another program.
pub(crate) fn execute(
    program: &CString,
    arguments: &[CString],
    environment: &[CString],
) -> io::Error {
    match nix::unistd::execve(program, arguments, environment) {
        Ok(never) => match never {},
        Err(errno) => errno.into(),
    }
}

/// Ends the process at once, without running anything else.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(status) }
}

/// Opens a socket that is only used to configure an interface.
pub(crate) fn control_socket() -> io::Result<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(io::Error::from)
}

/// Returns whether a raw wait status is an exit, and its status or signal.
pub(crate) fn decode_status(status: i32) -> Result<i32, i32> {
    if libc::WIFEXITED(status) {
        Ok(libc::WEXITSTATUS(status))
    } else {
        Err(libc::WTERMSIG(status))
    }
}

/// Makes reads of a descriptor return at once when there is nothing to read.
pub(crate) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    rustix::io::ioctl_fionbio(fd, true).map_err(io::Error::from)
}
