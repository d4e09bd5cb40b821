//! Doing one step: fetching, unpacking, merging, building, testing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Event, RealiseError, Realiser};
use crate::action::{Action, ActionKind};
use crate::build::{Builder, Conditions};
use crate::derivation::Limits;
use crate::fetch::{self, deb};
use crate::hash::{OutputName, RelPath, StorePath};
use crate::listing::{Entry, Listing};
use crate::plan::{Step, StepId, StepKind};
use crate::store::{Origin, StoreError};

type Outputs = BTreeMap<OutputName, StorePath>;

fn single(path: StorePath) -> Outputs {
    BTreeMap::from([("out".parse().expect("`out` is an output name"), path)])
}

/// Does a step; returns its outputs, and whether there was anything to do.
pub(super) fn perform(
    realiser: &Realiser<'_>,
    id: StepId,
    step: &Step,
    action: Option<&Action>,
) -> Result<(Outputs, bool), RealiseError> {
    let Some(action) = action else {
        return take_tree(realiser, step).map(|outputs| (outputs, true));
    };
    let digest = action.digest();
    let notify = |event: Event<'_>| realiser.observer.event(Some((id, step)), event);
    if let Some(outputs) = realiser.found(action)? {
        return Ok((outputs, false));
    }
    let _exclusive = realiser
        .store
        .lock_action(digest, || notify(Event::Waiting))?;
    // Whoever held the lock may have done it.
    if let Some(outputs) = realiser.found(action)? {
        return Ok((outputs, false));
    }
    notify(Event::Started);
    let (outputs, origin) = match (&action.kind, &step.kind) {
        (ActionKind::Fetch { .. }, StepKind::Fetch { .. }) => (
            single(fetch_file(realiser, step, &notify)?),
            Origin::Fetched,
        ),
        (ActionKind::Debian(debian), _) => (
            single(unpack_packages(realiser, step, debian)?),
            Origin::Unpacked,
        ),
        (ActionKind::Merge { inputs }, _) => {
            (single(merge(realiser, step, inputs)?), Origin::Unpacked)
        }
        (ActionKind::Build { .. }, StepKind::Build(build)) => (
            run(realiser, action, &build.limits, &notify)?,
            Origin::Built,
        ),
        (ActionKind::Test { .. }, StepKind::Test(test)) => {
            run(realiser, action, &test.limits, &notify).map_err(|error| match error {
                RealiseError::Build(source) => RealiseError::Test {
                    package: step.package.clone(),
                    source,
                },
                other => other,
            })?;
            return Ok((Outputs::new(), true));
        }
        _ => return Err(crate::build::BuildError::NotARun(step.label.clone()).into()),
    };
    realiser
        .store
        .record_action(digest, &action.name, &action.json())?;
    realiser
        .store
        .record_realisation(digest, &outputs, origin)?;
    Ok((outputs, true))
}

fn run(
    realiser: &Realiser<'_>,
    action: &Action,
    limits: &Limits,
    notify: &dyn Fn(Event<'_>),
) -> Result<Outputs, RealiseError> {
    let builder = Builder {
        store: realiser.store,
        launcher: realiser.launcher,
        cancel: realiser.cancel,
    };
    let conditions = Conditions::ordinary(realiser.cores);
    let built = builder.run(action, limits, &conditions, &mut |line| {
        notify(Event::Log(line));
    })?;
    let plans: Vec<_> = built.outputs.values().cloned().collect();
    realiser.store.register(&plans)?;
    Ok(built
        .outputs
        .iter()
        .map(|(name, plan)| (name.clone(), plan.path.clone()))
        .collect())
}

fn fetch_file(
    realiser: &Realiser<'_>,
    step: &Step,
    notify: &dyn Fn(Event<'_>),
) -> Result<StorePath, RealiseError> {
    let StepKind::Fetch { file, sha256, urls } = &step.kind else {
        return Err(RealiseError::Cancelled);
    };
    let events = |event: fetch::Event<'_>| match event {
        fetch::Event::Progress { received, total } => {
            notify(Event::Downloading { received, total });
        }
        fetch::Event::Failed {
            why, notable: true, ..
        } => notify(Event::AddressFailed { why }),
        _ => {}
    };
    let fetched = realiser
        .fetcher
        .fetch(urls, *sha256, &realiser.store.downloads(), &events)
        .map_err(|source| RealiseError::Fetch {
            label: step.label.clone(),
            package: step.package.clone(),
            source: Box::new(source),
        })?;
    let scratch = realiser.store.scratch()?;
    let tree = scratch.path().join("tree");
    create(&tree)?;
    let into = tree.join(file.as_str());
    std::fs::rename(&fetched.path, &into).map_err(|source| RealiseError::Access {
        operation: "move the download to",
        path: into,
        source,
    })?;
    Ok(realiser.store.add(&tree, &step.name, &BTreeSet::new())?)
}

fn unpack_packages(
    realiser: &Realiser<'_>,
    step: &Step,
    debian: &crate::action::Debian,
) -> Result<StorePath, RealiseError> {
    let scratch = realiser.store.scratch()?;
    let tree = scratch.path().join("tree");
    create(&tree)?;
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
        package: step.package.clone(),
        source: Box::new(source),
    })?;
    Ok(realiser.store.add(&tree, &step.name, &BTreeSet::new())?)
}

/// Lays trees over one another: directories merge, anything else stands once or is equal.
fn merge(
    realiser: &Realiser<'_>,
    step: &Step,
    inputs: &[StorePath],
) -> Result<StorePath, RealiseError> {
    let mut entries: BTreeMap<RelPath, Entry> = BTreeMap::new();
    for input in inputs {
        for (path, entry) in realiser.store.listing(input)?.iter() {
            if let Some(other) = entries.insert(path.clone(), entry.clone())
                && other != *entry
            {
                return Err(RealiseError::MergeConflict {
                    package: step.package.clone(),
                    path: path.clone(),
                });
            }
        }
    }
    let listing = Listing::new(entries).map_err(|source| StoreError::Tree(source.into()))?;
    Ok(realiser.store.assemble(&listing, &step.name, inputs)?)
}

/// Takes a working tree into the store.
pub(super) fn take_tree(realiser: &Realiser<'_>, step: &Step) -> Result<Outputs, RealiseError> {
    let StepKind::Tree { path } = &step.kind else {
        return Err(RealiseError::Cancelled);
    };
    let scratch = realiser.store.scratch()?;
    let tree = scratch.path().join("tree");
    create(&tree)?;
    realiser
        .trees
        .copy(&step.package, path, &tree)
        .map_err(|source| RealiseError::Tree {
            path: path.clone(),
            package: step.package.clone(),
            source: Box::new(source),
        })?;
    Ok(single(realiser.store.add(
        &tree,
        &step.name,
        &BTreeSet::new(),
    )?))
}

fn create(path: &Path) -> Result<(), RealiseError> {
    std::fs::create_dir_all(path).map_err(|source| RealiseError::Access {
        operation: "create",
        path: path.to_owned(),
        source,
    })
}
