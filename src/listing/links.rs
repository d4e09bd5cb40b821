//! What a file needs of others, as far as its content says.

use std::collections::BTreeSet;

use super::facts::{ContentFacts, Kind};
use crate::hash::StorePath;

/// What a file needs of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// The dynamic loader that the kernel would start (`PT_INTERP`).
    pub interpreter: Option<String>,
    /// Libraries that the loader would look for (`DT_NEEDED`).
    pub needed: Vec<String>,
    /// Directories in which it has the loader look (`DT_RPATH`, `DT_RUNPATH`).
    pub search: Vec<String>,
    /// Store paths in it, with what follows them.
    pub mentions: BTreeSet<Mention>,
}

impl Links {
    /// Returns what the headers of a file say that it needs; store paths are not among them.
    pub fn of_headers(facts: &ContentFacts) -> Self {
        match &facts.kind {
            Kind::Elf(elf) => Self {
                interpreter: elf.interpreter.clone(),
                needed: elf.needed.clone(),
                search: elf.search.clone(),
                mentions: BTreeSet::new(),
            },
            _ => Self::default(),
        }
    }
}

/// A store path in a file's content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mention {
    /// The object.
    pub object: StorePath,
    /// The path below it, as it stands there: empty, or `/lib/libz.so.1`.
    pub rest: String,
}
