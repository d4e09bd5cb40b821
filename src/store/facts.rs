//! Actions and what they produced.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, TransactionBehavior, params};

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

/// What an action produced, and how.
pub type Realisation = (BTreeMap<OutputName, StorePath>, Origin);

impl Store {
    /// Records an action's canonical JSON.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn record_action(
        &self,
        digest: ActionDigest,
        name: &ObjectName,
        json: &[u8],
    ) -> Result<(), StoreError> {
        self.with_database(|connection| {
            connection
                .prepare_cached(
                    "INSERT OR IGNORE INTO actions (digest, name, json) VALUES (?1, ?2, ?3)",
                )
                .and_then(|mut statement| {
                    statement.execute(params![digest.as_bytes(), name.as_str(), json])
                })
                .map(|_| ())
                .map_err(|source| self.failed(source))
        })
    }

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

    /// Records what an action produced. What was recorded before stays.
    ///
    /// # Errors
    /// [`StoreError::Database`], also when an object is not in the store.
    pub fn record_realisation(
        &self,
        action: ActionDigest,
        outputs: &BTreeMap<OutputName, StorePath>,
        origin: Origin,
    ) -> Result<(), StoreError> {
        self.with_database(|connection| {
            let record = |connection: &mut rusqlite::Connection| {
                let transaction =
                    connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                for (output, path) in outputs {
                    transaction
                        .prepare_cached(
                            "INSERT INTO realisations (action, output, object, origin)
                             VALUES (?1, ?2, (SELECT id FROM objects WHERE path = ?3), ?4)
                             ON CONFLICT DO NOTHING",
                        )?
                        .execute(params![
                            action.as_bytes(),
                            output.as_str(),
                            path.base_name(),
                            origin.as_str()
                        ])?;
                }
                transaction.commit()
            };
            record(connection).map_err(|source| self.failed(source))
        })
    }

    /// Returns what an action produced, or `None` when it was never realised here.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn realisation(&self, action: ActionDigest) -> Result<Option<Realisation>, StoreError> {
        let rows: Vec<(String, String, String)> = self.with_database(|connection| {
            connection
                .prepare_cached(
                    "SELECT r.output, o.path, r.origin FROM realisations r
                     JOIN objects o ON o.id = r.object WHERE r.action = ?1",
                )
                .and_then(|mut statement| {
                    statement
                        .query_map([action.as_bytes()], |row| {
                            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                        })?
                        .collect()
                })
                .map_err(|source| self.failed(source))
        })?;
        let mut outputs = BTreeMap::new();
        let mut origin = None;
        for (output, path, word) in rows {
            let output = output.parse().map_err(|_| StoreError::Malformed {
                what: "output name",
                value: output.clone(),
            })?;
            outputs.insert(output, StorePath::from_base_name(&path)?);
            origin = Some(Origin::parse(&word)?);
        }
        Ok(origin.map(|origin| (outputs, origin)))
    }

    /// Returns the actions that produced an object, with the output's name and origin.
    ///
    /// # Errors
    /// [`StoreError::Database`] or [`StoreError::Malformed`].
    pub fn producers(
        &self,
        path: &StorePath,
    ) -> Result<Vec<(ActionDigest, OutputName, Origin)>, StoreError> {
        let rows: Vec<([u8; 32], String, String)> = self.with_database(|connection| {
            connection
                .prepare_cached(
                    "SELECT r.action, r.output, r.origin FROM realisations r
                     JOIN objects o ON o.id = r.object WHERE o.path = ?1
                     ORDER BY r.action, r.output",
                )
                .and_then(|mut statement| {
                    statement
                        .query_map([path.base_name()], |row| {
                            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                        })?
                        .collect()
                })
                .map_err(|source| self.failed(source))
        })?;
        rows.into_iter()
            .map(|(action, output, origin)| {
                let output = output.parse().map_err(|_| StoreError::Malformed {
                    what: "output name",
                    value: output.clone(),
                })?;
                Ok((
                    ActionDigest::from_bytes(action),
                    output,
                    Origin::parse(&origin)?,
                ))
            })
            .collect()
    }
}
