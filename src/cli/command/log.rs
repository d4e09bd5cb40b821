//! `kiln log`.

use serde_json::json;

use crate::build::log::copy_log;
use crate::cli::hints;
use crate::cli::report::{Answer, Failure, Problem};
use crate::cli::session::{Session, Target, graph};
use crate::hash::ActionDigest;

pub(in crate::cli) fn run(session: &Session, target: &str) -> Result<Answer, Failure> {
    let store = &session.store;
    let mut actions: Vec<ActionDigest> = match session.target(target)? {
        Target::Action(digest) => vec![digest],
        Target::Object(path) => {
            let producers = store
                .producers(&path)
                .map_err(|error| hints::store(&error))?;
            producers.into_iter().map(|(action, _, _)| action).collect()
        }
        Target::Package(name) => {
            let loaded = session.load(std::slice::from_ref(&name))?;
            let graph = graph(&loaded)?;
            let known = session.known(&graph)?;
            let step = graph.package(&name);
            step.and_then(|step| known.action_digest(step))
                .into_iter()
                .collect()
        }
    };
    actions.sort();
    let mut runs = Vec::new();
    for action in actions {
        runs.append(&mut store.builds(action).map_err(|error| hints::store(&error))?);
    }
    runs.sort_by_key(|run| std::cmp::Reverse(run.started));
    let Some((run, log)) = runs.iter().find_map(|run| Some((run, run.log.clone()?))) else {
        return Err(Problem::new(format!("there is no log of `{target}`"))
            .because("it was never built in this store")
            .hint("`kiln build PACKAGE` builds it; what is fetched or unpacked has no log")
            .into());
    };
    let mut bytes = Vec::new();
    copy_log(store, &log, &mut bytes).map_err(|error| hints::build(&error, None, None))?;
    if session.output.json {
        session.output.document(&json!({
            "action": run.action.to_string(),
            "outcome": run.outcome,
            "wall_ms": u64::try_from(run.wall.as_millis()).unwrap_or(u64::MAX),
            "cpu_ms": u64::try_from(run.cpu.as_millis()).unwrap_or(u64::MAX),
            "peak_memory_bytes": run.peak_memory_bytes,
            "log": String::from_utf8_lossy(&bytes),
        }));
    } else {
        session.output.bytes(&bytes);
    }
    Ok(Answer::Yes)
}
