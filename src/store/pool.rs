//! The blob pool: one inode for each distinct file, which all objects link to.
//!
//! A file gets its final mode and time before it has a name in the pool, so whatever is
//! there is whole and sealed. Nobody waits for anybody: of two who bring the same
//! content, one finds the name taken and links to it.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::add::ObjectPlan;
use super::blobs::BlobName;
use super::{Store, StoreError, crash};
use crate::hash::{BlobDigest, RelPath};
use crate::listing::{Entry, Listing};
use crate::tree::{TreeRoot, seal};

/// Files of one directory that one thread handles at once.
const CHUNK: usize = 128;

impl Store {
    /// Returns where the pool keeps a file's content.
    pub fn blob_path(&self, digest: BlobDigest, executable: bool) -> PathBuf {
        self.root()
            .join("blobs")
            .join(BlobName::new(digest, executable).as_str())
    }

    /// Rewrites, seals and shares everything in a tree but its own directory.
    pub(super) fn seal(&self, plan: &ObjectPlan) -> Result<(), StoreError> {
        let root = TreeRoot::open(&plan.tree)?;
        seal::unlock_directories(&root, &plan.listing)?;
        for (path, patches) in &plan.patches {
            match plan.listing.get(path) {
                Some(Entry::File { .. }) => seal::patch_file(&root, path, patches)?,
                Some(Entry::Symlink { target }) => seal::replace_symlink(&root, path, target)?,
                Some(Entry::Directory) | None => {}
            }
        }
        crash::point("seal: paths rewritten");
        for_each_entry(&root, &plan.listing, |parent, path, entry| match entry {
            Entry::File {
                digest, executable, ..
            } => self.share(&root, parent, path, *digest, *executable),
            Entry::Symlink { .. } => Ok(seal::seal_symlink(&root, parent, path)?),
            Entry::Directory => Ok(()),
        })?;
        crash::point("seal: files shared");
        seal_directories(&root, &plan.listing)
    }

    /// Makes a tree of links to the pool in an empty directory; `missing` brings a file
    /// whose content the pool does not have.
    pub(super) fn link_tree(
        &self,
        root: &TreeRoot,
        listing: &Listing,
        missing: impl Fn(&RelPath, &Path) -> Result<(), StoreError> + Sync,
    ) -> Result<(), StoreError> {
        for (path, entry) in listing.iter() {
            if matches!(entry, Entry::Directory) {
                let at = root.shown(path);
                std::fs::create_dir(&at).map_err(|source| access("create", &at, source))?;
            }
        }
        for_each_entry(root, listing, |parent, path, entry| match entry {
            Entry::Directory => Ok(()),
            Entry::Symlink { target } => {
                rustix::fs::symlinkat(target.as_str(), parent, path.file_name())
                    .map_err(|errno| access("make the link", &root.shown(path), errno.into()))?;
                Ok(seal::seal_symlink(root, parent, path)?)
            }
            Entry::File {
                digest, executable, ..
            } => {
                let blob = BlobName::new(*digest, *executable);
                match self.blobs.link_out(&blob, parent, path.file_name()) {
                    Ok(()) => Ok(()),
                    Err(Errno::NOENT | Errno::MLINK) => {
                        missing(path, &root.shown(path))?;
                        self.share(root, parent, path, *digest, *executable)
                    }
                    Err(errno) => Err(access("link", &root.shown(path), errno.into())),
                }
            }
        })?;
        crash::point("pool: tree linked");
        seal_directories(root, listing)
    }

    /// Makes a file the pool's copy of its content, or a link to the one that is there.
    fn share(
        &self,
        root: &TreeRoot,
        parent: &OwnedFd,
        path: &RelPath,
        digest: BlobDigest,
        executable: bool,
    ) -> Result<(), StoreError> {
        let blob = BlobName::new(digest, executable);
        let failed = |errno: Errno| access("share the content of", &root.shown(path), errno.into());
        // Several threads may link into one directory at once: the name is the file's own.
        let temporary = || {
            let hash = blake3::hash(path.as_str().as_bytes()).to_hex();
            format!(".kiln-link-{hash}")
        };
        for _ in 0..8 {
            // Most files are new: look before preparing a link.
            if self.blobs.has(&blob) {
                let temporary = temporary();
                match self.blobs.link_out(&blob, parent, &temporary) {
                    Ok(()) => {
                        renameat(parent, temporary.as_str(), parent, path.file_name())
                            .map_err(failed)?;
                        // Renaming one link of an inode over another does nothing at all.
                        return match unlinkat(parent, temporary.as_str(), AtFlags::empty()) {
                            Ok(()) | Err(Errno::NOENT) => Ok(()),
                            Err(errno) => Err(failed(errno)),
                        };
                    }
                    // The file system's limit of links: this file keeps its own copy.
                    Err(Errno::MLINK) => {
                        return Ok(seal::seal_file(root, parent, path, executable)?);
                    }
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(failed(errno)),
                }
            }
            seal::seal_file(root, parent, path, executable)?;
            match self.blobs.link_in(parent, path.file_name(), &blob) {
                Ok(()) => {
                    crash::point("pool: file shared");
                    return Ok(());
                }
                // Another thread or process brought the same content: link to that.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(())
    }

    /// Brings content into the pool if it is not there, and returns whether it was not:
    /// `write` fills a file that has no name there yet.
    pub(super) fn put(
        &self,
        scratch: &Path,
        digest: BlobDigest,
        executable: bool,
        write: impl FnOnce(&mut File) -> std::io::Result<()>,
    ) -> Result<bool, StoreError> {
        let blob = BlobName::new(digest, executable);
        if self.blobs.has(&blob) {
            return Ok(false);
        }
        let temporary = scratch.join(format!("{digest}-{:?}", std::thread::current().id()));
        let failed = |source| access("write", &self.blob_path(digest, executable), source);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(CWD, &temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| failed(errno.into()))?;
        let mut file = File::from(file);
        write(&mut file).map_err(failed)?;
        self.move_in(&file, &temporary, &blob, executable)
    }

    /// Seals a file whose content is known, and makes it the pool's unless that has one;
    /// returns whether it is. The file keeps its own name as well.
    pub(super) fn put_link(
        &self,
        from: &Path,
        digest: BlobDigest,
        executable: bool,
    ) -> Result<bool, StoreError> {
        let failed = |source| access("share the content of", from, source);
        let file = File::open(from).map_err(failed)?;
        seal::seal_open_file(file.as_fd(), executable).map_err(|errno| failed(errno.into()))?;
        let blob = BlobName::new(digest, executable);
        match self.blobs.link_path_in(from, &blob) {
            Ok(()) => {
                crash::point("pool: file linked in");
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(failed(errno.into())),
        }
    }

    /// Seals a file whose content is known and moves it into the pool, or deletes it if
    /// that has one; returns whether it had not.
    fn move_in(
        &self,
        file: &File,
        from: &Path,
        blob: &BlobName,
        executable: bool,
    ) -> Result<bool, StoreError> {
        let failed = |source| access("move into the pool", from, source);
        seal::seal_open_file(file.as_fd(), executable).map_err(|errno| failed(errno.into()))?;
        match self.blobs.move_in(from, blob) {
            Ok(()) => {
                crash::point("pool: file moved in");
                Ok(true)
            }
            Err(Errno::EXIST) => std::fs::remove_file(from).map(|()| false).map_err(failed),
            Err(errno) => Err(failed(errno.into())),
        }
    }
}

/// Runs over the entries of a tree in parallel, with each one's directory open.
fn for_each_entry(
    root: &TreeRoot,
    listing: &Listing,
    run: impl Fn(&OwnedFd, &RelPath, &Entry) -> Result<(), StoreError> + Sync,
) -> Result<(), StoreError> {
    let mut entries: Vec<(&RelPath, &Entry)> = listing
        .iter()
        .filter(|(_, entry)| !matches!(entry, Entry::Directory))
        .collect();
    // Of one directory together: a directory's files are not neighbours in a walk.
    entries.sort_by_key(|(path, _)| path.parent_str());
    let mut chunks: Vec<&[(&RelPath, &Entry)]> = Vec::new();
    for same in entries.chunk_by(|(a, _), (b, _)| a.parent_str() == b.parent_str()) {
        chunks.extend(same.chunks(CHUNK));
    }
    chunks.par_iter().try_for_each(|chunk| {
        let Some((first, _)) = chunk.first() else {
            return Ok(());
        };
        let parent = root.open_parent(first)?;
        chunk
            .iter()
            .try_for_each(|(path, entry)| run(&parent, path, entry))
    })
}

impl Store {
    /// Takes back what trees brought that did not become objects.
    pub(super) fn take_back(&self, plans: &[ObjectPlan]) -> Result<(), StoreError> {
        for plan in plans {
            crate::tree::remove_tree(&plan.tree)?;
        }
        for (_, entry) in plans.iter().flat_map(|plan| plan.listing.iter()) {
            if let Entry::File {
                digest, executable, ..
            } = entry
            {
                remove_if_unused(&self.blob_path(*digest, *executable))?;
            }
        }
        Ok(())
    }
}

/// Removes a file of the pool if no object links to it.
pub(super) fn remove_if_unused(blob: &Path) -> Result<(), StoreError> {
    if !std::fs::symlink_metadata(blob).is_ok_and(|found| found.nlink() == 1) {
        return Ok(());
    }
    match std::fs::remove_file(blob) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| access("remove", blob, source)),
    }
}

fn seal_directories(root: &TreeRoot, listing: &Listing) -> Result<(), StoreError> {
    let directories: Vec<&RelPath> = listing
        .iter()
        .filter(|(_, entry)| matches!(entry, Entry::Directory))
        .map(|(path, _)| path)
        .collect();
    for path in directories.iter().rev() {
        seal::seal_directory(root, path)?;
    }
    Ok(())
}

/// Copies one file's bytes, which must have a digest, to where a link could not be made.
pub(super) fn copy_checked(
    from: &mut impl Read,
    to: &Path,
    digest: BlobDigest,
) -> Result<(), StoreError> {
    let failed = |source| access("copy to", to, source);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .open(to)
        .map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; 1 << 18];
    loop {
        let count = from.read(&mut block).map_err(failed)?;
        let bytes = block.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        hasher.update(bytes);
        file.write_all(bytes).map_err(failed)?;
    }
    if hasher.finalize().as_bytes() == digest.as_bytes() {
        return Ok(());
    }
    Err(failed(std::io::Error::other(
        "its content changed while it was read",
    )))
}

pub(super) fn access(operation: &'static str, path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Access {
        operation,
        path: path.to_owned(),
        source,
    }
}
