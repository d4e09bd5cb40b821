//! `kiln store`.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::cli::hints;
use crate::cli::report::{Answer, Failure};
use crate::cli::session::Session;

pub(in crate::cli) fn list(session: &Session) -> Result<Answer, Failure> {
    let objects = session
        .store
        .objects()
        .map_err(|error| hints::store(&error))?;
    if session.output.json {
        let documents: Vec<_> = objects
            .iter()
            .map(|object| {
                json!({
                    "path": object.path.to_string(),
                    "tree": object.tree.to_string(),
                    "size_bytes": object.size_bytes,
                    "entries": object.entries,
                })
            })
            .collect();
        session.output.document(&json!({ "objects": documents }));
    } else {
        objects
            .iter()
            .for_each(|object| session.output.line(&object.path.to_string()));
    }
    Ok(Answer::Yes)
}

pub(in crate::cli) fn verify(session: &Session) -> Result<Answer, Failure> {
    let store = &session.store;
    let objects = store.objects().map_err(|error| hints::store(&error))?;
    let bar = indicatif::ProgressBar::new(objects.len() as u64);
    let done = AtomicUsize::new(0);
    let damage = store
        .verify(&objects, &|_| {
            bar.set_position(done.fetch_add(1, Ordering::Relaxed) as u64 + 1);
        })
        .map_err(|error| hints::store(&error))?;
    bar.finish_and_clear();
    let unrecorded = store.unrecorded().map_err(|error| hints::store(&error))?;
    if session.output.json {
        let documents: Vec<_> = damage
            .iter()
            .map(|damage| {
                json!({
                    "object": damage.object.to_string(),
                    "path": damage.path,
                    "problem": damage.problem,
                })
            })
            .collect();
        session.output.document(&json!({
            "objects": objects.len(),
            "damage": documents,
            "unrecorded": unrecorded,
        }));
    } else {
        for found in &damage {
            let at = if found.path.is_empty() {
                String::new()
            } else {
                format!("/{}", found.path)
            };
            session
                .output
                .line(&format!("{}{at} {}", found.object, found.problem));
        }
        for name in &unrecorded {
            session.output.line(&format!(
                "{name} is not recorded: unfinished work, or put there by hand"
            ));
        }
        session.output.tell(&format!(
            "{} objects, {} problems",
            objects.len(),
            damage.len() + unrecorded.len()
        ));
    }
    Ok(if damage.is_empty() && unrecorded.is_empty() {
        Answer::Yes
    } else {
        Answer::No
    })
}
