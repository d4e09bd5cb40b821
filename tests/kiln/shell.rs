//! Looking into the sandbox of a build, and running programs of the store.

use std::io::{BufRead as _, BufReader, Write as _};

use crate::world::World;

fn world() -> World {
    let world = World::new();
    world.write(
        "derivations/tools/phased.toml",
        "name = \"phased\"\nversion = \"1\"\nsummary = \"a test\"\nlicense = \"MIT\"\n\
         [build]\nrecipe = \"sh\"\ninputs = [\"tools/good\"]\nmake-flags = [\"a b\"]\n[build.phases]\n\
         configure = \"made=configured; echo configuring\"\n\
         build = \"echo \\\"$made\\\" > built\"\n\
         install = \"cp built \\\"$out/built\\\"\"\n",
    );
    world
}

fn objects(world: &World) -> String {
    world.kiln(&["store", "ls"]).stdout
}

#[test]
fn a_shell_finds_the_world_of_the_build_and_changes_nothing() {
    let world = world();
    let run = world.kiln(&[
        "shell",
        "tools/phased",
        "-c",
        "id -u; uname -n; pwd; cat \"$good/file\"; echo \"${make_flags[0]}\"; ls; touch \"$out/x\" && \
         ! touch \"$good/x\" 2>/dev/null && false; echo still here",
    ]);
    assert_eq!(run.status, 0, "{run:?}");
    // `id` and `uname` are not in this root: the builds of these tests have no more.
    let expected = "/build\ngood\na b\nstill here\n";
    assert!(run.stdout.ends_with(expected), "{run:?}");
    let before = objects(&world);
    assert!(!before.contains("phased"), "{before}");
    assert_eq!(
        std::fs::read_dir(world.store().join("tmp"))
            .unwrap()
            .count(),
        0
    );
    world.assert_usable();
}

#[test]
fn a_shell_at_a_phase_finds_what_the_phases_before_it_did() {
    let world = world();
    let at = |phase: &str, command: &str| {
        world.kiln(&["shell", "tools/phased", "--at", phase, "-c", command])
    };
    let run = at("build", "echo \"made is $made\"; ls");
    assert!(
        run.stdout.ends_with("configuring\nmade is configured\n"),
        "{run:?}"
    );
    let run = at("install", "ls; cat built; ls \"$out\"");
    assert!(run.stdout.ends_with("built\nconfigured\n"), "{run:?}");
    let none = at("check", "true");
    assert_eq!(none.status, 2);
    assert!(
        none.stderr.contains("`phased-1` has no phase `check`"),
        "{none:?}"
    );
}

#[test]
fn a_failed_build_is_kept_and_can_be_looked_at() {
    let world = world();
    let file = world.path().join("derivations/tools/phased.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        good.replace("cp built", "chmod 0 built; mkdir kept; false; cp built"),
    )
    .unwrap();
    let none = world.kiln(&["shell", "--failed", "tools/phased", "-c", "ls"]);
    assert_eq!(none.status, 2);
    assert!(
        none.stderr
            .contains("no failed build of `phased-1` is kept"),
        "{none:?}"
    );
    let failed = world.kiln(&["build", "tools/phased"]);
    assert!(
        failed.stderr.contains("`kiln shell --failed tools/phased`"),
        "{failed:?}"
    );
    for _ in 0..2 {
        let run = world.kiln(&["shell", "--failed", "tools/phased", "-c", "ls; touch again"]);
        assert!(run.stdout.contains("built\nkept\n"), "{run:?}");
    }
    let again = world.kiln(&["shell", "--failed", "tools/phased", "-c", "ls"]);
    assert!(again.stdout.contains("again\n"), "{again:?}");
    world.kiln(&["store", "gc"]);
    assert_eq!(
        world
            .kiln(&["shell", "--failed", "tools/phased", "-c", "ls"])
            .status,
        2
    );
    world.assert_usable();
}

#[test]
fn a_build_that_is_interrupted_is_not_kept() {
    let world = World::new();
    let mut child = world.start_slow_build();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(child.0.id()).unwrap()),
        nix::sys::signal::Signal::SIGINT,
    )
    .unwrap();
    child.0.wait().unwrap();
    assert!(!world.store().join("failed").exists());
}

#[test]
fn the_plan_of_a_sandbox_is_printed_and_not_performed() {
    let world = world();
    let run = world.kiln(&["shell", "--plan", "tools/phased"]);
    assert_eq!(run.status, 0, "{run:?}");
    for step in [
        "leave the old root",
        "drop every capability",
        "/kiln/script",
    ] {
        assert!(run.stdout.contains(step), "{step}: {run:?}");
    }
    let json = world.kiln(&["shell", "--plan", "--json", "tools/phased"]);
    serde_json::from_str::<serde_json::Value>(&json.stdout).unwrap();
}

#[test]
fn an_interactive_shell_talks_on_a_terminal_of_its_own() {
    let world = world();
    world.build("tools/good");
    // `script` gives kiln a terminal, as a person has one.
    let inner = world.command(&[]);
    let command = format!(
        "{} shell tools/phased",
        inner.get_program().to_str().unwrap()
    );
    let mut child = std::process::Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .current_dir(world.path())
        .env_clear()
        .envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    writeln!(
        input,
        "echo a-$((40+2))-terminal; test -t 0 && echo it-is-${{name}}"
    )
    .unwrap();
    let mut seen = Vec::new();
    for line in lines.by_ref() {
        let line = line.unwrap();
        let found = line.contains("it-is-phased");
        seen.push(line);
        if found {
            break;
        }
    }
    assert!(
        seen.iter().any(|line| line.contains("a-42-terminal")),
        "{seen:?}"
    );
    writeln!(input, "exit 0").unwrap();
    assert!(child.wait().unwrap().success());
}

/// A world with a package `tools/shelled`, whose program is this machine's bash.
fn shelled() -> World {
    let world = World::new();
    world.package(
        "tools/shelled",
        "",
        "mkdir \"$out/bin\"; cp /usr/bin/bash \"$out/bin/shelled\"",
    );
    world
}

/// Returns a command that runs a script by that program, which is granted its libraries.
fn run_shelled(world: &World, flags: &[&str], script: &str) -> std::process::Command {
    let libraries = ["/usr", "/lib", "/lib64"].map(|path| ["--read", path]);
    let mut arguments = vec!["run", "tools/shelled"];
    arguments.extend(libraries.as_flattened());
    arguments.extend(flags);
    arguments.extend(["--", "-c", script]);
    world.command(&arguments)
}

#[test]
fn a_program_of_the_store_runs_with_what_it_was_granted() {
    let world = shelled();
    // A dynamic program of this machine finds no loader in an empty world.
    let run = world.kiln(&["run", "tools/shelled", "--", "-c", "echo hi"]);
    assert_eq!(run.status, 2, "{run:?}");
    world.write("grant/note", "a note\n");
    let grant = |flag: &str, inside: &str, script: &str| {
        let grant = format!("{}/grant:{inside}", world.path().display());
        let flags = [flag, &grant, "-e", "WORD=given", "--workdir", inside];
        world.run(&mut run_shelled(&world, &flags, script))
    };
    let read = grant(
        "--read",
        "/data",
        "echo $WORD; read x < note; echo $x; echo no > new",
    );
    assert_eq!(read.status, 1, "{read:?}");
    assert_eq!(read.stdout, "given\na note\n", "{read:?}");
    // What the program says of its failure stays apart from what it prints.
    assert!(read.stderr.contains("Read-only file system"), "{read:?}");
    let written = grant("--write", "/data", "echo yes > new; exit 7");
    assert_eq!(written.status, 7, "{written:?}");
    assert_eq!(
        std::fs::read_to_string(world.path().join("grant/new")).unwrap(),
        "yes\n"
    );
}

#[test]
fn a_program_reads_what_kiln_is_given() {
    let world = shelled();
    let mut child = run_shelled(&world, &[], "read line; echo \"got $line\"")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"a line\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "got a line\n");
}
