//! What happened: builds and proofs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{OptionalExtension, params};

use super::{Hermeticity, Lacking, Store, StoreError, crash};
use crate::hash::{ActionDigest, ObjectName};

/// One run of a build or test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRecord {
    /// The action that ran.
    pub action: ActionDigest,
    /// For which package, as people name it; a test has ` (test)` after it.
    pub package: String,
    /// When it started.
    pub started: SystemTime,
    /// How long it took.
    pub wall: Duration,
    /// Processor time of all its processes.
    pub cpu: Duration,
    /// Largest resident size of one process, in bytes.
    pub peak_memory_bytes: u64,
    /// `succeeded`, or what ended it, in words.
    pub outcome: String,
    /// The log's file below `logs/`, if anything was logged.
    pub log: Option<String>,
    /// What the sandbox did without.
    pub lacking: Lacking,
}

/// The answer of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every rebuild gave the same bytes.
    Reproducible,
    /// A rebuild gave other bytes.
    Different,
}

impl Verdict {
    /// Returns the word that the database and `--json` use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reproducible => "reproducible",
            Self::Different => "different",
        }
    }
}

/// The record of rebuilding one action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofRecord {
    /// The action that was rebuilt.
    pub action: ActionDigest,
    /// How often, the first build not counted.
    pub rebuilds: u32,
    /// What was varied, in a fixed order, separated by commas.
    pub variations: String,
    /// The answer.
    pub verdict: Verdict,
    /// The first difference, in words.
    pub difference: Option<String>,
    /// What the sandbox of the build, or that of a rebuild, did without.
    pub lacking: Lacking,
}

/// Returns the current time in whole seconds; it is recorded, never hashed.
pub(super) fn now() -> i64 {
    seconds(SystemTime::now())
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn unmillis(value: i64) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or(0))
}

impl Store {
    /// Records one run of a build or test, and its action.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn record_build(
        &self,
        build: &BuildRecord,
        name: &ObjectName,
        json: &[u8],
    ) -> Result<(), StoreError> {
        self.in_transaction(|transaction| {
            super::facts::insert_action(transaction, build.action, name, json)?;
            transaction
                .prepare_cached(
                    "INSERT INTO builds (action, package, started_at, wall_ms, cpu_ms,
                                         peak_memory_bytes, outcome, log, lacking)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                )?
                .execute(params![
                    build.action.as_bytes(),
                    build.package,
                    seconds(build.started),
                    millis(build.wall),
                    millis(build.cpu),
                    i64::try_from(build.peak_memory_bytes).unwrap_or(i64::MAX),
                    build.outcome,
                    build.log,
                    build.lacking.to_column()
                ])
                .map(drop)
        })?;
        crash::point("build: run recorded");
        Ok(())
    }

    /// Returns how long the last successful run of a package's build took.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn last_duration(&self, package: &str) -> Result<Option<Duration>, StoreError> {
        let found = self.query(
            "SELECT wall_ms FROM builds WHERE package = ?1 AND outcome = 'succeeded'
             ORDER BY id DESC LIMIT 1",
            [package],
            |row| row.get(0),
        )?;
        Ok(found.first().copied().map(unmillis))
    }

    /// Returns the last action that was built for a package with success, and is not
    /// `but`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn last_action_but(
        &self,
        package: &str,
        but: ActionDigest,
    ) -> Result<Option<ActionDigest>, StoreError> {
        let found = self.query(
            "SELECT action FROM builds WHERE package = ?1 AND outcome = 'succeeded'
             AND action <> ?2 ORDER BY id DESC LIMIT 1",
            params![package, but.as_bytes()],
            |row| row.get(0),
        )?;
        Ok(found.first().copied().map(ActionDigest::from_bytes))
    }

    /// Returns whether a run of an action succeeded that counts.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn has_succeeded(
        &self,
        action: ActionDigest,
        hermeticity: Hermeticity,
    ) -> Result<bool, StoreError> {
        let found: Vec<String> = self.query(
            "SELECT DISTINCT lacking FROM builds WHERE action = ?1 AND outcome = 'succeeded'",
            [action.as_bytes()],
            |row| row.get(0),
        )?;
        Ok(found
            .iter()
            .any(|lacking| hermeticity.accepts(&Lacking::from_column(lacking))))
    }

    /// Returns the runs of an action, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn builds(&self, action: ActionDigest) -> Result<Vec<BuildRecord>, StoreError> {
        self.with_database(|connection| {
            connection
                .prepare_cached(
                    "SELECT started_at, wall_ms, cpu_ms, peak_memory_bytes, outcome, log, package, lacking FROM builds
                     WHERE action = ?1 ORDER BY id DESC",
                )
                .and_then(|mut statement| {
                    statement
                        .query_map([action.as_bytes()], |row| {
                            let started: i64 = row.get(0)?;
                            let memory: i64 = row.get(3)?;
                            Ok(BuildRecord {
                                action,
                                started: UNIX_EPOCH
                                    + Duration::from_secs(u64::try_from(started).unwrap_or(0)),
                                wall: unmillis(row.get(1)?),
                                cpu: unmillis(row.get(2)?),
                                peak_memory_bytes: u64::try_from(memory).unwrap_or(0),
                                outcome: row.get(4)?,
                                log: row.get(5)?,
                                package: row.get(6)?,
                                lacking: Lacking::from_column(&row.get::<_, String>(7)?),
                            })
                        })?
                        .collect()
                })
                .map_err(|source| self.failed(source))
        })
    }

    /// Records the verdict of rebuilding an action.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn record_proof(&self, proof: &ProofRecord) -> Result<(), StoreError> {
        self.must_be_writable()?;
        self.with_database(|connection| {
            connection
                .execute(
                    "INSERT INTO proofs (action, proved_at, rebuilds, variations, verdict,
                                         difference, lacking)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    params![
                        proof.action.as_bytes(),
                        now(),
                        proof.rebuilds,
                        proof.variations,
                        proof.verdict.as_str(),
                        proof.difference,
                        proof.lacking.to_column()
                    ],
                )
                .map(|_| ())
                .map_err(|source| self.failed(source))
        })
    }

    /// Returns the newest proof of an action.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn proof(&self, action: ActionDigest) -> Result<Option<ProofRecord>, StoreError> {
        self.with_database(|connection| {
            connection
                .query_row(
                    "SELECT rebuilds, variations, verdict, difference, lacking FROM proofs
                     WHERE action = ?1 ORDER BY id DESC LIMIT 1",
                    [action.as_bytes()],
                    |row| {
                        let verdict: String = row.get(2)?;
                        Ok(ProofRecord {
                            action,
                            rebuilds: row.get(0)?,
                            variations: row.get(1)?,
                            verdict: if verdict == "reproducible" {
                                Verdict::Reproducible
                            } else {
                                Verdict::Different
                            },
                            difference: row.get(3)?,
                            lacking: Lacking::from_column(&row.get::<_, String>(4)?),
                        })
                    },
                )
                .optional()
                .map_err(|source| self.failed(source))
        })
    }
}
