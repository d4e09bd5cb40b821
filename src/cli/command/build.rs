//! `kiln build`.

use serde_json::json;

use crate::cli::arguments::BuildArguments;
use crate::cli::report::{Answer, Failure};
use crate::cli::session::{Session, graph, package};

pub(in crate::cli) fn run(
    session: &Session,
    arguments: &BuildArguments,
) -> Result<Answer, Failure> {
    let names = arguments
        .packages
        .iter()
        .map(|name| package(name))
        .collect::<Result<Vec<_>, _>>()?;
    let loaded = session.load(&names)?;
    let graph = graph(&loaded)?;
    let realised = session.realise(&loaded, &graph, &arguments.effort)?;
    let mut documents = Vec::new();
    for name in &names {
        let Some(step) = graph.package(name) else {
            continue;
        };
        for (output, path) in realised.outputs(step).into_iter().flatten() {
            let host = session.store.host_path(path);
            if session.output.json {
                documents.push(json!({
                    "package": name.as_str(),
                    "output": output.as_str(),
                    "path": path.to_string(),
                    "host": host.to_string_lossy(),
                    "action": realised.action_digest(step).map(|digest| digest.to_string()),
                    "built": realised.performed.contains(&step),
                }));
            } else {
                session.output.line(&host.to_string_lossy());
            }
        }
    }
    if session.output.json {
        session.output.document(&json!({ "outputs": documents }));
    }
    Ok(Answer::Yes)
}
