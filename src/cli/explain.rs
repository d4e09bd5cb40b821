//! Why something was built: what changed at the root, not what changed because of it.
//!
//! An action is compared with the last one that was built for the same package. Where an
//! object in its place is another, the actions that made the two are compared instead, and
//! so on, down to what a person changed.

use std::collections::{BTreeMap, BTreeSet};

use super::hints;
use super::report::Failure;
use crate::action::{Action, Change, changes};
use crate::hash::{ActionDigest, StorePath};
use crate::listing::compare;
use crate::store::{Store, StoreError};

/// Files that are named when a working tree has changed.
const NAMED_FILES: usize = 3;

/// Finds causes in one store.
pub(super) struct Explainer<'a> {
    store: &'a Store,
    /// What was found for two objects that replace one another.
    known: BTreeMap<(StorePath, StorePath), BTreeSet<String>>,
}

fn one(cause: &str) -> BTreeSet<String> {
    BTreeSet::from([cause.to_owned()])
}

impl<'a> Explainer<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self {
            store,
            known: BTreeMap::new(),
        }
    }

    /// Returns what made it necessary to build an action for a package, sorted.
    pub(super) fn causes(
        &mut self,
        package: &str,
        action: &Action,
    ) -> Result<BTreeSet<String>, Failure> {
        self.find(package, action)
            .map_err(|error| hints::store(&error))
    }

    fn find(&mut self, package: &str, action: &Action) -> Result<BTreeSet<String>, StoreError> {
        let digest = action.digest();
        let runs = self.store.builds(digest)?;
        // One of them is the run that is to be explained.
        if runs.iter().filter(|run| run.outcome == "succeeded").count() > 1 {
            return Ok(one("its output was no longer in the store"));
        }
        let Some(last) = self.store.last_action_but(package, digest)? else {
            return Ok(one("it was never built here before"));
        };
        match self.read(last)? {
            Some(old) => self.between("it", &old, action),
            None => Ok(one("it was last built by another version of kiln")),
        }
    }

    fn read(&self, digest: ActionDigest) -> Result<Option<Action>, StoreError> {
        let json = self.store.action_json(digest)?;
        // What another version wrote may have other members.
        Ok(Action::from_json(&json).ok())
    }

    fn between(
        &mut self,
        subject: &str,
        old: &Action,
        new: &Action,
    ) -> Result<BTreeSet<String>, StoreError> {
        let mut causes = BTreeSet::new();
        for change in changes(old, new) {
            match change {
                Change::Own(words) => {
                    causes.insert(format!("{subject} {words}"));
                }
                Change::Replaced { role, old, new } => {
                    causes.append(&mut self.replaced(&role, &old, &new)?);
                }
            }
        }
        Ok(causes)
    }

    /// Returns why one object stands where another stood.
    fn replaced(
        &mut self,
        role: &str,
        old: &StorePath,
        new: &StorePath,
    ) -> Result<BTreeSet<String>, StoreError> {
        let key = (old.clone(), new.clone());
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        // References lead down only, so this ends; the entry ends it also where a damaged
        // database says otherwise.
        self.known.insert(key.clone(), BTreeSet::new());
        let causes = match (self.producer(old)?, self.producer(new)?) {
            (Some(before), Some(now)) => {
                let subject = format!("`{}`", now.name);
                let causes = self.between(&subject, &before, &now)?;
                if causes.is_empty() {
                    one(&format!("{subject} was made again and is not the same"))
                } else {
                    causes
                }
            }
            (None, None) => one(&self.edited(role, old, new)?),
            _ => one(&format!("`{}` comes from somewhere else", new.name())),
        };
        self.known.insert(key, causes.clone());
        Ok(causes)
    }

    /// Returns an action that made an object; a working tree has none, and what was
    /// removed from the store has none any more.
    fn producer(&self, path: &StorePath) -> Result<Option<Action>, StoreError> {
        match self.store.producers(path)?.first() {
            Some(producer) => self.read(producer.action),
            None => Ok(None),
        }
    }

    /// Says how two working trees differ.
    fn edited(&self, role: &str, old: &StorePath, new: &StorePath) -> Result<String, StoreError> {
        let (before, now) = match (self.store.listing(old), self.store.listing(new)) {
            (Ok(before), Ok(now)) => (before, now),
            (Err(StoreError::Unknown(_)), _) | (_, Err(StoreError::Unknown(_))) => {
                return Ok(format!("its {role} is another"));
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let differences = compare::compare(&before, &now);
        let named: Vec<String> = differences
            .iter()
            .take(NAMED_FILES)
            .map(|difference| format!("`{}`", difference.path))
            .collect();
        let more = differences.len().saturating_sub(NAMED_FILES);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        Ok(format!("its {role} was edited: {}{more}", named.join(", ")))
    }
}
