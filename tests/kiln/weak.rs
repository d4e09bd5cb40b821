//! On a host that lacks a lock of the sandbox nothing is built unless asked for, and what
//! is built then is never taken for hermetic.
//!
//! The host is this machine, in a user namespace that may have no time namespaces.

use std::process::Command;

use crate::world::{Run, World};

/// Makes every later namespace a descendant of one that allows no time namespaces, and
/// goes on as an ordinary user.
const NO_TIME: &str = "echo 0 > /proc/sys/user/max_time_namespaces && \
                       exec unshare --user --map-user=1000 --map-group=100 \"$@\"";

const MARK: &str = "not hermetic: built without time-namespace";

/// Runs `kiln` where there are no time namespaces.
fn weakly(world: &World, arguments: &[&str]) -> Run {
    let mut command = Command::new("unshare");
    let kiln = env!("CARGO_BIN_EXE_kiln");
    command.args(["--user", "--map-root-user", "sh", "-c", NO_TIME, "sh", kiln]);
    world.run(&mut world.in_world(command, arguments))
}

fn json(run: &Run) -> serde_json::Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

#[test]
fn what_is_missing_is_named_and_nothing_is_built() {
    let world = World::new();
    let run = weakly(&world, &["build", "tools/good"]);
    assert_eq!(run.status, 2, "{run:?}");
    for expected in [
        "this machine does not provide a time namespace",
        "let `user.max_time_namespaces` be more than 0",
        "`--weak-sandbox` goes without; what is built so is marked `time-namespace`",
    ] {
        assert!(run.stderr.contains(expected), "{expected}: {run:?}");
    }
    assert!(!world.kiln(&["store", "ls"]).stdout.contains("good"));
    let doctor = weakly(&world, &["doctor"]);
    assert_eq!(doctor.status, 1, "{doctor:?}");
    assert!(
        doctor.stdout.contains("missing  time namespace: "),
        "{doctor:?}"
    );
    assert!(
        doctor.stdout.contains("with `--weak-sandbox`"),
        "{doctor:?}"
    );
    for command in ["shell", "run"] {
        let rest: &[&str] = match command {
            "shell" => &["shell", "tools/good", "-c", "true"],
            _ => &["run", "tools/tool"],
        };
        world.package("tools/tool", "", "mkdir \"$out/bin\"; cp /usr/bin/true \"$out/bin/tool\" || cp /usr/bin/ls \"$out/bin/tool\"");
        world.build("tools/tool");
        let run = weakly(&world, rest);
        assert_eq!(run.status, 2, "{run:?}");
        assert!(
            run.stderr.contains("does not provide a time namespace"),
            "{run:?}"
        );
    }
}

#[test]
fn root_that_stays_root_is_refused_too() {
    let world = World::new();
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        env!("CARGO_BIN_EXE_kiln"),
    ]);
    let run = world.run(&mut world.in_world(command, &["build", "tools/good"]));
    assert_eq!(run.status, 2, "{run:?}");
    assert!(
        run.stderr
            .contains("does not provide a user id for root's builds that is not root's"),
        "{run:?}"
    );
}

#[test]
fn what_is_built_weakly_is_marked_and_counts_only_when_asked_for() {
    let world = World::new();
    let weak = weakly(&world, &["build", "--weak-sandbox", "--json", "tools/good"]);
    assert_eq!(weak.status, 0, "{weak:?}");
    assert!(weak.stderr.contains(MARK), "{weak:?}");
    let document = json(&weak);
    let output = &document["outputs"][0];
    assert_eq!(output["hermetic"], false);
    assert_eq!(output["lacking"], serde_json::json!(["time-namespace"]));
    let path = output["path"].as_str().unwrap().to_owned();
    let shown = world.kiln(&["show", &path]);
    assert!(
        shown
            .stdout
            .contains(", not hermetic: without time-namespace\n"),
        "{shown:?}"
    );
    // Found where asked for, on any host, and said again; not otherwise.
    let again = world.kiln(&["build", "--weak-sandbox", "--json", "tools/good"]);
    assert_eq!(json(&again)["outputs"][0]["built"], false, "{again:?}");
    assert!(again.stderr.contains(MARK), "{again:?}");
    assert_eq!(
        world
            .kiln(&["closure", "--weak-sandbox", "tools/good"])
            .status,
        0
    );
    let unknown = world.kiln(&["closure", "tools/good"]);
    assert!(unknown.stderr.contains("has not been built"), "{unknown:?}");
    // A whole sandbox builds it again and its result takes the place of the other.
    let whole = world.kiln(&["build", "--json", "tools/good"]);
    let document = json(&whole);
    assert_eq!(document["outputs"][0]["built"], true, "{whole:?}");
    assert_eq!(document["outputs"][0]["hermetic"], true);
    assert_eq!(document["outputs"][0]["path"], path.as_str());
    assert!(!world.kiln(&["show", &path]).stdout.contains("hermetic"));
    // That counts everywhere, and needs no sandbox to be found.
    let found = weakly(&world, &["build", "tools/good"]);
    assert_eq!(found.status, 0, "{found:?}");
    world.assert_usable();
}

#[test]
fn a_test_that_passed_weakly_runs_again() {
    let world = World::new();
    world.package("tools/tested", "", "echo yes > \"$out/file\"");
    world.build("tools/tested");
    world.package(
        "tools/tested",
        "[test]\nscript = 'test -s \"$out/file\"'",
        "echo yes > \"$out/file\"",
    );
    let weak = weakly(&world, &["build", "--weak-sandbox", "tools/tested"]);
    assert_eq!(weak.status, 0, "{weak:?}");
    let dry = |flags: &[&str]| {
        let mut arguments = vec!["build", "-n", "tools/tested"];
        arguments.extend(flags);
        world.kiln(&arguments).stdout
    };
    assert_eq!(dry(&["--weak-sandbox"]), "");
    assert_eq!(dry(&[]), "test tools/tested (test)\n");
    world.build("tools/tested");
    assert_eq!(dry(&[]), "");
}

#[test]
fn what_is_weak_is_never_proved() {
    let world = World::new();
    let weak = weakly(&world, &["prove", "--weak-sandbox", "tools/good"]);
    assert_eq!(weak.status, 1, "{weak:?}");
    assert_eq!(
        weak.stdout,
        "same       good-1, which is not hermetic: without time-namespace\n\
         not proved: every bit the same, but 1 of 1 builds are not hermetic\n"
    );
    // Nor where only the rebuild is weak, or only the build.
    world.build("tools/good");
    let refused = weakly(&world, &["prove", "tools/good"]);
    assert_eq!(refused.status, 2, "{refused:?}");
    assert!(
        refused.stderr.contains("does not provide a time namespace"),
        "{refused:?}"
    );
    let rebuild = weakly(&world, &["prove", "--weak-sandbox", "--json", "tools/good"]);
    let document = json(&rebuild);
    assert_eq!((rebuild.status, &document["hermetic"]), (1, &false.into()));
    let varied = document["actions"][0]["variations"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(!varied.contains("uptime"), "{varied}");
    let other = World::new();
    weakly(&other, &["build", "--weak-sandbox", "tools/good"]);
    assert_eq!(
        other
            .kiln(&["prove", "--weak-sandbox", "tools/good"])
            .status,
        1
    );
    let proved = other.kiln(&["prove", "tools/good"]);
    assert_eq!(proved.status, 0, "{proved:?}");
}

#[test]
fn an_export_carries_objects_and_no_word_of_how_they_were_made() {
    let world = World::new();
    weakly(&world, &["build", "--weak-sandbox", "tools/good"]);
    let stream = world.path().join("stream");
    let stream = stream.to_str().unwrap();
    let exported = world.kiln(&[
        "store",
        "export",
        "--weak-sandbox",
        "tools/good",
        "-o",
        stream,
    ]);
    assert_eq!(exported.status, 0, "{exported:?}");
    let other = World::new();
    let imported = other.kiln(&["store", "import", stream]);
    assert_eq!(imported.status, 0, "{imported:?}");
    // So it can be no hit for any build.
    let built = other.kiln(&["build", "--json", "tools/good"]);
    assert_eq!(json(&built)["outputs"][0]["built"], true, "{built:?}");
}
