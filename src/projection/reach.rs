//! Closures by file: from the files that are chosen to all that they need.
//!
//! A chosen file brings what it names and nothing else: the files of a store path that
//! stands in it, the interpreter and the very libraries that an ELF file asks for, found
//! where its loader would find them, and the target of a link. Where only an object or a
//! directory of it is named, all of that is taken, but for what no program needs at run
//! time (`leave`). Pure: whoever calls reads the files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

mod pending;

use pending::{Context, Directory, Pending, Taken, unread};

use super::leave::left_out;
use super::walk::{self, End};
use super::{Content, Object, Objects, ProjectionError};
use crate::derivation::nearest;
use crate::hash::{BlobDigest, RelPath, StorePath};
use crate::listing::Entry;
use crate::listing::links::Links;

/// A file of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The object.
    pub object: StorePath,
    /// The path in it.
    pub path: RelPath,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.object, self.path)
    }
}

/// Why a file is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The image names it.
    Chosen,
    /// The image takes its whole package, or a directory around it.
    Within,
    /// It is the loader of a program.
    Loader(Arc<Place>),
    /// A program or library needs it.
    Library(Arc<Place>),
    /// A file names it, or a directory around it.
    Named(Arc<Place>),
    /// A link leads to it, or through it.
    Linked(Arc<Place>),
}

/// A library that is not where the loader would look.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Absent {
    /// The program or library that needs it.
    pub by: Place,
    /// Its name.
    pub name: String,
}

/// All that chosen files need.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    /// Files, links and empty directories, by object, each with why it is taken.
    pub taken: BTreeMap<StorePath, BTreeMap<RelPath, Reason>>,
    /// Libraries that were not found.
    pub absent: BTreeSet<Absent>,
}

/// A file to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToRead {
    /// Where.
    pub place: Place,
    /// Its content.
    pub digest: BlobDigest,
    /// Whether it may be executed.
    pub executable: bool,
}

/// Follows what the chosen files need through the objects of their closure. `read`
/// returns the links of files, in order; it is called with many at once.
///
/// # Errors
/// [`ProjectionError::NoSuchFile`]; what `read` fails with.
pub fn reach<E: From<ProjectionError>>(
    contents: &[Content],
    objects: &Objects,
    mut read: impl FnMut(&[ToRead]) -> Result<Vec<Links>, E>,
) -> Result<Reached, E> {
    let mut reacher = Reacher {
        objects,
        taken: BTreeMap::new(),
        absent: BTreeSet::new(),
        pending: Vec::new(),
    };
    for content in contents {
        reacher.choose(content)?;
    }
    // Most contents need nothing: of those only that they were read is kept.
    let mut known: BTreeSet<BlobDigest> = BTreeSet::new();
    let mut links: BTreeMap<BlobDigest, Rc<Links>> = BTreeMap::new();
    while !reacher.pending.is_empty() {
        let round = std::mem::take(&mut reacher.pending);
        let unread = unread(&round, |digest| !known.contains(digest));
        for (file, found) in unread.iter().zip(read(&unread)?) {
            if found != Links::default() {
                links.insert(file.digest, Rc::new(found));
            }
        }
        known.append(&mut unread.iter().map(|file| file.digest).collect());
        for pending in round {
            if let Some(links) = links.get(&pending.digest) {
                reacher.follow(&pending, &Rc::clone(links));
            }
        }
    }
    Ok(reacher.finish())
}

struct Reacher<'a> {
    objects: &'a Objects,
    taken: BTreeMap<&'a StorePath, BTreeMap<RelPath, Taken>>,
    absent: BTreeSet<Absent>,
    pending: Vec<Pending<'a>>,
}

impl<'a> Reacher<'a> {
    /// Returns what was reached, without what only following it needed.
    fn finish(self) -> Reached {
        let reasons = |taken: BTreeMap<RelPath, Taken>| {
            let entries = taken.into_iter();
            entries.map(|(path, taken)| (path, taken.reason)).collect()
        };
        let objects = self.taken.into_iter();
        Reached {
            taken: objects
                .map(|(object, taken)| (object.clone(), reasons(taken)))
                .collect(),
            absent: self.absent,
        }
    }

    fn choose(&mut self, content: &Content) -> Result<(), ProjectionError> {
        let Some((at, object)) = self.objects.get_key_value(&content.object) else {
            return Ok(());
        };
        let Some(files) = &content.files else {
            self.take_below(&content.object, "", &Reason::Within, |path| {
                left_out(path).is_none_or(|rule| content.keep.contains(rule.name))
            });
            return Ok(());
        };
        for wanted in files {
            match object.listing.find(wanted) {
                None => {
                    let paths = object.listing.iter().map(|(path, _)| path.as_str());
                    return Err(ProjectionError::NoSuchFile {
                        package: content.package.clone(),
                        path: wanted.clone(),
                        nearest: nearest(wanted.as_str(), paths).map(str::to_owned),
                    });
                }
                Some((_, Entry::Directory)) => {
                    self.take_below(at, wanted.as_str(), &Reason::Within, |_| true);
                }
                Some(found) => self.take(at, found, Reason::Chosen, &Rc::default()),
            }
        }
        Ok(())
    }

    /// Takes what lies below a directory, or in a whole object, as far as `wanted` says.
    fn take_below(
        &mut self,
        object: &StorePath,
        directory: &str,
        reason: &Reason,
        wanted: impl Fn(&RelPath) -> bool,
    ) {
        let Some((object, Object { listing, .. })) = self.objects.get_key_value(object) else {
            return;
        };
        let below = |path: &RelPath| {
            directory.is_empty()
                || path.as_str() == directory
                || path
                    .as_str()
                    .strip_prefix(directory)
                    .is_some_and(|rest| rest.starts_with('/'))
        };
        let context = Rc::default();
        let mut found = listing
            .iter()
            .filter(|(path, _)| below(path) && wanted(path))
            .peekable();
        if !self.taken.contains_key(object) {
            // What stands before the first link brings nothing along, so that it is taken
            // together, without a search for the place of each: mostly a whole package.
            let is_no_link = |found: &(_, &Entry)| !matches!(found.1, Entry::Symlink { .. });
            let plain = std::iter::from_fn(|| found.next_if(is_no_link)).map(|found| {
                let mut taken = Taken::new(reason.clone());
                let pending = Pending::new(object, found, &mut taken, &context);
                self.pending.extend(pending);
                (found.0.clone(), taken)
            });
            let plain: BTreeMap<RelPath, Taken> = plain.collect();
            if !plain.is_empty() {
                self.taken.insert(object, plain);
            }
        }
        for found in found {
            self.take(object, found, reason.clone(), &context);
        }
    }

    /// Takes one entry; a link with what it leads to, a file to be read.
    fn take(
        &mut self,
        object: &'a StorePath,
        (path, entry): (&'a RelPath, &'a Entry),
        reason: Reason,
        context: &Rc<Context>,
    ) {
        let taken = self.taken.entry(object).or_default().entry(path.clone());
        let taken = taken.or_insert_with(|| Taken::new(reason));
        let pending = Pending::new(object, (path, entry), taken, context);
        self.pending.extend(pending);
        if matches!(entry, Entry::Symlink { .. }) && taken.is_to_follow(context) {
            let by = Reason::Linked(Arc::new(Place {
                object: object.clone(),
                path: path.clone(),
            }));
            self.take_path(object, path.as_str(), &by, context);
        }
    }

    /// Takes what a path leads to, and the links on its way. Returns whether it leads
    /// anywhere.
    fn take_path(
        &mut self,
        object: &StorePath,
        path: &str,
        reason: &Reason,
        context: &Rc<Context>,
    ) -> bool {
        let Some(walk) = walk::walk(self.objects, object, path) else {
            return false;
        };
        for Place { object, path } in walk.links {
            if let Some((object, _)) = self.objects.get_key_value(&object) {
                let taken = self.taken.entry(object).or_default().entry(path);
                taken.or_insert_with(|| Taken::new(reason.clone()));
            }
        }
        match walk.end {
            End::File(Place { object, path }) => {
                if let Some((object, held)) = self.objects.get_key_value(&object)
                    && let Some(found) = held.listing.find(&path)
                {
                    self.take(object, found, reason.clone(), context);
                }
            }
            End::Directory(object, directory) => {
                self.take_below(&object, &directory, reason, |path| left_out(path).is_none());
            }
        }
        true
    }

    /// Takes what a file needs.
    fn follow(&mut self, pending: &Pending<'a>, links: &Links) {
        let place = Arc::new(pending.place());
        for mention in &links.mentions {
            let named = Reason::Named(Arc::clone(&place));
            // Where nothing is called so, the nearest directory is meant: names are put
            // together when programs run.
            let mut rest = mention.rest.trim_end_matches(['/', '.']);
            while !self.take_path(&mention.object, rest, &named, &Rc::default()) {
                match rest.rsplit_once('/') {
                    Some((above, _)) => rest = above,
                    None => break,
                }
            }
        }
        if links.interpreter.is_none() && links.needed.is_empty() {
            return;
        }
        let mut search: Vec<Directory> = links
            .search
            .iter()
            .filter_map(|directory| searched(&place, directory))
            .collect();
        let mut context = Context::clone(&pending.context);
        if let Some(interpreter) = &links.interpreter {
            context = Context {
                musl: is_musl(interpreter),
                inherited: Vec::new(),
            };
            if let Some((object, path)) = walk::in_store(interpreter) {
                let reason = Reason::Loader(Arc::clone(&place));
                self.take_path(&object, &path, &reason, &Rc::default());
            }
        }
        for directory in &context.inherited {
            if !search.contains(directory) {
                search.push(directory.clone());
            }
        }
        if context.musl {
            context.inherited.clone_from(&search);
        }
        let context = Rc::new(context);
        for name in &links.needed {
            if context.musl && name == "libc.so" {
                // The loader itself.
                continue;
            }
            let found = search.iter().any(|(object, directory)| {
                let path = format!("{directory}/{name}");
                // Looked for before it is taken: only files count.
                let leads_to_file = walk::walk(self.objects, object, &path)
                    .is_some_and(|walk| matches!(walk.end, End::File(_)));
                leads_to_file
                    && self.take_path(object, &path, &Reason::Library(place.clone()), &context)
            });
            if !found {
                self.absent.insert(Absent {
                    by: Place::clone(&place),
                    name: name.clone(),
                });
            }
        }
    }
}

fn is_musl(interpreter: &str) -> bool {
    interpreter
        .rsplit('/')
        .next()
        .is_some_and(|name| name.starts_with("ld-musl-"))
}

/// Returns the directory of an object that a search path of one of its files means.
fn searched(by: &Place, directory: &str) -> Option<Directory> {
    let relative = directory
        .strip_prefix("$ORIGIN")
        .or_else(|| directory.strip_prefix("${ORIGIN}"));
    match relative {
        Some(rest) => Some((
            by.object.clone(),
            format!("{}/{rest}", by.path.parent_str()),
        )),
        None => walk::in_store(directory),
    }
}

#[cfg(test)]
pub(super) mod tests;
