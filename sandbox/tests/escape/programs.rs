//! The programs that the tests run: the probe, and the sandbox's own executable.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// Names a directory with the programs, where another user runs the tests again.
pub const PROGRAMS: &str = "KILN_ESCAPE_PROGRAMS";

/// Names the user of a range of ids that performs the acts, where the tests are run again so.
pub const USER: &str = "KILN_ESCAPE_USER";

/// Returns the user of a range of ids that performs the acts; `None` where there is one id.
pub fn user() -> Option<String> {
    std::env::var(USER).ok()
}

/// What the acts are made of.
pub struct Programs {
    /// The static probe.
    pub probe: PathBuf,
    /// What becomes the sandbox.
    pub child: PathBuf,
}

static HERE: LazyLock<Programs> = LazyLock::new(|| match std::env::var_os(PROGRAMS) {
    Some(directory) => Programs {
        probe: Path::new(&directory).join("probe"),
        child: Path::new(&directory).join("child"),
    },
    None => Programs {
        probe: compile(),
        child: PathBuf::from(env!("CARGO_BIN_EXE_kiln-sandbox-child")),
    },
});

/// Returns the programs; the probe is compiled once.
pub fn programs() -> &'static Programs {
    &HERE
}

/// Returns whether another user runs the tests again: the twins have been run by then.
pub fn is_second_run() -> bool {
    std::env::var_os(PROGRAMS).is_some()
}

fn compile() -> PathBuf {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let directory = tempfile::tempdir_in(base).unwrap();
    let made = directory.path().join("probe");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/escape/probe");
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]);
    compiler.arg(&made);
    for entry in std::fs::read_dir(sources).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "c") {
            compiler.arg(path);
        }
    }
    let output = compiler.output().expect("the escape tests need `cc`");
    assert!(output.status.success(), "{output:?}");
    let probe = base.join("escape-probe");
    std::fs::rename(made, &probe).unwrap();
    probe
}

/// Copies a program that will be executed: another process does it, because a descriptor
/// of this one may be inherited by what other tests start, and keep the copy busy.
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").args([from, to]).status();
    assert!(copied.unwrap().success());
}
