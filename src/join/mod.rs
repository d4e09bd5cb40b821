//! One image for several platforms, of images that were built each on its own.
//!
//! In: images of any maker, one or more platforms each, as [`inspect`](crate::inspect)
//! opens them. Out: an index that names their manifests as they are, sorted by platform,
//! and all that they lead to. What always holds: every document and blob has the digest
//! and size that named it; no platform is there twice; the index depends on the manifests
//! and the platforms that they are for, not on the order in which they were named.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;

use crate::derivation::Platform as RunsOn;
use crate::hash::Sha256Digest;
use crate::hash::copy::{CopyError, copy_hashing};
use crate::image::manifest as documents;
use crate::image::parcel::{Blob, Manifest, Parcel};
use crate::image::{ImageError, referrer};
use crate::inspect::choose::{self, Meant};
use crate::inspect::document::{self, Descriptor, Platform};
use crate::inspect::source::Opened;
use crate::inspect::{InspectError, Progress, limits};

/// Images that cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// One of them cannot be read.
    #[error("`{image}` cannot be read")]
    Unreadable {
        /// Which.
        image: String,
        /// Why.
        source: InspectError,
    },
    /// One that has no manifest that an index could name.
    #[error("`{0}` is a Docker archive, whose images have no manifest")]
    NoManifest(String),
    /// Two of them run on the same platform.
    #[error("`{first}` and `{second}` are both for `{platform}`")]
    SamePlatform {
        /// The platform.
        platform: Platform,
        /// The one that was named first.
        first: String,
        /// The other.
        second: String,
    },
    /// One that is for another operating system.
    #[error("`{image}` is for `{platform}`, and only images for Linux are joined")]
    NotLinux {
        /// Which.
        image: String,
        /// What it is for.
        platform: Platform,
    },
    /// A file of this machine.
    #[error("cannot write `{}`", path.display())]
    Access {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The index has no canonical form.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// An image to be joined.
pub struct Part {
    /// What the user called it.
    pub name: String,
    /// Where it is.
    pub opened: Opened,
}

/// Several images under one index.
#[derive(Debug)]
pub struct Joined {
    /// The index.
    pub index: documents::Document,
    /// The title that all images share, if they do.
    pub title: Option<String>,
    /// The images by platform, and the digest of each one's manifest.
    pub platforms: BTreeMap<Platform, Sha256Digest>,
    images: Vec<Meant>,
    referrers: Vec<(Meant, Sha256Digest)>,
    blobs: BTreeMap<Sha256Digest, (PathBuf, u64)>,
}

impl Joined {
    /// Returns what goes to a place.
    pub fn parcel(&self) -> Parcel<'_> {
        let mut parcel = Parcel::of_index(self.title.as_deref(), &self.index);
        parcel.below.extend(self.images.iter().map(manifest_of));
        for (meant, subject) in &self.referrers {
            let manifest = manifest_of(meant);
            let kind = meant.descriptor.artifact_type.as_deref().unwrap_or("");
            let entry = referrer::index_entry(&manifest, kind, *subject);
            parcel.beside.push((manifest, entry));
        }
        for (digest, (path, size_bytes)) in &self.blobs {
            let blob = Blob::File(path.clone(), *size_bytes);
            parcel.blobs.insert(*digest, blob);
        }
        parcel
    }
}

fn manifest_of(meant: &Meant) -> Manifest<'_> {
    Manifest {
        media_type: &meant.descriptor.media_type,
        bytes: &meant.bytes,
        digest: meant.digest,
    }
}

/// Joins images; their blobs are put into a directory, checked.
///
/// # Errors
/// [`JoinError`]; the first in the order in which they are named.
pub fn join(
    parts: &[Part],
    directory: &Path,
    progress: &dyn Progress,
) -> Result<Joined, JoinError> {
    let mut images = BTreeMap::new();
    let mut referrers = BTreeMap::new();
    let mut wanted = Wanted::new();
    for (number, part) in parts.iter().enumerate() {
        let unreadable = |source| JoinError::Unreadable {
            image: part.name.clone(),
            source,
        };
        let opened = &part.opened;
        let Some(meant) = choose::every(opened).map_err(unreadable)? else {
            return Err(JoinError::NoManifest(part.name.clone()));
        };
        for image in meant {
            let document::Manifest { config, layers } = image.manifest().map_err(unreadable)?;
            let platform = platform(opened, &image, &config).map_err(unreadable)?;
            for blob in [config].into_iter().chain(layers) {
                want(&mut wanted, number, blob).map_err(unreadable)?;
            }
            // Others have versions of an operating system beside the platform.
            if platform.os != "linux" {
                return Err(JoinError::NotLinux {
                    image: part.name.clone(),
                    platform,
                });
            }
            let subject = image.digest;
            for referrer in choose::referring(opened, subject).map_err(unreadable)? {
                let (_, blobs) = document::artifact(&referrer.bytes).map_err(unreadable)?;
                for blob in blobs {
                    want(&mut wanted, number, blob).map_err(unreadable)?;
                }
                referrers.insert(referrer.digest, (referrer, subject));
            }
            if let Some((first, other)) = images.insert(platform.clone(), (number, image))
                && other.digest != subject
            {
                return Err(JoinError::SamePlatform {
                    platform,
                    first: parts
                        .get(first)
                        .map_or(String::new(), |part| part.name.clone()),
                    second: part.name.clone(),
                });
            }
        }
    }
    let sizes = wanted.values().map(|(_, blob)| blob.size_bytes);
    progress.total(sizes.fold(0, u64::saturating_add));
    let blobs = wanted
        .into_values()
        .collect::<Vec<_>>()
        .into_par_iter()
        .filter_map(|(number, blob)| Some((parts.get(number)?, blob)))
        .map(|(part, blob)| fetch(part, &blob, directory, progress))
        .collect::<Vec<_>>()
        .into_iter()
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    let shared = shared_annotations(images.values().map(|(_, image)| image.bytes.as_slice()));
    let entry = |(platform, (_, image)): (&Platform, &(usize, Meant))| {
        let runs_on = RunsOn {
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
        };
        documents::index_entry(&manifest_of(image), Some(&runs_on), None)
    };
    let entries: Vec<Value> = images.iter().map(entry).collect();
    Ok(Joined {
        index: documents::index(&entries, &shared)?,
        title: shared.get(TITLE).cloned(),
        platforms: images
            .iter()
            .map(|(platform, (_, image))| (platform.clone(), image.digest))
            .collect(),
        images: images.into_values().map(|(_, image)| image).collect(),
        referrers: referrers.into_values().collect(),
        blobs,
    })
}

const TITLE: &str = "org.opencontainers.image.title";

/// Returns the annotations that all manifests have, with the same values.
fn shared_annotations<'a>(manifests: impl Iterator<Item = &'a [u8]>) -> BTreeMap<String, String> {
    let mut shared: Option<BTreeMap<String, String>> = None;
    for bytes in manifests {
        let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let own: BTreeMap<String, String> = value
            .get("annotations")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        shared = Some(match shared {
            None => own,
            Some(mut shared) => {
                shared.retain(|key, value| own.get(key) == Some(value));
                shared
            }
        });
    }
    shared.unwrap_or_default()
}

/// Returns where an image runs: its configuration says it; the variant, which not all
/// makers write there, may stand in what names the manifest.
fn platform(opened: &Opened, image: &Meant, config: &Descriptor) -> Result<Platform, InspectError> {
    let bytes = opened.blobs.document(config, limits::MAX_DOCUMENT)?;
    let own = document::configuration(&bytes)?;
    let outer = image.descriptor.platform.as_ref();
    Ok(Platform {
        os: own.configuration.os,
        architecture: own.configuration.architecture,
        variant: own
            .variant
            .or_else(|| outer.and_then(|platform| platform.variant.clone())),
    })
}

/// Blobs to fetch, each with the number of the part that it is fetched from.
type Wanted = BTreeMap<Option<Sha256Digest>, (usize, Descriptor)>;

/// Adds a blob that a part names. Two that have one digest must have one size.
fn want(wanted: &mut Wanted, number: usize, blob: Descriptor) -> Result<(), InspectError> {
    let name = || {
        blob.digest
            .map_or_else(String::new, |digest| format!("`sha256:{digest}`"))
    };
    if blob.size_bytes > limits::MAX_LAYER {
        return Err(InspectError::TooLarge {
            what: format!("the blob {}", name()),
            limit: format!("{} bytes", limits::MAX_LAYER),
        });
    }
    match wanted.get(&blob.digest) {
        Some((_, known)) if known.size_bytes != blob.size_bytes => Err(InspectError::Damaged {
            blob: name(),
            problem: format!(
                "it is said to have {} bytes here and {} elsewhere",
                blob.size_bytes, known.size_bytes
            ),
        }),
        Some(_) => Ok(()),
        None => {
            wanted.insert(blob.digest, (number, blob));
            Ok(())
        }
    }
}

/// Copies a blob into a directory, and checks it on the way.
fn fetch(
    part: &Part,
    blob: &Descriptor,
    directory: &Path,
    progress: &dyn Progress,
) -> Result<(Sha256Digest, (PathBuf, u64)), JoinError> {
    let unreadable = |source| JoinError::Unreadable {
        image: part.name.clone(),
        source,
    };
    let name = blob.digest.map(|digest| digest.to_string());
    let name = name.unwrap_or_default();
    let path = directory.join(&name);
    let failed = |source| JoinError::Access {
        path: path.clone(),
        source,
    };
    let opened = part.opened.blobs.open(blob).map_err(unreadable)?;
    let mut to = File::create_new(&path).map_err(failed)?;
    let mut told = 0;
    let copied = copy_hashing(
        &mut opened.take(blob.size_bytes.saturating_add(1)),
        &mut to,
        |copied| {
            progress.read(copied - told);
            told = copied;
        },
    );
    let (found, length) = copied.map_err(|error| match error {
        CopyError::Read(source, _) => unreadable(InspectError::Access {
            name: format!("the blob `sha256:{name}`"),
            source,
        }),
        CopyError::Write(source) => failed(source),
    })?;
    crate::inspect::stream::check(&format!("`sha256:{name}`"), blob, length, found)
        .map_err(unreadable)?;
    crate::store::finish(&to).map_err(failed)?;
    Ok((found, (path, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_has_one_size_and_not_any() {
        let blob = |size_bytes| Descriptor {
            digest: Some(Sha256Digest::of(b"x")),
            member: None,
            ..Descriptor::of_member("", size_bytes)
        };
        let mut wanted = Wanted::new();
        want(&mut wanted, 0, blob(1)).unwrap();
        want(&mut wanted, 1, blob(1)).unwrap();
        assert_eq!(wanted.values().next().unwrap().0, 0);
        let damaged = want(&mut wanted, 1, blob(7)).unwrap_err().to_string();
        assert!(
            damaged.contains("7 bytes here and 1 elsewhere"),
            "{damaged}"
        );
        let large = want(&mut wanted, 1, blob(u64::MAX)).unwrap_err();
        assert!(matches!(large, InspectError::TooLarge { .. }), "{large}");
    }

    #[test]
    fn annotations_are_shared_only_with_the_same_value() {
        let one = br#"{"annotations": {"a": "1", "b": "2"}}"#.as_slice();
        let other = br#"{"annotations": {"a": "1", "b": "3", "c": "4"}}"#.as_slice();
        let shared = |manifests: &[&'static [u8]]| shared_annotations(manifests.iter().copied());
        assert_eq!(
            shared(&[one, other]),
            [("a".to_owned(), "1".to_owned())].into()
        );
        assert_eq!(shared(&[one]).len(), 2);
        assert!(shared(&[one, b"{}"]).is_empty());
    }
}
