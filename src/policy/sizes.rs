//! Rules on how much there may be.

use std::collections::BTreeSet;

use super::{Outcome, Subject};
use crate::listing::image::{ImageEntry, Node};

fn limit(subject: Subject<'_>, found: u64, what: &str) -> Outcome {
    let mut outcome = Outcome::default();
    match subject.parameters.at_most {
        None => outcome.cannot_tell(None, "the policy has no `at-most` for it"),
        Some(most) if found > most => {
            outcome.find_in_image(format!("it has {found} {what}, and {most} are allowed"));
        }
        Some(_) => {}
    }
    outcome
}

/// All files together, each once, however many names it has.
pub(super) fn maximum_size(subject: Subject<'_>) -> Outcome {
    let entries = &subject.image.entries;
    // A file whose first name an upper layer removed is counted by its other names.
    let mut counted = BTreeSet::new();
    let total = entries
        .values()
        .filter(|entry| match &entry.hard_link {
            Some(first) => !entries.contains_key(first) && counted.insert(first),
            None => true,
        })
        .map(ImageEntry::size_bytes)
        .sum();
    limit(subject, total, "bytes in files")
}

/// All layers.
pub(super) fn maximum_layers(subject: Subject<'_>) -> Outcome {
    limit(subject, subject.image.layers.len() as u64, "layers")
}

/// All files, without directories.
pub(super) fn maximum_files(subject: Subject<'_>) -> Outcome {
    let entries = subject.image.entries.values();
    let count = entries
        .filter(|entry| entry.node != Node::Directory)
        .count();
    limit(subject, count as u64, "files")
}

/// What upper layers hide.
pub(super) fn maximum_hidden(subject: Subject<'_>) -> Outcome {
    let total = subject
        .image
        .hidden
        .iter()
        .map(|hidden| hidden.entry.size_bytes())
        .sum();
    limit(subject, total, "bytes in files that upper layers hide")
}
