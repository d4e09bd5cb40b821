//! How runs end, what they used, who they were outside, and what remains of them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kiln_sandbox::{
    Access, Caller, Cancel, End, Launcher, Node, Power, SandboxError, SandboxRequest, Weakness,
    steps,
};

use common::{bind, compile, launcher, mounts, run_with, shell};

const FORKS: &str = "#include <stdlib.h>\n#include <unistd.h>\n\
    int main(int argc, char **argv) { for (int i = atoi(argv[1]); i > 0; i--) {\n\
    int pid = fork(); if (pid < 0) return 7; if (pid == 0) pause(); } return atoi(argv[2]); }";

fn program(path: &Path, arguments: &[&str]) -> SandboxRequest {
    let command = std::iter::once("/program").chain(arguments.iter().copied());
    let mut request = SandboxRequest::new(command.map(str::to_owned).collect());
    request.nodes.push(bind("/program", path, Access::ReadOnly));
    request.limits.wall = Some(Duration::from_secs(60));
    request
}

#[test]
fn a_fork_bomb_is_called_one() {
    let directory = tempfile::tempdir().unwrap();
    let forks = compile(directory.path(), "forks", FORKS);
    let end = |count: &str, status: &str, limit: u64| {
        let mut request = program(&forks, &[count, status]);
        request.limits.processes = Some(limit);
        run_with(&launcher(), &request).0.end
    };
    assert_eq!(end("1000", "0", 50), End::ProcessLimit);
    // Failing below the limit is an ordinary failure, and reaching it is none.
    assert_eq!(end("10", "3", 50), End::Exited(3));
    assert_eq!(end("10", "0", 50), End::Exited(0));
    assert_eq!(end("40", "3", 1000), End::Exited(3));
}

#[test]
fn a_file_that_is_too_large_is_named() {
    let mut request = shell("exec head -c 3000000 /dev/zero > /tmp/large");
    assert_eq!(run_with(&launcher(), &request).0.end, End::Exited(0));
    request.limits.file_bytes = Some(1 << 20);
    assert_eq!(run_with(&launcher(), &request).0.end, End::FileLimit);
}

#[test]
fn what_was_used_is_measured() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let write = |megabytes: u64, to: &str| {
        let mut request = shell(&format!(
            "dd if=/dev/zero of={to}/file bs=1M count={megabytes} conv=fsync 2>/dev/null; \
             x=$(head -c {megabytes}000000 /dev/zero | tr '\\0' x); i=0; \
             while test $i -lt 20000; do i=$((i+1)); done"
        ));
        request
            .nodes
            .push(bind("/disk", directory.path(), Access::ReadWrite));
        let (outcome, log) = run_with(&launcher(), &request);
        assert_eq!(outcome.end, End::Exited(0), "{log}");
        outcome.usage
    };
    let (small, large) = (write(1, "/disk"), write(32, "/disk"));
    assert!(large.peak_memory_bytes > small.peak_memory_bytes + (20 << 20));
    assert!(large.peak_memory_bytes < 1 << 30);
    assert!(!large.cpu.is_zero() && !large.wall.is_zero());
    // The kernel counts pages that are given to a file system on a disk, not to memory.
    if rustix::fs::statfs(directory.path()).unwrap().f_type != TMPFS {
        assert!(
            (32 << 20..64 << 20).contains(&large.written_bytes),
            "{large:?}"
        );
    }
    assert!(write(32, "/tmp").written_bytes < 1 << 20);
}

const TMPFS: i64 = 0x0102_1994;

fn status_line(process: &Path, name: &str) -> Option<Vec<u32>> {
    let text = std::fs::read_to_string(process.join("status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(
        line.split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect(),
    )
}

/// Returns the processes of this machine whose command line has a word.
fn processes_with(word: &str) -> Vec<PathBuf> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            std::fs::read(path.join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
        })
        .collect()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

/// Files that a build leaves belong to who asked; its processes are never root's.
#[test]
fn nobody_is_root_outside() {
    let directory = tempfile::tempdir().unwrap();
    let word = format!("word-{}-outside", std::process::id());
    let mut request = shell(&format!(
        ": {word}; touch /data/ready; while ! test -e /data/go; do sleep 0.01; done"
    ));
    request
        .nodes
        .push(bind("/data", directory.path(), Access::ReadWrite));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| run_with(&launcher(), &request));
        until("ready", || directory.path().join("ready").exists());
        let users: BTreeSet<u32> = processes_with(&word)
            .iter()
            .filter_map(|process| status_line(process, "Uid:"))
            .flatten()
            .collect();
        std::fs::write(directory.path().join("go"), "").unwrap();
        let (outcome, log) = run.join().unwrap();
        assert_eq!(outcome.end, End::Exited(0), "{log}");
        assert_eq!(outcome.missing, BTreeSet::new());
        let caller = nix::unistd::geteuid();
        if caller.is_root() {
            assert!(!users.is_empty() && !users.contains(&0), "{users:?}");
        } else {
            assert_eq!(users, BTreeSet::from([caller.as_raw()]));
        }
        let made = directory.path().join("ready").metadata().unwrap();
        assert_eq!(made.uid(), caller.as_raw());
    });
}

#[test]
fn what_is_missing_must_be_allowed_and_is_told() {
    let mut request = shell("true");
    let caller = Caller {
        power: Power::RootInName,
        ..Caller::current()
    };
    match launcher().perform_for_test(&request, &steps(&request, caller)) {
        Err(SandboxError::Weaker { missing }) => assert_eq!(missing, Weakness::RootOutside),
        other => panic!("{other:?}"),
    }
    request.weak = BTreeSet::from([Weakness::RootOutside]);
    let outcome = launcher()
        .perform_for_test(&request, &steps(&request, caller))
        .unwrap();
    assert_eq!(
        (outcome.end, outcome.missing),
        (End::Exited(0), request.weak)
    );
}

/// Root becomes nobody's id, which can write only where owners are mapped; `/proc` is a file
/// system that cannot do that.
#[test]
fn what_cannot_be_mapped_is_read_and_not_written() {
    if Caller::current().power != Power::Root {
        return;
    }
    let mut request = shell("test -e /shown/uptime");
    request
        .nodes
        .push(bind("/shown", "/proc", Access::ReadOnly));
    assert_eq!(run_with(&launcher(), &request).0.end, End::Exited(0));
    request.nodes.pop();
    request
        .nodes
        .push(bind("/shown", "/proc", Access::ReadWrite));
    let cancel = Cancel::new().unwrap();
    match launcher().run(&request, &mut |_| {}, &cancel) {
        Err(SandboxError::Weaker { missing }) => assert_eq!(missing, Weakness::RootOutside),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_killed_parent_leaves_nothing() {
    let word = format!("word-{}-parent", std::process::id());
    let mut parent = Command::new(env!("CARGO_BIN_EXE_kiln-sandbox-child"))
        .args(["--hold", &word])
        .spawn()
        .unwrap();
    // The parent and the shell inside.
    until("running", || processes_with(&word).len() == 2);
    parent.kill().unwrap();
    parent.wait().unwrap();
    until("dead", || processes_with(&word).is_empty());
}

fn children() -> Vec<u32> {
    let mut children = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let list = task.unwrap().path().join("children");
        let list = std::fs::read_to_string(list).unwrap_or_default();
        children.extend(
            list.split_whitespace()
                .map(|pid| pid.parse::<u32>().unwrap()),
        );
    }
    children
}

#[test]
fn a_killed_server_leaves_nothing_and_the_next_run_starts_another() {
    let directory = tempfile::tempdir().unwrap();
    let word = format!("word-{}-server", std::process::id());
    let mut request = shell(&format!(
        ": {word}; touch /data/ready; while :; do sleep 1; done"
    ));
    request
        .nodes
        .push(bind("/data", directory.path(), Access::ReadWrite));
    let launcher = launcher();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| launcher.run(&request, &mut |_| {}, &Cancel::new().unwrap()));
        until("ready", || directory.path().join("ready").exists());
        // The builder's parent is init, then come the monitor and the server.
        let is_builder = |process: &PathBuf| {
            status_line(process, "NSpid:").is_some_and(|numbers| numbers.last() == Some(&2))
        };
        let mut process = processes_with(&word).into_iter().find(is_builder).unwrap();
        for _ in 0..3 {
            let parent = status_line(&process, "PPid:").unwrap()[0];
            process = PathBuf::from(format!("/proc/{parent}"));
        }
        let server: u32 = process
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(children().contains(&server));
        // A build that gets hold of the server's executable cannot change it, even if its
        // owner could.
        let executable = process.join("exe");
        let mode = Permissions::from_mode(0o755);
        let changed = std::fs::set_permissions(&executable, mode).map_err(|error| error.kind());
        let file = Path::new(env!("CARGO_BIN_EXE_kiln-sandbox-child"));
        if file.metadata().unwrap().uid() == nix::unistd::geteuid().as_raw() {
            assert_eq!(changed, Err(std::io::ErrorKind::ReadOnlyFilesystem));
        }
        let server = nix::unistd::Pid::from_raw(server.try_into().unwrap());
        nix::sys::signal::kill(server, nix::sys::signal::Signal::SIGKILL).unwrap();
        match run.join().unwrap() {
            Err(SandboxError::Silent) => {}
            other => panic!("{other:?}"),
        }
    });
    until("dead", || processes_with(&word).is_empty());
    // The first has the monitor that waited already, and the second a new server.
    for status in [4, 5] {
        let ends = shell(&format!("exit {status}"));
        assert_eq!(run_with(&launcher, &ends).0.end, End::Exited(status));
    }
}

/// As after an upgrade while kiln runs.
#[test]
fn a_server_whose_file_has_no_name_runs_from_a_sealed_copy() {
    // Only a file that its user could change is not run itself.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let own = directory.path().join("own");
    let copied = Command::new("cp")
        .args([
            env!("CARGO_BIN_EXE_kiln-sandbox-child").as_ref(),
            own.as_path(),
        ])
        .status();
    assert!(copied.unwrap().success());
    let file = File::open(&own).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let launcher = Launcher::new(path.into());
    let mut copies = Vec::new();
    let cancel = Cancel::new().unwrap();
    let outcome = launcher.run(
        &shell("echo heard; sleep 60"),
        &mut |_| {
            let executables = children()
                .into_iter()
                .map(|child| PathBuf::from(format!("/proc/{child}/exe")));
            copies.extend(executables.filter(|executable| {
                let target = std::fs::read_link(executable).unwrap_or_default();
                target == Path::new("/memfd:kiln (deleted)")
            }));
            assert_eq!(copies.len(), 1);
            let written = File::options().write(true).open(&copies[0]);
            assert!(written.is_err());
            cancel.cancel();
        },
        &cancel,
    );
    assert_eq!(outcome.unwrap().end, End::Cancelled);
}

/// One more kind of failure in each line.
fn failing(path: &Path, number: usize) -> (SandboxRequest, bool) {
    let mut request = program(path, &["0", "3"]);
    // In a control group, where the host has them.
    request.limits.together.memory_bytes = Some(1 << 30);
    let mut cancelled = false;
    match number % 8 {
        0 => {}
        1 => request.command = vec!["/missing".to_owned()],
        2 => "/missing".clone_into(&mut request.working_directory),
        3 => request.limits.wall = Some(Duration::ZERO),
        4 => cancelled = true,
        5 => request.limits.memory_bytes = Some(4096),
        6 => request.nodes.push(Node::Copy {
            path: "/copy".to_owned(),
            source: "/dev/shm".into(),
            size_bytes: Some(1),
        }),
        _ => request.nodes.push(Node::Tmpfs {
            path: "/memory".to_owned(),
            size_bytes: None,
            mode: 0o7_777_777,
        }),
    }
    (request, cancelled)
}

/// Returns mounts, children, descriptors, and what lies in temporary directories for us.
fn remains() -> [usize; 4] {
    let entries = |path: &str, of: &str| {
        std::fs::read_dir(path).map_or(0, |entries| {
            let names = entries.map(|entry| entry.unwrap().file_name());
            names
                .filter(|name| name.to_string_lossy().contains(of))
                .count()
        })
    };
    [
        mounts(),
        children().len(),
        entries("/proc/self/fd", ""),
        entries("/tmp", "kiln-sandbox") + groups(Path::new("/sys/fs/cgroup")),
    ]
}

/// Counts the control groups of this process.
fn groups(directory: &Path) -> usize {
    let mine = format!("kiln-{}-", std::process::id());
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| {
            let own = entry.file_name().to_string_lossy().starts_with(&mine);
            usize::from(own) + groups(&entry.path())
        })
        .sum()
}

/// The whole test runs in a process of its own, where nobody else starts children.
#[test]
fn nothing_remains_of_a_thousand_failures() {
    const MARK: &str = "KILN_SANDBOX_TEST_ALONE";
    if std::env::var_os(MARK).is_none() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "nothing_remains_of_a_thousand_failures",
                "--nocapture",
            ])
            .env(MARK, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}{errors}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = compile(directory.path(), "forks", FORKS);
    let before = remains();
    let launcher = launcher();
    let kinds = run_all(&launcher, &path);
    drop(launcher);
    assert_eq!(remains(), before);
    assert_eq!(kinds.iter().sum::<usize>(), 1000);
    // No run succeeded, and there were runs that ended and runs that did not start.
    assert!(
        kinds[0] == 0 && kinds[1] > 100 && kinds[2] > 100,
        "{kinds:?}"
    );
}

/// Returns how many succeeded, ended badly, and did not start.
fn run_all(launcher: &Launcher, path: &Path) -> [usize; 3] {
    let mut kinds = [0; 3];
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                scope.spawn(move || {
                    (thread..1000)
                        .step_by(4)
                        .map(|number| kind(launcher, path, number))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for thread in threads {
            for kind in thread.join().unwrap() {
                kinds[kind] += 1;
            }
        }
    });
    kinds
}

fn kind(launcher: &Launcher, path: &Path, number: usize) -> usize {
    // Neighbours fail differently.
    let (request, cancelled) = failing(path, number / 4);
    let cancel = Cancel::new().unwrap();
    if cancelled {
        cancel.cancel();
    }
    match launcher.run(&request, &mut |_| {}, &cancel) {
        Ok(outcome) if outcome.end == End::Exited(0) => 0,
        Ok(_) => 1,
        Err(_) => 2,
    }
}

#[test]
fn runs_of_one_launcher_do_not_see_each_other() {
    let launcher = launcher();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let launcher = &launcher;
            scope.spawn(move || {
                for round in 0..10 {
                    let script = format!("echo {thread} {round}; ls /proc/self/fd | wc -l");
                    let (outcome, log) = run_with(launcher, &shell(&script));
                    assert_eq!(outcome.end, End::Exited(0));
                    // Standard input, output, error, and the directory being read.
                    assert_eq!(log, format!("{thread} {round}\n4\n"));
                }
            });
        }
    });
}
