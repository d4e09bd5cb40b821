//! Copying trees: those beside derivation files, and objects that are sources.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ignore::WalkBuilder;

use super::FetchError;
use super::extract::{Extraction, Links, Refusal};
use crate::hash::RelPath;

/// Which entries of a tree are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// All of them.
    All,
    /// Those that git would not ignore, without `.git` itself.
    NotIgnored,
}

/// Copies a tree into an empty directory that exists, with the modes and times that
/// unpacked archives have.
///
/// # Errors
/// [`FetchError::Tree`] for sockets, devices, FIFOs, names that are not UTF-8, and links
/// that leave the tree; [`FetchError::Access`] when reading or writing fails.
pub fn copy_tree(from: &Path, into: &Path, select: Select) -> Result<(), FetchError> {
    let selective = select == Select::NotIgnored;
    let links = if selective {
        Links::Inside
    } else {
        Links::Root
    };
    let extraction = Extraction::new(into, links)?;
    let mut walk = WalkBuilder::new(from);
    walk.standard_filters(false)
        .git_ignore(selective)
        .require_git(false)
        .parents(selective)
        .sort_by_file_name(Ord::cmp);
    if selective {
        walk.filter_entry(|entry| entry.file_name() != ".git");
    }
    for entry in walk.build() {
        let entry = entry.map_err(|error| FetchError::Tree {
            path: from.to_owned(),
            problem: format!("cannot be read: {error}"),
        })?;
        let path = entry.path();
        let bad = |problem: &str| FetchError::Tree {
            path: path.to_owned(),
            problem: problem.to_owned(),
        };
        let Ok(relative) = path.strip_prefix(from) else {
            continue;
        };
        if relative.as_os_str().is_empty() {
            continue;
        }
        let relative: RelPath = relative
            .to_str()
            .ok_or_else(|| bad("has a name that is not UTF-8"))?
            .parse()
            .map_err(|error: crate::hash::PathError| bad(&error.to_string()))?;
        let failed = |source| FetchError::Access {
            operation: "read",
            path: path.to_owned(),
            source,
        };
        let kind = entry.file_type().ok_or_else(|| bad("has no type"))?;
        let result = if kind.is_dir() {
            extraction.directory(&relative)
        } else if kind.is_symlink() {
            let target = std::fs::read_link(path).map_err(failed)?;
            let target = target
                .to_str()
                .ok_or_else(|| bad("points to a name that is not UTF-8"))?;
            extraction.symlink(&relative, target)
        } else if kind.is_file() {
            let mut file = File::open(path).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            let executable = Permissions::mode(&metadata.permissions()) & 0o111 != 0;
            extraction.file(&relative, executable, metadata.len(), &mut file)
        } else {
            return Err(bad("is neither a file, a directory nor a link"));
        };
        result.map_err(|refusal| match refusal {
            Refusal::Member(problem) => bad(&problem),
            other => other.at(path, relative.as_str()),
        })?;
    }
    extraction.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_files_stay_behind() {
        let top = tempfile::tempdir().unwrap();
        let (from, into) = (top.path().join("from"), top.path().join("into"));
        for directory in ["from/.git", "from/sub", "into"] {
            std::fs::create_dir_all(top.path().join(directory)).unwrap();
        }
        for (file, text) in [
            (".git/config", "x"),
            (".gitignore", "*.o\n"),
            ("a.o", "x"),
            ("sub/b.c", "int b;"),
            (".hidden", "x"),
        ] {
            std::fs::write(from.join(file), text).unwrap();
        }
        copy_tree(&from, &into, Select::NotIgnored).unwrap();
        let mut names: Vec<String> = std::fs::read_dir(&into)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [".gitignore", ".hidden", "sub"]);
        assert_eq!(
            std::fs::read_to_string(into.join("sub/b.c")).unwrap(),
            "int b;"
        );
    }

    #[test]
    fn links_out_of_the_tree_and_sockets_are_refused() {
        let top = tempfile::tempdir().unwrap();
        let (from, into) = (top.path().join("from"), top.path().join("into"));
        std::fs::create_dir(&from).unwrap();
        std::fs::create_dir(&into).unwrap();
        std::os::unix::fs::symlink("../../etc", from.join("out")).unwrap();
        assert!(matches!(
            copy_tree(&from, &into, Select::NotIgnored),
            Err(FetchError::Tree { .. })
        ));
        std::fs::remove_file(from.join("out")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
        assert!(matches!(
            copy_tree(&from, &into, Select::NotIgnored),
            Err(FetchError::Tree { .. })
        ));
    }
}
