//! From what a build left behind to planned objects, with what was demanded checked.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::BuildError;
use crate::action::{Action, ActionKind, Check};
use crate::hash::{ActionDigest, OutputName, StorePath};
use crate::listing::Entry;
use crate::listing::facts::Kind;
use crate::store::{Addition, ObjectPlan, StoreError, add};
use crate::tree::{TreeRoot, facts};

/// ELF headers and tables are read from files up to this size.
const MAX_ELF: u64 = 1 << 30;

pub(super) fn collect(
    action: &Action,
    digest: ActionDigest,
    additions: &BTreeMap<OutputName, Addition>,
    candidates: &BTreeSet<StorePath>,
) -> Result<BTreeMap<OutputName, ObjectPlan>, BuildError> {
    let ActionKind::Build { checks, .. } = &action.kind else {
        return Ok(BTreeMap::new());
    };
    let trees: Vec<Addition> = additions.values().cloned().collect();
    let plans = add::plan(&trees, candidates)?;
    let outputs: BTreeMap<OutputName, ObjectPlan> = additions.keys().cloned().zip(plans).collect();
    for (output, plan) in &outputs {
        if plan.listing.is_empty() {
            return Err(BuildError::EmptyOutput {
                name: action.name.to_string(),
                action: digest,
                output: output.clone(),
            });
        }
        for check in checks.get(output).into_iter().flatten() {
            match check {
                Check::Static => check_static(action, output, plan)?,
            }
        }
    }
    Ok(outputs)
}

fn check_static(action: &Action, output: &OutputName, plan: &ObjectPlan) -> Result<(), BuildError> {
    let root = TreeRoot::open(plan.tree()).map_err(StoreError::from)?;
    let mut dynamic = Vec::new();
    for (path, entry) in plan.listing.iter() {
        if !matches!(entry, Entry::File { .. }) {
            continue;
        }
        let mut file = root.open_file(path).map_err(StoreError::from)?;
        let failed = |source| BuildError::Access {
            operation: "read",
            path: plan.tree().join(path.as_str()),
            source,
        };
        let mut bytes = vec![0; 4];
        if file.read_exact(&mut bytes).is_err() || bytes != b"\x7fELF" {
            continue;
        }
        file.take(MAX_ELF).read_to_end(&mut bytes).map_err(failed)?;
        if let Kind::Elf(elf) = facts::extract(&bytes).kind
            && let Some(why) = elf.why_dynamic()
        {
            dynamic.push((path.to_string(), why));
        }
    }
    if dynamic.is_empty() {
        return Ok(());
    }
    Err(BuildError::NotStatic {
        name: action.name.to_string(),
        output: output.clone(),
        files: dynamic,
    })
}
