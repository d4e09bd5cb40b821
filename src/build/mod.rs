//! One run of the sandbox: the work directory, the request, the outputs, the log.
//!
//! In: an action whose inputs are all in the store. Out: planned objects that are not yet
//! registered (so that a rebuild can be compared and thrown away), or what went wrong with
//! the log's last lines. This stage is the sandbox's only caller. What always holds: when
//! outputs are looked at, every process of the build is dead.

pub mod links;
pub mod log;
mod outputs;
mod shell;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use kiln_sandbox::{Cancel, End, Groups, Launcher, SandboxError, SandboxRequest, Weakness};

use crate::action::{Action, ActionKind, COMMAND, scratch_path};
use crate::derivation::Limits;
use crate::fetch::FetchError;
use crate::hash::{ActionDigest, OutputName, StorePath};
use crate::store::{
    Addition, BuildRecord, Hermeticity, Lacking, ObjectPlan, Scratch, Store, StoreError,
};

pub use log::LogLine;
pub use shell::{Opened, Start};

/// What a rebuild may see differently, and a correct build does not let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions {
    /// Goes into the scratch paths of outputs.
    pub salt: String,
    /// Parallel jobs that the build may use: its `$JOBS`.
    pub cores: usize,
    /// Whether what a failed build leaves is kept for a shell.
    pub keep_failed: bool,
    /// What the sandbox shows of the machine. The build's own world comes on top.
    pub sandbox: SandboxRequest,
}

impl Conditions {
    /// Returns the conditions of an ordinary build.
    pub fn ordinary(cores: usize) -> Self {
        Self {
            salt: String::new(),
            cores,
            keep_failed: true,
            sandbox: SandboxRequest::new(COMMAND.map(str::to_owned).to_vec()),
        }
    }
}

/// A build that did not give its outputs.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The builder ended badly.
    #[error("build of `{name}` {}", describe(.end, .phase.as_deref()))]
    Failed {
        /// The action's name.
        name: String,
        /// The action, to find its log by.
        action: ActionDigest,
        /// The phase that ran, if one had started.
        phase: Option<String>,
        /// How it ended.
        end: End,
        /// The limits it had.
        limits: Limits,
        /// The last lines of its log.
        tail: Vec<String>,
    },
    /// An output was left empty.
    #[error("build of `{name}` succeeded but left the output `{output}` empty")]
    EmptyOutput {
        /// The action's name.
        name: String,
        /// The action, to find its log by.
        action: ActionDigest,
        /// The output.
        output: OutputName,
    },
    /// An output is declared static and is not.
    #[error("the output `{output}` of `{name}` is declared static, but {} of its files are not", .files.len())]
    NotStatic {
        /// The action's name.
        name: String,
        /// The output.
        output: OutputName,
        /// The files and what makes each dynamic.
        files: Vec<(String, String)>,
    },
    /// An archive could not be laid out.
    #[error("the source `{at}` of `{name}` cannot be unpacked")]
    Source {
        /// The action's name.
        name: String,
        /// The directory below `/build`.
        at: String,
        /// Why.
        source: Box<FetchError>,
    },
    /// The root holds an entry that every sandbox has of its own.
    #[error("the root `{root}` holds `/{entry}`, which the sandbox provides itself")]
    ReservedEntry {
        /// The root's object.
        root: StorePath,
        /// The entry.
        entry: String,
    },
    /// A phase that a build does not have.
    #[error("`{name}` has no phase `{phase}`")]
    NoPhase {
        /// The action's name.
        name: String,
        /// The phase that was asked for.
        phase: String,
    },
    /// No failed run of a build is kept.
    #[error("no failed build of `{0}` is kept")]
    NotKept(String),
    /// The action is not one that runs in a sandbox.
    #[error("`{0}` is not a build")]
    NotARun(String),
    /// The sandbox could not be set up.
    #[error("cannot run the sandbox for `{name}`")]
    Sandbox {
        /// The action's name.
        name: String,
        /// Why.
        source: SandboxError,
    },
    /// A file of the work directory or the log.
    #[error("cannot {operation} `{}`", path.display())]
    Access {
        /// What was tried, as a verb.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn describe(end: &End, phase: Option<&str>) -> String {
    let during = phase
        .map(|phase| format!(" in phase `{phase}`"))
        .unwrap_or_default();
    match end {
        End::Exited(status) => format!("failed{during} with exit status {status}"),
        End::Signaled(signal) => format!("was killed{during} by signal {signal}"),
        End::WallLimit => format!("exceeded its time limit{during}"),
        End::SilenceLimit => format!("wrote nothing for too long{during}"),
        End::LogLimit => format!("exceeded its log limit{during}"),
        End::ProcessLimit => format!("failed{during} with as many processes as are allowed"),
        End::OutOfMemory => format!("ran out of memory{during}"),
        End::FileLimit => format!("wrote a file that is too large{during}"),
        End::Cancelled => format!("was cancelled{during}"),
    }
}

/// What a build gave: trees that are named but not yet in the store.
#[derive(Debug)]
pub struct Built {
    /// The outputs, by name.
    pub outputs: BTreeMap<OutputName, ObjectPlan>,
    /// What linkers took into their programs.
    pub links: links::Links,
    /// How it went.
    pub record: BuildRecord,
    /// Keeps the trees until they are registered.
    _scratch: Scratch,
}

/// Runs actions in sandboxes.
#[derive(Clone, Copy)]
pub struct Builder<'a> {
    /// Where inputs lie and outputs go.
    pub store: &'a Store,
    /// Starts sandboxes.
    pub launcher: &'a Launcher,
    /// Ends them early.
    pub cancel: &'a Cancel,
    /// Whether a sandbox may lack what makes a result hermetic.
    pub hermeticity: Hermeticity,
}

impl Builder<'_> {
    /// Builds or tests an action whose inputs are in the store.
    ///
    /// A test gives no outputs. `package` is what the run is recorded for. `on_line` sees
    /// each line of the log as it is written.
    ///
    /// # Errors
    /// [`BuildError`]; the log is kept and the run recorded in every case.
    pub fn run(
        &self,
        action: &Action,
        package: &str,
        limits: &Limits,
        conditions: &Conditions,
        on_line: &mut dyn FnMut(LogLine<'_>),
    ) -> Result<Built, BuildError> {
        let digest = action.digest();
        let run = action
            .run()
            .ok_or_else(|| BuildError::NotARun(action.name.to_string()))?;
        let scratch = self.store.scratch()?;
        let additions = additions(action, digest, conditions, scratch.path());
        let world = world::World::new(self.store, action, run, scratch.path())?;
        world.lay_out(&additions)?;
        let request = world.request(&additions, limits, conditions, self.hermeticity)?;

        tell_ungrouped(self.launcher);
        let mut log = log::Log::create(self.store, digest)?;
        let started = SystemTime::now();
        let outcome = self.launcher.run(
            &request,
            &mut |bytes| log.write(bytes, on_line),
            self.cancel,
        );
        let log = log.finish(on_line)?;
        let outcome = outcome.map_err(|source| BuildError::Sandbox {
            name: action.name.to_string(),
            source,
        })?;
        tell_missing(&outcome.missing);
        let lacking: Lacking = outcome
            .missing
            .difference(&permitted(Hermeticity::Required))
            .map(|weakness| weakness.name())
            .collect();
        let succeeded = outcome.end == End::Exited(0);
        let record = BuildRecord {
            action: digest,
            package: package.to_owned(),
            started,
            wall: outcome.usage.wall,
            cpu: outcome.usage.cpu,
            peak_memory_bytes: outcome.usage.peak_memory_bytes,
            outcome: if succeeded {
                "succeeded".to_owned()
            } else {
                describe(&outcome.end, log.phase.as_deref())
            },
            log: Some(log.name),
            lacking,
        };
        if !succeeded {
            // First of all, so that a full disk has room for what is recorded.
            if outcome.end == End::Cancelled || !conditions.keep_failed {
                drop(scratch);
            } else {
                self.store.keep_failed(digest, scratch)?;
            }
            self.store
                .record_build(&record, &action.name, &action.json())?;
            return Err(BuildError::Failed {
                name: action.name.to_string(),
                action: digest,
                phase: log.phase,
                end: outcome.end,
                limits: limits.clone(),
                tail: log.tail,
            });
        }
        self.store
            .record_build(&record, &action.name, &action.json())?;
        self.store.forget_failed(digest)?;
        let outputs = outputs::collect(action, digest, &additions, &world.candidates())?;
        let links = if outputs.is_empty() {
            links::Links::new()
        } else {
            let sight = (&run.root, world.visible());
            links::collect(self.store, scratch.path(), sight, &outputs)?
        };
        Ok(Built {
            outputs,
            links,
            record,
            _scratch: scratch,
        })
    }
}

/// Returns the layers that a sandbox may go without.
///
/// Landlock guards a second time what mounts and namespaces guard already. A build without
/// it sees the same world and writes to the same places, so its result is as hermetic;
/// that it is missing is told, and `kiln doctor` says what to change. Without any other
/// layer a build would see something of the host, or be more to it than any user is.
pub fn permitted(hermeticity: Hermeticity) -> BTreeSet<Weakness> {
    match hermeticity {
        Hermeticity::Required => BTreeSet::from([Weakness::Landlock]),
        Hermeticity::Waived => BTreeSet::from(Weakness::ALL),
    }
}

/// Returns how much memory a build's processes may use together: what its file says, or
/// seven eighths of the machine's, so that the machine itself goes on.
pub fn memory_bytes(limits: &Limits) -> u64 {
    let machine = kiln_sandbox::Caller::current().memory_bytes;
    limits.memory_bytes.unwrap_or(machine / 8 * 7)
}

/// Tells once, to whoever wants to know much, that builds have no limit as a whole.
fn tell_ungrouped(launcher: &Launcher) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let groups = launcher.groups();
    if groups == Ok(Groups { processors: true }) || TOLD.swap(true, Ordering::Relaxed) {
        return;
    }
    match groups {
        Ok(_) => tracing::info!(
            "processor time of a build as a whole is not limited: it is not delegated"
        ),
        Err(none) => tracing::info!(
            "memory and processes of a build as a whole are not limited: {}; {}",
            none.why,
            none.remedy
        ),
    }
}

/// Tells once which layers of the sandbox this host lacks.
pub fn tell_missing(missing: &BTreeSet<Weakness>) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !missing.is_empty() && !TOLD.swap(true, Ordering::Relaxed) {
        let layers: Vec<String> = missing.iter().map(ToString::to_string).collect();
        tracing::warn!(
            "this host lacks {}: builds run without",
            layers.join(" and ")
        );
    }
}

/// Returns where each output of a build is written, and under which scratch path.
fn additions(
    action: &Action,
    digest: ActionDigest,
    conditions: &Conditions,
    work: &Path,
) -> BTreeMap<OutputName, Addition> {
    let ActionKind::Build { outputs, .. } = &action.kind else {
        return BTreeMap::new();
    };
    outputs
        .iter()
        .map(|(output, name)| {
            let told = scratch_path(digest, output, name, &conditions.salt);
            let tree = work.join("outputs").join(output.as_str());
            (
                output.clone(),
                Addition {
                    tree,
                    name: name.clone(),
                    scratch: Some(told),
                },
            )
        })
        .collect()
}

/// Returns a duration as people write it in a derivation file.
pub fn in_words(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 3600 && seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds >= 60 && seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}
