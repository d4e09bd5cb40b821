//! Actions and what they produced.

use std::collections::BTreeMap;

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
pub type Realisation = (BTreeMap<OutputName, StorePath>, Origin);

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
        let rows: Vec<(String, String, String, i64, i64)> = self.query(
            "SELECT r.output, o.path, r.origin, o.id, o.used_at FROM realisations r
             JOIN objects o ON o.id = r.object WHERE r.action = ?1",
            [action.as_bytes()],
            |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                ))
            },
        )?;
        let mut outputs = BTreeMap::new();
        let mut origin = None;
        let mut uses = Vec::new();
        for (output, path, word, id, used_at) in rows {
            outputs.insert(output_name(&output)?, StorePath::from_base_name(&path)?);
            origin = Some(Origin::parse(&word)?);
            uses.push(Use { id, used_at });
        }
        Ok(origin.map(|origin| ((outputs, origin), uses)))
    }

    /// Returns the actions that produced an object, with the output's name and origin.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn producers(
        &self,
        path: &StorePath,
    ) -> Result<Vec<(ActionDigest, OutputName, Origin)>, StoreError> {
        let rows: Vec<([u8; 32], String, String)> = self.query(
            "SELECT r.action, r.output, r.origin FROM realisations r
             JOIN objects o ON o.id = r.object WHERE o.path = ?1
             ORDER BY r.action, r.output",
            [path.base_name()],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
        rows.into_iter()
            .map(|(action, output, origin)| {
                Ok((
                    ActionDigest::from_bytes(action),
                    output_name(&output)?,
                    Origin::parse(&origin)?,
                ))
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
