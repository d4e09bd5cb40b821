//! `kiln show`.

use serde_json::{Value, json};

use crate::cli::arguments::ShowArguments;
use crate::cli::hints;
use crate::cli::report::{Answer, Failure, Problem, without};
use crate::cli::session::{Session, Target, graph, not_built};
use crate::derivation::{Definition, Kind, Lock};
use crate::hash::ActionDigest;
use crate::plan::{Library as _, Locks};
use crate::store::Producer;

pub(in crate::cli) fn run(session: &Session, arguments: &ShowArguments) -> Result<Answer, Failure> {
    if arguments.packages {
        return Ok(packages(session));
    }
    let Some(target) = &arguments.target else {
        return Ok(Answer::Yes);
    };
    match session.target(target)? {
        Target::Action(digest) => action(session, digest),
        Target::Object(path) => {
            let producers = session
                .store
                .producers(&path)
                .map_err(|error| hints::store(&error))?;
            if arguments.action {
                let producer = producers.first().ok_or_else(|| {
                    Failure::from(
                        Problem::new(format!("`{path}` was not produced by an action"))
                            .because("it is a working tree, taken in as it is"),
                    )
                })?;
                return action(session, producer.action);
            }
            object(session, &path, &producers)
        }
        Target::Package(name) => {
            let loaded = session.load(std::slice::from_ref(&name))?;
            if arguments.action {
                let graph = graph(&loaded)?;
                let known = session.known(&graph)?;
                let found = graph
                    .package(&name)
                    .and_then(|step| known.action(step).cloned());
                let found = found.ok_or_else(|| not_built(&name))?;
                session.output.bytes(&found.json());
                return Ok(Answer::Yes);
            }
            let Some(definition) = loaded.definitions.get(&name) else {
                return Err(not_built(&name));
            };
            package(session, definition, loaded.locks.get(&name));
            Ok(Answer::Yes)
        }
    }
}

fn packages(session: &Session) -> Answer {
    let names = session.files.names();
    if session.output.json {
        session.output.document(&json!({ "packages": names }));
    } else {
        names.iter().for_each(|name| session.output.line(name));
    }
    Answer::Yes
}

fn action(session: &Session, digest: ActionDigest) -> Result<Answer, Failure> {
    let json = session
        .store
        .action_json(digest)
        .map_err(|error| hints::store(&error))?;
    session.output.bytes(&json);
    Ok(Answer::Yes)
}

fn object(
    session: &Session,
    path: &crate::hash::StorePath,
    producers: &[Producer],
) -> Result<Answer, Failure> {
    let info = session
        .store
        .object(path)
        .map_err(|error| hints::store(&error))?;
    let made: Vec<Value> = producers
        .iter()
        .map(|producer| {
            json!({
                "action": producer.action.to_string(),
                "output": producer.output.as_str(),
                "origin": producer.origin.as_str(),
                "hermetic": producer.lacking.is_hermetic(),
                "lacking": producer.lacking.names().collect::<Vec<_>>(),
            })
        })
        .collect();
    let document = json!({
        "path": path.to_string(),
        "host": session.store.host_path(path).to_string_lossy(),
        "tree": info.as_ref().map(|info| info.tree.to_string()),
        "size_bytes": info.as_ref().map(|info| info.size_bytes),
        "entries": info.as_ref().map(|info| info.entries),
        "produced_by": made,
    });
    if session.output.json {
        session.output.document(&document);
        return Ok(Answer::Yes);
    }
    for key in ["path", "host", "tree", "size_bytes", "entries"] {
        if let Some(value) = document.get(key) {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            session.output.line(&format!("{key}: {text}"));
        }
    }
    for producer in producers {
        let Producer {
            action,
            output,
            origin,
            lacking,
        } = producer;
        let word = origin.as_str();
        let weak = if lacking.is_hermetic() {
            String::new()
        } else {
            format!(", not hermetic: {}", without(lacking))
        };
        session.output.line(&format!(
            "{word}: output `{output}` of action {action}{weak}"
        ));
    }
    Ok(Answer::Yes)
}

fn package(session: &Session, definition: &Definition, locks: Option<&Locks>) {
    let kind = match &definition.kind {
        Kind::Package(_) => "package",
        Kind::Debian(_) => "binary seed",
        Kind::Recipe(_) => "recipe",
        Kind::Image(_) => "image",
        Kind::Policy(_) => "policy",
    };
    let needs: Vec<String> = definition
        .needs()
        .into_iter()
        .map(|need| need.value.to_string())
        .collect();
    let meta = &definition.meta;
    if session.output.json {
        session.output.document(&json!({
            "package": definition.file.package.as_str(),
            "kind": kind,
            "name": meta.name.as_str(),
            "version": meta.version,
            "summary": meta.summary,
            "license": meta.license,
            "homepage": meta.homepage,
            "file": definition.file.shown,
            "needs": needs,
            "locks": locks.map(|locks| locks.values().map(lock).collect::<Vec<_>>()).unwrap_or_default(),
        }));
        return;
    }
    let mut lines = vec![
        format!("{}: {}", definition.file.package, meta.summary),
        format!("kind: {kind}"),
        format!("file: {}", definition.file.shown),
    ];
    lines.extend(
        meta.version
            .iter()
            .map(|version| format!("version: {version}")),
    );
    lines.extend(
        meta.license
            .iter()
            .map(|license| format!("license: {license}")),
    );
    lines.extend(
        meta.homepage
            .iter()
            .map(|homepage| format!("homepage: {homepage}")),
    );
    lines.extend(needs.iter().map(|need| format!("needs: {need}")));
    lines.extend(
        locks
            .into_iter()
            .flat_map(Locks::values)
            .map(|lock| format!("lock: {} ({} crates)", lock.file.shown, lock.crates.len())),
    );
    lines.iter().for_each(|line| session.output.line(line));
}

/// Returns what a lock file names.
fn lock(lock: &Lock) -> Value {
    let crates = lock.crates.values().map(|found| {
        json!({
            "name": found.name,
            "version": found.version,
            "sha256": found.sha256.value.to_string(),
        })
    });
    json!({ "file": lock.file.shown, "crates": crates.collect::<Vec<_>>() })
}
