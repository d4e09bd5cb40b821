//! Crates: unpacking them as Cargo expects vendored ones, and what they say of themselves.
//!
//! A `.crate` is a tar archive in gzip whose members stand below `NAME-VERSION/`. Cargo
//! takes a directory of unpacked ones for a registry if each has a `.cargo-checksum.json`
//! with the hash of its `.crate`, which it compares with the lock file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::futimens;
use serde::Deserialize;

use super::FetchError;
use super::decompress;
use crate::hash::copy::copy_hashing;
use crate::tree::seal::TIMES;

/// The file in which Cargo looks for hashes.
const CHECKSUMS: &str = ".cargo-checksum.json";

/// Most bytes of a crate that are looked through for its manifest.
const MAX_STREAM: u64 = 256 << 20;

/// Largest manifest that is read, in bytes.
const MAX_MANIFEST: u64 = 1 << 20;

/// Unpacks a crate into an empty directory that exists.
///
/// The directory gets `.cargo-checksum.json` with the SHA-256 of the crate's own file and
/// no hashes of single files: those could only repeat what the one hash says.
///
/// # Errors
/// What [`super::unpack::unpack`] gives, and [`FetchError::Member`] for a crate that brings
/// such a file itself.
pub fn unpack(archive: &Path, into: &Path) -> Result<(), FetchError> {
    super::unpack::unpack(archive, into)?;
    let unreadable = |source| FetchError::Access {
        operation: "read",
        path: archive.to_owned(),
        source,
    };
    let mut file = File::open(archive).map_err(unreadable)?;
    let (sha256, _) = copy_hashing(&mut file, &mut io::sink(), |_| {})
        .map_err(|error| unreadable(error.into()))?;
    let path = into.join(CHECKSUMS);
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&path)
        .and_then(|mut file| {
            file.write_all(format!("{{\"files\":{{}},\"package\":\"{sha256}\"}}").as_bytes())?;
            futimens(&file, &TIMES)?;
            Ok(())
        });
    made.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => FetchError::Member {
            archive: archive.to_owned(),
            member: CHECKSUMS.to_owned(),
            problem: "is written when a crate is unpacked, and no crate brings it".to_owned(),
        },
        _ => FetchError::Access {
            operation: "write",
            path,
            source,
        },
    })
}

/// Returns the licence that the manifest of a crate states, as it is written there.
///
/// `None`: it states none, or there is no manifest that can be read within bounds.
///
/// # Errors
/// [`FetchError::Access`] when the file cannot be opened.
pub fn license(archive: &Path) -> Result<Option<String>, FetchError> {
    #[derive(Deserialize)]
    struct Manifest {
        package: Option<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        license: Option<String>,
    }
    let file = File::open(archive).map_err(|source| FetchError::Access {
        operation: "read",
        path: archive.to_owned(),
        source,
    })?;
    let text = manifest(file).ok().flatten();
    let manifest = text.and_then(|text| toml::from_str::<Manifest>(&text).ok());
    Ok(manifest
        .and_then(|manifest| manifest.package)
        .and_then(|package| package.license))
}

/// Returns the text of the first `NAME-VERSION/Cargo.toml`.
fn manifest(file: File) -> io::Result<Option<String>> {
    let stream = decompress::reader(file)?.take(MAX_STREAM);
    let mut tar = tar::Archive::new(stream);
    for entry in tar.entries()? {
        let entry = entry?;
        let path = entry.path_bytes();
        let mut parts = path.split(|byte| *byte == b'/').skip(1);
        if parts.next() == Some(b"Cargo.toml") && parts.next().is_none() {
            drop(path);
            let mut text = String::new();
            entry.take(MAX_MANIFEST).read_to_string(&mut text)?;
            return Ok(Some(text));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a directory that holds a crate of the given files.
    fn packed(files: &[(&str, &str)]) -> tempfile::TempDir {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("demo-1.0.0/{path}"), text.as_bytes())
                .unwrap();
        }
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar.into_inner().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("crate"), gzip.finish().unwrap()).unwrap();
        std::fs::create_dir(directory.path().join("into")).unwrap();
        directory
    }

    fn paths(directory: &tempfile::TempDir) -> [std::path::PathBuf; 2] {
        ["crate", "into"].map(|name| directory.path().join(name))
    }

    #[test]
    fn a_crate_is_unpacked_with_its_hash_beside_it() {
        let directory = packed(&[("Cargo.toml", "x"), ("src/lib.rs", "y")]);
        let [archive, into] = paths(&directory);
        unpack(&archive, &into).unwrap();
        let sha256 = crate::hash::Sha256Digest::of(&std::fs::read(&archive).unwrap());
        assert_eq!(
            std::fs::read_to_string(into.join(CHECKSUMS)).unwrap(),
            format!("{{\"files\":{{}},\"package\":\"{sha256}\"}}")
        );
        assert_eq!(std::fs::read(into.join("src/lib.rs")).unwrap(), b"y");
    }

    #[test]
    fn a_crate_that_brings_hashes_of_its_own_is_refused() {
        let directory = packed(&[("Cargo.toml", "x"), (CHECKSUMS, "{}")]);
        let [archive, into] = paths(&directory);
        match unpack(&archive, &into) {
            Err(FetchError::Member { member, .. }) => assert_eq!(member, CHECKSUMS),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_licence_is_what_the_crate_s_own_manifest_states() {
        let said = |files: &[(&str, &str)]| license(&packed(files).path().join("crate")).unwrap();
        let manifest = "[package]\nname = \"demo\"\nlicense = \"MIT/Apache-2.0\"\n[lib]\n";
        assert_eq!(
            said(&[
                ("examples/Cargo.toml", "[package]\nlicense = \"GPL-3.0\"\n"),
                ("Cargo.toml", manifest)
            ])
            .as_deref(),
            Some("MIT/Apache-2.0")
        );
        assert_eq!(said(&[("Cargo.toml", "[package]\nname = \"x\"\n")]), None);
        assert_eq!(said(&[("Cargo.toml", "[package]\nlicense = 3\n")]), None);
        assert_eq!(said(&[("Cargo.toml", "no TOML at all")]), None);
        assert_eq!(said(&[("src/lib.rs", "")]), None);
        let long = format!("[package]\nlicense = \"MIT\"\n#{}", "x".repeat(2 << 20));
        assert_eq!(said(&[("Cargo.toml", &long)]).as_deref(), Some("MIT"));
        let directory = packed(&[]);
        let archive = directory.path().join("crate");
        std::fs::write(&archive, [0x1f, 0x8b, 8, 0]).unwrap();
        assert_eq!(license(&archive).unwrap(), None);
    }
}
