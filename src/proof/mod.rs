//! Rebuilding, and comparing bit for bit.
//!
//! In: actions that were built here. Out: a verdict for each, with the first difference.
//! A rebuild sees whatever [`Variation::ALL`] lists differently from the first build;
//! nothing of it is kept but the verdict.

mod difference;
mod search;
mod variations;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use kiln_sandbox::{SandboxError, Weakness};

use crate::action::Action;
use crate::build::{BuildError, Builder, Built, LogLine};
use crate::derivation::Limits;
use crate::hash::{ActionDigest, OutputName, StorePath};
use crate::store::{Lacking, ProofRecord, StoreError, Verdict};
use crate::tree::TreeError;

pub use difference::Difference;
pub use search::Cause;
pub use variations::Variation;

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
    /// What makes the difference, where it was found.
    pub cause: Option<Cause>,
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

    /// Returns the difference and its cause in words; nothing where there is none.
    pub fn explanation(&self) -> Option<String> {
        let difference = self.difference.as_ref()?;
        Some(match &self.cause {
            Some(cause) => format!("{difference}; {cause}"),
            None => difference.to_string(),
        })
    }
}

/// Rebuilds an action under other conditions and compares every output bit for bit. Where
/// they differ, the one variation that causes it is searched for by further rebuilds. The
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
    let began = store.builds(digest)?.last().map(|build| build.started);
    let label = format!("{package} (rebuild)");
    let mut rebuild = |varied: &BTreeSet<Variation>| {
        if !varied.contains(&Variation::WallClock) {
            wait_for_another_second(began);
        }
        let conditions = variations::conditions(cores, varied);
        builder.run(action, &label, limits, &conditions, on_line)
    };
    let mut varied = BTreeSet::from(Variation::ALL);
    let rebuilt = match rebuild(&varied) {
        // A host whose kernel has no way to supervise still gets the other variations,
        // and the verdict says which.
        Err(BuildError::Sandbox {
            source: SandboxError::Supervision { .. },
            ..
        }) => {
            varied.retain(|variation| !variation.is_supervised());
            rebuild(&varied)
        }
        other => other,
    };
    let rebuilt = rebuilt.map_err(|source| ProofError::Rebuild {
        name: action.name.to_string(),
        source,
    })?;
    let lacked = &rebuilt.record.lacking;
    if lacked
        .names()
        .any(|name| name == Weakness::TimeNamespace.name())
    {
        varied.remove(&Variation::Uptime);
    }
    let mut proof = Proof {
        action: digest,
        name: action.name.to_string(),
        difference: None,
        cause: None,
        variations: variations::names(&varied),
        lacking: first.lacking.or(lacked),
    };
    if paths(&rebuilt) == first.outputs {
        // The same bytes came of the same links, also where nothing was recorded before.
        store.record_links(digest, &rebuilt.links)?;
    } else {
        proof.difference = Some(difference::first(store, &first.outputs, &rebuilt.outputs)?);
        proof.cause = search::search(&varied, &mut |some| match rebuild(some) {
            Ok(rebuilt) => Ok(Some(paths(&rebuilt) != first.outputs)),
            Err(BuildError::Store(error)) => Err(error),
            // The difference is known all the same.
            Err(_) => Ok(None),
        })?;
    }
    store.record_proof(&ProofRecord {
        action: digest,
        rebuilds: 1,
        variations: proof.variations.clone(),
        verdict: if proof.difference.is_none() {
            Verdict::Reproducible
        } else {
            Verdict::Different
        },
        difference: proof.explanation(),
        lacking: proof.lacking.clone(),
    })?;
    Ok(proof)
}

/// Returns what the outputs of a build are called.
fn paths(built: &Built) -> BTreeMap<OutputName, StorePath> {
    built
        .outputs
        .iter()
        .map(|(name, plan)| (name.clone(), plan.path.clone()))
        .collect()
}

/// A build that writes the time in seconds must not pass because it is fast.
fn wait_for_another_second(first: Option<SystemTime>) {
    let age = first.and_then(|first| SystemTime::now().duration_since(first).ok());
    let wanted = Duration::from_secs(2);
    if let Some(missing) = age.and_then(|age| wanted.checked_sub(age)) {
        std::thread::sleep(missing);
    }
}
