//! Following a path through the objects of a closure, links included.

use super::Objects;
use super::reach::Place;
use crate::hash::{RelPath, StorePath};
use crate::listing::Entry;

/// Most links that are followed for one path, as Linux does (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Where objects lie in images and sandboxes.
pub const STORE: &str = "/kiln/store";

/// A path that leads to something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Walk {
    /// The links on its way.
    pub links: Vec<Place>,
    /// What it leads to.
    pub end: End,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// A file.
    File(Place),
    /// A directory of an object; empty for its root.
    Directory(StorePath, String),
}

/// Returns the object and the path in it that an absolute path below the store means.
pub(super) fn in_store(path: &str) -> Option<(StorePath, String)> {
    let below = path.strip_prefix(STORE)?.strip_prefix('/')?;
    let (base, rest) = below.split_once('/').unwrap_or((below, ""));
    let object = StorePath::from_base_name(base).ok()?;
    Some((object, rest.to_owned()))
}

/// Follows a path from the root of an object. Returns `None` where it leads to nothing, or
/// out of the store.
pub(super) fn walk(objects: &Objects, object: &StorePath, path: &str) -> Option<Walk> {
    let mut object = object.clone();
    let mut at: Vec<String> = Vec::new();
    let mut pending: Vec<String> = components(path).rev().collect();
    let mut links = Vec::new();
    objects.get(&object)?;
    while let Some(component) = pending.pop() {
        match component.as_str() {
            "." => continue,
            ".." => {
                // Above an object lies the store, where other objects are named in full.
                at.pop()?;
                continue;
            }
            _ => at.push(component),
        }
        let here: RelPath = at.join("/").parse().ok()?;
        match objects.get(&object)?.listing.get(&here)? {
            Entry::Directory => {}
            Entry::File { .. } if pending.is_empty() => {
                let end = End::File(Place { object, path: here });
                return Some(Walk { links, end });
            }
            Entry::File { .. } => return None,
            Entry::Symlink { target } => {
                links.push(Place {
                    object: object.clone(),
                    path: here,
                });
                if links.len() > MAX_LINKS {
                    return None;
                }
                at.pop();
                if target.starts_with('/') {
                    let (other, rest) = in_store(target)?;
                    objects.get(&other)?;
                    object = other;
                    at.clear();
                    pending.extend(components(&rest).rev());
                } else {
                    pending.extend(components(target).rev());
                }
            }
        }
    }
    Some(Walk {
        links,
        end: End::Directory(object, at.join("/")),
    })
}

fn components(path: &str) -> impl DoubleEndedIterator<Item = String> + '_ {
    path.split('/')
        .filter(|component| !component.is_empty())
        .map(str::to_owned)
}
