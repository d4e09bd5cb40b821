//! What was taken of each object, why, and what was left behind.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::cli::progress::bytes;
use crate::hash::StorePath;
use crate::listing::Entry;
use crate::projection::left::{Left, Why, left};
use crate::projection::{Absent, Content, Objects, Place, Reached, Reason};

/// Most reasons that are printed for one object; JSON has them all.
const SHOWN: usize = 40;

/// What an image has of each object.
pub(super) struct Explanation {
    objects: Vec<OfObject>,
    absent: Vec<Absent>,
}

struct OfObject {
    object: StorePath,
    files: usize,
    size_bytes: u64,
    /// What was brought by something else.
    brought: Vec<(Place, &'static str, Arc<Place>)>,
    left: Vec<Left>,
}

impl Explanation {
    pub(super) fn of(contents: &[Content], objects: &Objects, reached: &Reached) -> Self {
        let mut left = left(contents, objects, reached);
        let mut all = Vec::new();
        for (object, taken) in &reached.taken {
            let entry = |path| objects.get(object).and_then(|held| held.listing.get(path));
            let mut explained = OfObject {
                object: object.clone(),
                files: 0,
                size_bytes: 0,
                brought: Vec::new(),
                left: left.remove(object).unwrap_or_default(),
            };
            for (path, reason) in taken {
                match entry(path) {
                    Some(Entry::File { size_bytes, .. }) => {
                        explained.files += 1;
                        explained.size_bytes += size_bytes;
                    }
                    Some(Entry::Symlink { .. }) => explained.files += 1,
                    Some(Entry::Directory) | None => continue,
                }
                let (how, by) = match reason {
                    Reason::Chosen | Reason::Within => continue,
                    Reason::Loader(by) => ("is the loader of", by),
                    Reason::Library(by) => ("is a library of", by),
                    Reason::Named(by) => ("is named by", by),
                    Reason::Linked(by) => ("is what leads on from", by),
                };
                let place = Place {
                    object: object.clone(),
                    path: path.clone(),
                };
                explained.brought.push((place, how, Arc::clone(by)));
            }
            all.push(explained);
        }
        Self {
            objects: all,
            absent: reached.absent.iter().cloned().collect(),
        }
    }

    /// Returns it for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for explained in &self.objects {
            let OfObject {
                object,
                files,
                size_bytes,
                brought,
                left,
            } = explained;
            let files = count(*files);
            lines.push(format!("taken   {object}  {files}, {}", bytes(*size_bytes)));
            for (place, how, by) in brought.iter().take(SHOWN) {
                let by = if by.object == *object {
                    by.path.to_string()
                } else {
                    by.to_string()
                };
                lines.push(format!("        {} {how} {by}", place.path));
            }
            if let Some(more) = brought.len().checked_sub(SHOWN + 1) {
                lines.push(format!("        and {} more; `--json` has all", more + 1));
            }
            for left in left {
                let Left {
                    path,
                    files,
                    size_bytes,
                    ..
                } = left;
                let count = match files {
                    1 => String::new(),
                    _ => format!("{}, ", count(*files)),
                };
                let why = why(left);
                lines.push(format!(
                    "left    {path}  {count}{}: {why}",
                    bytes(*size_bytes)
                ));
            }
        }
        for Absent { by, name } in &self.absent {
            lines.push(format!("absent  {name}, which {by} needs"));
        }
        lines
    }

    /// Returns it for programs.
    pub(super) fn document(&self) -> Value {
        let objects = self.objects.iter().map(|explained| {
            let brought = explained.brought.iter().map(|(place, how, by)| {
                json!({ "path": place.path.as_str(), "how": how, "by": by.to_string() })
            });
            let left = explained.left.iter().map(|left| {
                json!({
                    "path": left.path.as_str(),
                    "files": left.files,
                    "size_bytes": left.size_bytes,
                    "why": why(left),
                    "rule": match left.why {
                        Why::Rule(rule) => Some(rule.name),
                        Why::NotChosen | Why::NotNeeded => None,
                    },
                })
            });
            json!({
                "object": explained.object.to_string(),
                "files": explained.files,
                "size_bytes": explained.size_bytes,
                "brought": brought.collect::<Vec<_>>(),
                "left": left.collect::<Vec<_>>(),
            })
        });
        let absent = self
            .absent
            .iter()
            .map(|absent| json!({ "library": absent.name, "by": absent.by.to_string() }));
        json!({
            "objects": objects.collect::<Vec<_>>(),
            "absent": absent.collect::<Vec<_>>(),
        })
    }
}

fn count(files: usize) -> String {
    match files {
        1 => "1 file".to_owned(),
        _ => format!("{files} files"),
    }
}

fn why(left: &Left) -> String {
    match left.why {
        Why::Rule(rule) => format!("{}, {}", rule.name, rule.about),
        Why::NotChosen => "not chosen".to_owned(),
        Why::NotNeeded => "nothing needs it".to_owned(),
    }
}
