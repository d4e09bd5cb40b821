//! Which of a source's images is meant.

use super::document::{self, Descriptor, Document, Manifest, Platform};
use super::limits::{MAX_DOCUMENT, MAX_INDEX_DEPTH, MAX_MANIFESTS};
use super::source::{Opened, Top};
use super::{InspectError, source};
use crate::hash::Sha256Digest;

/// The image that is meant.
#[derive(Debug)]
pub struct Chosen {
    /// Its manifest.
    pub manifest: Manifest,
    /// What identifies it.
    pub digest: Sha256Digest,
    /// Its tag.
    pub tag: Option<String>,
}

/// A manifest that could be meant.
struct Candidate {
    descriptor: Descriptor,
    tag: Option<String>,
}

/// A manifest as its maker wrote it.
#[derive(Debug, Clone)]
pub struct Meant {
    /// What named it.
    pub descriptor: Descriptor,
    /// Its bytes, checked.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Sha256Digest,
}

impl Meant {
    /// Returns what it says.
    ///
    /// # Errors
    /// [`InspectError::Document`], also for an index that was named as a manifest.
    pub fn manifest(&self) -> Result<Manifest, InspectError> {
        let media_type = Some(self.descriptor.media_type.as_str()).filter(|text| !text.is_empty());
        match document::document(&self.bytes, media_type)? {
            Document::Manifest(manifest) => Ok(*manifest),
            Document::Index(_) => Err(InspectError::Document {
                document: "manifest".to_owned(),
                problem: "it is an index, and its descriptor says otherwise".to_owned(),
            }),
        }
    }
}

/// Chooses by the tag that the source names and by the platform. Without a platform the
/// only one is taken, else `linux/amd64`.
///
/// # Errors
/// [`InspectError::NoSuchImage`] when none or several are left; those of the documents.
pub fn choose(opened: &Opened, platform: Option<&Platform>) -> Result<Chosen, InspectError> {
    match &opened.top {
        Top::Docker(images) => docker(opened, images),
        Top::Index(bytes) => pick(opened, candidates(opened, bytes)?, platform),
    }
}

/// Returns every image that the tag of a source means, of whatever platform; `None` for a
/// Docker archive, which has no manifests.
///
/// # Errors
/// [`InspectError::NoSuchImage`] when there is none; those of the documents.
pub fn every(opened: &Opened) -> Result<Option<Vec<Meant>>, InspectError> {
    let Top::Index(bytes) = &opened.top else {
        return Ok(None);
    };
    let candidates = candidates(opened, bytes)?;
    if candidates.is_empty() {
        return Err(InspectError::NoSuchImage {
            what: "no manifest at all".to_owned(),
            known: Vec::new(),
        });
    }
    let read = candidates
        .into_iter()
        .map(|candidate| read(opened, candidate.descriptor));
    read.collect::<Result<_, _>>().map(Some)
}

/// Returns the manifests beside an image that refer to it.
///
/// # Errors
/// Those of the documents.
pub fn referring(opened: &Opened, subject: Sha256Digest) -> Result<Vec<Meant>, InspectError> {
    let Top::Index(bytes) = &opened.top else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in listed(bytes)? {
        if entry.artifact_type.is_none() {
            continue;
        }
        let meant = read(opened, entry)?;
        if document::artifact(&meant.bytes)?.0 == Some(subject) {
            found.push(meant);
        }
    }
    Ok(found)
}

fn read(opened: &Opened, descriptor: Descriptor) -> Result<Meant, InspectError> {
    let bytes = opened.blobs.document(&descriptor, MAX_DOCUMENT)?;
    Ok(Meant {
        digest: Sha256Digest::of(&bytes),
        descriptor,
        bytes,
    })
}

/// Returns what an index of a source lists.
fn listed(bytes: &[u8]) -> Result<Vec<Descriptor>, InspectError> {
    match document::document(bytes, None)? {
        Document::Index(listed) => Ok(listed),
        Document::Manifest(_) => Err(InspectError::Document {
            document: "`index.json`".to_owned(),
            problem: "it is a manifest, and should be an index".to_owned(),
        }),
    }
}

/// Returns the images that the tag of a source means.
fn candidates(opened: &Opened, bytes: &[u8]) -> Result<Vec<Candidate>, InspectError> {
    let listed = listed(bytes)?;
    let meant: Vec<Descriptor> = match &opened.tag {
        None => listed.clone(),
        Some(tag) => listed
            .iter()
            .filter(|entry| source::is_tag(entry.tag.as_deref(), tag))
            .cloned()
            .collect(),
    };
    if meant.is_empty() {
        let tag = opened.tag.clone().unwrap_or_default();
        return Err(InspectError::NoSuchImage {
            what: if listed.is_empty() {
                "no manifest at all".to_owned()
            } else {
                format!("no tag `{tag}`")
            },
            known: tags(&listed),
        });
    }
    let mut found = Vec::new();
    gather(opened, meant, None, 0, &mut found)?;
    // Attestations are listed beside images, for a platform that is none; other documents
    // say what they are.
    found.retain(|candidate| {
        let of = candidate.descriptor.platform.as_ref();
        candidate.descriptor.artifact_type.is_none()
            && of.is_none_or(|platform| platform.os != "unknown")
    });
    Ok(found)
}

fn tags(listed: &[Descriptor]) -> Vec<String> {
    let mut tags: Vec<String> = listed
        .iter()
        .filter_map(|entry| entry.tag.clone())
        .collect();
    tags.sort();
    tags.dedup();
    tags
}

/// Collects manifests out of indexes.
fn gather(
    opened: &Opened,
    entries: Vec<Descriptor>,
    tag: Option<&str>,
    depth: usize,
    found: &mut Vec<Candidate>,
) -> Result<(), InspectError> {
    for entry in entries {
        if found.len() >= MAX_MANIFESTS || depth > MAX_INDEX_DEPTH {
            return Err(InspectError::TooLarge {
                what: "the index".to_owned(),
                limit: format!("{MAX_MANIFESTS} manifests, {MAX_INDEX_DEPTH} indexes deep"),
            });
        }
        let tag = entry.tag.clone().or(tag.map(str::to_owned));
        if entry.media_type.contains("index") || entry.media_type.contains("manifest.list") {
            let bytes = opened.blobs.document(&entry, MAX_DOCUMENT)?;
            if let Document::Index(inner) = document::document(&bytes, Some(&entry.media_type))? {
                gather(opened, inner, tag.as_deref(), depth + 1, found)?;
            }
        } else {
            found.push(Candidate {
                descriptor: entry,
                tag,
            });
        }
    }
    Ok(())
}

fn pick(
    opened: &Opened,
    candidates: Vec<Candidate>,
    platform: Option<&Platform>,
) -> Result<Chosen, InspectError> {
    let mut left = candidates;
    let known: Vec<String> = left.iter().map(shown).collect();
    if let Some(wanted) = platform {
        // A single image need not say where it runs; its configuration does.
        left.retain(|candidate| match &candidate.descriptor.platform {
            Some(platform) => wanted.means(platform),
            None => known.len() == 1,
        });
    } else if left.len() > 1 {
        let usual = Platform {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            variant: None,
        };
        let is_usual = |candidate: &Candidate| {
            let of = candidate.descriptor.platform.as_ref();
            of.is_some_and(|platform| usual.means(platform))
        };
        if left.iter().filter(|candidate| is_usual(candidate)).count() == 1 {
            left.retain(is_usual);
        }
    }
    let digests: std::collections::BTreeSet<_> = left
        .iter()
        .filter_map(|candidate| candidate.descriptor.digest)
        .collect();
    let (Some(candidate), 1) = (left.into_iter().next(), digests.len()) else {
        return Err(InspectError::NoSuchImage {
            what: match (digests.len(), platform) {
                (0, Some(platform)) => format!("nothing for `{platform}`"),
                (0, None) => "no manifest at all".to_owned(),
                (several, _) => format!("{several} manifests, and none is named"),
            },
            known,
        });
    };
    let meant = read(opened, candidate.descriptor)?;
    Ok(Chosen {
        manifest: meant.manifest()?,
        digest: meant.digest,
        tag: candidate.tag,
    })
}

fn shown(candidate: &Candidate) -> String {
    let platform = candidate.descriptor.platform.as_ref();
    let parts = [candidate.tag.clone(), platform.map(Platform::to_string)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        "one without a tag".to_owned()
    } else {
        parts.join(" for ")
    }
}

fn docker(opened: &Opened, images: &[document::DockerImage]) -> Result<Chosen, InspectError> {
    let meant: Vec<&document::DockerImage> = images
        .iter()
        .filter(|image| match &opened.tag {
            None => true,
            Some(tag) => image.tags.iter().any(|own| source::is_tag(Some(own), tag)),
        })
        .collect();
    let [image] = meant.as_slice() else {
        return Err(InspectError::NoSuchImage {
            what: match (meant.len(), &opened.tag) {
                (0, Some(tag)) => format!("no tag `{tag}`"),
                (several, _) => format!("{several} manifests, and none is named"),
            },
            known: images.iter().flat_map(|image| image.tags.clone()).collect(),
        });
    };
    let describe = |member: &str| {
        let size_bytes = opened
            .blobs
            .size(member)
            .ok_or_else(|| InspectError::MissingBlob(member.to_owned()))?;
        Ok::<_, InspectError>(Descriptor::of_member(member, size_bytes))
    };
    let config = describe(&image.config)?;
    let bytes = opened.blobs.document(&config, MAX_DOCUMENT)?;
    let manifest = Manifest {
        config,
        layers: image
            .layers
            .iter()
            .map(|layer| describe(layer))
            .collect::<Result<_, _>>()?,
    };
    Ok(Chosen {
        manifest,
        digest: Sha256Digest::of(&bytes),
        tag: opened.tag.clone().or(image.tags.first().cloned()),
    })
}
