//! An image as rules see it: every path with all that a layer says of it, what upper
//! layers hide, and the configuration.
//!
//! There is one such listing for images that kiln builds and for those of others. What
//! nobody can know of another's image, such as the sources, is [`Provenance::Unknown`]
//! there, so that a rule can say so instead of passing.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::ContentFacts;
use std::sync::Arc;

use crate::hash::{BlobDigest, PackageName, RelPath, StorePath};

/// An image.
#[derive(Debug, Clone, Default)]
pub struct ImageListing {
    /// What a program in it would see, path by path.
    pub entries: BTreeMap<RelPath, ImageEntry>,
    /// Files that a layer holds and an upper one replaces or removes, in layer order.
    pub hidden: Vec<Hidden>,
    /// Its layers, lowest first.
    pub layers: Vec<ImageLayer>,
    /// How it is run.
    pub configuration: Configuration,
    /// Facts about each distinct content, hidden ones too.
    pub facts: BTreeMap<BlobDigest, ContentFacts>,
    /// Whether it is known where each file comes from.
    pub provenance: Provenance,
    /// The programs that may be executed, where the maker declared them.
    pub executables: Option<BTreeSet<RelPath>>,
    /// Packages of which every file may be executed.
    pub executable_packages: BTreeSet<PackageName>,
}

/// Whether it is known where the files of an image come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Provenance {
    /// Each entry's origin tells.
    Known,
    /// The image does not say, or nothing vouches for what it says.
    #[default]
    Unknown,
}

/// What stands at one path of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEntry {
    /// What it is.
    pub node: Node,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Extended attributes.
    pub attributes: BTreeMap<String, Vec<u8>>,
    /// For a hard link: the name that it was linked to.
    pub hard_link: Option<RelPath>,
    /// The layer that holds it, from 0.
    pub layer: usize,
    /// Where it comes from, if that is known.
    pub origin: Option<Arc<Origin>>,
}

impl ImageEntry {
    /// Returns an entry of root's in a layer, and nothing else known.
    pub fn new(node: Node, mode: u32, layer: usize) -> Self {
        Self {
            node,
            mode,
            owner: (0, 0),
            attributes: BTreeMap::new(),
            hard_link: None,
            layer,
            origin: None,
        }
    }

    /// Returns the length of its content, in bytes.
    pub fn size_bytes(&self) -> u64 {
        match self.node {
            Node::File { size_bytes, .. } => size_bytes,
            _ => 0,
        }
    }
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File {
        /// BLAKE3 of the content.
        digest: BlobDigest,
        /// Length of the content.
        size_bytes: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, as it stands in the link.
        target: String,
    },
    /// A device.
    Device {
        /// Whether it is a block device; a character device else.
        block: bool,
        /// Its numbers, major and minor.
        numbers: (u32, u32),
    },
    /// A named pipe.
    Fifo,
}

impl Node {
    /// Returns what it is, in words.
    pub fn in_words(&self) -> &'static str {
        match self {
            Self::File { .. } => "a file",
            Self::Directory => "a directory",
            Self::Symlink { .. } => "a symbolic link",
            Self::Device { block: true, .. } => "a block device",
            Self::Device { block: false, .. } => "a character device",
            Self::Fifo => "a named pipe",
        }
    }
}

/// Where a file of a built image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The object that holds it.
    pub object: StorePath,
    /// The package that the object is an output of.
    pub package: Option<PackageName>,
    /// The package's licence as an SPDX expression.
    pub license: Option<String>,
    /// The binary seed that the object is, or refers to.
    pub seed: Option<StorePath>,
    /// Whether its sources are recorded by hash.
    pub source_known: bool,
    /// Whether a rebuild gave the same bytes; `None` if none was made.
    pub reproduced: Option<bool>,
}

/// A file of a layer that nothing shows in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// Where it was.
    pub path: RelPath,
    /// The file.
    pub entry: ImageEntry,
    /// The layer that replaces or removes it, from 0.
    pub by: usize,
}

/// A layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageLayer {
    /// What names it: where its content comes from, or its digest.
    pub title: String,
    /// Length of its tar, in bytes.
    pub size_bytes: u64,
}

/// How an image is run: the parts of its configuration that rules read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The processor, in Go's words: `amd64`.
    pub architecture: String,
    /// The operating system, in Go's words: `linux`.
    pub os: String,
    /// The user, as it stands there: `65534:65534`, `nobody`, or empty.
    pub user: String,
    /// Variables, `NAME=VALUE`.
    pub environment: Vec<String>,
    /// The program and the arguments that are always given.
    pub entrypoint: Vec<String>,
    /// Arguments that a user may replace.
    pub command: Vec<String>,
    /// Where the program starts.
    pub working_directory: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Directories that are kept outside the image, and so can be written to.
    pub volumes: BTreeSet<String>,
    /// Ports that the program listens on.
    pub ports: BTreeSet<String>,
    /// The commands that made it, as far as it says.
    pub history: Vec<String>,
}
