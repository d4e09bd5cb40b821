//! `kiln store roots`.

use serde_json::{Value, json};

use crate::cli::arguments::RootsCommand;
use crate::cli::hints;
use crate::cli::report::{Answer, Failure, Problem};
use crate::cli::session::Session;
use crate::store::Root;

pub(super) fn run(session: &Session, command: Option<&RootsCommand>) -> Result<Answer, Failure> {
    let store = &session.store;
    match command {
        None | Some(RootsCommand::Ls) => {
            let roots = store.roots().map_err(|error| hints::store(&error))?;
            if session.output.json {
                let documents: Vec<Value> = roots
                    .iter()
                    .map(|(root, path)| {
                        json!({
                            "name": root.text(),
                            "kind": root.kind(),
                            "path": path.to_string(),
                        })
                    })
                    .collect();
                session.output.document(&json!({ "roots": documents }));
            } else {
                session.output.lines(
                    roots
                        .iter()
                        .map(|(root, path)| format!("{} -> {path}", root.text())),
                );
            }
        }
        Some(RootsCommand::Add { name, target }) => {
            if name.is_empty() || name.contains('/') {
                return Err(
                    Problem::new(format!("`{name}` cannot be the name of a root"))
                        .hint("a name has no `/`; `kiln build --link FILE` makes links that keep")
                        .into(),
                );
            }
            let path = session.object(target)?;
            store
                .add_root(&Root::Name(name.clone()), &path)
                .map_err(|error| hints::store(&error))?;
            session.output.line(&format!("{name} -> {path}"));
        }
        Some(RootsCommand::Rm { name }) => {
            let there = store
                .remove_root(name)
                .map_err(|error| hints::store(&error))?;
            if !there {
                return Err(Problem::new(format!("there is no root `{name}`"))
                    .hint("`kiln store roots` lists them")
                    .into());
            }
        }
    }
    Ok(Answer::Yes)
}
