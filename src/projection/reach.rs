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
    Loader(Place),
    /// A program or library needs it.
    Library(Place),
    /// A file names it, or a directory around it.
    Named(Place),
    /// A link leads to it, or through it.
    Linked(Place),
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
        reached: Reached::default(),
        pending: Vec::new(),
        seen: BTreeSet::new(),
    };
    for content in contents {
        reacher.choose(content)?;
    }
    let mut links: BTreeMap<BlobDigest, Rc<Links>> = BTreeMap::new();
    while !reacher.pending.is_empty() {
        let round = std::mem::take(&mut reacher.pending);
        let mut unread: BTreeMap<(BlobDigest, bool), Place> = BTreeMap::new();
        for (place, _) in &round {
            if let Some(Entry::File {
                digest, executable, ..
            }) = entry(objects, place)
                && !links.contains_key(digest)
            {
                unread
                    .entry((*digest, *executable))
                    .or_insert_with(|| place.clone());
            }
        }
        let unread: Vec<ToRead> = unread
            .into_iter()
            .map(|((digest, executable), place)| ToRead {
                place,
                digest,
                executable,
            })
            .collect();
        let read = read(&unread)?;
        for (file, found) in unread.iter().zip(read) {
            links.insert(file.digest, Rc::new(found));
        }
        for (place, context) in round {
            if let Some(Entry::File { digest, .. }) = entry(objects, &place)
                && let Some(links) = links.get(digest)
            {
                let links = Rc::clone(links);
                reacher.follow(&place, &context, &links);
            }
        }
    }
    Ok(reacher.reached)
}

fn entry<'a>(objects: &'a Objects, place: &Place) -> Option<&'a Entry> {
    objects.get(&place.object)?.listing.get(&place.path)
}

/// How the loader of the program around a library works.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Context {
    /// Whether it is musl's, which is the C library too, and looks where the programs and
    /// libraries look that brought a library.
    musl: bool,
    /// Where those look.
    inherited: Vec<Directory>,
}

/// A directory of an object; its root is the empty path.
type Directory = (StorePath, String);

struct Reacher<'a> {
    objects: &'a Objects,
    reached: Reached,
    pending: Vec<(Place, Context)>,
    seen: BTreeSet<(Place, Context)>,
}

impl Reacher<'_> {
    fn choose(&mut self, content: &Content) -> Result<(), ProjectionError> {
        let Some(object) = self.objects.get(&content.object) else {
            return Ok(());
        };
        let Some(files) = &content.files else {
            self.take_below(&content.object, "", &Reason::Within, |path| {
                left_out(path).is_none_or(|rule| content.keep.contains(rule.name))
            });
            return Ok(());
        };
        for wanted in files {
            let at = Place {
                object: content.object.clone(),
                path: wanted.clone(),
            };
            match object.listing.get(wanted) {
                None => {
                    let paths = object.listing.iter().map(|(path, _)| path.as_str());
                    return Err(ProjectionError::NoSuchFile {
                        package: content.package.clone(),
                        path: wanted.clone(),
                        nearest: nearest(wanted.as_str(), paths).map(str::to_owned),
                    });
                }
                Some(Entry::Directory) => {
                    self.take_below(&at.object, wanted.as_str(), &Reason::Within, |_| true);
                }
                Some(_) => self.take(&at, Reason::Chosen, &Context::default()),
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
        let Some(Object { listing, .. }) = self.objects.get(object) else {
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
        for (path, _) in listing.iter() {
            if below(path) && wanted(path) {
                let place = Place {
                    object: object.clone(),
                    path: path.clone(),
                };
                self.take(&place, reason.clone(), &Context::default());
            }
        }
    }

    /// Takes one entry; a link with what it leads to, a file to be read.
    fn take(&mut self, place: &Place, reason: Reason, context: &Context) {
        let Some(found) = entry(self.objects, place) else {
            return;
        };
        let taken = self.reached.taken.entry(place.object.clone()).or_default();
        taken.entry(place.path.clone()).or_insert(reason);
        match found {
            Entry::Directory => {}
            Entry::File { .. } => {
                if self.seen.insert((place.clone(), context.clone())) {
                    self.pending.push((place.clone(), context.clone()));
                }
            }
            Entry::Symlink { .. } => {
                if self.seen.insert((place.clone(), context.clone())) {
                    let path = place.path.as_str();
                    self.take_path(&place.object, path, &Reason::Linked(place.clone()), context);
                }
            }
        }
    }

    /// Takes what a path leads to, and the links on its way. Returns whether it leads
    /// anywhere.
    fn take_path(
        &mut self,
        object: &StorePath,
        path: &str,
        reason: &Reason,
        context: &Context,
    ) -> bool {
        let Some(walk) = walk::walk(self.objects, object, path) else {
            return false;
        };
        for link in walk.links {
            let taken = self.reached.taken.entry(link.object.clone()).or_default();
            taken.entry(link.path).or_insert_with(|| reason.clone());
        }
        match walk.end {
            End::File(place) => self.take(&place, reason.clone(), context),
            End::Directory(object, directory) => {
                self.take_below(&object, &directory, reason, |path| left_out(path).is_none());
            }
        }
        true
    }

    /// Takes what a file needs.
    fn follow(&mut self, place: &Place, context: &Context, links: &Links) {
        for mention in &links.mentions {
            let named = Reason::Named(place.clone());
            // Where nothing is called so, the nearest directory is meant: names are put
            // together when programs run.
            let mut rest = mention.rest.trim_end_matches(['/', '.']);
            while !self.take_path(&mention.object, rest, &named, &Context::default()) {
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
            .filter_map(|directory| searched(place, directory))
            .collect();
        let mut context = context.clone();
        if let Some(interpreter) = &links.interpreter {
            context = Context {
                musl: is_musl(interpreter),
                inherited: Vec::new(),
            };
            if let Some((object, path)) = walk::in_store(interpreter) {
                let reason = Reason::Loader(place.clone());
                self.take_path(&object, &path, &reason, &Context::default());
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
                self.reached.absent.insert(Absent {
                    by: place.clone(),
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
