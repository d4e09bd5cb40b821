//! Taking in a tree that belongs to somebody else: read once, copied only where the pool
//! does not have the content yet.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::pool::copy_checked;
use super::{ObjectPlan, Store, StoreError, crash};
use crate::hash::object::SelfReferences;
use crate::hash::{BlobDigest, ObjectName, StorePath};
use crate::listing::Entry;
use crate::tree::TreeRoot;
use crate::tree::references::Wanted;
use crate::tree::scan::{Scan, hash_stream, scan_files, with_block};

/// Files up to this size are written from the block that was hashed, so that they are
/// read once; larger ones are read again when it is known that the pool lacks them.
const ONE_BLOCK: u64 = 1 << 20;

impl Store {
    /// Adds a copy of a tree from outside the store, and returns its path. References to
    /// any object of the store count.
    ///
    /// # Errors
    /// [`StoreError::Addition`] for what no object can hold or what changes while it is
    /// read, [`StoreError::Access`], [`StoreError::Database`].
    pub fn add_copy(&self, from: &Path, name: &ObjectName) -> Result<StorePath, StoreError> {
        let candidates: BTreeSet<StorePath> = self
            .query("SELECT path FROM objects", [], |row| {
                row.get::<_, String>(0)
            })?
            .iter()
            .map(|base| StorePath::from_base_name(base))
            .collect::<Result<_, _>>()?;
        let _writing = self.writing()?;
        let scratch = self.scratch()?;
        let parts = scratch.path().join("parts");
        std::fs::create_dir(&parts)
            .map_err(|source| super::pool::access("create", &parts, source))?;
        let failed = |source| StoreError::Addition {
            name: name.clone(),
            source,
        };
        let root = TreeRoot::open(from).map_err(failed)?;
        let wanted = Wanted::new(&candidates, []);
        let scan = scan_files(&root, &wanted, &|file, executable, search| {
            self.take(file, executable, &parts, search)
        })
        .map_err(failed)?;
        crash::point("add: content taken");
        self.enter(&root, scan, name, &scratch.path().join("tree"))
    }

    /// Reads a file, and brings its content into the pool if that does not have it.
    fn take(
        &self,
        file: &mut File,
        executable: bool,
        parts: &Path,
        search: &mut dyn FnMut(&[u8]),
    ) -> io::Result<(BlobDigest, u64)> {
        let length = file.metadata()?.len();
        if length < ONE_BLOCK {
            // Hashed, searched and written while it is in the processor's cache.
            return self.take_small(file, executable, parts, search);
        }
        let (digest, length) = hash_stream(file, |bytes| {
            search(bytes);
            Ok(())
        })?;
        self.put(parts, digest, executable, |to| {
            file.seek(SeekFrom::Start(0))?;
            let again = hash_stream(file, |bytes| to.write_all(bytes))?;
            if again == (digest, length) {
                return Ok(());
            }
            Err(io::Error::other("its content changed while it was read"))
        })
        .map_err(io::Error::other)?;
        Ok((digest, length))
    }

    fn take_small(
        &self,
        file: &mut File,
        executable: bool,
        parts: &Path,
        search: &mut dyn FnMut(&[u8]),
    ) -> io::Result<(BlobDigest, u64)> {
        with_block(|block| {
            block.clear();
            file.take(ONE_BLOCK).read_to_end(block)?;
            if block.len() as u64 == ONE_BLOCK {
                return Err(io::Error::other("it grew while it was read"));
            }
            search(block);
            let digest = BlobDigest::of(block);
            self.put(parts, digest, executable, |to| to.write_all(block))
                .map_err(io::Error::other)?;
            Ok((digest, block.len() as u64))
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
