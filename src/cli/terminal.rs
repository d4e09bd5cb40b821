//! The user's own terminal, while a program in a sandbox has the word.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use kiln_sandbox::{Cancel, End, Launcher, Outcome, SandboxError, SandboxRequest, Terminal};
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

/// Runs a request with the user's terminal, or without one where nobody sits there. What
/// the program prints goes to standard output.
pub(super) fn attend(
    launcher: &Launcher,
    mut request: SandboxRequest,
    cancel: &Cancel,
) -> Result<Outcome, SandboxError> {
    let mut print = |bytes: &[u8]| {
        let mut out = io::stdout().lock();
        // A reader that has gone away ends what it read from.
        if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
            cancel.cancel();
        }
    };
    if !is_interactive() {
        return launcher.run(&request, &mut print, cancel);
    }
    let size = tcgetwinsize(io::stdin()).map_err(|errno| SandboxError::Connection(errno.into()))?;
    request.terminal = Some(Terminal {
        rows: size.ws_row,
        columns: size.ws_col,
    });
    let _raw = Raw::enter().map_err(SandboxError::Connection)?;
    launcher.converse(&request, io::stdin().as_fd(), &mut print, cancel)
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
