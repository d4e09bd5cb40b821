//! Trees on disk: walking, hashing, finding references, sealing and deleting.
//!
//! In: a directory that nobody else writes to any more. Out: its [`Scan`] (listing and
//! references), and, by [`seal`], the same directory with the modes and times that every
//! object has. What always holds: no symbolic link is followed and no mount is crossed,
//! because each path is resolved beneath a directory descriptor by `openat2`; results do
//! not depend on directory order or on the number of threads.
//!
//! This stage knows no store: where a tree lies and what becomes of it is decided above.

pub mod facts;
pub mod mentions;
pub mod references;
pub mod remove;
pub mod root;
pub mod scan;
pub mod seal;

pub use references::{DigestText, Wanted};
pub use remove::remove_tree;
pub use root::{TreeRoot, open_regular};
pub use scan::{Hit, Scan, scan};

use std::path::PathBuf;

use crate::hash::PathError;
use crate::listing::ListingError;

/// A tree that cannot be taken in, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A system call on an entry failed.
    #[error("cannot {operation} `{}`", path.display())]
    Access {
        /// What was tried, as a verb.
        operation: &'static str,
        /// Where on this machine.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something that no object may hold.
    #[error("`{path}` is a {kind}; an object holds only files, directories and symbolic links")]
    Kind {
        /// Where in the tree.
        path: String,
        /// What it is: `socket`, `FIFO`, `character device`, `block device`.
        kind: &'static str,
    },
    /// A name that is not UTF-8.
    #[error("the name `{shown}` is not UTF-8; objects hold only names that every machine can show")]
    NotUtf8 {
        /// The name with replacement characters.
        shown: String,
    },
    /// A symbolic link whose target is not UTF-8.
    #[error("the target of the symbolic link `{path}` is not UTF-8")]
    TargetNotUtf8 {
        /// Where in the tree.
        path: String,
    },
    /// A name that contains a scratch path's digest, which rewriting cannot change.
    #[error("the name `{path}` contains the digest of an output's own path")]
    ScratchInName {
        /// Where in the tree.
        path: String,
    },
    /// A compressed file that names an output, where rewriting cannot reach.
    #[error("the compressed file `{path}` contains the path of an output")]
    ScratchInCompressed {
        /// Where in the tree.
        path: String,
    },
    /// A path that no listing can hold.
    #[error("the tree has an entry that no object can hold")]
    Path(#[from] PathError),
    /// Entries that are not a tree.
    #[error("the tree is not well formed")]
    Listing(#[from] ListingError),
}

impl TreeError {
    /// Returns whether the cause is a full disk or quota.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Access { source, .. }
            if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded))
    }
}
