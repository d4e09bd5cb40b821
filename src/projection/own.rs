//! Whose files are, and what may be done with them.

use std::collections::BTreeMap;

use super::{Placed, ProjectionError};
use crate::derivation::{Ownership, PathPattern};
use crate::hash::RelPath;
use crate::listing::Entry;

/// Applies rules in order, so that of several for one path the last counts.
///
/// # Errors
/// [`ProjectionError::NothingOwned`] for a rule that speaks of nothing.
pub(super) fn apply(
    rules: &[Ownership],
    entries: &mut BTreeMap<RelPath, Placed>,
) -> Result<(), ProjectionError> {
    for rule in rules {
        let mut any = false;
        for (path, placed) in entries.iter_mut() {
            if !rule.paths.value.holds(path) {
                continue;
            }
            any = true;
            give(rule, placed);
        }
        if !any {
            return Err(ProjectionError::NothingOwned(rule.paths.clone()));
        }
    }
    Ok(())
}

/// As [`apply`], for all but directories, to a part of what the rules speak of.
pub(super) fn apply_to_files(rules: &[Ownership], entries: &mut BTreeMap<RelPath, Placed>) {
    for rule in rules {
        for (path, placed) in entries.iter_mut() {
            if placed.entry != Entry::Directory && rule.paths.value.holds(path) {
                give(rule, placed);
            }
        }
    }
}

fn give(rule: &Ownership, placed: &mut Placed) {
    if let Some(owner) = rule.owner {
        placed.owner = owner;
    }
    let exact = matches!(rule.paths.value, PathPattern::Exactly(_));
    let mode = match placed.entry {
        Entry::Directory if exact => rule.directory_mode.or(rule.mode),
        Entry::Directory => rule.directory_mode,
        Entry::File { .. } => rule.mode,
        // A link has no mode of its own.
        Entry::Symlink { .. } => None,
    };
    placed.mode = mode.unwrap_or(placed.mode);
}
