//! `kiln runtime`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::image;
use super::image::gather::gather;
use crate::cli::arguments::{RuntimeArguments, RuntimeFormat};
use crate::cli::report::{Answer, Failure, Problem};
use crate::cli::session::{Session, graph, package};
use crate::hash::{BlobDigest, RelPath};
use crate::listing::Entry;
use crate::projection::Projection;
use crate::runtime::code::{Calls, system_calls};
use crate::runtime::options::{self, Engine};
use crate::runtime::{Runtime, kubernetes, oci, seccomp};

/// Reasons that are told of one program before the rest is only counted.
const TOLD: usize = 3;

pub(in crate::cli) fn run(
    session: &Session,
    arguments: &RuntimeArguments,
) -> Result<Answer, Failure> {
    let name = package(&arguments.image)?;
    let loaded = session.load(std::slice::from_ref(&name))?;
    let made = image::declared(&loaded, &name)?;
    let runtime = Runtime::new(made.0, made.1);
    let directory = arguments.output.as_deref();
    let wants_calls = directory.is_some()
        || matches!(arguments.form, RuntimeFormat::Oci | RuntimeFormat::Seccomp);
    let profile = if wants_calls {
        let graph = graph(&loaded)?;
        let realised = session.realise(&loaded, &graph, &arguments.effort)?;
        let image = (&name, made.0, made.1);
        let projection = gather(session, &loaded, (&graph, &realised), image)?.projection;
        Some(profile(session, &projection)?)
    } else {
        None
    };
    let document = match arguments.form {
        RuntimeFormat::Oci => {
            Document::Json("config.json", oci::config(&runtime, profile.as_ref()))
        }
        RuntimeFormat::Kubernetes => Document::Json("pod.json", kubernetes::pod(&runtime)),
        RuntimeFormat::Podman => Document::Line(options::line(&runtime, Engine::Podman)),
        RuntimeFormat::Docker => Document::Line(options::line(&runtime, Engine::Docker)),
        RuntimeFormat::Seccomp => {
            Document::Json("seccomp.json", profile.clone().unwrap_or_default())
        }
    };
    let Some(directory) = directory else {
        match &document {
            Document::Json(_, value) => session.output.document(value),
            Document::Line(line) if session.output.json => {
                session.output.document(&json!({ "options": line }));
            }
            Document::Line(line) => session.output.line(line),
        }
        return Ok(Answer::Yes);
    };
    let mut files = Vec::new();
    if let Some(profile) = &profile {
        files.push(("seccomp.json", pretty(profile)));
    }
    match document {
        Document::Json("seccomp.json", _) => {}
        Document::Json(file, value) => files.push((file, pretty(&value))),
        Document::Line(line) => {
            let filter = std::path::absolute(directory)
                .unwrap_or_else(|_| directory.to_owned())
                .join("seccomp.json");
            let filter = options::quote(&format!("--security-opt=seccomp={}", filter.display()));
            files.push(("options", format!("{line} {filter}\n")));
        }
    }
    write(session, directory, &files)?;
    Ok(Answer::Yes)
}

enum Document {
    /// A file of that name.
    Json(&'static str, Value),
    /// A line for a shell.
    Line(String),
}

fn pretty(value: &Value) -> String {
    format!(
        "{}\n",
        serde_json::to_string_pretty(value).unwrap_or_default()
    )
}

fn write(session: &Session, directory: &Path, files: &[(&str, String)]) -> Result<(), Failure> {
    let failed = |what: &str, path: &Path, error: &std::io::Error| {
        Failure::from(
            Problem::new(format!("cannot {what} `{}`", path.display())).because(error.to_string()),
        )
    };
    std::fs::create_dir_all(directory).map_err(|error| failed("create", directory, &error))?;
    let mut written = Vec::new();
    for (name, text) in files {
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(|error| failed("write", &path, &error))?;
        written.push(path.display().to_string());
    }
    if session.output.json {
        session.output.document(&json!({ "files": written }));
    } else {
        session.output.lines(written);
    }
    Ok(())
}

/// Returns the filter for the programs of an image. What cannot be told is said on stderr.
fn profile(session: &Session, projection: &Projection) -> Result<Value, Failure> {
    let mut calls = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for (path, placed) in &projection.entries {
        let Entry::File {
            digest,
            executable: true,
            ..
        } = placed.entry
        else {
            continue;
        };
        if !seen.insert(digest) {
            continue;
        }
        let bytes = read(session, digest)?;
        if !bytes.starts_with(b"\x7fELF") {
            continue;
        }
        match system_calls(&bytes) {
            Ok(found) => {
                tell(session, path, &found);
                if !found.unknown.is_empty() {
                    calls.extend(seccomp::usual());
                }
                calls.extend(found.numbers);
            }
            Err(why) => {
                let usual = "the usual calls stand in for its own";
                session
                    .output
                    .tell(&format!("note: /{path}: {usual}: {why}"));
                calls.extend(seccomp::usual());
            }
        }
    }
    Ok(seccomp::profile(&calls))
}

fn tell(session: &Session, path: &RelPath, found: &Calls) {
    if found.unknown.is_empty() {
        let count = found.numbers.len();
        session.output.tell(&format!(
            "/{path}: {count} system calls, all of them known from its code"
        ));
        return;
    }
    session.output.tell(&format!(
        "note: /{path}: the usual calls stand in for its own: {} of its `syscall` instructions have numbers that its code does not tell",
        found.unknown.len()
    ));
    for unknown in found.unknown.iter().take(TOLD) {
        session
            .output
            .tell(&format!("  | at {:#x}: {}", unknown.address, unknown.why));
    }
    if let Some(more @ 1..) = found.unknown.len().checked_sub(TOLD) {
        session.output.tell(&format!("  | and {more} more"));
    }
}

fn read(session: &Session, digest: BlobDigest) -> Result<Vec<u8>, Failure> {
    let path = session.store.blob_path(digest, true);
    std::fs::read(&path).map_err(|error| {
        Problem::new(format!("cannot read `{}`", path.display()))
            .because(error.to_string())
            .hint("`kiln store verify` tells what is damaged")
            .into()
    })
}
