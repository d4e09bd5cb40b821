//! What a derivation file can define.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::diagnostic::{Diagnostic, SourceFile, Spanned};
use super::image::Image;
use super::policy::Policy;
use crate::hash::{ObjectName, OutputName, PackageName, RelPath, Sha256Digest};

/// A derivation file, read.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The file it was read from, for messages about it later.
    pub file: Arc<SourceFile>,
    /// What every kind has.
    pub meta: Meta,
    /// What it defines.
    pub kind: Kind,
}

/// What every definition has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The readable part of its objects' paths.
    pub name: ObjectName,
    /// Its version; recipes, images and policies may have none.
    pub version: Option<String>,
    /// One line for people.
    pub summary: String,
    /// An SPDX expression.
    pub license: Option<String>,
    /// Where to read more.
    pub homepage: Option<String>,
    /// Its name in the dictionary of platforms, CPE 2.3.
    pub cpe: Option<String>,
}

/// What a file defines.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A package built from source.
    Package(Box<BuildTable>),
    /// A root made of Debian packages.
    Debian(Debian),
    /// Phases for packages.
    Recipe(Box<Recipe>),
    /// An image.
    Image(Box<Image>),
    /// Rules for images.
    Policy(Policy),
}

/// A package built from source.
#[derive(Debug, Clone)]
pub struct BuildTable {
    /// What is laid out below `/build`, by directory; the main one is `source`.
    pub sources: BTreeMap<RelPath, Source>,
    /// The recipe, as written.
    pub recipe: Spanned<PackageName>,
    /// Roots beside the recipe's, as written.
    pub root: Vec<Spanned<PackageName>>,
    /// Inputs, as written.
    pub inputs: Vec<Spanned<PackageName>>,
    /// The bash arrays `configure_flags`, `make_flags` and `install_flags`.
    pub flags: BTreeMap<&'static str, Vec<String>>,
    /// Variables that replace the recipe's.
    pub environment: BTreeMap<String, String>,
    /// Phases that replace the recipe's.
    pub phases: Phases,
    /// Which users and groups it can be; the recipe's are added.
    pub ids: Ids,
    /// When the build is stopped.
    pub limits: Limits,
    /// What it produces.
    pub outputs: BTreeMap<OutputName, Output>,
    /// How its outputs are tried.
    pub test: Option<Test>,
}

/// Where a source comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// From one of several addresses, by its hash.
    Remote {
        /// The addresses, in order.
        urls: Vec<Spanned<String>>,
        /// What the content must hash to.
        sha256: Spanned<Sha256Digest>,
        /// Whether it is an archive to unpack.
        unpack: bool,
    },
    /// From beside the derivation file.
    Tree {
        /// Where, relative to the file's directory.
        path: Spanned<RelPath>,
    },
    /// Every crate that a `Cargo.lock` names, by its hash.
    Crates {
        /// Where the lock file is, relative to the derivation file's directory.
        lock: Spanned<RelPath>,
    },
}

/// A part of a build, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Patches and preparation.
    Prepare,
    /// `./configure` and the like.
    Configure,
    /// `make` and the like.
    Build,
    /// The upstream project's own tests.
    Check,
    /// Putting files into `$out`.
    Install,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 5] = [
        Self::Prepare,
        Self::Configure,
        Self::Build,
        Self::Check,
        Self::Install,
    ];

    /// Returns its key in a derivation file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Configure => "configure",
            Self::Build => "build",
            Self::Check => "check",
            Self::Install => "install",
        }
    }
}

/// The scripts of phases.
pub type Phases = BTreeMap<Phase, String>;

/// Which users and groups a build can be and can give files to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ids {
    /// User 1000 and group 100.
    #[default]
    One,
    /// Every user and group from 0 to 65535; it starts as those two.
    Range,
}

/// When a build is stopped. Not part of its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From start to end.
    pub time: Duration,
    /// Without any output.
    pub silence: Duration,
    /// Bytes of log.
    pub log_bytes: u64,
    /// Memory of all its processes together, where the host can limit that; `None` is most
    /// of the machine's.
    pub memory_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(3600),
            silence: Duration::from_secs(900),
            log_bytes: 256 << 20,
            memory_bytes: None,
        }
    }
}

/// What is demanded of an output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// How its programs are linked, if that is demanded.
    pub linkage: Option<Linkage>,
}

/// How programs are linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linkage {
    /// No interpreter and no needed library in any ELF file.
    Static,
}

/// How outputs are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// The bash script.
    pub script: String,
    /// Which users and groups it can be.
    pub ids: Ids,
}

/// A root made of Debian packages.
#[derive(Debug, Clone)]
pub struct Debian {
    /// The packages, in order.
    pub packages: Vec<DebianPackage>,
    /// Paths and directories that are left out.
    pub exclude: BTreeSet<RelPath>,
    /// Symbolic links that are added.
    pub links: BTreeMap<RelPath, String>,
    /// Files that are added.
    pub files: BTreeMap<RelPath, String>,
}

/// One Debian package.
#[derive(Debug, Clone, PartialEq)]
pub struct DebianPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What its file must hash to.
    pub sha256: Spanned<Sha256Digest>,
    /// Its path on a mirror.
    pub path: Spanned<RelPath>,
}

/// Phases for packages.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What is merged into `/`, as written.
    pub root: Vec<Spanned<PackageName>>,
    /// Inputs of every package that uses it, as written.
    pub inputs: Vec<Spanned<PackageName>>,
    /// Variables.
    pub environment: BTreeMap<String, String>,
    /// Which users and groups its builds can be.
    pub ids: Ids,
    /// Runs before every phase of the package; a package cannot replace it.
    pub setup: Option<String>,
    /// Runs after every phase of the package; a package cannot replace it.
    pub finish: Option<String>,
    /// Phases that a package may replace.
    pub phases: Phases,
}

impl Definition {
    /// Returns the readable part of an output's path: `name-version`, and the output's
    /// name unless it is `out`.
    pub fn object_name(&self, output: &str) -> Result<ObjectName, crate::hash::NameError> {
        let mut name = self.meta.name.to_string();
        if let Some(version) = &self.meta.version {
            name = format!("{name}-{version}");
        }
        if output != "out" {
            name = format!("{name}-{output}");
        }
        name.parse()
    }

    /// Returns a problem at a place of this file.
    pub fn problem(&self, span: std::ops::Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(&self.file, span, message)
    }
}
