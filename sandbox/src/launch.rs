//! The parent: starts runs and says how they ended.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::libc;

use crate::cancel::Cancel;
use crate::error::{SandboxError, blocking_setting};
use crate::group::{Events, Group, NoPlace, Place};
use crate::outcome::{End, Outcome, Usage};
use crate::plan::{self, Caller};
use crate::request::{SandboxRequest, Together};
use crate::run::{Ends, Run};
use crate::server::{RUNNING, Server};
use crate::step::Step;
use crate::terminal;
use crate::wire::{DESCRIPTORS, Report};

/// Which of its two streams a program wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Errors,
}

/// Where a person types, and where it is told that the terminal's size changed.
#[derive(Debug, Clone, Copy)]
pub struct Keyboard<'a> {
    /// What is typed.
    pub input: BorrowedFd<'a>,
    /// Something that can be read from when the size of `input` has changed.
    pub resized: Option<BorrowedFd<'a>>,
}

/// Starts sandboxes; clones share one server, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    server: Arc<Mutex<Option<Server>>>,
    /// Looked for when first asked for.
    groups: Arc<OnceLock<Result<Place, NoPlace>>>,
    /// Found out when first asked for: the standard library reads files to count processors.
    caller: Arc<OnceLock<Caller>>,
}

/// What runs can be limited in as a whole, besides memory and processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// Processor time ([`Together::processors`]); where not, that limit is none.
    pub processors: bool,
}

/// Why runs cannot be limited as a whole, and what to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoGroups {
    /// What was found.
    pub why: String,
    /// What to change.
    pub remedy: &'static str,
}

impl Launcher {
    /// Uses an executable whose `main` calls [`crate::enter_if_asked`] first.
    pub fn new(program: PathBuf) -> Self {
        Self {
            program,
            server: Arc::default(),
            groups: Arc::default(),
            caller: Arc::default(),
        }
    }

    /// Uses the running executable, even if its file was replaced meanwhile.
    pub fn current() -> Self {
        Self::new(PathBuf::from(RUNNING))
    }

    /// Runs a request to its end. `log` sees what the program writes, as it writes it.
    ///
    /// # Errors
    /// [`SandboxError`] when the program did not run; however it ended is an [`Outcome`].
    pub fn run(
        &self,
        request: &SandboxRequest,
        log: &mut dyn FnMut(&[u8]),
        cancel: &Cancel,
    ) -> Result<Outcome, SandboxError> {
        let steps = self.plan(request)?;
        let wiring = Wiring::Together;
        self.perform(request, &steps, wiring, &mut |_, bytes| log(bytes), cancel)
    }

    /// Runs a request to its end, and keeps what it writes to its two streams apart. In
    /// which order it wrote to one and the other is not known.
    ///
    /// # Errors
    /// [`SandboxError`] when the program did not run; however it ended is an [`Outcome`].
    pub fn run_apart(
        &self,
        request: &SandboxRequest,
        log: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Outcome, SandboxError> {
        let steps = self.plan(request)?;
        let wiring = match request.terminal {
            Some(_) => Wiring::Together,
            None => Wiring::Apart,
        };
        self.perform(request, &steps, wiring, log, cancel)
    }

    /// Runs a request on its terminal to its end, and types what a keyboard gives.
    ///
    /// The terminal echoes and edits lines as terminals do: set the one that the keyboard
    /// is at, if there is one, to raw mode.
    ///
    /// # Errors
    /// [`SandboxError`] when the program did not run; however it ended is an [`Outcome`].
    pub fn converse(
        &self,
        request: &SandboxRequest,
        keyboard: Keyboard<'_>,
        log: &mut dyn FnMut(&[u8]),
        cancel: &Cancel,
    ) -> Result<Outcome, SandboxError> {
        let steps = self.plan(request)?;
        let wiring = match request.terminal {
            Some(_) => Wiring::Keyboard(keyboard),
            None => Wiring::Together,
        };
        self.perform(request, &steps, wiring, &mut |_, bytes| log(bytes), cancel)
    }

    /// Returns everything that is done for a request before its program runs.
    ///
    /// # Errors
    /// [`SandboxError::Request`] when it asks for what cannot be, and
    /// [`SandboxError::NoRange`] when it asks for ids that nobody lends to the caller.
    pub fn plan(&self, request: &SandboxRequest) -> Result<Vec<Step>, SandboxError> {
        request.validate()?;
        let caller = *self.caller.get_or_init(Caller::current);
        Ok(plan::steps(request, caller.asking(request)?))
    }

    /// Tells whether runs can be limited as a whole here ([`Together`](crate::Together)).
    ///
    /// # Errors
    /// Why not, and what to change.
    pub fn groups(&self) -> Result<Groups, NoGroups> {
        match self.place() {
            Ok(place) => Ok(Groups {
                processors: place.limits_processors(),
            }),
            Err(none) => Err(NoGroups {
                why: none.to_string(),
                remedy: none.remedy(),
            }),
        }
    }

    fn place(&self) -> &Result<Place, NoPlace> {
        self.groups.get_or_init(|| Place::find(self))
    }

    /// Makes a group for a run, if it is to be limited as a whole and can be.
    fn group(&self, limits: &Together) -> Result<Option<Group>, SandboxError> {
        if *limits == Together::default() {
            return Ok(None);
        }
        let Ok(place) = self.place() else {
            return Ok(None);
        };
        place
            .make()
            .and_then(|group| group.limit(limits).map(|()| Some(group)))
            .map_err(|source| SandboxError::Step {
                step: "limit the run as a whole".to_owned(),
                source,
            })
    }

    /// Returns the executable that becomes the server.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Performs a plan that is not the request's own: with a step left out, the locks must
    /// be found open, which no other way of asking can bring about.
    #[doc(hidden)]
    pub fn perform_for_test(
        &self,
        request: &SandboxRequest,
        steps: &[Step],
    ) -> Result<Outcome, SandboxError> {
        let cancel = Cancel::new().map_err(SandboxError::Connection)?;
        self.perform(request, steps, Wiring::Together, &mut |_, _| {}, &cancel)
    }

    fn perform(
        &self,
        request: &SandboxRequest,
        steps: &[Step],
        wiring: Wiring<'_>,
        log: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Outcome, SandboxError> {
        let started = Instant::now();
        // Dropped, and so removed, when all that was in it is dead.
        let group = self.group(&request.limits.together)?;
        let join = group.as_ref();
        let join = join.map(|group| Step::JoinGroup(group.path().to_owned()));
        let steps: Vec<&Step> = join.iter().chain(steps).collect();
        let line = Line::open(request, wiring).map_err(SandboxError::Connection)?;
        let output = line.output.1.as_fd();
        let errors = line.errors.as_ref().map_or(output, |(_, end)| end.as_fd());
        self.ask([line.life.0.as_fd(), line.status.1.as_fd(), output, errors])?;
        let ends = line.keep_ours(wiring);
        let mut run = Run::new(ends, &request.limits, started).map_err(SandboxError::Connection)?;
        // A monitor that ended early says why, and does not read on.
        let sent = run.send(&steps);
        run.watch(log, cancel).map_err(SandboxError::Connection)?;
        let events = group.as_ref().map(Group::events).unwrap_or_default();
        match finish(&run, events, started.elapsed()) {
            Err(SandboxError::Silent) => {
                Err(sent.map_or_else(SandboxError::Connection, |()| SandboxError::Silent))
            }
            other => other,
        }
    }

    /// Asks the server for a monitor; starts one if there is none, or if it is gone.
    fn ask(&self, descriptors: [BorrowedFd<'_>; DESCRIPTORS]) -> Result<(), SandboxError> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = server.as_ref()
            && server.ask(descriptors).is_ok()
        {
            return Ok(());
        }
        let failed = |source| SandboxError::Spawn {
            program: self.program.clone(),
            source,
        };
        let new = Server::start(&self.program).map_err(failed)?;
        new.ask(descriptors).map_err(failed)?;
        *server = Some(new);
        Ok(())
    }
}

/// What is at the parent's ends of a program's streams.
#[derive(Debug, Clone, Copy)]
enum Wiring<'a> {
    /// One log.
    Together,
    /// Two.
    Apart,
    /// Somebody who types.
    Keyboard(Keyboard<'a>),
}

type Pipe<Reader> = (Reader, io::PipeWriter);

/// The parent's end and the program's.
type Streams = (OwnedFd, OwnedFd);

/// The two ends of the life line, of the status pipe, and of what the program writes to.
struct Line {
    life: Pipe<io::PipeReader>,
    status: Pipe<io::PipeReader>,
    output: Streams,
    /// Where it is not the same as for the output.
    errors: Option<Streams>,
}

impl Line {
    fn open(request: &SandboxRequest, wiring: Wiring<'_>) -> io::Result<Self> {
        let pipe = || -> io::Result<Streams> {
            let (reader, writer) = io::pipe()?;
            Ok((reader.into(), writer.into()))
        };
        Ok(Self {
            life: io::pipe()?,
            status: io::pipe()?,
            output: match request.terminal {
                Some(terminal) => terminal::open(terminal, matches!(wiring, Wiring::Keyboard(_)))?,
                None => pipe()?,
            },
            errors: match wiring {
                Wiring::Apart => Some(pipe()?),
                Wiring::Together | Wiring::Keyboard(_) => None,
            },
        })
    }

    /// Closes the ends that the monitor has now, which must end with it.
    fn keep_ours(self, wiring: Wiring<'_>) -> Ends<'_> {
        let keyboard = match wiring {
            Wiring::Keyboard(keyboard) => Some(keyboard),
            Wiring::Together | Wiring::Apart => None,
        };
        Ends {
            life: self.life.1,
            status: self.status.0,
            output: self.output.0.into(),
            errors: self.errors.map(|(ours, _)| ours.into()),
            keyboard,
        }
    }
}

/// Returns how a run ended, from what its processes reported.
fn finish(run: &Run<'_>, events: Events, wall: Duration) -> Result<Outcome, SandboxError> {
    let mut usage = Usage {
        wall,
        log_bytes: run.log_bytes,
        ..Usage::default()
    };
    let mut end = run.killed;
    let mut failure = None;
    let mut missing = BTreeSet::new();
    let mut at_process_limit = events.process_limit;
    for report in &run.reports {
        match report {
            Report::Exited(0) => end = end.or(Some(End::Exited(0))),
            Report::Exited(_) | Report::Signaled(_) if events.out_of_memory => {
                end = end.or(Some(End::OutOfMemory));
            }
            Report::Exited(_) | Report::Signaled(_) if at_process_limit => {
                end = end.or(Some(End::ProcessLimit));
            }
            Report::Exited(status) => end = end.or(Some(End::Exited(*status))),
            Report::Signaled(libc::SIGXFSZ) => end = end.or(Some(End::FileLimit)),
            Report::Signaled(signal) => end = end.or(Some(End::Signaled(*signal))),
            Report::AtProcessLimit => at_process_limit = true,
            Report::Used(used) => {
                usage.cpu = Duration::from_micros(used.cpu_micros);
                usage.peak_memory_bytes = used.peak_memory_bytes;
                usage.written_bytes = used.written_bytes;
            }
            Report::Missing(weakness) => {
                missing.insert(*weakness);
            }
            Report::Failed { step, errno } => {
                failure.get_or_insert(SandboxError::Step {
                    step: step.clone(),
                    source: io::Error::from_raw_os_error(*errno),
                });
            }
            Report::Forbidden { step, errno } => {
                failure.get_or_insert_with(|| SandboxError::Forbidden {
                    step: step.clone(),
                    setting: blocking_setting(),
                    source: io::Error::from_raw_os_error(*errno),
                });
            }
            // Whatever the program did then, it did not see what was asked for.
            Report::Unsupervised { what, errno } if run.killed.is_none() => {
                return Err(SandboxError::Supervision {
                    what: what.clone(),
                    source: io::Error::from_raw_os_error(*errno),
                });
            }
            Report::Unsupervised { .. } => {}
            Report::Unmapped { by, said } => {
                failure.get_or_insert_with(|| SandboxError::Unmapped {
                    by: by.clone(),
                    said: said.clone(),
                });
            }
            Report::Needed(missing) => {
                failure.get_or_insert(SandboxError::Weaker { missing: *missing });
            }
            Report::Open(lock) => {
                failure.get_or_insert(SandboxError::Open { lock: lock.clone() });
            }
        }
    }
    match (failure, end) {
        (Some(failure), None | Some(End::Exited(_))) => Err(failure),
        (_, Some(end)) => Ok(Outcome {
            end,
            usage,
            missing,
        }),
        // The kernel chose one of the sandbox's own processes.
        (_, None) if events.out_of_memory => Ok(Outcome {
            end: End::OutOfMemory,
            usage,
            missing,
        }),
        (_, None) => Err(SandboxError::Silent),
    }
}
