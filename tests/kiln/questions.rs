//! The questions people ask: why was it built, what differs, what needs what, what is it
//! doing now.

use std::io::{BufRead as _, BufReader};

use crate::world::World;

fn edit(world: &World, package: &str, from: &str, to: &str) {
    let file = world.path().join(format!("derivations/{package}.toml"));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
}

/// Builds with an explanation, and returns only that.
fn explained(world: &World, package: &str) -> String {
    let run = world.kiln(&["build", "--explain", package]);
    assert_eq!(run.status, 0, "{run:?}");
    let at = run.stderr.find("built tools/").map(|_| ());
    at.expect("something was built");
    let lines: Vec<&str> = run
        .stderr
        .lines()
        .filter(|line| line.ends_with(" because") || line.starts_with("  "))
        .collect();
    lines.join("\n")
}

#[test]
fn an_explanation_names_the_root_cause_and_not_what_followed_from_it() {
    let world = World::new();
    world.write("derivations/tools/tree/note", "one\n");
    world.user_of_good("tools/middle", "echo \"$good\" > \"$out/x\"");
    world.package(
        "tools/top",
        "[source]\npath = \"tree\"\n",
        "echo \"$middle\" > \"$out/x\"",
    );
    edit(
        &world,
        "tools/top",
        "recipe = \"sh\"",
        "recipe = \"sh\"\ninputs = [\"tools/middle\"]",
    );
    insta::assert_snapshot!(explained(&world, "tools/top"), @"
    built tools/good because
      it was never built here before
    built tools/middle because
      it was never built here before
    built tools/top because
      it was never built here before
    ");
    edit(&world, "tools/good", "echo good", "echo better");
    insta::assert_snapshot!(explained(&world, "tools/top"), @"
    built tools/good because
      it has another script
    built tools/middle because
      `good-1` has another script
    built tools/top because
      `good-1` has another script
    ");
    world.write("derivations/tools/tree/note", "two\n");
    edit(
        &world,
        "tools/top",
        "recipe = \"sh\"",
        "recipe = \"sh\"\nenvironment = { LEVEL = \"9\" }",
    );
    insta::assert_snapshot!(explained(&world, "tools/top"), @"
    built tools/top because
      it has another value of `LEVEL`
      its source was edited: `note`
    ");
    let run = world.kiln(&["build", "--explain", "tools/top"]);
    assert!(run.stderr.contains("nothing was built"), "{run:?}");
    world.kiln(&["store", "gc"]);
    assert!(explained(&world, "tools/good").contains("its output was no longer in the store"));
}

#[test]
fn a_dry_run_says_what_is_missing_and_does_nothing() {
    let world = World::new();
    world.user_of_good("tools/user", "echo \"$good\" > \"$out/x\"");
    let all = world.kiln(&["build", "--dry-run", "tools/user"]);
    insta::assert_snapshot!(all.stdout, @"
    fetch host.deb
    unpack seed/host
    build tools/good
    build tools/user
    ");
    assert!(
        !world
            .store()
            .join("downloads")
            .read_dir()
            .unwrap()
            .any(|_| true)
    );
    world.build("tools/good");
    let rest = world.kiln(&["build", "-n", "tools/user"]);
    assert_eq!(rest.stdout, "build tools/user\n", "{rest:?}");
    world.build("tools/user");
    let none = world.kiln(&["build", "-n", "--json", "tools/user"]);
    assert_eq!(none.stdout, "{\n  \"missing\": []\n}\n", "{none:?}");
}

#[test]
fn a_changed_seed_is_named_and_not_everything_that_it_rebuilds() {
    let world = World::new();
    world.build("tools/good");
    edit(
        &world,
        "seed/host",
        "[debian.files]",
        "[debian.files]\n\"etc/note\" = \"x\"",
    );
    insta::assert_snapshot!(explained(&world, "tools/good"), @"
    built tools/good because
      `host-1` leaves out or adds other files
    ");
}

#[test]
fn a_link_leads_to_the_output_and_keeps_it() {
    let world = World::new();
    let link = world.path().join("result");
    let run = world.kiln(&["build", "--link", "result", "tools/good"]);
    assert_eq!(run.status, 0, "{run:?}");
    assert_eq!(
        std::fs::read_to_string(link.join("file")).unwrap(),
        "good\n"
    );
    world.kiln(&["store", "gc"]);
    assert_eq!(
        std::fs::read_to_string(link.join("file")).unwrap(),
        "good\n"
    );
    // Also when the answer was remembered; several outputs get names of their own.
    let again = world.kiln(&["build", "--link", "again", "tools/good", "tools/good"]);
    assert_eq!(again.status, 0, "{again:?}");
    assert!(world.path().join("again").is_symlink() && world.path().join("again-2").is_symlink());
    std::fs::write(world.path().join("taken"), "mine").unwrap();
    let taken = world.kiln(&["build", "--link", "taken", "tools/good"]);
    assert_eq!(taken.status, 2, "{taken:?}");
    assert_eq!(
        std::fs::read_to_string(world.path().join("taken")).unwrap(),
        "mine"
    );
    for name in ["result", "again", "again-2"] {
        std::fs::remove_file(world.path().join(name)).unwrap();
    }
    world.kiln(&["store", "gc"]);
    let ls = world.kiln(&["store", "ls"]);
    assert!(!ls.stdout.contains("-good-1"), "{ls:?}");
}

#[test]
fn differences_between_objects_and_closures() {
    let world = World::new();
    world.user_of_good(
        "tools/user",
        "echo \"$good\" > \"$out/x\"; echo gone > \"$out/old\"",
    );
    let before = world.build("tools/user");
    let before = before.file_name().unwrap().to_str().unwrap();
    edit(&world, "tools/good", "echo good", "echo better");
    edit(
        &world,
        "tools/user",
        "echo gone > \"$out/old\"",
        "echo fresh > \"$out/new\"; chmod +x \"$out/x\"; ln -s x \"$out/link\"",
    );
    world.build("tools/user");
    let files = world.kiln(&["diff", before, "tools/user"]);
    assert_eq!(files.status, 1, "{files:?}");
    insta::assert_snapshot!(files.stdout, @"
    added            +0 B  link
    added            +6 B  new
    removed          -5 B  old
    changed          +0 B  x (content, now executable)
    ");
    let closures = world.kiln(&["diff", "--closure", before, "tools/user"]);
    insta::assert_snapshot!(closures.stdout, @"
    changed          +2 B  good-1 (built from something else)
    changed          +1 B  user-1 (built from something else)
    ");
    let same = world.kiln(&["diff", "tools/user", "tools/user"]);
    assert_eq!((same.status, same.stdout.as_str()), (0, ""), "{same:?}");
    let json = world.kiln(&["diff", "--json", before, "tools/user"]);
    let document: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(document["differences"].as_array().unwrap().len(), 4);
}

#[test]
fn graphs_of_what_is_needed() {
    let world = World::new();
    world.user_of_good("tools/user", "echo \"$good\" > \"$out/x\"");
    world.build("tools/user");
    let dot = world.kiln(&["graph", "tools/user"]);
    assert!(dot.stdout.starts_with("digraph kiln {"), "{dot:?}");
    assert_eq!(dot.stdout.matches(" -> ").count(), 1, "{dot:?}");
    let svg = world.kiln(&["graph", "--svg", "--build", "tools/user"]);
    assert_eq!(svg.status, 0, "{svg:?}");
    for label in ["host.deb", "seed/host", "tools/good", "tools/user"] {
        assert!(
            svg.stdout.contains(&format!("<title>{label}</title>")),
            "{label}: {svg:?}"
        );
    }
}

#[test]
fn a_log_is_followed_while_it_is_written() {
    let world = World::new();
    world.package(
        "tools/slow",
        "",
        "echo first; while ! [ -e /build/never ]; do sleep 0.1; done",
    );
    let mut follower = world
        .command(&["log", "--follow", "tools/slow"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It begins to wait before there is anything to follow.
    let mut said = BufReader::new(follower.stderr.take().unwrap()).lines();
    assert!(
        said.next()
            .unwrap()
            .unwrap()
            .contains("waiting for a build")
    );
    let mut builder = world.command(&["build", "tools/slow"]).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "first"));
    assert!(
        builder.try_wait().unwrap().is_none(),
        "the build has ended already"
    );
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(builder.id()).unwrap()),
        nix::sys::signal::Signal::SIGINT,
    )
    .unwrap();
    builder.wait().unwrap();
    assert!(follower.wait().unwrap().success());
}
