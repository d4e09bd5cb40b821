//! What several contents bring, as one tree: equal entries are one, different ones conflict.

use std::collections::btree_map::Entry as Slot;

use super::cut::Group;
use super::{Placed, Projection, ProjectionError, WRITABLE_MODE};
use crate::hash::RelPath;
use crate::listing::Entry;

impl Projection {
    /// Makes sure that a directory is there to hold others.
    fn hold(&mut self, path: RelPath) {
        self.entries.entry(path).or_insert_with(Placed::directory);
    }

    /// Puts all of a group at its paths.
    ///
    /// # Errors
    /// [`ProjectionError::Conflict`] with what was put there before.
    pub(super) fn place_all(&mut self, group: &Group, by: &str) -> Result<(), ProjectionError> {
        // One object's entries never conflict: where they are the first, they are copied as
        // they are, without a search for the place of each.
        let is_first = self.entries.is_empty();
        if is_first {
            self.entries.clone_from(&group.entries);
        }
        let mut held = None;
        for (path, placed) in &group.entries {
            // Most stand beside the one before.
            let parent = path.parent_str();
            if held != Some(parent) {
                self.hold_above(path, by)?;
                held = Some(parent);
            }
            if !is_first {
                self.place_held(path, placed.clone(), by)?;
            }
        }
        Ok(())
    }

    /// Puts one entry at its path.
    ///
    /// # Errors
    /// [`ProjectionError::Conflict`] with what was put there before.
    pub(super) fn place(
        &mut self,
        at: &RelPath,
        placed: Placed,
        by: &str,
    ) -> Result<(), ProjectionError> {
        self.hold_above(at, by)?;
        self.place_held(at, placed, by)
    }

    /// As [`Self::place`], in a directory that is held.
    fn place_held(
        &mut self,
        at: &RelPath,
        placed: Placed,
        by: &str,
    ) -> Result<(), ProjectionError> {
        match self.entries.entry(at.clone()) {
            Slot::Vacant(free) => {
                free.insert(placed);
            }
            Slot::Occupied(there) if there.get().entry != placed.entry => {
                return Err(conflict(at.clone(), Some(there.get()), by));
            }
            Slot::Occupied(_) if placed.entry == Entry::Directory => {}
            Slot::Occupied(mut there) => {
                there.insert(placed);
            }
        }
        Ok(())
    }

    fn hold_above(&mut self, at: &RelPath, by: &str) -> Result<(), ProjectionError> {
        for above in at.ancestors() {
            if let Some(there) = self.entries.get(&above)
                && there.entry != Entry::Directory
            {
                return Err(conflict(above, Some(there), by));
            }
            self.hold(above);
        }
        Ok(())
    }

    /// Makes a directory writable, whether it is there or not.
    ///
    /// # Errors
    /// [`ProjectionError::Conflict`] with something else at its path.
    pub(super) fn make_writable(&mut self, path: &RelPath) -> Result<(), ProjectionError> {
        const BY: &str = "the list of writable directories";
        self.hold_above(path, BY)?;
        if let Some(there) = self.entries.get(path)
            && there.entry != Entry::Directory
        {
            return Err(conflict(path.clone(), Some(there), BY));
        }
        let placed = Placed {
            mode: WRITABLE_MODE,
            ..Placed::directory()
        };
        self.entries.insert(path.clone(), placed);
        Ok(())
    }
}

fn conflict(path: RelPath, first: Option<&Placed>, by: &str) -> ProjectionError {
    let first = first.and_then(|first| first.object.as_ref());
    ProjectionError::Conflict {
        path,
        first: first.map_or_else(String::new, |object| object.name().to_string()),
        second: by.to_owned(),
    }
}
