//! The image's configuration and manifest as canonical JSON. Pure.
//!
//! The types are OCI's; their maps have no order, so every document goes through the
//! canonical writer.

use std::collections::BTreeMap;

use oci_spec::image::{
    Arch, ConfigBuilder, DescriptorBuilder, History, HistoryBuilder, ImageConfigurationBuilder,
    ImageManifestBuilder, MediaType, Os, RootFsBuilder, Sha256Digest as OciDigest,
};
use serde_json::{Value, json};

use super::ImageError;
use super::encode::encoder;
use super::parcel::Manifest;
use crate::derivation::{Compression, Definition, HealthCheck, Image as Declared, Platform};
use crate::hash::Sha256Digest;
use crate::hash::json::to_canonical;
use crate::store::CachedLayer;

/// When every image says it was made: a fixed time, for no clock may reach a digest.
pub const CREATED: &str = "1970-01-01T00:00:01Z";

/// The media type of an image's manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index of manifests.
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// The annotation that says which encoder made a layer.
pub const ENCODER: &str = "dev.kiln.layer.encoder";

/// A finished layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Where it comes from.
    pub title: String,
    /// How it is encoded.
    pub compression: Compression,
    /// The digests of its tar and of its file.
    pub blob: CachedLayer,
}

impl Layer {
    fn media_type(&self) -> MediaType {
        match self.compression {
            Compression::None => MediaType::ImageLayer,
            Compression::Gzip => MediaType::ImageLayerGzip,
            Compression::Zstd => MediaType::ImageLayerZstd,
        }
    }
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
    pub(super) fn new<T: serde::Serialize>(
        document: &'static str,
        value: &T,
    ) -> Result<Self, ImageError> {
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
    let mut config = ConfigBuilder::default()
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
    config.set_stop_signal(declared.stop_signal.clone());
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
                .map(|layer| format!("sha256:{}", layer.blob.diff_id))
                .collect::<Vec<_>>(),
        )
        .build()
        .map_err(oci)?;
    let platform = &declared.platform;
    let mut configuration = ImageConfigurationBuilder::default()
        .created(CREATED)
        .architecture(Arch::from(platform.architecture.as_str()))
        .os(Os::Linux)
        .config(config)
        .rootfs(rootfs)
        .history(history)
        .build()
        .map_err(oci)?;
    configuration.set_variant(platform.variant.clone());
    let unwritten = |error: serde_json::Error| ImageError::Oci {
        document: "configuration",
        source: error.into(),
    };
    let mut document = serde_json::to_value(&configuration).map_err(unwritten)?;
    if let Some(check) = &declared.health_check
        && let Some(config) = document.get_mut("config").and_then(Value::as_object_mut)
    {
        config.insert("Healthcheck".to_owned(), health_check(check));
    }
    Document::new("configuration", &document)
}

/// Returns a health check as Docker has it; OCI keeps what it does not know. Times are in
/// nanoseconds.
fn health_check(check: &HealthCheck) -> Value {
    let command = ["CMD"]
        .into_iter()
        .chain(check.command.iter().map(String::as_str));
    let mut document = serde_json::Map::new();
    document.insert("Test".to_owned(), command.collect());
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            document.insert(name.to_owned(), json!(time.as_secs() * 1_000_000_000));
        }
    }
    if let Some(retries) = check.retries {
        document.insert("Retries".to_owned(), json!(retries));
    }
    Value::Object(document)
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
        .map(|layer| {
            let blob = &layer.blob;
            let mut descriptor = descriptor(layer.media_type(), blob.digest, blob.size_bytes)?;
            let encoder = encoder(layer.compression);
            descriptor.set_annotations(
                encoder.map(|encoder| [(ENCODER.to_owned(), encoder)].into_iter().collect()),
            );
            Ok::<_, ImageError>(descriptor)
        })
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

/// Returns the entry of an index that names a manifest, by a tag or without one.
pub fn index_entry(
    manifest: &Manifest<'_>,
    platform: Option<&Platform>,
    tag: Option<&str>,
) -> Value {
    let mut entry = json!({
        "mediaType": manifest.media_type,
        "digest": format!("sha256:{}", manifest.digest),
        "size": manifest.bytes.len(),
    });
    if let Some(members) = entry.as_object_mut() {
        members.extend(platform.map(|platform| ("platform".to_owned(), platform_of(platform))));
        members.extend(tag.map(|tag| {
            let annotations = json!({ "org.opencontainers.image.ref.name": tag });
            ("annotations".to_owned(), annotations)
        }));
    }
    entry
}

fn platform_of(platform: &Platform) -> Value {
    let Platform {
        architecture,
        variant,
    } = platform;
    match variant {
        None => json!({ "architecture": architecture, "os": Platform::OS }),
        Some(variant) => {
            json!({ "architecture": architecture, "os": Platform::OS, "variant": variant })
        }
    }
}

/// Returns an index of manifests, with annotations of its own if there are any.
///
/// # Errors
/// [`ImageError::Json`] when an entry that was there before has no canonical form.
pub fn index(
    entries: &[Value],
    annotations: &BTreeMap<String, String>,
) -> Result<Document, ImageError> {
    let mut index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": entries,
    });
    if !annotations.is_empty()
        && let Some(members) = index.as_object_mut()
    {
        members.insert("annotations".to_owned(), json!(annotations));
    }
    Document::new("index", &index)
}
