//! Rebuilding, and comparing bit for bit.
//!
//! In: actions that were built here. Out: a verdict for each, with the first difference.
//! A rebuild gets another scratch path, host name and core count than the first build,
//! and runs at another time; nothing of it is kept but the verdict.

mod difference;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::action::Action;
use crate::build::{BuildError, Builder, Conditions, LogLine};
use crate::derivation::Limits;
use crate::hash::{ActionDigest, OutputName, StorePath};
use crate::store::{ProofRecord, StoreError, Verdict};
use crate::tree::TreeError;

pub use difference::Difference;

/// What every rebuild varies, as it is recorded.
pub const VARIATIONS: &str = "cores,host-name,scratch-path,time";

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
    let Some((recorded, _)) = store.realisation(digest)? else {
        return Err(ProofError::NotBuilt(action.name.to_string()));
    };
    let first = store
        .builds(digest)?
        .into_iter()
        .next_back()
        .map(|build| build.started);
    wait_for_another_second(first);
    let rebuilt = builder
        .run(
            action,
            &format!("{package} (rebuild)"),
            limits,
            &conditions(cores),
            on_line,
        )
        .map_err(|source| ProofError::Rebuild {
            name: action.name.to_string(),
            source,
        })?;
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
        variations: VARIATIONS.to_owned(),
        verdict: if difference.is_none() {
            Verdict::Reproducible
        } else {
            Verdict::Different
        },
        difference: difference.as_ref().map(ToString::to_string),
    })?;
    Ok(Proof {
        action: digest,
        name: action.name.to_string(),
        difference,
    })
}

/// Returns what a rebuild sees differently.
fn conditions(cores: usize) -> Conditions {
    Conditions {
        salt: "rebuild-1".to_owned(),
        host_name: "rebuilder".to_owned(),
        // One job where the first build had several, and the other way round.
        cores: if cores > 1 { 1 } else { 2 },
    }
}

/// A build that writes the time in seconds must not pass because it is fast.
fn wait_for_another_second(first: Option<SystemTime>) {
    let age = first.and_then(|first| SystemTime::now().duration_since(first).ok());
    let wanted = Duration::from_secs(2);
    if let Some(missing) = age.and_then(|age| wanted.checked_sub(age)) {
        std::thread::sleep(missing);
    }
}
