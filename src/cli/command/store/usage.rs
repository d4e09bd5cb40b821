//! `kiln store usage`.

use serde_json::{Value, json};

use crate::cli::hints;
use crate::cli::progress::bytes;
use crate::cli::report::{Answer, Failure};
use crate::cli::session::Session;
use crate::gc::Disk;

pub(super) fn run(session: &Session) -> Result<Answer, Failure> {
    let store = &session.store;
    let census = store.census().map_err(|error| hints::store(&error))?;
    let disk = Disk::measure(store, &census).map_err(|error| hints::store(&error))?;
    let mut rows: Vec<_> = census
        .objects
        .iter()
        .enumerate()
        .map(|(place, known)| (disk.split(place), &known.path))
        .collect();
    // What frees the most comes first.
    rows.sort_by_key(|((own, shared), path)| {
        (
            std::cmp::Reverse(*own),
            std::cmp::Reverse(*shared),
            path.name(),
            path.digest(),
        )
    });
    if session.output.json {
        let objects: Vec<Value> = rows
            .iter()
            .map(|((own, shared), path)| {
                json!({ "path": path.to_string(), "own_bytes": own, "shared_bytes": shared })
            })
            .collect();
        session
            .output
            .document(&json!({ "bytes": disk.bytes, "objects": objects }));
        return Ok(Answer::Yes);
    }
    session
        .output
        .line(&format!("{:>12} {:>12}  object", "own", "shared"));
    session
        .output
        .lines(rows.iter().map(|((own, shared), path)| {
            format!("{:>12} {:>12}  {path}", bytes(*own), bytes(*shared))
        }));
    session.output.tell(&format!(
        "{} in {} objects; what several share is counted once",
        bytes(disk.bytes),
        rows.len()
    ));
    Ok(Answer::Yes)
}
