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
//! | [`encode`] | uncompressed, gzip or zstd, and hashed |
//! | [`manifest`] | PURE: config and manifest as canonical bytes |
//! | [`referrer`] | PURE: documents that refer to an image, as manifests of their own |
//! | [`assemble`] | layers made or taken from the cache |
//! | [`parcel`] | what goes to a place: an image, or an index of several, with all it leads to |
//! | [`layout`] | OCI image layout directories |
//! | [`push`](mod@push) | a parcel, to a registry |
//! | [`registry`] | registries: logins, blobs in chunks, manifests |
//! | [`archive`] | OCI archives and Docker archives |

pub mod archive;
pub mod assemble;
pub mod encode;
pub mod layer;
pub mod layout;
pub mod manifest;
pub mod parcel;
pub mod push;
pub mod referrer;
pub mod registry;

use std::fmt;
use std::io;
use std::path::PathBuf;

pub use assemble::{Image, assemble};
pub use parcel::Parcel;
pub use push::{Pushed, push};
pub use referrer::Referrer;

use crate::hash::Sha256Digest;
use crate::hash::json::JsonError;
use crate::store::StoreError;

/// What an image is called where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// `latest`, for want of another; it is not taken away from another image.
    Default,
    /// As the user says; whatever had it before loses it.
    Named(String),
}

impl Tag {
    /// Returns it as text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Default => "latest",
            Self::Named(tag) => tag,
        }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

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
    /// Something that is not a file stands where an archive is to be written.
    #[error("`{}` is there and is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// A file that kiln did not write stands where an archive is to be written.
    #[error("`{}` is there and is not an image archive that kiln wrote", .0.display())]
    NotOwn(PathBuf),
    /// The tag that images get by themselves is another image's.
    #[error("`{}` has another image under the tag `latest`: `{image}`", directory.display())]
    TagTaken {
        /// The layout.
        directory: PathBuf,
        /// The image that has it.
        image: String,
    },
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
        source: io::Error,
    },
    /// A registry does not do what it should.
    #[error(transparent)]
    Registry(#[from] registry::RegistryError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Returns an access error in the making.
fn access(
    operation: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.into();
    move |source| ImageError::Access {
        operation,
        path,
        source: plain(source),
    }
}

/// Takes the name of a temporary file out of an error: nobody knows it, and it is another
/// one each time.
fn plain(error: io::Error) -> io::Error {
    use rustix::io::Errno;
    if error.raw_os_error().is_some() {
        return error;
    }
    let number = match error.kind() {
        io::ErrorKind::NotFound => Errno::NOENT,
        io::ErrorKind::PermissionDenied => Errno::ACCESS,
        io::ErrorKind::NotADirectory => Errno::NOTDIR,
        io::ErrorKind::ReadOnlyFilesystem => Errno::ROFS,
        io::ErrorKind::StorageFull => Errno::NOSPC,
        _ => return error,
    };
    io::Error::from_raw_os_error(number.raw_os_error())
}
