//! `kiln diff`: what one object, closure or image has and another has not.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::arguments::DiffArguments;
use crate::cli::command::changes::{Row, report};
use crate::cli::command::image;
use crate::cli::hints;
use crate::cli::report::{Answer, Failure};
use crate::cli::session::Session;
use crate::hash::StorePath;
use crate::listing::compare::{Change, compare};
use crate::listing::{Entry, Listing};

pub(in crate::cli) fn run(session: &Session, arguments: &DiffArguments) -> Result<Answer, Failure> {
    let DiffArguments { old, new, closure } = arguments;
    let rows = if *closure {
        let (old, new) = (objects(session, old)?, objects(session, new)?);
        compare_objects(&old, &new)
    } else {
        let (old, new) = (files(session, old)?, files(session, new)?);
        compare_files(&old, &new)
    };
    Ok(report(&rows, "what", &session.output))
}

/// Returns the files of an object or an image.
fn files(session: &Session, target: &str) -> Result<Listing, Failure> {
    if let Some(listing) = image::listing(session, target)? {
        return Ok(listing);
    }
    let object = session.object(target)?;
    session
        .store
        .listing(&object)
        .map_err(|error| hints::store(&error))
}

fn compare_files(old: &Listing, new: &Listing) -> Vec<Row> {
    compare(old, new)
        .into_iter()
        .map(|difference| {
            let (word, how) = match difference.change {
                Change::Added(_) => ("added", String::new()),
                Change::Removed(_) => ("removed", String::new()),
                Change::Changed(old, new) => ("changed", how(old, new)),
            };
            Row {
                word,
                what: difference.path.to_string(),
                how,
                growth_bytes: difference.change.growth_bytes(),
            }
        })
        .collect()
}

fn how(old: &Entry, new: &Entry) -> String {
    match (old, new) {
        (
            Entry::File {
                digest, executable, ..
            },
            Entry::File {
                digest: now,
                executable: now_executable,
                ..
            },
        ) => {
            let mut how = Vec::new();
            if digest != now {
                how.push("content");
            }
            if executable != now_executable {
                how.push(if *now_executable {
                    "now executable"
                } else {
                    "no longer executable"
                });
            }
            how.join(", ")
        }
        (Entry::Symlink { target }, Entry::Symlink { target: now }) => {
            format!("led to `{target}`, leads to `{now}`")
        }
        _ => format!("was {}, is {}", kind(old), kind(new)),
    }
}

fn kind(entry: &Entry) -> &'static str {
    match entry {
        Entry::File { .. } => "a file",
        Entry::Directory => "a directory",
        Entry::Symlink { .. } => "a link",
    }
}

/// Returns the objects of a closure with their sizes.
fn objects(session: &Session, target: &str) -> Result<Vec<(StorePath, u64)>, Failure> {
    let start = session.object(target)?;
    session
        .store
        .closure_sizes([&start])
        .map_err(|error| hints::store(&error))
}

/// Returns an object's name without its version: what stands before the first `-` that a
/// digit follows.
fn without_version(name: &str) -> &str {
    name.match_indices('-')
        .map(|(at, _)| at)
        .find(|at| {
            name.get(at + 1..)
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .and_then(|at| name.get(..at))
        .unwrap_or(name)
}

/// Compares closures: objects of one name but for the version stand for one another.
fn compare_objects(old: &[(StorePath, u64)], new: &[(StorePath, u64)]) -> Vec<Row> {
    let (of_old, of_new): (BTreeSet<_>, BTreeSet<_>) = (old.iter().collect(), new.iter().collect());
    let mut by_name: BTreeMap<&str, [Vec<&(StorePath, u64)>; 2]> = BTreeMap::new();
    for object in of_old.difference(&of_new) {
        let [olds, _] = by_name
            .entry(without_version(object.0.name().as_str()))
            .or_default();
        olds.push(*object);
    }
    for object in of_new.difference(&of_old) {
        let [_, news] = by_name
            .entry(without_version(object.0.name().as_str()))
            .or_default();
        news.push(*object);
    }
    let mut rows = Vec::new();
    for [olds, news] in by_name.into_values() {
        for place in 0..olds.len().max(news.len()) {
            rows.extend(object_row(
                olds.get(place).copied(),
                news.get(place).copied(),
            ));
        }
    }
    rows
}

fn object_row(old: Option<&(StorePath, u64)>, new: Option<&(StorePath, u64)>) -> Option<Row> {
    let size = |object: Option<&(StorePath, u64)>| {
        object.map_or(0, |(_, size)| i64::try_from(*size).unwrap_or(i64::MAX))
    };
    let (word, what, how) = match (old, new) {
        (None, Some((path, _))) => ("added", path.name(), String::new()),
        (Some((path, _)), None) => ("removed", path.name(), String::new()),
        (Some((old, _)), Some((new, _))) if old.name() == new.name() => (
            "changed",
            new.name(),
            "built from something else".to_owned(),
        ),
        (Some((old, _)), Some((new, _))) => ("changed", new.name(), format!("was {}", old.name())),
        (None, None) => return None,
    };
    Some(Row {
        word,
        what: what.to_string(),
        how,
        growth_bytes: size(new) - size(old),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::ObjectDigest;

    #[test]
    fn versions_are_cut_off() {
        for (name, stem) in [
            ("musl-1.2.3", "musl"),
            ("mini-httpd-1.30-dev", "mini-httpd"),
            ("welcome", "welcome"),
            ("x-", "x-"),
        ] {
            assert_eq!(without_version(name), stem);
        }
    }

    #[test]
    fn objects_of_one_name_stand_for_one_another() {
        let object = |byte, name: &str, size| {
            let digest = ObjectDigest::from_bytes([byte; 32]);
            (StorePath::new(digest, name.parse().unwrap()), size)
        };
        let old = [
            object(1, "a-1", 10),
            object(2, "b-1", 10),
            object(3, "c-1", 10),
            object(4, "d-1", 5),
        ];
        let new = [
            object(1, "a-1", 10),
            object(5, "b-1", 12),
            object(6, "c-2", 9),
            object(7, "e-1", 7),
        ];
        let rows = compare_objects(&old, &new);
        let shown: Vec<_> = rows
            .iter()
            .map(|row| {
                (
                    row.word,
                    row.what.as_str(),
                    row.how.as_str(),
                    row.growth_bytes,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("changed", "b-1", "built from something else", 2),
                ("changed", "c-2", "was c-1", -1),
                ("removed", "d-1", "", -5),
                ("added", "e-1", "", 7),
            ]
        );
    }
}
