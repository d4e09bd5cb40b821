//! A range of users and groups inside: two user namespaces, one in the other.
//!
//! The outer one is where ids of this machine get their numbers inside: the caller's own,
//! and those that are lent to it (`range`). The inner one is the build's, and has the same
//! numbers as the outer one. It is there for two things:
//!
//! - `/proc/self/uid_map` tells a build how its ids are numbered one namespace further
//!   out. It says the same on every machine.
//! - A limit on processes counts each user's alone. But from Linux 5.14 on, all that are in a
//!   namespace count for the user who made it too, against the limit that it had then: so
//!   the inner one is made under the run's.
//!
//! A map of more than one id is written by a process that may set ids outside of the
//! namespace. So each is written by a process that was forked off before it was entered.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use nix::unistd::{Gid, Pid, Uid};

use crate::range;
use crate::step::{IdSpan, Mapper};
use crate::sys;
use crate::wire::{Report, receive, send};

/// The names of both maps below `/proc/PROCESS`, and the programs that write them.
const USERS: (&str, &str) = ("uid_map", "newuidmap");
const GROUPS: (&str, &str) = ("gid_map", "newgidmap");

/// A process outside of a namespace, which does one thing when it is told to.
pub(crate) struct Outsider {
    process: Pid,
    /// Closing it makes the process end.
    go: OwnedFd,
    answer: File,
}

impl Outsider {
    /// Forks it off; it is to act on this process.
    pub(crate) fn start(act: impl FnOnce(Pid) -> Result<(), Report>) -> io::Result<Self> {
        let this = Pid::this();
        let (told, go) = io::pipe()?;
        let (answer, mut answer_writer) = io::pipe()?;
        if let Some(process) = sys::fork()? {
            let (go, answer) = (go.into(), OwnedFd::from(answer).into());
            return Ok(Self {
                process,
                go,
                answer,
            });
        }
        drop((go, answer));
        // The end of the pipe is the end of whoever would tell.
        let mut byte = [0];
        if rustix::io::read(&told, &mut byte) != Ok(1) {
            sys::exit_now(3);
        }
        let done = act(this).or_else(|report| send(&mut answer_writer, &report));
        sys::exit_now(if done.is_ok() { 0 } else { 3 })
    }

    /// Tells the process to act, and waits until it has.
    pub(crate) fn finish(mut self) -> io::Result<Result<(), Report>> {
        rustix::io::write(&self.go, b"!")?;
        let report = receive::<Report>(&mut self.answer)?;
        let (_, status, _) = sys::wait_any(self.process.as_raw())?;
        match (report, sys::decode_status(status)) {
            (Some(report), _) => Ok(Err(report)),
            (None, Ok(0)) => Ok(Ok(())),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Enters a user namespace in which ids of this machine have other numbers.
pub(crate) fn enter(
    users: &[IdSpan],
    groups: &[IdSpan],
    by: Mapper,
) -> io::Result<Result<(), Report>> {
    let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
    let outsider = Outsider::start(|process| {
        for ((file, program), spans, own) in [(USERS, users, uid), (GROUPS, groups, gid)] {
            match by {
                Mapper::Root => write(process, file, &map(spans, own)),
                Mapper::Programs => ask(program, process, &map(spans, own)),
            }?;
        }
        Ok(())
    })?;
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER)?;
    outsider.finish()
}

/// Forks off what will give the next namespace every id of this one, by the same number.
/// The kernel wants them in the rows that they have here.
pub(crate) fn keeper(users: &[IdSpan], groups: &[IdSpan]) -> io::Result<Outsider> {
    Outsider::start(|process| {
        for ((file, _), spans) in [(USERS, users), (GROUPS, groups)] {
            let same: Vec<IdSpan> = spans
                .iter()
                .map(|span| IdSpan {
                    outside: Some(span.inside),
                    ..*span
                })
                .collect();
            write(process, file, &map(&same, 0))?;
        }
        Ok(())
    })
}

/// Returns a map as the kernel reads it.
fn map(spans: &[IdSpan], own: u32) -> String {
    let lines: Vec<String> = spans
        .iter()
        .map(|span| {
            let outside = span.outside.unwrap_or(own);
            format!("{} {outside} {}", span.inside, span.count)
        })
        .collect();
    lines.join("\n")
}

fn write(process: Pid, file: &str, map: &str) -> Result<(), Report> {
    let path = format!("/proc/{process}/{file}");
    std::fs::write(path, map).map_err(|error| Report::Unmapped {
        by: file.to_owned(),
        said: error.to_string(),
    })
}

/// How long a program that writes a map may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lets a program write a map that the administrator has given the right to.
fn ask(program: &'static str, process: Pid, map: &str) -> Result<(), Report> {
    let refused = |said: String| Report::Unmapped {
        by: program.to_owned(),
        said,
    };
    let path = range::program(program).ok_or_else(|| refused("it is not there".to_owned()))?;
    let failed = |error: io::Error| refused(error.to_string());
    let mut child = Command::new(path)
        .arg(process.to_string())
        .args(map.split_whitespace())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // It may ask a name service who the caller is.
    let asked = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if asked.elapsed() > PATIENCE {
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            return Err(refused("it did not end within ten seconds".to_owned()));
        }
        std::thread::sleep(Duration::from_micros(500));
    };
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(4096).read_to_end(&mut said).map_err(failed)?;
    }
    let said = String::from_utf8_lossy(&said);
    let said = said.lines().next_back().unwrap_or_default();
    let said: String = said
        .chars()
        .filter(|letter| !letter.is_control())
        .take(300)
        .collect();
    Err(refused(format!("{said} ({status})")))
}
