//! Looking at everything again: is what lies on disk what was recorded?
//!
//! Each inode of the pool is hashed once, however many objects link to it; in the
//! objects only files that are not of the pool are read. Other processes may add and
//! remove objects meanwhile.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::pool::access;
use super::{ObjectInfo, Store, StoreError, crash};
use crate::hash::{BlobDigest, RelPath, Sha256Digest, StorePath};
use crate::listing::Entry;
use crate::tree::scan::{Found, FoundKind, hash_stream, walk};
use crate::tree::{TreeError, TreeRoot, remove_tree};

/// Something on disk that is not as recorded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damage {
    /// The object.
    pub object: StorePath,
    /// The entry, empty for the object itself.
    pub path: String,
    /// What is wrong, in words.
    pub problem: String,
}

/// What the pool holds.
#[derive(Debug, Default)]
pub struct Pool {
    /// Sound files by inode, sorted.
    sound: Vec<(u64, BlobDigest)>,
    /// Files whose content, mode or name is wrong, and what is wrong; sorted.
    pub damaged: Vec<(PathBuf, String)>,
    /// Files that no object links to; sorted.
    pub unused: Vec<PathBuf>,
}

impl Pool {
    fn find(&self, inode: u64) -> Option<BlobDigest> {
        let place = self
            .sound
            .binary_search_by_key(&inode, |(inode, _)| *inode)
            .ok()?;
        self.sound.get(place).map(|(_, digest)| *digest)
    }
}

/// One file of the pool, as it was found.
enum Blob {
    Sound(u64, BlobDigest),
    Damaged(PathBuf, String),
    Unused(PathBuf),
}

impl Store {
    /// Hashes every file of the pool.
    ///
    /// `progress` is called with the bytes of each file.
    ///
    /// # Errors
    /// [`StoreError::Access`] when the pool cannot be read at all.
    pub fn verify_pool(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Pool, StoreError> {
        let (shards, strays): (Vec<PathBuf>, Vec<PathBuf>) = entries(&self.root().join("blobs"))?
            .into_iter()
            .partition(|path| path.is_dir());
        let files: Vec<PathBuf> = shards
            .par_iter()
            .map(|shard| entries(shard))
            .chain([Ok(strays)])
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect();
        Ok(verify_blobs(files, progress))
    }

    /// Compares objects with what is recorded, in parallel, and returns every difference,
    /// sorted.
    ///
    /// `progress` is called after each object.
    ///
    /// # Errors
    /// [`StoreError`] when the database or a directory cannot be read at all.
    pub fn verify(
        &self,
        objects: &[ObjectInfo],
        pool: &Pool,
        progress: &(dyn Fn() + Sync),
    ) -> Result<Vec<Damage>, StoreError> {
        let mut damage: Vec<Damage> = objects
            .par_iter()
            .map(|object| {
                let mut found = self.verify_object(object, pool)?;
                // What is being removed meanwhile is not damaged.
                if !found.is_empty() {
                    let _looking = self.looking()?;
                    if self.object(&object.path)?.is_none() {
                        found.clear();
                    }
                }
                progress();
                Ok(found)
            })
            .collect::<Result<Vec<_>, StoreError>>()?
            .into_iter()
            .flatten()
            .collect();
        damage.sort();
        Ok(damage)
    }

    /// Hashes every cached layer, and returns those that are damaged, sorted.
    ///
    /// # Errors
    /// [`StoreError::Access`] when their directory cannot be read.
    pub fn verify_layers(&self) -> Result<Vec<(PathBuf, String)>, StoreError> {
        let directory = self.images().join("blobs");
        if !directory.exists() {
            return Ok(Vec::new());
        }
        let mut damaged: Vec<(PathBuf, String)> = entries(&directory)?
            .into_par_iter()
            .filter_map(|path| {
                // Others are being written.
                let wanted: Sha256Digest = path.file_name()?.to_str()?.parse().ok()?;
                let problem = match sha256_of(&path) {
                    Ok(actual) if actual == wanted => return None,
                    Ok(actual) => format!("has the content of {actual}"),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
                    Err(error) => format!("cannot be read ({error})"),
                };
                Some((path, problem))
            })
            .collect();
        damaged.sort();
        Ok(damaged)
    }

    /// Has the database checked by itself, and returns what is wrong with it, in words.
    ///
    /// # Errors
    /// [`StoreError::Database`] when it is too damaged for that.
    pub fn verify_database(&self) -> Result<Vec<String>, StoreError> {
        let mut problems: Vec<String> =
            self.query("PRAGMA integrity_check(100)", [], |row| row.get(0))?;
        problems.retain(|problem| problem != "ok");
        problems.extend(self.query("PRAGMA foreign_key_check", [], |row| {
            let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
            Ok(format!("a row of `{table}` names none of `{parent}`"))
        })?);
        problems.sort();
        problems.dedup();
        Ok(problems)
    }

    /// Returns entries of the store's directory that no row explains.
    ///
    /// # Errors
    /// [`StoreError::Access`] when the directory cannot be read.
    pub fn unrecorded(&self) -> Result<Vec<String>, StoreError> {
        let _looking = self.looking()?;
        let known: BTreeSet<String> = self
            .query("SELECT path FROM objects", [], |row| row.get(0))?
            .into_iter()
            .collect();
        let mut names: Vec<String> = entries(&self.root().join("store"))?
            .iter()
            .filter_map(|path| path.file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .filter(|name| !known.contains(name))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Removes entries of the store's directory that no row explains.
    ///
    /// # Errors
    /// [`StoreError`] when one cannot be removed.
    pub fn remove_unrecorded(&self, names: &[String]) -> Result<(), StoreError> {
        let _changing = self.changing()?;
        for name in names {
            let recorded = match StorePath::from_base_name(name) {
                Ok(path) => self.object(&path)?.is_some(),
                Err(_) => false,
            };
            if !recorded {
                remove_tree(&self.root().join("store").join(name))?;
                crash::point("unrecorded: tree removed");
            }
        }
        Ok(())
    }

    /// Removes damaged files of the pool or of the cached layers, so that sound ones can
    /// come.
    ///
    /// # Errors
    /// [`StoreError::Tree`] when one cannot be removed.
    pub fn remove_files(&self, paths: &[PathBuf]) -> Result<(), StoreError> {
        for path in paths {
            remove_tree(path)?;
            crash::point("pool: damaged file removed");
        }
        Ok(())
    }

    fn verify_object(&self, object: &ObjectInfo, pool: &Pool) -> Result<Vec<Damage>, StoreError> {
        let damage = |path: String, problem: String| Damage {
            object: object.path.clone(),
            path,
            problem,
        };
        let whole = |problem: String| Ok(vec![damage(String::new(), problem)]);
        let recorded = match self.listing(&object.path) {
            Ok(recorded) => recorded,
            Err(StoreError::Unknown(_)) => return Ok(Vec::new()),
            Err(StoreError::Listing { source, .. }) => {
                return whole(format!("has a damaged listing ({source})"));
            }
            Err(other) => return Err(other),
        };
        let host = self.host_path(&object.path);
        let root = match TreeRoot::open(&host) {
            Ok(root) => root,
            Err(TreeError::Access { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                return whole("is missing".to_owned());
            }
            Err(other) => return whole(other.to_string()),
        };
        let found = match walk(&root) {
            Ok(found) => found,
            Err(TreeError::Access { source, path, .. }) => {
                return whole(format!("cannot be read ({}: {source})", path.display()));
            }
            Err(other) => return whole(other.to_string()),
        };
        let mut all = Vec::new();
        let mut missing: BTreeSet<&RelPath> = recorded.iter().map(|(path, _)| path).collect();
        for (path, found) in &found {
            missing.remove(path);
            let problems = match recorded.get(path) {
                None => vec!["is not part of the object".to_owned()],
                Some(entry) => differences(&root, path, entry, found, pool),
            };
            let problems = problems.into_iter();
            all.extend(problems.map(|problem| damage(path.to_string(), problem)));
        }
        all.extend(
            missing
                .into_iter()
                .map(|path| damage(path.to_string(), "is missing".to_owned())),
        );
        all.extend(wrong_root(&host).map(|problem| damage(String::new(), problem)));
        Ok(all)
    }
}

fn wrong_root(host: &Path) -> Option<String> {
    let mode = std::fs::symlink_metadata(host).ok()?.mode() & 0o7777;
    wrong_mode(mode, 0o555)
}

fn wrong_mode(mode: u32, wanted: u32) -> Option<String> {
    (mode != wanted).then(|| format!("has mode {mode:04o} instead of {wanted:04o}"))
}

fn wrong_time(mtime: i64) -> Option<String> {
    (mtime != 1).then(|| format!("has modification time {mtime} instead of 1"))
}

/// Returns what is wrong with an entry, in words.
fn differences(
    root: &TreeRoot,
    path: &RelPath,
    recorded: &Entry,
    found: &Found,
    pool: &Pool,
) -> Vec<String> {
    match (recorded, &found.kind) {
        (Entry::Directory, FoundKind::Directory) => {
            wrong_mode(found.mode, 0o555).into_iter().collect()
        }
        (Entry::Symlink { target }, FoundKind::Symlink(other)) if target == other => Vec::new(),
        (Entry::Symlink { target }, FoundKind::Symlink(other)) => {
            vec![format!("points to `{other}` instead of `{target}`")]
        }
        (
            Entry::File {
                digest,
                size_bytes,
                executable,
            },
            FoundKind::File(length),
        ) => {
            let content = if size_bytes == length {
                wrong_content(root, path, *digest, found, pool)
            } else {
                Some(format!("has {length} bytes instead of {size_bytes}"))
            };
            // Who writes into a file changes its time as well.
            let time = if content.is_none() {
                wrong_time(found.mtime)
            } else {
                None
            };
            let mode = wrong_mode(found.mode, if *executable { 0o555 } else { 0o444 });
            content.into_iter().chain(time).chain(mode).collect()
        }
        _ => vec!["is of another kind".to_owned()],
    }
}

fn wrong_content(
    root: &TreeRoot,
    path: &RelPath,
    digest: BlobDigest,
    found: &Found,
    pool: &Pool,
) -> Option<String> {
    // An inode may have become another file since the pool was read.
    if pool.find(found.inode) == Some(digest) {
        return None;
    }
    let actual = match hash_of(root, path) {
        Ok(actual) => actual,
        Err(problem) => return Some(problem),
    };
    (actual != digest).then(|| format!("has digest {actual} instead of {digest}"))
}

fn sha256_of(path: &Path) -> std::io::Result<Sha256Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 18];
    loop {
        let count = file.read(&mut block)?;
        if count == 0 {
            return Ok(Sha256Digest::from_bytes(hasher.finalize().into()));
        }
        hasher.update(block.get(..count).unwrap_or(&block));
    }
}

pub(super) fn hash_of(root: &TreeRoot, path: &RelPath) -> Result<BlobDigest, String> {
    let mut file = root.open_file(path).map_err(|error| error.to_string())?;
    hash_stream(&mut file, |_| Ok(()))
        .map(|(digest, _)| digest)
        .map_err(|error| format!("cannot be read ({error})"))
}

/// Hashes files of the pool; one that is not there is nothing.
pub(super) fn verify_blobs(files: Vec<PathBuf>, progress: &(dyn Fn(u64) + Sync)) -> Pool {
    let blobs: Vec<Blob> = files
        .into_par_iter()
        .flat_map_iter(|path| verify_blob(path, progress))
        .collect();
    let mut pool = Pool::default();
    for blob in blobs {
        match blob {
            Blob::Sound(inode, digest) => pool.sound.push((inode, digest)),
            Blob::Damaged(path, problem) => pool.damaged.push((path, problem)),
            Blob::Unused(path) => pool.unused.push(path),
        }
    }
    pool.sound.sort_unstable_by_key(|(inode, _)| *inode);
    pool.damaged.sort();
    pool.unused.sort();
    pool
}

/// Looks at one file of the pool; one that is gone by now is nothing.
fn verify_blob(path: PathBuf, progress: &(dyn Fn(u64) + Sync)) -> Vec<Blob> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let (text, executable) = match name.strip_suffix('x') {
        Some(text) => (text, true),
        None => (name.as_str(), false),
    };
    let Ok(wanted) = text.parse::<BlobDigest>() else {
        return vec![Blob::Damaged(
            path,
            "is not named after a digest".to_owned(),
        )];
    };
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return vec![Blob::Damaged(path, format!("cannot be read ({error})"))],
        Ok(file) => file,
    };
    let metadata = match file.metadata() {
        Ok(metadata) if metadata.is_file() => metadata,
        _ => return vec![Blob::Damaged(path, "is not a file".to_owned())],
    };
    let (actual, length) = match hash_stream(&mut file, |_| Ok(())) {
        Ok(hashed) => hashed,
        Err(error) => return vec![Blob::Damaged(path, format!("cannot be read ({error})"))],
    };
    progress(length);
    if actual != wanted {
        return vec![Blob::Damaged(path, format!("has the content of {actual}"))];
    }
    let mut blobs = vec![Blob::Sound(metadata.ino(), actual)];
    let mode = if executable { 0o555 } else { 0o444 };
    let mode = wrong_mode(metadata.mode() & 0o7777, mode);
    if let Some(problem) = mode.or_else(|| wrong_time(metadata.mtime())) {
        blobs.push(Blob::Damaged(path.clone(), problem));
    }
    if metadata.nlink() == 1 {
        blobs.push(Blob::Unused(path));
    }
    blobs
}

/// Returns what a directory holds.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |source| access("read the directory", directory, source);
    std::fs::read_dir(directory)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
        .collect()
}
