//! Objects with all they need as one stream of bytes, and back.
//!
//! ```text
//! "kiln-export-v1\n"
//! for each object, what it names before it:
//!   1                                     one byte
//!   length, base name                     u16 and text
//!   count, then length and base name each u32 and u16 and text: what it names, sorted
//!   digest                                32 bytes: its tree
//!   length, directories                   u64 and the messages, each after its u32 length
//!   bytes of each file of the tree in the order of a sorted walk, except of content that
//!   came before in the stream
//! 0, then BLAKE3 of all that came before  one byte and 32 bytes
//! ```
//!
//! Numbers stand least significant byte first. A reader believes nothing: content is
//! hashed on arrival, names are made anew from what arrived, references are looked for
//! again, to what is said and to all that came before. Nothing enters the store before
//! the stream's end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, linkat};
use rustix::io::Errno;

use super::add::{Addition, plan_wanted};
use super::pool::{access, copy_checked, remove_if_unused};
use super::{ObjectPlan, Scratch, Store, StoreError, crash};
use crate::hash::{BlobDigest, RelPath, StorePath, TreeDigest};
use crate::listing::{Entry, Listing};
use crate::tree::references::digest_text;
use crate::tree::{TreeRoot, Wanted, scan};

const MAGIC: &[u8] = b"kiln-export-v1\n";

/// Longest base name: a digest, `-` and a name.
const MAX_NAME: usize = 256;
/// Most objects that one object names, and most objects of a stream.
const MAX_OBJECTS: usize = 1 << 20;
/// Longest directory messages of one object, in bytes.
const MAX_MESSAGES: u64 = 128 << 20;
/// Most entries of one object: far above any real package.
const MAX_ENTRIES: usize = 1 << 19;

/// A stream that is not what [`Store::export`] writes.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It cannot be read or written.
    #[error("the stream broke off after {at} bytes")]
    Broken {
        /// Bytes before the failure.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("the stream is wrong at byte {at}: {problem}")]
    Wrong {
        /// Bytes before the place.
        at: u64,
        /// What is wrong.
        problem: String,
    },
}

/// Counts and hashes what passes.
struct Counted<T> {
    inner: T,
    hasher: blake3::Hasher,
    at: u64,
}

impl<T> Counted<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hasher: blake3::Hasher::new(),
            at: 0,
        }
    }

    fn broken(&self, source: io::Error) -> StoreError {
        let source = match source.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(source.kind(), "it ends too early"),
            _ => source,
        };
        StreamError::Broken {
            at: self.at,
            source,
        }
        .into()
    }

    fn wrong(&self, problem: impl Into<String>) -> StoreError {
        StreamError::Wrong {
            at: self.at,
            problem: problem.into(),
        }
        .into()
    }
}

impl<T: Write> Counted<T> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner
            .write_all(bytes)
            .map_err(|source| self.broken(source))?;
        self.hasher.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn put_name(&mut self, path: &StorePath) -> Result<(), StoreError> {
        let name = path.base_name();
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.put(&length.to_le_bytes())?;
        self.put(name.as_bytes())
    }
}

impl<T: Read> Read for Counted<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.at += count as u64;
        Ok(count)
    }
}

impl<T: Read> Counted<T> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)
            .map_err(|source| self.broken(source))?;
        Ok(bytes)
    }

    /// Reads so many bytes, without believing that so many come.
    fn take_bytes(&mut self, length: u64) -> Result<Vec<u8>, StoreError> {
        let bytes = self.take_bytes_at_most(length)?;
        if bytes.len() as u64 == length {
            return Ok(bytes);
        }
        Err(self.broken(io::ErrorKind::UnexpectedEof.into()))
    }

    fn take_bytes_at_most(&mut self, length: u64) -> Result<Vec<u8>, StoreError> {
        let mut bytes = Vec::new();
        Read::take(&mut *self, length)
            .read_to_end(&mut bytes)
            .map_err(|source| self.broken(source))?;
        Ok(bytes)
    }

    fn take_name(&mut self) -> Result<StorePath, StoreError> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        if length > MAX_NAME {
            return Err(self.wrong(format!("a name of {length} bytes")));
        }
        let bytes = self.take_bytes(length as u64)?;
        let text = String::from_utf8_lossy(&bytes);
        StorePath::from_base_name(&text)
            .map_err(|error| self.wrong(format!("`{text}` is no object's name ({error})")))
    }
}

impl Store {
    /// Writes objects and all they need.
    ///
    /// # Errors
    /// [`StoreError::Stream`] when writing fails, [`StoreError::Unknown`],
    /// [`StoreError::Access`]; also when a file is not what is recorded.
    pub fn export(&self, starts: &[StorePath], to: impl Write) -> Result<usize, StoreError> {
        let mut looking = self.look()?;
        for start in starts {
            if !looking.object(start)? {
                return Err(StoreError::Unknown(start.clone()));
            }
        }
        looking.finish()?;
        let mut to = Counted::new(to);
        let mut sent: BTreeSet<BlobDigest> = BTreeSet::new();
        to.put(MAGIC)?;
        let closure = self.closure_in_order(starts)?;
        for path in &closure {
            self.export_object(path, &mut to, &mut sent)?;
        }
        to.put(&[0])?;
        let digest = *to.hasher.finalize().as_bytes();
        to.put(&digest)?;
        to.inner.flush().map_err(|source| to.broken(source))?;
        Ok(closure.len())
    }

    fn export_object(
        &self,
        path: &StorePath,
        to: &mut Counted<impl Write>,
        sent: &mut BTreeSet<BlobDigest>,
    ) -> Result<(), StoreError> {
        let listing = self.listing(path)?;
        let named: BTreeSet<StorePath> = self
            .references(path)?
            .into_iter()
            .map(|reference| reference.target)
            .collect();
        to.put(&[1])?;
        to.put_name(path)?;
        let count = u32::try_from(named.len()).unwrap_or(u32::MAX);
        to.put(&count.to_le_bytes())?;
        for target in &named {
            to.put_name(target)?;
        }
        let encoded = listing.encode();
        to.put(encoded.root.digest.as_bytes())?;
        let messages = encoded.to_bytes();
        to.put(&(messages.len() as u64).to_le_bytes())?;
        to.put(&messages)?;
        let root = TreeRoot::open(&self.host_path(path))?;
        for (at, entry) in listing.iter() {
            let Entry::File { digest, .. } = entry else {
                continue;
            };
            if !sent.insert(*digest) {
                continue;
            }
            let mut file = root.open_file(at)?;
            let mut failure = None;
            let hashed = scan::hash_stream(&mut file, |bytes| {
                to.put(bytes).map_err(|error| {
                    failure = Some(error);
                    io::ErrorKind::Other.into()
                })
            });
            if let Some(error) = failure {
                return Err(error);
            }
            let (found, _) = hashed.map_err(|source| access("read", &root.shown(at), source))?;
            if found != *digest {
                let problem = io::Error::other("it is damaged: `kiln store verify` tells more");
                return Err(access("export", &root.shown(at), problem));
            }
        }
        Ok(())
    }

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
