//! Index, manifest and configuration from JSON of unknown makers.
//!
//! JSON is parsed whole, from a bounded text; nesting ends at 128 levels. A document is an
//! index or a manifest, never both: one digest must not be read in two ways
//! (CVE-2021-41190).

use std::collections::BTreeMap;

use serde_json::Value;

use super::InspectError;
use super::limits::{MAX_LAYERS, MAX_MANIFESTS};
use crate::hash::Sha256Digest;
use crate::image::manifest::{INDEX_TYPE, MANIFEST_TYPE};
use crate::listing::image::Configuration;

/// A processor and operating system, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    /// The operating system: `linux`.
    pub os: String,
    /// The processor: `amd64`.
    pub architecture: String,
    /// Which kind of it: `v7`.
    pub variant: Option<String>,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl std::str::FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (*os, *architecture, None),
            [os, architecture, variant] => (*os, *architecture, Some(*variant)),
            _ => ("", "", None),
        };
        if os.is_empty() || architecture.is_empty() || variant == Some("") {
            return Err(format!("`{text}` is not a platform; write `linux/amd64`"));
        }
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        })
    }
}

impl Platform {
    /// Returns whether a platform is meant; one without a variant means all.
    pub fn means(&self, other: &Self) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant.is_none() || self.variant == other.variant)
    }
}

/// What names a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// How its bytes are to be read.
    pub media_type: String,
    /// Its digest; `None` in a Docker archive, which names files.
    pub digest: Option<Sha256Digest>,
    /// Its length.
    pub size_bytes: u64,
    /// Where it is in the source, if not under its digest.
    pub member: Option<String>,
    /// Where it runs.
    pub platform: Option<Platform>,
    /// Its tag.
    pub tag: Option<String>,
    /// What it is, if it is a document that refers to an image.
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// Names a member of an archive, of which nothing but its length is said.
    pub fn of_member(name: &str, size_bytes: u64) -> Self {
        Self {
            media_type: String::new(),
            digest: None,
            size_bytes,
            member: Some(name.to_owned()),
            platform: None,
            tag: None,
            artifact_type: None,
        }
    }
}

/// A document that leads to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// A list of manifests.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest(Box<Manifest>),
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

const INDEX_TYPES: [&str; 2] = [
    INDEX_TYPE,
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

const MANIFEST_TYPES: [&str; 2] = [
    MANIFEST_TYPE,
    "application/vnd.docker.distribution.manifest.v2+json",
];

const CONFIG_TYPES: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

/// Media types of layers; what compresses them is told by their first bytes.
const LAYER_TYPES: [&str; 9] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

fn invalid(document: &str, problem: impl Into<String>) -> InspectError {
    InspectError::Document {
        document: document.to_owned(),
        problem: problem.into(),
    }
}

fn parse(document: &str, bytes: &[u8]) -> Result<Value, InspectError> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| invalid(document, error.to_string()))?;
    if value.is_object() {
        return Ok(value);
    }
    Err(invalid(document, "it is not a JSON object"))
}

/// Reads an index or a manifest; `expected` is what its descriptor says it is.
///
/// # Errors
/// [`InspectError::Document`].
pub fn document(bytes: &[u8], expected: Option<&str>) -> Result<Document, InspectError> {
    let value = parse("manifest", bytes)?;
    let (has_index, has_manifest) = (
        value.get("manifests").is_some(),
        value.get("layers").is_some() || value.get("config").is_some(),
    );
    if has_index && has_manifest {
        let problem = "it is an index and a manifest at once";
        return Err(invalid("manifest", problem));
    }
    let own = match value.get("mediaType") {
        None => None,
        Some(Value::String(text)) => Some(text.as_str()),
        Some(_) => return Err(invalid("manifest", "its `mediaType` is not a text")),
    };
    if let (Some(own), Some(expected)) = (own, expected)
        && own != expected
    {
        let problem = format!("it says that it is `{own}`, and its descriptor `{expected}`");
        return Err(invalid("manifest", problem));
    }
    let media_type = own.or(expected).unwrap_or(if has_index {
        INDEX_TYPES[0]
    } else {
        MANIFEST_TYPES[0]
    });
    if INDEX_TYPES.contains(&media_type) {
        let manifests = list("index", &value, "manifests", MAX_MANIFESTS)?;
        return Ok(Document::Index(manifests));
    }
    if !MANIFEST_TYPES.contains(&media_type) {
        let problem = format!("`{media_type}` is not a media type of a manifest or index");
        return Err(invalid("manifest", problem));
    }
    let config = value
        .get("config")
        .ok_or_else(|| invalid("manifest", "it has no `config`"))?;
    let config = descriptor("manifest", config)?;
    if !CONFIG_TYPES.contains(&config.media_type.as_str()) {
        let problem = format!("`{}` is not an image's configuration", config.media_type);
        return Err(invalid("manifest", problem));
    }
    let layers = list("manifest", &value, "layers", MAX_LAYERS)?;
    if let Some(layer) = layers
        .iter()
        .find(|layer| !LAYER_TYPES.contains(&layer.media_type.as_str()))
    {
        let problem = format!("`{}` is not a media type of a layer", layer.media_type);
        return Err(invalid("manifest", problem));
    }
    Ok(Document::Manifest(Box::new(Manifest { config, layers })))
}

/// Reads the manifest of a document that refers to an image: what it refers to, and its
/// blobs.
///
/// # Errors
/// [`InspectError::Document`].
pub fn artifact(bytes: &[u8]) -> Result<(Option<Sha256Digest>, Vec<Descriptor>), InspectError> {
    let value = parse("manifest", bytes)?;
    let subject = value.pointer("/subject/digest").and_then(Value::as_str);
    let mut blobs = list("manifest", &value, "layers", MAX_LAYERS)?;
    if let Some(config) = value.get("config") {
        blobs.push(descriptor("manifest", config)?);
    }
    Ok((subject.and_then(sha256), blobs))
}

fn list(
    document: &str,
    value: &Value,
    key: &str,
    most: usize,
) -> Result<Vec<Descriptor>, InspectError> {
    let items = value
        .get(key)
        .and_then(Value::as_array)
        .ok_or_else(|| invalid(document, format!("it has no list `{key}`")))?;
    if items.len() > most {
        let problem = format!("`{key}` has {} entries; {most} are read", items.len());
        return Err(invalid(document, problem));
    }
    items
        .iter()
        .map(|item| descriptor(document, item))
        .collect()
}

fn descriptor(document: &str, value: &Value) -> Result<Descriptor, InspectError> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let digest = text("digest").ok_or_else(|| invalid(document, "a descriptor has no `digest`"))?;
    let digest = sha256(digest).ok_or_else(|| {
        let shown: String = digest.chars().take(80).collect();
        invalid(document, format!("`{shown}` is not a SHA-256 digest"))
    })?;
    let size_bytes = value
        .get("size")
        .and_then(Value::as_u64)
        .ok_or_else(|| invalid(document, "a descriptor has no `size`"))?;
    let platform = value.get("platform").and_then(|platform| {
        let part = |key: &str| platform.get(key).and_then(Value::as_str);
        Some(Platform {
            os: part("os")?.to_owned(),
            architecture: part("architecture")?.to_owned(),
            variant: part("variant").map(str::to_owned),
        })
    });
    let tag = value
        .pointer("/annotations/org.opencontainers.image.ref.name")
        .and_then(Value::as_str);
    Ok(Descriptor {
        media_type: text("mediaType").unwrap_or_default().to_owned(),
        digest: Some(digest),
        size_bytes,
        member: None,
        platform,
        tag: tag.map(str::to_owned),
        artifact_type: text("artifactType").map(str::to_owned),
    })
}

fn sha256(text: &str) -> Option<Sha256Digest> {
    text.strip_prefix("sha256:")?.parse().ok()
}

/// An image of a Docker archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerImage {
    /// The member that holds the configuration.
    pub config: String,
    /// The members that hold the layers, lowest first.
    pub layers: Vec<String>,
    /// Its names: `debian:12`.
    pub tags: Vec<String>,
}

/// Reads a Docker archive's `manifest.json`.
///
/// # Errors
/// [`InspectError::Document`].
pub fn docker_manifest(bytes: &[u8]) -> Result<Vec<DockerImage>, InspectError> {
    #[derive(serde::Deserialize)]
    struct Item {
        #[serde(rename = "Config")]
        config: String,
        #[serde(rename = "RepoTags", default)]
        tags: Option<Vec<String>>,
        #[serde(rename = "Layers")]
        layers: Vec<String>,
    }
    let items: Vec<Item> = serde_json::from_slice(bytes)
        .map_err(|error| invalid("`manifest.json`", error.to_string()))?;
    if items.iter().any(|item| item.layers.len() > MAX_LAYERS) {
        let problem = format!("an image has more than {MAX_LAYERS} layers");
        return Err(invalid("`manifest.json`", problem));
    }
    Ok(items
        .into_iter()
        .map(|item| DockerImage {
            config: item.config,
            layers: item.layers,
            tags: item.tags.unwrap_or_default(),
        })
        .collect())
}

/// A configuration and the digests of its layers' tars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configured {
    /// What rules read.
    pub configuration: Configuration,
    /// The SHA-256 of each layer's tar, lowest first.
    pub diff_ids: Vec<Sha256Digest>,
    /// Which kind of its processor it runs on.
    pub variant: Option<String>,
}

/// Reads an image's configuration.
///
/// # Errors
/// [`InspectError::Document`].
pub fn configuration(bytes: &[u8]) -> Result<Configured, InspectError> {
    const NAME: &str = "configuration";
    let value = parse(NAME, bytes)?;
    let diff_ids = value
        .pointer("/rootfs/diff_ids")
        .and_then(Value::as_array)
        .ok_or_else(|| invalid(NAME, "it has no `rootfs.diff_ids`"))?;
    if diff_ids.len() > MAX_LAYERS {
        let problem = format!("it has more than {MAX_LAYERS} layers");
        return Err(invalid(NAME, problem));
    }
    let diff_ids = diff_ids
        .iter()
        .map(|id| {
            id.as_str()
                .and_then(sha256)
                .ok_or_else(|| invalid(NAME, "a `diff_id` is not a SHA-256 digest"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let top = |key: &str| text(value.get(key));
    let empty = Value::Null;
    let config = value.get("config").unwrap_or(&empty);
    let part = |key: &str| config.get(key);
    let configuration = Configuration {
        architecture: top("architecture"),
        os: top("os"),
        user: text(part("User")),
        environment: texts(part("Env")),
        entrypoint: texts(part("Entrypoint")),
        command: texts(part("Cmd")),
        working_directory: text(part("WorkingDir")),
        labels: part("Labels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), text(Some(value))))
            .collect::<BTreeMap<_, _>>(),
        volumes: keys(part("Volumes")),
        ports: keys(part("ExposedPorts")),
        history: value
            .get("history")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|step| text(step.get("created_by")))
            .collect(),
    };
    let variant = value.get("variant").and_then(Value::as_str);
    Ok(Configured {
        configuration,
        diff_ids,
        variant: variant.map(str::to_owned),
    })
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|item| text(Some(item)))
        .collect()
}

fn keys(value: Option<&Value>) -> std::collections::BTreeSet<String> {
    value
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, _)| key.clone())
        .collect()
}
