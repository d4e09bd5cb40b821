//! Adding trees: planning their names, then sealing, sharing and registering them.
//!
//! Planning only reads, so that a rebuild can be compared without being kept. Outputs of
//! one action may name themselves and one another; each is named after those it names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use petgraph::algo::tarjan_scc;
use petgraph::graph::DiGraph;
use rayon::prelude::*;
use rusqlite::TransactionBehavior;
use rustix::fs::{AtFlags, CWD, linkat, renameat, unlinkat};
use rustix::io::Errno;

use super::objects::{NewObject, exists, insert};
use super::{Store, StoreError};
use crate::closure::Reference;
use crate::hash::object::{Position, SelfReferences, ZEROED};
use crate::hash::{BlobDigest, ObjectName, RelPath, StorePath};
use crate::listing::{Entry, Listing};
use crate::tree::references::{DigestText, Wanted, digest_text};
use crate::tree::seal::{self, Patch};
use crate::tree::{Hit, Scan, TreeError, TreeRoot, remove_tree, scan};

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
    tree: PathBuf,
    positions: Vec<Position>,
    patches: BTreeMap<RelPath, Vec<Patch>>,
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
    let wanted = Wanted::new(
        candidates,
        additions.iter().filter_map(|a| a.scratch.as_ref()),
    );
    let mut scans = Vec::new();
    for addition in additions {
        let scanned = scan_addition(addition, &wanted).map_err(|source| StoreError::Addition {
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
    })
}

/// Returns the listing that a tree would have with patches applied.
fn patched_listing(
    root: &TreeRoot,
    listing: &Listing,
    patches: &BTreeMap<RelPath, Vec<Patch>>,
) -> Result<Listing, StoreError> {
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

impl Store {
    /// Adds one tree that names nothing but `candidates`, and returns its path.
    ///
    /// # Errors
    /// As [`plan`] and [`Store::register`].
    pub fn add(
        &self,
        tree: &Path,
        name: &ObjectName,
        candidates: &BTreeSet<StorePath>,
    ) -> Result<StorePath, StoreError> {
        let addition = Addition {
            tree: tree.to_owned(),
            name: name.clone(),
            scratch: None,
        };
        let plans = plan(std::slice::from_ref(&addition), candidates)?;
        self.register(&plans)?;
        plans
            .into_iter()
            .next()
            .map(|plan| plan.path)
            .ok_or(StoreError::Malformed {
                what: "plan",
                value: String::new(),
            })
    }

    /// Adds a tree whose every file the pool has already, by linking, and returns its path.
    ///
    /// `from` are the objects that the entries come from; what they reference, the new
    /// object references.
    ///
    /// # Errors
    /// [`StoreError::Access`] when the file system refuses, [`StoreError::Database`].
    pub fn assemble(
        &self,
        listing: &Listing,
        name: &ObjectName,
        from: &[StorePath],
    ) -> Result<StorePath, StoreError> {
        let scratch = self.scratch()?;
        let tree = scratch.path().join("tree");
        let access = |operation, path: &Path, source| StoreError::Access {
            operation,
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir(&tree).map_err(|source| access("create", &tree, source))?;
        for (path, entry) in listing.iter() {
            let at = tree.join(path.as_str());
            match entry {
                Entry::Directory => std::fs::create_dir(&at),
                Entry::Symlink { target } => std::os::unix::fs::symlink(target, &at),
                Entry::File {
                    digest, executable, ..
                } => std::fs::hard_link(self.blob_path(*digest, *executable), &at),
            }
            .map_err(|source| access("assemble", &at, source))?;
        }
        let mut references = Vec::new();
        for object in from {
            for reference in self.references(object)? {
                let Reference {
                    target,
                    file,
                    offset,
                } = reference;
                references.push(Hit {
                    file,
                    offset,
                    target,
                });
            }
        }
        references.sort();
        references.dedup_by(|a, b| a.file == b.file && a.target == b.target);
        let digest = SelfReferences::new(listing.digest(), Vec::new()).digest();
        let plan = ObjectPlan {
            path: StorePath::new(digest, name.clone()),
            listing: listing.clone(),
            references,
            tree,
            positions: Vec::new(),
            patches: BTreeMap::new(),
        };
        if self.object(&plan.path)?.is_none() {
            seal_directories(&plan)?;
            let _exclusive = self.lock_registration()?;
            self.move_and_record(&plan)?;
        }
        Ok(plan.path)
    }

    /// Seals planned trees, moves them into place and records them.
    ///
    /// An object that is there already is kept, and the new tree is left where it is.
    ///
    /// # Errors
    /// [`StoreError::Tree`] or [`StoreError::Access`] when the file system refuses,
    /// [`StoreError::Database`] when recording fails; the store stays as it was.
    pub fn register(&self, plans: &[ObjectPlan]) -> Result<(), StoreError> {
        let mut moving: Vec<&ObjectPlan> = Vec::new();
        for plan in plans {
            if self.object(&plan.path)?.is_none()
                && !moving.iter().any(|other| other.path == plan.path)
            {
                self.seal(plan)?;
                moving.push(plan);
            }
        }
        // One object may name another, so that one's row comes first.
        moving.sort_by_key(|plan| moving_rank(plan, plans));
        let _exclusive = self.lock_registration()?;
        for plan in moving {
            self.move_and_record(plan)?;
        }
        Ok(())
    }

    fn move_and_record(&self, plan: &ObjectPlan) -> Result<(), StoreError> {
        let target = self.host_path(&plan.path);
        let known = self.with_database(|connection| {
            exists(connection, &plan.path).map_err(|source| self.failed(source))
        })?;
        if known {
            return Ok(());
        }
        // Nobody else registers now, so a tree without a row is a dead process's.
        remove_tree(&target)?;
        std::fs::rename(&plan.tree, &target).map_err(|source| StoreError::Access {
            operation: "move the object to",
            path: target.clone(),
            source,
        })?;
        seal::seal_root(&TreeRoot::open(&target)?)?;
        let encoded = plan.listing.encode();
        self.with_database(|connection| {
            let record = |connection: &mut rusqlite::Connection| {
                let transaction =
                    connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                insert(
                    &transaction,
                    &NewObject {
                        path: &plan.path,
                        tree: &encoded,
                        listing: &plan.listing,
                        positions: &plan.positions,
                        references: &plan.references,
                        now: super::facts::now(),
                    },
                )?;
                transaction.commit()
            };
            record(connection).map_err(|source| self.failed(source))
        })
    }

    /// Rewrites, seals and shares everything in a tree but its own directory.
    fn seal(&self, plan: &ObjectPlan) -> Result<(), StoreError> {
        let root = TreeRoot::open(&plan.tree)?;
        seal::unlock_directories(&root, &plan.listing)?;
        for (path, patches) in &plan.patches {
            match plan.listing.get(path) {
                Some(Entry::File { .. }) => seal::patch_file(&root, path, patches)?,
                Some(Entry::Symlink { target }) => seal::replace_symlink(&root, path, target)?,
                Some(Entry::Directory) | None => {}
            }
        }
        // Hard links are broken one after the other: the copies share a name.
        let entries: Vec<(&RelPath, &Entry)> = plan.listing.iter().collect();
        for (path, entry) in &entries {
            if let Entry::File { executable, .. } = entry {
                seal::seal_file(&root, path, *executable)?;
            }
        }
        entries
            .par_iter()
            .try_for_each(|(path, entry)| match entry {
                Entry::File {
                    digest, executable, ..
                } => self.share(&root, path, *digest, *executable),
                Entry::Symlink { .. } => Ok(seal::seal_symlink(&root, path)?),
                Entry::Directory => Ok(()),
            })?;
        for (path, entry) in entries.iter().rev() {
            if matches!(entry, Entry::Directory) {
                seal::seal_directory(&root, path)?;
            }
        }
        Ok(())
    }

    /// Makes a sealed file and the pool's copy of the same content one inode.
    fn share(
        &self,
        root: &TreeRoot,
        path: &RelPath,
        digest: BlobDigest,
        executable: bool,
    ) -> Result<(), StoreError> {
        let blob = self.blob_path(digest, executable);
        let failed = |errno: Errno| StoreError::Access {
            operation: "share the content of",
            path: root.shown(path),
            source: errno.into(),
        };
        let parent = root.open_parent(path)?;
        // Several threads may link into one directory at once: the name is the file's own.
        let temporary = format!(
            ".kiln-link-{}",
            blake3::hash(path.as_str().as_bytes()).to_hex()
        );
        for _ in 0..8 {
            match linkat(CWD, &blob, &parent, temporary.as_str(), AtFlags::empty()) {
                Ok(()) => {
                    return renameat(&parent, temporary.as_str(), &parent, path.file_name())
                        // Renaming one link of an inode over another does nothing at all.
                        .and_then(|()| {
                            match unlinkat(&parent, temporary.as_str(), AtFlags::empty()) {
                                Ok(()) | Err(Errno::NOENT) => Ok(()),
                                Err(errno) => Err(errno),
                            }
                        })
                        .map_err(failed);
                }
                // The file system's limit of links: this file keeps its own copy.
                Err(Errno::MLINK) => return Ok(()),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(errno)),
            }
            if let Some(directory) = blob.parent() {
                std::fs::create_dir_all(directory).map_err(|source| StoreError::Access {
                    operation: "create",
                    path: directory.to_owned(),
                    source,
                })?;
            }
            match linkat(&parent, path.file_name(), CWD, &blob, AtFlags::empty()) {
                Ok(()) => return Ok(()),
                // Another thread or process brought the same content: link to that.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(())
    }

    /// Returns where the pool keeps a file's content.
    pub fn blob_path(&self, digest: BlobDigest, executable: bool) -> PathBuf {
        let text = digest.to_string();
        let (shard, _) = text.split_at(2);
        let suffix = if executable { "x" } else { "" };
        self.root()
            .join("blobs")
            .join(shard)
            .join(format!("{text}{suffix}"))
    }
}

/// Seals what is not a file: files that come from the pool are sealed already.
fn seal_directories(plan: &ObjectPlan) -> Result<(), StoreError> {
    let root = TreeRoot::open(&plan.tree)?;
    let entries: Vec<(&RelPath, &Entry)> = plan.listing.iter().collect();
    for (path, entry) in entries.iter().rev() {
        match entry {
            Entry::Directory => seal::seal_directory(&root, path)?,
            Entry::Symlink { .. } => seal::seal_symlink(&root, path)?,
            Entry::File { .. } => {}
        }
    }
    Ok(())
}

/// Returns how many of the plans a plan names, directly or not: an order for their rows.
fn moving_rank(plan: &ObjectPlan, plans: &[ObjectPlan]) -> usize {
    let mut named: BTreeSet<&StorePath> = BTreeSet::new();
    let mut pending = vec![plan];
    while let Some(at) = pending.pop() {
        for hit in &at.references {
            if named.insert(&hit.target) {
                pending.extend(plans.iter().filter(|other| other.path == hit.target));
            }
        }
    }
    plans
        .iter()
        .filter(|other| named.contains(&other.path))
        .count()
}
