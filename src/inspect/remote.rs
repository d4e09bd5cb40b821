//! The blobs of an image in a registry, read as they come.

use std::io::Read;

use serde_json::json;

use super::InspectError;
use super::document::Descriptor;
use super::limits::MAX_DOCUMENT;
use super::source::{Blobs, Opened, Top, name};
use crate::hash::Sha256Digest;
use crate::image::registry::{Registry, RegistryError};

/// The blobs of a repository.
struct Remote(Registry);

/// Opens the image that a registry was asked for.
///
/// # Errors
/// [`InspectError::Registry`], [`InspectError::TooLarge`] for a manifest that is too long,
/// [`InspectError::Damaged`] for one that has not the digest it was asked for by.
pub fn open(registry: Registry) -> Result<Opened, InspectError> {
    let tag = registry.reference().tag().to_owned();
    let (media_type, content) = registry.manifest(&tag)?;
    let mut bytes = Vec::new();
    content
        .take(MAX_DOCUMENT + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| InspectError::Access {
            name: registry.reference().to_string(),
            source,
        })?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(InspectError::TooLarge {
            what: "the manifest".to_owned(),
            limit: format!("{MAX_DOCUMENT} bytes"),
        });
    }
    let digest = format!("sha256:{}", Sha256Digest::of(&bytes));
    if tag.contains(':') && tag != digest {
        return Err(InspectError::Damaged {
            blob: format!("the manifest `{tag}`"),
            problem: format!("it has the content of `{digest}`"),
        });
    }
    let is_index = media_type.contains("index") || media_type.contains("manifest.list");
    // A manifest alone is what an index of one would name.
    let top = if is_index {
        bytes
    } else {
        json!({
            "schemaVersion": 2,
            "manifests": [{ "mediaType": media_type, "digest": digest, "size": bytes.len() }],
        })
        .to_string()
        .into_bytes()
    };
    Ok(Opened {
        blobs: Box::new(Remote(registry)),
        top: Top::Index(top),
        tag: None,
    })
}

impl Blobs for Remote {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, InspectError> {
        let missing = || InspectError::MissingBlob(name(blob).trim_matches('`').to_owned());
        let digest = format!("sha256:{}", blob.digest.ok_or_else(missing)?);
        let kind = &blob.media_type;
        let is_manifest = ["manifest", "index"].iter().any(|word| kind.contains(word));
        let content = if is_manifest {
            self.0.manifest(&digest).map(|(_, content)| content)
        } else {
            self.0.blob(&digest)
        };
        content.map_err(|error| match error {
            RegistryError::Status { status: 404, .. } => missing(),
            other => other.into(),
        })
    }

    fn size(&self, _: &str) -> Option<u64> {
        None
    }
}
