//! What is remembered of a request is used, and never when something has changed.

use std::os::unix::fs::MetadataExt as _;

use crate::world::{Run, World};

const REMEMBERED: &str = "nothing has changed since this was evaluated";

/// Asks for a build, and whether it was answered from what was remembered.
fn ask(world: &World, package: &str) -> (Run, bool) {
    let run = world.run(
        world
            .command(&["build", package])
            .env("KILN_LOG", "kiln=debug"),
    );
    assert_eq!(run.status, 0, "{run:?}");
    let remembered = run.stderr.contains(REMEMBERED);
    // Nothing is coloured where no terminal is.
    assert!(!run.stderr.contains('\x1b'), "{run:?}");
    (run, remembered)
}

#[test]
fn a_second_request_is_answered_from_the_first() {
    let world = World::new();
    let (first, remembered) = ask(&world, "tools/good");
    assert!(!remembered, "{first:?}");
    let (second, remembered) = ask(&world, "tools/good");
    assert!(remembered, "{second:?}");
    assert_eq!(first.stdout, second.stdout);
    // Another request is another question.
    world.user_of_good("tools/user", "echo \"$good\" > \"$out/x\"");
    assert!(!ask(&world, "tools/user").1);
    assert!(ask(&world, "tools/user").1);
}

#[test]
fn an_edit_is_seen_even_if_size_and_time_stay_the_same() {
    let world = World::new();
    world.user_of_good("tools/user", "echo \"$good\" > \"$out/x\"");
    ask(&world, "tools/user");
    assert!(ask(&world, "tools/user").1);
    let file = world.path().join("derivations/tools/good.toml");
    let before = std::fs::metadata(&file).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("echo good", "echo evil")).unwrap();
    let times = std::fs::FileTimes::new().set_modified(before.modified().unwrap());
    std::fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_times(times)
        .unwrap();
    let after = std::fs::metadata(&file).unwrap();
    assert_eq!(
        (before.len(), before.mtime_nsec()),
        (after.len(), after.mtime_nsec())
    );
    let (run, remembered) = ask(&world, "tools/user");
    assert!(
        !remembered && run.stderr.contains("built tools/good"),
        "{run:?}"
    );
}

#[test]
fn what_was_removed_from_the_store_is_built_again() {
    let world = World::new();
    ask(&world, "tools/good");
    assert!(ask(&world, "tools/good").1);
    assert_eq!(world.kiln(&["store", "gc"]).status, 0);
    let (run, remembered) = ask(&world, "tools/good");
    assert!(!remembered, "{run:?}");
    world.assert_usable();
}

#[test]
fn a_damaged_memory_is_no_memory() {
    let world = World::new();
    ask(&world, "tools/good");
    let memories: Vec<_> = std::fs::read_dir(world.store().join("evaluations"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(memories.len(), 1);
    let bytes = std::fs::read(&memories[0]).unwrap();
    for bad in [&bytes[..bytes.len() / 2], b"", &[0xff; 200][..]] {
        std::fs::write(&memories[0], bad).unwrap();
        assert!(!ask(&world, "tools/good").1);
        assert!(ask(&world, "tools/good").1);
    }
}

#[test]
fn a_project_s_working_tree_is_read_each_time() {
    let world = World::new();
    world.write("derivations/tools/tree/note", "one\n");
    world.package(
        "tools/copy",
        "[source]\npath = \"tree\"\n",
        "cp note \"$out/note\"",
    );
    ask(&world, "tools/copy");
    world.write("derivations/tools/tree/note", "two\n");
    let (run, remembered) = ask(&world, "tools/copy");
    assert!(
        !remembered && run.stderr.contains("built tools/copy"),
        "{run:?}"
    );
}
