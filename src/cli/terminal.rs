//! The user's own terminal, while a program in a sandbox has the word.

use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use kiln_sandbox::{
    Cancel, End, Keyboard, Launcher, Outcome, SandboxError, SandboxRequest, Stream, Terminal,
};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Returns whether a person sits at both ends.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Puts the user's terminal back as it was.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(errno) = tcsetattr(io::stdin(), OptionalActions::Now, &self.0) {
            tracing::warn!(%errno, "the terminal cannot be set back; `reset` does it");
        }
    }
}

/// Runs a request with the user's terminal, or without one where nobody sits there: then
/// what the program writes to its two streams goes to kiln's own two.
pub(super) fn attend(
    launcher: &Launcher,
    mut request: SandboxRequest,
    cancel: &Cancel,
) -> Result<Outcome, SandboxError> {
    let mut print = |stream: Stream, bytes: &[u8]| {
        let pass = |out: &mut dyn io::Write| out.write_all(bytes).and_then(|()| out.flush());
        let passed = match stream {
            Stream::Output => pass(&mut io::stdout().lock()),
            Stream::Errors => pass(&mut io::stderr().lock()),
        };
        // A reader that has gone away ends what it read from.
        if passed.is_err() {
            cancel.cancel();
        }
    };
    if !is_interactive() {
        return launcher.run_apart(&request, &mut print, cancel);
    }
    let size = tcgetwinsize(io::stdin()).map_err(|errno| SandboxError::Connection(errno.into()))?;
    request.terminal = Some(Terminal {
        rows: size.ws_row,
        columns: size.ws_col,
    });
    let (resized, tell) = UnixStream::pair().map_err(SandboxError::Connection)?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGWINCH, tell)
        .map_err(SandboxError::Connection)?;
    let _raw = Raw::enter().map_err(SandboxError::Connection)?;
    let stdin = io::stdin();
    let keyboard = Keyboard {
        input: stdin.as_fd(),
        resized: Some(resized.as_fd()),
    };
    launcher.converse(
        &request,
        keyboard,
        &mut |bytes| print(Stream::Output, bytes),
        cancel,
    )
}

/// Returns the exit status that a shell would report for an end, or `None` when the
/// sandbox ended the program.
pub(super) fn status(end: End) -> Option<i32> {
    match end {
        End::Exited(status) => Some(status),
        End::Signaled(signal) => Some(128 + signal),
        _ => None,
    }
}
