//! Documents that refer to an image, as manifests of their own. Pure.
//!
//! A referrer is a manifest with a `subject` and an `artifactType` (OCI image specification
//! 1.1, "Guidelines for Artifact Usage"); its only layer is the document. In a layout it
//! stands in the index beside the image, without a tag.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::ImageError;
use super::manifest::{CREATED, Document, MANIFEST_TYPE};
use super::parcel::Manifest;
use crate::hash::Sha256Digest;

/// The media type of the empty configuration, and its bytes.
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";

/// The annotation of an index's entry that names the manifest which it refers to: whoever
/// changes the index need not read every manifest.
pub(super) const SUBJECT: &str = "kiln.subject";

/// A document that refers to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    /// Its manifest.
    pub manifest: Document,
    /// The document.
    pub content: Document,
    media_type: String,
    subject: Sha256Digest,
}

impl Referrer {
    /// Makes the manifest of a document of a media type. `title` is a file name for it.
    ///
    /// # Errors
    /// [`ImageError::Json`]; a manifest has a canonical form, so never.
    pub fn new(
        subject: &Document,
        media_type: &str,
        title: &str,
        content: Vec<u8>,
    ) -> Result<Self, ImageError> {
        let content = Document {
            digest: Sha256Digest::of(&content),
            bytes: content,
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": media_type,
            "config": {
                "mediaType": EMPTY_TYPE,
                "digest": format!("sha256:{}", Sha256Digest::of(EMPTY)),
                "size": EMPTY.len(),
            },
            "layers": [{
                "mediaType": media_type,
                "digest": format!("sha256:{}", content.digest),
                "size": content.bytes.len(),
                "annotations": { "org.opencontainers.image.title": title },
            }],
            "subject": {
                "mediaType": MANIFEST_TYPE,
                "digest": format!("sha256:{}", subject.digest),
                "size": subject.bytes.len(),
            },
            "annotations": { "org.opencontainers.image.created": CREATED },
        });
        Ok(Self {
            manifest: Document::new("referrer", &manifest)?,
            content,
            media_type: media_type.to_owned(),
            subject: subject.digest,
        })
    }

    /// Returns the blobs that its manifest names.
    pub(super) fn blobs(&self) -> [(Sha256Digest, &[u8]); 2] {
        [
            (Sha256Digest::of(EMPTY), EMPTY),
            (self.content.digest, &self.content.bytes),
        ]
    }

    /// Returns the index entry that names it.
    pub(super) fn index_entry(&self) -> Value {
        let manifest = Manifest::new(MANIFEST_TYPE, &self.manifest);
        index_entry(&manifest, &self.media_type, self.subject)
    }
}

/// Returns the entry of a layout's index that names a manifest which refers to another.
pub fn index_entry(manifest: &Manifest<'_>, artifact_type: &str, subject: Sha256Digest) -> Value {
    json!({
        "mediaType": manifest.media_type,
        "digest": format!("sha256:{}", manifest.digest),
        "size": manifest.bytes.len(),
        "artifactType": artifact_type,
        "annotations": { SUBJECT: format!("sha256:{subject}") },
    })
}

/// Removes the entries of an index that refer to a manifest which neither the index nor one
/// in it has (those are `below`), and those that stand there twice; the others that refer
/// to one come last.
pub(super) fn prune(entries: &mut Vec<Value>, below: &BTreeSet<String>) {
    let text = |entry: &Value, pointer: &str| {
        entry
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let subject = format!("/annotations/{SUBJECT}");
    let there: Vec<String> = entries
        .iter()
        .filter_map(|entry| text(entry, "/digest"))
        .collect();
    let mut seen = BTreeSet::new();
    entries.retain(|entry| match text(entry, &subject) {
        Some(subject) => {
            (there.contains(&subject) || below.contains(&subject))
                && seen.insert(text(entry, "/digest"))
        }
        None => true,
    });
    entries.sort_by_key(|entry| text(entry, &subject).is_some());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_referrer_names_its_subject_and_its_document() {
        let subject = Document::new("manifest", &json!({ "schemaVersion": 2 })).unwrap();
        let referrer = Referrer::new(
            &subject,
            "application/spdx+json",
            "web.json",
            b"{}".to_vec(),
        )
        .unwrap();
        insta::assert_snapshot!(String::from_utf8(referrer.manifest.bytes.clone()).unwrap());
        assert_eq!(
            referrer.index_entry()["artifactType"],
            json!("application/spdx+json")
        );
    }

    #[test]
    fn a_referrer_goes_with_its_subject() {
        let image = json!({ "digest": "sha256:a" });
        let of = |subject: &str, digest: &str| json!({ "digest": digest, "annotations": { SUBJECT: subject } });
        let mut entries = vec![
            of("sha256:a", "sha256:1"),
            image.clone(),
            of("sha256:gone", "sha256:2"),
            of("sha256:a", "sha256:1"),
            of("sha256:inside", "sha256:3"),
        ];
        prune(&mut entries, &BTreeSet::from(["sha256:inside".to_owned()]));
        let kept = [of("sha256:a", "sha256:1"), of("sha256:inside", "sha256:3")];
        assert_eq!(entries, [vec![image], kept.to_vec()].concat());
    }
}
