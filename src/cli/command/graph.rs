//! `kiln graph`: what needs what, as a picture.

use std::collections::BTreeMap;

use serde_json::json;

use crate::cli::arguments::GraphArguments;
use crate::cli::hints;
use crate::cli::progress::bytes;
use crate::cli::report::{Answer, Failure};
use crate::cli::session::{Session, graph, package};
use crate::closure::drawing::Drawing;
use crate::plan::StepKind;

pub(in crate::cli) fn run(
    session: &Session,
    arguments: &GraphArguments,
) -> Result<Answer, Failure> {
    let drawing = if arguments.build {
        of_build(session, &arguments.target)?
    } else {
        of_closure(session, &arguments.target)?
    };
    if session.output.json {
        let nodes: Vec<_> = drawing
            .nodes
            .iter()
            .map(|(name, note)| json!({ "name": name, "note": note }))
            .collect();
        session
            .output
            .document(&json!({ "nodes": nodes, "lines": drawing.lines }));
    } else if arguments.svg {
        session.output.bytes(drawing.svg().as_bytes());
    } else {
        session.output.bytes(drawing.dot().as_bytes());
    }
    Ok(Answer::Yes)
}

/// Returns what an object needs at run time.
fn of_closure(session: &Session, target: &str) -> Result<Drawing, Failure> {
    let start = session.object(target)?;
    let failed = |error| hints::store(&error);
    let sizes = session.store.closure_sizes([&start]).map_err(failed)?;
    let references = session.store.reference_graph(&start).map_err(failed)?;
    let places: BTreeMap<_, usize> = sizes
        .iter()
        .enumerate()
        .map(|(place, (path, _))| (path.clone(), place))
        .collect();
    let mut lines: Vec<(usize, usize)> = references
        .iter()
        .flat_map(|(from, targets)| targets.iter().map(move |to| (from, to)))
        .filter_map(|(from, to)| Some((*places.get(from)?, *places.get(to)?)))
        .collect();
    lines.sort_unstable();
    let nodes = sizes
        .iter()
        .map(|(path, size)| (path.name().to_string(), bytes(*size)))
        .collect();
    Ok(Drawing { nodes, lines })
}

/// Returns the steps that build a package.
fn of_build(session: &Session, target: &str) -> Result<Drawing, Failure> {
    let loaded = session.load(&[package(target)?])?;
    let graph = graph(&loaded)?;
    let nodes = graph
        .steps()
        .map(|(_, step)| {
            let what = match step.kind {
                StepKind::Fetch { .. } => "fetched by hash",
                StepKind::Tree { .. } => "working tree",
                StepKind::Debian { .. } => "Debian packages, unpacked",
                StepKind::Merge { .. } => "merged roots",
                StepKind::Build(_) => "built",
                StepKind::Test(_) => "test",
            };
            (step.label.clone(), what.to_owned())
        })
        .collect();
    // From what needs to what is needed, as in a closure.
    let lines = graph
        .steps()
        .flat_map(|(id, step)| {
            step.inputs()
                .into_iter()
                .map(move |input| (id.index(), input.index()))
        })
        .collect();
    Ok(Drawing { nodes, lines })
}
