//! What two images have in common, file by file.

use std::collections::BTreeSet;

use super::super::changes::{self, Row};
use crate::cli::report::{Answer, Output};
use crate::hash::RelPath;
use crate::listing::image::{ImageEntry, ImageListing, Node};

/// Prints every path at which two images differ; the answer is yes if none does.
pub(super) fn report(old: &ImageListing, new: &ImageListing, output: &Output) -> Answer {
    changes::report(&compare(old, new), "path", output)
}

fn compare(old: &ImageListing, new: &ImageListing) -> Vec<Row> {
    let paths: BTreeSet<&RelPath> = old.entries.keys().chain(new.entries.keys()).collect();
    let size = |entry: &ImageEntry| i64::try_from(entry.size_bytes()).unwrap_or(i64::MAX);
    let row = |path: &RelPath| {
        let (was, is) = (old.entries.get(path), new.entries.get(path));
        let (word, how) = match (was, is) {
            (Some(was), Some(is)) => ("changed", how(was, is)),
            (Some(_), None) => ("removed", String::new()),
            (None, _) => ("added", String::new()),
        };
        (word != "changed" || !how.is_empty()).then(|| Row {
            word,
            what: format!("/{path}"),
            how,
            growth_bytes: is.map_or(0, size) - was.map_or(0, size),
        })
    };
    paths.into_iter().filter_map(row).collect()
}

/// Says how an entry changed; empty if it did not.
fn how(was: &ImageEntry, is: &ImageEntry) -> String {
    let mut how = Vec::new();
    match (&was.node, &is.node) {
        (Node::Symlink { target }, Node::Symlink { target: now }) if target != now => {
            how.push(format!("led to `{target}`, leads to `{now}`"));
        }
        (Node::File { digest, .. }, Node::File { digest: now, .. }) if digest != now => {
            how.push("content".to_owned());
        }
        (old, new) if std::mem::discriminant(old) != std::mem::discriminant(new) => {
            how.push(format!("was {}, is {}", old.in_words(), new.in_words()));
        }
        (Node::Device { .. }, Node::Device { .. }) if was.node != is.node => {
            how.push("device".to_owned());
        }
        _ => {}
    }
    if was.mode != is.mode {
        how.push(format!("mode {:04o}, was {:04o}", is.mode, was.mode));
    }
    if was.owner != is.owner {
        let ((user, group), (old_user, old_group)) = (is.owner, was.owner);
        how.push(format!("owner {user}:{group}, was {old_user}:{old_group}"));
    }
    if was.attributes != is.attributes {
        how.push("extended attributes".to_owned());
    }
    how.join(", ")
}
