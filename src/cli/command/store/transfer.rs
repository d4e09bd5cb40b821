//! `kiln store export` and `kiln store import`.

use std::fs::File;
use std::io::{BufReader, BufWriter, IsTerminal as _, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use kiln_sandbox::Cancel;

use serde_json::json;

use crate::cli::hints;
use crate::cli::report::{Answer, Failure, Problem};
use crate::cli::session::Session;
use crate::store::StoreError;

/// Bytes that are read or written at once.
const BLOCK: usize = 1 << 18;

/// Fails once the user has interrupted.
struct UntilCancelled<'a> {
    to: &'a mut File,
    cancel: &'a Cancel,
}

impl Write for UntilCancelled<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(std::io::Error::other("interrupted"));
        }
        self.to.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

pub(super) fn export(
    session: &Session,
    targets: &[String],
    output: Option<&Path>,
) -> Result<Answer, Failure> {
    let objects = targets
        .iter()
        .map(|target| session.object(target))
        .collect::<Result<Vec<_>, _>>()?;
    let bar = session.output.bytes_bar(0, "written");
    if session.output.live {
        let sizes = session.store.closure_sizes(&objects);
        let sizes = sizes.map_err(|error| hints::store(&error))?;
        bar.set_length(sizes.iter().map(|(_, size_bytes)| size_bytes).sum());
    }
    let count = match output {
        None if std::io::stdout().is_terminal() => {
            return Err(Problem::new("the stream is not for a terminal")
                .hint("name a file with `--output FILE`, or lead it into another program")
                .into());
        }
        None => {
            let to = BufWriter::with_capacity(BLOCK, std::io::stdout().lock());
            session.store.export(&objects, bar.wrap_write(to))
        }
        Some(path) => {
            let failed = |error: std::io::Error| {
                Failure::from(
                    Problem::new(format!("cannot write `{}`", path.display()))
                        .because(error.to_string()),
                )
            };
            // Whole or not at all: a stream that broke off must not look like one.
            let directory = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            let mut file = tempfile::Builder::new()
                .prefix(".kiln-export-")
                .permissions(std::fs::Permissions::from_mode(0o666))
                .tempfile_in(directory)
                .map_err(failed)?;
            let to = UntilCancelled {
                to: file.as_file_mut(),
                cancel: &session.cancel,
            };
            let to = BufWriter::with_capacity(BLOCK, to);
            let count = session.store.export(&objects, bar.wrap_write(to));
            if count.is_ok() {
                file.flush().map_err(failed)?;
                file.persist(path).map_err(|error| failed(error.error))?;
            }
            count
        }
    };
    bar.finish_and_clear();
    let count = count.map_err(|error| hints::store(&error))?;
    session.output.tell(&format!("{count} objects written"));
    Ok(Answer::Yes)
}

pub(super) fn import(session: &Session, file: Option<&Path>) -> Result<Answer, Failure> {
    // How much will come through a pipe nobody knows.
    let (from, total): (Box<dyn Read>, u64) = match file {
        None => (Box::new(std::io::stdin().lock()), 0),
        Some(path) => {
            let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
            let (length, file) = opened.map_err(|error| {
                Failure::from(
                    Problem::new(format!("cannot read `{}`", path.display()))
                        .because(error.to_string()),
                )
            })?;
            (Box::new(file), length)
        }
    };
    let bar = session.output.bytes_bar(total, "read");
    let from = bar.wrap_read(BufReader::with_capacity(BLOCK, from));
    let added = session.store.import(from);
    bar.finish_and_clear();
    let added = added.map_err(|error| match error {
        StoreError::Stream(_) => Problem::from_error(&error)
            .hint("nothing of it was taken in; have it exported or copied once more")
            .into(),
        _ => hints::store(&error),
    })?;
    if session.output.json {
        let paths: Vec<String> = added.iter().map(ToString::to_string).collect();
        session.output.document(&json!({ "added": paths }));
    } else {
        session.output.lines(added.iter().map(ToString::to_string));
        session
            .output
            .tell(&format!("{} objects added", added.len()));
    }
    Ok(Answer::Yes)
}
