//! Names that others know: package URLs, and numbers of documents.

use packageurl::PackageUrl;
use serde_json::Value;

use crate::hash::Sha256Digest;
use crate::hash::json::{JsonError, canonical};
use crate::plan::crate_at;

/// Returns the package URL of something that was released as a file: that of the crate if
/// it comes from the registry of crates, else `pkg:generic/…`.
///
/// An address that anyone can open comes before one on a mirror.
pub fn released(
    name: &str,
    version: Option<&str>,
    urls: &[String],
    sha256: Option<Sha256Digest>,
) -> Option<String> {
    if let Some((name, version)) = urls.iter().find_map(|url| crate_at(url)) {
        return cargo(name, version);
    }
    let mut purl = PackageUrl::new("generic", name).ok()?;
    if let Some(version) = version {
        purl.with_version(version.to_owned()).ok()?;
    }
    let public = urls.iter().find(|url| url.starts_with("https://"));
    if let Some(url) = public.or(urls.first()) {
        purl.add_qualifier("download_url", url.clone()).ok()?;
    }
    if let Some(sha256) = sha256 {
        purl.add_qualifier("checksum", format!("sha256:{sha256}"))
            .ok()?;
    }
    Some(purl.to_string())
}

/// Returns the package URL of a Debian package: `pkg:deb/debian/…`. The architecture is
/// what its file's name says.
pub fn debian(name: &str, version: &str, file: &str) -> Option<String> {
    let mut purl = PackageUrl::new("deb", name).ok()?;
    purl.with_namespace("debian").ok()?;
    purl.with_version(version.to_owned()).ok()?;
    if let Some((_, architecture)) = file
        .strip_suffix(".deb")
        .and_then(|stem| stem.rsplit_once('_'))
    {
        purl.add_qualifier("arch", architecture.to_owned()).ok()?;
    }
    Some(purl.to_string())
}

/// Returns the package URL of a crate of the public registry: `pkg:cargo/…`.
pub fn cargo(name: &str, version: &str) -> Option<String> {
    let mut purl = PackageUrl::new("cargo", name).ok()?;
    purl.with_version(version.to_owned()).ok()?;
    Some(purl.to_string())
}

/// Returns the number of a document: a UUID of version 8 (RFC 9562) made of the SHA-256 of
/// all it says, so that equal documents have equal numbers and others have not.
///
/// # Errors
/// [`JsonError`] when the content has no canonical form.
pub fn number(content: &Value) -> Result<String, JsonError> {
    let mut bytes = [0_u8; 16];
    let digest = Sha256Digest::of(&canonical(content)?);
    for (to, from) in bytes.iter_mut().zip(digest.as_bytes()) {
        *to = *from;
    }
    bytes[6] = 0x80 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    Ok(format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn package_urls_are_encoded_as_the_specification_has_it() {
        let sha256 = Sha256Digest::from_bytes([0xab; 32]);
        let urls = [
            "mirror://debian/x".to_owned(),
            "https://a.example/x?y=1&z".to_owned(),
        ];
        assert_eq!(
            released("lib x", Some("1.2+b"), &urls, Some(sha256)).unwrap(),
            format!(
                "pkg:generic/lib%20x@1.2%2Bb?checksum=sha256:{sha256}&download_url=https:%2F%2Fa.example%2Fx%3Fy%3D1%26z"
            )
        );
        assert_eq!(
            debian(
                "libgmp10",
                "2:6.2.1+dfsg1-1.1",
                "libgmp10_6.2.1+dfsg1-1.1_amd64.deb"
            )
            .unwrap(),
            "pkg:deb/debian/libgmp10@2:6.2.1%2Bdfsg1-1.1?arch=amd64"
        );
        assert_eq!(
            released(
                "zstd",
                None,
                &["mirror://crates/zstd-sys/2.1.3+zstd.1.5.7/download".to_owned()],
                Some(sha256)
            )
            .unwrap(),
            "pkg:cargo/zstd-sys@2.1.3%2Bzstd.1.5.7"
        );
    }

    #[test]
    fn numbers_follow_from_the_content() {
        let number = |value: Value| number(&value).unwrap();
        let first = number(json!({ "a": 1, "b": 2 }));
        assert_eq!(first, number(json!({ "b": 2, "a": 1 })));
        assert_ne!(first, number(json!({ "a": 2, "b": 2 })));
        assert_eq!(first.len(), 36);
        assert_eq!(first.as_bytes().get(14), Some(&b'8'));
    }
}
