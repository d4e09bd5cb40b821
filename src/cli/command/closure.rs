//! `kiln closure`.

use serde_json::json;

use crate::cli::hints;
use crate::cli::progress::bytes;
use crate::cli::report::{Answer, Failure};
use crate::cli::session::Session;
use crate::closure;

pub(in crate::cli) fn run(
    session: &Session,
    target: &str,
    tree: bool,
    size: bool,
) -> Result<Answer, Failure> {
    let start = session.object(target)?;
    let store = &session.store;
    let found = store
        .closure([&start])
        .map_err(|error| hints::store(&error))?;
    let size_of = |path| {
        let info = store.object(path).map_err(|error| hints::store(&error))?;
        Ok::<u64, Failure>(info.map_or(0, |info| info.size_bytes))
    };
    if session.output.json {
        let objects = found
            .iter()
            .map(|path| Ok(json!({ "path": path.to_string(), "size_bytes": size_of(path)? })))
            .collect::<Result<Vec<_>, Failure>>()?;
        session
            .output
            .document(&json!({ "start": start.to_string(), "objects": objects }));
        return Ok(Answer::Yes);
    }
    let suffix = |path| -> Result<String, Failure> {
        Ok(if size {
            format!("  {}", bytes(size_of(path)?))
        } else {
            String::new()
        })
    };
    if !tree {
        for path in &found {
            session.output.line(&format!("{path}{}", suffix(path)?));
        }
        return Ok(Answer::Yes);
    }
    let graph = store
        .reference_graph(&found)
        .map_err(|error| hints::store(&error))?;
    for line in closure::tree(&graph, &start) {
        let mut drawn = String::new();
        for (level, more) in line.more.iter().enumerate() {
            let last = level + 1 == line.more.len();
            drawn.push_str(match (last, more) {
                (true, true) => "├─ ",
                (true, false) => "└─ ",
                (false, true) => "│  ",
                (false, false) => "   ",
            });
        }
        let again = if line.repeated { " (as above)" } else { "" };
        session.output.line(&format!(
            "{drawn}{}{}{again}",
            line.path,
            suffix(line.path)?
        ));
    }
    Ok(Answer::Yes)
}
