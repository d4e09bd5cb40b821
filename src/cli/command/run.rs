//! `kiln run`: a program of the store in a sandbox of its own.
//!
//! It sees the objects that it needs, and what was granted by flag. There is no network.

use std::path::{Path, PathBuf};

use kiln_sandbox::{Access, Node, SandboxRequest, Stdin};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::build::{permitted, tell_missing};
use crate::cli::arguments::RunArguments;
use crate::cli::hints;
use crate::cli::report::{Answer, Failure, Problem};
use crate::cli::session::{Session, graph, not_built, package};
use crate::cli::terminal;
use crate::hash::{PackageName, RelPath, STORE_PREFIX, StorePath};
use crate::listing::Entry;

pub(in crate::cli) fn run(session: &Session, arguments: &RunArguments) -> Result<Answer, Failure> {
    let name = package(&arguments.package)?;
    let loaded = session.load(std::slice::from_ref(&name))?;
    let graph = graph(&loaded)?;
    let realised = session.realise(&loaded, &graph, &arguments.effort)?;
    let object = graph
        .package(&name)
        .and_then(|step| realised.outputs(step)?.values().next())
        .ok_or_else(|| not_built(&name))?;
    let program = program(session, &name, object, arguments.program.as_deref())?;
    let mut request = request(session, arguments, object, &program)?;
    let scratch = session
        .store
        .scratch()
        .map_err(|error| hints::store(&error))?;
    if !terminal::is_interactive() {
        request.stdin = Stdin::File(pass_on_stdin(scratch.path())?);
    }
    let outcome = terminal::attend(&session.launcher, request, &session.cancel)
        .map_err(|source| hints::with_sandbox_hints(Problem::from_error(&source), &source))?;
    tell_missing(&outcome.missing);
    // The status is the program's own: it says what happened, and kiln adds nothing.
    match terminal::status(outcome.end) {
        Some(0) => Ok(Answer::Yes),
        Some(status) => {
            drop(scratch);
            std::process::exit(status)
        }
        None => Err(Problem::new(format!("`{name}` was ended: {:?}", outcome.end)).into()),
    }
}

/// Returns the program's path in the object.
fn program(
    session: &Session,
    name: &PackageName,
    object: &StorePath,
    wanted: Option<&str>,
) -> Result<RelPath, Failure> {
    let listing = session
        .store
        .listing(object)
        .map_err(|error| hints::store(&error))?;
    let programs: Vec<&RelPath> = listing
        .iter()
        .filter(|(_, entry)| {
            matches!(
                entry,
                Entry::File {
                    executable: true,
                    ..
                } | Entry::Symlink { .. }
            )
        })
        .map(|(path, _)| path)
        .collect();
    let own = name.as_str().rsplit('/').next().unwrap_or_default();
    let in_bin: Vec<&&RelPath> = programs
        .iter()
        .filter(|path| path.parent_str() == "bin")
        .collect();
    let found = match (wanted, in_bin.as_slice()) {
        (Some(wanted), _) => programs
            .iter()
            .find(|path| path.as_str() == wanted || path.as_str() == format!("bin/{wanted}")),
        (None, [single]) => Some(*single),
        (None, several) => several.iter().copied().find(|path| path.file_name() == own),
    };
    found.map(|path| (*path).clone()).ok_or_else(|| {
        let known: Vec<&str> = programs.iter().map(|path| path.as_str()).collect();
        Problem::new(match wanted {
            Some(wanted) => format!("`{name}` has no program `{wanted}`"),
            None => format!("`{name}` has several programs, or none"),
        })
        .hint(format!("name one with `--program`: {}", known.join(", ")))
        .into()
    })
}

fn request(
    session: &Session,
    arguments: &RunArguments,
    object: &StorePath,
    program: &RelPath,
) -> Result<SandboxRequest, Failure> {
    let mut command = vec![format!("{object}/{program}")];
    command.extend(arguments.arguments.iter().cloned());
    let mut request = SandboxRequest::new(command);
    request.weak = permitted(session.hermeticity);
    request.nodes.push(Node::Directory {
        path: STORE_PREFIX.to_owned(),
    });
    let closure = session
        .store
        .closure([object])
        .map_err(|error| hints::store(&error))?;
    for path in &closure {
        request.nodes.push(Node::Bind {
            path: path.to_string(),
            source: session.store.host_path(path),
            access: Access::ReadOnly,
        });
    }
    for grant in &arguments.read {
        request.nodes.push(granted(grant, Access::ReadOnly)?);
    }
    for grant in &arguments.write {
        request.nodes.push(granted(grant, Access::ReadWrite)?);
    }
    request.environment = [
        ("HOME", "/homeless".to_owned()),
        ("PATH", format!("{object}/bin")),
        ("TERM", std::env::var("TERM").unwrap_or_default()),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    for variable in &arguments.env {
        let (name, value) = variable.split_once('=').ok_or_else(|| {
            Problem::new(format!("`{variable}` gives no variable a value"))
                .hint("write `NAME=VALUE`")
        })?;
        request
            .environment
            .insert(name.to_owned(), value.to_owned());
    }
    if let Some(directory) = &arguments.workdir {
        request.working_directory.clone_from(directory);
    }
    Ok(request)
}

/// Makes a pipe with a name that gives what kiln reads from its own input.
fn pass_on_stdin(directory: &Path) -> Result<PathBuf, Failure> {
    let fifo = directory.join("stdin");
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, &fifo, FileType::Fifo, mode, 0).map_err(|errno| {
        Problem::new("cannot pass the input on").because(std::io::Error::from(errno).to_string())
    })?;
    let to = fifo.clone();
    // It ends with the input, with the program, or with kiln.
    std::thread::spawn(move || {
        let passed = std::fs::File::options()
            .write(true)
            .open(to)
            .and_then(|mut to| std::io::copy(&mut std::io::stdin().lock(), &mut to));
        if let Err(error) = passed {
            tracing::debug!(%error, "the program does not read its input to the end");
        }
    });
    Ok(fifo)
}

/// Reads `PATH` or `PATH:INSIDE`.
fn granted(text: &str, access: Access) -> Result<Node, Failure> {
    let (outside, inside) = match text.rsplit_once(':') {
        Some((outside, inside)) => (outside, Some(inside)),
        None => (text, None),
    };
    let source: PathBuf = std::fs::canonicalize(outside).map_err(|error| {
        Problem::new(format!("`{outside}` cannot be granted")).because(error.to_string())
    })?;
    let path = match inside {
        Some(inside) => inside.to_owned(),
        None => std::path::absolute(outside)
            .unwrap_or_else(|_| source.clone())
            .to_string_lossy()
            .trim_end_matches('/')
            .to_owned(),
    };
    Ok(Node::Bind {
        path,
        source,
        access,
    })
}
