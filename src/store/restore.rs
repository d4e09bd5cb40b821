//! Putting a damaged object together again from what is sound of it.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};

use super::pool::{access, copy_checked};
use super::verify::hash_of;
use super::{ObjectPlan, Scratch, Store, StoreError};
use crate::hash::StorePath;
use crate::hash::object::Position;
use crate::listing::{Entry, Listing};
use crate::tree::scan::list;
use crate::tree::{Hit, TreeRoot};

impl Store {
    /// Makes an object anew from what the pool has, and from what is sound of the damaged
    /// one. Returns whether all of it was there.
    ///
    /// # Errors
    /// [`StoreError`] when the sound parts cannot be put together.
    pub fn restore(&self, path: &StorePath) -> Result<bool, StoreError> {
        let _writing = self.writing()?;
        let scratch = self.scratch()?;
        match self.put_together(path, &scratch)? {
            Some(plan) => self.replace(&plan).map(|()| true),
            None => Ok(false),
        }
    }

    /// As [`Store::restore`], for a caller that keeps writers out and syncs afterwards.
    pub(super) fn restore_alone(&self, path: &StorePath) -> Result<bool, StoreError> {
        let scratch = self.scratch()?;
        match self.put_together(path, &scratch)? {
            Some(plan) => self.exchange(&plan).map(|()| true),
            None => Ok(false),
        }
    }

    /// Makes an object's tree in a working directory, if all of its content is there.
    fn put_together(
        &self,
        path: &StorePath,
        scratch: &Scratch,
    ) -> Result<Option<ObjectPlan>, StoreError> {
        let Some(listing) = self.known_listing(path)? else {
            return Ok(None);
        };
        let tree = scratch.path().join("tree");
        std::fs::create_dir(&tree).map_err(|source| access("create", &tree, source))?;
        let old = self.host_path(path);
        let lost = AtomicBool::new(false);
        let linked = self.link_tree(&TreeRoot::open(&tree)?, &listing, |at, to| {
            let Some(Entry::File { digest, .. }) = listing.get(at) else {
                return Ok(());
            };
            let from = old.join(at.as_str());
            // Content that is gone is an answer; a disk that is full is not.
            let sound =
                TreeRoot::open(&old).is_ok_and(|old| hash_of(&old, at).as_ref() == Ok(digest));
            lost.fetch_or(!sound, Ordering::Relaxed);
            let mut from = File::open(&from).map_err(|source| access("read", &from, source))?;
            copy_checked(&mut from, to, *digest)
        });
        if lost.into_inner() {
            return Ok(None);
        }
        linked?;
        Ok(Some(ObjectPlan {
            path: path.clone(),
            listing,
            references: Vec::<Hit>::new(),
            tree,
            positions: Vec::<Position>::new(),
            patches: std::collections::BTreeMap::new(),
            sealed: true,
        }))
    }

    /// Returns an object's listing as recorded or, where that is damaged, as it lies on
    /// disk if that has the digest that is recorded.
    fn known_listing(&self, path: &StorePath) -> Result<Option<Listing>, StoreError> {
        match self.listing(path) {
            Err(StoreError::Listing { .. }) => {}
            other => return other.map(Some),
        }
        let Some(object) = self.object(path)? else {
            return Ok(None);
        };
        let found = TreeRoot::open(&self.host_path(path)).and_then(|root| list(&root));
        Ok(found.ok().filter(|listing| listing.digest() == object.tree))
    }
}
