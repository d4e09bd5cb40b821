//! Derivation files: the project's own, and the standard set in the executable.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use include_dir::{Dir, DirEntry, include_dir};

use super::settings::Project;
use crate::derivation::{MAX_FILE, SourceFile};
use crate::fetch::{FetchError, worktree};
use crate::hash::{PackageName, RelPath};
use crate::plan::Library;
use crate::realise::Trees;
use crate::tree::open_regular;

static STANDARD: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/derivations");

/// The prefix of the standard set.
const PREFIX: &str = "std:";

/// All derivation files that can be named.
#[derive(Debug)]
pub(super) struct Files {
    /// The project's directory of derivation files.
    derivations: Option<PathBuf>,
}

/// Where a derivation file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A file of the project.
    Project(PathBuf),
    /// Part of the executable.
    Executable,
}

enum Place {
    /// Below the project's directory.
    Project(PathBuf, String),
    /// In the executable.
    Standard(String),
}

impl Files {
    pub(super) fn new(project: Option<&Project>) -> Self {
        Self {
            derivations: project.map(|project| project.derivations.clone()),
        }
    }

    /// Returns the project's directory of derivation files.
    pub(super) fn directory(&self) -> Option<&Path> {
        self.derivations.as_deref()
    }

    /// Returns where a package's derivation file is.
    pub(super) fn origin(&self, package: &PackageName) -> Origin {
        match self.place(package) {
            Place::Project(directory, name) => {
                Origin::Project(directory.join(format!("{name}.toml")))
            }
            Place::Standard(_) => Origin::Executable,
        }
    }

    /// Returns whether what lies beside a package's derivation file is a file.
    pub(super) fn is_file(&self, package: &PackageName, path: &RelPath) -> bool {
        match self.place(package) {
            Place::Project(directory, name) => {
                let file = directory.join(name);
                let parent = file.parent().unwrap_or(&directory);
                parent.join(path.as_str()).is_file()
            }
            Place::Standard(name) => STANDARD.get_file(beside(&name, path)).is_some(),
        }
    }

    /// Returns where something is that lies beside a package's derivation file.
    pub(super) fn origin_beside(&self, package: &PackageName, path: &RelPath) -> Origin {
        match self.place(package) {
            Place::Project(directory, name) => {
                let file = directory.join(name);
                Origin::Project(file.parent().unwrap_or(&directory).join(path.as_str()))
            }
            Place::Standard(_) => Origin::Executable,
        }
    }

    /// Returns where a name leads. Without a project, every name means the standard set.
    fn place(&self, package: &PackageName) -> Place {
        let text = package.as_str();
        match (&self.derivations, text.strip_prefix(PREFIX)) {
            (_, Some(name)) => Place::Standard(name.to_owned()),
            (Some(directory), None) => Place::Project(directory.clone(), text.to_owned()),
            (None, None) => Place::Standard(text.to_owned()),
        }
    }
}

/// Reads a derivation file of this machine; `None` if it is not there.
pub(super) fn read_file(path: &Path) -> Result<Option<String>, String> {
    let file = match open_regular(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| error.to_string())?,
    };
    let mut text = String::new();
    file.take(MAX_FILE as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() > MAX_FILE {
        return Err("it is larger than 1 MiB".to_owned());
    }
    Ok(Some(text))
}

fn plain(name: &str) -> bool {
    name.parse::<RelPath>().is_ok()
}

impl Library for Files {
    fn read(&self, package: &PackageName) -> Result<Option<Arc<SourceFile>>, String> {
        let (shown, text) = match self.place(package) {
            Place::Standard(name) => {
                let Some(file) = STANDARD.get_file(format!("{name}.toml")) else {
                    return Ok(None);
                };
                let text = file.contents_utf8().ok_or("it is not UTF-8")?.to_owned();
                (format!("<std>/{name}.toml"), text)
            }
            Place::Project(_, name) if !plain(&name) => return Ok(None),
            Place::Project(directory, name) => {
                let path = directory.join(format!("{name}.toml"));
                let Some(text) = read_file(&path)? else {
                    return Ok(None);
                };
                (shorten(&path), text)
            }
        };
        Ok(Some(Arc::new(SourceFile {
            package: package.clone(),
            shown,
            text,
        })))
    }

    fn read_beside(
        &self,
        package: &PackageName,
        path: &RelPath,
    ) -> Result<Option<Arc<SourceFile>>, String> {
        let (shown, text) = match self.place(package) {
            Place::Project(directory, name) => {
                let file = directory.join(name);
                let file = file.parent().unwrap_or(&directory).join(path.as_str());
                (shorten(&file), read_file(&file)?)
            }
            Place::Standard(name) => {
                let at = beside(&name, path);
                let file = STANDARD.get_file(&at);
                let text = file.map(|file| file.contents_utf8().ok_or("it is not UTF-8"));
                let text = text.transpose()?.map(str::to_owned);
                (format!("<std>/{at}"), text)
            }
        };
        Ok(text.map(|text| {
            Arc::new(SourceFile {
                package: package.clone(),
                shown,
                text,
            })
        }))
    }

    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        collect_standard(&STANDARD, &mut names);
        match &self.derivations {
            None => names.extend(
                names
                    .clone()
                    .iter()
                    .filter_map(|name| name.strip_prefix(PREFIX).map(str::to_owned)),
            ),
            Some(directory) => {
                for entry in ignore::WalkBuilder::new(directory)
                    .standard_filters(false)
                    .build()
                {
                    let Ok(entry) = entry else { continue };
                    let Ok(relative) = entry.path().strip_prefix(directory) else {
                        continue;
                    };
                    if relative
                        .extension()
                        .is_some_and(|extension| extension == "toml")
                        && let Some(text) = relative.with_extension("").to_str()
                    {
                        names.push(text.to_owned());
                    }
                }
            }
        }
        names.sort();
        names
    }
}

fn collect_standard(directory: &Dir<'_>, names: &mut Vec<String>) {
    for entry in directory.entries() {
        match entry {
            DirEntry::Dir(below) => collect_standard(below, names),
            DirEntry::File(file) => {
                if let Some(name) = file
                    .path()
                    .to_str()
                    .and_then(|path| path.strip_suffix(".toml"))
                {
                    names.push(format!("{PREFIX}{name}"));
                }
            }
        }
    }
}

/// Returns a path as people write it: relative to where they are, if it is below.
fn shorten(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here)
        .unwrap_or(path)
        .display()
        .to_string()
}

impl Trees for Files {
    fn copy(&self, package: &PackageName, path: &RelPath, into: &Path) -> Result<(), FetchError> {
        match self.place(package) {
            Place::Project(directory, name) => {
                let file = directory.join(name);
                let from = file.parent().unwrap_or(&directory).join(path.as_str());
                if from.is_file() {
                    return copy_file(&from, into);
                }
                if !from.is_dir() {
                    return Err(FetchError::Tree {
                        path: from,
                        problem: "is not there".to_owned(),
                    });
                }
                worktree::copy_tree(&from, into, worktree::Select::NotIgnored)
            }
            Place::Standard(name) => {
                let at = beside(&name, path);
                if let Some(file) = STANDARD.get_file(&at) {
                    let to = into.join(path.file_name());
                    return std::fs::write(&to, file.contents()).map_err(|source| {
                        FetchError::Access {
                            operation: "write",
                            path: to,
                            source,
                        }
                    });
                }
                let directory = STANDARD.get_dir(&at).ok_or_else(|| FetchError::Tree {
                    path: PathBuf::from(format!("<std>/{at}")),
                    problem: "is not in the standard set".to_owned(),
                })?;
                write_out(directory, Path::new(&at), into)
            }
        }
    }
}

/// Returns where a path beside a file of the standard set is.
fn beside(name: &str, path: &RelPath) -> String {
    match name.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{path}"),
        None => path.to_string(),
    }
}

/// Copies a file into a directory.
fn copy_file(from: &Path, into: &Path) -> Result<(), FetchError> {
    let name = from.file_name().unwrap_or_default();
    let copied = std::fs::copy(from, into.join(name));
    copied.map(drop).map_err(|source| FetchError::Access {
        operation: "read",
        path: from.to_owned(),
        source,
    })
}

fn write_out(directory: &Dir<'_>, top: &Path, into: &Path) -> Result<(), FetchError> {
    for entry in directory.entries() {
        let relative = entry.path().strip_prefix(top).unwrap_or(entry.path());
        let to = into.join(relative);
        let failed = |source| FetchError::Access {
            operation: "write",
            path: to.clone(),
            source,
        };
        match entry {
            DirEntry::Dir(below) => {
                std::fs::create_dir(&to).map_err(failed)?;
                write_out(below, top, into)?;
            }
            DirEntry::File(file) => std::fs::write(&to, file.contents()).map_err(failed)?,
        }
    }
    Ok(())
}
