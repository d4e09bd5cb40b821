//! What linkers took into programs.

use std::collections::BTreeMap;

use rusqlite::params;

use super::{Store, StoreError};
use crate::hash::{ActionDigest, OutputName, RelPath};
use crate::listing::link::Link;

impl Store {
    /// Records what linkers took into the programs of an action's outputs. What was recorded
    /// of it before is replaced.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::ReadOnly`].
    pub fn record_links(
        &self,
        action: ActionDigest,
        links: &BTreeMap<(OutputName, RelPath), Link>,
    ) -> Result<(), StoreError> {
        if links.is_empty() {
            return Ok(());
        }
        self.in_transaction(|transaction| {
            // A collection may have taken what the action gave.
            let there = transaction
                .prepare_cached("SELECT 1 FROM realisations WHERE action = ?1")?
                .exists([action.as_bytes()])?;
            if !there {
                return Ok(());
            }
            transaction
                .prepare_cached("DELETE FROM links WHERE action = ?1")?
                .execute([action.as_bytes()])?;
            for ((output, file), link) in links {
                let Ok(record) = link.to_json() else {
                    continue;
                };
                transaction
                    .prepare_cached(
                        "INSERT INTO links (action, output, file, record) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute(params![
                        action.as_bytes(),
                        output.as_str(),
                        file.as_str(),
                        record
                    ])?;
            }
            Ok(())
        })
    }

    /// Returns what linkers took into the programs of an output.
    ///
    /// # Errors
    /// [`StoreError::Database`], or [`StoreError::Malformed`] for a record that is none.
    pub fn links(
        &self,
        action: ActionDigest,
        output: &OutputName,
    ) -> Result<BTreeMap<RelPath, Link>, StoreError> {
        let rows: Vec<(String, Vec<u8>)> = self.query(
            "SELECT file, record FROM links WHERE action = ?1 AND output = ?2",
            params![action.as_bytes(), output.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        rows.into_iter()
            .map(|(file, record)| {
                let read = file.parse().ok().zip(Link::from_json(&record));
                read.ok_or_else(|| StoreError::Malformed {
                    what: "record of a link",
                    value: file,
                })
            })
            .collect()
    }
}
