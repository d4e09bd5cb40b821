//! Projecting closures into OCI images.
//!
//! In: a projection and the runtime configuration. Out: layers, config,
//! manifest, and the layouts and archives that hold them. What always holds: a layer's
//! bytes depend on the entries it holds only; every JSON document is canonical; the same
//! inputs give the same manifest digest on every machine.
//!
//! | file | what it does |
//! |---|---|
//! | [`layer`] | the deterministic tar of a layer |
//! | [`manifest`] | PURE: config and manifest as canonical bytes |
//! | [`assemble`] | layers made or taken from the cache |
//! | [`layout`] | OCI image layout directories |
//! | [`archive`] | OCI archives and Docker archives |

pub mod archive;
pub mod assemble;
pub mod layer;
pub mod layout;
pub mod manifest;

use std::path::PathBuf;

pub use assemble::{Image, assemble};

use crate::hash::Sha256Digest;
use crate::hash::json::JsonError;
use crate::store::StoreError;

/// An image that cannot be made or written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A document that has no canonical form.
    #[error("the image's `{document}` has no canonical form")]
    Json {
        /// Which document.
        document: &'static str,
        /// Why.
        source: JsonError,
    },
    /// A value that OCI's types refuse.
    #[error("the image's `{document}` is not valid")]
    Oci {
        /// Which document.
        document: &'static str,
        /// Why.
        source: oci_spec::OciSpecError,
    },
    /// Something stands where the image is to be written.
    #[error("`{}` is there and is not an OCI image layout", .0.display())]
    NotALayout(PathBuf),
    /// A blob whose bytes are others than its name says.
    #[error("the blob `{}` is damaged: it should hash to `{expected}`", path.display())]
    DamagedBlob {
        /// Where.
        path: PathBuf,
        /// Its name.
        expected: Sha256Digest,
    },
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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns an access error in the making.
fn access(
    operation: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(std::io::Error) -> ImageError {
    let path = path.into();
    move |source| ImageError::Access {
        operation,
        path,
        source,
    }
}
