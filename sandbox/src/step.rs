//! One thing that is done before the program runs, as data.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::request::{Access, Clocks, Ids, Terminal, Weakness};
use crate::supervise::Supervision;

/// One thing that is done before the program runs.
///
/// A list of steps is performed by one process after the other: the monitor up to
/// [`Step::StartInit`], init up to [`Step::StartBuilder`], and the builder to the end.
/// Paths without a leading `/` are relative to the new root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Join the control group that limits the run as a whole.
    JoinGroup(PathBuf),
    /// Take hold of a file or directory of the host, as a mount that is not yet attached.
    Capture {
        /// What.
        source: PathBuf,
        /// Whether it can be changed inside.
        access: Access,
    },
    /// Open a file of the host for the program's standard input.
    OpenInput(PathBuf),
    /// Make the pipe that nobody writes to, for the program's standard input.
    EmptyInput,
    /// Give up root's user and group for ids that own nothing, and let what was captured
    /// appear as theirs (id-mapped mounts: on disk, files stay root's).
    LeaveRoot {
        /// Whether to stay root where that cannot be done.
        optional: bool,
    },
    /// Stay root outside, for want of the privilege to become anyone else.
    StayRoot {
        /// Whether that is acceptable.
        optional: bool,
    },
    /// Enter a user namespace of a range of ids, around the one of the next step.
    EnterRange {
        /// Which users it has.
        users: Vec<IdSpan>,
        /// Which groups.
        groups: Vec<IdSpan>,
        /// Who gives it them.
        by: Mapper,
    },
    /// Enter new namespaces of every kind.
    EnterNamespaces {
        /// Kinds to go without where the kernel does not have them.
        optional: BTreeSet<Weakness>,
        /// When the namespace of processes is entered.
        processes: Entry,
    },
    /// Set the clocks of the new time namespace.
    SetClocks(Clocks),
    /// Choose who the caller is inside: one user, one group.
    MapIds {
        /// The user inside.
        uid: u32,
        /// The group inside.
        gid: u32,
    },
    /// Take over every id of the range, under the same number, and leave the caller's other
    /// groups.
    KeepIds,
    /// Die when the server dies; the kernel forgets this at each change of ids, so it comes
    /// after the last.
    FollowServer,
    /// Start the supervisor, which answers system calls in the kernel's place. It is in
    /// every namespace but that of processes, and dies with the monitor.
    StartSupervisor {
        /// What it answers.
        supervision: Supervision,
        /// Processors that may be used inside; `None` leaves the caller's.
        processors: Option<BTreeSet<usize>>,
    },
    /// Enter the namespace of processes that was put off.
    EnterProcessNamespace,
    /// Start init, process 1 inside. It dies with the monitor.
    StartInit,
    /// Let the next process have this number.
    NextPid(u32),
    /// Stop mount events from travelling in or out.
    MakeMountsPrivate,
    /// Mount the file system that becomes `/`, on top of the host's, and enter it.
    MountRoot,
    /// Create a directory and its missing parents.
    Directory {
        /// Where.
        path: String,
    },
    /// Create a symbolic link.
    Symlink {
        /// Where.
        path: String,
        /// Its target.
        target: String,
    },
    /// Create a file.
    File {
        /// Where.
        path: String,
        /// Its content.
        content: Vec<u8>,
        /// Whether it may be executed.
        executable: bool,
    },
    /// Attach what was captured first and is not attached yet.
    Attach {
        /// Where.
        path: String,
    },
    /// Mount an empty file system that can be written to.
    MountTmpfs {
        /// Where.
        path: String,
        /// The mode of its root.
        mode: u32,
        /// What fits into it.
        size_bytes: Option<u64>,
    },
    /// Copy what was captured first and is not attached yet into a directory.
    Copy {
        /// Where.
        path: String,
    },
    /// Make a copy in memory of the directory that was captured first and is not used yet.
    /// The monitor copies what becomes of it back when all is dead.
    CopyIn,
    /// Attach the copy in memory that was made first and is not attached yet.
    AttachCopy {
        /// Where.
        path: String,
    },
    /// Mount a read-only `/proc` of the new PID namespace.
    MountProc,
    /// Hide an entry of `/proc` behind one that is empty, if the kernel has the entry.
    Mask {
        /// Where, below `/proc`.
        path: String,
        /// Whether that one may be opened.
        open: bool,
    },
    /// Show other content for an entry of `/proc`, if the kernel has the entry.
    Cover {
        /// Where, below `/proc`.
        path: String,
        /// What is read there.
        content: Vec<u8>,
    },
    /// Make the new root `/`; the old one then lies on top of it.
    PivotRoot,
    /// Let go of the old root for good.
    DropOldRoot,
    /// Make `/` itself read-only; what is mounted below keeps its own access.
    SealRoot,
    /// Bring up the loopback interface, the only one there is.
    LoopbackUp,
    /// Set the host name.
    HostName(String),
    /// Set the domain name.
    DomainName(String),
    /// Join a session keyring that is new and empty.
    NewKeyring,
    /// Give up every capability, for good.
    DropCapabilities,
    /// Give up every capability but those that changing ids takes, for good.
    KeepIdCapabilities,
    /// Never gain a privilege by executing anything.
    NoNewPrivileges,
    /// Keep init's memory and executable out of the builder's reach.
    Undumpable,
    /// Start the builder; init stays, and collects what dies.
    StartBuilder,
    /// Open a session of its own, without a terminal.
    OpenSession,
    /// Let the terminal control the session.
    ControlTerminal(Terminal),
    /// Set a limit that the kernel enforces; it cannot be raised again.
    Limit {
        /// Of what.
        resource: Resource,
        /// How much, at most what the caller has.
        value: u64,
    },
    /// Set the file mode creation mask.
    Umask(u32),
    /// Use these processors only.
    Processors(BTreeSet<usize>),
    /// Do not randomise addresses.
    FixAddresses,
    /// Tell programs of a kernel release of the series 2.6.
    Release26,
    /// Enter the working directory.
    Enter(String),
    /// Connect standard input, output and error.
    StandardDescriptors,
    /// Reset every signal, and block none.
    ResetSignals,
    /// Let `execve` close every other descriptor.
    CloseDescriptors,
    /// Restrict writing by Landlock, and signals and abstract sockets to the build.
    Landlock {
        /// Trees that may be written to.
        trees: Vec<String>,
        /// Files that may be written to.
        files: Vec<String>,
        /// Whether to go without where the kernel does not have it.
        optional: bool,
    },
    /// Install the system call filter.
    FilterSystemCalls,
    /// Try every lock from inside, and stop if one does not hold.
    CheckLocks {
        /// Mounts that must be read-only.
        read_only: Vec<String>,
        /// Which ids there must be, and with them which capabilities.
        ids: Ids,
    },
    /// Install the filter that asks the supervisor, and hand over what it is asked by.
    HandOver(Supervision),
    /// Become the program.
    Execute {
        /// The program and its arguments.
        command: Vec<String>,
        /// `NAME=value`, sorted by name.
        environment: Vec<String>,
    },
}

/// Ids in a row, and what they are outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdSpan {
    /// The first, inside.
    pub inside: u32,
    /// The first, outside; `None` is the caller's own.
    pub outside: Option<u32>,
    /// How many.
    pub count: u32,
}

/// Who may give ids of the machine to a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mapper {
    /// Root itself.
    Root,
    /// `newuidmap` and `newgidmap`, for a user.
    Programs,
}

/// When a namespace is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// With the others.
    Now,
    /// By a step of its own, so that a process can be started outside first.
    Later,
}

/// Something that the kernel limits for each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// Bytes of a core file.
    CoreBytes,
    /// Bytes of stack; it also fixes how long arguments may be.
    StackBytes,
    /// Processes of the user in the namespace.
    Processes,
    /// Open files.
    OpenFiles,
    /// Bytes of a file that is written.
    FileBytes,
    /// Bytes of address space.
    MemoryBytes,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CoreBytes => "bytes of a core file",
            Self::StackBytes => "bytes of stack",
            Self::Processes => "processes",
            Self::OpenFiles => "open files",
            Self::FileBytes => "bytes of a file",
            Self::MemoryBytes => "bytes of address space",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capture { source, access } => {
                let access = match access {
                    Access::ReadOnly => "read-only",
                    Access::ReadWrite => "writable",
                };
                write!(f, "capture `{}`, {access}", source.display())
            }
            Self::JoinGroup(group) => write!(f, "join the control group `{}`", group.display()),
            Self::OpenInput(source) => write!(f, "open `{}` as input", source.display()),
            Self::EmptyInput => write!(f, "make an empty pipe as input"),
            Self::LeaveRoot { .. } => write!(f, "give up root's user id"),
            Self::StayRoot { .. } => write!(f, "keep root's user id outside"),
            Self::EnterRange { users, groups, .. } => write_range(f, users, groups),
            Self::EnterNamespaces { .. } => write!(f, "enter new namespaces"),
            Self::SetClocks(clocks) => write!(
                f,
                "set the monotonic clock to {} s and the boot clock to {} s",
                clocks.monotonic_seconds, clocks.boot_seconds
            ),
            Self::MapIds { uid, gid } => write!(f, "become user {uid} and group {gid}"),
            Self::KeepIds => write!(f, "keep all of these ids"),
            Self::FollowServer => write!(f, "follow the server"),
            Self::StartSupervisor { supervision, .. } => {
                write!(f, "start a supervisor of {supervision}")
            }
            Self::EnterProcessNamespace => write!(f, "enter a new namespace of processes"),
            Self::StartInit => write!(f, "start init"),
            Self::NextPid(pid) => write!(f, "let the next process be {pid}"),
            Self::MakeMountsPrivate => write!(f, "make mounts private"),
            Self::MountRoot => write!(f, "mount the new root"),
            Self::Directory { path } => write!(f, "create the directory `/{path}`"),
            Self::Symlink { path, target } => write!(f, "link `/{path}` to `{target}`"),
            Self::File { path, content, .. } => {
                write!(f, "create the file `/{path}` of {} bytes", content.len())
            }
            Self::Attach { path } => write!(f, "attach `/{path}`"),
            Self::MountTmpfs {
                path,
                mode,
                size_bytes,
            } => {
                write!(f, "mount an empty `/{path}` with mode {mode:04o}")?;
                size_bytes.map_or(Ok(()), |size| write!(f, " and {size} bytes"))
            }
            Self::Copy { path } => write!(f, "fill `/{path}` with a copy"),
            Self::CopyIn => write!(f, "copy a writable directory into memory"),
            Self::AttachCopy { path } => write!(f, "attach the copy `/{path}`"),
            Self::MountProc => write!(f, "mount `/proc`"),
            Self::Mask { path, .. } => write!(f, "hide `/proc/{path}`"),
            Self::Cover { path, .. } => write!(f, "cover `/proc/{path}`"),
            Self::PivotRoot => write!(f, "make the new root `/`"),
            Self::DropOldRoot => write!(f, "leave the old root"),
            Self::SealRoot => write!(f, "make `/` read-only"),
            Self::LoopbackUp => write!(f, "bring up the loopback interface"),
            Self::HostName(name) => write!(f, "set the host name `{name}`"),
            Self::DomainName(name) => write!(f, "set the domain name `{name}`"),
            Self::NewKeyring => write!(f, "join an empty session keyring"),
            Self::DropCapabilities => write!(f, "drop every capability"),
            Self::KeepIdCapabilities => write!(f, "keep the capabilities over ids alone"),
            Self::NoNewPrivileges => write!(f, "forbid new privileges"),
            Self::Undumpable => write!(f, "hide init from the build"),
            Self::StartBuilder => write!(f, "start the builder"),
            Self::OpenSession => write!(f, "open a session"),
            Self::ControlTerminal(Terminal { rows, columns }) => {
                write!(
                    f,
                    "let a terminal of {rows} rows and {columns} columns control the session"
                )
            }
            Self::Limit { resource, value } => write!(f, "limit to {value} {resource}"),
            Self::Umask(mask) => write!(f, "set the umask {mask:04o}"),
            Self::Processors(cores) => {
                write!(f, "use the processors")?;
                cores.iter().try_for_each(|core| write!(f, " {core}"))
            }
            Self::FixAddresses => write!(f, "fix addresses"),
            Self::Release26 => write!(f, "tell of a kernel 2.6"),
            Self::Enter(path) => write!(f, "enter the working directory `{path}`"),
            Self::StandardDescriptors => write!(f, "connect the standard descriptors"),
            Self::ResetSignals => write!(f, "reset signals"),
            Self::CloseDescriptors => write!(f, "close every other descriptor"),
            Self::Landlock { trees, files, .. } => write!(
                f,
                "forbid writing outside {} trees and {} files by Landlock",
                trees.len(),
                files.len()
            ),
            Self::FilterSystemCalls => write!(f, "install the system call filter"),
            Self::CheckLocks { read_only, .. } => {
                write!(f, "check every lock and {} inputs", read_only.len())
            }
            Self::HandOver(_) => write!(f, "call the supervisor"),
            Self::Execute { command, .. } => write!(
                f,
                "execute `{}`",
                command.first().map_or("", String::as_str)
            ),
        }
    }
}

fn write_range(f: &mut fmt::Formatter<'_>, users: &[IdSpan], groups: &[IdSpan]) -> fmt::Result {
    let (users, groups) = (spans(users), spans(groups));
    write!(
        f,
        "enter a user namespace of users {users} and groups {groups}"
    )
}

/// Returns spans in words: numbers inside, and what they are outside.
fn spans(spans: &[IdSpan]) -> String {
    let words: Vec<String> = spans
        .iter()
        .map(|span| {
            let last = u64::from(span.inside) + u64::from(span.count) - 1;
            match span.outside {
                None => format!("{} (the caller)", span.inside),
                Some(outside) => format!("{}-{last} ({outside} on)", span.inside),
            }
        })
        .collect();
    words.join(", ")
}
