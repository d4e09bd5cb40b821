//! Where taken files stand in an image.

use std::collections::{BTreeMap, BTreeSet};

use super::cut::{Group, changes};
use super::reach::{Reached, Reason};
use super::{Content, Objects, Placed};
use crate::closure::Graph;
use crate::hash::{PathError, RelPath, StorePath};
use crate::listing::Entry;

/// Directories that engines fill when a container starts, or programs write to: no link
/// stands for them.
const REAL: [&str; 7] = ["dev", "etc", "proc", "run", "sys", "tmp", "var"];

/// Returns the entries of a content at ordinary paths.
pub(super) fn at_ordinary_paths(
    content: &Content,
    objects: &Objects,
    reached: &Reached,
) -> Result<Group, PathError> {
    let object = objects.get(&content.object);
    let taken = reached.taken.get(&content.object);
    let all = object.zip(taken).into_iter();
    let entries = all
        .flat_map(|(object, taken)| object.taken(taken))
        .filter(|(path, reason, _)| {
            let chosen = content.files.as_ref().is_none_or(|files| {
                files
                    .iter()
                    .any(|file| *path == file || path.is_below(file))
            });
            let brought = !matches!(reason, Reason::Chosen | Reason::Within);
            chosen || brought
        })
        .map(|(path, _, entry)| Ok((content.place(path)?, Placed::of(entry, &content.object))))
        .collect::<Result<_, PathError>>()?;
    Ok(group_of(&content.object, entries))
}

/// Returns the entries of each object below the store, those that seldom change first.
pub(super) fn in_store(
    objects: &Objects,
    reached: &Reached,
    without: &BTreeSet<&StorePath>,
    graph: &Graph,
) -> Result<Vec<Group>, PathError> {
    let mut groups = Vec::new();
    for (object, taken) in &reached.taken {
        if without.contains(object) {
            continue;
        }
        let found = objects.get(object).into_iter();
        let entries = found
            .flat_map(|found| found.taken(taken))
            .map(|(path, _, entry)| Ok((store_path(object, path)?, Placed::of(entry, object))))
            .collect::<Result<_, PathError>>()?;
        let group = group_of(object, entries);
        groups.push((changes(graph, object), object.name().to_string(), group));
    }
    groups.sort_by(|one, two| (one.0, &one.1).cmp(&(two.0, &two.1)));
    Ok(groups.into_iter().map(|(_, _, group)| group).collect())
}

fn group_of(object: &StorePath, entries: BTreeMap<RelPath, Placed>) -> Group {
    Group {
        titles: vec![object.name().to_string()],
        objects: BTreeSet::from([object.clone()]),
        entries,
    }
}

/// Returns where a path of an object lies in an image.
fn store_path(object: &StorePath, path: &RelPath) -> Result<RelPath, PathError> {
    format!("{object}/{path}").trim_start_matches('/').parse()
}

/// Returns the links at ordinary paths that lead into the store. What an image names gets
/// a link; of a whole package, each directory that nothing else shares gets one.
/// `taken` says whether something else stands at a path, or below it.
pub(super) fn links(
    contents: &[&Content],
    objects: &Objects,
    reached: &Reached,
    taken: impl Fn(&RelPath) -> bool,
) -> Result<Vec<(usize, RelPath, Placed)>, PathError> {
    let mut wanted: Vec<(usize, &Content, RelPath, &RelPath)> = Vec::new();
    // Whose alone a directory is, contents by number; `None` where several share it.
    let mut owners: BTreeMap<RelPath, Option<usize>> = BTreeMap::new();
    for (number, content) in contents.iter().enumerate() {
        let paths: Vec<&RelPath> = match &content.files {
            Some(files) => files.iter().collect(),
            None => {
                let object = objects.get(&content.object);
                let all = object.zip(reached.taken.get(&content.object)).into_iter();
                all.flat_map(|(object, taken)| object.taken(taken))
                    .filter(|(_, _, entry)| **entry != Entry::Directory)
                    .map(|(path, _, _)| path)
                    .collect()
            }
        };
        // A file that is named stands in a directory of the image's own.
        let owner = content.files.is_none().then_some(number);
        let mut owned = String::new();
        for path in paths {
            let at = content.place(path)?;
            // Most stand beside the one before.
            if at.parent_str() != owned {
                for above in at.ancestors() {
                    let there = owners.entry(above).or_insert(owner);
                    if *there != owner {
                        *there = None;
                    }
                }
                at.parent_str().clone_into(&mut owned);
            }
            wanted.push((number, content, at, path));
        }
    }
    let mut links = BTreeMap::new();
    let mut linked: Option<(usize, RelPath)> = None;
    for (number, content, at, path) in wanted {
        let is_linked = |(by, above): &(usize, RelPath)| *by == number && at.is_below(above);
        if linked.as_ref().is_some_and(is_linked) {
            continue;
        }
        // The number of directories that the content's own place has.
        let depth = content.to.as_ref().map_or(0, |to| to.components().count());
        let alone = at.ancestors().skip(depth).find(|above| {
            let real = above
                .components()
                .next()
                .is_some_and(|top| REAL.contains(&top));
            !real && owners.get(above) == Some(&Some(number)) && !taken(above)
        });
        let (at, path) = match alone {
            None => (at, path.clone()),
            Some(above) => {
                let below = above.components().skip(depth).collect::<Vec<_>>().join("/");
                linked = Some((number, above.clone()));
                (above, below.parse()?)
            }
        };
        let target = format!("/{}", store_path(&content.object, &path)?);
        let placed = Placed::of(&Entry::Symlink { target }, &content.object);
        links.insert((at, number), placed);
    }
    let links = links.into_iter();
    Ok(links
        .map(|((at, number), placed)| (number, at, placed))
        .collect())
}
