//! What builds see and give, references and outputs.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::world::{World, serve};

#[test]
fn a_second_build_does_nothing_and_prints_the_same() {
    let world = World::new();
    let first = world.kiln(&["build", "tools/good"]);
    let second = world.kiln(&["build", "tools/good"]);
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(second.stderr, "");
}

#[test]
fn objects_are_sealed_and_share_their_content() {
    let world = World::new();
    world.package(
        "tools/two",
        "",
        "echo good > \"$out/file\"; mkdir \"$out/sub\"; ln \"$out/file\" \"$out/sub/hard\"; \
         chmod 700 \"$out/sub\"; echo x > \"$out/sub/run\"; chmod 4711 \"$out/sub/run\" || chmod 711 \"$out/sub/run\"",
    );
    let (good, two) = (world.build("tools/good"), world.build("tools/two"));
    let inode = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().ino();
    assert_eq!(inode(good.join("file")), inode(two.join("file")));
    assert_eq!(inode(two.join("sub/hard")), inode(two.join("file")));
    for (path, mode) in [
        ("file", 0o444),
        ("sub", 0o555),
        ("sub/run", 0o555),
        ("", 0o555),
    ] {
        let found = std::fs::metadata(two.join(path)).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, mode, "{path}");
        assert_eq!(found.mtime(), 1, "{path}");
    }
}

#[test]
fn an_output_that_names_itself_names_its_final_path() {
    let world = World::new();
    world.package(
        "tools/selfish",
        "",
        "mkdir \"$out/bin\"; echo \"#!$out/bin/x $out\" > \"$out/bin/y\"; ln -s \"$out/bin/y\" \"$out/link\"",
    );
    let path = world.build("tools/selfish");
    let own = format!(
        "/kiln/store/{}",
        path.file_name().unwrap().to_str().unwrap()
    );
    let text = std::fs::read_to_string(path.join("bin/y")).unwrap();
    assert_eq!(text, format!("#!{own}/bin/x {own}\n"));
    assert_eq!(
        std::fs::read_link(path.join("link"))
            .unwrap()
            .to_str()
            .unwrap(),
        format!("{own}/bin/y")
    );
    world.assert_usable();
    let proved = world.kiln(&["prove", "tools/selfish"]);
    assert_eq!(proved.status, 0, "{proved:?}");
}

#[test]
fn references_are_found_with_file_and_offset() {
    let world = World::new();
    world.user_of_good("tools/user", "echo \"see $good/file\" > \"$out/note\"");
    world.build("tools/user");
    let closure = world.kiln(&["closure", "tools/user"]);
    assert_eq!(closure.stdout.lines().count(), 2, "{closure:?}");
    let tree = world.kiln(&["closure", "--tree", "--size", "tools/user"]);
    assert!(tree.stdout.contains("└─ /kiln/store/"), "{tree:?}");
    let why = world.kiln(&["why", "tools/user", "tools/good"]);
    assert_eq!(why.status, 0);
    // `see `, then the prefix and its slash.
    assert!(why.stdout.contains("  note at byte 16\n"), "{why:?}");
    let not = world.kiln(&["why", "tools/good", "tools/user"]);
    assert_eq!(not.status, 1, "{not:?}");
}

#[test]
fn a_changed_input_with_the_same_result_rebuilds_nothing_after_it() {
    let world = World::new();
    world.user_of_good("tools/user", "cat \"$good/file\" > \"$out/copy\"");
    let before = world.build("tools/user");
    // Another script, the same bytes.
    world.package(
        "tools/good",
        "",
        "echo goo > \"$out/file\"; echo good > \"$out/file\"",
    );
    let run = world.kiln(&["build", "tools/user"]);
    assert!(run.stderr.contains("built tools/good"), "{run:?}");
    assert!(!run.stderr.contains("building tools/user"), "{run:?}");
    assert_eq!(world.build("tools/user"), before);
}

#[test]
fn several_outputs_may_name_each_other_one_way_only() {
    let world = World::new();
    let outputs = "[outputs.out]\n[outputs.dev]\n";
    world.package(
        "tools/both",
        outputs,
        "echo x > \"$out/lib\"; echo \"$out/lib\" > \"$dev/path\"",
    );
    let run = world.kiln(&["build", "tools/both"]);
    assert_eq!((run.status, run.stdout.lines().count()), (0, 2), "{run:?}");
    world.package(
        "tools/ring",
        outputs,
        "echo \"$dev\" > \"$out/a\"; echo \"$out\" > \"$dev/b\"",
    );
    let run = world.kiln(&["build", "tools/ring"]);
    assert_eq!(run.status, 2);
    assert!(run.stderr.contains("name each other"), "{run:?}");
    world.assert_usable();
}

#[test]
fn a_reference_that_rewriting_cannot_reach_fails_the_build() {
    let world = World::new();
    world.package("tools/named", "", "touch \"$out/${out##*/}\"");
    let run = world.kiln(&["build", "tools/named"]);
    assert_eq!(run.status, 2);
    assert!(
        run.stderr
            .contains("contains the digest of an output's own path"),
        "{run:?}"
    );
}

#[test]
fn sources_are_unpacked_and_trees_are_copied() {
    let world = World::new();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(6);
    header.set_mode(0o644);
    archive
        .append_data(&mut header, "top/hello", &b"hello\n"[..])
        .unwrap();
    let sha256 = serve("/sources/hello.tar", &archive.into_inner().unwrap());
    let base = crate::world::MIRROR.as_str();
    world.write("derivations/tools/beside/note", "beside\n");
    world.package(
        "tools/sources",
        &format!(
            "[source]\nurls = [\"{base}/missing\", \"{base}/sources/hello.tar\"]\nsha256 = \"{sha256}\"\n\
             [sources.raw]\nurls = [\"{base}/sources/hello.tar\"]\nsha256 = \"{sha256}\"\nunpack = false\n\
             [sources.tree]\npath = \"beside\"\n"
        ),
        "cat hello ../tree/note > \"$out/all\"; ls ../raw > \"$out/raw\"",
    );
    let path = world.build("tools/sources");
    assert_eq!(
        std::fs::read_to_string(path.join("all")).unwrap(),
        "hello\nbeside\n"
    );
    assert_eq!(
        std::fs::read_to_string(path.join("raw")).unwrap(),
        "hello.tar\n"
    );
}

#[test]
fn a_failing_test_fails_the_command_and_keeps_the_output() {
    let world = World::new();
    world.package(
        "tools/tested",
        "[test]\nscript = '''\necho checking; test -e \"$out/other\"\n'''\n",
        "touch \"$out/one\"",
    );
    let run = world.kiln(&["build", "tools/tested"]);
    assert_eq!(run.status, 2);
    assert!(
        run.stderr.contains("the test of `tools/tested` failed"),
        "{run:?}"
    );
    assert!(run.stderr.contains("| checking"), "{run:?}");
}

#[test]
fn every_command_speaks_json() {
    let world = World::new();
    world.build("tools/good");
    for arguments in [
        &["build", "tools/good"][..],
        &["log", "tools/good"],
        &["show", "tools/good"],
        &["show", "--packages"],
        &["closure", "tools/good"],
        &["why", "tools/good", "tools/good"],
        &["prove", "tools/good"],
        &["store", "ls"],
        &["store", "verify"],
        &["doctor"],
        &["build", "tools/none"],
    ] {
        let mut with = arguments.to_vec();
        with.push("--json");
        let run = world.kiln(&with);
        serde_json::from_str::<serde_json::Value>(&run.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {run:?}"));
    }
}

#[test]
fn the_action_that_is_shown_hashes_to_its_digest() {
    let world = World::new();
    world.build("tools/good");
    let json = world.kiln(&["build", "tools/good", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let digest = document["outputs"][0]["action"].as_str().unwrap();
    let shown = world.kiln(&["show", "--action", "tools/good"]);
    assert_eq!(
        kiln::hash::BlobDigest::of(shown.stdout.as_bytes()).to_string(),
        digest
    );
    let log = world.kiln(&["log", digest]);
    assert!(log.stdout.contains("@kiln phase install"), "{log:?}");
}

#[test]
fn interrupting_ends_a_build_and_leaves_nothing() {
    let world = World::new();
    let child = &mut world.start_slow_build().0;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()),
        nix::sys::signal::Signal::SIGINT,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert_eq!(
        std::fs::read_dir(world.store().join("tmp"))
            .unwrap()
            .count(),
        0
    );
    world.assert_usable();
}

#[test]
fn a_build_goes_on_when_nobody_reads_what_is_told() {
    let world = World::new();
    world.package(
        "tools/chatty",
        "",
        "for i in $(seq 200); do echo line $i; done; echo done > \"$out/x\"",
    );
    let mut child = world
        .command(&["build", "-v", "tools/chatty"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    world.assert_usable();
}

#[test]
fn modes_that_a_build_leaves_behind_are_no_obstacle() {
    let world = World::new();
    world.package(
        "tools/locked",
        "",
        "mkdir \"$out/d\"; echo x > \"$out/d/f\"; chmod 000 \"$out/d/f\" \"$out/d\"",
    );
    let path = world.build("tools/locked");
    assert_eq!(std::fs::read_to_string(path.join("d/f")).unwrap(), "x\n");
}
