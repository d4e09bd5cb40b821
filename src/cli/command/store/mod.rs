//! `kiln store`: one file a command.

mod add;
mod cat;
mod gc;
mod roots;
mod transfer;
mod usage;
mod verify;

use serde_json::json;

use crate::cli::arguments::StoreCommand;
use crate::cli::hints;
use crate::cli::report::{Answer, Failure};
use crate::cli::session::Session;

pub(in crate::cli) fn run(session: &Session, command: &StoreCommand) -> Result<Answer, Failure> {
    match command {
        StoreCommand::Ls => list(session),
        StoreCommand::Add { path, name } => add::run(session, path, name.as_deref()),
        StoreCommand::Cat { path } => cat::run(session, path),
        StoreCommand::Verify { repair } => verify::run(session, *repair),
        StoreCommand::Gc(arguments) => gc::run(session, arguments),
        StoreCommand::Roots { command } => roots::run(session, command.as_ref()),
        StoreCommand::Usage => usage::run(session),
        StoreCommand::Export { targets, output } => {
            transfer::export(session, targets, output.as_deref())
        }
        StoreCommand::Import { file } => transfer::import(session, file.as_deref()),
    }
}

fn list(session: &Session) -> Result<Answer, Failure> {
    let objects = session
        .store
        .objects()
        .map_err(|error| hints::store(&error))?;
    if session.output.json {
        let documents: Vec<_> = objects
            .iter()
            .map(|object| {
                json!({
                    "path": object.path.to_string(),
                    "tree": object.tree.to_string(),
                    "size_bytes": object.size_bytes,
                    "entries": object.entries,
                })
            })
            .collect();
        session.output.document(&json!({ "objects": documents }));
    } else {
        session
            .output
            .lines(objects.iter().map(|object| object.path.to_string()));
    }
    Ok(Answer::Yes)
}
