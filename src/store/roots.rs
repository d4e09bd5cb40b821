//! What a user wants to keep: named roots, and links outside the store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::params;

use super::{Store, StoreError};
use crate::hash::StorePath;

/// Something that keeps an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Root {
    /// A name that a user gave.
    Name(String),
    /// A symbolic link to the object; deleting the link ends it.
    Link(PathBuf),
}

impl Root {
    /// Returns the word that the database and `--json` use.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Name(_) => "name",
            Self::Link(_) => "link",
        }
    }

    /// Returns the name, or the link's absolute path.
    pub fn text(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Link(path) => path.to_string_lossy().into_owned(),
        }
    }
}

impl Store {
    /// Keeps an object under a name; what the name kept before it no longer keeps.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when the object is not there, [`StoreError::Database`].
    pub fn add_root(&self, root: &Root, path: &StorePath) -> Result<(), StoreError> {
        let _looking = self.looking()?;
        if self.object(path)?.is_none() {
            return Err(StoreError::Unknown(path.clone()));
        }
        if self.root_of(&root.text())?.as_ref() == Some(path) {
            return Ok(());
        }
        self.in_durable_transaction(|transaction| {
            transaction
                .execute(
                    "INSERT OR REPLACE INTO roots (name, kind, object)
                     VALUES (?1, ?2, (SELECT id FROM objects WHERE path = ?3))",
                    params![root.text(), root.kind(), path.base_name()],
                )
                .map(drop)
        })
    }

    /// Returns what a root keeps.
    fn root_of(&self, name: &str) -> Result<Option<StorePath>, StoreError> {
        let found: Vec<String> = self.query(
            "SELECT o.path FROM roots r JOIN objects o ON o.id = r.object WHERE r.name = ?1",
            [name],
            |row| row.get(0),
        )?;
        let path = found.first().map(|base| StorePath::from_base_name(base));
        Ok(path.transpose()?)
    }

    /// Ends a root; returns whether there was one of that name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn remove_root(&self, name: &str) -> Result<bool, StoreError> {
        self.in_durable_transaction(|transaction| {
            transaction
                .execute("DELETE FROM roots WHERE name = ?1", [name])
                .map(|count| count > 0)
        })
    }

    /// Returns every root with what it keeps, sorted. A link that is gone or leads
    /// elsewhere is forgotten.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn roots(&self) -> Result<BTreeMap<Root, StorePath>, StoreError> {
        let rows: Vec<(String, String, String)> = self.query(
            "SELECT r.name, r.kind, o.path FROM roots r JOIN objects o ON o.id = r.object",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        let mut roots = BTreeMap::new();
        for (name, kind, path) in rows {
            let path = StorePath::from_base_name(&path)?;
            if kind == "link" {
                let link = PathBuf::from(&name);
                if self.leads_to(&link, &path) {
                    roots.insert(Root::Link(link), path);
                } else if !self.read_only {
                    self.remove_root(&name)?;
                }
            } else {
                roots.insert(Root::Name(name), path);
            }
        }
        Ok(roots)
    }

    fn leads_to(&self, link: &Path, path: &StorePath) -> bool {
        std::fs::read_link(link).is_ok_and(|target| target == self.host_path(path))
    }

    /// Makes a symbolic link to an object that keeps it, in place of a link that is there.
    ///
    /// # Errors
    /// [`StoreError::Access`] when something else is there or the link cannot be made,
    /// also when its path is not UTF-8.
    pub fn link(&self, link: &Path, path: &StorePath) -> Result<(), StoreError> {
        let failed = |source| StoreError::Access {
            operation: "make the link",
            path: link.to_owned(),
            source,
        };
        let link = std::path::absolute(link).map_err(failed)?;
        if link.to_str().is_none() {
            return Err(failed(std::io::Error::other("its path is not UTF-8")));
        }
        match std::fs::symlink_metadata(&link) {
            Ok(metadata) if !metadata.is_symlink() => {
                return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
        if !self.leads_to(&link, path) {
            let target = self.host_path(path);
            let made = tempfile::Builder::new()
                .prefix(".kiln-link-")
                .make_in(link.parent().unwrap_or(Path::new("/")), |at| {
                    std::os::unix::fs::symlink(&target, at)
                })
                .map_err(failed)?;
            made.persist(&link).map_err(|error| failed(error.error))?;
        }
        self.add_root(&Root::Link(link), path)
    }
}
