//! How much slower a compile is inside: configure and make of one source, in the sandbox
//! and outside it, with this machine's own compiler in both. The two take turns, and which
//! goes first changes, so that what else the machine does hits both.
//!
//! `cargo bench -p kiln-sandbox --bench compile -- ARCHIVE [ROUNDS]` prints the medians, in
//! seconds, of the time on the wall and of the processor time of all processes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kiln_sandbox::{Access, Cancel, End, Launcher, Node, SandboxRequest};
use nix::sys::resource::{UsageWho, getrusage};

/// The same directory in both, so that no path is longer in one.
const DIRECTORY: &str = "/var/tmp/kiln-bench-compile";

const SCRIPT: &str = "cd source && ./configure >/dev/null 2>&1 && make >/dev/null 2>&1";

const ALTERNATIVES: &str = "/etc/alternatives";

const ENVIRONMENT: [(&str, &str); 5] = [
    ("PATH", "/usr/bin:/bin"),
    ("HOME", "/homeless"),
    ("LC_ALL", "C"),
    ("TZ", "UTC"),
    ("FORCE_UNSAFE_CONFIGURE", "1"),
];

/// Time on the wall, and of processors.
type Cost = (Duration, Duration);

fn lay_out(archive: &Path) {
    drop(std::fs::remove_dir_all(DIRECTORY));
    let source = Path::new(DIRECTORY).join("source");
    std::fs::create_dir_all(&source).unwrap();
    let status = Command::new("tar")
        .args(["--no-same-owner", "--strip-components=1", "-xf"])
        .arg(archive)
        .arg("-C")
        .arg(&source)
        .status()
        .unwrap();
    assert!(status.success(), "tar");
}

fn outside() -> Cost {
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        let times = [usage.user_time(), usage.system_time()];
        times
            .iter()
            .map(|time| {
                let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
                Duration::from_micros(micros.try_into().unwrap())
            })
            .sum::<Duration>()
    };
    let (before, started) = (used(), Instant::now());
    let status = Command::new("/bin/bash")
        .args(["-c", SCRIPT])
        .env_clear()
        .envs(ENVIRONMENT)
        .current_dir(DIRECTORY)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    let wall = started.elapsed();
    assert!(status.success(), "outside");
    (wall, used().checked_sub(before).unwrap())
}

fn inside(launcher: &Launcher) -> Cost {
    let mut request = SandboxRequest::new(["/bin/bash", "-c", SCRIPT].map(str::to_owned).to_vec());
    request.nodes.push(Node::Bind {
        path: "/usr".to_owned(),
        source: "/usr".into(),
        access: Access::ReadOnly,
    });
    for top in ["bin", "lib", "lib64"] {
        request.nodes.push(Node::Symlink {
            path: format!("/{top}"),
            target: format!("usr/{top}"),
        });
    }
    // `awk`, `cc` and others are links that lead through here on some systems.
    if Path::new(ALTERNATIVES).exists() {
        request.nodes.push(Node::Bind {
            path: ALTERNATIVES.to_owned(),
            source: ALTERNATIVES.into(),
            access: Access::ReadOnly,
        });
    }
    request.nodes.push(Node::Bind {
        path: DIRECTORY.to_owned(),
        source: DIRECTORY.into(),
        access: Access::ReadWrite,
    });
    DIRECTORY.clone_into(&mut request.working_directory);
    request.environment =
        BTreeMap::from(ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // What outside has as well.
    request.aslr = true;
    let cancel = Cancel::new().unwrap();
    let outcome = launcher.run(&request, &mut |_| {}, &cancel).unwrap();
    assert_eq!(outcome.end, End::Exited(0), "inside");
    (outcome.usage.wall, outcome.usage.cpu)
}

fn median(costs: &[Cost], which: fn(&Cost) -> Duration) -> f64 {
    let mut times: Vec<Duration> = costs.iter().map(which).collect();
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

fn main() {
    kiln_sandbox::enter_if_asked();
    let mut arguments = std::env::args().skip(1).filter(|word| word != "--bench");
    let Some(archive) = arguments.next() else {
        return println!("compile: name a source archive with a configure script");
    };
    let archive = Path::new(&archive);
    let rounds: usize = arguments.next().map_or(5, |word| word.parse().unwrap());
    let launcher = Launcher::current();
    let (mut outer, mut inner) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for turn in 0..2 {
            lay_out(archive);
            if (round + turn) % 2 == 0 {
                outer.push(outside());
            } else {
                inner.push(inside(&launcher));
            }
        }
    }
    drop(std::fs::remove_dir_all(DIRECTORY));
    for (what, which) in [
        ("wall", (|cost| cost.0) as fn(&Cost) -> Duration),
        ("processor", |cost| cost.1),
    ] {
        let (outside, inside) = (median(&outer, which), median(&inner, which));
        println!(
            "{what}: outside {outside:.2} s, inside {inside:.2} s, {:+.1} %",
            (inside / outside - 1.0) * 100.0
        );
    }
}
