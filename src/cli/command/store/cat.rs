//! `kiln store cat`.

use std::io::Read as _;

use crate::cli::hints;
use crate::cli::report::{Answer, Failure, Problem};
use crate::cli::session::Session;
use crate::hash::{RelPath, StorePath};
use crate::listing::{Entry, Listing};
use crate::tree::TreeRoot;

pub(super) fn run(session: &Session, text: &str) -> Result<Answer, Failure> {
    let (object, below) = split(text).ok_or_else(|| {
        Problem::new(format!("`{text}` does not lead into an object"))
            .hint("write a store path and what is below it: `kiln store ls` lists the objects")
    })?;
    let listing = session
        .store
        .listing(&object)
        .map_err(|error| hints::store(&error))?;
    let Some(path) = below else {
        list(session, &listing, None);
        return Ok(Answer::Yes);
    };
    match listing.get(&path) {
        None => Err(Problem::new(format!("`{object}` has no `{path}`"))
            .hint(format!("`kiln store cat {object}` lists what it has"))
            .into()),
        Some(Entry::Directory) => {
            list(session, &listing, Some(&path));
            Ok(Answer::Yes)
        }
        Some(Entry::Symlink { target }) => {
            session.output.tell(&format!("`{path}` is a link to"));
            session.output.line(target);
            Ok(Answer::Yes)
        }
        Some(Entry::File { .. }) => print(session, &object, &path),
    }
}

/// Splits a path, on this machine or in a sandbox, into an object and what is below it.
fn split(text: &str) -> Option<(StorePath, Option<RelPath>)> {
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
    let (at, object) = parts
        .iter()
        .enumerate()
        .find_map(|(at, part)| Some((at, StorePath::from_base_name(part).ok()?)))?;
    let below = parts.get(at + 1..).unwrap_or_default().join("/");
    if below.is_empty() {
        return Some((object, None));
    }
    Some((object, Some(below.parse().ok()?)))
}

/// Prints what a directory holds: executable files with `*`, directories with `/`.
fn list(session: &Session, listing: &Listing, directory: Option<&RelPath>) {
    let within = directory.map_or("", RelPath::as_str);
    session.output.lines(
        listing
            .iter()
            .filter(|(path, _)| path.parent_str() == within)
            .map(|(path, entry)| match entry {
                Entry::Directory => format!("{path}/"),
                Entry::Symlink { target } => format!("{path} -> {target}"),
                Entry::File {
                    executable: true, ..
                } => format!("{path}*"),
                Entry::File { .. } => path.to_string(),
            }),
    );
}

fn print(session: &Session, object: &StorePath, path: &RelPath) -> Result<Answer, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::from(Problem::from_error(error));
    let root = TreeRoot::open(&session.store.host_path(object)).map_err(|error| failed(&error))?;
    let mut file = root.open_file(path).map_err(|error| failed(&error))?;
    let mut block = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut block).map_err(|error| failed(&error))?;
        if count == 0 {
            return Ok(Answer::Yes);
        }
        session.output.bytes(block.get(..count).unwrap_or_default());
    }
}
