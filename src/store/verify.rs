//! Re-hashing everything: is what lies on disk what was recorded?

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::{ObjectInfo, Store, StoreError};
use crate::hash::StorePath;
use crate::listing::{Entry, Listing};
use crate::tree::{TreeError, TreeRoot, scan};

/// Something on disk that is not as recorded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damage {
    /// The object.
    pub object: StorePath,
    /// The entry, empty for the object itself.
    pub path: String,
    /// What is wrong, in words.
    pub problem: String,
}

impl Store {
    /// Re-hashes objects in parallel and returns every difference, sorted.
    ///
    /// `progress` is called after each object.
    ///
    /// # Errors
    /// [`StoreError`] when the database or a directory cannot be read at all.
    pub fn verify(
        &self,
        objects: &[ObjectInfo],
        progress: &(dyn Fn(&ObjectInfo) + Sync),
    ) -> Result<Vec<Damage>, StoreError> {
        let mut damage: Vec<Damage> = objects
            .par_iter()
            .map(|object| {
                let found = self.verify_object(object);
                progress(object);
                found
            })
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect();
        damage.sort();
        Ok(damage)
    }

    /// Returns entries of the store's directory that no row explains.
    ///
    /// # Errors
    /// [`StoreError::Access`] when the directory cannot be read.
    pub fn unrecorded(&self) -> Result<Vec<String>, StoreError> {
        let _exclusive = self.lock_registration()?;
        let known: BTreeSet<String> = self
            .objects()?
            .into_iter()
            .map(|object| object.path.base_name())
            .collect();
        let directory = self.root().join("store");
        let failed = |source| StoreError::Access {
            operation: "read the directory",
            path: directory.clone(),
            source,
        };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let name = entry
                .map_err(failed)?
                .file_name()
                .to_string_lossy()
                .into_owned();
            if !known.contains(&name) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn verify_object(&self, object: &ObjectInfo) -> Result<Vec<Damage>, StoreError> {
        let recorded = self.listing(&object.path)?;
        let damage = |path: String, problem: String| Damage {
            object: object.path.clone(),
            path,
            problem,
        };
        let found =
            TreeRoot::open(&self.host_path(&object.path)).and_then(|root| scan::list(&root));
        match found {
            Ok(found) => {
                let mut all: Vec<Damage> = differences(&recorded, &found)
                    .into_iter()
                    .map(|(path, problem)| damage(path, problem))
                    .collect();
                all.extend(self.wrong_modes(object, &found)?);
                Ok(all)
            }
            Err(TreeError::Access { source, path, .. }) => Ok(vec![damage(
                String::new(),
                format!("cannot be read ({}: {source})", path.display()),
            )]),
            Err(other) => Ok(vec![damage(String::new(), other.to_string())]),
        }
    }

    fn wrong_modes(&self, object: &ObjectInfo, found: &Listing) -> Result<Vec<Damage>, StoreError> {
        use std::os::unix::fs::MetadataExt;
        let base = self.host_path(&object.path);
        let mut damage = Vec::new();
        for (path, entry) in found.iter() {
            let wanted = match entry {
                Entry::File {
                    executable: false, ..
                } => 0o444,
                Entry::File {
                    executable: true, ..
                }
                | Entry::Directory => 0o555,
                Entry::Symlink { .. } => continue,
            };
            let at = base.join(path.as_str());
            let mode = std::fs::symlink_metadata(&at)
                .map_err(|source| StoreError::Access {
                    operation: "examine",
                    path: at,
                    source,
                })?
                .mode()
                & 0o7777;
            if mode != wanted {
                damage.push(Damage {
                    object: object.path.clone(),
                    path: path.to_string(),
                    problem: format!("has mode {mode:04o} instead of {wanted:04o}"),
                });
            }
        }
        Ok(damage)
    }
}

fn differences(recorded: &Listing, found: &Listing) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (path, entry) in recorded.iter() {
        match found.get(path) {
            None => all.push((path.to_string(), "is missing".to_owned())),
            Some(other) if other == entry => {}
            Some(other) => all.push((path.to_string(), describe(entry, other))),
        }
    }
    for (path, _) in found.iter() {
        if recorded.get(path).is_none() {
            all.push((path.to_string(), "is not part of the object".to_owned()));
        }
    }
    all
}

fn describe(recorded: &Entry, found: &Entry) -> String {
    match (recorded, found) {
        (
            Entry::File {
                digest, size_bytes, ..
            },
            Entry::File {
                digest: other,
                size_bytes: length,
                ..
            },
        ) => {
            if size_bytes != length {
                format!("has {length} bytes instead of {size_bytes}")
            } else if digest == other {
                "has lost or gained its executable bit".to_owned()
            } else {
                format!("has digest {other} instead of {digest}")
            }
        }
        (Entry::Symlink { target }, Entry::Symlink { target: other }) => {
            format!("points to `{other}` instead of `{target}`")
        }
        _ => "is of another kind".to_owned(),
    }
}
