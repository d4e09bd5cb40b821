//! From chosen contents to paths in an image, and its layers.
//!
//! In: the listings of objects, and which parts of them are chosen. Out: what stands at
//! each path of the image and where it comes from, and one plan for each layer; or what
//! keeps the contents from being one image. Pure: `image` writes what this stage plans,
//! and `policy` judges it.

mod layer;

pub use layer::LayerPlan;

use std::collections::{BTreeMap, BTreeSet};

use crate::closure::Reference;
use crate::derivation::nearest;
use crate::hash::{PackageName, RelPath, StorePath};
use crate::listing::{Entry, Listing};

/// Contents that are not one flat image.
#[derive(Debug, thiserror::Error)]
pub enum ProjectionError {
    /// A file that was chosen is not in its package.
    #[error("`{package}` has no `{path}`")]
    NoSuchFile {
        /// The package.
        package: PackageName,
        /// What was chosen.
        path: RelPath,
        /// The path that is most like it.
        nearest: Option<String>,
    },
    /// Two contents bring different things for one path.
    #[error("`{first}` and `{second}` both bring `/{path}`, and they differ")]
    Conflict {
        /// The path in the image.
        path: RelPath,
        /// The content that brought it first.
        first: String,
        /// The other one.
        second: String,
    },
    /// A chosen file names a store path, which a flat image does not have.
    #[error("{} places in `{package}` name store paths, which a flat image does not have", .references.len())]
    NotFlat {
        /// The package.
        package: PackageName,
        /// Every place.
        references: Vec<Reference>,
    },
}

/// An object, or parts of it, in an image.
#[derive(Debug, Clone)]
pub struct Content {
    /// The package, for messages.
    pub package: PackageName,
    /// The object.
    pub object: StorePath,
    /// What the object holds.
    pub listing: Listing,
    /// Where the object names store paths, itself included.
    pub references: Vec<Reference>,
    /// The files and directories that are taken; `None` for all.
    pub files: Option<Vec<RelPath>>,
    /// Where they are put; `None` for `/`.
    pub to: Option<RelPath>,
}

/// What stands at one path of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// What it is.
    pub entry: Entry,
    /// Its permission bits.
    pub mode: u32,
    /// The object that it comes from; `None` for a directory that was declared writable
    /// or that only holds others.
    pub object: Option<StorePath>,
}

/// A complete image, path by path, and its layers.
#[derive(Debug, Clone, Default)]
pub struct Projection {
    /// Everything in the image.
    pub entries: BTreeMap<RelPath, Placed>,
    /// The layers, lowest first.
    pub layers: Vec<LayerPlan>,
}

/// Permission bits of everything that is not declared writable: nothing can be changed.
pub const FILE_MODE: u32 = 0o444;
/// Of executable files and of directories.
pub const EXECUTABLE_MODE: u32 = 0o555;
/// Of directories that every user may write to.
pub const WRITABLE_MODE: u32 = 0o1777;

/// Lays contents out at ordinary paths, one layer for each, in order.
///
/// # Errors
/// [`ProjectionError::NoSuchFile`], [`ProjectionError::Conflict`], [`ProjectionError::NotFlat`].
pub fn project(
    contents: &[Content],
    writable: &BTreeSet<RelPath>,
) -> Result<Projection, ProjectionError> {
    let mut projection = Projection::default();
    for content in contents {
        let chosen = choose(content)?;
        refuse_references(content, &chosen)?;
        let mut layer = LayerPlan::new(content.object.name().as_str());
        for path in chosen {
            let Some(entry) = content.listing.get(&path) else {
                continue;
            };
            let at = match &content.to {
                None => path,
                Some(prefix) => match format!("{prefix}/{path}").parse() {
                    Ok(at) => at,
                    Err(_) => continue,
                },
            };
            let mode = match entry {
                Entry::File {
                    executable: false, ..
                } => FILE_MODE,
                _ => EXECUTABLE_MODE,
            };
            let placed = Placed {
                entry: entry.clone(),
                mode,
                object: Some(content.object.clone()),
            };
            projection.place(&at, placed, content)?;
            layer.insert(&at, entry.clone(), mode);
        }
        if !layer.is_empty() {
            projection.layers.push(layer);
        }
    }
    let mut layer = LayerPlan::new("writable directories");
    for path in writable {
        let placed = Placed {
            entry: Entry::Directory,
            mode: WRITABLE_MODE,
            object: None,
        };
        for above in path.ancestors() {
            projection.hold(above);
        }
        projection.entries.insert(path.clone(), placed);
        layer.insert(path, Entry::Directory, WRITABLE_MODE);
    }
    if !layer.is_empty() {
        projection.layers.push(layer);
    }
    Ok(projection)
}

impl Projection {
    /// Makes sure that a directory is there to hold others.
    fn hold(&mut self, path: RelPath) {
        self.entries.entry(path).or_insert(Placed {
            entry: Entry::Directory,
            mode: EXECUTABLE_MODE,
            object: None,
        });
    }

    fn place(&mut self, at: &RelPath, placed: Placed, by: &Content) -> Result<(), ProjectionError> {
        let conflict = |path: RelPath, first: Option<&Placed>| {
            let first = first.and_then(|first| first.object.as_ref());
            ProjectionError::Conflict {
                path,
                first: first.map_or_else(String::new, |object| object.name().to_string()),
                second: by.package.to_string(),
            }
        };
        for above in at.ancestors() {
            if let Some(there) = self.entries.get(&above)
                && there.entry != Entry::Directory
            {
                return Err(conflict(above, Some(there)));
            }
            self.hold(above);
        }
        match self.entries.get(at) {
            Some(there) if there.entry == Entry::Directory && placed.entry == Entry::Directory => {}
            Some(there) if there.entry != placed.entry => {
                return Err(conflict(at.clone(), Some(there)));
            }
            _ => {
                self.entries.insert(at.clone(), placed);
            }
        }
        Ok(())
    }
}

/// Returns the chosen paths, directories with all that they hold.
fn choose(content: &Content) -> Result<BTreeSet<RelPath>, ProjectionError> {
    let Some(files) = &content.files else {
        return Ok(content
            .listing
            .iter()
            .map(|(path, _)| path.clone())
            .collect());
    };
    let mut chosen = BTreeSet::new();
    for wanted in files {
        if content.listing.get(wanted).is_none() {
            let paths = content.listing.iter().map(|(path, _)| path.as_str());
            return Err(ProjectionError::NoSuchFile {
                package: content.package.clone(),
                path: wanted.clone(),
                nearest: nearest(wanted.as_str(), paths).map(str::to_owned),
            });
        }
        for (path, _) in content.listing.iter() {
            if path == wanted || path.is_below(wanted) {
                chosen.insert(path.clone());
            }
        }
    }
    Ok(chosen)
}

/// A flat image has no store, so nothing that is taken may name it.
fn refuse_references(content: &Content, chosen: &BTreeSet<RelPath>) -> Result<(), ProjectionError> {
    let references: Vec<Reference> = content
        .references
        .iter()
        .filter(|reference| chosen.contains(&reference.file))
        .cloned()
        .collect();
    if references.is_empty() {
        return Ok(());
    }
    Err(ProjectionError::NotFlat {
        package: content.package.clone(),
        references,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{BlobDigest, ObjectDigest};

    fn content(package: &str, files: &[(&str, &str)]) -> Content {
        let mut entries = BTreeMap::new();
        for (path, text) in files {
            let path: RelPath = path.parse().unwrap();
            for above in path.ancestors() {
                entries.insert(above, Entry::Directory);
            }
            let digest = BlobDigest::of(text.as_bytes());
            entries.insert(
                path,
                Entry::File {
                    digest,
                    size_bytes: text.len() as u64,
                    executable: false,
                },
            );
        }
        Content {
            package: package.parse().unwrap(),
            object: StorePath::new(ObjectDigest::from_bytes([1; 32]), "x".parse().unwrap()),
            listing: Listing::new(entries).unwrap(),
            references: Vec::new(),
            files: None,
            to: None,
        }
    }

    fn paths(projection: &Projection) -> Vec<&str> {
        projection.entries.keys().map(RelPath::as_str).collect()
    }

    #[test]
    fn chosen_files_bring_their_directories_and_nothing_else() {
        let mut tools = content(
            "a",
            &[("bin/cat", "c"), ("bin/ls", "l"), ("share/x/y", "y")],
        );
        tools.files = Some(vec!["bin/cat".parse().unwrap(), "share".parse().unwrap()]);
        tools.to = Some("opt".parse().unwrap());
        let projection = project(&[tools], &BTreeSet::from(["tmp".parse().unwrap()])).unwrap();
        assert_eq!(
            paths(&projection),
            [
                "opt",
                "opt/bin",
                "opt/bin/cat",
                "opt/share",
                "opt/share/x",
                "opt/share/x/y",
                "tmp"
            ]
        );
        assert_eq!(projection.layers.len(), 2);
    }

    #[test]
    fn equal_files_merge_and_different_ones_conflict() {
        let same = project(
            &[content("a", &[("d/f", "1")]), content("b", &[("d/f", "1")])],
            &BTreeSet::new(),
        );
        assert_eq!(paths(&same.unwrap()), ["d", "d/f"]);
        let different = project(
            &[content("a", &[("d/f", "1")]), content("b", &[("d/f", "2")])],
            &BTreeSet::new(),
        );
        assert!(matches!(different, Err(ProjectionError::Conflict { .. })));
        let below = project(
            &[content("a", &[("d", "1")]), content("b", &[("d/f", "2")])],
            &BTreeSet::new(),
        );
        assert!(matches!(below, Err(ProjectionError::Conflict { .. })));
    }

    #[test]
    fn only_references_of_chosen_files_count() {
        let mut musl = content("musl", &[("bin/gcc", "1"), ("lib/libc.a", "2")]);
        musl.references = vec![Reference {
            target: musl.object.clone(),
            file: "bin/gcc".parse().unwrap(),
            offset: 3,
        }];
        assert!(matches!(
            project(std::slice::from_ref(&musl), &BTreeSet::new()),
            Err(ProjectionError::NotFlat { .. })
        ));
        musl.files = Some(vec!["lib".parse().unwrap()]);
        assert!(project(&[musl], &BTreeSet::new()).is_ok());
    }

    #[test]
    fn a_missing_file_is_named_with_the_nearest() {
        let mut tools = content("a", &[("bin/sleep", "c")]);
        tools.files = Some(vec!["bin/slep".parse().unwrap()]);
        let Err(ProjectionError::NoSuchFile { nearest, .. }) = project(&[tools], &BTreeSet::new())
        else {
            panic!("it was found")
        };
        assert_eq!(nearest.as_deref(), Some("bin/sleep"));
    }
}
