//! What two images have in common, file by file.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::plain;
use crate::cli::progress::bytes;
use crate::cli::report::{Answer, Output};
use crate::hash::RelPath;
use crate::listing::image::{ImageEntry, ImageListing, Node};

/// One line of the answer.
struct Row<'a> {
    word: &'static str,
    path: &'a RelPath,
    how: String,
    growth_bytes: i64,
}

/// Prints every path at which two images differ; the answer is yes if none does.
pub(super) fn report(old: &ImageListing, new: &ImageListing, output: &Output) -> Answer {
    let rows = compare(old, new);
    if output.json {
        let differences: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({
                    "change": row.word,
                    "path": format!("/{}", row.path),
                    "how": row.how,
                    "growth_bytes": row.growth_bytes,
                })
            })
            .collect();
        output.document(&json!({ "differences": differences }));
    } else {
        output.lines(rows.iter().map(|row| {
            let how = if row.how.is_empty() {
                String::new()
            } else {
                format!(" ({})", row.how)
            };
            plain(&format!(
                "{:<8} {:>12}  /{}{how}",
                row.word,
                signed(row.growth_bytes),
                row.path
            ))
        }));
        let count = |word: &str| rows.iter().filter(|row| row.word == word).count();
        output.tell(&format!(
            "{} added, {} removed, {} changed, {} in all",
            count("added"),
            count("removed"),
            count("changed"),
            signed(rows.iter().map(|row| row.growth_bytes).sum())
        ));
    }
    if rows.is_empty() {
        Answer::Yes
    } else {
        Answer::No
    }
}

fn signed(growth_bytes: i64) -> String {
    let sign = if growth_bytes < 0 { "-" } else { "+" };
    format!("{sign}{}", bytes(growth_bytes.unsigned_abs()))
}

fn compare<'a>(old: &'a ImageListing, new: &'a ImageListing) -> Vec<Row<'a>> {
    let paths: BTreeSet<&RelPath> = old.entries.keys().chain(new.entries.keys()).collect();
    let size = |entry: &ImageEntry| i64::try_from(entry.size_bytes()).unwrap_or(i64::MAX);
    paths
        .into_iter()
        .filter_map(
            |path| match (old.entries.get(path), new.entries.get(path)) {
                (Some(was), Some(is)) => {
                    let how = how(was, is);
                    (!how.is_empty()).then(|| Row {
                        word: "changed",
                        path,
                        how,
                        growth_bytes: size(is) - size(was),
                    })
                }
                (Some(was), None) => Some(Row {
                    word: "removed",
                    path,
                    how: String::new(),
                    growth_bytes: -size(was),
                }),
                (None, Some(is)) => Some(Row {
                    word: "added",
                    path,
                    how: String::new(),
                    growth_bytes: size(is),
                }),
                (None, None) => None,
            },
        )
        .collect()
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
