//! Making planned trees objects: moved into place whole, then recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use rusqlite::{Transaction, params};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::add::{Addition, ObjectPlan, plan};
use super::facts::{Lacking, Origin};
use super::objects::{NewObject, insert};
use super::pool::{access, copy_checked};
use super::{Store, StoreError, crash};
use crate::closure::Reference;
use crate::hash::object::SelfReferences;
use crate::hash::{ActionDigest, ObjectName, OutputName, StorePath};
use crate::listing::{Entry, Listing};
use crate::tree::{Hit, TreeRoot, remove_tree, seal};

/// What an action produced, to be recorded together with the objects.
#[derive(Debug, Clone, Copy)]
pub struct Production<'a> {
    /// The action.
    pub action: ActionDigest,
    /// The action's name.
    pub name: &'a ObjectName,
    /// The action's canonical JSON.
    pub json: &'a [u8],
    /// What it gave.
    pub outputs: &'a BTreeMap<OutputName, StorePath>,
    /// How.
    pub origin: Origin,
    /// What the sandbox did without.
    pub lacking: &'a Lacking,
    /// Where a fetched file may be had, in order.
    pub addresses: &'a [String],
}

impl Store {
    /// Adds one tree that names nothing but `candidates`, and returns its path.
    ///
    /// # Errors
    /// As [`plan`] and [`Store::register`].
    pub fn add(
        &self,
        tree: &Path,
        name: &ObjectName,
        candidates: &BTreeSet<StorePath>,
    ) -> Result<StorePath, StoreError> {
        let plan = plan_tree(tree, name, candidates)?;
        self.register(std::slice::from_ref(&plan), None)?;
        Ok(plan.path)
    }

    /// Plans a tree whose every file other objects have already: it is made of links.
    ///
    /// `from` are those objects, and `tree` a directory that does not exist yet. What
    /// they reference, the new object references.
    ///
    /// # Errors
    /// [`StoreError::Access`] when the file system refuses, [`StoreError::Database`].
    pub fn assemble(
        &self,
        listing: &Listing,
        name: &ObjectName,
        from: &[StorePath],
        tree: &Path,
    ) -> Result<ObjectPlan, StoreError> {
        std::fs::create_dir(tree).map_err(|source| access("create", tree, source))?;
        let _writing = self.writing()?;
        self.link_tree(&TreeRoot::open(tree)?, listing, |path, to| {
            // The pool lost it: one of the objects has it still.
            let Some(Entry::File { digest, .. }) = listing.get(path) else {
                return Ok(());
            };
            let found = from
                .iter()
                .find_map(|object| File::open(self.host_path(object).join(path.as_str())).ok());
            let mut found = found.ok_or_else(|| {
                access(
                    "find the content of",
                    to,
                    std::io::ErrorKind::NotFound.into(),
                )
            })?;
            copy_checked(&mut found, to, *digest)
        })?;
        let mut references = Vec::new();
        for object in from {
            for reference in self.references(object)? {
                let Reference {
                    target,
                    file,
                    offset,
                } = reference;
                references.push(Hit {
                    file,
                    offset,
                    target,
                });
            }
        }
        references.sort();
        references.dedup_by(|a, b| a.file == b.file && a.target == b.target);
        let digest = SelfReferences::new(listing.digest(), Vec::new()).digest();
        Ok(ObjectPlan {
            path: StorePath::new(digest, name.clone()),
            listing: listing.clone(),
            references,
            tree: tree.to_owned(),
            positions: Vec::new(),
            patches: BTreeMap::new(),
            sealed: true,
        })
    }

    /// Seals planned trees, moves them into place and records them, and with them what
    /// produced them. All are leased to this process.
    ///
    /// An object that is there already is kept, and the new tree is left where it is.
    ///
    /// # Errors
    /// [`StoreError::Tree`] or [`StoreError::Access`] when the file system refuses,
    /// [`StoreError::Database`] when recording fails; the store stays as it was, and the
    /// trees are gone.
    pub fn register(
        &self,
        plans: &[ObjectPlan],
        production: Option<&Production<'_>>,
    ) -> Result<(), StoreError> {
        let registered = self.seal_and_register(plans, production);
        if registered.is_err() {
            self.mend_if_needed()
                .and_then(|()| self.take_back(plans))
                // The next command mends what this one cannot.
                .unwrap_or_else(|error| tracing::debug!(%error, "something stays for now"));
        }
        registered
    }

    fn seal_and_register(
        &self,
        plans: &[ObjectPlan],
        production: Option<&Production<'_>>,
    ) -> Result<(), StoreError> {
        let mut writing = None;
        let mut sealed: BTreeMap<&StorePath, &ObjectPlan> = BTreeMap::new();
        let (mut changing, missing) = loop {
            for plan in plans {
                if self.object(&plan.path)?.is_some() || sealed.contains_key(&plan.path) {
                    continue;
                }
                if writing.is_none() {
                    writing = Some(self.writing()?);
                }
                if !plan.sealed {
                    self.seal(plan)?;
                }
                sealed.insert(&plan.path, plan);
            }
            crash::point("register: trees sealed");
            let changing = self.changing()?;
            let mut missing = BTreeSet::new();
            for plan in plans {
                if self.object(&plan.path)?.is_none() {
                    missing.insert(&plan.path);
                }
            }
            // One that was there may have gone between the look and the lock.
            if missing.iter().all(|path| sealed.contains_key(*path)) {
                break (changing, missing);
            }
        };
        let names: Vec<String> = plans.iter().map(|plan| plan.path.base_name()).collect();
        self.lease(&names)?;
        changing.note(&names)?;
        crash::point("register: noted");
        sealed.retain(|path, _| missing.contains(path));
        let moved = in_order(&sealed);
        for plan in &moved {
            self.move_into_place(plan)?;
            crash::point("register: tree moved");
        }
        self.in_transaction(|transaction| {
            for plan in &moved {
                record(transaction, plan)?;
            }
            production.map_or(Ok(()), |production| {
                record_production(transaction, production)
            })
        })?;
        crash::point("register: recorded");
        changing.done()?;
        crash::point("register: done");
        Ok(())
    }

    fn move_into_place(&self, plan: &ObjectPlan) -> Result<(), StoreError> {
        let target = self.host_path(&plan.path);
        if std::fs::rename(&plan.tree, &target).is_err() {
            // Nobody else changes objects now, so a tree without a row is a dead process's.
            remove_tree(&target)?;
            std::fs::rename(&plan.tree, &target)
                .map_err(|source| access("move the object to", &target, source))?;
        }
        crash::point("register: tree not sealed");
        Ok(seal::seal_root(&TreeRoot::open(&target)?)?)
    }

    /// Puts a good tree in the place of a damaged one that has the same path; the damaged
    /// one is then where the good one was.
    ///
    /// # Errors
    /// As [`Store::register`]; [`StoreError::Unknown`] when no such object is recorded.
    pub fn replace(&self, plan: &ObjectPlan) -> Result<(), StoreError> {
        let _writing = self.writing()?;
        if !plan.sealed {
            self.seal(plan)?;
        }
        // The object may be noted as synced, and is not hashed again then.
        self.sync_files()?;
        self.exchange(plan)
    }

    /// Exchanges a damaged object and a sealed tree, in one step.
    pub(super) fn exchange(&self, plan: &ObjectPlan) -> Result<(), StoreError> {
        let mut changing = self.changing()?;
        if self.object(&plan.path)?.is_none() {
            return Err(StoreError::Unknown(plan.path.clone()));
        }
        changing.note(&[plan.path.base_name()])?;
        crash::point("replace: noted");
        let target = self.host_path(&plan.path);
        make_movable(&target);
        crash::point("replace: damaged tree movable");
        match renameat_with(CWD, &plan.tree, CWD, &target, RenameFlags::EXCHANGE) {
            Ok(()) => {
                crash::point("replace: tree not sealed");
                seal::seal_root(&TreeRoot::open(&target)?)?;
            }
            Err(Errno::NOENT) => self.move_into_place(plan)?,
            Err(errno) => return Err(access("move the object to", &target, errno.into())),
        }
        crash::point("replace: exchanged");
        let encoded = plan.listing.encode();
        self.in_transaction(|transaction| {
            transaction
                .execute(
                    "INSERT OR REPLACE INTO listings (object, messages)
                     VALUES ((SELECT id FROM objects WHERE path = ?1), ?2)",
                    params![plan.path.base_name(), encoded.to_bytes()],
                )
                .map(drop)
        })?;
        crash::point("replace: recorded");
        changing.done()
    }
}

/// Plans one tree that was not built and so knows no path of its own.
///
/// # Errors
/// As [`plan`].
pub fn plan_tree(
    tree: &Path,
    name: &ObjectName,
    candidates: &BTreeSet<StorePath>,
) -> Result<ObjectPlan, StoreError> {
    let addition = Addition {
        tree: tree.to_owned(),
        name: name.clone(),
        scratch: None,
    };
    let mut plans = plan(std::slice::from_ref(&addition), candidates)?;
    plans.pop().ok_or(StoreError::Malformed {
        what: "plan",
        value: String::new(),
    })
}

/// Moving a directory needs write permission on it.
pub(super) fn make_movable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    // If this fails, so does the move, which says why.
    drop(std::fs::set_permissions(
        path,
        std::fs::Permissions::from_mode(0o700),
    ));
}

fn record(transaction: &Transaction<'_>, plan: &ObjectPlan) -> rusqlite::Result<()> {
    insert(
        transaction,
        &NewObject {
            path: &plan.path,
            tree: &plan.listing.encode(),
            listing: &plan.listing,
            positions: &plan.positions,
            references: &plan.references,
            now: super::runs::now(),
        },
    )
}

fn record_production(
    transaction: &Transaction<'_>,
    production: &Production<'_>,
) -> rusqlite::Result<()> {
    super::facts::insert_action(
        transaction,
        production.action,
        production.name,
        production.json,
    )?;
    for (output, path) in production.outputs {
        transaction
            .prepare_cached(
                // A build in a whole sandbox takes the place of one that was not, and
                // nothing else takes the place of anything.
                "INSERT INTO realisations (action, output, object, origin, lacking)
                 VALUES (?1, ?2, (SELECT id FROM objects WHERE path = ?3), ?4, ?5)
                 ON CONFLICT DO UPDATE
                 SET object = excluded.object, origin = excluded.origin, lacking = ''
                 WHERE lacking <> '' AND excluded.lacking = ''",
            )?
            .execute(params![
                production.action.as_bytes(),
                output.as_str(),
                path.base_name(),
                production.origin.as_str(),
                production.lacking.to_column()
            ])?;
    }
    for (position, url) in (0_i64..).zip(production.addresses) {
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO addresses (action, position, url) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![production.action.as_bytes(), position, url])?;
    }
    Ok(())
}

/// Returns plans in an order in which each comes after those that it names.
fn in_order<'a>(plans: &BTreeMap<&StorePath, &'a ObjectPlan>) -> Vec<&'a ObjectPlan> {
    let mut placed: BTreeSet<&StorePath> = BTreeSet::new();
    let mut order = Vec::new();
    let mut pending: Vec<(&ObjectPlan, bool)> = plans.values().map(|p| (*p, false)).collect();
    while let Some((plan, named_are_placed)) = pending.pop() {
        if named_are_placed {
            order.push(plan);
        } else if placed.insert(&plan.path) {
            pending.push((plan, true));
            let named = plan
                .references
                .iter()
                .filter_map(|hit| plans.get(&hit.target));
            pending.extend(named.map(|named| (*named, false)));
        }
    }
    order
}
