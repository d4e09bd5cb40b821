//! Many processes share one store, while garbage is collected and everything is verified.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::world::{Run, World};

/// Packages of the graph; each needs one or two before it.
const PACKAGES: usize = 8;

fn needed(package: usize) -> Vec<usize> {
    match package {
        0 => vec![],
        1 => vec![0],
        _ => vec![package - 1, (package - 1) / 2],
    }
}

/// Returns what the package's file holds.
fn content(package: usize) -> String {
    let needed: String = needed(package).into_iter().map(content).collect();
    format!("{needed}p{package}\n")
}

fn world() -> World {
    let world = World::new();
    for package in 0..PACKAGES {
        let name = format!("tools/p{package}");
        let needed = needed(package);
        let files: Vec<String> = needed
            .iter()
            .map(|input| format!("\"$p{input}/file\""))
            .collect();
        let files = files.join(" ");
        let copy = if needed.is_empty() {
            String::new()
        } else {
            format!("cat {files} > \"$out/file\"; echo {files} > \"$out/names\"; ")
        };
        world.package(
            &name,
            "",
            &format!("{copy}sleep 0.1; echo p{package} >> \"$out/file\""),
        );
        let inputs: Vec<String> = needed
            .iter()
            .map(|input| format!("\"tools/p{input}\""))
            .collect();
        let file = world.path().join(format!("derivations/{name}.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        let with = format!("recipe = \"sh\"\ninputs = [{}]", inputs.join(", "));
        std::fs::write(&file, text.replace("recipe = \"sh\"", &with)).unwrap();
    }
    world.build("seed/host");
    let rooted = world.kiln(&["store", "roots", "add", "seed", "seed/host"]);
    assert_eq!(rooted.status, 0, "{rooted:?}");
    world
}

/// Starts a process that builds two packages.
fn start(world: &World, number: usize) -> Child {
    let (first, second) = (number % PACKAGES, (number * 5 + 3) % PACKAGES);
    world
        .command(&[
            "build",
            &format!("tools/p{first}"),
            &format!("tools/p{second}"),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs builds, and something else again and again until they are done; returns what the
/// builds said and how often the other thing was done.
fn beside(
    world: &World,
    processes: usize,
    others: &[&(dyn Fn(usize) + Sync)],
) -> (Vec<Output>, usize) {
    let done = AtomicBool::new(false);
    let rounds = AtomicUsize::new(0);
    let children: Vec<Child> = (0..processes).map(|number| start(world, number)).collect();
    let outputs = std::thread::scope(|scope| {
        for other in others {
            let (done, rounds) = (&done, &rounds);
            scope.spawn(move || {
                // At least once, also if it comes too late.
                for round in 0.. {
                    other(round);
                    rounds.fetch_add(1, Ordering::Relaxed);
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        let outputs = children
            .into_iter()
            .map(|child| child.wait_with_output().unwrap())
            .collect();
        done.store(true, Ordering::Relaxed);
        outputs
    });
    (outputs, rounds.into_inner())
}

fn assert_sound(run: &Run) {
    assert_eq!((run.status, run.stdout.as_str()), (0, ""), "{run:?}");
}

/// Adds objects that nothing uses, some with content that builds make as well.
fn add_garbage(world: &World, round: usize) {
    for package in 0..PACKAGES {
        let at = format!("garbage/{round}-{package}");
        world.write(&format!("{at}/file"), &content(package));
        world.write(&format!("{at}/own"), &at);
        let added = world.kiln(&["store", "add", &at, "--name", "garbage"]);
        assert_eq!(added.status, 0, "{added:?}");
    }
    let database = rusqlite::Connection::open(world.store().join("kiln.db")).unwrap();
    database
        .busy_timeout(std::time::Duration::from_secs(60))
        .unwrap();
    database
        .execute(
            "UPDATE objects SET used_at = 0 WHERE path LIKE '%-garbage'",
            [],
        )
        .unwrap();
}

fn names(directory: &Path) -> BTreeSet<String> {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn sixteen_processes_build_each_thing_once_and_nothing_wrong() {
    let world = world();
    let collected = AtomicUsize::new(0);
    let collect = |round: usize| {
        add_garbage(&world, round);
        let run = world.kiln(&["store", "gc", "--unused-for", "1h", "--json"]);
        assert_eq!(run.status, 0, "{run:?}");
        let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let count = document["objects"].as_u64().unwrap();
        collected.fetch_add(usize::try_from(count).unwrap(), Ordering::Relaxed);
    };
    let verify = |_: usize| assert_sound(&world.kiln(&["store", "verify"]));
    let (outputs, _) = beside(&world, 16, &[&collect, &verify]);
    let mut waited = false;
    for (number, output) in outputs.iter().enumerate() {
        assert!(output.status.success(), "{output:?}");
        let lines = String::from_utf8(output.stdout.clone()).unwrap();
        for (line, package) in lines.lines().zip([number, number * 5 + 3]) {
            let found = std::fs::read_to_string(Path::new(line).join("file")).unwrap();
            assert_eq!(found, content(package % PACKAGES));
        }
        waited |= String::from_utf8_lossy(&output.stderr)
            .contains("waiting for another kiln that does tools/p");
    }
    assert!(waited, "nobody said that it waits");
    assert_ne!(collected.into_inner(), 0, "nothing was collected");
    let mut logs = Vec::new();
    for shard in names(&world.store().join("logs")) {
        logs.extend(names(&world.store().join("logs").join(shard)));
    }
    assert_eq!(logs.len(), PACKAGES, "{logs:?}");
    assert_sound(&world.kiln(&["store", "verify"]));
    assert_eq!(names(&world.store().join("tmp")), BTreeSet::new());
    assert_eq!(names(&world.store().join("leases")), BTreeSet::new());
    let locks = ["collection", "database", "objects", "unsynced"].map(str::to_owned);
    assert_eq!(names(&world.store().join("locks")), BTreeSet::from(locks));
}

#[test]
fn a_collection_takes_nothing_from_under_a_build() {
    let world = world();
    let collected = AtomicUsize::new(0);
    let collect = |_: usize| {
        let run = world.kiln(&["store", "gc", "--json"]);
        assert_eq!(run.status, 0, "{run:?}");
        let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let count = document["objects"].as_u64().unwrap();
        collected.fetch_add(usize::try_from(count).unwrap(), Ordering::Relaxed);
    };
    let transfer = |round: usize| {
        // What nothing keeps may be gone by the time it is exported, and not before the end.
        add_garbage(&world, round);
        let run = world.kiln(&["store", "ls"]);
        let all: Vec<&str> = run.stdout.lines().collect();
        let garbage = all.iter().find(|path| path.ends_with("-garbage"));
        let Some(garbage) = garbage else { return };
        let stream = format!("stream-{round}");
        let run = world.kiln(&["store", "export", garbage, "--output", &stream]);
        if run.status == 0 {
            let run = world.kiln(&["store", "import", &stream]);
            assert_eq!(run.status, 0, "{run:?}");
        } else {
            assert!(run.stderr.contains("is not in the store"), "{run:?}");
        }
    };
    let (outputs, _) = beside(&world, 8, &[&collect, &transfer]);
    for output in &outputs {
        assert!(output.status.success(), "{output:?}");
    }
    // Two of them built the same.
    assert_eq!(outputs[0].stdout.split(|b| *b == b'\n').count(), 3);
    assert_ne!(collected.into_inner(), 0, "nothing was collected");
    assert_sound(&world.kiln(&["store", "verify"]));
    world.build("tools/p7");
    assert_sound(&world.kiln(&["store", "verify"]));
}

/// Interrupts a process that stops itself, lets it go on, and returns its exit status.
pub fn interrupt_when_stopped(mut child: Child) -> Option<i32> {
    let process = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let stopped = waitpid(process, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(stopped, WaitStatus::Stopped(process, Signal::SIGSTOP));
    kill(process, Signal::SIGINT).unwrap();
    kill(process, Signal::SIGCONT).unwrap();
    child.wait().unwrap().code()
}

/// Runs a command up to a point of the store's code, something else, and the rest.
fn interleaved(world: &World, arguments: &[&str], point: &str, other: impl FnOnce()) -> Output {
    let child = world
        .command(arguments)
        .env("KILN_STOP_AT", point)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let process = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let stopped = waitpid(process, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(stopped, WaitStatus::Stopped(process, Signal::SIGSTOP));
    other();
    kill(process, Signal::SIGCONT).unwrap();
    child.wait_with_output().unwrap()
}

fn collect_all(world: &World) {
    let run = world.kiln(&["store", "gc"]);
    assert_eq!(run.status, 0, "{run:?}");
}

fn add(world: &World, name: &str, text: &str) -> String {
    world.write(&format!("trees/{name}/file"), text);
    world.write(&format!("trees/{name}/other"), &format!("other {name}"));
    let run = world.kiln(&["store", "add", &format!("trees/{name}"), "--json"]);
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    document["path"].as_str().unwrap().to_owned()
}

fn assert_done(world: &World, output: &Output) {
    assert!(output.status.success(), "{output:?}");
    assert_sound(&world.kiln(&["store", "verify"]));
}

#[test]
fn what_an_import_has_read_is_not_swept_from_under_it() {
    let world = World::new();
    let first = add(&world, "first", "first");
    let second = add(&world, "second", &first);
    let run = world.kiln(&["store", "export", &second, "--output", "stream"]);
    assert_eq!(run.status, 0, "{run:?}");
    for point in [
        "pool: file linked in",
        "pool: file linked in#2",
        "import: object read",
    ] {
        collect_all(&world);
        let output = interleaved(&world, &["store", "import", "stream"], point, || {
            collect_all(&world);
        });
        assert_done(&world, &output);
        assert_eq!(world.kiln(&["closure", &second]).stdout.lines().count(), 2);
    }
}

#[test]
fn what_an_addition_has_read_is_brought_again_and_names_only_what_is_there() {
    let world = World::new();
    let first = add(&world, "first", "first");
    let second = add(&world, "second", &first);
    collect_all(&world);
    add(&world, "first", "first");
    let arguments = ["store", "add", "trees/second"];
    let output = interleaved(&world, &arguments, "add: content taken", || {
        collect_all(&world);
    });
    assert_done(&world, &output);
    let closure = world.kiln(&["closure", &second]);
    assert_eq!(closure.stdout, format!("{second}\n"), "{closure:?}");
}

#[test]
fn an_output_that_goes_while_it_is_built_again_is_added_again() {
    let world = World::new();
    let good = world.build("tools/good");
    let rooted = world.kiln(&["store", "roots", "add", "seed", "seed/host"]);
    assert_eq!(rooted.status, 0, "{rooted:?}");
    // Another script, the same bytes: they are there, and no process uses them.
    world.package("tools/good", "", ":; echo good > \"$out/file\"");
    let output = interleaved(
        &world,
        &["build", "tools/good"],
        "register: trees sealed",
        || {
            collect_all(&world);
            assert!(!good.exists());
        },
    );
    assert_done(&world, &output);
    world.assert_usable();
}
