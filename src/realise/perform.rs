//! Doing one step: fetching, unpacking, merging, building, testing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Event, RealiseError, Realiser};
use crate::action::{Action, ActionKind, Debian};
use crate::build::links::Links;
use crate::build::{Builder, Built, Conditions};
use crate::derivation::Limits;
use crate::fetch::{self, deb};
use crate::hash::{
    ActionDigest, ObjectName, OutputName, PackageName, RelPath, Sha256Digest, StorePath,
};
use crate::listing::{Entry, Listing};
use crate::plan::{Step, StepId, StepKind};
use crate::store::{Lacking, ObjectPlan, Origin, Production, Scratch, StoreError, plan_tree};

pub(super) type Outputs = BTreeMap<OutputName, StorePath>;

fn out() -> OutputName {
    "out".parse().expect("`out` is an output name")
}

/// What is needed to do an action, beside the action.
pub(super) struct Work<'a> {
    pub action: &'a Action,
    pub digest: ActionDigest,
    /// What people see.
    pub label: &'a str,
    /// The package that asked for it.
    pub package: &'a PackageName,
    /// Where a fetched file may be had, in order.
    pub addresses: &'a [String],
    /// When a build is stopped.
    pub limits: &'a Limits,
}

/// Trees that an action gave, named and not yet in the store.
pub(super) struct Made {
    pub plans: BTreeMap<OutputName, ObjectPlan>,
    pub origin: Origin,
    /// What the sandbox did without, if there was one.
    pub lacking: Lacking,
    links: Links,
    _kept: Kept,
}

/// Keeps the trees until they are registered.
#[expect(dead_code, reason = "held, never read")]
enum Kept {
    Tree(Scratch),
    Build(Box<Built>),
}

impl Made {
    fn tree(scratch: Scratch, plan: ObjectPlan, origin: Origin) -> Self {
        Self {
            plans: BTreeMap::from([(out(), plan)]),
            origin,
            lacking: Lacking::default(),
            links: Links::new(),
            _kept: Kept::Tree(scratch),
        }
    }
}

/// Does a step; returns its outputs, and whether there was anything to do.
pub(super) fn perform(
    realiser: &Realiser<'_>,
    id: StepId,
    step: &Step,
    action: Option<&(Action, ActionDigest)>,
) -> Result<(Outputs, bool), RealiseError> {
    let Some((action, digest)) = action else {
        return take_tree(realiser, step).map(|outputs| (outputs, true));
    };
    let notify = |event: Event<'_>| realiser.observer.event(Some((id, step)), event);
    if let Some(outputs) = realiser.found(action, *digest)? {
        return Ok((outputs, false));
    }
    let _exclusive = realiser
        .store
        .lock_action(*digest, || notify(Event::Waiting))?;
    // Whoever held the lock may have done it.
    if let Some(outputs) = realiser.found(action, *digest)? {
        return Ok((outputs, false));
    }
    if realiser.cancel.is_cancelled() {
        return Err(RealiseError::Cancelled);
    }
    notify(Event::Started);
    let no_limits = Limits::default();
    let work = Work {
        action,
        digest: *digest,
        label: &step.label,
        package: &step.package,
        addresses: match &step.kind {
            StepKind::Fetch { urls, .. } => urls,
            _ => &[],
        },
        limits: match &step.kind {
            StepKind::Build(build) => &build.limits,
            StepKind::Test(test) => &test.limits,
            _ => &no_limits,
        },
    };
    let made = make(realiser, &work, &notify)?;
    if matches!(action.kind, ActionKind::Test { .. }) {
        return Ok((Outputs::new(), true));
    }
    let outputs = register(realiser, &work, &made)?;
    realiser.store.record_links(*digest, &made.links)?;
    Ok((outputs, true))
}

/// Enters what was made into the store.
fn register(
    realiser: &Realiser<'_>,
    work: &Work<'_>,
    made: &Made,
) -> Result<Outputs, RealiseError> {
    let outputs: Outputs = made
        .plans
        .iter()
        .map(|(name, plan)| (name.clone(), plan.path.clone()))
        .collect();
    let plans: Vec<ObjectPlan> = made.plans.values().cloned().collect();
    realiser.store.register(
        &plans,
        Some(&Production {
            action: work.digest,
            name: &work.action.name,
            json: &work.action.json(),
            outputs: &outputs,
            origin: made.origin,
            lacking: &made.lacking,
            addresses: work.addresses,
        }),
    )?;
    Ok(outputs)
}

/// Does what an action says, whatever the store has; nothing is entered into it.
pub(super) fn make(
    realiser: &Realiser<'_>,
    work: &Work<'_>,
    notify: &dyn Fn(Event<'_>),
) -> Result<Made, RealiseError> {
    match &work.action.kind {
        ActionKind::Fetch { sha256, file } => fetch_file(realiser, work, *sha256, file, notify),
        ActionKind::Debian(debian) => unpack_packages(realiser, work, debian),
        ActionKind::Merge { inputs } => merge(realiser, work, inputs),
        ActionKind::Build { .. } => run(realiser, work, notify),
        ActionKind::Test { .. } => run(realiser, work, notify).map_err(|error| match error {
            RealiseError::Build(source) => RealiseError::Test {
                package: work.package.clone(),
                source,
            },
            other => other,
        }),
    }
}

fn run(
    realiser: &Realiser<'_>,
    work: &Work<'_>,
    notify: &dyn Fn(Event<'_>),
) -> Result<Made, RealiseError> {
    let builder = Builder {
        store: realiser.store,
        launcher: realiser.launcher,
        cancel: realiser.cancel,
        hermeticity: realiser.hermeticity,
    };
    let conditions = Conditions::ordinary(realiser.cores);
    let built = builder.run(
        work.action,
        work.label,
        work.limits,
        &conditions,
        &mut |line| notify(Event::Log(line)),
    )?;
    Ok(Made {
        plans: built.outputs.clone(),
        origin: Origin::Built,
        lacking: built.record.lacking.clone(),
        links: built.links.clone(),
        _kept: Kept::Build(Box::new(built)),
    })
}

fn fetch_file(
    realiser: &Realiser<'_>,
    work: &Work<'_>,
    sha256: Sha256Digest,
    file: &RelPath,
    notify: &dyn Fn(Event<'_>),
) -> Result<Made, RealiseError> {
    let events = |event: fetch::Event<'_>| match event {
        fetch::Event::Progress { received, total } => {
            notify(Event::Downloading { received, total });
        }
        fetch::Event::Failed {
            why, notable: true, ..
        } => notify(Event::AddressFailed { why }),
        _ => {}
    };
    let (scratch, tree) = empty_tree(realiser)?;
    realiser
        .fetcher
        .fetch(
            work.addresses,
            sha256,
            &realiser.store.downloads(),
            &tree.join(file.as_str()),
            &events,
        )
        .map_err(|source| RealiseError::Fetch {
            label: work.label.to_owned(),
            package: work.package.clone(),
            source: Box::new(source),
        })?;
    plan_made(scratch, &tree, &work.action.name, Origin::Fetched)
}

fn empty_tree(realiser: &Realiser<'_>) -> Result<(Scratch, std::path::PathBuf), RealiseError> {
    let scratch = realiser.store.scratch()?;
    let tree = scratch.path().join("tree");
    create(&tree)?;
    Ok((scratch, tree))
}

fn plan_made(
    scratch: Scratch,
    tree: &Path,
    name: &ObjectName,
    origin: Origin,
) -> Result<Made, RealiseError> {
    let plan = plan_tree(tree, name, &BTreeSet::new())?;
    Ok(Made::tree(scratch, plan, origin))
}

fn unpack_packages(
    realiser: &Realiser<'_>,
    work: &Work<'_>,
    debian: &Debian,
) -> Result<Made, RealiseError> {
    let (scratch, tree) = empty_tree(realiser)?;
    let mut files = Vec::new();
    for package in &debian.packages {
        let base = realiser.store.host_path(package);
        let listing = realiser.store.listing(package)?;
        files.extend(listing.iter().map(|(path, _)| base.join(path.as_str())));
    }
    let rules = deb::DebianRoot {
        exclude: debian.exclude.iter().cloned().collect(),
        links: debian.links.clone(),
        files: debian.files.clone(),
    };
    deb::unpack_debs(&files, &rules, &tree).map_err(|source| RealiseError::Unpack {
        package: work.package.clone(),
        source: Box::new(source),
    })?;
    plan_made(scratch, &tree, &work.action.name, Origin::Unpacked)
}

/// Lays trees over one another: directories merge, anything else stands once or is equal.
fn merge(
    realiser: &Realiser<'_>,
    work: &Work<'_>,
    inputs: &[StorePath],
) -> Result<Made, RealiseError> {
    let mut entries: BTreeMap<RelPath, Entry> = BTreeMap::new();
    for input in inputs {
        for (path, entry) in realiser.store.listing(input)?.iter() {
            if let Some(other) = entries.insert(path.clone(), entry.clone())
                && other != *entry
            {
                return Err(RealiseError::MergeConflict {
                    package: work.package.clone(),
                    path: path.clone(),
                });
            }
        }
    }
    let listing = Listing::new(entries).map_err(|source| StoreError::Tree(source.into()))?;
    let scratch = realiser.store.scratch()?;
    let tree = scratch.path().join("tree");
    let plan = realiser
        .store
        .assemble(&listing, &work.action.name, inputs, &tree)?;
    Ok(Made::tree(scratch, plan, Origin::Unpacked))
}

/// Takes a working tree into the store.
pub(super) fn take_tree(realiser: &Realiser<'_>, step: &Step) -> Result<Outputs, RealiseError> {
    let StepKind::Tree { path } = &step.kind else {
        return Err(RealiseError::Cancelled);
    };
    let (_scratch, tree) = empty_tree(realiser)?;
    realiser
        .trees
        .copy(&step.package, path, &tree)
        .map_err(|source| RealiseError::Tree {
            path: path.clone(),
            package: step.package.clone(),
            source: Box::new(source),
        })?;
    let path = realiser.store.add(&tree, &step.name, &BTreeSet::new())?;
    Ok(Outputs::from([(out(), path)]))
}

fn create(path: &Path) -> Result<(), RealiseError> {
    std::fs::create_dir_all(path).map_err(|source| RealiseError::Access {
        operation: "create",
        path: path.to_owned(),
        source,
    })
}
