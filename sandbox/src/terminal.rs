//! A pseudo terminal of which the parent holds one end and the builder the other.

use std::io;
use std::os::fd::OwnedFd;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, OutputModes, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use crate::request::Terminal;

/// Opens a terminal; returns the parent's end and the program's.
///
/// Unless somebody converses on it, what is printed passes unchanged (no line ends are
/// rewritten), so that a log of a run on a terminal compares with one that ran on a pipe.
pub(crate) fn open(terminal: Terminal, converse: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    let parent = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&parent)?;
    unlockpt(&parent)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let program = ioctl_tiocgptpeer(&parent, flags)?;
    if !converse {
        let mut modes = tcgetattr(&program)?;
        modes.output_modes -= OutputModes::OPOST;
        tcsetattr(&program, OptionalActions::Now, &modes)?;
    }
    tcsetwinsize(
        &program,
        Winsize {
            ws_row: terminal.rows,
            ws_col: terminal.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )?;
    Ok((parent, program))
}
