//! What can be asked of the sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::supervise::Supervision;

/// Everything a run may observe and use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRequest {
    /// What `/` holds beside `/dev`, `/proc` and `/tmp`; created in this order, missing
    /// parent directories included.
    pub nodes: Vec<Node>,
    /// The program's absolute path inside, and its arguments.
    pub command: Vec<String>,
    /// Exactly the variables that the program gets.
    pub environment: BTreeMap<String, String>,
    /// Where the program starts: an absolute path inside.
    pub working_directory: String,
    /// What `uname -n` says inside.
    pub host_name: String,
    /// The NIS domain name inside.
    pub domain_name: String,
    /// The user inside. Outside it is the user who asks; where root asks, an id that owns
    /// nothing.
    pub uid: u32,
    /// The group inside; outside as for the user.
    pub gid: u32,
    /// Which users and groups there are beside those.
    pub ids: Ids,
    /// The file mode creation mask.
    pub umask: u32,
    /// Processors that may be used; `None` leaves the caller's.
    pub cores: Option<BTreeSet<usize>>,
    /// Whether addresses are randomised.
    pub aslr: bool,
    /// Which kernel release `uname -r` says.
    pub release: Release,
    /// The process number of the program; `None` is the first that init gives, 2.
    pub first_pid: Option<u32>,
    /// What the clocks say that count from the machine's start.
    pub clocks: Clocks,
    /// What the program reads from its standard input.
    pub stdin: Stdin,
    /// Whether the program runs on a terminal.
    pub terminal: Option<Terminal>,
    /// What `/proc` tells of the machine.
    pub machine: Machine,
    /// What may be missing on this host without the run being refused.
    pub weak: BTreeSet<Weakness>,
    /// When and where the run is stopped.
    pub limits: Limits,
    /// What a supervisor answers in the kernel's place; `None` starts none.
    pub supervision: Option<Supervision>,
}

/// Something in the sandbox's file tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    /// An empty directory, read-only as all of `/` is.
    Directory {
        /// Where, absolute.
        path: String,
    },
    /// A symbolic link.
    Symlink {
        /// Where, absolute.
        path: String,
        /// Its target, as it stands in the link.
        target: String,
    },
    /// A small file.
    File {
        /// Where, absolute.
        path: String,
        /// Its content.
        content: Vec<u8>,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A file or directory of the host.
    Bind {
        /// Where, absolute.
        path: String,
        /// What, absolute, on the host.
        source: PathBuf,
        /// Whether it can be changed.
        access: Access,
    },
    /// An empty directory in memory that can be written to, and is gone after the run.
    Tmpfs {
        /// Where, absolute.
        path: String,
        /// What fits into it; `None` is half of the machine's memory.
        size_bytes: Option<u64>,
        /// The mode of the directory.
        mode: u32,
    },
    /// A copy in memory of a directory of the host. It can be written to, and is gone
    /// after the run; the directory stays as it is.
    Copy {
        /// Where, absolute.
        path: String,
        /// What, absolute, on the host: directories, files and symbolic links only.
        source: PathBuf,
        /// What fits into it; `None` is half of the machine's memory.
        size_bytes: Option<u64>,
    },
}

/// Whether something of the host can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// It cannot.
    ReadOnly,
    /// It can.
    ReadWrite,
}

/// Which users and groups a program can be and can give files to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ids {
    /// The request's user and group alone, without any privilege.
    #[default]
    One,
    /// All from 0 to 65535, the request's among them, with the privileges that changing
    /// ids takes inside. Outside, the others are ids that the administrator lends to the
    /// caller (`/etc/subuid`, `/etc/subgid`).
    ///
    /// What can be written is in memory then: no file of the host ever has a lent owner.
    /// Directories that are bound writable are copied there first. When every process is
    /// dead, what is in them is copied back, and is the caller's.
    Range,
}

/// The kernel release that programs are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Release {
    /// The host's.
    #[default]
    Host,
    /// One of the series 2.6, which the kernel makes from its own (`UNAME26`).
    Series26,
}

/// What clocks say when the run starts, in seconds: as if the machine had started so long
/// ago, whenever it did.
///
/// The wall clock has no namespace and is always the host's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// `CLOCK_MONOTONIC`.
    pub monotonic_seconds: u32,
    /// `CLOCK_BOOTTIME`, and the uptime of `sysinfo`.
    pub boot_seconds: u32,
}

/// What a program reads from its standard input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdin {
    /// Nothing, from `/dev/null`.
    #[default]
    Null,
    /// Nothing, from a pipe that nobody writes to.
    EmptyPipe,
    /// A file of the host.
    File(PathBuf),
}

/// A pseudo terminal of its own, which controls the program's session and carries its
/// standard output and error. What it prints is the log; bytes pass unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Height in characters.
    pub rows: u16,
    /// Width in characters.
    pub columns: u16,
}

/// What `/proc` tells of the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Machine {
    /// What the request grants: its processors and its memory, no load, no version.
    #[default]
    Granted,
    /// What the kernel says.
    Host,
}

/// A layer of the sandbox that a request may do without.
///
/// Namespaces for users, mounts, processes, the network, System V IPC and host names, the
/// system call filters and `no_new_privs` are not here: without them there is no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Weakness {
    /// No cgroup namespace: the caller's cgroup can be read in `/proc`.
    CgroupNamespace,
    /// No time namespace: the machine's uptime can be read, and clocks are not moved.
    TimeNamespace,
    /// No Landlock: what may be written is guarded by mounts alone.
    Landlock,
    /// Root asks and has no other id to give: processes have root's user id outside.
    RootOutside,
}

/// When and where a run is stopped; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// From start to end.
    pub wall: Option<Duration>,
    /// Without a byte of log.
    pub silence: Option<Duration>,
    /// Bytes of log.
    pub log_bytes: Option<u64>,
    /// What all processes of the run may use together, where the host lets the caller limit
    /// that ([`Launcher::groups`](crate::Launcher::groups)).
    pub together: Together,
    /// Processes of the caller's user at once (`RLIMIT_NPROC` in the user namespace).
    pub processes: Option<u64>,
    /// Open files of one process.
    pub open_files: Option<u64>,
    /// Bytes of one file.
    pub file_bytes: Option<u64>,
    /// Bytes of address space of one process (`RLIMIT_AS`).
    pub memory_bytes: Option<u64>,
    /// Bytes in each of `/tmp` and `/dev/shm`; `None` is a power of two that is at most a
    /// fifth of the machine's memory, and at most 4 GiB.
    pub scratch_bytes: Option<u64>,
}

/// What all processes of a run may use together (cgroup v2); `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Together {
    /// Bytes of memory, directories in memory and the cache of files included. Nothing of
    /// it is swapped out.
    pub memory_bytes: Option<u64>,
    /// Processes and threads, those of the sandbox included.
    pub processes: Option<u64>,
    /// Processor time: that of so many processors, where the host delegates that too.
    pub processors: Option<u32>,
}

impl Node {
    /// Returns where the node stands.
    pub fn path(&self) -> &str {
        match self {
            Self::Directory { path }
            | Self::Symlink { path, .. }
            | Self::File { path, .. }
            | Self::Bind { path, .. }
            | Self::Tmpfs { path, .. }
            | Self::Copy { path, .. } => path,
        }
    }
}

impl SandboxRequest {
    /// Returns a request for a program in an empty world: no nodes, no variables, no
    /// limits, and else what every build observes.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            nodes: Vec::new(),
            command,
            environment: BTreeMap::new(),
            working_directory: "/".to_owned(),
            host_name: "localhost".to_owned(),
            domain_name: "(none)".to_owned(),
            uid: 1000,
            gid: 100,
            ids: Ids::default(),
            umask: 0o022,
            cores: None,
            aslr: false,
            release: Release::default(),
            first_pid: None,
            clocks: Clocks::default(),
            stdin: Stdin::default(),
            terminal: None,
            machine: Machine::default(),
            weak: BTreeSet::new(),
            limits: Limits::default(),
            supervision: None,
        }
    }
}

impl Weakness {
    /// Every layer that a request may do without.
    pub const ALL: [Self; 4] = [
        Self::CgroupNamespace,
        Self::TimeNamespace,
        Self::Landlock,
        Self::RootOutside,
    ];

    /// Returns the layer's name as one word, for records that outlive a version.
    pub fn name(self) -> &'static str {
        match self {
            Self::CgroupNamespace => "cgroup-namespace",
            Self::TimeNamespace => "time-namespace",
            Self::Landlock => "landlock",
            Self::RootOutside => "own-user-id",
        }
    }

    /// Returns what to change on this host so that it provides the layer.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::CgroupNamespace => {
                "use a kernel built with cgroups, and let `user.max_cgroup_namespaces` be more \
                 than 0"
            }
            Self::TimeNamespace => {
                "use a kernel built with `CONFIG_TIME_NS`, and let `user.max_time_namespaces` be \
                 more than 0"
            }
            Self::Landlock => "add `landlock` to the kernel's boot parameter `lsm=`",
            Self::RootOutside => {
                "build as an ordinary user; or give the container `CAP_SYS_ADMIN` and all user \
                 ids, and keep the store on a file system that maps ids, such as ext4 or xfs \
                 (tmpfs does from Linux 6.3 on)"
            }
        }
    }
}

impl std::fmt::Display for Weakness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::CgroupNamespace => "a cgroup namespace",
            Self::TimeNamespace => "a time namespace",
            Self::Landlock => "Landlock",
            Self::RootOutside => "a user id for root's builds that is not root's",
        })
    }
}
