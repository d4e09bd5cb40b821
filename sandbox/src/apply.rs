//! Performs the plan: one loop, no decisions.
//!
//! The loop starts in the monitor. Two steps split the process, and the child goes on with
//! the list; so monitor, init and builder each leave the loop at their own place. A third
//! starts the supervisor, where one is asked for, which leaves the loop at once.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Pid, Uid};
use rustix::fs::CWD;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, move_mount, unmount};

use crate::child::{self, Line, Pipes};
use crate::ids::{self, Outsider};
use crate::lock::{self, Lock};
use crate::mounts::{self, BelowProc, Captured, Copied};
use crate::namespaces::{self, Reserve};
use crate::request::Weakness;
use crate::step::{Resource, Step};
use crate::wire::Report;
use crate::{copy, group, identity, landlock, seccomp, supervise, sys};

/// What the loop holds between steps.
pub(crate) struct World {
    pub pipes: Pipes,
    /// Lets files of root's appear as files of the id that root becomes, if it becomes one.
    id_map: Option<OwnedFd>,
    /// Namespaces made ahead.
    reserve: Option<Reserve>,
    captured: VecDeque<Captured>,
    /// Copies in memory of what was captured, to be copied back; and how many are attached.
    copied: Vec<Copied>,
    attached: usize,
    /// Gives the next namespace the ids of the range.
    keeper: Option<Outsider>,
    input: Option<Input>,
    root: Option<OwnedFd>,
    /// Who the process was when it entered the namespaces.
    outside: Option<(Uid, Gid)>,
    below_proc: Option<BelowProc>,
    supervisor: Option<Supervisor>,
    /// Layers that this run goes without.
    missing: BTreeSet<Weakness>,
}

/// The supervisor, as the monitor and its children know it.
struct Supervisor {
    process: Pid,
    /// Where the builder sends what the supervisor is asked by. No other process may keep
    /// it, or the supervisor waits for a builder that is dead.
    socket: OwnedFd,
}

/// What the program reads, if not `/dev/null` or its terminal.
enum Input {
    /// A pipe of the sandbox's own.
    EmptyPipe(OwnedFd),
    /// A file of the host.
    File(OwnedFd),
}

impl Input {
    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::EmptyPipe(descriptor) | Self::File(descriptor) => descriptor.as_fd(),
        }
    }

    fn pipe(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::EmptyPipe(descriptor) => Some(descriptor.as_fd()),
            Self::File(_) => None,
        }
    }
}

/// Why a step was not done.
pub(crate) enum Refusal {
    /// The system refused it.
    System(io::Error),
    /// The host lacks something that the request does not do without.
    Needed(Weakness),
    /// A lock does not hold.
    Open(Lock),
    /// Another process says why.
    Told(Report),
}

impl<E: Into<io::Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::System(error.into())
    }
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// What was made before there was a plan.
pub(crate) struct Ahead {
    /// Lets files of root's appear as files of the id that root becomes, if it can.
    pub id_map: Option<OwnedFd>,
    /// Namespaces that the run may enter, if there was time to make them.
    pub reserve: Option<Reserve>,
}

/// Performs steps in order; the first that fails is reported and ends the process.
pub(crate) fn perform(steps: &[Step], pipes: Pipes, ahead: Ahead) -> ! {
    let leaves_root = |step: &Step| matches!(step, Step::LeaveRoot { .. });
    let mut world = World {
        pipes,
        id_map: ahead.id_map.filter(|_| steps.iter().any(leaves_root)),
        reserve: ahead.reserve,
        captured: VecDeque::new(),
        copied: Vec::new(),
        attached: 0,
        keeper: None,
        input: None,
        root: None,
        outside: None,
        below_proc: None,
        supervisor: None,
        missing: BTreeSet::new(),
    };
    for (at, step) in steps.iter().enumerate() {
        let rest = steps.get(at + 1..).unwrap_or(&[]);
        let done = match step {
            Step::StartSupervisor {
                supervision,
                processors,
            } => match world.start_supervisor() {
                Ok(None) => Ok(()),
                Ok(Some(line)) => {
                    child::supervise(world.keep_pipes(), line, supervision, processors.as_ref())
                }
                Err(error) => Err(error.into()),
            },
            other => world.perform(other, rest),
        };
        match done {
            Ok(()) => {}
            Err(Refusal::System(error)) => world.pipes.end(&refused(step, &error)),
            Err(Refusal::Needed(weakness)) => world.pipes.end(&Report::Needed(weakness)),
            Err(Refusal::Told(report)) => world.pipes.end(&report),
            Err(Refusal::Open(lock)) => world.pipes.end(&Report::Open(lock)),
        }
    }
    world.pipes.fail("execute anything", &broken("no program"))
}

/// Returns the report of a step that the system refused.
///
/// A host may let anyone make a user namespace and then refuse what needs a capability in
/// it (as Ubuntu 24.04 does), so the first steps inside count as well.
fn refused(step: &Step, error: &io::Error) -> Report {
    let errno = error.raw_os_error().unwrap_or(0);
    let forbidden = match step {
        Step::EnterNamespaces { .. } | Step::EnterRange { .. } => true,
        Step::MapIds { .. } | Step::EnterProcessNamespace | Step::MakeMountsPrivate => {
            matches!(errno, libc::EPERM | libc::EACCES)
        }
        _ => false,
    };
    let step = step.to_string();
    if forbidden {
        Report::Forbidden { step, errno }
    } else {
        Report::Failed { step, errno }
    }
}

impl World {
    fn root(&self) -> io::Result<&OwnedFd> {
        self.root
            .as_ref()
            .ok_or_else(|| broken("the new root is not mounted yet"))
    }

    fn next_captured(&mut self) -> io::Result<Captured> {
        self.captured
            .pop_front()
            .ok_or_else(|| broken("nothing captured"))
    }

    /// Goes without something, if the request allows it, and says so.
    fn without(&mut self, weakness: Weakness, optional: bool) -> Result<(), Refusal> {
        if optional {
            self.missing.insert(weakness);
            Ok(self.pipes.tell(&Report::Missing(weakness))?)
        } else {
            Err(Refusal::Needed(weakness))
        }
    }

    fn perform(&mut self, step: &Step, rest: &[Step]) -> Result<(), Refusal> {
        match step {
            Step::LeaveRoot { optional } => {
                let written = [self.pipes.output.as_fd(), self.pipes.errors.as_fd()];
                let pipe = self.input.as_ref().and_then(Input::pipe);
                let streams: Vec<_> = written.into_iter().chain(pipe).collect();
                let left =
                    identity::leave_root(self.id_map.is_some(), &mut self.captured, &streams)?;
                if !left {
                    self.without(Weakness::RootOutside, *optional)?;
                }
                self.id_map = None;
            }
            Step::StayRoot { optional } => self.without(Weakness::RootOutside, *optional)?,
            Step::EnterNamespaces {
                optional,
                processes,
            } => {
                self.outside = Some((Uid::effective(), Gid::effective()));
                let reserve = self.reserve.take();
                for missing in namespaces::enter(*processes, reserve)? {
                    self.without(missing, optional.contains(&missing))?;
                }
            }
            Step::EnterRange { users, groups, by } => {
                // Namespaces made ahead are not below the one of the range.
                self.reserve = None;
                ids::enter(users, groups, *by)?.map_err(Refusal::Told)?;
                self.keeper = Some(ids::keeper(users, groups)?);
            }
            Step::KeepIds => {
                let keeper = self.keeper.take();
                let keeper = keeper.ok_or_else(|| broken("no range was entered yet"))?;
                keeper.finish()?.map_err(Refusal::Told)?;
                nix::unistd::setgroups(&[])?;
            }
            Step::StartInit => self.start_init()?,
            Step::StartBuilder => self.start_builder(rest)?,
            Step::Landlock {
                trees,
                files,
                optional,
            } => {
                let terminal = self.pipes.output.as_fd();
                if !landlock::restrict(trees, files, terminal)? {
                    self.without(Weakness::Landlock, *optional)?;
                }
            }
            Step::CheckLocks { read_only, ids } => {
                lock::check(read_only, *ids).map_err(Refusal::Open)?;
            }
            Step::Capture { .. }
            | Step::OpenInput(_)
            | Step::EmptyInput
            | Step::MountRoot
            | Step::Directory { .. }
            | Step::Symlink { .. }
            | Step::File { .. }
            | Step::Attach { .. }
            | Step::MountTmpfs { .. }
            | Step::Copy { .. }
            | Step::CopyIn
            | Step::AttachCopy { .. }
            | Step::MountProc
            | Step::Mask { .. }
            | Step::Cover { .. }
            | Step::MakeMountsPrivate
            | Step::PivotRoot
            | Step::DropOldRoot
            | Step::SealRoot => self.perform_on_tree(step)?,
            other => self.perform_on_process(other)?,
        }
        Ok(())
    }

    /// Performs a step that changes what files there are.
    fn perform_on_tree(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Capture { source, access } => {
                let captured = mounts::capture(source, *access, self.id_map.as_ref())?;
                self.captured.push_back(captured);
            }
            Step::OpenInput(source) => self.input = Some(Input::File(mounts::open_input(source)?)),
            Step::EmptyInput => self.input = Some(Input::EmptyPipe(io::pipe()?.0.into())),
            Step::MakeMountsPrivate => rustix::mount::mount_change(
                "/",
                MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
            )?,
            Step::MountRoot => {
                let root = mounts::new_mount("tmpfs", &[("mode", "0755"), ("size", "64m")])?;
                move_mount(&root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
                rustix::process::fchdir(&root)?;
                self.root = Some(root);
            }
            Step::Directory { path } => mounts::make_directories(self.root()?, path)?,
            Step::Symlink { path, target } => mounts::symlink(self.root()?, path, target)?,
            Step::File {
                path,
                content,
                executable,
            } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                mounts::write_file(self.root()?, path, content, mode)?;
            }
            Step::Attach { path } => {
                let captured = self.next_captured()?;
                captured.attach(self.root()?, path)?;
            }
            Step::MountTmpfs {
                path,
                mode,
                size_bytes,
            } => mounts::mount_tmpfs(self.root()?, path, *mode, *size_bytes)?,
            Step::Copy { path } => {
                let captured = self.next_captured()?;
                copy::copy(
                    &captured.mount,
                    &mounts::open_directory(self.root()?, path)?,
                )?;
            }
            Step::CopyIn => {
                let captured = self.next_captured()?;
                self.copied.push(Copied::new(captured)?);
            }
            Step::AttachCopy { path } => {
                let copied = self.copied.get(self.attached);
                let copied = copied.ok_or_else(|| broken("nothing copied"))?;
                copied.attach(self.root()?, path)?;
                self.attached += 1;
            }
            Step::MountProc => self.below_proc = Some(mounts::mount_proc(self.root()?)?),
            Step::Mask { path, open } => {
                mounts::mask(self.root()?, self.below_proc()?, path, *open)?;
            }
            Step::Cover { path, content } => {
                mounts::cover(self.root()?, self.below_proc()?, path, content)?;
            }
            Step::PivotRoot => rustix::process::pivot_root(".", ".")?,
            Step::DropOldRoot => {
                // What lies on top of the working directory.
                unmount(".", UnmountFlags::DETACH)?;
                rustix::process::chdir("/")?;
            }
            Step::SealRoot => {
                mounts::seal(self.root()?)?;
                // The tree is complete: no working directory can be named by these any more.
                (self.root, self.below_proc) = (None, None);
                self.copied.clear();
            }
            _ => return Err(broken("no step of the file tree")),
        }
        Ok(())
    }

    fn below_proc(&self) -> io::Result<&BelowProc> {
        self.below_proc
            .as_ref()
            .ok_or_else(|| broken("`/proc` is not mounted yet"))
    }

    /// Performs a step that changes what the process is and may do.
    fn perform_on_process(&mut self, step: &Step) -> io::Result<()> {
        match step {
            // Clocks of the whole machine are nobody's to set.
            Step::SetClocks(_) if self.missing.contains(&Weakness::TimeNamespace) => Ok(()),
            Step::SetClocks(clocks) => identity::set_clocks(*clocks),
            Step::MapIds { uid, gid } => {
                let outside = self
                    .outside
                    .ok_or_else(|| broken("no namespace was entered yet"))?;
                identity::map_ids(*uid, *gid, outside)
            }
            Step::JoinGroup(path) => group::join(path),
            Step::FollowServer => Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?),
            Step::EnterProcessNamespace => namespaces::enter_process_namespace(),
            Step::NextPid(pid) => identity::next_pid(*pid),
            Step::LoopbackUp => sys::loopback_up(),
            Step::HostName(name) => Ok(nix::unistd::sethostname(name)?),
            Step::DomainName(name) => sys::set_domain_name(name),
            Step::NewKeyring => identity::new_keyring(),
            Step::DropCapabilities => identity::drop_capabilities(),
            Step::KeepIdCapabilities => identity::keep_id_capabilities(),
            Step::NoNewPrivileges => Ok(nix::sys::prctl::set_no_new_privs()?),
            Step::Undumpable => Ok(nix::sys::prctl::set_dumpable(false)?),
            Step::OpenSession => Ok(nix::unistd::setsid().map(drop)?),
            Step::ControlTerminal(_) => sys::control_terminal(self.pipes.output.as_fd()),
            Step::Limit { resource, value } => identity::limit(*resource, *value),
            Step::Umask(mask) => {
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(*mask));
                Ok(())
            }
            Step::Processors(cores) => identity::choose_processors(cores),
            Step::FixAddresses => {
                identity::add_personality(nix::sys::personality::Persona::ADDR_NO_RANDOMIZE)
            }
            Step::Release26 => identity::add_personality(nix::sys::personality::Persona::UNAME26),
            Step::Enter(path) => Ok(rustix::process::chdir(path.as_str())?),
            Step::StandardDescriptors => self.connect(),
            Step::ResetSignals => sys::reset_signals(),
            Step::CloseDescriptors => sys::close_on_execute_from(3),
            Step::FilterSystemCalls => seccomp::install(),
            Step::HandOver(supervision) => {
                let supervisor = self
                    .supervisor
                    .take()
                    .ok_or_else(|| broken("no supervisor was started"))?;
                supervise::hand_over(supervision, &supervisor.socket)
            }
            Step::Execute {
                command,
                environment,
            } => Err(sys::execute(command, environment)),
            _ => Err(broken("no step of the process")),
        }
    }

    /// Connects the standard descriptors; a terminal serves as input too.
    fn connect(&mut self) -> io::Result<()> {
        let output = self.pipes.output.as_fd();
        if rustix::termios::isatty(output) {
            sys::duplicate_to(output, 0)?;
        } else if let Some(input) = &self.input {
            sys::duplicate_to(input.descriptor(), 0)?;
        } else {
            sys::duplicate_to(File::open("/dev/null")?.as_fd(), 0)?;
        }
        sys::duplicate_to(output, 1)?;
        sys::duplicate_to(self.pipes.errors.as_fd(), 2)
    }

    /// Starts the supervisor; returns its line to the others if this process is it.
    fn start_supervisor(&mut self) -> io::Result<Option<Line>> {
        let (theirs, ours) = supervise::line()?;
        let processes = supervise::processes()?;
        let monitor = Pid::this();
        if let Some(process) = sys::fork()? {
            let socket = ours;
            self.supervisor = Some(Supervisor { process, socket });
            return Ok(None);
        }
        Ok(Some(Line {
            monitor,
            socket: theirs,
            processes,
        }))
    }

    /// Lets go of everything else.
    fn keep_pipes(self) -> Pipes {
        self.pipes
    }

    /// Goes on as init; the parent stays behind as the monitor.
    fn start_init(&mut self) -> io::Result<()> {
        let (alive, alive_writer) = io::pipe()?;
        if let Some(init) = sys::fork()? {
            drop(alive);
            let supervisor = self.supervisor.take().map(|started| started.process);
            let copied = std::mem::take(&mut self.copied);
            child::watch(&mut self.pipes, init, supervisor, &copied)
        }
        drop(alive_writer);
        child::follow_monitor(&alive.into())
    }

    /// Goes on as the builder; the parent stays behind as init.
    fn start_builder(&mut self, rest: &[Step]) -> io::Result<()> {
        match sys::fork()? {
            None => Ok(()),
            Some(builder) => {
                self.supervisor = None;
                child::reap(&mut self.pipes, builder, process_limit(rest))
            }
        }
    }
}

/// Returns the limit on processes that the builder will set for itself.
fn process_limit(steps: &[Step]) -> Option<u64> {
    steps.iter().find_map(|step| match step {
        Step::Limit {
            resource: Resource::Processes,
            value,
        } => Some(*value),
        _ => None,
    })
}
