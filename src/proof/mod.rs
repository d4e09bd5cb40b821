//! Rebuilding, and comparing bit for bit.
//!
//! In: actions that were built here. Out: a verdict for each, with the first difference.
//! A rebuild sees whatever [`variations`] lists differently from the first build; nothing
//! of it is kept but the verdict.

mod difference;
mod variations;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use kiln_sandbox::SandboxError;

use crate::action::Action;
use crate::build::{BuildError, Builder, LogLine};
use crate::derivation::Limits;
use crate::hash::{ActionDigest, OutputName, StorePath};
use crate::store::{Lacking, ProofRecord, StoreError, Verdict};
use crate::tree::TreeError;

pub use difference::Difference;

/// A rebuild that did not come to a verdict.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The action was never built in this store.
    #[error("`{0}` was not built in this store, so there is nothing to compare with")]
    NotBuilt(String),
    /// The rebuild itself failed.
    #[error("the rebuild of `{name}` failed")]
    Rebuild {
        /// The action's name.
        name: String,
        /// Why.
        source: BuildError,
    },
    /// A tree could not be compared.
    #[error("cannot compare the outputs")]
    Tree(#[from] TreeError),
    /// A file could not be compared.
    #[error("cannot read `{}`", path.display())]
    Access {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The verdict on one action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The action.
    pub action: ActionDigest,
    /// Its name.
    pub name: String,
    /// Nothing if the rebuild gave the same bytes, else the first difference.
    pub difference: Option<Difference>,
    /// What the rebuild saw differently: names, sorted, with commas between them.
    pub variations: String,
    /// What the sandbox of the build, or that of the rebuild, did without.
    pub lacking: Lacking,
}

impl Proof {
    /// Returns whether it is one: the same bytes, from sandboxes that were whole.
    pub fn holds(&self) -> bool {
        self.difference.is_none() && self.lacking.is_hermetic()
    }
}

/// Rebuilds an action under other conditions and compares every output bit for bit. The
/// verdict is recorded.
///
/// # Errors
/// [`ProofError`] when there is nothing to compare with, or the rebuild fails.
pub fn prove(
    builder: &Builder<'_>,
    action: &Action,
    package: &str,
    limits: &Limits,
    cores: usize,
    on_line: &mut dyn FnMut(LogLine<'_>),
) -> Result<Proof, ProofError> {
    let digest = action.digest();
    let store = builder.store;
    let Some(first) = store.realisation(digest)? else {
        return Err(ProofError::NotBuilt(action.name.to_string()));
    };
    let recorded = first.outputs;
    let mut rebuild = |supervised: bool| {
        if !supervised {
            let builds = store.builds(digest)?;
            wait_for_another_second(builds.last().map(|build| build.started));
        }
        let label = format!("{package} (rebuild)");
        let conditions = variations::conditions(cores, supervised);
        let rebuilt = builder.run(action, &label, limits, &conditions, on_line);
        Ok::<_, StoreError>(rebuilt)
    };
    let (rebuilt, supervised) = match rebuild(true)? {
        // A host whose kernel has no way to supervise still gets the other variations,
        // and the verdict says which.
        Err(BuildError::Sandbox {
            source: SandboxError::Supervision { .. },
            ..
        }) => (rebuild(false)?, false),
        other => (other, true),
    };
    let rebuilt = rebuilt.map_err(|source| ProofError::Rebuild {
        name: action.name.to_string(),
        source,
    })?;
    let lacking = first.lacking.or(&rebuilt.record.lacking);
    let variations = variations::names(supervised, &rebuilt.record.lacking);
    let found: BTreeMap<OutputName, StorePath> = rebuilt
        .outputs
        .iter()
        .map(|(name, plan)| (name.clone(), plan.path.clone()))
        .collect();
    let difference = if found == recorded {
        None
    } else {
        Some(difference::first(store, &recorded, &rebuilt.outputs)?)
    };
    store.record_proof(&ProofRecord {
        action: digest,
        rebuilds: 1,
        variations: variations.clone(),
        verdict: if difference.is_none() {
            Verdict::Reproducible
        } else {
            Verdict::Different
        },
        difference: difference.as_ref().map(ToString::to_string),
        lacking: lacking.clone(),
    })?;
    Ok(Proof {
        action: digest,
        name: action.name.to_string(),
        difference,
        variations,
        lacking,
    })
}

/// A build that writes the time in seconds must not pass because it is fast.
fn wait_for_another_second(first: Option<SystemTime>) {
    let age = first.and_then(|first| SystemTime::now().duration_since(first).ok());
    let wanted = Duration::from_secs(2);
    if let Some(missing) = age.and_then(|age| wanted.checked_sub(age)) {
        std::thread::sleep(missing);
    }
}
