//! `kiln store add`.

use std::path::Path;

use serde_json::json;

use crate::cli::hints;
use crate::cli::report::{Answer, Failure, Problem};
use crate::cli::session::Session;
use crate::hash::ObjectName;

pub(super) fn run(session: &Session, from: &Path, name: Option<&str>) -> Result<Answer, Failure> {
    let name = object_name(from, name)?;
    // What a user names is followed; links in it are not.
    let found = std::fs::canonicalize(from).map_err(|error| {
        Problem::new(format!("cannot read `{}`", from.display())).because(error.to_string())
    })?;
    let path = session
        .store
        .add_copy(&found, &name)
        .map_err(|error| hints::store(&error))?;
    if session.output.json {
        session.output.document(&json!({
            "path": path.to_string(),
            "host": session.store.host_path(&path).to_string_lossy(),
        }));
    } else {
        session
            .output
            .line(&session.store.host_path(&path).to_string_lossy());
    }
    Ok(Answer::Yes)
}

/// Returns the readable part of the object's path.
fn object_name(from: &Path, name: Option<&str>) -> Result<ObjectName, Failure> {
    let absolute = std::path::absolute(from).unwrap_or_else(|_| from.to_owned());
    let own = absolute
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let text = name.map(str::to_owned).or(own).unwrap_or_default();
    text.parse().map_err(|error: crate::hash::NameError| {
        Problem::from_error(&error)
            .hint("give it another name with `--name NAME`")
            .into()
    })
}
