//! PURE: a request becomes a list of steps, in the order in which they are performed.
//!
//! The list is the whole truth: it can be printed and reviewed, it is what the parent sends
//! to the child, and `apply` performs it and decides nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::machine;
use crate::range::{self, HostIds, NoRange};
use crate::request::{Access, Ids, Node, Release, SandboxRequest, Stdin, Weakness};
use crate::step::{Entry, Mapper, Resource, Step};

/// Who asks, as far as the steps depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// What the caller may do.
    pub power: Power,
    /// How many processors the caller may use.
    pub processors: usize,
    /// The machine's memory.
    pub memory_bytes: u64,
    /// What is lent to the caller, where it was looked for: a request for a range of ids
    /// cannot be met without.
    pub range: Option<HostIds>,
}

/// What a caller may do outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// An ordinary user.
    Ordinary,
    /// Root, who can become anyone.
    Root,
    /// Root's user id without root's capabilities, as in many containers.
    RootInName,
}

impl Caller {
    /// Returns who the caller is to a request, with a range of ids if that asks for one.
    ///
    /// # Errors
    /// [`NoRange`] when it asks for one and there is none.
    pub fn asking(self, request: &SandboxRequest) -> Result<Self, NoRange> {
        let range = match request.ids {
            Ids::One => None,
            Ids::Range => Some(range::find(self.power)?),
        };
        Ok(Self { range, ..self })
    }

    /// Returns who this process is, whatever ids are lent to it.
    pub fn current() -> Self {
        let power = if !nix::unistd::geteuid().is_root() {
            Power::Ordinary
        } else if has_capabilities() {
            Power::Root
        } else {
            Power::RootInName
        };
        Self {
            power,
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_bytes(),
            range: None,
        }
    }
}

fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit).saturating_mul(info.totalram)
}

fn has_capabilities() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    let needed = CapabilitySet::SYS_ADMIN
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::SETPCAP;
    capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// Devices of the host that every build may use.
pub(crate) const DEVICES: [&str; 5] = ["full", "null", "random", "urandom", "zero"];

/// The device by which a program finds the terminal that controls its session.
pub(crate) const TERMINAL_DEVICE: &str = "tty";

/// Links that every `/dev` has.
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
];

/// Directories in memory that every build may write to.
const SCRATCH: [&str; 2] = ["dev/shm", "tmp"];

/// The stack that programs start with; it also fixes how long arguments may be.
const STACK_BYTES: u64 = 8 << 20;

fn relative(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

/// Returns everything that is done before the program runs, and the program last.
pub fn steps(request: &SandboxRequest, caller: Caller) -> Vec<Step> {
    let captures = captures(request);
    let optional = request.weak.contains(&Weakness::RootOutside);
    let mut steps = Vec::new();
    // What root can reach may be out of reach for the id that root becomes.
    let (before, after) = match caller.power {
        Power::Root => (captures, Vec::new()),
        Power::Ordinary | Power::RootInName => (Vec::new(), captures),
    };
    steps.extend(before);
    match caller.power {
        Power::Root => steps.push(Step::LeaveRoot { optional }),
        Power::RootInName => steps.push(Step::StayRoot { optional }),
        Power::Ordinary => {}
    }
    steps.extend(enter(request, caller));
    let mount_namespace = std::iter::once(Step::MakeMountsPrivate).chain(after);
    match request.ids {
        Ids::One => {
            steps.extend(start_init(request));
            steps.extend(mount_namespace);
        }
        // The monitor holds what it copies back.
        Ids::Range => {
            steps.extend(mount_namespace);
            steps.extend(writable_binds(request).map(|_| Step::CopyIn));
            steps.extend(start_init(request));
        }
    }
    steps.extend(tree(request, scratch_bytes(request, caller)));
    steps.push(Step::MountProc);
    steps.extend(machine::steps(request, caller.processors));
    steps.extend([
        Step::PivotRoot,
        Step::DropOldRoot,
        Step::SealRoot,
        Step::LoopbackUp,
        Step::HostName(request.host_name.clone()),
        Step::DomainName(request.domain_name.clone()),
        Step::NewKeyring,
        match request.ids {
            Ids::One => Step::DropCapabilities,
            Ids::Range => Step::KeepIdCapabilities,
        },
        Step::NoNewPrivileges,
        Step::Undumpable,
    ]);
    steps.push(Step::StartBuilder);
    steps.extend(builder(request));
    steps
}

/// Returns the directories of the host that the build may write to.
fn writable_binds(request: &SandboxRequest) -> impl Iterator<Item = &PathBuf> {
    request.nodes.iter().filter_map(|node| match node {
        Node::Bind {
            source,
            access: Access::ReadWrite,
            ..
        } => Some(source),
        _ => None,
    })
}

fn devices(request: &SandboxRequest) -> impl Iterator<Item = &'static str> {
    let terminal = request.terminal.map(|_| TERMINAL_DEVICE);
    DEVICES.into_iter().chain(terminal)
}

fn captures(request: &SandboxRequest) -> Vec<Step> {
    let mut steps = Vec::new();
    match &request.stdin {
        Stdin::Null => {}
        Stdin::EmptyPipe => steps.push(Step::EmptyInput),
        Stdin::File(source) => steps.push(Step::OpenInput(source.clone())),
    }
    if request.ids == Ids::Range {
        steps.extend(writable_binds(request).map(|source| Step::Capture {
            source: source.clone(),
            access: Access::ReadWrite,
        }));
    }
    for device in devices(request) {
        // Read-only keeps the node's owner and mode from being changed; a device can be
        // written to all the same.
        steps.push(Step::Capture {
            source: PathBuf::from("/dev").join(device),
            access: Access::ReadOnly,
        });
    }
    for node in &request.nodes {
        let (source, access) = match node {
            // Captured first of all.
            Node::Bind {
                access: Access::ReadWrite,
                ..
            } if request.ids == Ids::Range => continue,
            Node::Bind { source, access, .. } => (source.clone(), *access),
            Node::Copy { source, .. } => (source.clone(), Access::ReadOnly),
            _ => continue,
        };
        steps.push(Step::Capture { source, access });
    }
    steps
}

fn enter(request: &SandboxRequest, caller: Caller) -> Vec<Step> {
    let optional = [Weakness::CgroupNamespace, Weakness::TimeNamespace]
        .into_iter()
        .filter(|weakness| request.weak.contains(weakness))
        .collect();
    let processes = match request.supervision {
        None => Entry::Now,
        Some(_) => Entry::Later,
    };
    let mut steps = Vec::new();
    if request.ids == Ids::Range {
        let first = |of: fn(HostIds) -> u32| caller.range.map(of);
        steps.push(Step::EnterRange {
            users: range::spans(request.uid, first(|range| range.users)),
            groups: range::spans(request.gid, first(|range| range.groups)),
            by: match caller.power {
                Power::Root => Mapper::Root,
                Power::Ordinary | Power::RootInName => Mapper::Programs,
            },
        });
        // For all of its users together; the builder's own limit is for each.
        steps.extend(request.limits.processes.map(|value| Step::Limit {
            resource: Resource::Processes,
            value,
        }));
    }
    steps.extend([
        Step::EnterNamespaces {
            optional,
            processes,
        },
        Step::SetClocks(request.clocks),
        match request.ids {
            Ids::One => Step::MapIds {
                uid: request.uid,
                gid: request.gid,
            },
            Ids::Range => Step::KeepIds,
        },
        Step::FollowServer,
    ]);
    steps
}

fn start_init(request: &SandboxRequest) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(supervision) = &request.supervision {
        steps.extend([
            Step::StartSupervisor {
                supervision: supervision.clone(),
                processors: request.cores.clone(),
            },
            Step::EnterProcessNamespace,
        ]);
    }
    steps.push(Step::StartInit);
    // Set before the privilege to do so is gone.
    steps.extend(request.first_pid.map(Step::NextPid));
    steps
}

/// The largest that a directory in memory is without being asked for.
const MAX_SCRATCH_BYTES: u64 = 4 << 30;

/// Returns what fits into each directory of [`SCRATCH`]: not so much that both together
/// take the memory of the machine, and so round that it hardly tells how much that is.
fn scratch_bytes(request: &SandboxRequest, caller: Caller) -> u64 {
    request.limits.scratch_bytes.unwrap_or_else(|| {
        let fifth = (caller.memory_bytes / 5).clamp(1 << 20, MAX_SCRATCH_BYTES);
        1 << fifth.ilog2()
    })
}

fn tree(request: &SandboxRequest, scratch_bytes: u64) -> Vec<Step> {
    let mut steps = vec![Step::MountRoot];
    for device in devices(request) {
        steps.push(Step::Attach {
            path: format!("dev/{device}"),
        });
    }
    for (path, target) in DEVICE_LINKS {
        steps.push(Step::Symlink {
            path: path.to_owned(),
            target: target.to_owned(),
        });
    }
    for node in &request.nodes {
        place(node, request.ids, &mut steps);
    }
    for path in SCRATCH {
        steps.push(Step::MountTmpfs {
            path: path.to_owned(),
            mode: 0o1777,
            size_bytes: Some(scratch_bytes),
        });
    }
    steps
}

fn place(node: &Node, ids: Ids, steps: &mut Vec<Step>) {
    let path = relative(node.path());
    match node {
        Node::Directory { .. } => steps.push(Step::Directory { path }),
        Node::Symlink { target, .. } => steps.push(Step::Symlink {
            path,
            target: target.clone(),
        }),
        Node::File {
            content,
            executable,
            ..
        } => steps.push(Step::File {
            path,
            content: content.clone(),
            executable: *executable,
        }),
        Node::Bind {
            access: Access::ReadWrite,
            ..
        } if ids == Ids::Range => steps.push(Step::AttachCopy { path }),
        Node::Bind { .. } => steps.push(Step::Attach { path }),
        Node::Tmpfs {
            size_bytes, mode, ..
        } => steps.push(Step::MountTmpfs {
            path,
            mode: *mode,
            size_bytes: *size_bytes,
        }),
        Node::Copy { size_bytes, .. } => steps.extend([
            Step::MountTmpfs {
                path: path.clone(),
                mode: 0o755,
                size_bytes: *size_bytes,
            },
            Step::Copy { path },
        ]),
    }
}

fn builder(request: &SandboxRequest) -> Vec<Step> {
    let mut steps = vec![Step::OpenSession];
    steps.extend(request.terminal.map(Step::ControlTerminal));
    let limits = &request.limits;
    for (resource, value) in [
        (Resource::CoreBytes, Some(0)),
        (Resource::StackBytes, Some(STACK_BYTES)),
        (Resource::Processes, limits.processes),
        (Resource::OpenFiles, limits.open_files),
        (Resource::FileBytes, limits.file_bytes),
    ] {
        steps.extend(value.map(|value| Step::Limit { resource, value }));
    }
    steps.push(Step::Umask(request.umask));
    steps.extend(request.cores.clone().map(Step::Processors));
    if !request.aslr {
        steps.push(Step::FixAddresses);
    }
    if request.release == Release::Series26 {
        steps.push(Step::Release26);
    }
    steps.extend([
        Step::Enter(request.working_directory.clone()),
        Step::StandardDescriptors,
        Step::ResetSignals,
        Step::CloseDescriptors,
        Step::Landlock {
            trees: writable(request),
            files: devices(request)
                .map(|device| format!("/dev/{device}"))
                .collect(),
            optional: request.weak.contains(&Weakness::Landlock),
        },
        Step::FilterSystemCalls,
        Step::CheckLocks {
            read_only: read_only(request),
            ids: request.ids,
        },
    ]);
    // After the locks, which must be tried as the kernel answers.
    steps.extend(request.supervision.clone().map(Step::HandOver));
    // Last, since the steps before need memory too.
    steps.extend(limits.memory_bytes.map(|value| Step::Limit {
        resource: Resource::MemoryBytes,
        value,
    }));
    steps.push(Step::Execute {
        command: request.command.clone(),
        environment: request
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
    });
    steps
}

/// Returns the trees that the build may write to, sorted.
fn writable(request: &SandboxRequest) -> Vec<String> {
    let trees: BTreeSet<String> = request
        .nodes
        .iter()
        .filter(|node| {
            matches!(
                node,
                Node::Tmpfs { .. }
                    | Node::Copy { .. }
                    | Node::Bind {
                        access: Access::ReadWrite,
                        ..
                    }
            )
        })
        .map(|node| node.path().to_owned())
        .chain(SCRATCH.map(|path| format!("/{path}")))
        .collect();
    trees.into_iter().collect()
}

/// Returns the mounts that must be read-only, in the order of the request.
fn read_only(request: &SandboxRequest) -> Vec<String> {
    request
        .nodes
        .iter()
        .filter(|node| {
            matches!(
                node,
                Node::Bind {
                    access: Access::ReadOnly,
                    ..
                }
            )
        })
        .map(|node| node.path().to_owned())
        .chain(["/".to_owned(), "/proc".to_owned()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::Supervision;

    fn caller(power: Power) -> Caller {
        Caller {
            power,
            processors: 2,
            memory_bytes: 16 << 30,
            range: Some(HostIds {
                users: 100_000,
                groups: 200_000,
            }),
        }
    }

    #[test]
    fn the_plan_starts_outside_and_ends_with_the_program() {
        let request = SandboxRequest::new(vec!["/bin/true".to_owned()]);
        for power in [Power::Ordinary, Power::Root, Power::RootInName] {
            let words: Vec<String> = steps(&request, caller(power))
                .iter()
                .map(ToString::to_string)
                .collect();
            let at = |word: &str| words.iter().position(|step| step == word).unwrap();
            assert!(at("enter new namespaces") < at("start init"));
            assert!(at("leave the old root") < at("drop every capability"));
            assert!(at("drop every capability") < at("start the builder"));
            assert!(at("start the builder") < at("install the system call filter"));
            assert_eq!(words.last().unwrap(), "execute `/bin/true`");
        }
        let root = steps(&request, caller(Power::Root));
        assert_eq!(root[5], Step::LeaveRoot { optional: false });
    }

    #[test]
    fn a_supervisor_starts_outside_and_is_called_last() {
        let mut request = SandboxRequest::new(vec!["/bin/true".to_owned()]);
        let plain = steps(&request, caller(Power::Ordinary));
        let supervision = Supervision {
            random_seed: Some([1; 32]),
            ..Supervision::default()
        };
        request.supervision = Some(supervision.clone());
        let mut supervised = steps(&request, caller(Power::Ordinary));
        let at = |wanted: &dyn Fn(&Step) -> bool| supervised.iter().position(wanted).unwrap();
        let start = at(&|step| matches!(step, Step::StartSupervisor { .. }));
        let mapped = at(&|step| matches!(step, Step::MapIds { .. }));
        let entered = at(&|step| *step == Step::EnterProcessNamespace);
        assert!(mapped < start && start < entered);
        assert_eq!(supervised[entered + 1], Step::StartInit);
        let called = at(&|step| *step == Step::HandOver(supervision.clone()));
        assert!(matches!(supervised[called - 1], Step::CheckLocks { .. }));
        assert!(matches!(supervised[called + 1], Step::Execute { .. }));
        assert_eq!(
            supervised[start].to_string(),
            "start a supervisor of random bytes"
        );
        // Without one, the plan is the same without these.
        supervised.retain(|step| {
            !matches!(
                step,
                Step::StartSupervisor { .. } | Step::EnterProcessNamespace | Step::HandOver(_)
            )
        });
        if let Some(Step::EnterNamespaces { processes, .. }) = supervised.first_mut() {
            assert_eq!(std::mem::replace(processes, Entry::Now), Entry::Later);
        }
        assert_eq!(supervised, plain);
    }

    #[test]
    fn a_range_changes_what_is_written_and_who_holds_it() {
        let mut request = SandboxRequest::new(vec!["/bin/true".to_owned()]);
        request.limits.processes = Some(7);
        for (path, access) in [("/input", Access::ReadOnly), ("/output", Access::ReadWrite)] {
            request.nodes.push(Node::Bind {
                path: path.to_owned(),
                source: "/etc".into(),
                access,
            });
        }
        request.ids = Ids::Range;
        for power in [Power::Ordinary, Power::Root, Power::RootInName] {
            let steps = steps(&request, caller(power));
            let at = |wanted: &dyn Fn(&Step) -> bool| steps.iter().position(wanted).unwrap();
            let is = |wanted: Step| at(&|step| *step == wanted);
            let entered = at(&|step| matches!(step, Step::EnterRange { .. }));
            assert!(matches!(
                steps[entered + 1],
                Step::Limit {
                    resource: Resource::Processes,
                    value: 7
                }
            ));
            assert!(matches!(steps[entered + 2], Step::EnterNamespaces { .. }));
            assert!(entered < is(Step::KeepIds) && is(Step::KeepIds) < is(Step::CopyIn));
            assert!(is(Step::CopyIn) < is(Step::StartInit));
            assert!(is(Step::KeepIdCapabilities) < is(Step::StartBuilder));
            // What is copied was captured first, and nothing of the host is attached that
            // can be written to.
            let first = at(&|step| matches!(step, Step::Capture { .. }));
            assert!(matches!(
                steps[first],
                Step::Capture {
                    access: Access::ReadWrite,
                    ..
                }
            ));
            let attached = |step: &Step| {
                *step
                    == Step::Attach {
                        path: "output".to_owned(),
                    }
            };
            assert!(!steps.iter().any(attached));
            is(Step::AttachCopy {
                path: "output".to_owned(),
            });
            let never = |step: &Step| matches!(step, Step::MapIds { .. } | Step::DropCapabilities);
            assert!(!steps.iter().any(never));
        }
        let text = steps(&request, caller(Power::Ordinary))[0].to_string();
        assert_eq!(
            text,
            "enter a user namespace of users 0-999 (100000 on), 1000 (the caller), \
             1001-65535 (101000 on) and groups 0-99 (200000 on), 100 (the caller), \
             101-65535 (200100 on)"
        );
    }

    #[test]
    fn scratch_follows_the_memory_of_the_machine() {
        let mut request = SandboxRequest::new(vec!["/bin/true".to_owned()]);
        let of = |request: &SandboxRequest, memory_bytes| {
            let caller = Caller {
                memory_bytes,
                ..caller(Power::Ordinary)
            };
            scratch_bytes(request, caller)
        };
        for (memory, scratch) in [
            (0, 1 << 20),
            (4 << 30, 512 << 20),
            (16 << 30, 2 << 30),
            (20 << 30, 4 << 30),
            (1 << 40, 4 << 30),
        ] {
            assert_eq!(of(&request, memory), scratch, "{memory}");
        }
        request.limits.scratch_bytes = Some(12345);
        assert_eq!(of(&request, 16 << 30), 12345);
    }

    #[test]
    fn one_step_in_each_order_captures_what_another_attaches() {
        let mut request = SandboxRequest::new(vec!["/bin/true".to_owned()]);
        request.nodes = vec![
            Node::Bind {
                path: "/a".to_owned(),
                source: "/etc".into(),
                access: Access::ReadOnly,
            },
            Node::Copy {
                path: "/b".to_owned(),
                source: "/tmp".into(),
                size_bytes: None,
            },
        ];
        let steps = steps(&request, caller(Power::Ordinary));
        let count = |wanted: fn(&Step) -> bool| steps.iter().filter(|step| wanted(step)).count();
        assert_eq!(
            count(|step| matches!(step, Step::Capture { .. })),
            count(|step| matches!(step, Step::Attach { .. } | Step::Copy { .. }))
        );
    }
}
