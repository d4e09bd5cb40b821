//! A package that asks for a range of ids: it builds where one is lent to the user, to the
//! same bytes for everyone, and is refused by name where none is.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::world::{Run, Running, World};

/// Stands in for what is lent on this machine, in a mount namespace of its own.
const LENDING: &str = "mount --bind \"$1\" /etc/subuid && mount --bind \"$1\" /etc/subgid && \
                       shift && exec \"$@\"";

/// Returns a command that runs `kiln` where these lines are `/etc/subuid` and `/etc/subgid`;
/// `None` where that cannot be done.
fn lending_command(world: &World, lent: &str, arguments: &[&str]) -> Option<Command> {
    let root = rustix::process::geteuid().is_root();
    let there = ["/etc/subuid", "/etc/subgid"].map(|file| Path::new(file).exists());
    if !root || there != [true, true] {
        println!("skipped: only root can lend ids, in the place of files that are there");
        return None;
    }
    world.write("lent", lent);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    command.args(["sh", "-c", LENDING, "sh"]);
    command.arg(world.path().join("lent"));
    command.arg(env!("CARGO_BIN_EXE_kiln"));
    Some(world.in_world(command, arguments))
}

fn lending(world: &World, lent: &str, arguments: &[&str]) -> Option<Run> {
    Some(world.run(&mut lending_command(world, lent, arguments)?))
}

const ENOUGH: &str = "root:200000:65536\n";

/// Tells whether the build may give files away, and leaves closed directories of others.
const INSTALL: &str = "echo text > \"$out/file\"; mkdir -p \"$out/d\" left/closed\n\
                       cp \"$out/file\" \"$out/d/other\"; chmod 600 \"$out/d/other\"\n\
                       chown 5:6 \"$out/d/other\"; chown -R 7:7 \"$out/d\" left; chmod 0 left/closed left";

fn ranged(world: &World, name: &str, install: &str) {
    world.package(
        name,
        "[test]\nids = \"range\"\nscript = 'chown 9:9 /tmp'\n",
        install,
    );
    let file = world.path().join(format!("derivations/{name}.toml"));
    let text = std::fs::read_to_string(&file).unwrap();
    let with = "recipe = \"sh\"\nids = \"range\"";
    std::fs::write(&file, text.replace("recipe = \"sh\"", with)).unwrap();
}

#[test]
fn a_build_gives_files_away_and_the_store_has_none_of_it() {
    let world = World::new();
    ranged(&world, "tools/many", INSTALL);
    world.package("tools/one", "", "chown 5:6 \"$out\"");
    let Some(run) = lending(&world, ENOUGH, &["build", "tools/many"]) else {
        return;
    };
    assert_eq!(run.status, 0, "{run:?}");
    // The same act is refused where nobody asked.
    let one = lending(&world, ENOUGH, &["build", "tools/one"]).unwrap();
    assert_eq!(one.status, 2, "{one:?}");
    assert!(one.stderr.contains("chown"), "{one:?}");
    let verified = world.kiln(&["store", "verify"]);
    assert_eq!(verified.status, 0, "{verified:?}");
    let action = world.kiln(&["show", "--action", "tools/many"]);
    assert!(action.stdout.contains(r#""ids":"range""#), "{action:?}");
    let action = world.kiln(&["show", "--action", "tools/good"]);
    assert!(!action.stdout.contains("ids"), "{action:?}");
    // Rebuilt as another user and group, it is the same.
    let proved = lending(&world, ENOUGH, &["prove", "tools/many"]).unwrap();
    assert_eq!(proved.status, 0, "{proved:?}");
    let plan = lending(&world, ENOUGH, &["shell", "--plan", "tools/many"]).unwrap();
    assert!(
        plan.stdout.contains(
            "enter a user namespace of users 0-999 (200000 on), 1000 (the caller), \
             1001-65535 (201000 on) and groups 0-99 (200000 on)"
        ),
        "{plan:?}"
    );
    let doctor = lending(&world, ENOUGH, &["doctor"]).unwrap();
    assert!(
        doctor.stdout.contains("ok       range of ids: "),
        "{doctor:?}"
    );
}

#[test]
fn without_a_range_it_is_refused_by_name() {
    let world = World::new();
    ranged(&world, "tools/many", INSTALL);
    let nothing = "other:100000:65536\n";
    let Some(run) = lending(&world, nothing, &["build", "tools/many"]) else {
        return;
    };
    assert_eq!(run.status, 2, "{run:?}");
    for expected in [
        "cannot run the sandbox for `many-1`",
        "`/etc/subuid` lends `root` no 65535 ids in a row above 65535",
        "`usermod --add-subuids 165536-231071 --add-subgids 165536-231071 root`",
    ] {
        assert!(run.stderr.contains(expected), "{expected}: {run:?}");
    }
    let weak = lending(&world, nothing, &["build", "--weak-sandbox", "tools/many"]).unwrap();
    assert_eq!(weak.status, 2, "{weak:?}");
    let doctor = lending(&world, nothing, &["doctor"]).unwrap();
    assert!(
        doctor.stdout.contains("weaker   range of ids: "),
        "{doctor:?}"
    );
    assert!(
        doctor
            .stdout
            .contains("usermod --add-subuids 165536-231071"),
        "{doctor:?}"
    );
}

/// What a build leaves is root's or the user's, however it ended: anyone's kiln can clear it
/// away, and a shell finds it.
#[test]
fn failing_builds_leave_only_the_caller_s() {
    let world = World::new();
    ranged(&world, "tools/bad", &format!("{INSTALL}\nexit 3"));
    if lending(&world, ENOUGH, &["build", "tools/bad"]).is_none() {
        return;
    }
    for _ in 0..20 {
        let run = lending(&world, ENOUGH, &["build", "tools/bad"]).unwrap();
        assert_eq!(run.status, 2, "{run:?}");
        assert!(run.stderr.contains("exit status 3"), "{run:?}");
    }
    assert_eq!(others_below(&world.store()), "");
    assert_eq!(
        std::fs::read_dir(world.store().join("failed"))
            .unwrap()
            .count(),
        1
    );
    assert_eq!(
        std::fs::read_dir(world.store().join("tmp"))
            .unwrap()
            .count(),
        0
    );
    let shell = [
        "shell",
        "--failed",
        "tools/bad",
        "-c",
        "cat \"$out/file\"; chmod 700 left",
    ];
    let shell = lending(&world, ENOUGH, &shell).unwrap();
    assert_eq!(
        (shell.status, shell.stdout.as_str()),
        (0, "text\n"),
        "{shell:?}"
    );
    world.assert_usable();
}

/// Returns how many processes of this machine have a user id from 700000 to 765535.
fn lent_processes() -> usize {
    let lent = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        line.unwrap_or_default()
            .split_whitespace()
            .any(|id| (700_000..765_536).contains(&id.parse::<u32>().unwrap()))
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("status")).ok())
        .filter(|status| lent(status))
        .count()
}

fn others_below(directory: &Path) -> String {
    let output = Command::new("find")
        .arg(directory)
        .args(["(", "!", "-user", "root", "-o", "!", "-group", "root", ")"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_kiln_that_is_killed_leaves_nothing_of_the_range() {
    let world = World::new();
    // User 0 inside is a lent one.
    let install = format!(
        "{INSTALL}\nsetpriv --reuid 0 --regid 0 --clear-groups sleep 300 &\n\
         sleep 0.5; echo started; wait"
    );
    ranged(&world, "tools/slow", &install);
    let lent = "root:700000:65536\n";
    let Some(mut command) = lending_command(&world, lent, &["build", "-v", "tools/slow"]) else {
        return;
    };
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut running = Running(child);
    let mut lines = BufReader::new(running.0.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("started")));
    assert_eq!(lent_processes(), 1);
    assert_eq!(others_below(&world.store()), "");
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    let gone = (0..600).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        lent_processes() == 0
    });
    assert!(gone, "a process of the range outlived kiln");
    assert_eq!(others_below(&world.store()), "");
    world.assert_usable();
    let left = std::fs::read_dir(world.store().join("tmp")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn a_build_that_fills_the_memory_is_not_told_of_the_disk() {
    let world = World::new();
    // What any full file system says, without filling one.
    ranged(&world, "tools/full", "echo text > /dev/full");
    let Some(run) = lending(&world, ENOUGH, &["build", "tools/full"]) else {
        return;
    };
    assert_eq!(run.status, 2, "{run:?}");
    assert!(run.stderr.contains("a build writes to memory"), "{run:?}");
    assert!(!run.stderr.contains("free some space"), "{run:?}");
}

#[test]
fn another_choice_is_an_error_of_the_file() {
    let world = World::new();
    ranged(&world, "tools/many", INSTALL);
    let file = world.path().join("derivations/tools/many.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("\"range\"", "\"all\"", 1)).unwrap();
    let run = world.kiln(&["build", "tools/many"]);
    assert_eq!(run.status, 2, "{run:?}");
    assert!(
        run.stderr
            .contains("`all` is no choice of users and groups"),
        "{run:?}"
    );
}
