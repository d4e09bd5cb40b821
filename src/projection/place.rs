//! Where taken files stand in an image.

use std::collections::{BTreeMap, BTreeSet};

use super::cut::{Group, changes};
use super::reach::{Reached, Reason};
use super::walk::STORE;
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
    let mut group = group_of(&content.object);
    for (path, reason) in reached.taken.get(&content.object).into_iter().flatten() {
        let chosen = content
            .files
            .as_ref()
            .is_none_or(|files| files.iter().any(|file| path == file || path.is_below(file)));
        let brought = !matches!(reason, Reason::Chosen | Reason::Within);
        if (chosen || brought)
            && let Some(entry) = objects
                .get(&content.object)
                .and_then(|object| object.listing.get(path))
        {
            let placed = Placed::of(entry, &content.object);
            group.entries.insert(content.place(path)?, placed);
        }
    }
    Ok(group)
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
        let mut group = group_of(object);
        for path in taken.keys() {
            let at = store_path(object, Some(path))?;
            if let Some(entry) = objects.get(object).and_then(|o| o.listing.get(path)) {
                group.entries.insert(at, Placed::of(entry, object));
            }
        }
        groups.push((changes(graph, object), object.name().to_string(), group));
    }
    groups.sort_by(|one, two| (one.0, &one.1).cmp(&(two.0, &two.1)));
    Ok(groups.into_iter().map(|(_, _, group)| group).collect())
}

fn group_of(object: &StorePath) -> Group {
    Group {
        titles: vec![object.name().to_string()],
        objects: BTreeSet::from([object.clone()]),
        entries: BTreeMap::new(),
    }
}

/// Returns where an object, or a path of it, lies in an image.
fn store_path(object: &StorePath, path: Option<&RelPath>) -> Result<RelPath, PathError> {
    let base = format!("{}/{}", &STORE.trim_start_matches('/'), object.base_name());
    match path {
        Some(path) => format!("{base}/{path}").parse(),
        None => base.parse(),
    }
}

/// Returns the links at ordinary paths that lead into the store. What an image names gets
/// a link; of a whole package, each directory that nothing else shares gets one.
/// `taken` are the paths that something else stands at.
pub(super) fn links(
    contents: &[&Content],
    objects: &Objects,
    reached: &Reached,
    taken: &BTreeSet<RelPath>,
) -> Result<Vec<(usize, RelPath, Placed)>, PathError> {
    let mut wanted: Vec<(usize, RelPath, RelPath)> = Vec::new();
    // Who has something below a directory; contents by number.
    let mut owners: BTreeMap<RelPath, BTreeSet<Option<usize>>> = BTreeMap::new();
    for path in taken {
        for above in path.ancestors().chain([path.clone()]) {
            owners.entry(above).or_default().insert(None);
        }
    }
    for (number, content) in contents.iter().enumerate() {
        let listing = objects.get(&content.object).map(|object| &object.listing);
        let own = |path: &RelPath| listing.and_then(|listing| listing.get(path));
        let paths: Vec<&RelPath> = match &content.files {
            Some(files) => files.iter().collect(),
            None => reached
                .taken
                .get(&content.object)
                .into_iter()
                .flat_map(BTreeMap::keys)
                .filter(|path| own(path).is_some_and(|entry| *entry != Entry::Directory))
                .collect(),
        };
        for path in paths {
            let at = content.place(path)?;
            for above in at.ancestors() {
                // A file that is named stands in a directory of the image's own.
                let owner = content.files.is_none().then_some(number);
                owners.entry(above).or_default().insert(owner);
            }
            wanted.push((number, at, path.clone()));
        }
    }
    let mut links = BTreeMap::new();
    for (number, at, path) in wanted {
        let Some(content) = contents.get(number) else {
            continue;
        };
        // The number of directories that the content's own place has.
        let depth = content.to.as_ref().map_or(0, |to| to.components().count());
        let mut above: Vec<RelPath> = at.ancestors().collect();
        above.sort_by_key(|above| above.components().count());
        let alone = above.into_iter().skip(depth).find(|above| {
            let real = above
                .components()
                .next()
                .is_some_and(|top| REAL.contains(&top));
            !real
                && owners
                    .get(above)
                    .is_some_and(|owners| *owners == BTreeSet::from([Some(number)]))
        });
        let (at, path) = match alone {
            None => (at, path),
            Some(above) => {
                let below = above.components().skip(depth).collect::<Vec<_>>().join("/");
                (above, below.parse()?)
            }
        };
        let target = format!("/{}", store_path(&content.object, Some(&path))?);
        let placed = Placed::of(&Entry::Symlink { target }, &content.object);
        links.insert((at, number), placed);
    }
    let links = links.into_iter();
    Ok(links
        .map(|((at, number), placed)| (number, at, placed))
        .collect())
}
