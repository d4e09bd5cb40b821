//! `kiln why`.

use serde_json::json;

use crate::cli::hints;
use crate::cli::report::{Answer, Failure, Problem};
use crate::cli::session::Session;
use crate::closure;

pub(in crate::cli) fn run(session: &Session, from: &str, to: &str) -> Result<Answer, Failure> {
    let (from, to) = (session.object(from)?, session.object(to)?);
    let store = &session.store;
    let found = store
        .closure([&from])
        .map_err(|error| hints::store(&error))?;
    let graph = store
        .reference_graph(&found)
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
    if session.output.json {
        let steps: Vec<_> = chain
            .iter()
            .map(|(object, edge)| {
                json!({
                    "object": object.to_string(),
                    "file": edge.file.as_str(),
                    "offset": edge.offset,
                    "target": edge.target.to_string(),
                })
            })
            .collect();
        session.output.document(&json!({ "chain": steps }));
        return Ok(Answer::Yes);
    }
    session.output.line(&from.to_string());
    for (_, edge) in chain {
        session
            .output
            .line(&format!("  {} at byte {}", edge.file, edge.offset));
        session.output.line(&format!("-> {}", edge.target));
    }
    Ok(Answer::Yes)
}
