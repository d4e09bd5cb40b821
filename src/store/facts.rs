//! Actions and what they produced.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, Transaction, params};

use super::{Store, StoreError};
use crate::hash::{ActionDigest, ObjectName, OutputName, StorePath};

/// How an object came to be the output of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A sandboxed build made it.
    Built,
    /// It was downloaded and its hash was the declared one.
    Fetched,
    /// kiln itself unpacked or merged it from other objects.
    Unpacked,
}

impl Origin {
    /// Returns the word that the database and `--json` use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Built => "built",
            Self::Fetched => "fetched",
            Self::Unpacked => "unpacked",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        match text {
            "built" => Ok(Self::Built),
            "fetched" => Ok(Self::Fetched),
            "unpacked" => Ok(Self::Unpacked),
            other => Err(StoreError::Malformed {
                what: "origin",
                value: other.to_owned(),
            }),
        }
    }
}

/// When an object was last used, as far as is noted.
pub(super) struct Use {
    /// The object's row.
    pub id: i64,
    /// Seconds since 1970.
    pub used_at: i64,
}

/// What an action produced, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realisation {
    /// The objects.
    pub outputs: BTreeMap<OutputName, StorePath>,
    /// How.
    pub origin: Origin,
    /// What the sandbox did without.
    pub lacking: Lacking,
}

/// An action that produced an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// The action.
    pub action: ActionDigest,
    /// The output that the object is.
    pub output: OutputName,
    /// How.
    pub origin: Origin,
    /// What the sandbox did without.
    pub lacking: Lacking,
}

/// What a sandbox did without of what the design asks for, by name; empty where it was
/// whole, or where there was none. A result that lacks anything is not hermetic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lacking(BTreeSet<String>);

impl Lacking {
    /// Returns what was lacking in either of two sandboxes.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }

    /// Returns whether nothing was lacking.
    pub fn is_hermetic(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Returns the form of the database: names with commas between.
    pub(super) fn to_column(&self) -> String {
        self.names().collect::<Vec<_>>().join(",")
    }

    pub(super) fn from_column(text: &str) -> Self {
        text.split(',').filter(|name| !name.is_empty()).collect()
    }
}

impl<'a> FromIterator<&'a str> for Lacking {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        Self(names.into_iter().map(str::to_owned).collect())
    }
}

/// Whether results count that were made in a sandbox that lacked something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hermeticity {
    /// They do not, and none are made.
    #[default]
    Required,
    /// They do.
    Waived,
}

impl Hermeticity {
    /// Returns whether a result counts.
    pub fn accepts(self, lacking: &Lacking) -> bool {
        self == Self::Waived || lacking.is_hermetic()
    }
}

impl Store {
    /// Returns an action's canonical JSON.
    ///
    /// # Errors
    /// [`StoreError::UnknownAction`] or [`StoreError::Database`].
    pub fn action_json(&self, digest: ActionDigest) -> Result<Vec<u8>, StoreError> {
        self.with_database(|connection| {
            connection
                .query_row(
                    "SELECT json FROM actions WHERE digest = ?1",
                    [digest.as_bytes()],
                    |row| row.get(0),
                )
                .optional()
                .map_err(|source| self.failed(source))
        })?
        .ok_or(StoreError::UnknownAction(digest))
    }

    /// Returns where a fetched file may be had, in order.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn addresses(&self, action: ActionDigest) -> Result<Vec<String>, StoreError> {
        self.query(
            "SELECT url FROM addresses WHERE action = ?1 ORDER BY position",
            [action.as_bytes()],
            |row| row.get(0),
        )
    }

    /// Returns what an action produced, or `None` when it was never realised here. What
    /// must not be collected afterwards is asked through [`Store::look`].
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn realisation(&self, action: ActionDigest) -> Result<Option<Realisation>, StoreError> {
        let found = self.realisation_and_uses(action)?;
        Ok(found.map(|(realisation, _)| realisation))
    }

    /// Returns what an action produced, with each object's last noted use.
    pub(super) fn realisation_and_uses(
        &self,
        action: ActionDigest,
    ) -> Result<Option<(Realisation, Vec<Use>)>, StoreError> {
        let rows: Vec<(String, String, String, String, i64, i64)> = self.query(
            "SELECT r.output, o.path, r.origin, r.lacking, o.id, o.used_at FROM realisations r
             JOIN objects o ON o.id = r.object WHERE r.action = ?1",
            [action.as_bytes()],
            |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                    row.get(5)?,
                ))
            },
        )?;
        let mut outputs = BTreeMap::new();
        let mut how = None;
        let mut lacking = Lacking::default();
        let mut uses = Vec::new();
        for (output, path, origin, lacked, id, used_at) in rows {
            outputs.insert(output_name(&output)?, StorePath::from_base_name(&path)?);
            how = Some(Origin::parse(&origin)?);
            lacking = lacking.or(&Lacking::from_column(&lacked));
            uses.push(Use { id, used_at });
        }
        Ok(how.map(|origin| {
            let realisation = Realisation {
                outputs,
                origin,
                lacking,
            };
            (realisation, uses)
        }))
    }

    /// Returns the actions that produced an object, sorted by digest and output.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn producers(&self, path: &StorePath) -> Result<Vec<Producer>, StoreError> {
        let rows: Vec<([u8; 32], String, String, String)> = self.query(
            "SELECT r.action, r.output, r.origin, r.lacking FROM realisations r
             JOIN objects o ON o.id = r.object WHERE o.path = ?1
             ORDER BY r.action, r.output",
            [path.base_name()],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )?;
        rows.into_iter()
            .map(|(action, output, origin, lacking)| {
                Ok(Producer {
                    action: ActionDigest::from_bytes(action),
                    output: output_name(&output)?,
                    origin: Origin::parse(&origin)?,
                    lacking: Lacking::from_column(&lacking),
                })
            })
            .collect()
    }
}

/// Enters an action if it is not known yet.
pub(super) fn insert_action(
    transaction: &Transaction<'_>,
    digest: ActionDigest,
    name: &ObjectName,
    json: &[u8],
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT OR IGNORE INTO actions (digest, name, json) VALUES (?1, ?2, ?3)")?
        .execute(params![digest.as_bytes(), name.as_str(), json])
        .map(drop)
}

fn output_name(text: &str) -> Result<OutputName, StoreError> {
    text.parse().map_err(|_| StoreError::Malformed {
        what: "output name",
        value: text.to_owned(),
    })
}
