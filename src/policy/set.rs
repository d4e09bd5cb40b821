//! A policy with all that it extends.

use std::collections::{BTreeMap, BTreeSet};

use crate::derivation::{Definition, Demand, Exception, Kind, Rule, resolve_policy};
use crate::hash::PackageName;

/// What holds under a policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    /// Each rule once, in the order of the catalogue.
    pub demands: Vec<Demand>,
    /// What it waives.
    pub exceptions: Vec<Exception>,
}

/// Returns the rules and exceptions of a policy and of all that it extends; what a policy
/// demands itself counts before what it extends. `None` if one of them is not a policy.
pub fn gather(
    definitions: &BTreeMap<PackageName, Definition>,
    name: &PackageName,
) -> Option<Effective> {
    let mut demands: BTreeMap<Rule, Demand> = BTreeMap::new();
    let mut exceptions = Vec::new();
    let mut seen = BTreeSet::new();
    let mut next = Some(name.clone());
    while let Some(name) = next.take() {
        let definition = definitions.get(&name)?;
        let Kind::Policy(policy) = &definition.kind else {
            return None;
        };
        for demand in &policy.demands {
            demands.entry(demand.rule).or_insert_with(|| demand.clone());
        }
        exceptions.extend(policy.exceptions.iter().cloned());
        // Loading refuses circles; here none can keep the loop going.
        if seen.insert(name) {
            next = policy
                .extends
                .as_ref()
                .map(|extends| resolve_policy(extends, &definition.file.package));
        }
    }
    Some(Effective {
        demands: demands.into_values().collect(),
        exceptions,
    })
}
