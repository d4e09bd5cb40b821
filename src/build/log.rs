//! The log of a build: kept compressed, watched line by line, its end remembered.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::BuildError;
use crate::derivation::PHASE_MARKER;
use crate::hash::ActionDigest;
use crate::store::Store;

/// Lines kept for the message of a failed build.
const TAIL_LINES: usize = 25;

/// Longest piece of a line that is shown or kept in memory, in bytes.
const MAX_LINE: usize = 2048;

/// Fast, and logs compress tenfold at any level.
const LEVEL: i32 = 3;

/// Something that a build wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLine<'a> {
    /// A phase begins.
    Phase(&'a str),
    /// A line of output, cut at a generous length.
    Text(&'a str),
}

/// A log that is being written.
pub(super) struct Log {
    encoder: zstd::Encoder<'static, File>,
    path: PathBuf,
    name: String,
    pending: Vec<u8>,
    phase: Option<String>,
    tail: VecDeque<String>,
    /// The first failure of writing; the build goes on, and the failure is reported after.
    failure: Option<std::io::Error>,
}

/// What is left of a finished log in memory.
pub(super) struct FinishedLog {
    /// Its file below the store's `logs/`.
    pub name: String,
    /// The last phase that began.
    pub phase: Option<String>,
    /// The last lines.
    pub tail: Vec<String>,
}

impl Log {
    pub(super) fn create(store: &Store, action: ActionDigest) -> Result<Self, BuildError> {
        let text = action.to_string();
        let (shard, _) = text.split_at(2);
        let directory = store.root().join("logs").join(shard);
        let failed = |operation, path: &Path, source| BuildError::Access {
            operation,
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(&directory)
            .map_err(|source| failed("create", &directory, source))?;
        for number in 1_u32.. {
            let name = format!("{shard}/{text}-{number}.zst");
            let path = store.root().join("logs").join(&name);
            match File::options().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    let encoder = zstd::Encoder::new(file, LEVEL)
                        .map_err(|source| failed("write the log", &path, source))?;
                    return Ok(Self {
                        encoder,
                        path,
                        name,
                        pending: Vec::new(),
                        phase: None,
                        tail: VecDeque::new(),
                        failure: None,
                    });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(failed("create the log", &path, source)),
            }
        }
        Err(failed(
            "number the log",
            &directory,
            std::io::ErrorKind::AlreadyExists.into(),
        ))
    }

    /// Takes bytes as the build wrote them.
    pub(super) fn write(&mut self, bytes: &[u8], on_line: &mut dyn FnMut(LogLine<'_>)) {
        // Whoever follows the build sees what it wrote now, and so does who looks at the
        // log of a kiln that was killed.
        if self.failure.is_none()
            && let Err(error) = self
                .encoder
                .write_all(bytes)
                .and_then(|()| self.encoder.flush())
        {
            self.failure = Some(error);
        }
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = MAX_LINE.saturating_sub(self.pending.len());
            self.pending
                .extend_from_slice(piece.get(..piece.len().min(room)).unwrap_or(piece));
            if piece.ends_with(b"\n") {
                self.end_line(on_line);
            }
        }
    }

    fn end_line(&mut self, on_line: &mut dyn FnMut(LogLine<'_>)) {
        let line = String::from_utf8_lossy(&self.pending);
        let line = line.trim_end_matches(['\n', '\r']);
        if let Some(phase) = line.strip_prefix(PHASE_MARKER) {
            on_line(LogLine::Phase(phase));
            self.phase = Some(phase.to_owned());
        } else {
            on_line(LogLine::Text(line));
            if self.tail.len() == TAIL_LINES {
                self.tail.pop_front();
            }
            self.tail.push_back(line.to_owned());
        }
        self.pending.clear();
    }

    pub(super) fn finish(
        mut self,
        on_line: &mut dyn FnMut(LogLine<'_>),
    ) -> Result<FinishedLog, BuildError> {
        if !self.pending.is_empty() {
            self.end_line(on_line);
        }
        let written = match self.failure {
            Some(error) => Err(error),
            None => self.encoder.finish().map(drop),
        };
        written.map_err(|source| BuildError::Access {
            operation: "write the log",
            path: self.path,
            source,
        })?;
        Ok(FinishedLog {
            name: self.name,
            phase: self.phase,
            tail: self.tail.into(),
        })
    }
}

/// Copies a kept log, decompressed, to a writer.
///
/// # Errors
/// [`BuildError::Access`] when it cannot be read or written.
pub fn copy_log(store: &Store, name: &str, to: &mut dyn Write) -> Result<(), BuildError> {
    follow_log(store, name, to, &|| false)
}

/// As [`copy_log`], for a log that still grows: where it ends so far, more is waited for
/// as long as `grows` says so.
///
/// # Errors
/// [`BuildError::Access`] when it cannot be read or written.
pub fn follow_log(
    store: &Store,
    name: &str,
    to: &mut dyn Write,
    grows: &dyn Fn() -> bool,
) -> Result<(), BuildError> {
    let path = store.root().join("logs").join(name);
    let failed = |source| BuildError::Access {
        operation: "read the log",
        path: path.clone(),
        source,
    };
    let mut decoder = File::open(&path)
        .and_then(|file| zstd::Decoder::new(Growing { file, grows }))
        .map_err(failed)?;
    let mut block = vec![0; 1 << 16];
    loop {
        match decoder.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                to.write_all(block.get(..count).unwrap_or(&block))
                    .map_err(failed)?;
            }
            // A build that is still running, or was killed, leaves an unfinished frame.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Returns the newest log file of an action below the store's `logs/`, also of a run that
/// has not ended.
pub fn newest_log(store: &Store, action: ActionDigest) -> Option<String> {
    let text = action.to_string();
    let (shard, _) = text.split_at(2);
    let numbers = std::fs::read_dir(store.root().join("logs").join(shard))
        .ok()?
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let number = name.strip_prefix(&text)?.strip_prefix('-')?;
            number.strip_suffix(".zst")?.parse::<u32>().ok()
        });
    let newest = numbers.max()?;
    Some(format!("{shard}/{text}-{newest}.zst"))
}

/// How long it waits before it looks whether a log has grown.
const GROWTH: Duration = Duration::from_millis(100);

/// A file that somebody else still writes to.
struct Growing<'a> {
    file: File,
    grows: &'a dyn Fn() -> bool,
}

impl Read for Growing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            // Asked first: what is written before the end is then read below.
            let grows = (self.grows)();
            let count = self.file.read(buffer)?;
            if count > 0 || !grows {
                return Ok(count);
            }
            std::thread::sleep(GROWTH);
        }
    }
}
