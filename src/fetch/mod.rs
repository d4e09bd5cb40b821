//! Sources by hash, and strict unpacking.
//!
//! In: addresses and the hash that the content must have; archives; trees beside
//! derivation files. Out: files and fresh directories. Everything runs in kiln's own
//! process, without credentials; no builder ever has a network. What always holds: a
//! file is returned only if its bytes have the wanted hash; nothing is written outside of
//! the directory that the caller gave; whatever an archive says, memory, time and disk
//! space are bounded.

pub mod apt;
pub mod authorities;
pub mod cargo;
pub mod crates;
pub mod deb;
mod decompress;
pub mod download;
mod extract;
pub mod mirrors;
mod names;
pub mod unpack;
pub mod worktree;

use std::path::PathBuf;

pub use download::{Event, Fetched, Fetcher};
pub use mirrors::Mirrors;

use crate::hash::{RelPath, Sha256Digest};

/// One address that did not give the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The address.
    pub url: String,
    /// What happened, in words.
    pub why: String,
}

/// A source that cannot be had or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No address gave the content.
    #[error("no address gave the content with SHA-256 `{expected}`")]
    NoAddress {
        /// The wanted hash.
        expected: Sha256Digest,
        /// Every address, in the order tried.
        attempts: Vec<Attempt>,
    },
    /// Bytes came, and they were others.
    #[error("the content has another SHA-256 than declared: `{actual}` instead of `{expected}`")]
    WrongHash {
        /// The wanted hash.
        expected: Sha256Digest,
        /// The hash of what came.
        actual: Sha256Digest,
        /// Where the bytes are kept.
        kept: PathBuf,
        /// Every address, in the order tried.
        attempts: Vec<Attempt>,
    },
    /// A mirror name without any base address.
    #[error("no base address is known for `mirror://{0}/`")]
    NoMirror(String),
    /// An archive member that no archive of sources should have.
    #[error("the archive `{}` has a member `{member}` that {problem}", archive.display())]
    Member {
        /// The archive.
        archive: PathBuf,
        /// The member's name, made printable.
        member: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An archive that cannot be read to its end.
    #[error("the archive `{}` is damaged or in an unknown format", archive.display())]
    Archive {
        /// The archive.
        archive: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An archive that unpacks to more than kiln takes in.
    #[error("the archive `{}` unpacks to more than {limit}", archive.display())]
    TooLarge {
        /// The archive.
        archive: PathBuf,
        /// The limit, in words.
        limit: String,
    },
    /// Two packages bring different things for one path.
    #[error("two packages of one root hold `{path}`")]
    Conflict {
        /// The path.
        path: RelPath,
    },
    /// A tree beside a derivation file that cannot be taken.
    #[error("`{}` {problem}", path.display())]
    Tree {
        /// The entry.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The fetch was cancelled.
    #[error("the download was cancelled")]
    Cancelled,
    /// A file of this machine.
    #[error("cannot {operation} `{}`", path.display())]
    Access {
        /// What was tried, as a verb.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
