//! `kiln closure`.

use std::collections::BTreeMap;

use serde_json::json;

use crate::cli::hints;
use crate::cli::progress::bytes;
use crate::cli::report::{Answer, Failure};
use crate::cli::session::Session;
use crate::closure;
use crate::hash::StorePath;

pub(in crate::cli) fn run(
    session: &Session,
    target: &str,
    tree: bool,
    size: bool,
) -> Result<Answer, Failure> {
    let start = session.object(target)?;
    let store = &session.store;
    let found = store
        .closure_sizes([&start])
        .map_err(|error| hints::store(&error))?;
    if session.output.json {
        let objects: Vec<_> = found
            .iter()
            .map(|(path, size)| json!({ "path": path.to_string(), "size_bytes": size }))
            .collect();
        session
            .output
            .document(&json!({ "start": start.to_string(), "objects": objects }));
        return Ok(Answer::Yes);
    }
    let suffix = |count: u64| {
        if size {
            format!("  {}", bytes(count))
        } else {
            String::new()
        }
    };
    if !tree {
        session.output.lines(
            found
                .iter()
                .map(|(path, count)| format!("{path}{}", suffix(*count))),
        );
        return Ok(Answer::Yes);
    }
    let graph = store
        .reference_graph(&start)
        .map_err(|error| hints::store(&error))?;
    let sizes: BTreeMap<StorePath, u64> = found.into_iter().collect();
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
            suffix(sizes.get(line.path).copied().unwrap_or(0))
        ));
    }
    Ok(Answer::Yes)
}
