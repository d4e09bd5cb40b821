//! For each step of a graph: have it, fetch it, or build it.
//!
//! In: a graph of steps. Out: the store paths of every step's outputs. A first pass walks
//! the graph in order and takes what the store has; only what is left is scheduled, in
//! parallel, as its inputs become ready. What always holds: an action is realised by one
//! process at a time, and what a run returns is in the store and recorded.
//!
//! Progress goes to an [`Observer`]; this stage prints nothing.

mod perform;
mod repair;
mod schedule;

pub use repair::{RepairError, Repaired};

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_sandbox::{Cancel, Launcher};

use crate::action::{Action, ActionKind};
use crate::build::{BuildError, LogLine};
use crate::fetch::{FetchError, Fetcher};
use crate::hash::{ActionDigest, OutputName, PackageName, RelPath, StorePath};
use crate::plan::{Graph, Step, StepId, StepKind};
use crate::store::{Hermeticity, Looking, Store, StoreError};

/// Something that happens to a step.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// So many steps have to be done; the others were there.
    Planned {
        /// Steps in all.
        total: usize,
        /// Steps whose outputs are not there.
        missing: usize,
    },
    /// Work on a step begins.
    Started,
    /// Another process works on the same step; this one waits.
    Waiting,
    /// Bytes of a download have arrived.
    Downloading {
        /// So far.
        received: u64,
        /// In all, where the server says so.
        total: Option<u64>,
    },
    /// An address failed; the next one is tried.
    AddressFailed {
        /// The address and why, in words.
        why: &'a str,
    },
    /// A line of a build's log.
    Log(LogLine<'a>),
    /// A step is done.
    Finished,
    /// A step failed.
    Failed,
}

/// Watches steps; called from several threads.
pub trait Observer: Sync {
    /// Takes one event; `step` is absent for events of the whole run.
    fn event(&self, step: Option<(StepId, &Step)>, event: Event<'_>);
}

/// Reads the trees beside derivation files.
pub trait Trees: Sync {
    /// Copies the tree of a package into an empty directory.
    ///
    /// # Errors
    /// [`FetchError`] when the tree is not there or holds what no object can hold.
    fn copy(&self, package: &PackageName, path: &RelPath, into: &Path) -> Result<(), FetchError>;
}

/// A step that could not be realised.
#[derive(Debug, thiserror::Error)]
pub enum RealiseError {
    /// A source could not be had.
    #[error("cannot fetch `{label}` for `{package}`")]
    Fetch {
        /// What was to be fetched.
        label: String,
        /// The package that wants it.
        package: PackageName,
        /// Why.
        source: Box<FetchError>,
    },
    /// A tree beside a derivation file could not be read.
    #[error("cannot take in the source `{path}` of `{package}`")]
    Tree {
        /// The tree's path as written.
        path: RelPath,
        /// The package.
        package: PackageName,
        /// Why.
        source: Box<FetchError>,
    },
    /// Packages could not be unpacked into a root.
    #[error("cannot unpack the packages of `{package}`")]
    Unpack {
        /// The package.
        package: PackageName,
        /// Why.
        source: Box<FetchError>,
    },
    /// Two roots hold different entries at one path.
    #[error("the roots of `{package}` conflict at `{path}`")]
    MergeConflict {
        /// The package whose root is merged.
        package: PackageName,
        /// The first path of the conflict.
        path: RelPath,
    },
    /// A build failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A test failed.
    #[error("the test of `{package}` failed")]
    Test {
        /// The package.
        package: PackageName,
        /// Why.
        source: BuildError,
    },
    /// A file of the work directory.
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
    /// The run was cancelled before this step began.
    #[error("cancelled")]
    Cancelled,
}

/// One step that failed.
#[derive(Debug)]
pub struct Failure {
    /// The step.
    pub step: StepId,
    /// Why.
    pub error: RealiseError,
}

/// What a run gave.
#[derive(Debug, Default)]
pub struct Realised {
    outputs: BTreeMap<StepId, Arc<BTreeMap<OutputName, StorePath>>>,
    actions: BTreeMap<StepId, (Action, ActionDigest)>,
    /// The steps that were done in this run, and not found done.
    pub performed: Vec<StepId>,
    /// The steps that failed, in the graph's order.
    pub failures: Vec<Failure>,
}

impl Realised {
    /// Returns the outputs of a step that is done.
    pub fn outputs(&self, step: StepId) -> Option<&BTreeMap<OutputName, StorePath>> {
        self.outputs.get(&step).map(AsRef::as_ref)
    }

    /// Returns the action of a step whose inputs are done; a working tree has none.
    pub fn action(&self, step: StepId) -> Option<&Action> {
        self.actions.get(&step).map(|(action, _)| action)
    }

    /// Returns the digest of a step's action.
    pub fn action_digest(&self, step: StepId) -> Option<ActionDigest> {
        self.actions.get(&step).map(|(_, digest)| *digest)
    }
}

/// Has, fetches or builds steps.
#[derive(Clone, Copy)]
pub struct Realiser<'a> {
    /// Where everything is kept.
    pub store: &'a Store,
    /// Starts sandboxes.
    pub launcher: &'a Launcher,
    /// Gets sources.
    pub fetcher: &'a Fetcher,
    /// Reads trees beside derivation files.
    pub trees: &'a dyn Trees,
    /// Watches.
    pub observer: &'a dyn Observer,
    /// Ends everything early.
    pub cancel: &'a Cancel,
    /// Whether results count, and are made, that are not hermetic.
    pub hermeticity: Hermeticity,
    /// Builds and tests that run at once.
    pub jobs: usize,
    /// Jobs that each build may use.
    pub cores: usize,
    /// Whether steps that do not depend on a failed one are still begun.
    pub keep_going: bool,
    /// The steps that are wanted, those they need included; `None` for all.
    pub only: Option<&'a BTreeSet<StepId>>,
}

impl Realiser<'_> {
    /// Realises every step of a graph.
    ///
    /// Failures of steps are in the result; what did not depend on them is done.
    ///
    /// # Errors
    /// [`RealiseError::Store`] when the store cannot be read at all.
    pub fn realise(&self, graph: &Graph) -> Result<Realised, RealiseError> {
        let mut realised = self.known(graph)?;
        let missing = graph.len() - realised.outputs.len();
        self.observer.event(
            None,
            Event::Planned {
                total: graph.len(),
                missing,
            },
        );
        if missing > 0 {
            schedule::run(self, graph, &mut realised);
        }
        Ok(realised)
    }

    /// Takes what the store has, and does nothing else.
    ///
    /// # Errors
    /// [`RealiseError::Store`] when the store cannot be read at all.
    pub fn known(&self, graph: &Graph) -> Result<Realised, RealiseError> {
        let mut realised = Realised::default();
        // A working tree can change at any time: it is read each time.
        for (id, step) in graph.steps() {
            if matches!(step.kind, StepKind::Tree { .. }) {
                match perform::take_tree(self, step) {
                    Ok(outputs) => {
                        realised.outputs.insert(id, Arc::new(outputs));
                    }
                    Err(RealiseError::Store(error)) => return Err(error.into()),
                    // Reported when the step is scheduled.
                    Err(_) => {}
                }
            }
        }
        let mut looking = self.store.look()?;
        for (id, step) in graph.steps() {
            let Some(action) = step.action(|input| realised.outputs(input)) else {
                continue;
            };
            let digest = action.digest();
            if let Some(outputs) = self.look_up(&mut looking, &action, digest)? {
                realised.outputs.insert(id, Arc::new(outputs));
            }
            realised.actions.insert(id, (action, digest));
        }
        looking.finish()?;
        Ok(realised)
    }

    /// Returns what the store knows an action to have produced, and keeps it.
    fn found(
        &self,
        action: &Action,
        digest: ActionDigest,
    ) -> Result<Option<BTreeMap<OutputName, StorePath>>, StoreError> {
        let mut looking = self.store.look()?;
        let found = self.look_up(&mut looking, action, digest)?;
        looking.finish()?;
        Ok(found)
    }

    fn look_up(
        &self,
        looking: &mut Looking<'_>,
        action: &Action,
        digest: ActionDigest,
    ) -> Result<Option<BTreeMap<OutputName, StorePath>>, StoreError> {
        if matches!(action.kind, ActionKind::Test { .. }) {
            let passed = self.store.has_succeeded(digest, self.hermeticity)?;
            return Ok(passed.then(BTreeMap::new));
        }
        let found = looking.realisation(digest)?;
        Ok(found
            .filter(|found| self.hermeticity.accepts(&found.lacking))
            .map(|found| found.outputs))
    }
}
