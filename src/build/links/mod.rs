//! The linker's own record of every program.
//!
//! A static program carries code without naming where it comes from, so what was linked
//! into it is asked of the linker. In front of the compiler's linker stands a script
//! (`ld` beside this file): it calls the very linker that would have been called, with a
//! map in addition, and keeps the map and a copy of the result in a directory outside the
//! outputs. The linker's result is the same with and without. When the build has ended,
//! each program in its outputs is matched with a result, by what of both is loaded into
//! memory, so that stripping a program or moving it does no harm; and what the map names
//! is looked up in the objects that the build could see.
//!
//! It is a record and no proof: it comes from the build, and a build that lies about its
//! outputs can lie about this. Only files that are really there are taken from it.

mod map;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use goblin::elf::Elf;
use goblin::elf::header::{ET_DYN, ET_EXEC};
use goblin::elf::program_header::PT_LOAD;
use kiln_sandbox::{Access, Node};

use super::BuildError;
use crate::hash::{BlobDigest, OutputName, RelPath, STORE_PREFIX, StorePath};
use crate::listing::link::{Link, LinkInput};
use crate::listing::{Entry, Listing};
use crate::store::{ObjectPlan, Store, StoreError};
use crate::tree::TreeRoot;

/// Where the script stands; compilers look there first for what they call.
pub(super) const DIRECTORY: &str = "/kiln/link";

/// Where it puts what it keeps.
const RECORDS: &str = "/kiln/links";

/// The variable by which compilers find it (GCC's manual, "Environment Variables").
pub(super) const VARIABLE: &str = "COMPILER_PATH";

const SCRIPT: &str = include_str!("ld");

/// Most records of one build that are looked at.
const MAX_RECORDS: usize = 1 << 16;

/// Largest map, and largest program, that are looked at, in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// Links that are followed in one path.
const MAX_LINKS: usize = 40;

/// What linkers took, by output and file.
pub type Links = BTreeMap<(OutputName, RelPath), Link>;

/// Returns where a build's records lie.
pub(super) fn directory(work: &Path) -> PathBuf {
    work.join("links")
}

/// Returns what a build sees of the script and its directory.
pub(super) fn nodes(work: &Path) -> [Node; 2] {
    [
        Node::File {
            path: format!("{DIRECTORY}/ld"),
            content: SCRIPT.as_bytes().to_vec(),
            executable: true,
        },
        Node::Bind {
            path: RECORDS.to_owned(),
            source: directory(work),
            access: Access::ReadWrite,
        },
    ]
}

/// Returns what linkers took into the programs of a build's outputs. Every process of the
/// build must have ended.
pub(super) fn collect(
    store: &Store,
    work: &Path,
    (root, visible): (&StorePath, &BTreeSet<StorePath>),
    outputs: &BTreeMap<OutputName, ObjectPlan>,
) -> Result<Links, BuildError> {
    let records = TreeRoot::open(&directory(work)).map_err(StoreError::from)?;
    let mut results: BTreeMap<BlobDigest, Vec<RelPath>> = BTreeMap::new();
    for path in names(&records)? {
        let Some(stem) = path.as_str().strip_suffix(".out") else {
            continue;
        };
        if let (Some(digest), Ok(stem)) = (loaded(&records, &path), stem.parse()) {
            results.entry(digest).or_default().push(stem);
        }
    }
    let mut links = Links::new();
    if results.is_empty() {
        return Ok(links);
    }
    let mut sight = Sight {
        store,
        root,
        visible,
        listings: BTreeMap::new(),
    };
    for (output, plan) in outputs {
        let tree = TreeRoot::open(plan.tree()).map_err(StoreError::from)?;
        for (path, entry) in plan.listing.iter() {
            if !matches!(entry, Entry::File { .. }) {
                continue;
            }
            let found = loaded(&tree, path).and_then(|digest| results.get(&digest));
            if let Some(stems) = found {
                let link = sight.link(&records, stems)?;
                links.insert((output.clone(), path.clone()), link);
            }
        }
    }
    Ok(links)
}

/// Returns the names in the directory of records, sorted.
fn names(records: &TreeRoot) -> Result<Vec<RelPath>, BuildError> {
    let failed = |source| BuildError::Access {
        operation: "read",
        path: records.path().to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(records.path())
        .map_err(failed)?
        .take(MAX_RECORDS)
    {
        let name = entry.map_err(failed)?.file_name();
        if let Some(name) = name.to_str().and_then(|name| name.parse().ok()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Reads a file that a build left; what is no regular file, or too large, counts as none.
fn read(tree: &TreeRoot, path: &RelPath) -> Option<Vec<u8>> {
    let file = tree.open_file(path).ok()?;
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Returns the digest of what of a program is loaded into memory, without what of its
/// header tells where sections stand in the file.
fn loaded(tree: &TreeRoot, path: &RelPath) -> Option<BlobDigest> {
    let mut magic = [0; 4];
    tree.open_file(path).ok()?.read_exact(&mut magic).ok()?;
    if &magic != b"\x7fELF" {
        return None;
    }
    loaded_parts(read(tree, path)?)
}

fn loaded_parts(mut bytes: Vec<u8>) -> Option<BlobDigest> {
    let elf = Elf::parse(&bytes).ok()?;
    if ![ET_EXEC, ET_DYN].contains(&elf.header.e_type) || !elf.is_64 {
        return None;
    }
    let mut parts = Vec::new();
    for segment in &elf.program_headers {
        if segment.p_type == PT_LOAD {
            let start = usize::try_from(segment.p_offset).ok()?;
            let end = start.checked_add(usize::try_from(segment.p_filesz).ok()?)?;
            parts.push((
                segment.p_vaddr,
                segment.p_memsz,
                segment.p_flags,
                start..end,
            ));
        }
    }
    drop(elf);
    // `e_shoff`, and `e_shnum` with `e_shstrndx` (elf(5)).
    bytes.get_mut(0x28..0x30)?.fill(0);
    bytes.get_mut(0x3c..0x40)?.fill(0);
    let mut hasher = blake3::Hasher::new();
    for (address, size, flags, range) in parts {
        hasher.update(&address.to_le_bytes());
        hasher.update(&size.to_le_bytes());
        hasher.update(&flags.to_le_bytes());
        hasher.update(&(range.len() as u64).to_le_bytes());
        hasher.update(bytes.get(range)?);
    }
    Some(BlobDigest::from_bytes(*hasher.finalize().as_bytes()))
}

/// The objects that a build could see.
struct Sight<'a> {
    store: &'a Store,
    root: &'a StorePath,
    visible: &'a BTreeSet<StorePath>,
    listings: BTreeMap<StorePath, Listing>,
}

impl Sight<'_> {
    /// Reads the maps of results that are all the same program.
    fn link(&mut self, records: &TreeRoot, stems: &[RelPath]) -> Result<Link, BuildError> {
        let mut inputs: BTreeMap<(StorePath, RelPath), BTreeSet<String>> = BTreeMap::new();
        for stem in stems {
            let text = |suffix: &str| {
                let path = format!("{stem}.{suffix}").parse().ok()?;
                Some(String::from_utf8_lossy(&read(records, &path)?).into_owned())
            };
            let (Some(map), Some(start)) = (text("map"), text("dir")) else {
                continue;
            };
            for (file, members) in map::taken(&map) {
                if let Some(input) = self.find(&absolute(&start, &file))? {
                    inputs.entry(input).or_default().extend(members);
                }
            }
        }
        let inputs = inputs
            .into_iter()
            .map(|((object, path), members)| LinkInput {
                object,
                path,
                members: members.into_iter().collect(),
            })
            .collect();
        Ok(Link { inputs })
    }

    /// Returns the object and the path in it of a file that the build saw at a path, if an
    /// object holds it and it is one that code is taken from.
    fn find(&mut self, path: &str) -> Result<Option<(StorePath, RelPath)>, BuildError> {
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            let Some((object, below)) = self.split(&path) else {
                return Ok(None);
            };
            let listing = match self.listings.get(&object) {
                Some(listing) => listing,
                None => {
                    let listing = self.store.listing(&object)?;
                    self.listings.entry(object.clone()).or_insert(listing)
                }
            };
            if let Some(Entry::File { .. }) = listing.get(&below) {
                let found = is_linked(&self.store.host_path(&object), &below);
                return Ok(found.then_some((object, below)));
            }
            let link =
                below
                    .ancestors()
                    .chain([below.clone()])
                    .find_map(|at| match listing.get(&at) {
                        Some(Entry::Symlink { target }) => Some((at, target.clone())),
                        _ => None,
                    });
            let Some((at, target)) = link else {
                return Ok(None);
            };
            let base = if object == *self.root {
                String::new()
            } else {
                object.to_string()
            };
            let rest = below.as_str().get(at.as_str().len()..).unwrap_or_default();
            let start = format!("{base}/{}", at.parent_str());
            path = absolute(&start, &format!("{target}{rest}"));
        }
        Ok(None)
    }

    fn split(&self, path: &str) -> Option<(StorePath, RelPath)> {
        let in_store = path
            .strip_prefix(STORE_PREFIX)
            .and_then(|rest| rest.strip_prefix('/'));
        if let Some(rest) = in_store {
            let (base, below) = rest.split_once('/')?;
            let object = StorePath::from_base_name(base).ok()?;
            let seen = self.visible.contains(&object);
            return seen.then_some((object, below.parse().ok()?));
        }
        let below: RelPath = path.strip_prefix('/')?.parse().ok()?;
        Some((self.root.clone(), below))
    }
}

/// Returns whether code is taken from a file: an archive, or an object file.
fn is_linked(object: &Path, path: &RelPath) -> bool {
    let mut start = [0; 18];
    let read = std::fs::File::open(object.join(path.as_str()))
        .and_then(|mut file| file.read_exact(&mut start));
    // `e_type` of a relocatable file is 1.
    read.is_ok()
        && (start.starts_with(b"!<arch>\n")
            || start.starts_with(b"!<thin>\n")
            || (start.starts_with(b"\x7fELF") && start.ends_with(&[1, 0])))
}

/// Returns a path from the root, without `.` and `..`.
fn absolute(start: &str, path: &str) -> String {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{start}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
