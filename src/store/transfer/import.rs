//! Reading the stream: nothing in it is believed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, linkat};
use rustix::io::Errno;

use super::{Counted, MAGIC, MAX_ENTRIES, MAX_MESSAGES, MAX_OBJECTS, StreamError};
use crate::hash::{BlobDigest, RelPath, StorePath, TreeDigest};
use crate::listing::{Entry, Listing};
use crate::store::add::{Addition, plan_wanted};
use crate::store::pool::{access, copy_checked, remove_if_unused};
use crate::store::{ObjectPlan, Scratch, Store, StoreError, crash};
use crate::tree::references::digest_text;
use crate::tree::{TreeRoot, Wanted, scan};

impl Store {
    /// Takes in what [`Store::export`] wrote; returns the objects that were not there
    /// before, in the stream's order.
    ///
    /// # Errors
    /// [`StoreError::Stream`] for anything that is not as it says; the store is as before.
    pub fn import(&self, from: impl Read) -> Result<Vec<StorePath>, StoreError> {
        let _writing = self.writing()?;
        let mut import = Import {
            store: self,
            from: Counted::new(from),
            scratch: self.scratch()?,
            brought: Vec::new(),
            known: BTreeMap::new(),
            wanted: Wanted::default(),
            plans: Vec::new(),
        };
        let result = import
            .read_all()
            .and_then(|()| self.register(&import.plans, None));
        match result {
            Ok(()) => Ok(import.plans.into_iter().map(|plan| plan.path).collect()),
            Err(error) => {
                let plans = std::mem::take(&mut import.plans);
                import.forget(plans)?;
                Err(error)
            }
        }
    }
}

struct Import<'a, R> {
    store: &'a Store,
    from: Counted<R>,
    scratch: Scratch,
    /// Files that this import brought into the pool.
    brought: Vec<PathBuf>,
    /// Content that came, and a file of the working directory that has it: what no object
    /// has yet may be swept from the pool at any time.
    known: BTreeMap<BlobDigest, PathBuf>,
    /// What an object of the stream may name.
    wanted: Wanted,
    plans: Vec<ObjectPlan>,
}

impl<R: Read> Import<'_, R> {
    fn read_all(&mut self) -> Result<(), StoreError> {
        let magic: [u8; MAGIC.len()] = self.from.array()?;
        if magic != MAGIC {
            return Err(self
                .from
                .wrong("it does not begin as `kiln store export` begins"));
        }
        let mut seen: BTreeSet<StorePath> = BTreeSet::new();
        loop {
            match self.from.array()? {
                [1] if seen.len() >= MAX_OBJECTS => {
                    return Err(self.from.wrong("more than a million objects"));
                }
                [1] => {
                    let path = self.read_object(&seen)?;
                    crash::point("import: object read");
                    seen.insert(path);
                }
                [0] => {
                    let wanted = *self.from.hasher.finalize().as_bytes();
                    if self.from.array()? != wanted {
                        return Err(self.from.wrong("the digest of the whole is another"));
                    }
                    if !self.from.take_bytes_at_most(1)?.is_empty() {
                        return Err(self.from.wrong("something follows its end"));
                    }
                    return Ok(());
                }
                [other] => {
                    return Err(self.from.wrong(format!("byte {other} begins nothing")));
                }
            }
        }
    }

    fn read_object(&mut self, seen: &BTreeSet<StorePath>) -> Result<StorePath, StoreError> {
        let path = self.from.take_name()?;
        if seen.contains(&path) {
            return Err(self.from.wrong(format!("`{path}` comes twice")));
        }
        let count = u32::from_le_bytes(self.from.array()?) as usize;
        if count > MAX_OBJECTS {
            return Err(self.from.wrong(format!("`{path}` names {count} objects")));
        }
        let mut looking = self.store.look()?;
        let mut named = BTreeSet::new();
        for _ in 0..count {
            let target = self.from.take_name()?;
            if !seen.contains(&target) && !looking.object(&target)? {
                return Err(self.from.wrong(format!(
                    "`{path}` needs `{target}`, which is neither before it nor in the store"
                )));
            }
            if named.last().is_some_and(|last| *last >= target) {
                return Err(self
                    .from
                    .wrong(format!("what `{path}` names is not sorted")));
            }
            named.insert(target);
        }
        let there = looking.object(&path)?;
        looking.finish()?;
        let listing = self.read_listing(&path)?;
        for (at, entry) in listing.iter() {
            if let Entry::File {
                digest,
                size_bytes,
                executable,
            } = entry
            {
                self.read_file(*digest, *size_bytes, *executable)
                    .map_err(|error| match error {
                        StoreError::Stream(StreamError::Wrong { at: byte, problem }) => {
                            StreamError::Wrong {
                                at: byte,
                                problem: format!("`{path}/{at}` {problem}"),
                            }
                            .into()
                        }
                        other => other,
                    })?;
            }
        }
        if !there {
            let plan = self.plan(&path, &listing, &named)?;
            self.plans.push(plan);
        }
        self.may_name(&path);
        Ok(path)
    }

    fn may_name(&mut self, path: &StorePath) {
        let text = digest_text(path);
        self.wanted.candidates.insert(text, path.clone());
    }

    fn read_listing(&mut self, path: &StorePath) -> Result<Listing, StoreError> {
        let tree = TreeDigest::from_bytes(self.from.array()?);
        let length = u64::from_le_bytes(self.from.array()?);
        if length > MAX_MESSAGES {
            return Err(self
                .from
                .wrong(format!("the directories of `{path}` have {length} bytes")));
        }
        let messages = self.from.take_bytes(length)?;
        let listing =
            Listing::from_bytes_bounded(tree, &messages, MAX_ENTRIES).map_err(|error| {
                let mut text = error.to_string();
                if let Some(cause) = std::error::Error::source(&error) {
                    text.push_str(&format!(" ({cause})"));
                }
                self.from.wrong(format!("`{path}`: {text}"))
            })?;
        // What is accepted is written again as the same bytes.
        let encoded = listing.encode();
        if encoded.root.digest != tree || encoded.to_bytes() != messages {
            return Err(self.from.wrong(format!(
                "the directories of `{path}` are not in their one form"
            )));
        }
        Ok(listing)
    }

    /// Brings one file's content into the pool, from the stream or from what came before.
    fn read_file(
        &mut self,
        digest: BlobDigest,
        size_bytes: u64,
        executable: bool,
    ) -> Result<(), StoreError> {
        let blob = self.store.blob_path(digest, executable);
        let parts = self.scratch.path().to_owned();
        if let Some(known) = self.known.get(&digest) {
            if !blob.exists() {
                let mut file = File::open(known).map_err(|source| access("read", known, source))?;
                self.store.put(&parts, digest, executable, |to| {
                    io::copy(&mut file, to).map(drop)
                })?;
                self.brought.push(blob);
            }
            return Ok(());
        }
        let arriving = parts.join("arriving");
        let failed = |source| access("write", &blob, source);
        let mut to = File::create(&arriving).map_err(failed)?;
        let mut limited = Read::take(&mut self.from, size_bytes);
        let mut full = None;
        let arrived = scan::hash_stream(&mut limited, |bytes| {
            to.write_all(bytes).map_err(|error| {
                let kind = error.kind();
                full = Some(error);
                kind.into()
            })
        });
        let (found, length) = match (arrived, full) {
            (Ok(arrived), _) => arrived,
            (Err(_), Some(source)) => return Err(failed(source)),
            (Err(source), None) => return Err(self.from.broken(source)),
        };
        if length != size_bytes {
            return Err(self.from.broken(io::ErrorKind::UnexpectedEof.into()));
        }
        if found != digest {
            return Err(self
                .from
                .wrong(format!("has digest {found}, and is said to have {digest}")));
        }
        let kept = parts.join(digest.to_string());
        match linkat(CWD, &blob, CWD, &kept, AtFlags::empty()) {
            Ok(()) => {}
            // New, or the file system's limit of links.
            Err(Errno::NOENT | Errno::MLINK) => {
                std::fs::rename(&arriving, &kept)
                    .map_err(|source| access("keep", &kept, source))?;
                if self.store.put_link(&kept, digest, executable)? {
                    self.brought.push(blob);
                }
            }
            Err(errno) => return Err(access("link", &kept, errno.into())),
        }
        self.known.insert(digest, kept);
        Ok(())
    }

    /// Makes the tree, and names it from what it holds.
    fn plan(
        &mut self,
        path: &StorePath,
        listing: &Listing,
        named: &BTreeSet<StorePath>,
    ) -> Result<ObjectPlan, StoreError> {
        let tree = self.scratch.path().join(self.plans.len().to_string());
        std::fs::create_dir(&tree).map_err(|source| access("create", &tree, source))?;
        let known = &self.known;
        self.store
            .link_tree(&TreeRoot::open(&tree)?, listing, |at, to| {
                bring_again(known, listing, at, to)
            })?;
        let addition = Addition {
            tree: tree.clone(),
            name: path.name().clone(),
            scratch: Some(path.clone()),
        };
        // Of two with the same content the one that is said counts.
        named.iter().for_each(|target| self.may_name(target));
        self.wanted.scratch = BTreeMap::from([(digest_text(path), path.clone())]);
        let mut plans = plan_wanted(std::slice::from_ref(&addition), &self.wanted)?;
        let found = plans.pop().filter(|plan| plan.path == *path);
        let Some(found) = found else {
            return Err(self
                .from
                .wrong(format!("what came as `{path}` has another name")));
        };
        let targets: BTreeSet<StorePath> = found
            .references
            .iter()
            .map(|hit| hit.target.clone())
            .collect();
        if !targets.is_superset(named) {
            return Err(self
                .from
                .wrong(format!("`{path}` does not name what it is said to name")));
        }
        Ok(ObjectPlan {
            sealed: true,
            patches: BTreeMap::new(),
            ..found
        })
    }

    /// Takes back what was brought into the pool.
    fn forget(&self, plans: Vec<ObjectPlan>) -> Result<(), StoreError> {
        for plan in plans {
            crate::tree::remove_tree(&plan.tree)?;
        }
        crate::tree::remove_tree(self.scratch.path())?;
        crash::point("import: trees taken back");
        for blob in &self.brought {
            remove_if_unused(blob)?;
        }
        Ok(())
    }
}

/// Copies content that came before and is no longer in the pool under its name.
fn bring_again(
    known: &BTreeMap<BlobDigest, PathBuf>,
    listing: &Listing,
    at: &RelPath,
    to: &Path,
) -> Result<(), StoreError> {
    let Some(Entry::File { digest, .. }) = listing.get(at) else {
        return Ok(());
    };
    let known = known
        .get(digest)
        .ok_or_else(|| access("link", to, io::ErrorKind::NotFound.into()))?;
    let mut file = File::open(known).map_err(|source| access("read", known, source))?;
    copy_checked(&mut file, to, *digest)
}
