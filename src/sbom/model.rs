//! The document that every format is written from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::hash::{BlobDigest, Checksums, Sha256Digest, StorePath};

/// What names a component or a file in a document: letters, digits, `.` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

impl Id {
    /// Joins parts; what an identifier cannot hold becomes `.`.
    pub fn new(kind: &str, text: &str) -> Self {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '.'
            }
        };
        Self(format!(
            "{kind}-{}",
            text.chars().map(plain).collect::<String>()
        ))
    }

    /// Returns it as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A bill of materials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    /// The component that it is about.
    pub subject: Id,
    /// Everything that has a name and a version.
    pub components: BTreeMap<Id, Component>,
    /// The files of the subject, and the archives whose code is in them.
    pub files: BTreeMap<Id, File>,
    /// How they belong together.
    pub relations: BTreeSet<Relation>,
    /// Static programs whose linker left no record, as absolute paths.
    pub unrecorded: BTreeSet<String>,
}

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An image.
    Image,
    /// An output of a build, with a program in it.
    Application,
    /// An output of a build, or a root.
    Library,
    /// A source archive or a working tree.
    Source,
    /// A package of Debian's.
    Debian,
    /// A crate that a lock file names.
    Crate,
}

/// What a component has to do with the subject. The first that holds counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Files of it are in the subject.
    RunTime,
    /// Its code was linked into a file of the subject.
    Linked,
    /// A component of the subject was built from it and others that one lock file names.
    /// The file does not tell those whose code is in the program from those that only its
    /// build, its tests or another platform needs, so it counts as one of the former.
    Locked,
    /// The subject, or something it was built with, was built from it or with it.
    BuildTime,
}

impl Part {
    /// Returns the word that documents use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RunTime => "run-time",
            Self::Linked => "linked",
            Self::Locked => "locked",
            Self::BuildTime => "build-time",
        }
    }
}

/// Something with a name and a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// What it is.
    pub kind: Kind,
    /// What it has to do with the subject.
    pub part: Part,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// One line for people.
    pub summary: Option<String>,
    /// A valid SPDX expression.
    pub license: Option<String>,
    /// What its file says where that is no SPDX expression.
    pub license_as_written: Option<String>,
    /// Where to read more.
    pub homepage: Option<String>,
    /// Its package URL.
    pub purl: Option<String>,
    /// Its name in the dictionary of platforms.
    pub cpe: Option<String>,
    /// Where its bytes may be had, in order.
    pub urls: Vec<String>,
    /// SHA-256 of those bytes; of an image, of its manifest.
    pub sha256: Option<Sha256Digest>,
    /// The object in the store.
    pub object: Option<StorePath>,
    /// The derivation file's name.
    pub package: Option<String>,
    /// Symbolic links of it in the subject: absolute path and target.
    pub symlinks: BTreeMap<String, String>,
}

impl Component {
    /// Returns one of which only the name is known.
    pub fn new(kind: Kind, part: Part, name: &str) -> Self {
        Self {
            kind,
            part,
            name: name.to_owned(),
            version: None,
            summary: None,
            license: None,
            license_as_written: None,
            homepage: None,
            purl: None,
            cpe: None,
            urls: Vec::new(),
            sha256: None,
            object: None,
            package: None,
            symlinks: BTreeMap::new(),
        }
    }
}

/// A regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where it is, absolute, in the subject or in the sandbox that built it.
    pub path: String,
    /// The component that brought it.
    pub owner: Id,
    /// BLAKE3 of its bytes.
    pub blake3: BlobDigest,
    /// Other hashes of them.
    pub checksums: Checksums,
    /// Length, in bytes.
    pub size_bytes: u64,
    /// Whether it may be executed.
    pub executable: bool,
    /// Whether it is in the subject, or only code of it.
    pub part: Part,
}

/// How two things belong together, seen from the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RelationKind {
    /// It holds the other.
    Contains,
    /// It names the other's store path: at run time it needs it.
    DependsOn,
    /// Code of the other was linked into it.
    StaticLink,
    /// It was built from the other, a source.
    GeneratedFrom,
    /// Its lock file names the other.
    Locks,
    /// It was built with the other as an input.
    BuiltWith,
    /// It was built by programs of the other.
    BuiltBy,
}

/// A relation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Relation {
    /// From.
    pub from: Id,
    /// How.
    pub kind: RelationKind,
    /// To.
    pub to: Id,
    /// Members of the archive that were taken, sorted; for [`RelationKind::StaticLink`]
    /// between files.
    pub members: Vec<String>,
}
