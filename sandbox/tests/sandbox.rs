//! Runs real shells in real sandboxes. Each forbidden act has a twin that shows that the
//! act works outside, so that a test can fail.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_sandbox::{
    Access, Caller, Cancel, End, Launcher, Node, Outcome, Power, RequestError, SandboxError,
    SandboxRequest, Weakness,
};

fn launcher() -> Launcher {
    Launcher::new(PathBuf::from(env!("CARGO_BIN_EXE_kiln-sandbox-child")))
}

/// Returns a request that runs a shell script with the host's own `/usr`.
fn request(script: &str) -> SandboxRequest {
    let mut nodes = vec![Node::Bind {
        path: "/usr".to_owned(),
        source: "/usr".into(),
        access: Access::ReadOnly,
    }];
    for top in ["bin", "lib", "lib64", "sbin"] {
        let target = format!("usr/{top}");
        nodes.push(Node::Symlink {
            path: format!("/{top}"),
            target,
        });
    }
    let mut request = SandboxRequest::new(vec![
        "/bin/bash".to_owned(),
        "-c".to_owned(),
        script.to_owned(),
    ]);
    request.nodes = nodes;
    request.environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/usr/sbin".to_owned())]);
    "/tmp".clone_into(&mut request.working_directory);
    // Far more than any test takes on a slow machine.
    request.limits.wall = Some(Duration::from_mins(5));
    request
}

fn run_request(request: &SandboxRequest) -> (Outcome, String) {
    let mut log = Vec::new();
    let outcome = launcher()
        .run(
            request,
            &mut |bytes| log.extend_from_slice(bytes),
            &Cancel::new().unwrap(),
        )
        .unwrap_or_else(|error| panic!("{error:?}"));
    (outcome, String::from_utf8_lossy(&log).into_owned())
}

fn run(script: &str) -> (End, String) {
    let (outcome, log) = run_request(&request(script));
    (outcome.end, log)
}

/// Asserts that a script succeeds outside and fails inside.
fn forbidden(script: &str) {
    let outside = Command::new("bash").args(["-c", script]).output().unwrap();
    assert!(
        outside.status.success(),
        "does not work outside: {script}: {outside:?}"
    );
    let (end, log) = run(script);
    assert_ne!(end, End::Exited(0), "works inside: {script}\n{log}");
}

#[test]
fn status_signal_and_log_come_back() {
    assert_eq!(
        run("echo out; echo err >&2; exit 7"),
        (End::Exited(7), "out\nerr\n".to_owned())
    );
    assert_eq!(run("kill -TERM $$").0, End::Signaled(15));
}

#[test]
fn the_world_is_the_same_each_time() {
    let (end, log) = run(
        "id -u; id -g; uname -n; pwd; umask; echo $$; env | sort | grep -v ^_; ulimit -c; \
         ls /; ls /dev; cat /proc/self/status | grep -E '^(Cap|NoNewPrivs|Seccomp:)'",
    );
    assert_eq!(end, End::Exited(0));
    let expected = "1000\n100\nlocalhost\n/tmp\n0022\n2\nPATH=/usr/bin:/usr/sbin\nPWD=/tmp\nSHLVL=0\n0\n\
        bin\ndev\nlib\nlib64\nproc\nsbin\ntmp\nusr\n\
        fd\nfull\nnull\nrandom\nshm\nstderr\nstdin\nstdout\nurandom\nzero\n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
        CapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
    assert_eq!(log.replace("SHLVL=1", "SHLVL=0"), expected);
}

#[test]
fn host_files_are_not_there() {
    forbidden("test -e /etc/passwd");
    forbidden("ls /proc/1/root/etc/passwd || ls /etc/passwd");
    forbidden("test -d /sys/kernel");
}

#[test]
fn nothing_can_be_written_but_what_was_granted() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("input"), "before").unwrap();
    let bind = |access| {
        let mut request = request("echo after > /data/input && echo new > /data/new");
        let source = directory.path().to_owned();
        request.nodes.push(Node::Bind {
            path: "/data".to_owned(),
            source,
            access,
        });
        run_request(&request).0.end
    };
    assert_ne!(bind(Access::ReadOnly), End::Exited(0));
    assert_eq!(
        std::fs::read_to_string(directory.path().join("input")).unwrap(),
        "before"
    );
    assert_eq!(bind(Access::ReadWrite), End::Exited(0));
    assert_eq!(
        std::fs::read_to_string(directory.path().join("input")).unwrap(),
        "after\n"
    );
    assert_ne!(run("touch /file").0, End::Exited(0));
    assert_ne!(run("mkdir /usr/x").0, End::Exited(0));
    assert_eq!(run("touch /tmp/file /dev/shm/file").0, End::Exited(0));
}

/// Returns the kernel's version.
fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// A directory below `/dev` is no device: it is mapped, sealed and written like any other.
#[test]
fn a_directory_in_shared_memory_is_granted_like_any_other() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut request = request("echo written > /data/new");
    request.nodes.push(Node::Bind {
        path: "/data".to_owned(),
        source: directory.path().to_owned(),
        access: Access::ReadWrite,
    });
    let mut log = Vec::new();
    let cancel = Cancel::new().unwrap();
    let run = launcher().run(&request, &mut |bytes| log.extend_from_slice(bytes), &cancel);
    // Only from that version on are owners mapped on tmpfs, which root's builds need.
    if Caller::current().power == Power::Root && kernel() < (6, 3) {
        let missing = Weakness::RootOutside;
        assert!(matches!(run, Err(SandboxError::Weaker { missing: found }) if found == missing));
        return println!("skipped: files in memory do not map owners here");
    }
    let log = String::from_utf8_lossy(&log);
    assert_eq!(run.unwrap().end, End::Exited(0), "{log}");
    let written = std::fs::read_to_string(directory.path().join("new")).unwrap();
    assert_eq!(written, "written\n");
}

#[test]
fn there_is_no_network_but_loopback() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    forbidden(&format!("exec 3<>/dev/tcp/127.0.0.1/{port}"));
    let (_, log) = run("cat /proc/net/dev | tail -n +3 | cut -d: -f1");
    assert_eq!(log.trim(), "lo");
    let (end, log) = run("exec 3<>/dev/udp/127.0.0.1/9 && echo up");
    assert_eq!((end, log.trim()), (End::Exited(0), "up"));
}

#[test]
fn set_id_bits_are_refused() {
    let plain = "cd \"$(mktemp -d)\" && touch f && ";
    forbidden(&format!("{plain} chmod 4755 f"));
    forbidden(&format!("{plain} chmod g+s f"));
    forbidden(&format!("{plain} install -m 4755 /bin/true x"));
    assert_eq!(run(&format!("{plain} chmod 755 f")).0, End::Exited(0));
}

#[test]
fn new_namespaces_mounts_and_traces_are_refused() {
    forbidden("unshare --user true");
    forbidden("unshare --user --map-root-user --mount mount -t tmpfs none /tmp");
    let (end, _) = run("mount -t tmpfs none /tmp || umount /tmp");
    assert_ne!(end, End::Exited(0));
}

#[test]
fn other_processes_cannot_be_seen() {
    let (_, log) = run("ls /proc | grep -E '^[0-9]+$' | sort -n | tr '\\n' ' '");
    // init, the shell, and the pipeline.
    let pids: Vec<u32> = log
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert!(pids.len() <= 7 && pids[0] == 1, "{pids:?}");
    assert_ne!(run("readlink /proc/1/exe").0, End::Exited(0));
    assert_ne!(run("cat /proc/1/environ").0, End::Exited(0));
}

#[test]
fn the_kernel_s_settings_and_devices_cannot_be_changed() {
    if nix::unistd::geteuid().is_root() {
        forbidden("touch /dev/null");
        forbidden("echo \"$(cat /proc/sys/kernel/core_pattern)\" > /proc/sys/kernel/core_pattern");
    }
    assert_ne!(run("chmod 666 /dev/null").0, End::Exited(0));
    assert_ne!(
        run("echo x > /proc/sys/kernel/core_pattern").0,
        End::Exited(0)
    );
    assert_eq!(
        run("echo x > /dev/null && head -c 4 /dev/zero | wc -c").0,
        End::Exited(0)
    );
}

#[test]
fn each_limit_ends_the_run() {
    let mut slow = request("sleep 60");
    slow.limits.wall = Some(Duration::from_millis(300));
    let started = Instant::now();
    assert_eq!(run_request(&slow).0.end, End::WallLimit);
    assert!(started.elapsed() < Duration::from_secs(20));

    let mut silent = request("echo hello; trap '' TERM; sleep 60");
    silent.limits.silence = Some(Duration::from_millis(300));
    assert_eq!(run_request(&silent).0.end, End::SilenceLimit);

    let mut noisy = request("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done");
    noisy.limits.log_bytes = Some(100_000);
    let (outcome, log) = run_request(&noisy);
    assert_eq!(outcome.end, End::LogLimit);
    assert_eq!(log.len(), 100_000);

    let mut large = request("dd if=/dev/zero of=/tmp/large bs=1M count=8 2>/dev/null");
    assert_eq!(run_request(&large).0.end, End::Exited(0));
    large.limits.file_bytes = Some(1 << 20);
    assert_ne!(run_request(&large).0.end, End::Exited(0));
}

#[test]
fn cancelling_ends_a_run_at_once() {
    let cancel = Cancel::new().unwrap();
    let other = cancel.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            other.cancel();
        });
        let started = Instant::now();
        let outcome = launcher()
            .run(&request("sleep 60"), &mut |_| {}, &cancel)
            .unwrap();
        assert_eq!(outcome.end, End::Cancelled);
        assert!(started.elapsed() < Duration::from_secs(20));
    });
    assert!(cancel.is_cancelled());
}

#[test]
fn daemons_die_with_the_build() {
    let directory = tempfile::tempdir().unwrap();
    let mut daemon = request(
        "setsid bash -c 'while :; do date +%N > /data/beat; done' >/dev/null 2>&1 & \
         while ! test -s /data/beat; do :; done",
    );
    daemon.nodes.push(Node::Bind {
        path: "/data".to_owned(),
        source: directory.path().to_owned(),
        access: Access::ReadWrite,
    });
    assert_eq!(run_request(&daemon).0.end, End::Exited(0));
    let beat = || std::fs::read(directory.path().join("beat")).unwrap();
    let last = beat();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(beat(), last, "a daemon outlived its build");
}

#[test]
fn a_daemon_that_holds_the_log_does_not_hold_the_run() {
    let started = Instant::now();
    assert_eq!(
        run("sleep 60 & echo done"),
        (End::Exited(0), "done\n".to_owned())
    );
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn descriptors_do_not_leak_in() {
    let (_, log) = run("ls /proc/self/fd | tr '\\n' ' '");
    // The fourth is the directory that `ls` itself reads.
    assert_eq!(log.trim(), "0 1 2 3");
    let (_, log) = run("readlink /proc/self/fd/0");
    assert_eq!(log.trim(), "/dev/null");
}

#[test]
fn bad_requests_are_refused_before_anything_is_created() {
    let refused = |change: &dyn Fn(&mut SandboxRequest)| {
        let mut request = request("true");
        change(&mut request);
        match launcher().run(&request, &mut |_| {}, &Cancel::new().unwrap()) {
            Err(SandboxError::Request(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let directory = |path: &str| Node::Directory {
        path: path.to_owned(),
    };
    assert_eq!(refused(&|r| r.command.clear()), RequestError::NoCommand);
    assert!(matches!(
        refused(&|r| r.command = vec!["sh".to_owned()]),
        RequestError::Path(_)
    ));
    assert!(matches!(
        refused(&|r| r.nodes.push(directory("/a/../b"))),
        RequestError::Path(_)
    ));
    assert!(matches!(
        refused(&|r| r.nodes.push(directory("/proc/x"))),
        RequestError::Reserved(_)
    ));
    assert!(matches!(
        refused(&|r| r.nodes.push(directory("/usr/x"))),
        RequestError::Overlap { .. }
    ));
    assert!(matches!(
        refused(&|r| r.nodes.push(Node::Bind {
            path: "/x".to_owned(),
            source: "/does/not/exist".into(),
            access: Access::ReadOnly
        })),
        RequestError::MissingSource(_)
    ));
    assert!(matches!(
        refused(&|r| drop(r.environment.insert("A=B".to_owned(), String::new()))),
        RequestError::Variable(_)
    ));
}

#[test]
fn a_missing_program_is_named() {
    let mut request = request("true");
    request.command = vec!["/bin/does-not-exist".to_owned()];
    match launcher().run(&request, &mut |_| {}, &Cancel::new().unwrap()) {
        Err(SandboxError::Step { step, .. }) => assert!(step.contains("does-not-exist"), "{step}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_remains_after_many_runs() {
    let mounts = || {
        std::fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .count()
    };
    let children = || {
        let path = format!("/proc/self/task/{}/children", std::process::id());
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .split_whitespace()
            .count()
    };
    let before = (mounts(), children());
    for _ in 0..30 {
        assert_eq!(run("exit 3").0, End::Exited(3));
    }
    assert_eq!((mounts(), children()), before);
}

/// An ordinary user gets the same sandbox as root. Skipped where the tests are one already.
#[test]
fn an_ordinary_user_without_any_capability() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: this whole run is an ordinary user's");
        return;
    }
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let probe = directory.path().join("probe");
    let child = Path::new(env!("CARGO_BIN_EXE_kiln-sandbox-child"));
    // Copied by a process of its own: a child that another test forks meanwhile would hold
    // the file open for writing, and nothing executes such a file.
    let copied = Command::new("cp").arg(child).arg(&probe).status().unwrap();
    assert!(copied.success());
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new(&probe)
        .arg("--probe")
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("sandbox: works"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("user: 65534"), "{text}");
}
