//! `kiln why`.

use serde_json::json;

use crate::cli::hints;
use crate::cli::report::{Answer, Failure, Problem};
use crate::cli::session::Session;
use crate::closure;

pub(in crate::cli) fn run(session: &Session, from: &str, to: &str) -> Result<Answer, Failure> {
    let (from, to) = (session.object(from)?, session.object(to)?);
    let store = &session.store;
    let graph = store
        .reference_graph(&from)
        .map_err(|error| hints::store(&error))?;
    let Some(chain) = closure::shortest_path(&graph, &from, &to) else {
        if session.output.json {
            session.output.document(&json!({ "chain": null }));
        } else {
            session.output.failure(
                &Problem::new(format!("`{from}` does not need `{to}`"))
                    .because("no chain of references leads there")
                    .into(),
            );
        }
        return Ok(Answer::No);
    };
    let mut places = Vec::new();
    for (object, target) in chain.iter().zip(chain.iter().skip(1)) {
        let references = store
            .references(object)
            .map_err(|error| hints::store(&error))?;
        let place = references
            .into_iter()
            .find(|reference| reference.target == **target);
        places.extend(place.map(|place| (*object, place)));
    }
    if session.output.json {
        let steps: Vec<_> = places
            .iter()
            .map(|(object, place)| {
                json!({
                    "object": object.to_string(),
                    "file": place.file.as_str(),
                    "offset": place.offset,
                    "target": place.target.to_string(),
                })
            })
            .collect();
        session.output.document(&json!({ "chain": steps }));
        return Ok(Answer::Yes);
    }
    session.output.line(&from.to_string());
    for (_, place) in places {
        session
            .output
            .line(&format!("  {} at byte {}", place.file, place.offset));
        session.output.line(&format!("-> {}", place.target));
    }
    Ok(Answer::Yes)
}
