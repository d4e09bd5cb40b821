//! What is taken, and which files are still to be followed, for which loaders.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::{Place, Reason, ToRead};
use crate::hash::{BlobDigest, RelPath, StorePath};
use crate::listing::Entry;

/// How the loader of the program around a library works.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Context {
    /// Whether it is musl's, which is the C library too, and looks where the programs and
    /// libraries look that brought a library.
    pub musl: bool,
    /// Where those look.
    pub inherited: Vec<Directory>,
}

/// A directory of an object; its root is the empty path.
pub(super) type Directory = (StorePath, String);

/// An entry that is taken.
pub(super) struct Taken {
    /// Why, at first.
    pub reason: Reason,
    /// Whether it was followed, if it is a file or a link, for the loader of no program.
    followed: bool,
    /// The other loaders that it was followed for: few entries have any.
    followed_for: BTreeSet<Rc<Context>>,
}

impl Taken {
    /// Takes an entry that nothing was followed from.
    pub fn new(reason: Reason) -> Self {
        Self {
            reason,
            followed: false,
            followed_for: BTreeSet::new(),
        }
    }

    /// Returns whether it is to be followed: once for each loader.
    pub fn is_to_follow(&mut self, context: &Rc<Context>) -> bool {
        if **context == Context::default() {
            return !std::mem::replace(&mut self.followed, true);
        }
        self.followed_for.insert(Rc::clone(context))
    }
}

/// A file whose content says what else is taken.
pub(super) struct Pending<'a> {
    object: &'a StorePath,
    path: &'a RelPath,
    executable: bool,
    /// Its content.
    pub digest: BlobDigest,
    /// The loader that it is followed for.
    pub context: Rc<Context>,
}

impl<'a> Pending<'a> {
    /// Returns an entry that is a file, unless it was followed for this loader before.
    pub fn new(
        object: &'a StorePath,
        (path, entry): (&'a RelPath, &'a Entry),
        taken: &mut Taken,
        context: &Rc<Context>,
    ) -> Option<Self> {
        match entry {
            Entry::File {
                digest, executable, ..
            } if taken.is_to_follow(context) => Some(Self {
                object,
                path,
                executable: *executable,
                digest: *digest,
                context: Rc::clone(context),
            }),
            _ => None,
        }
    }

    /// Returns where it is.
    pub fn place(&self) -> Place {
        Place {
            object: self.object.clone(),
            path: self.path.clone(),
        }
    }
}

/// Returns the files of a round whose content is new, sorted, each content once: where it
/// stands first, as an executable if it is one anywhere.
pub(super) fn unread(round: &[Pending<'_>], is_new: impl Fn(&BlobDigest) -> bool) -> Vec<ToRead> {
    let mut files: Vec<&Pending<'_>> = round.iter().filter(|file| is_new(&file.digest)).collect();
    files.sort_by_key(|file| (file.digest, !file.executable));
    files.dedup_by_key(|file| file.digest);
    let files = files.into_iter().map(|file| ToRead {
        place: file.place(),
        digest: file.digest,
        executable: file.executable,
    });
    files.collect()
}
