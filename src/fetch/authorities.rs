//! Whose certificates are trusted, where sources are fetched and where registries are spoken
//! to.
//!
//! A machine may stand behind a proxy that speaks for every host with a certificate of its
//! own, which its administrator has put into the system's list. So that list counts where
//! there is one, and the list that comes with the TLS library where there is none.

use std::path::PathBuf;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Largest list that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Returns the settings that trust what the first usable file holds; where none is usable,
/// what is known to every browser.
pub fn trust(files: &[PathBuf]) -> TlsConfig {
    let found = files
        .iter()
        .map(|path| certificates(path))
        .find(|found| !found.is_empty());
    let roots = found.map_or(RootCerts::WebPki, |found| RootCerts::new_with_certs(&found));
    TlsConfig::builder().root_certs(roots).build()
}

/// Returns the certificates of a file in PEM; what is none is left out.
fn certificates(path: &PathBuf) -> Vec<Certificate<'static>> {
    let small = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() <= MAX_FILE);
    let bytes = if small {
        std::fs::read(path).unwrap_or_default()
    } else {
        Vec::new()
    };
    parse_pem(&bytes)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn count(files: &[PathBuf]) -> Option<usize> {
        match trust(files).root_certs() {
            RootCerts::Specific(found) => Some(found.len()),
            _ => None,
        }
    }

    #[test]
    fn the_first_file_with_certificates_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("empty"), "").unwrap();
        std::fs::write(path("words"), "no certificate").unwrap();
        std::fs::write(path("two"), PEM.repeat(2)).unwrap();
        std::fs::write(path("one"), PEM).unwrap();
        let files = ["missing", "empty", "words", "two", "one"].map(path);
        assert_eq!(count(&files), Some(2));
        assert_eq!(count(&files[..3]), None);
        assert_eq!(count(&[]), None);
    }
}
