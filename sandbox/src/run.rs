//! One run as the parent sees it: reads the log, enforces limits, and returns only when
//! everything in the namespaces is dead.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cancel::Cancel;
use crate::launch::{Keyboard, Stream};
use crate::outcome::End;
use crate::request::Limits;
use crate::step::Step;
use crate::sys;
use crate::wire::{Report, receive, send};

/// A run in progress.
pub(crate) struct Run<'a> {
    /// Closing it makes the monitor kill everything.
    life: Option<PipeWriter>,
    status: PipeReader,
    /// The pipe of the output, or the parent's end of the terminal.
    output: Option<File>,
    /// The pipe of the errors, where they have one of their own.
    errors: Option<File>,
    /// What is typed into the terminal.
    input: Option<BorrowedFd<'a>>,
    /// What tells that the size of `input` has changed, with `input` itself, which may end
    /// before its terminal does.
    resized: Option<(BorrowedFd<'a>, BorrowedFd<'a>)>,
    limits: Limits,
    started: Instant,
    heard: Instant,
    received: Vec<u8>,
    /// What was read last.
    block: Vec<u8>,
    /// Why the run was ended from here.
    pub killed: Option<End>,
    pub log_bytes: u64,
    pub reports: Vec<Report>,
}

/// The parent's ends of what it shares with a monitor.
pub(crate) struct Ends<'a> {
    pub life: PipeWriter,
    pub status: PipeReader,
    pub output: File,
    pub errors: Option<File>,
    pub keyboard: Option<Keyboard<'a>>,
}

/// What there is to read.
struct News {
    status: bool,
    output: bool,
    errors: bool,
    input: bool,
    resized: bool,
    cancelled: bool,
}

impl<'a> Run<'a> {
    pub(crate) fn new(ends: Ends<'a>, limits: &Limits, started: Instant) -> io::Result<Self> {
        sys::set_nonblocking(&ends.status)?;
        sys::set_nonblocking(&ends.output)?;
        if let Some(errors) = &ends.errors {
            sys::set_nonblocking(errors)?;
        }
        let keyboard = ends.keyboard;
        Ok(Self {
            life: Some(ends.life),
            status: ends.status,
            output: Some(ends.output),
            errors: ends.errors,
            input: keyboard.map(|keyboard| keyboard.input),
            resized: keyboard.and_then(|keyboard| Some((keyboard.resized?, keyboard.input))),
            limits: limits.clone(),
            started,
            heard: started,
            received: Vec::new(),
            block: vec![0; 1 << 16],
            killed: None,
            log_bytes: 0,
            reports: Vec::new(),
        })
    }

    /// Sends the plan.
    pub(crate) fn send(&mut self, steps: &[&Step]) -> io::Result<()> {
        match &mut self.life {
            Some(life) => send(life, &steps),
            None => Ok(()),
        }
    }

    fn kill(&mut self, why: End) {
        self.killed.get_or_insert(why);
        self.life = None;
    }

    /// Returns when the next limit is reached, and which.
    fn deadline(&self) -> Option<(Instant, End)> {
        if self.killed.is_some() {
            return None;
        }
        let wall = self
            .limits
            .wall
            .map(|limit| (self.started + limit, End::WallLimit));
        let silence = self
            .limits
            .silence
            .map(|limit| (self.heard + limit, End::SilenceLimit));
        wall.into_iter().chain(silence).min_by_key(|(at, _)| *at)
    }

    /// Reads until the monitor has closed its side, which it does when all is dead.
    pub(crate) fn watch(
        &mut self,
        log: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> io::Result<()> {
        loop {
            let deadline = self.deadline();
            let timeout = deadline.map_or(PollTimeout::NONE, |(at, _)| {
                let left = at.saturating_duration_since(Instant::now());
                // Rounded up, so that the limit has passed when the call returns.
                let millis = i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX);
                PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
            });
            let news = self.wait_for_news(timeout, cancel)?;
            if news.output {
                self.read(Stream::Output, log)?;
            }
            if news.errors {
                self.read(Stream::Errors, log)?;
            }
            if news.input {
                self.pass_input()?;
            }
            if news.resized {
                self.pass_size()?;
            }
            if news.cancelled {
                self.kill(End::Cancelled);
            }
            if let Some((at, end)) = self.deadline()
                && Instant::now() >= at
            {
                self.kill(end);
            }
            if news.status && self.read_status()? {
                // All writers are dead: what is left in the pipes is all there is.
                self.read(Stream::Output, log)?;
                return self.read(Stream::Errors, log);
            }
        }
    }

    fn wait_for_news(&self, timeout: PollTimeout, cancel: &Cancel) -> io::Result<News> {
        let running = self.killed.is_none();
        let sources = [
            Some(self.status.as_fd()),
            self.output.as_ref().map(AsFd::as_fd),
            self.errors.as_ref().map(AsFd::as_fd),
            self.input.filter(|_| running && self.output.is_some()),
            self.resized.map(|(resized, _)| resized),
            running.then(|| cancel.signal()),
        ];
        let mut watched: Vec<PollFd<'_>> = sources
            .iter()
            .flatten()
            .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut watched, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut answers = watched.iter().map(|fd| fd.any().unwrap_or(false));
        let [status, output, errors, input, resized, cancelled] =
            sources.map(|source| source.is_some() && answers.next().unwrap_or(false));
        Ok(News {
            status,
            output,
            errors,
            input,
            resized,
            cancelled,
        })
    }

    /// Types what was typed.
    fn pass_input(&mut self) -> io::Result<()> {
        let (Some(input), Some(terminal)) = (self.input, &mut self.output) else {
            return Ok(());
        };
        let mut block = [0; 1024];
        let count = rustix::io::read(input, &mut block)?;
        if count == 0 {
            // Nothing more will be typed: what a terminal tells its program by ^D.
            self.input = None;
            const END_OF_INPUT: &[u8] = &[4];
            return terminal.write_all(END_OF_INPUT);
        }
        terminal.write_all(block.get(..count).unwrap_or(&[]))
    }

    /// Gives the program's terminal the size that the person's has now.
    fn pass_size(&mut self) -> io::Result<()> {
        let Some((resized, input)) = self.resized else {
            return Ok(());
        };
        if rustix::io::read(resized, &mut [0; 64])? == 0 {
            self.resized = None;
        }
        if let Some(terminal) = &self.output
            && rustix::termios::isatty(input)
        {
            let size = rustix::termios::tcgetwinsize(input)?;
            rustix::termios::tcsetwinsize(terminal, size)?;
        }
        Ok(())
    }

    /// Takes everything that was written to a stream and not read yet.
    fn read(&mut self, stream: Stream, log: &mut dyn FnMut(Stream, &[u8])) -> io::Result<()> {
        loop {
            let source = match stream {
                Stream::Output => &mut self.output,
                Stream::Errors => &mut self.errors,
            };
            let Some(pipe) = source else {
                return Ok(());
            };
            match pipe.read(&mut self.block) {
                Ok(0) => *source = None,
                Ok(count) => {
                    self.heard = Instant::now();
                    let room = self.limits.log_bytes.unwrap_or(u64::MAX) - self.log_bytes;
                    let kept = count.min(usize::try_from(room).unwrap_or(usize::MAX));
                    self.log_bytes += kept as u64;
                    log(stream, self.block.get(..kept).unwrap_or(&[]));
                    if kept < count {
                        self.kill(End::LogLimit);
                    }
                }
                // No program has the terminal open any more.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => *source = None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes what the child reported; returns whether it has ended.
    fn read_status(&mut self) -> io::Result<bool> {
        let mut block = [0; 4096];
        loop {
            match self.status.read(&mut block) {
                Ok(0) => {
                    let mut rest = self.received.as_slice();
                    while let Some(report) = receive::<Report>(&mut rest)? {
                        self.reports.push(report);
                    }
                    return Ok(true);
                }
                Ok(count) if self.received.len() < 1 << 16 => {
                    self.received
                        .extend_from_slice(block.get(..count).unwrap_or(&[]));
                }
                Ok(_) => return Err(io::Error::other("the sandbox reports without end")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
