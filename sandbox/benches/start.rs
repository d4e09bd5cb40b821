//! How long a run takes that does nothing: start-up and tear-down with 50 read-only
//! inputs, beside `bwrap` with the same binds and a bare C program that makes the same
//! system calls. The contenders take turns, so that what else the machine does hits all.
//!
//! `cargo bench -p kiln-sandbox --bench start [-- ROUNDS]` prints the medians, in
//! milliseconds. A range of ids is measured where one is lent to the caller.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kiln_sandbox::{Access, Cancel, End, Ids, Launcher, Node, SandboxRequest};

const INPUTS: usize = 50;

fn compile(directory: &Path, name: &str, source: &Path) -> PathBuf {
    let program = directory.join(name);
    let status = Command::new("cc")
        .args(["-O2", "-static", "-o"])
        .arg(&program)
        .arg(source)
        .status()
        .unwrap();
    assert!(status.success(), "cc {name}");
    program
}

fn request(inputs: &Path) -> SandboxRequest {
    let mut request = SandboxRequest::new(vec!["/in/0/true".to_owned()]);
    request.nodes = (0..INPUTS)
        .map(|number| Node::Bind {
            path: format!("/in/{number}"),
            source: inputs.join(number.to_string()),
            access: Access::ReadOnly,
        })
        .collect();
    request
}

fn bwrap(inputs: &Path) -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--proc", "/proc", "--dev", "/dev"]);
    for number in 0..INPUTS {
        let source = inputs.join(number.to_string());
        command
            .arg("--ro-bind")
            .arg(source)
            .arg(format!("/in/{number}"));
    }
    command.arg("/in/0/true").stdin(Stdio::null());
    command
}

fn bare(program: &Path, inputs: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg(INPUTS.to_string())
        .arg(inputs)
        .arg("/in/0/true");
    command
}

fn timed(run: impl FnOnce()) -> Duration {
    let started = Instant::now();
    run();
    started.elapsed()
}

/// How many runs the time of several at once is averaged over.
const AT_ONCE: u32 = 40;

/// Returns what a run takes of the time of many, two of them at once.
fn two_at_once(run: impl Fn() + Sync) -> Duration {
    let all = timed(|| {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..AT_ONCE / 2).for_each(|_| run()));
            }
        });
    });
    all / AT_ONCE
}

/// A name, and what it takes in a round, if it can be done here and has its turn.
type Contender<'a> = (&'static str, Box<dyn Fn(u32) -> Option<Duration> + 'a>);

fn succeed(command: &mut Command) {
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}

fn main() {
    let rounds = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(200);
    let directory = tempfile::tempdir().unwrap();
    let inputs = directory.path().join("inputs");
    for number in 0..INPUTS {
        std::fs::create_dir_all(inputs.join(number.to_string())).unwrap();
    }
    let source = directory.path().join("true.c");
    std::fs::write(&source, "int main(void) { return 0; }\n").unwrap();
    compile(&inputs.join("0"), "true", &source);
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/bare.c");
    let yardstick = compile(directory.path(), "bare", &here);
    let launcher = || Launcher::new(PathBuf::from(env!("CARGO_BIN_EXE_kiln-sandbox-child")));
    let (used, cancel) = (launcher(), Cancel::new().unwrap());
    let request = request(&inputs);
    let mut range = request.clone();
    range.ids = Ids::Range;
    let run = |launcher: &Launcher, request: &SandboxRequest| {
        let outcome = launcher.run(request, &mut |_| {}, &cancel).unwrap();
        assert_eq!(outcome.end, End::Exited(0));
    };
    let lent = used.plan(&range).is_ok();
    let with_bwrap = Command::new("bwrap").arg("--version").output().is_ok();
    let contenders: [Contender<'_>; 6] = [
        (
            "kiln-sandbox",
            Box::new(|_| Some(timed(|| run(&used, &request)))),
        ),
        (
            "kiln-sandbox, its server started too",
            Box::new(|_| Some(timed(|| run(&launcher(), &request)))),
        ),
        (
            "kiln-sandbox, a run of two at once",
            Box::new(|round| (round % 10 == 0).then(|| two_at_once(|| run(&used, &request)))),
        ),
        (
            "kiln-sandbox, with a range of ids",
            Box::new(|_| lent.then(|| timed(|| run(&used, &range)))),
        ),
        (
            "bare C program",
            Box::new(|_| Some(timed(|| succeed(&mut bare(&yardstick, &inputs))))),
        ),
        (
            "bwrap --unshare-all",
            Box::new(|_| with_bwrap.then(|| timed(|| succeed(&mut bwrap(&inputs))))),
        ),
    ];
    let mut times = [const { Vec::new() }; 6];
    for round in 0..rounds {
        for ((_, measure), times) in contenders.iter().zip(&mut times) {
            times.extend(measure(round));
        }
    }
    for ((name, _), times) in contenders.iter().zip(&mut times) {
        times.sort();
        match times.get(times.len() / 2) {
            Some(median) => println!("{name:<40}{:>8.2} ms", median.as_secs_f64() * 1e3),
            None => println!("{name:<40} cannot be done here"),
        }
    }
}
