//! `kiln log`.

use serde_json::json;

use std::io::Write;
use std::time::Duration;

use crate::build::log::{copy_log, follow_log, newest_log};
use crate::cli::hints;
use crate::cli::report::{Answer, Failure, Problem};
use crate::cli::session::{Session, Target, graph};
use crate::hash::ActionDigest;

pub(in crate::cli) fn run(
    session: &Session,
    target: &str,
    follow: bool,
) -> Result<Answer, Failure> {
    if follow && !session.output.json {
        return follow_build(session, target);
    }
    let store = &session.store;
    let mut runs = Vec::new();
    for action in actions(session, target)? {
        runs.append(&mut store.builds(action).map_err(|error| hints::store(&error))?);
    }
    runs.sort_by_key(|run| std::cmp::Reverse(run.started));
    let Some((run, log)) = runs.iter().find_map(|run| Some((run, run.log.clone()?))) else {
        return Err(no_log(target));
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

fn no_log(target: &str) -> Failure {
    Problem::new(format!("there is no log of `{target}`"))
        .because("it was never built in this store")
        .hint("`kiln build PACKAGE` builds it; what is fetched or unpacked has no log")
        .into()
}

/// How often it is looked whether a build has begun.
const PATIENCE: Duration = Duration::from_millis(200);

/// Prints the log of a build while it is written. One that has not begun yet is waited
/// for; one that has ended is printed as it is.
fn follow_build(session: &Session, target: &str) -> Result<Answer, Failure> {
    let store = &session.store;
    let mut waiting = false;
    loop {
        let actions = actions(session, target)?;
        let running = |action: &ActionDigest| store.is_being_realised(*action).unwrap_or(false);
        let current = actions
            .iter()
            .find(|action| running(action))
            .or(actions.first())
            .and_then(|action| Some((*action, newest_log(store, *action)?)));
        if let Some((action, log)) = current {
            let grows = || !session.cancel.is_cancelled() && running(&action);
            follow_log(store, &log, &mut Results(session), &grows)
                .map_err(|error| hints::build(&error, None, None))?;
            return Ok(Answer::Yes);
        }
        if session.cancel.is_cancelled() {
            return Err(no_log(target));
        }
        if !waiting {
            session
                .output
                .tell(&format!("waiting for a build of {target} to begin"));
            waiting = true;
        }
        std::thread::sleep(PATIENCE);
    }
}

/// Writes results as they come.
struct Results<'a>(&'a Session);

impl Write for Results<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.output.bytes(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns the actions that a target stands for, sorted.
fn actions(session: &Session, target: &str) -> Result<Vec<ActionDigest>, Failure> {
    let store = &session.store;
    let mut actions: Vec<ActionDigest> = match session.target(target)? {
        Target::Action(digest) => vec![digest],
        Target::Object(path) => {
            let producers = store
                .producers(&path)
                .map_err(|error| hints::store(&error))?;
            producers
                .into_iter()
                .map(|producer| producer.action)
                .collect()
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
    Ok(actions)
}
