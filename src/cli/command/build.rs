//! `kiln build`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::arguments::BuildArguments;
use crate::cli::evaluation::{self, Known, KnownPackage};
use crate::cli::explain::Explainer;
use crate::cli::hints;
use crate::cli::report::{Answer, Failure, Problem, not_hermetic};
use crate::cli::session::{Session, graph, package};
use crate::hash::{OutputName, PackageName, StorePath};
use crate::plan::{Graph, Step, StepKind};
use crate::store::Hermeticity;

/// Why each package was built that was built in this run.
type Causes = BTreeMap<PackageName, BTreeSet<String>>;

pub(in crate::cli) fn run(
    session: &Session,
    arguments: &BuildArguments,
) -> Result<Answer, Failure> {
    let names = arguments
        .packages
        .iter()
        .map(|name| package(name))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(known) = session.recall(&names) {
        if arguments.dry_run {
            return Ok(tell_missing(session, &[]));
        }
        return deliver(session, arguments, &names, &known, &Causes::new());
    }
    let loaded = session.load(&names)?;
    let graph = graph(&loaded)?;
    if let Some(name) = names.iter().find(|name| graph.package(name).is_none()) {
        return Err(gives_nothing(name));
    }
    if arguments.dry_run {
        return foretell(session, &graph);
    }
    let realised = session.realise(&loaded, &graph, &arguments.effort)?;
    let mut known = Known::new();
    for name in &names {
        if let Some(step) = graph.package(name)
            && let Some(action) = realised.action_digest(step)
            && let Some(outputs) = realised.outputs(step)
        {
            let mut needed = graph.needed_by(&BTreeSet::from([step]));
            needed.insert(step);
            let package = KnownPackage {
                action,
                outputs: outputs.clone(),
                lacking: session.lacking(&realised, needed)?,
            };
            known.insert(name.clone(), package);
        }
    }
    let mut causes = Causes::new();
    let mut explainer = Explainer::new(&session.store);
    for id in &realised.performed {
        if let Some(step) = graph.step(*id)
            && matches!(step.kind, StepKind::Build(_))
            && let Some(action) = realised.action(*id)
        {
            let why = if arguments.explain {
                explainer.causes(&step.label, action)?
            } else {
                BTreeSet::new()
            };
            causes.insert(step.package.clone(), why);
        }
    }
    if session.hermeticity == Hermeticity::Required {
        let (store, files) = (&session.store, &session.files);
        evaluation::remember(store, files, &names, &loaded, &graph, &realised);
    }
    deliver(session, arguments, &names, &known, &causes)
}

/// Says what is not there. A step is listed also where an input may turn out the same, so
/// that it need not be done after all.
fn foretell(session: &Session, graph: &Graph) -> Result<Answer, Failure> {
    let known = session.known(graph)?;
    let missing: Vec<(&str, &str)> = graph
        .steps()
        .filter(|(id, _)| known.outputs(*id).is_none())
        .map(|(_, step)| (doing(step), step.label.as_str()))
        .collect();
    Ok(tell_missing(session, &missing))
}

fn doing(step: &Step) -> &'static str {
    match step.kind {
        StepKind::Fetch { .. } => "fetch",
        StepKind::Tree { .. } => "read",
        StepKind::Debian { .. } => "unpack",
        StepKind::Merge { .. } => "merge",
        StepKind::Build(_) => "build",
        StepKind::Test(_) => "test",
    }
}

fn tell_missing(session: &Session, missing: &[(&str, &str)]) -> Answer {
    if session.output.json {
        let steps: Vec<_> = missing
            .iter()
            .map(|(doing, label)| json!({ "do": doing, "what": label }))
            .collect();
        session.output.document(&json!({ "missing": steps }));
    } else {
        let lines = missing
            .iter()
            .map(|(doing, label)| format!("{doing} {label}"));
        session.output.lines(lines);
        session
            .output
            .tell(&format!("{} steps to do", missing.len()));
    }
    Answer::Yes
}

fn gives_nothing(name: &PackageName) -> Failure {
    Problem::new(format!("`{name}` gives no outputs"))
        .because("its file has neither a `[build]` nor a `[debian]` table")
        .hint("`kiln image` builds images")
        .into()
}

/// Makes the links and prints the results.
fn deliver(
    session: &Session,
    arguments: &BuildArguments,
    names: &[PackageName],
    known: &Known,
    causes: &Causes,
) -> Result<Answer, Failure> {
    let mut documents = Vec::new();
    let mut lines = Vec::new();
    for (number, name) in (1..).zip(names) {
        let Some(package) = known.get(name) else {
            continue;
        };
        if !package.lacking.is_hermetic() {
            session.output.tell(&not_hermetic(name, &package.lacking));
        }
        for (output, path) in &package.outputs {
            let host = session.store.host_path(path);
            let link = match &arguments.link {
                Some(link) => Some(make_link(session, link, number, output, path)?),
                None => None,
            };
            if session.output.json {
                documents.push(json!({
                    "package": name.as_str(),
                    "output": output.as_str(),
                    "path": path.to_string(),
                    "host": host.to_string_lossy(),
                    "action": package.action.to_string(),
                    "built": causes.contains_key(name),
                    "hermetic": package.lacking.is_hermetic(),
                    "lacking": package.lacking.names().collect::<Vec<_>>(),
                    "link": link.as_deref().map(Path::to_string_lossy),
                }));
            }
            lines.push(host.to_string_lossy().into_owned());
        }
    }
    if session.output.json {
        let mut document = json!({ "outputs": documents });
        if arguments.explain
            && let Some(members) = document.as_object_mut()
        {
            members.insert("built".to_owned(), json!(explained(causes)));
        }
        session.output.document(&document);
        return Ok(Answer::Yes);
    }
    if arguments.explain {
        tell(session, causes);
    }
    session.output.lines(lines);
    Ok(Answer::Yes)
}

fn explained(causes: &Causes) -> BTreeMap<&str, Vec<&str>> {
    causes
        .iter()
        .map(|(package, why)| (package.as_str(), why.iter().map(String::as_str).collect()))
        .collect()
}

fn tell(session: &Session, causes: &Causes) {
    if causes.is_empty() {
        session
            .output
            .tell("nothing was built: everything was there");
    }
    for (package, why) in explained(causes) {
        session.output.tell(&format!("built {package} because"));
        for cause in why {
            session.output.tell(&format!("  {cause}"));
        }
    }
}

/// Links an output where the user wants it: `FILE` for the first package's `out`,
/// `FILE-2` for the second's, `FILE-dev` for another output.
fn make_link(
    session: &Session,
    link: &Path,
    number: usize,
    output: &OutputName,
    path: &StorePath,
) -> Result<PathBuf, Failure> {
    let mut name = link.as_os_str().to_owned();
    if number > 1 {
        name.push(format!("-{number}"));
    }
    if output.as_str() != "out" {
        name.push(format!("-{output}"));
    }
    let link = std::path::absolute(&name).map_err(|error| {
        Problem::new(format!("`{}` is no name for a link", link.display()))
            .because(error.to_string())
    })?;
    session
        .store
        .link(&link, path)
        .map_err(|error| hints::store(&error))?;
    Ok(link)
}
