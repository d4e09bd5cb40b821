//! What `[image]` declares.

mod accounts;
mod layers;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::diagnostic::Spanned;
use super::policy::{Exception, PathPattern};
use crate::hash::{PackageName, RelPath};

pub use accounts::{Group, User};
pub use layers::{LayerPlanFile, PlannedLayer, parse_layer_plan};
pub(super) use read::read_image;

/// An image as declared.
#[derive(Debug, Clone)]
pub struct Image {
    /// What it runs on.
    pub platform: Platform,
    /// How files are laid out.
    pub layout: Layout,
    /// The packages in it, in order; those that a part stands for come last.
    pub contents: Vec<Content>,
    /// Files that come from no package, by their place.
    pub files: BTreeMap<RelPath, OwnFile>,
    /// Users, in order.
    pub users: Vec<User>,
    /// Groups, in order.
    pub groups: Vec<Group>,
    /// Whose files are, and what may be done with them; of several rules for one path,
    /// the last counts.
    pub ownership: Vec<Ownership>,
    /// The program and the arguments that are always given.
    pub entrypoint: Vec<String>,
    /// Arguments that a user may replace.
    pub command: Vec<String>,
    /// User and group.
    pub user: (u32, u32),
    /// Variables.
    pub environment: BTreeMap<String, String>,
    /// Where the program starts.
    pub working_directory: String,
    /// Ports that it listens on: `8080/tcp`.
    pub ports: BTreeSet<String>,
    /// Labels of the configuration.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the program to end; `None` for the engine's default.
    pub stop_signal: Option<String>,
    /// How an engine finds out whether the program works.
    pub health_check: Option<HealthCheck>,
    /// Directories that the program may write to.
    pub writable: BTreeSet<RelPath>,
    /// How the layers are cut.
    pub layers: Layers,
    /// How the layers are encoded.
    pub compression: Compression,
    /// The policy, as written.
    pub policy: Spanned<PackageName>,
    /// Every file that may be executed, as absolute paths.
    pub executables: BTreeSet<RelPath>,
    /// Packages of which every file may be executed, as written.
    pub executable_packages: Vec<Spanned<PackageName>>,
    /// Findings that are waived.
    pub exceptions: Vec<Exception>,
}

/// What an image runs on, in Go's words, as OCI has them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    /// The processor: `amd64`.
    pub architecture: String,
    /// A kind of that processor: `v7`.
    pub variant: Option<String>,
}

impl Platform {
    /// The operating system of every image.
    pub const OS: &'static str = "linux";
}

impl Default for Platform {
    fn default() -> Self {
        Self {
            architecture: "amd64".to_owned(),
            variant: None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Self::OS, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// How files are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// At ordinary paths; nothing may need a store path.
    Flat,
    /// Below `/kiln/store`, with links at the ordinary paths.
    Store,
}

/// A package, or parts of one, in an image.
#[derive(Debug, Clone)]
pub struct Content {
    /// The package, as written.
    pub package: Spanned<PackageName>,
    /// The files and directories that are taken; `None` for all that a program may need
    /// at run time.
    pub files: Option<Vec<Spanned<RelPath>>>,
    /// Where they are put; `None` for `/`.
    pub to: Option<RelPath>,
    /// Kinds of files that are taken though no program needs them at run time.
    pub keep: BTreeSet<String>,
}

/// A file or directory that comes from no package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnFile {
    /// A text that stands in the image's file, or that a part writes.
    Text {
        /// The content.
        text: String,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A file or directory beside the image's file.
    Source(Spanned<RelPath>),
}

/// Whose files are, and what may be done with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// Which files.
    pub paths: Spanned<PathPattern>,
    /// User and group; `None` to leave them.
    pub owner: Option<(u32, u32)>,
    /// Permission bits of files and links' targets; `None` to leave them.
    pub mode: Option<u32>,
    /// Permission bits of directories; `None` to leave them.
    pub directory_mode: Option<u32>,
}

/// How an engine finds out whether the program works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// The program and its arguments; it says no by an exit status that is not 0.
    pub command: Vec<String>,
    /// Time between two checks; `None` for the engine's default, as below.
    pub interval: Option<Duration>,
    /// After which a check has failed.
    pub timeout: Option<Duration>,
    /// During which failures do not count.
    pub start_period: Option<Duration>,
    /// Failures in a row that count.
    pub retries: Option<u32>,
}

/// How layers are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layers {
    /// At most so many, by kiln's own plan.
    Budget(usize),
    /// As a file beside the image's file says.
    Plan(Spanned<RelPath>),
}

/// Most layers where the image says nothing: engines take 127, and each costs a request.
pub const DEFAULT_BUDGET: usize = 32;

/// How layers are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Compression {
    /// Not at all: the bytes depend on no encoder.
    #[default]
    None,
    /// For engines that know nothing newer.
    Gzip,
    /// Smaller and faster than gzip.
    Zstd,
}

impl Compression {
    /// Its names, as they stand in files and on the command line.
    pub const NAMES: [(&'static str, Self); 3] = [
        ("none", Self::None),
        ("gzip", Self::Gzip),
        ("zstd", Self::Zstd),
    ];

    /// Returns the encoding of a name.
    pub fn named(text: &str) -> Option<Self> {
        Self::NAMES
            .into_iter()
            .find_map(|(name, compression)| (name == text).then_some(compression))
    }
}
