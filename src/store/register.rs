//! Making planned trees objects: rewriting, sealing, sharing content, recording.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rusqlite::TransactionBehavior;
use rustix::fs::{AtFlags, CWD, linkat, renameat, unlinkat};
use rustix::io::Errno;

use super::add::{Addition, ObjectPlan, plan};
use super::objects::{NewObject, exists, insert};
use super::{Store, StoreError};
use crate::closure::Reference;
use crate::hash::object::SelfReferences;
use crate::hash::{BlobDigest, ObjectName, RelPath, StorePath};
use crate::listing::{Entry, Listing};
use crate::tree::{Hit, TreeRoot, remove_tree, seal};

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
                        now: super::runs::now(),
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
