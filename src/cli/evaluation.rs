//! What a request gave last time, so that asking again does not evaluate again.
//!
//! One [memory] for each request (a set of packages): every derivation file that was read,
//! and for each package its action. It counts only while nothing can have changed: the same
//! files, and nothing removed from the store since.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::library::{Files, Origin};
use super::memory::{self, Stamp};
use crate::hash::{ActionDigest, BlobDigest, OutputName, PackageName, StorePath};
use crate::plan::{Graph, Loaded, StepKind};
use crate::realise::Realised;
use crate::store::{Lacking, Store};

/// What each package gave.
pub(super) type Known = BTreeMap<PackageName, KnownPackage>;

/// What one package gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownPackage {
    /// Its action.
    pub action: ActionDigest,
    /// Its outputs.
    pub outputs: BTreeMap<OutputName, StorePath>,
    /// What sandboxes did without in which it was built, or something it was built from.
    pub lacking: Lacking,
}

/// A remembered answer is used for so long; after that the full way notes again which
/// objects are in use.
const MAX_AGE: Duration = Duration::from_secs(1800);

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Remembered {
    written: Duration,
    removals: u64,
    files: Vec<(PathBuf, Stamp, [u8; 32])>,
    packages: Vec<RememberedPackage>,
}

/// A [`KnownPackage`] as the file holds it.
#[derive(Serialize, Deserialize)]
struct RememberedPackage {
    name: String,
    action: [u8; 32],
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Returns what packages gave last time, if nothing can have changed since and all of it is
/// hermetic.
pub(super) fn recall(store: &Store, files: &Files, wanted: &[PackageName]) -> Option<Known> {
    let remembered: Remembered = memory::recall(&place(store, files, wanted))?;
    let age = now().checked_sub(remembered.written)?;
    let holds = age < MAX_AGE
        && remembered.removals == store.removals().ok()?
        && remembered.files.par_iter().with_min_len(64).all(|file| {
            let (path, stamp, digest) = file;
            is_unchanged(path, stamp, *digest, remembered.written)
        });
    if !holds {
        return None;
    }
    let mut known = Known::new();
    // Asked although nothing was removed: a database can be put back, and use is noted.
    let mut looking = store.look().ok()?;
    for package in remembered.packages {
        let action = ActionDigest::from_bytes(package.action);
        let found = looking.realisation(action).ok()??;
        if !found.lacking.is_hermetic() {
            return None;
        }
        let outputs = found.outputs;
        let package_known = KnownPackage {
            action,
            outputs,
            lacking: Lacking::default(),
        };
        known.insert(package.name.parse().ok()?, package_known);
    }
    looking.finish().ok()?;
    tracing::debug!("nothing has changed since this was evaluated");
    Some(known)
}

fn is_unchanged(path: &Path, stamp: &Stamp, digest: [u8; 32], written: Duration) -> bool {
    if Stamp::read(path).as_ref() != Some(stamp) {
        return false;
    }
    stamp.is_older_than(written)
        || std::fs::read(path).is_ok_and(|bytes| *blake3::hash(&bytes).as_bytes() == digest)
}

/// Remembers what packages gave. A graph with a project's own working trees is not
/// remembered: whether those have changed is only known by reading them.
pub(super) fn remember(
    store: &Store,
    files: &Files,
    wanted: &[PackageName],
    loaded: &Loaded,
    graph: &Graph,
    realised: &Realised,
) {
    let Some(remembered) = summary(store, files, wanted, loaded, graph, realised) else {
        return;
    };
    memory::keep(&place(store, files, wanted), &remembered);
}

fn summary(
    store: &Store,
    files: &Files,
    wanted: &[PackageName],
    loaded: &Loaded,
    graph: &Graph,
    realised: &Realised,
) -> Option<Remembered> {
    let mut stamps = loaded
        .definitions
        .par_iter()
        .filter_map(|(package, definition)| match files.origin(package) {
            Origin::Project(path) => Some(stamp_of(path, &definition.file.text)),
            // The standard set is part of the executable.
            Origin::Executable => None,
        })
        .collect::<Option<Vec<_>>>()?;
    for (package, locks) in &loaded.locks {
        for (path, lock) in locks {
            if let Origin::Project(path) = files.origin_beside(package, path) {
                stamps.push(stamp_of(path, &lock.file.text)?);
            }
        }
    }
    let reads_trees = graph.steps().any(|(_, step)| {
        matches!(step.kind, StepKind::Tree { .. })
            && matches!(files.origin(&step.package), Origin::Project(_))
    });
    if reads_trees || graph.steps().any(|(id, _)| realised.outputs(id).is_none()) {
        return None;
    }
    let mut packages = Vec::new();
    for name in wanted {
        let step = graph.package(name)?;
        let action = realised.action_digest(step)?;
        packages.push(RememberedPackage {
            name: name.as_str().to_owned(),
            action: *action.as_bytes(),
        });
    }
    Some(Remembered {
        written: now(),
        removals: store.removals().ok()?,
        files: stamps,
        packages,
    })
}

/// Returns what tells whether a file changes from now on, or `None` if it has changed
/// since it was evaluated.
fn stamp_of(path: PathBuf, evaluated: &str) -> Option<(PathBuf, Stamp, [u8; 32])> {
    let stamp = Stamp::read(&path)?;
    let text = std::fs::read(&path).ok()?;
    let digest = BlobDigest::of(&text);
    (text == evaluated.as_bytes()).then_some((path, stamp, *digest.as_bytes()))
}

/// Returns where a request is remembered.
fn place(store: &Store, files: &Files, wanted: &[PackageName]) -> PathBuf {
    let project = files
        .directory()
        .map_or(&[][..], |path| path.as_os_str().as_encoded_bytes());
    let names = wanted.iter().map(|name| name.as_str().as_bytes());
    memory::place(store, [project].into_iter().chain(names))
}
