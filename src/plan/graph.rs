//! The steps of a job, in an order in which each finds its inputs done.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::action::{Action, ActionKind, Check, Debian, Run, SourceInput, SourceLayout};
use crate::derivation::{Ids, Limits};
use crate::hash::{ObjectName, OutputName, PackageName, RelPath, Sha256Digest, StorePath};

/// A step's place in its [`Graph`]; inputs have smaller ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(usize);

impl StepId {
    /// Returns the index in [`Graph::steps`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// One thing to have, fetch or build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What people see: a package's name, or a file's.
    pub label: String,
    /// The package that asked for it.
    pub package: PackageName,
    /// The readable part of its object's path.
    pub name: ObjectName,
    /// What it takes.
    pub kind: StepKind,
}

/// What a step takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepKind {
    /// A file by its hash.
    Fetch {
        /// What it is called in its object.
        file: RelPath,
        /// Its hash.
        sha256: Sha256Digest,
        /// Where it may be had, in order.
        urls: Vec<String>,
    },
    /// A tree beside the derivation file.
    Tree {
        /// Where, relative to the directory of the derivation file.
        path: RelPath,
    },
    /// Debian packages in one tree.
    Debian {
        /// The fetched packages.
        packages: Vec<StepId>,
        /// What is left out.
        exclude: BTreeSet<RelPath>,
        /// Links that are added.
        links: BTreeMap<RelPath, String>,
        /// Files that are added.
        files: BTreeMap<RelPath, String>,
    },
    /// Several roots as one.
    Merge {
        /// The trees, in order.
        inputs: Vec<StepId>,
    },
    /// A sandboxed build.
    Build(Box<BuildStep>),
    /// A test of a build's outputs.
    Test(Box<TestStep>),
}

/// What a build takes and gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildStep {
    /// The tree that becomes `/`.
    pub root: StepId,
    /// Inputs by variable.
    pub inputs: BTreeMap<String, (StepId, OutputName)>,
    /// What is laid out below `/build`.
    pub sources: BTreeMap<RelPath, (StepId, SourceLayout)>,
    /// Variables beside those of inputs and outputs.
    pub environment: BTreeMap<String, String>,
    /// The bash script.
    pub script: String,
    /// Where it starts.
    pub working_directory: String,
    /// Outputs and the readable parts of their paths.
    pub outputs: BTreeMap<OutputName, ObjectName>,
    /// What is demanded of outputs.
    pub checks: BTreeMap<OutputName, BTreeSet<Check>>,
    /// Which users and groups it can be.
    pub ids: Ids,
    /// When it is stopped.
    pub limits: Limits,
}

/// What a test takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestStep {
    /// The tree that becomes `/`.
    pub root: StepId,
    /// The build whose outputs are tested.
    pub build: StepId,
    /// Variables beside those of outputs.
    pub environment: BTreeMap<String, String>,
    /// The bash script.
    pub script: String,
    /// Which users and groups it can be.
    pub ids: Ids,
    /// When it is stopped.
    pub limits: Limits,
}

/// The steps of a job, inputs first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Graph {
    steps: Vec<Step>,
    builds: BTreeMap<PackageName, StepId>,
    shared: BTreeMap<Shared, StepId>,
}

/// What makes two steps the same work, whoever asks for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Shared {
    Fetch(ObjectName, RelPath, Sha256Digest, Vec<String>),
    Merge(ObjectName, Vec<StepId>),
}

impl Graph {
    /// Appends a step, or returns the equal one that is there.
    pub(super) fn push(&mut self, step: Step) -> StepId {
        let id = StepId(self.steps.len());
        if let Some(shared) = step.shared() {
            match self.shared.entry(shared) {
                Entry::Occupied(known) => return *known.get(),
                Entry::Vacant(place) => place.insert(id),
            };
        }
        self.steps.push(step);
        id
    }

    /// Notes which step gives a package's outputs.
    pub(super) fn name(&mut self, package: PackageName, step: StepId) {
        self.builds.insert(package, step);
    }

    /// Returns the steps, inputs first.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = (StepId, &Step)> {
        self.steps
            .iter()
            .enumerate()
            .map(|(index, step)| (StepId(index), step))
    }

    /// Returns one step.
    pub fn step(&self, id: StepId) -> Option<&Step> {
        self.steps.get(id.0)
    }

    /// Returns the step that gives a package's outputs.
    pub fn package(&self, name: &PackageName) -> Option<StepId> {
        self.builds.get(name).copied()
    }

    /// Returns the packages of the graph and the steps that give their outputs.
    pub fn packages(&self) -> impl Iterator<Item = (&PackageName, StepId)> {
        self.builds.iter().map(|(name, id)| (name, *id))
    }

    /// Returns every step that some steps need, directly or not, themselves left out
    /// unless one needs another.
    pub fn needed_by(&self, steps: &BTreeSet<StepId>) -> BTreeSet<StepId> {
        let mut needed = BTreeSet::new();
        let mut pending: Vec<StepId> = steps.iter().copied().collect();
        while let Some(id) = pending.pop() {
            let inputs = self.step(id).map(Step::inputs).unwrap_or_default();
            pending.extend(inputs.into_iter().filter(|input| needed.insert(*input)));
        }
        needed
    }

    /// Returns the number of steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Returns whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl Step {
    fn shared(&self) -> Option<Shared> {
        match &self.kind {
            StepKind::Fetch { file, sha256, urls } => Some(Shared::Fetch(
                self.name.clone(),
                file.clone(),
                *sha256,
                urls.clone(),
            )),
            StepKind::Merge { inputs } => Some(Shared::Merge(self.name.clone(), inputs.clone())),
            _ => None,
        }
    }

    /// Returns the steps whose outputs this one needs, sorted.
    pub fn inputs(&self) -> BTreeSet<StepId> {
        match &self.kind {
            StepKind::Fetch { .. } | StepKind::Tree { .. } => BTreeSet::new(),
            StepKind::Debian { packages, .. } => packages.iter().copied().collect(),
            StepKind::Merge { inputs } => inputs.iter().copied().collect(),
            StepKind::Build(build) => {
                let inputs = build.inputs.values().map(|(id, _)| *id);
                let sources = build.sources.values().map(|(id, _)| *id);
                inputs.chain(sources).chain([build.root]).collect()
            }
            StepKind::Test(test) => BTreeSet::from([test.root, test.build]),
        }
    }

    /// Returns the action of this step once its inputs are there, or `None` for a working
    /// tree, which is an object of its own without any action.
    ///
    /// `outputs` returns what a done step gave.
    pub fn action<'a>(
        &self,
        outputs: impl Fn(StepId) -> Option<&'a BTreeMap<OutputName, StorePath>>,
    ) -> Option<Action> {
        let output = |id: StepId, name: &OutputName| outputs(id)?.get(name).cloned();
        let single = |id: StepId| outputs(id)?.values().next().cloned();
        let paths = |ids: &[StepId]| -> Option<Vec<StorePath>> {
            ids.iter().map(|id| single(*id)).collect()
        };
        let kind = match &self.kind {
            StepKind::Fetch { file, sha256, .. } => ActionKind::Fetch {
                sha256: *sha256,
                file: file.clone(),
            },
            StepKind::Tree { .. } => return None,
            StepKind::Debian {
                packages,
                exclude,
                links,
                files,
            } => ActionKind::Debian(Debian {
                packages: paths(packages)?,
                exclude: exclude.clone(),
                links: links.clone(),
                files: files.clone(),
            }),
            StepKind::Merge { inputs } => ActionKind::Merge {
                inputs: paths(inputs)?,
            },
            StepKind::Build(build) => {
                let inputs = build
                    .inputs
                    .iter()
                    .map(|(variable, (id, name))| Some((variable.clone(), output(*id, name)?)))
                    .collect::<Option<_>>()?;
                let sources = build
                    .sources
                    .iter()
                    .map(|(at, (id, layout))| {
                        let object = single(*id)?;
                        Some((
                            at.clone(),
                            SourceInput {
                                object,
                                layout: *layout,
                            },
                        ))
                    })
                    .collect::<Option<_>>()?;
                ActionKind::Build {
                    run: Run {
                        root: single(build.root)?,
                        inputs,
                        sources,
                        environment: build.environment.clone(),
                        script: build.script.clone(),
                        working_directory: build.working_directory.clone(),
                        ids: build.ids,
                    },
                    outputs: build.outputs.clone(),
                    checks: build.checks.clone(),
                }
            }
            StepKind::Test(test) => ActionKind::Test {
                run: Run {
                    root: single(test.root)?,
                    inputs: outputs(test.build)?
                        .iter()
                        .map(|(name, path)| (name.as_str().to_owned(), path.clone()))
                        .collect(),
                    sources: BTreeMap::new(),
                    environment: test.environment.clone(),
                    script: test.script.clone(),
                    working_directory: "/build".to_owned(),
                    ids: test.ids,
                },
            },
        };
        Some(Action {
            name: self.name.clone(),
            kind,
        })
    }
}
