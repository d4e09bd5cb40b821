//! From chosen contents to paths in an image, and its layers.
//!
//! In: the objects of the contents' closures, and which parts are chosen. Out: what stands
//! at each path of the image and where it comes from, and one plan for each layer; or what
//! keeps the contents from being one image. Pure: `image` writes what this stage plans,
//! and `policy` judges it.
//!
//! | file | what it does |
//! |---|---|
//! | [`reach`](mod@reach) | closures by file: from what is chosen to all that it needs |
//! | [`leave`] | what is left out of whole packages, by rule |
//! | `place` | where taken files stand, for each layout |
//! | `merge` | what several contents bring, as one tree |
//! | `own` | whose they are, and their modes |
//! | `cut` | which of them share a layer |
//! | [`left`] | what was left behind, and why |

pub mod leave;
pub mod left;

mod cut;
mod layer;
mod merge;
mod own;
mod place;
mod reach;
mod walk;

pub use cut::Planned;
pub use layer::LayerPlan;
pub use reach::{Absent, Place, Reached, Reason, ToRead, reach};
pub use walk::STORE;

use std::collections::{BTreeMap, BTreeSet};

use cut::Group;

use crate::closure::{Graph, Reference};
use crate::derivation::{Layout, Ownership, PathPattern, Spanned};
use crate::hash::{PackageName, PathError, RelPath, StorePath};
use crate::listing::{Entry, Listing};

/// Contents that are not one image.
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
    /// A rule of ownership speaks of nothing that is in the image.
    #[error("there is nothing in the image that this speaks of")]
    NothingOwned(Spanned<PathPattern>),
    /// A path that no image can have.
    #[error("a path of the image is too long or too deep")]
    Path(#[from] PathError),
}

/// An object, or parts of it, in an image.
#[derive(Debug, Clone)]
pub struct Content {
    /// The package, for messages.
    pub package: PackageName,
    /// The object.
    pub object: StorePath,
    /// The files and directories that are taken; `None` for all that a program may need.
    pub files: Option<Vec<RelPath>>,
    /// Where they are put; `None` for `/`.
    pub to: Option<RelPath>,
    /// Rules of [`leave`] that do not count.
    pub keep: BTreeSet<String>,
    /// Whether they stand at ordinary paths in every layout: files of the image's own.
    pub own: bool,
}

impl Content {
    /// Returns where a path of the object stands in the image.
    fn place(&self, path: &RelPath) -> Result<RelPath, PathError> {
        match &self.to {
            None => Ok(path.clone()),
            Some(prefix) => format!("{prefix}/{path}").parse(),
        }
    }
}

/// An object of a closure.
#[derive(Debug, Clone)]
pub struct Object {
    /// What it holds.
    pub listing: Listing,
    /// Where it names store paths, itself included.
    pub references: Vec<Reference>,
}

impl Object {
    /// Returns what is taken of it, with why and with what it is, in tree order.
    fn taken<'a>(
        &'a self,
        taken: &'a BTreeMap<RelPath, Reason>,
    ) -> impl Iterator<Item = (&'a RelPath, &'a Reason, &'a Entry)> {
        // Both are sorted, so that one walk finds all.
        let mut entries = self.listing.iter();
        taken.iter().filter_map(move |(path, reason)| {
            let (_, entry) = entries.find(|(at, _)| *at == path)?;
            Some((path, reason, entry))
        })
    }
}

/// The objects of a closure.
pub type Objects = BTreeMap<StorePath, Object>;

/// What stands at one path of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// What it is.
    pub entry: Entry,
    /// Its permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// The object that it comes from; `None` for a directory that was declared writable
    /// or that only holds others.
    pub object: Option<StorePath>,
}

impl Placed {
    /// Returns a directory that only holds others.
    pub fn directory() -> Self {
        Self {
            entry: Entry::Directory,
            mode: EXECUTABLE_MODE,
            owner: (0, 0),
            object: None,
        }
    }

    /// Returns an object's entry, which nobody may change.
    fn of(entry: &Entry, object: &StorePath) -> Self {
        let mode = match entry {
            Entry::File {
                executable: false, ..
            } => FILE_MODE,
            _ => EXECUTABLE_MODE,
        };
        Self {
            entry: entry.clone(),
            mode,
            owner: (0, 0),
            object: Some(object.clone()),
        }
    }

    /// Returns the length of a file, in bytes; 0 for all else.
    pub fn size_bytes(&self) -> u64 {
        match self.entry {
            Entry::File { size_bytes, .. } => size_bytes,
            Entry::Directory | Entry::Symlink { .. } => 0,
        }
    }

    /// Returns whether it is a directory as all are that nothing is said of.
    fn is_plain_directory(&self) -> bool {
        self.entry == Entry::Directory && self.mode == EXECUTABLE_MODE && self.owner == (0, 0)
    }
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

/// How an image is laid out and cut.
#[derive(Debug)]
pub struct Shape<'a> {
    /// Where files stand.
    pub layout: Layout,
    /// Directories that the program may write to.
    pub writable: &'a BTreeSet<RelPath>,
    /// Whose files are.
    pub ownership: &'a [Ownership],
    /// Most layers.
    pub budget: usize,
    /// Objects that share a layer; `None` to go by the budget alone.
    pub plan: Option<&'a Planned>,
    /// What refers to what in the closure.
    pub graph: &'a Graph,
}

/// Lays out what was reached, and cuts it into layers.
///
/// # Errors
/// [`ProjectionError`].
pub fn project(
    contents: &[Content],
    objects: &Objects,
    reached: &Reached,
    shape: &Shape<'_>,
) -> Result<Projection, ProjectionError> {
    let mut projection = Projection::default();
    let mut groups = Vec::new();
    let own: BTreeSet<&StorePath> = contents
        .iter()
        .filter(|content| content.own)
        .map(|content| &content.object)
        .collect();
    if shape.layout == Layout::Store {
        groups = place::in_store(objects, reached, &own, shape.graph)?;
        for group in &groups {
            projection.place_all(group, "a package")?;
        }
    }
    for content in contents {
        if shape.layout == Layout::Store && !content.own {
            continue;
        }
        refuse_references(content, objects, reached)?;
        let group = place::at_ordinary_paths(content, objects, reached)?;
        projection.place_all(&group, content.package.as_str())?;
        groups.push(group);
    }
    // What is this image's alone lies on top: it changes most often and is small.
    let mut top = Group::default();
    if shape.layout == Layout::Store {
        let linked: Vec<&Content> = contents.iter().filter(|content| !content.own).collect();
        let taken = |path: &RelPath| {
            let mut writable = shape.writable.iter();
            projection.entries.contains_key(path)
                || writable.any(|writable| writable == path || writable.is_below(path))
        };
        for (number, at, placed) in place::links(&linked, objects, reached, taken)? {
            let by = linked
                .get(number)
                .map_or("", |content| content.package.as_str());
            projection.place(&at, placed.clone(), by)?;
            top.entries.insert(at, placed);
        }
        if !top.entries.is_empty() {
            top.titles.push("links".to_owned());
        }
    }
    for path in shape.writable {
        projection.make_writable(path)?;
    }
    own::apply(shape.ownership, &mut projection.entries)?;
    for (path, placed) in &projection.entries {
        if placed.entry == Entry::Directory && !placed.is_plain_directory() {
            top.entries.insert(path.clone(), placed.clone());
        }
    }
    if !shape.writable.is_empty() {
        top.titles.push("writable directories".to_owned());
    } else if top.titles.is_empty() {
        top.titles.push("directories".to_owned());
    }
    let budget = shape
        .budget
        .saturating_sub(usize::from(!top.entries.is_empty()));
    let groups = match shape.plan {
        None => cut::under_budget(groups, budget, shape.graph),
        Some(plan) => {
            let (mut planned, rest) = cut::by_plan(groups, plan);
            let budget = budget.saturating_sub(planned.len());
            planned.extend(cut::under_budget(rest, budget, shape.graph));
            planned
        }
    };
    for mut group in groups.into_iter().chain([top]) {
        // A directory's own mode and owner come with the last layer, so that those below
        // depend on their objects only.
        own::apply_to_files(shape.ownership, &mut group.entries);
        let layer = LayerPlan::new(group.title(), group.entries);
        if !layer.is_empty() {
            projection.layers.push(layer);
        }
    }
    Ok(projection)
}

/// Nothing at an ordinary path may name the store, where the image has none.
fn refuse_references(
    content: &Content,
    objects: &Objects,
    reached: &Reached,
) -> Result<(), ProjectionError> {
    let taken = reached.taken.get(&content.object);
    let references: Vec<Reference> = objects
        .get(&content.object)
        .into_iter()
        .flat_map(|object| &object.references)
        .filter(|reference| taken.is_some_and(|taken| taken.contains_key(&reference.file)))
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
mod tests;
