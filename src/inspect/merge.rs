//! Layers laid over one another. Pure.
//!
//! A layer's whiteouts act on lower layers only, wherever they stand in its tar. A path
//! goes through the symbolic links that are there, inside the image's root, as a runtime
//! follows them. What an upper layer replaces or removes stays known as hidden.

use std::collections::BTreeMap;

use super::InspectError;
use super::layer::{Change, ReadLayer};
use crate::hash::RelPath;
use crate::listing::image::{Configuration, Hidden, ImageEntry, ImageListing, Node, Provenance};

/// Most links that are followed for one path, as Linux does.
const MAX_LINKS: usize = 40;

/// Mode of a directory that no layer names: runtimes make it so.
const IMPLICIT_MODE: u32 = 0o755;

/// Lays layers over one another, lowest first.
///
/// # Errors
/// [`InspectError::Layer`] for a path below something that is no directory, and for a hard
/// link to nothing.
pub fn merge(
    layers: Vec<ReadLayer>,
    configuration: Configuration,
) -> Result<ImageListing, InspectError> {
    let mut listing = ImageListing {
        configuration,
        provenance: Provenance::Unknown,
        ..ImageListing::default()
    };
    for layer in layers {
        let number = layer.index;
        let refuse = |(path, why): (RelPath, String)| InspectError::Layer {
            layer: format!("layer {} (`{}`)", number + 1, layer.layer.title),
            problem: format!("`{path}` {why}"),
        };
        let mut below = Below {
            entries: &mut listing.entries,
            hidden: &mut listing.hidden,
            layer: number,
        };
        for (path, change) in &layer.changes {
            match change {
                Change::Whiteout => below.white_out(path, true).map_err(refuse)?,
                Change::Opaque => below.white_out(path, false).map_err(refuse)?,
                Change::Put(_) | Change::Link(..) => {}
            }
        }
        for (path, change) in layer.changes {
            match change {
                Change::Put(entry) => below.put(&path, entry).map_err(refuse)?,
                Change::Link(target, entry) => {
                    below.link(&path, &target, entry).map_err(refuse)?;
                }
                Change::Whiteout | Change::Opaque => {}
            }
        }
        listing.facts.extend(layer.facts);
        listing.layers.push(layer.layer);
    }
    Ok(listing)
}

/// What lower layers made, and the layer that is laid over them.
struct Below<'a> {
    entries: &'a mut BTreeMap<RelPath, ImageEntry>,
    hidden: &'a mut Vec<Hidden>,
    layer: usize,
}

type Refusal = (RelPath, String);

impl Below<'_> {
    /// Returns a path with the links above its last component followed.
    fn resolve(&self, path: &RelPath) -> Result<RelPath, Refusal> {
        let Some(parent) = path.parent() else {
            return Ok(path.clone());
        };
        // Nearly always there is nothing to follow.
        if matches!(self.entries.get(&parent), Some(entry) if entry.node == Node::Directory) {
            return Ok(path.clone());
        }
        let mut pending: Vec<String> = parent.components().rev().map(str::to_owned).collect();
        let mut at: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(component) = pending.pop() {
            match component.as_str() {
                "" | "." => continue,
                ".." => {
                    at.pop();
                    continue;
                }
                _ => at.push(component),
            }
            let here: RelPath = at
                .join("/")
                .parse()
                .map_err(|_| (path.clone(), "goes through a link too long".to_owned()))?;
            match self.entries.get(&here).map(|entry| &entry.node) {
                None | Some(Node::Directory) => {}
                Some(Node::Symlink { target }) => {
                    links += 1;
                    if links > MAX_LINKS {
                        let why = "goes through links in a circle".to_owned();
                        return Err((path.clone(), why));
                    }
                    at.pop();
                    if target.starts_with('/') {
                        at.clear();
                    }
                    pending.extend(target.split('/').rev().map(str::to_owned));
                }
                Some(_) => {
                    let why = format!("stands below `{here}`, which is not a directory");
                    return Err((path.clone(), why));
                }
            }
        }
        at.push(path.file_name().to_owned());
        at.join("/")
            .parse()
            .map_err(|_| (path.clone(), "goes through a link too long".to_owned()))
    }

    /// Removes what stands below a path, and at it if asked.
    fn white_out(&mut self, path: &RelPath, itself: bool) -> Result<(), Refusal> {
        // A whiteout below nothing removes nothing.
        let Ok(path) = self.resolve(path) else {
            return Ok(());
        };
        self.remove_below(&path);
        if itself && let Some(entry) = self.entries.remove(&path) {
            self.hide(path, entry);
        }
        Ok(())
    }

    /// Removes what stands below a path. Entries are in the order of a walk, so that it
    /// follows the path at once.
    fn remove_below(&mut self, path: &RelPath) {
        let doomed: Vec<RelPath> = self
            .entries
            .range(path.clone()..)
            .skip_while(|(other, _)| *other == path)
            .map_while(|(other, _)| other.is_below(path).then(|| other.clone()))
            .collect();
        for other in doomed {
            if let Some(entry) = self.entries.remove(&other) {
                self.hide(other, entry);
            }
        }
    }

    fn hide(&mut self, path: RelPath, entry: ImageEntry) {
        if matches!(entry.node, Node::File { .. }) && entry.hard_link.is_none() {
            let by = self.layer;
            self.hidden.push(Hidden { path, entry, by });
        }
    }

    fn put(&mut self, path: &RelPath, entry: ImageEntry) -> Result<(), Refusal> {
        let path = self.resolve(path)?;
        for above in path.ancestors() {
            match self.entries.get(&above).map(|entry| &entry.node) {
                Some(Node::Directory) => {}
                Some(_) => {
                    let why = format!("stands below `{above}`, which is not a directory");
                    return Err((path.clone(), why));
                }
                None => {
                    let directory = ImageEntry::new(Node::Directory, IMPLICIT_MODE, self.layer);
                    self.entries.insert(above, directory);
                }
            }
        }
        let is_directory = entry.node == Node::Directory;
        // A directory over a directory changes its mode and keeps what it holds.
        if !is_directory
            && matches!(self.entries.get(&path), Some(old) if old.node == Node::Directory)
        {
            self.remove_below(&path);
        }
        if let Some(old) = self.entries.insert(path.clone(), entry) {
            self.hide(path, old);
        }
        Ok(())
    }

    fn link(
        &mut self,
        path: &RelPath,
        target: &RelPath,
        mut entry: ImageEntry,
    ) -> Result<(), Refusal> {
        let target = self.resolve(target)?;
        let Some(file) = self.entries.get(&target) else {
            let why = format!("is a hard link to `{target}`, which is not there");
            return Err((path.clone(), why));
        };
        if file.node == Node::Directory {
            let why = format!("is a hard link to the directory `{target}`");
            return Err((path.clone(), why));
        }
        // All names of a file have one mode and one owner.
        entry.node = file.node.clone();
        entry.mode = file.mode;
        entry.owner = file.owner;
        entry.attributes = file.attributes.clone();
        entry.hard_link = Some(target.clone());
        if self.resolve(path)? == target {
            return Ok(());
        }
        self.put(path, entry)
    }
}
