//! Runs a program where ids are lent to root and to user 65534: in a mount namespace of its
//! own, whose `/etc/subuid` and `/etc/subgid` are a test's. It takes root to do so.

use std::path::Path;
use std::process::Command;

/// The first id that is lent to root, and to user 65534.
pub const OF_ROOT: u32 = 200_000;
pub const OF_NOBODY: u32 = 300_000;

/// How many are lent to each.
pub const COUNT: u32 = 65_536;

const SCRIPT: &str = "mount --bind \"$1\" /etc/subuid && mount --bind \"$1\" /etc/subgid && \
                      shift && exec \"$@\"";

/// Who runs the program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum User {
    Root,
    Nobody,
}

/// Returns a command that goes on with a program and its arguments; what is lent is written
/// below a directory.
pub fn lending(directory: &Path, lent: &str, user: User) -> Command {
    let file = directory.join("lent");
    std::fs::write(&file, lent).unwrap();
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        SCRIPT,
        "sh",
    ]);
    command.arg(file);
    if user == User::Nobody {
        command.args([
            "setpriv", "--reuid", "65534", "--regid", "65534", "--groups", "4,27",
        ]);
    }
    command
}

/// Returns what lends enough to both.
pub fn enough() -> String {
    format!("root:{OF_ROOT}:{COUNT}\n65534:1:2\nnobody:{OF_NOBODY}:{COUNT}\n")
}

/// Returns why nothing can be lent here.
pub fn obstacle(user: User) -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        Some("only root can lend ids")
    } else if !Path::new("/etc/subuid").exists() || !Path::new("/etc/subgid").exists() {
        Some("there is no `/etc/subuid` or no `/etc/subgid` to stand in for")
    } else if user == User::Nobody && !Path::new("/usr/bin/newuidmap").exists() {
        Some("there is no `newuidmap`")
    } else {
        None
    }
}
