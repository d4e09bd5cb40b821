//! A range of ids. Most tests need one that is lent to whoever runs them, and say so and
//! end where there is none. Run by root, two of them lend ids to root and to user 65534, in
//! a mount namespace of their own, and run the others again there.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;
#[path = "common/lent.rs"]
mod lent;

use std::cell::RefCell;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kiln_sandbox::{
    Access, Cancel, End, Ids, Launcher, Lock, NoRange, RequestError, SandboxError, SandboxRequest,
    Step, Supervision,
};

use common::{bind, mounts, run_with, shell};
use lent::User;

/// Names the sandbox's executable, where a test runs the others again.
const CHILD: &str = "KILN_IDS_CHILD";

fn launcher() -> Launcher {
    std::env::var_os(CHILD).map_or_else(common::launcher, |child| Launcher::new(child.into()))
}

fn ranged(script: &str) -> SandboxRequest {
    let mut request = shell(script);
    request.ids = Ids::Range;
    request
}

/// Returns a launcher, if ids are lent to this user.
fn lent_here() -> Option<Launcher> {
    let launcher = launcher();
    match launcher.plan(&ranged("true")) {
        Ok(_) => Some(launcher),
        Err(error) => {
            println!("skipped: {error:?}");
            None
        }
    }
}

/// Returns the first id that is lent to this user, in these tests' own files.
fn first_lent() -> u32 {
    if nix::unistd::geteuid().is_root() {
        lent::OF_ROOT
    } else {
        lent::OF_NOBODY
    }
}

fn printed(launcher: &Launcher, request: &SandboxRequest) -> String {
    let (outcome, log) = run_with(launcher, request);
    assert_eq!(outcome.end, End::Exited(0), "{log}");
    log
}

/// Runs the tests again, as somebody to whom ids are lent; with a word, only those that
/// have it in their names.
fn run_again(user: User, lent: &str, word: &str) -> Option<String> {
    if let Some(why) = lent::obstacle(user) {
        println!("skipped: {why}");
        return None;
    }
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let mode = if user == User::Root { 0o755 } else { 0o777 };
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(mode)).unwrap();
    let tests = std::env::current_exe().unwrap();
    let child = PathBuf::from(env!("CARGO_BIN_EXE_kiln-sandbox-child"));
    for (name, source) in [("tests", &tests), ("child", &child)] {
        let copied = Command::new("cp")
            .arg(source)
            .arg(directory.path().join(name))
            .status();
        assert!(copied.unwrap().success());
    }
    let output = lent::lending(directory.path(), lent, user)
        .arg(directory.path().join("tests"))
        .args([word, "--nocapture", "--test-threads=2"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin")
        .env(CHILD, directory.path().join("child"))
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    Some(text)
}

fn is_again() -> bool {
    std::env::var_os(CHILD).is_some()
}

fn all_again(user: User) {
    if is_again() {
        return;
    }
    if let Some(text) = run_again(user, &lent::enough(), "lent_") {
        assert!(!text.contains("skipped"), "{text}");
        assert!(text.contains("lent_ids_are_there"), "{text}");
    }
}

#[test]
fn root_to_whom_ids_are_lent() {
    all_again(User::Root);
}

#[test]
fn an_ordinary_user_to_whom_ids_are_lent() {
    all_again(User::Nobody);
}

#[test]
fn nobody_runs_without() {
    if is_again() {
        return;
    }
    for user in [User::Root, User::Nobody] {
        let lent = format!("root:100000:65534\nother:100000:{}\n", lent::COUNT);
        if let Some(text) = run_again(user, &lent, "missing_range") {
            assert!(text.contains("named: NotLent"), "{text}");
        }
        let lent = "root:100000\nnobody:100000\n";
        if let Some(text) = run_again(user, lent, "missing_range") {
            assert!(text.contains("named: Malformed"), "{text}");
        }
    }
}

#[test]
fn missing_range_is_named_and_nothing_runs() {
    let directory = tempfile::tempdir().unwrap();
    let mut request = ranged("echo ran > /data/file");
    request
        .nodes
        .push(bind("/data", directory.path(), Access::ReadWrite));
    let cancel = Cancel::new().unwrap();
    let error = match launcher().run(&request, &mut |_| {}, &cancel) {
        Err(error @ SandboxError::NoRange(_)) => error,
        other if is_again() => panic!("{other:?}"),
        _ => return println!("skipped: ids are lent to this user"),
    };
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let remedy = error.remedy().unwrap();
    let SandboxError::NoRange(why) = error else {
        panic!("no other error came here");
    };
    println!("named: {why:?}");
    let expected = match why {
        NoRange::NotLent { .. } => "`usermod --add-subuids ",
        NoRange::NoProgram { .. } => "`apt install uidmap`",
        NoRange::Malformed { .. } => "as subuid(5) describes it",
        NoRange::Unreadable { .. } => "let everyone read",
    };
    assert!(remedy.contains(expected), "{remedy}");
}

#[test]
fn what_a_range_cannot_hold_is_refused() {
    let refused = |change: &dyn Fn(&mut SandboxRequest)| {
        let mut request = ranged("true");
        change(&mut request);
        request.validate()
    };
    assert_eq!(refused(&|_| {}), Ok(()));
    assert_eq!(refused(&|r| r.uid = 65_536), Err(RequestError::Id(65_536)));
    assert_eq!(refused(&|r| r.gid = 70_000), Err(RequestError::Id(70_000)));
    assert_eq!(
        refused(&|r| r.nodes.push(bind("/x", "/etc/passwd", Access::ReadWrite))),
        Err(RequestError::WritableFile("/etc/passwd".into()))
    );
    let one = |r: &mut SandboxRequest| (r.ids, r.uid) = (Ids::One, 65_536);
    assert_eq!(refused(&one), Ok(()));
}

#[test]
fn lent_ids_are_there_and_the_caller_is_one_of_them() {
    let Some(launcher) = lent_here() else { return };
    let script = "id -u; id -g; id -G; cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '
        grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
        cd /tmp; touch f; chown 1:2 f; stat -c %u:%g f; chown 65535:65534 f; chown 0:0 f
        ! chown 65536:0 f 2>/dev/null || exit 4
        ! chown 0:300000 f 2>/dev/null || exit 5
        as() { setpriv --reuid $1 --regid $1 --groups \"$1,7\" \"${@:2}\"; }
        as 0 id -u; as 65535 id -u; as 65535 id -G";
    let expected = "1000\n100\n100\n 0 0 1000\n 1000 1000 1\n 1001 1001 64535\n\
        \x200 0 100\n 100 100 1\n 101 101 65435\n\
        CapInh:\t00000000000000cb\nCapPrm:\t00000000000000cb\nCapEff:\t00000000000000cb\n\
        CapBnd:\t00000000000000cb\nCapAmb:\t00000000000000cb\nNoNewPrivs:\t1\nSeccomp:\t2\n\
        1:2\n0\n65535\n65535 7\n";
    assert_eq!(printed(&launcher, &ranged(script)), expected);
    // Whatever the request's own are.
    let mut other = ranged("id -u; id -g; chown 1000:100 /tmp; stat -Lc %u /tmp /proc/self");
    (other.uid, other.gid) = (65_535, 0);
    assert_eq!(printed(&launcher, &other), "65535\n0\n1000\n65535\n");
}

/// What a daemon does that gives up its rights: it is refused what is another's then.
#[test]
fn lent_ids_can_be_given_up() {
    let Some(launcher) = lent_here() else { return };
    let script = "cd /tmp; install -o 5 -g 5 -m 600 /dev/null secret; cat secret || exit 3
        as() { setpriv --reuid $1 --regid $1 --clear-groups \"${@:2}\"; }
        as 0 setpriv --reuid 6 --regid 6 --clear-groups grep CapEff /proc/self/status
        ! as 0 setpriv --reuid 6 --regid 6 --clear-groups cat secret 2>/dev/null || exit 4
        ! as 0 setpriv --reuid 6 --regid 6 --clear-groups setpriv --reuid 5 true \
            2>/dev/null || exit 5";
    assert_eq!(
        printed(&launcher, &ranged(script)),
        "CapEff:\t0000000000000000\n"
    );
}

/// Returns what is below a directory, and asserts that all of it is the caller's.
fn own(directory: &Path) -> Vec<String> {
    let caller = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!(
            (metadata.uid(), metadata.gid()),
            caller,
            "{}",
            path.display()
        );
        found.push(path.to_str().unwrap().to_owned());
        if metadata.is_dir() {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
            found.extend(own(&path));
        }
    }
    found.sort();
    found
}

#[test]
fn lent_owners_are_the_caller_when_all_is_dead() {
    let Some(launcher) = lent_here() else { return };
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["changed", "deleted"] {
        std::fs::write(at(name), "before").unwrap();
    }
    std::fs::create_dir_all(at("tree/deep/er")).unwrap();
    let script = "set -e; cd /data; cat changed; echo after > changed; rm -r deleted tree
        echo text > secret; chmod 640 secret; touch -d @7 secret; chown 5:6 secret
        mkdir -p closed/in; echo x > closed/in/file; chmod 0 closed/in/file closed/in closed
        chown -R 7:8 closed; ln -s /nowhere link; chown -h 9:9 link; mkfifo fifo; chown 1:1 fifo
        truncate -s 1T sparse; echo end >> sparse; truncate -s 2T sparse; chown 2:2 sparse .
        ln secret twin; echo x > script; chmod 755 script; exit 3";
    let mut request = ranged(script);
    request
        .nodes
        .push(bind("/data", directory.path(), Access::ReadWrite));
    let (outcome, log) = run_with(&launcher, &request);
    assert_eq!((outcome.end, log.as_str()), (End::Exited(3), "before"));
    let closed = std::fs::metadata(at("closed")).unwrap();
    assert_eq!(closed.mode() & 0o7777, 0);
    let names: Vec<String> = own(directory.path())
        .iter()
        .map(|path| path.replace(&format!("{}/", directory.path().display()), ""))
        .collect();
    let expected = [
        "changed",
        "closed",
        "closed/in",
        "closed/in/file",
        "fifo",
        "link",
        "script",
        "secret",
        "sparse",
        "twin",
    ];
    assert_eq!(names, expected);
    let of = |name: &str| std::fs::symlink_metadata(at(name)).unwrap();
    assert_eq!(std::fs::read_to_string(at("changed")).unwrap(), "after\n");
    assert_eq!(std::fs::read_to_string(at("twin")).unwrap(), "text\n");
    assert_eq!(
        (of("secret").mode() & 0o777, of("secret").mtime()),
        (0o640, 7)
    );
    assert_eq!(of("script").mode() & 0o777, 0o755);
    assert!(of("fifo").file_type().is_fifo());
    assert_eq!(of("sparse").len(), 2 << 40);
    assert!(of("sparse").blocks() < 1000, "{}", of("sparse").blocks());
}

/// Returns the user ids that a process of this machine has, found by an argument of it.
fn users_of(argument: &str) -> Vec<u32> {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).ok();
        if read("cmdline").is_some_and(|line| line.split('\0').nth(1) == Some(argument)) {
            let status = read("status").unwrap();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("Uid:"))
                .unwrap();
            return line
                .split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect();
        }
    }
    panic!("no process has the argument {argument}");
}

#[test]
fn lent_ids_own_processes_outside_and_no_file() {
    let Some(launcher) = lent_here() else { return };
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("before"), "x").unwrap();
    let argument = format!("300.{}", std::process::id());
    let script = format!(
        "cd /data; touch new; chown -R 5:5 .; rm before
         setpriv --reuid 0 --regid 0 --clear-groups sleep {argument} & sleep 0.5; echo ready; wait"
    );
    let mut request = ranged(&script);
    request
        .nodes
        .push(bind("/data", directory.path(), Access::ReadWrite));
    let cancel = Cancel::new().unwrap();
    let seen = RefCell::new((Vec::new(), Vec::new()));
    let outcome = launcher
        .run(
            &request,
            &mut |_| {
                *seen.borrow_mut() = (users_of(&argument), own(directory.path()));
                cancel.cancel();
            },
            &cancel,
        )
        .unwrap();
    assert_eq!(outcome.end, End::Cancelled);
    let (users, files) = seen.into_inner();
    // User 0 inside is the first that is lent, and never root.
    let first = first_lent();
    if is_again() {
        assert_eq!(users, [first; 4]);
    }
    assert!(!users.contains(&0), "{users:?}");
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(files[0].ends_with("/before"), "{files:?}");
    let left = own(directory.path());
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].ends_with("/new"), "{left:?}");
}

#[test]
fn lent_ids_do_not_multiply_processes() {
    let Some(launcher) = lent_here() else { return };
    let bomb = "for my $n (2000..2299) { defined(my $p = fork) or exit 7; next if $p; \
                $) = \"$n $n\"; $( = $n; $> = $n; $< = $n; $> == $n or die; sleep 60 }";
    let mut request = ranged(&format!("exec perl -e '{bomb}'"));
    assert_eq!(run_with(&launcher, &request).0.end, End::Exited(0));
    request.limits.processes = Some(64);
    assert_eq!(run_with(&launcher, &request).0.end, End::Exited(7));
}

#[test]
fn lent_ids_see_a_supervisor_s_answers() {
    let Some(launcher) = lent_here() else { return };
    let mut request = ranged(
        "date +%s; setpriv --reuid 0 --regid 0 --clear-groups date +%s; \
         setpriv --reuid 5 --regid 5 --clear-groups date +%s",
    );
    request.supervision = Some(Supervision {
        clock_ahead: Some(Duration::from_secs(373 * 86_400)),
        ..Supervision::default()
    });
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let text = printed(&launcher, &request);
    let ahead: Vec<u64> = text
        .lines()
        .map(|line| line.parse::<u64>().unwrap() - now)
        .collect();
    assert_eq!(ahead.len(), 3);
    assert!(
        ahead
            .iter()
            .all(|ahead| (372 * 86_400..374 * 86_400).contains(ahead)),
        "{ahead:?}"
    );
}

/// Performs a changed plan of a program that leaves a mark, and returns the open lock.
fn open(launcher: &Launcher, ids: Ids, change: impl Fn(&mut Vec<Step>)) -> Lock {
    let directory = tempfile::tempdir().unwrap();
    let mut request = ranged("echo ran > /mark/file");
    request.ids = ids;
    request
        .nodes
        .push(bind("/mark", directory.path(), Access::ReadWrite));
    let mut plan = launcher.plan(&request).unwrap();
    launcher.perform_for_test(&request, &plan).unwrap();
    let mark = directory.path().join("file");
    assert!(mark.exists(), "the plan does not work as it is");
    std::fs::remove_file(&mark).unwrap();
    change(&mut plan);
    let result = launcher.perform_for_test(&request, &plan);
    assert!(!mark.exists(), "the program ran");
    match result {
        Err(SandboxError::Open { lock }) => lock,
        other => panic!("{other:?}"),
    }
}

#[test]
fn lent_ids_are_checked_like_every_lock() {
    let Some(launcher) = lent_here() else { return };
    // Every capability stays.
    let kept = open(&launcher, Ids::Range, |plan| {
        plan.retain(|step| *step != Step::KeepIdCapabilities);
    });
    assert_eq!(kept, Lock::Capabilities);
    // None does.
    let dropped = open(&launcher, Ids::Range, |plan| {
        for step in plan {
            if *step == Step::KeepIdCapabilities {
                *step = Step::DropCapabilities;
            }
        }
    });
    assert_eq!(dropped, Lock::Capabilities);
    // They stay where nobody asked for a range.
    let unasked = open(&launcher, Ids::One, |plan| {
        for step in plan {
            if *step == Step::DropCapabilities {
                *step = Step::KeepIdCapabilities;
            }
        }
    });
    assert_eq!(unasked, Lock::Capabilities);
    // There is only one id.
    let one = open(&launcher, Ids::One, |plan| {
        for step in plan {
            match step {
                Step::DropCapabilities => *step = Step::KeepIdCapabilities,
                Step::CheckLocks { ids, .. } => *ids = Ids::Range,
                _ => {}
            }
        }
    });
    assert_eq!(one, Lock::Ids);
}

#[test]
fn lent_ids_leave_nothing_after_many_failing_runs() {
    let Some(launcher) = lent_here() else { return };
    let word = format!("word-{}-lent", std::process::id());
    let processes = || {
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok())
            .filter(|line| line.contains(&word) && line.contains("/bin/bash"))
            .count()
    };
    let directory = tempfile::tempdir().unwrap();
    let leave =
        format!(": {word}; cd /data; mkdir -p a/b; touch a/b/f; chmod 0 a/b; chown -R 5:6 a;");
    let with = |script: &str| {
        let mut request = ranged(&format!("{leave} {script}"));
        request
            .nodes
            .push(bind("/data", directory.path(), Access::ReadWrite));
        request
    };
    let mut slow = with("sleep 60");
    slow.limits.wall = Some(Duration::from_millis(700));
    let mut missing = with("true");
    missing.command = vec!["/missing".to_owned()];
    let before = (mounts(), processes());
    let cancel = Cancel::new().unwrap();
    for _ in 0..5 {
        let end = |request: &SandboxRequest| {
            let end = launcher
                .run(request, &mut |_| {}, &cancel)
                .map(|outcome| outcome.end);
            own(directory.path());
            // What is left is the caller's, who can delete it without any privilege.
            for entry in std::fs::read_dir(directory.path()).unwrap() {
                std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
            }
            end
        };
        assert_eq!(end(&with("exit 3")).unwrap(), End::Exited(3));
        assert_eq!(end(&with("kill -KILL $$")).unwrap(), End::Signaled(9));
        assert_eq!(end(&slow).unwrap(), End::WallLimit);
        assert!(matches!(end(&missing), Err(SandboxError::Step { .. })));
    }
    assert_eq!((mounts(), processes()), before);
}
