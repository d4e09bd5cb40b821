//! Naming trees that are to become objects.
//!
//! Planning only reads, so that a rebuild can be compared without being kept. Outputs of
//! one action may name themselves and one another; each is named after those it names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use petgraph::algo::tarjan_scc;
use petgraph::graph::DiGraph;

use super::StoreError;
use crate::hash::object::{Position, SelfReferences, ZEROED};
use crate::hash::{ObjectName, RelPath, StorePath};
use crate::listing::{Entry, Listing};
use crate::tree::references::{DigestText, Wanted, digest_text};
use crate::tree::seal::{self, Patch};
use crate::tree::{Hit, Scan, TreeError, TreeRoot, scan};

/// A tree that nobody writes to any more, about to become an object.
#[derive(Debug, Clone)]
pub struct Addition {
    /// Where it lies: below a [`super::Scratch`] of this store, so that it can be moved.
    pub tree: PathBuf,
    /// The readable part of its path.
    pub name: ObjectName,
    /// The path that the builder was told, if it was told one.
    pub scratch: Option<StorePath>,
}

/// What a tree will be called, and what must change in it first.
#[derive(Debug, Clone)]
pub struct ObjectPlan {
    /// The object's path.
    pub path: StorePath,
    /// Its listing, as it will lie in the store.
    pub listing: Listing,
    /// What it names, itself not included.
    pub references: Vec<Hit>,
    pub(super) tree: PathBuf,
    pub(super) positions: Vec<Position>,
    pub(super) patches: BTreeMap<RelPath, Vec<Patch>>,
    /// Whether the tree has its final modes and content already.
    pub(super) sealed: bool,
}

impl ObjectPlan {
    /// Returns where the tree lies before it is registered.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// Returns what registering will rewrite, by file.
    pub fn patches(&self) -> &BTreeMap<RelPath, Vec<Patch>> {
        &self.patches
    }
}

/// Names the trees of one action; only reads.
///
/// `candidates` are the objects that the trees may reference. The result is in the order
/// of `additions`.
///
/// # Errors
/// [`StoreError::Tree`] for what no object can hold, [`StoreError::OutputCycle`] when
/// outputs name each other in a circle.
pub fn plan(
    additions: &[Addition],
    candidates: &BTreeSet<StorePath>,
) -> Result<Vec<ObjectPlan>, StoreError> {
    let scratch = additions.iter().filter_map(|a| a.scratch.as_ref());
    plan_wanted(additions, &Wanted::new(candidates, scratch))
}

/// As [`plan`], with what is looked for: the candidates, and each addition's scratch path.
pub(super) fn plan_wanted(
    additions: &[Addition],
    wanted: &Wanted,
) -> Result<Vec<ObjectPlan>, StoreError> {
    let mut scans = Vec::new();
    for addition in additions {
        let scanned = scan_addition(addition, wanted).map_err(|source| StoreError::Addition {
            name: addition.name.clone(),
            source,
        })?;
        scans.push(scanned);
    }
    let mut final_paths: BTreeMap<StorePath, StorePath> = BTreeMap::new();
    let mut plans: BTreeMap<usize, ObjectPlan> = BTreeMap::new();
    for index in naming_order(additions, &scans)? {
        if let (Some(addition), Some((root, scan))) = (additions.get(index), scans.get(index)) {
            let plan = plan_one(addition, root, scan, &final_paths)?;
            if let Some(scratch) = &addition.scratch {
                final_paths.insert(scratch.clone(), plan.path.clone());
            }
            plans.insert(index, plan);
        }
    }
    Ok(plans.into_values().collect())
}

fn scan_addition(addition: &Addition, wanted: &Wanted) -> Result<(TreeRoot, Scan), TreeError> {
    let root = TreeRoot::open(&addition.tree)?;
    let scanned = match scan(&root, wanted) {
        // A build may take its own permissions away; they are no part of an object.
        Err(TreeError::Access { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            seal::make_readable(&root)?;
            scan(&root, wanted)?
        }
        other => other?,
    };
    Ok((root, scanned))
}

/// Returns the additions' indices, those that are named before those that name them.
fn naming_order(
    additions: &[Addition],
    scans: &[(TreeRoot, Scan)],
) -> Result<Vec<usize>, StoreError> {
    let mut graph = DiGraph::<usize, ()>::new();
    let nodes: Vec<_> = (0..additions.len())
        .map(|index| graph.add_node(index))
        .collect();
    for (from, (_, scan)) in nodes.iter().zip(scans) {
        let named: BTreeSet<&StorePath> = scan.scratch.iter().map(|hit| &hit.target).collect();
        for (to, addition) in nodes.iter().zip(additions) {
            if from != to
                && addition
                    .scratch
                    .as_ref()
                    .is_some_and(|path| named.contains(path))
            {
                graph.update_edge(*from, *to, ());
            }
        }
    }
    // Strongly connected components come in reverse topological order: named ones first.
    let mut order = Vec::new();
    for component in tarjan_scc(&graph) {
        let names = || {
            component
                .iter()
                .filter_map(|node| additions.get(node.index()))
                .map(|addition| format!("`{}`", addition.name))
                .collect()
        };
        match component.as_slice() {
            [single] => order.push(single.index()),
            _ => return Err(StoreError::OutputCycle(names())),
        }
    }
    Ok(order)
}

fn plan_one(
    addition: &Addition,
    root: &TreeRoot,
    scan: &Scan,
    final_paths: &BTreeMap<StorePath, StorePath>,
) -> Result<ObjectPlan, StoreError> {
    let own = addition.scratch.as_ref();
    let mut positions = Vec::new();
    let mut references = scan.references.clone();
    for hit in &scan.scratch {
        if Some(&hit.target) == own {
            positions.push(Position {
                path: hit.file.clone(),
                offset: hit.offset,
            });
        } else if let Some(target) = final_paths.get(&hit.target) {
            references.push(Hit {
                target: target.clone(),
                ..hit.clone()
            });
        }
    }
    let patches = |own_text: &DigestText| {
        let mut patches: BTreeMap<RelPath, Vec<Patch>> = BTreeMap::new();
        for hit in &scan.scratch {
            let text = match final_paths.get(&hit.target) {
                Some(target) => digest_text(target),
                None => *own_text,
            };
            patches.entry(hit.file.clone()).or_default().push(Patch {
                offset: hit.offset,
                text,
            });
        }
        patches
    };
    let zeroed = patched_listing(root, &scan.listing, &patches(&ZEROED))?;
    let digest = SelfReferences::new(zeroed.digest(), positions.clone()).digest();
    let path = StorePath::new(digest, addition.name.clone());
    let patches = patches(&digest_text(&path));
    let listing = if positions.is_empty() {
        zeroed
    } else {
        patched_listing(root, &scan.listing, &patches)?
    };
    references.sort();
    references.dedup_by(|a, b| a.file == b.file && a.target == b.target);
    Ok(ObjectPlan {
        path,
        listing,
        references,
        tree: addition.tree.clone(),
        positions,
        patches,
        sealed: false,
    })
}

/// Returns the listing that a tree would have with patches applied.
fn patched_listing(
    root: &TreeRoot,
    listing: &Listing,
    patches: &BTreeMap<RelPath, Vec<Patch>>,
) -> Result<Listing, StoreError> {
    if patches.is_empty() {
        return Ok(listing.clone());
    }
    let mut entries: BTreeMap<RelPath, Entry> = listing
        .iter()
        .map(|(path, entry)| (path.clone(), entry.clone()))
        .collect();
    for (path, patches) in patches {
        match entries.get_mut(path) {
            Some(Entry::File { digest, .. }) => {
                *digest = seal::patched_digest(root, path, patches)?;
            }
            Some(Entry::Symlink { target }) => *target = seal::patched_target(target, patches),
            Some(Entry::Directory) | None => {}
        }
    }
    Ok(Listing::new(entries).map_err(TreeError::from)?)
}
