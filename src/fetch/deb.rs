//! Unpacking Debian packages into one tree, without running anything of theirs.
//!
//! A package is an `ar` archive with `debian-binary`, `control.tar.*` and `data.tar.*`
//! (deb(5)); only the last is unpacked. Directories that Debian has merged into `/usr`
//! are merged here as well, whatever a package calls them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::FetchError;
use super::decompress;
use super::extract::{Extraction, Links, Refusal};
use super::unpack::extract_tar;
use crate::hash::RelPath;

/// What is left out of the packages, and added to them.
#[derive(Debug, Clone, Default)]
pub struct DebianRoot {
    /// Paths and directories that are left out.
    pub exclude: Vec<RelPath>,
    /// Symbolic links that are added.
    pub links: BTreeMap<RelPath, String>,
    /// Files that are added.
    pub files: BTreeMap<RelPath, String>,
}

/// Directories that are links into `/usr` on a merged system.
const MERGED: [&str; 5] = ["bin", "lib", "lib32", "lib64", "sbin"];

/// Those of them that every root has.
const ALWAYS: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// Unpacks packages into an empty directory that exists. The result does not depend on
/// the order in which packages are unpacked: two that hold the same file are an error.
///
/// # Errors
/// [`FetchError`] as for source archives, and [`FetchError::Conflict`].
pub fn unpack_debs(debs: &[PathBuf], rules: &DebianRoot, into: &Path) -> Result<(), FetchError> {
    let extraction = Extraction::new(into, Links::Root)?;
    let results: Vec<Result<(), FetchError>> = debs
        .par_iter()
        .map(|deb| unpack_one(deb, rules, &extraction))
        .collect();
    results.into_iter().collect::<Result<(), _>>()?;
    let add = |path: &RelPath, result: Result<(), Refusal>| {
        result.map_err(|refusal| match refusal {
            Refusal::Twice => FetchError::Conflict { path: path.clone() },
            other => other.at(into, path.as_str()),
        })
    };
    if !debs.is_empty() {
        for name in ALWAYS {
            // A root that brings none of the directory still has the link to where it would be.
            let path: RelPath = name.parse().expect("a plain name");
            add(&path, extraction.symlink(&path, &format!("usr/{name}")))?;
        }
    }
    for (path, target) in &rules.links {
        add(path, extraction.symlink(path, target))?;
    }
    for (path, text) in &rules.files {
        let size = text.len() as u64;
        add(
            path,
            extraction.file(path, false, size, &mut text.as_bytes()),
        )?;
    }
    extraction.finish()
}

/// What reads a member of a package.
type Member<'a> = Box<dyn Read + 'a>;

/// Reads the first member of a package whose name begins so, decompressed; returns what
/// `read` does, or `None` if there is no such member.
fn member<T>(
    deb: &Path,
    name: &[u8],
    read: impl FnOnce(Member<'_>) -> Result<T, FetchError>,
) -> Result<Option<T>, FetchError> {
    let file = File::open(deb).map_err(|source| FetchError::Access {
        operation: "read",
        path: deb.to_owned(),
        source,
    })?;
    let mut archive = ar::Archive::new(file);
    while let Some(entry) = archive.next_entry() {
        let entry = entry.map_err(|source| broken(deb, source))?;
        if entry.header().identifier().starts_with(name) {
            let stream = decompress::reader(entry).map_err(|source| broken(deb, source))?;
            return read(Box::new(stream)).map(Some);
        }
    }
    Ok(None)
}

fn broken(deb: &Path, source: std::io::Error) -> FetchError {
    FetchError::Archive {
        archive: deb.to_owned(),
        source,
    }
}

fn unpack_one(deb: &Path, rules: &DebianRoot, extraction: &Extraction) -> Result<(), FetchError> {
    member(deb, b"data.tar", |stream| {
        extract_tar(deb, stream, extraction, &|path| place(path, rules))
    })?
    .ok_or_else(|| broken(deb, std::io::Error::other("it has no `data.tar`")))
}

/// Longest list of files that is read, in bytes.
const MAX_LIST: u64 = 16 << 20;

/// Returns where the regular files of a package go, as its own list `md5sums` names them
/// (deb-md5sums(5)), sorted. A package without a list names none.
///
/// # Errors
/// [`FetchError`] when the package cannot be read.
pub fn listed_files(deb: &Path) -> Result<BTreeSet<RelPath>, FetchError> {
    let broken = |source| broken(deb, source);
    let list = member(deb, b"control.tar", |stream| {
        for member in tar::Archive::new(stream).entries().map_err(broken)? {
            let member = member.map_err(broken)?;
            let path = member.path_bytes();
            if path.strip_prefix(b"./").unwrap_or(&path) != b"md5sums" {
                continue;
            }
            drop(path);
            let mut list = String::new();
            member
                .take(MAX_LIST)
                .read_to_string(&mut list)
                .map_err(broken)?;
            return Ok(list);
        }
        Ok(String::new())
    })?;
    let rules = DebianRoot::default();
    Ok(list
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once("  ")?.1.parse().ok())
        .filter_map(|path| place(path, &rules))
        .collect())
}

/// Returns where a member goes, or `None` for one that is left out.
fn place(path: RelPath, rules: &DebianRoot) -> Option<RelPath> {
    let first = path.components().next().unwrap_or("");
    let path = if MERGED.contains(&first) {
        format!("usr/{path}").parse().ok()?
    } else {
        path
    };
    let excluded = rules
        .exclude
        .iter()
        .any(|rule| path == *rule || path.is_below(rule));
    (!excluded).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::FetchError;

    fn deb(directory: &Path, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let mut data = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            data.append_data(&mut header, path, content.as_bytes())
                .unwrap();
        }
        let data = data.into_inner().unwrap();
        let path = directory.join(name);
        let mut archive = ar::Builder::new(File::create(&path).unwrap());
        for (member, bytes) in [("debian-binary", b"2.0\n".to_vec()), ("data.tar", data)] {
            let header = ar::Header::new(member.as_bytes().to_vec(), bytes.len() as u64);
            archive.append(&header, bytes.as_slice()).unwrap();
        }
        path
    }

    #[test]
    fn packages_share_a_merged_root() {
        let top = tempfile::tempdir().unwrap();
        let debs = [
            deb(
                top.path(),
                "a.deb",
                &[("bin/sh", "shell"), ("usr/share/doc/a/x", "left out")],
            ),
            deb(
                top.path(),
                "b.deb",
                &[("usr/bin/cc", "compiler"), ("lib64/ld.so", "loader")],
            ),
        ];
        let root = top.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let rules = DebianRoot {
            exclude: vec!["usr/share/doc".parse().unwrap()],
            links: BTreeMap::from([("usr/bin/gcc".parse().unwrap(), "cc".to_owned())]),
            files: BTreeMap::from([("etc/passwd".parse().unwrap(), "root\n".to_owned())]),
        };
        unpack_debs(&debs, &rules, &root).unwrap();
        for (path, content) in [
            ("bin/sh", "shell"),
            ("bin/gcc", "compiler"),
            ("lib64/ld.so", "loader"),
            ("etc/passwd", "root\n"),
        ] {
            assert_eq!(
                std::fs::read_to_string(root.join(path)).unwrap(),
                content,
                "{path}"
            );
        }
        assert!(!root.join("usr/share").exists());
    }

    #[test]
    fn one_file_of_two_packages_is_an_error() {
        let top = tempfile::tempdir().unwrap();
        let debs = [
            deb(top.path(), "a.deb", &[("bin/sh", "one")]),
            deb(top.path(), "b.deb", &[("usr/bin/sh", "two")]),
        ];
        let root = top.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let result = unpack_debs(&debs, &DebianRoot::default(), &root);
        assert!(
            matches!(result, Err(FetchError::Member { .. })),
            "{result:?}"
        );
    }
}
