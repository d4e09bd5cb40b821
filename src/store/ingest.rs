//! Taking in a tree that belongs to somebody else: read once, copied only where the pool
//! does not have the content yet.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::pool::{copy_checked, remove_if_unused};
use super::{ObjectPlan, Store, StoreError, crash};
use crate::hash::object::SelfReferences;
use crate::hash::{BlobDigest, ObjectName, StorePath};
use crate::listing::Entry;
use crate::tree::TreeRoot;
use crate::tree::references::Wanted;
use crate::tree::scan::{BLOCK, Scan, hash_stream, read_block, scan_files, scan_one, with_block};

/// A file that was read.
struct Taken {
    digest: BlobDigest,
    length: u64,
    /// Whether the pool did not have its content.
    new: bool,
}

impl Store {
    /// Adds a copy of a tree or a file from outside the store, and returns its path. A file
    /// becomes the only entry of the object. References to any object of the store count.
    ///
    /// # Errors
    /// [`StoreError::Addition`] for what no object can hold or what changes while it is
    /// read, [`StoreError::Access`], [`StoreError::Database`]. What was brought goes.
    pub fn add_copy(&self, from: &Path, name: &ObjectName) -> Result<StorePath, StoreError> {
        let candidates: BTreeSet<StorePath> = self
            .query("SELECT path FROM objects", [], |row| {
                row.get::<_, String>(0)
            })?
            .iter()
            .map(|base| StorePath::from_base_name(base))
            .collect::<Result<_, _>>()?;
        let _writing = self.writing()?;
        let brought = Mutex::new(Vec::new());
        let added = self.copy_in(from, name, &candidates, &brought);
        if added.is_err() {
            let brought = brought.into_inner().unwrap_or_else(PoisonError::into_inner);
            brought.iter().try_for_each(|blob| remove_if_unused(blob))?;
        }
        added
    }

    fn copy_in(
        &self,
        from: &Path,
        name: &ObjectName,
        candidates: &BTreeSet<StorePath>,
        brought: &Mutex<Vec<PathBuf>>,
    ) -> Result<StorePath, StoreError> {
        let scratch = self.scratch()?;
        let parts = scratch.path().join("parts");
        std::fs::create_dir(&parts)
            .map_err(|source| super::pool::access("create", &parts, source))?;
        let failed = |source| StoreError::Addition {
            name: name.clone(),
            source,
        };
        let wanted = Wanted::new(candidates, []);
        let read = |file: &mut File, executable, search: &mut dyn FnMut(&[u8])| {
            let taken = self.take(file, executable, &parts, search)?;
            if taken.new {
                let blob = self.blob_path(taken.digest, executable);
                brought
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(blob);
            }
            Ok((taken.digest, taken.length))
        };
        let (root, scan) = match (from.is_dir(), from.parent(), from.file_name()) {
            (false, Some(parent), Some(own)) => {
                let parent = if parent == Path::new("") {
                    Path::new(".")
                } else {
                    parent
                };
                let root = TreeRoot::open(parent).map_err(failed)?;
                // A path of the system has no NUL.
                let own = CString::new(own.as_bytes()).unwrap_or_default();
                let scan = scan_one(&root, &own, &wanted, &read).map_err(failed)?;
                (root, scan)
            }
            _ => {
                let root = TreeRoot::open(from).map_err(failed)?;
                let scan = scan_files(&root, &wanted, &read).map_err(failed)?;
                (root, scan)
            }
        };
        crash::point("add: content taken");
        self.enter(&root, scan, name, &scratch.path().join("tree"))
    }

    /// Reads a file, and brings its content into the pool if that does not have it.
    ///
    /// What fits into one block is written from there, while it is in the processor's
    /// cache; a larger file is read again when it is known that the pool lacks it.
    fn take(
        &self,
        file: &mut File,
        executable: bool,
        parts: &Path,
        search: &mut dyn FnMut(&[u8]),
    ) -> io::Result<Taken> {
        let small = with_block(|block| {
            let bytes = read_block(file, block)?;
            if bytes.len() == BLOCK {
                return Ok(None);
            }
            search(bytes);
            let digest = BlobDigest::of(bytes);
            let put = self.put(parts, digest, executable, |to| to.write_all(bytes));
            io::Result::Ok(Some(Taken {
                digest,
                length: bytes.len() as u64,
                new: put.map_err(as_io)?,
            }))
        })?;
        if let Some(taken) = small {
            return Ok(taken);
        }
        file.seek(SeekFrom::Start(0))?;
        let (digest, length) = hash_stream(file, |bytes| {
            search(bytes);
            Ok(())
        })?;
        let put = self.put(parts, digest, executable, |to| {
            file.seek(SeekFrom::Start(0))?;
            let again = hash_stream(file, |bytes| to.write_all(bytes))?;
            if again == (digest, length) {
                return Ok(());
            }
            Err(io::Error::other("its content changed while it was read"))
        });
        Ok(Taken {
            digest,
            length,
            new: put.map_err(as_io)?,
        })
    }

    /// Makes an object of what was taken, unless it is there already.
    fn enter(
        &self,
        root: &TreeRoot,
        scan: Scan,
        name: &ObjectName,
        tree: &Path,
    ) -> Result<StorePath, StoreError> {
        let digest = SelfReferences::new(scan.listing.digest(), Vec::new()).digest();
        let path = StorePath::new(digest, name.clone());
        let mut looking = self.look()?;
        let there = looking.object(&path)?;
        let mut references = scan.references;
        let targets: BTreeSet<StorePath> =
            references.iter().map(|hit| hit.target.clone()).collect();
        for target in targets {
            // Content is no reason to name an object that cannot be named: itself, or one
            // that was removed meanwhile.
            if target == path || !looking.object(&target)? {
                references.retain(|hit| hit.target != target);
            }
        }
        looking.finish()?;
        if there {
            return Ok(path);
        }
        std::fs::create_dir(tree).map_err(|source| super::pool::access("create", tree, source))?;
        self.link_tree(&TreeRoot::open(tree)?, &scan.listing, |at, to| {
            let Some(Entry::File { digest, .. }) = scan.listing.get(at) else {
                return Ok(());
            };
            // Collected since it was brought: once more, from the source.
            copy_checked(&mut root.open_file(at)?, to, *digest)
        })?;
        let plan = ObjectPlan {
            path: path.clone(),
            listing: scan.listing,
            references,
            tree: tree.to_owned(),
            positions: Vec::new(),
            patches: std::collections::BTreeMap::new(),
            sealed: true,
        };
        self.register(std::slice::from_ref(&plan), None)?;
        Ok(path)
    }
}

/// Returns an error of the store with the system's kind, which tells a full disk.
fn as_io(error: StoreError) -> io::Error {
    let kind = match &error {
        StoreError::Access { source, .. } => source.kind(),
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
