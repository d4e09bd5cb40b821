//! The system calls that no library wraps safely: with those of the supervisor, the only
//! `unsafe` code of kiln.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::libc;
use nix::unistd::{ForkResult, Pid};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::wire::Used;

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

/// Sets attributes of a mount.
pub(crate) fn mount_setattr(mount: &OwnedFd, set: u64) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    mount_change(mount, &attributes, false)
}

/// Sets attributes of a mount and of everything mounted below it, and shows their files with
/// the owners that a user namespace maps theirs to, if there is one.
pub(crate) fn mount_setattr_below(
    mount: &OwnedFd,
    set: u64,
    map: Option<&OwnedFd>,
) -> io::Result<()> {
    let (mapped, userns_fd) = match map {
        Some(map) => {
            let number = u64::try_from(map.as_raw_fd()).map_err(io::Error::other)?;
            (libc::MOUNT_ATTR_IDMAP, number)
        }
        None => (0, 0),
    };
    let attributes = libc::mount_attr {
        attr_set: set | mapped,
        attr_clr: 0,
        // Mounts captured outside must not pass on what is mounted there later.
        propagation: libc::MS_PRIVATE,
        userns_fd,
    };
    mount_change(mount, &attributes, true)
}

fn mount_change(mount: &OwnedFd, attributes: &libc::mount_attr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is open, the path is an empty NUL-terminated string, and the
    // structure lives until the call returns; its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// Returns a mount of a file, attached nowhere, by which nobody can write to it or change
/// its mode. Any process may ask, whether it has threads or privileges.
///
/// Making a mount takes a user namespace, which nothing else here must enter. So another
/// process makes it, which shares this one's descriptors.
pub(crate) fn read_only_mount(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let (mut answer, answer_writer) = io::pipe()?;
    let flags = libc::CLONE_FILES | libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::SIGCHLD;
    // SAFETY: no memory is shared: a copy of this thread goes on, alone, in a copy of this
    // process. Another thread may have held a lock, so it makes nothing but system calls.
    let process = check(unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags),
            0_usize,
            0_usize,
            0_usize,
            0_usize,
        )
    })?;
    if process == 0 {
        let how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let only = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        let mount = open_tree(CWD, path.as_c_str(), how)
            .map_err(io::Error::from)
            .and_then(|mount| mount_setattr(&mount, only).map(|()| mount.into_raw_fd()));
        let number = mount.unwrap_or(-1);
        let told = rustix::io::write(&answer_writer, &number.to_ne_bytes());
        exit_now(i32::from(told.is_err()));
    }
    // A caller that lets the kernel collect its children has nothing to wait for.
    drop(wait_any(i32::try_from(process).map_err(io::Error::other)?));
    drop(answer_writer);
    let mut number = [0; size_of::<RawFd>()];
    io::Read::read_exact(&mut answer, &mut number)?;
    match RawFd::from_ne_bytes(number) {
        // SAFETY: the other process opened it, in the table of both, and has ended.
        number if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::ErrorKind::PermissionDenied.into()),
    }
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
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = control_socket()?;
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

/// Moves standard input to another descriptor, which `execve` closes, and puts
/// `/dev/null` in its place, so that nothing else ends up there.
pub(crate) fn take_standard_input() -> io::Result<OwnedFd> {
    // SAFETY: called once, right after the process was executed, and given back below.
    let standard = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(0) });
    let moved = rustix::io::fcntl_dupfd_cloexec(&*standard, 3)?;
    duplicate_to(std::fs::File::open("/dev/null")?.as_fd(), 0)?;
    Ok(moved)
}

/// Lets the kernel collect children that end.
pub(crate) fn ignore_children() -> io::Result<()> {
    set_child_signal(libc::SIG_IGN)
}

/// Keeps children that end until they are waited for.
pub(crate) fn reset_children() -> io::Result<()> {
    set_child_signal(libc::SIG_DFL)
}

fn set_child_signal(action: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: neither action installs a handler.
    if unsafe { libc::signal(libc::SIGCHLD, action) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes a terminal the one that controls the session of the calling process.
pub(crate) fn control_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open, and this request takes a plain number.
    check(libc::c_long::from(unsafe {
        libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0)
    }))?;
    Ok(())
}

/// Joins a new session keyring without a name.
pub(crate) fn join_new_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for a new keyring; no memory is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    })?;
    Ok(())
}

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct LandlockRuleset {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct LandlockPath {
    allowed_access: u64,
    parent_fd: i32,
}

/// Returns the version of the kernel's Landlock interface.
pub(crate) fn landlock_version() -> io::Result<u32> {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the call takes no structure.
    let version = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<LandlockRuleset>(),
            0_usize,
            VERSION,
        )
    })?;
    u32::try_from(version).map_err(io::Error::other)
}

/// Makes a Landlock ruleset that forbids some rights to files, and some scopes.
pub(crate) fn landlock_create(files: u64, scoped: u64) -> io::Result<OwnedFd> {
    let ruleset = LandlockRuleset {
        handled_access_fs: files,
        handled_access_net: 0,
        scoped,
    };
    // A kernel that knows a shorter structure accepts this one if the rest is zero.
    // SAFETY: the structure lives until the call returns; its size is passed.
    let number = check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const ruleset,
            size_of::<LandlockRuleset>(),
            0_u32,
        )
    })?;
    let number = i32::try_from(number).map_err(io::Error::other)?;
    // SAFETY: the call returned a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Adds to a Landlock ruleset what may be done at and below a path.
pub(crate) fn landlock_allow(
    ruleset: &OwnedFd,
    path: BorrowedFd<'_>,
    rights: u64,
) -> io::Result<()> {
    const PATH_BENEATH: libc::c_int = 1;
    let rule = LandlockPath {
        allowed_access: rights,
        parent_fd: path.as_raw_fd(),
    };
    // SAFETY: both descriptors are open and the structure lives until the call returns.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            PATH_BENEATH,
            &raw const rule,
            0_u32,
        )
    })?;
    Ok(())
}

/// Applies a Landlock ruleset to the calling process, for good.
pub(crate) fn landlock_restrict(ruleset: &OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is open; no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) })?;
    Ok(())
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

/// Becomes another program; returns only if that fails.
pub(crate) fn execute(command: &[String], environment: &[String]) -> io::Error {
    let words = |words: &[String]| -> io::Result<Vec<CString>> {
        words
            .iter()
            .map(|word| CString::new(word.as_str()).map_err(io::Error::other))
            .collect()
    };
    let (arguments, environment) = match (words(command), words(environment)) {
        (Ok(arguments), Ok(environment)) => (arguments, environment),
        (Err(error), _) | (_, Err(error)) => return error,
    };
    let Some(program) = arguments.first() else {
        return io::ErrorKind::InvalidInput.into();
    };
    match nix::unistd::execve(program, &arguments, &environment) {
        Ok(never) => match never {},
        Err(errno) => errno.into(),
    }
}

/// Returns what a process and its children used, as far as the kernel counts it.
pub(crate) fn used(usage: &libc::rusage) -> Used {
    let micros =
        |time: libc::timeval| u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0);
    Used {
        cpu_micros: micros(usage.ru_utime) + micros(usage.ru_stime),
        peak_memory_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        // Counted in blocks of 512 bytes, whatever the file system's own are.
        written_bytes: u64::try_from(usage.ru_oublock).unwrap_or(0) * 512,
    }
}

/// Ends the process at once, without running anything else.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(status) }
}

/// Opens a socket that is only used to configure an interface.
fn control_socket() -> io::Result<OwnedFd> {
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
