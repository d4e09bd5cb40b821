//! The image's configuration and manifest as canonical JSON. Pure.
//!
//! The types are OCI's; their maps have no order, so every document goes through the
//! canonical writer.

use std::collections::BTreeMap;

use oci_spec::image::{
    Arch, ConfigBuilder, DescriptorBuilder, History, HistoryBuilder, ImageConfigurationBuilder,
    ImageManifestBuilder, MediaType, Os, RootFsBuilder, Sha256Digest as OciDigest,
};
use serde_json::json;

use super::ImageError;
use crate::derivation::{Definition, Image as Declared};
use crate::hash::Sha256Digest;
use crate::hash::json::to_canonical;

/// When every image says it was made: a fixed time, for no clock may reach a digest.
pub const CREATED: &str = "1970-01-01T00:00:01Z";

/// A finished layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Where it comes from.
    pub title: String,
    /// SHA-256 of the tar, which is also the blob's digest: layers are not compressed.
    pub diff_id: Sha256Digest,
    /// Length of the tar, in bytes.
    pub size_bytes: u64,
}

/// A document's bytes and their digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The canonical bytes.
    pub bytes: Vec<u8>,
    /// Their SHA-256.
    pub digest: Sha256Digest,
}

impl Document {
    fn new<T: serde::Serialize>(document: &'static str, value: &T) -> Result<Self, ImageError> {
        let bytes = to_canonical(value).map_err(|source| ImageError::Json { document, source })?;
        Ok(Self {
            digest: Sha256Digest::of(&bytes),
            bytes,
        })
    }
}

fn oci_digest(digest: Sha256Digest) -> Result<OciDigest, ImageError> {
    digest
        .to_string()
        .parse()
        .map_err(|source| ImageError::Oci {
            document: "digest",
            source,
        })
}

/// Returns the image configuration.
///
/// # Errors
/// [`ImageError::Oci`] or [`ImageError::Json`] for values that OCI cannot express.
pub fn config(declared: &Declared, layers: &[Layer]) -> Result<Document, ImageError> {
    let oci = |source| ImageError::Oci {
        document: "configuration",
        source,
    };
    let (user, group) = declared.user;
    let environment: Vec<String> = declared
        .environment
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let config = ConfigBuilder::default()
        .user(format!("{user}:{group}"))
        .exposed_ports(declared.ports.iter().cloned().collect::<Vec<_>>())
        .env(environment)
        .entrypoint(declared.entrypoint.clone())
        .cmd(declared.command.clone())
        .volumes(
            declared
                .writable
                .iter()
                .map(|path| format!("/{path}"))
                .collect::<Vec<_>>(),
        )
        .working_dir(declared.working_directory.clone())
        .labels(
            declared
                .labels
                .clone()
                .into_iter()
                .collect::<std::collections::HashMap<_, _>>(),
        )
        .build()
        .map_err(oci)?;
    let history = layers
        .iter()
        .map(|layer| {
            HistoryBuilder::default()
                .created(CREATED)
                .created_by(format!("kiln: {}", layer.title))
                .build()
                .map_err(oci)
        })
        .collect::<Result<Vec<History>, _>>()?;
    let rootfs = RootFsBuilder::default()
        .typ("layers")
        .diff_ids(
            layers
                .iter()
                .map(|layer| format!("sha256:{}", layer.diff_id))
                .collect::<Vec<_>>(),
        )
        .build()
        .map_err(oci)?;
    let configuration = ImageConfigurationBuilder::default()
        .created(CREATED)
        .architecture(Arch::Amd64)
        .os(Os::Linux)
        .config(config)
        .rootfs(rootfs)
        .history(history)
        .build()
        .map_err(oci)?;
    Document::new("configuration", &configuration)
}

/// Returns the manifest of a configuration and its layers.
///
/// # Errors
/// [`ImageError::Oci`] or [`ImageError::Json`] for values that OCI cannot express.
pub fn manifest(
    definition: &Definition,
    config: &Document,
    layers: &[Layer],
) -> Result<Document, ImageError> {
    let oci = |source| ImageError::Oci {
        document: "manifest",
        source,
    };
    let descriptor = |kind: MediaType, digest, size: u64| -> Result<_, ImageError> {
        DescriptorBuilder::default()
            .media_type(kind)
            .digest(oci_digest(digest)?)
            .size(size)
            .build()
            .map_err(oci)
    };
    let mut annotations = BTreeMap::from([
        ("org.opencontainers.image.created", CREATED.to_owned()),
        (
            "org.opencontainers.image.title",
            definition.meta.name.to_string(),
        ),
        (
            "org.opencontainers.image.description",
            definition.meta.summary.clone(),
        ),
    ]);
    if let Some(version) = &definition.meta.version {
        annotations.insert("org.opencontainers.image.version", version.clone());
    }
    let annotations: std::collections::HashMap<String, String> = annotations
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    let layers = layers
        .iter()
        .map(|layer| descriptor(MediaType::ImageLayer, layer.diff_id, layer.size_bytes))
        .collect::<Result<Vec<_>, _>>()?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(
            MediaType::ImageConfig,
            config.digest,
            config.bytes.len() as u64,
        )?)
        .layers(layers)
        .annotations(annotations)
        .build()
        .map_err(oci)?;
    Document::new("manifest", &manifest)
}

/// Returns the index entry that names a manifest by a tag, as plain JSON.
pub fn index_entry(manifest: &Document, tag: &str) -> serde_json::Value {
    json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": format!("sha256:{}", manifest.digest),
        "size": manifest.bytes.len(),
        "platform": { "architecture": "amd64", "os": "linux" },
        "annotations": { "org.opencontainers.image.ref.name": tag },
    })
}

/// Returns an index of manifests.
///
/// # Errors
/// [`ImageError::Json`] when an entry that was there before has no canonical form.
pub fn index(entries: &[serde_json::Value]) -> Result<Document, ImageError> {
    Document::new(
        "index",
        &json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": entries,
        }),
    )
}
