//! What the tests of the sandbox share: a request that runs a shell of this machine.

#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kiln_sandbox::{Access, Cancel, End, Launcher, Node, Outcome, SandboxRequest};

pub fn launcher() -> Launcher {
    Launcher::new(PathBuf::from(env!("CARGO_BIN_EXE_kiln-sandbox-child")))
}

pub fn bind(path: &str, source: impl Into<PathBuf>, access: Access) -> Node {
    Node::Bind {
        path: path.to_owned(),
        source: source.into(),
        access,
    }
}

/// Returns a request that runs a shell script with the host's own `/usr`.
pub fn shell(script: &str) -> SandboxRequest {
    let mut request = SandboxRequest::new(["/bin/bash", "-c", script].map(str::to_owned).to_vec());
    request.nodes.push(bind("/usr", "/usr", Access::ReadOnly));
    for top in ["bin", "lib", "lib64", "sbin"] {
        request.nodes.push(Node::Symlink {
            path: format!("/{top}"),
            target: format!("usr/{top}"),
        });
    }
    request.environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/usr/sbin".to_owned())]);
    "/tmp".clone_into(&mut request.working_directory);
    // Far more than any test takes on a slow machine.
    request.limits.wall = Some(Duration::from_mins(5));
    request
}

pub fn run_with(launcher: &Launcher, request: &SandboxRequest) -> (Outcome, String) {
    let mut log = Vec::new();
    let outcome = launcher
        .run(
            request,
            &mut |bytes| log.extend_from_slice(bytes),
            &Cancel::new().unwrap(),
        )
        .unwrap_or_else(|error| panic!("{error:?}"));
    (outcome, String::from_utf8_lossy(&log).into_owned())
}

/// Runs a request that must succeed, and returns what it printed.
pub fn printed(request: &SandboxRequest) -> String {
    let (outcome, log) = run_with(&launcher(), request);
    assert_eq!(outcome.end, End::Exited(0), "{log}");
    log
}

/// Compiles a static C program.
pub fn compile(directory: &Path, name: &str, source: &str) -> PathBuf {
    let (file, program) = (directory.join(format!("{name}.c")), directory.join(name));
    std::fs::write(&file, source).unwrap();
    let output = Command::new("cc")
        .args(["-static", "-O1", "-o"])
        .arg(&program)
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    program
}

/// Returns how many mounts there are, but for those that come and go as users log in.
pub fn mounts() -> usize {
    std::fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .filter(|line| !line.contains(" /run/user/"))
        .count()
}
