//! `kiln shell`: a look into the sandbox of a build.

use std::collections::BTreeSet;

use serde_json::json;

use kiln_sandbox::End;

use crate::build::{BuildError, Start};
use crate::cli::arguments::ShellArguments;
use crate::cli::hints;
use crate::cli::report::{Answer, Failure, Problem};
use crate::cli::session::{Session, cores, graph, package};
use crate::cli::terminal;

pub(in crate::cli) fn run(
    session: &Session,
    arguments: &ShellArguments,
) -> Result<Answer, Failure> {
    let name = package(&arguments.package)?;
    if !arguments.plan && arguments.command.is_none() && !terminal::is_interactive() {
        return Err(Problem::new("there is no terminal for a shell")
            .hint("`--command SCRIPT` runs something without one")
            .into());
    }
    let loaded = session.load(std::slice::from_ref(&name))?;
    let graph = graph(&loaded)?;
    let step = graph
        .package(&name)
        .ok_or_else(|| Problem::new(format!("`{name}` is not built, so it has no sandbox")))?;
    let needed = graph.needed_by(&BTreeSet::from([step]));
    let effort = &arguments.effort;
    let realised = session.realise_only(&loaded, &graph, effort, Some(&needed))?;
    let action = graph
        .step(step)
        .and_then(|step| step.action(|input| realised.outputs(input)))
        .ok_or_else(|| Problem::new(format!("the inputs of `{name}` are not all there")))?;
    let start = match &arguments.at {
        _ if arguments.failed => Start::Failed,
        Some(phase) => Start::Before(phase),
        None => Start::Fresh,
    };
    let failed = |error: &BuildError| hints::build(error, graph.step(step), None);
    let opened = session
        .builder()
        .open(&action, start, arguments.command.as_deref(), cores(effort))
        .map_err(|error| failed(&error))?;
    if arguments.plan {
        let steps = session.launcher.plan(&opened.request).map_err(|source| {
            failed(&BuildError::Sandbox {
                name: name.to_string(),
                source,
            })
        })?;
        let lines: Vec<String> = steps.iter().map(ToString::to_string).collect();
        if session.output.json {
            session.output.document(&json!({ "steps": lines }));
        } else {
            session.output.lines(lines);
        }
        return Ok(Answer::Yes);
    }
    if arguments.command.is_none() {
        session.output.tell(&format!(
            "a shell in the sandbox of {name}; what it does changes no object"
        ));
    }
    let request = opened.request.clone();
    let outcome =
        terminal::attend(&session.launcher, request, &session.cancel).map_err(|source| {
            failed(&BuildError::Sandbox {
                name: name.to_string(),
                source,
            })
        })?;
    Ok(if outcome.end == End::Exited(0) {
        Answer::Yes
    } else {
        Answer::No
    })
}
