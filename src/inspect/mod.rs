//! Reading images that others made.
//!
//! In: an OCI layout, an OCI archive or a Docker archive, of any maker, trusted in
//! nothing. Out: the [`ImageListing`] that rules judge: the final file system, what lower
//! layers still hold under it, and the configuration. Contents stream through memory;
//! nothing is ever written. What always holds: each document and layer has the digest and
//! size that its descriptor says, each layer's tar has its diffID, and every quantity has
//! a bound ([`limits`]).
//!
//! | file | what it does |
//! |---|---|
//! | [`limits`] | how much an image may ask for |
//! | [`source`] | where blobs are: a directory, an archive; registries join here |
//! | [`document`] | PURE: index, manifest and configuration from bounded JSON |
//! | [`choose`] | which manifest is meant, by tag and platform |
//! | [`stream`] | a blob as a tar: hashed, decompressed, bounded |
//! | [`tar`] | PURE over a reader: members of a tar, one after the other |
//! | [`layer`] | a tar's members with facts about their contents |
//! | [`merge`] | PURE: layers laid over one another |

pub mod choose;
pub mod document;
pub mod layer;
pub mod limits;
pub mod merge;
pub mod remote;
pub mod source;
pub mod stream;
pub mod tar;

use std::io::Read;

use crate::hash::Sha256Digest;
use crate::image::registry::RegistryError;
use crate::listing::image::ImageListing;
use layer::{Budget, ReadLayer};
use source::Opened;

/// An image that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// What was named is no image.
    #[error("`{name}` is not an image")]
    NotAnImage {
        /// What was named.
        name: String,
        /// Why.
        why: String,
    },
    /// A registry does not do what it should.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file of this machine.
    #[error("cannot read `{name}`")]
    Access {
        /// What was read.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing in it is called so, or runs there.
    #[error("the image has {what}")]
    NoSuchImage {
        /// What it has not.
        what: String,
        /// What it has.
        known: Vec<String>,
    },
    /// A document that is not what it should be.
    #[error("the {document} is not valid: {problem}")]
    Document {
        /// Which document.
        document: String,
        /// What is wrong.
        problem: String,
    },
    /// A blob that is not there.
    #[error("the blob `{0}` is not there")]
    MissingBlob(String),
    /// Bytes that are not those that a digest names.
    #[error("{blob} is damaged: {problem}")]
    Damaged {
        /// Which blob.
        blob: String,
        /// What differs.
        problem: String,
    },
    /// A layer that is no tar, or holds what none may hold.
    #[error("{layer} cannot be read: {problem}")]
    Layer {
        /// Which layer.
        layer: String,
        /// What is wrong.
        problem: String,
    },
    /// More than this reader takes.
    #[error("{what} is beyond what kiln reads: {limit}")]
    TooLarge {
        /// Which part of the image.
        what: String,
        /// The limit, in words.
        limit: String,
    },
}

/// An image as it was read.
#[derive(Debug)]
pub struct Inspected {
    /// Everything in it.
    pub listing: ImageListing,
    /// The digest of its manifest, or of its configuration in a Docker archive without one.
    pub digest: Sha256Digest,
    /// Its tag, if the source has one.
    pub tag: Option<String>,
}

/// What a reader is told while it reads.
pub trait Progress: Sync {
    /// So many bytes are to be read.
    fn total(&self, bytes: u64);
    /// So many more bytes were read.
    fn read(&self, bytes: u64);
}

/// Reads an image: documents first, then all layers in parallel, then lays them over one
/// another.
///
/// # Errors
/// [`InspectError`]; the first in the order of the layers.
pub fn inspect(
    opened: &Opened,
    platform: Option<&document::Platform>,
    progress: &dyn Progress,
) -> Result<Inspected, InspectError> {
    let chosen = choose::choose(opened, platform)?;
    let manifest = &chosen.manifest;
    let bytes = opened
        .blobs
        .document(&manifest.config, limits::MAX_DOCUMENT)?;
    let configuration = document::configuration(&bytes)?;
    let diff_ids = configuration.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(InspectError::Document {
            document: "configuration".to_owned(),
            problem: format!(
                "it names {} layers, and the manifest {}",
                diff_ids.len(),
                manifest.layers.len()
            ),
        });
    }
    let own = &configuration.configuration;
    let runs_on = document::Platform {
        os: own.os.clone(),
        architecture: own.architecture.clone(),
        variant: platform.and_then(|platform| platform.variant.clone()),
    };
    if let Some(platform) = platform
        && !platform.means(&runs_on)
    {
        return Err(InspectError::NoSuchImage {
            what: format!("nothing for `{platform}`"),
            known: vec![runs_on.to_string()],
        });
    }
    progress.total(manifest.layers.iter().map(|layer| layer.size_bytes).sum());
    let budget = Budget::default();
    let read = |index: usize, blob: &mut (dyn Read + Send)| {
        let (Some(descriptor), Some(diff_id)) = (manifest.layers.get(index), diff_ids.get(index))
        else {
            return Err(InspectError::MissingBlob(format!("layer {}", index + 1)));
        };
        layer::read(index, descriptor, *diff_id, blob, &budget, progress)
    };
    let layers = opened.blobs.each(&manifest.layers, &read)?;
    let listing = merge::merge(layers, configuration.configuration)?;
    Ok(Inspected {
        listing,
        digest: chosen.digest,
        tag: chosen.tag,
    })
}

/// How one layer is read.
type ReadOne<'a> =
    dyn Fn(usize, &mut (dyn Read + Send)) -> Result<ReadLayer, InspectError> + Sync + 'a;

/// Replaces what would move a terminal's cursor: names come from anybody.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
