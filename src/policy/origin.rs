//! Rules on where files come from.

use super::Subject;
use crate::hash::RelPath;
use crate::listing::Entry;

/// Every file and link comes from an object; only directories may be there just to hold
/// others, or because they were declared writable.
pub(super) fn explained(subject: &Subject<'_>) -> Vec<(RelPath, String)> {
    subject
        .projection
        .entries
        .iter()
        .filter(|(_, placed)| placed.object.is_none() && placed.entry != Entry::Directory)
        .map(|(path, _)| (path.clone(), "no declared object explains it".to_owned()))
        .collect()
}

/// No file comes from an object that is, or reaches, a binary seed.
pub(super) fn no_seed(subject: &Subject<'_>) -> Vec<(RelPath, String)> {
    subject
        .projection
        .entries
        .iter()
        .filter(|(_, placed)| placed.entry != Entry::Directory)
        .filter_map(|(path, placed)| {
            let object = placed.object.as_ref()?;
            let seed = subject.seeded.get(object)?;
            let message = if seed == object {
                format!("it is part of the binary seed `{seed}`")
            } else {
                format!("`{object}` refers to the binary seed `{seed}`")
            };
            Some((path.clone(), message))
        })
        .collect()
}
