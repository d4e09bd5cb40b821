//! The store keeps its word: damage is found, several processes share it.

use std::collections::BTreeSet;

use crate::world::{World, unlock};

#[test]
fn verify_names_every_kind_of_damage() {
    let world = World::new();
    world.package(
        "tools/many",
        "",
        "for f in flipped short missing mode; do echo \"$f of many\" > \"$out/$f\"; done; ln -s flipped \"$out/link\"",
    );
    let path = world.build("tools/many");
    unlock(&path, 0o755);
    for file in ["flipped", "short"] {
        unlock(&path.join(file), 0o644);
    }
    std::fs::write(path.join("flipped"), "Flipped of many\n").unwrap();
    std::fs::write(path.join("short"), "short").unwrap();
    std::fs::remove_file(path.join("missing")).unwrap();
    std::fs::remove_file(path.join("link")).unwrap();
    std::os::unix::fs::symlink("short", path.join("link")).unwrap();
    std::fs::write(path.join("extra"), "").unwrap();
    unlock(&path.join("mode"), 0o666);
    std::fs::create_dir(world.store().join("store/stray")).unwrap();
    let run = world.kiln(&["store", "verify"]);
    assert_eq!(run.status, 1);
    for expected in [
        "/flipped has digest",
        "/short has 5 bytes instead of 14",
        "/missing is missing",
        "/link points to `short` instead of `flipped`",
        "/extra is not part of the object",
        "/mode has mode 0666 instead of 0444",
        "stray is not recorded",
    ] {
        assert!(run.stdout.contains(expected), "{expected}: {run:?}");
    }
}

#[test]
fn processes_that_want_the_same_build_it_once() {
    let world = World::new();
    world.package("tools/slow", "", "sleep 1; echo slow > \"$out/file\"");
    let children: Vec<_> = (0..4)
        .map(|_| {
            world
                .command(&["build", "tools/slow"])
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let outputs: Vec<_> = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap())
        .collect();
    for output in &outputs {
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, outputs[0].stdout);
    }
    let logs = walk(&world.store().join("logs"));
    assert_eq!(logs, 1, "it was built {logs} times");
    world.assert_usable();
}

fn walk(directory: &std::path::Path) -> usize {
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { walk(&path) } else { 1 })
        .sum()
}

#[test]
fn a_killed_process_leaves_a_store_that_the_next_one_cleans() {
    let world = World::new();
    let child = &mut world.start_slow_build().0;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_ne!(
        std::fs::read_dir(world.store().join("tmp"))
            .unwrap()
            .count(),
        0
    );
    world.assert_usable();
    assert_eq!(
        std::fs::read_dir(world.store().join("tmp"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn every_table_has_a_paragraph() {
    let world = World::new();
    assert_eq!(world.kiln(&["store", "ls"]).status, 0);
    let database = rusqlite::Connection::open(world.store().join("kiln.db")).unwrap();
    let mut tables = database
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .unwrap();
    let words = include_str!("../../store-schema/README.md");
    let mut described = BTreeSet::new();
    for table in tables.query_map([], |row| row.get(0)).unwrap() {
        let table: String = table.unwrap();
        assert!(words.contains(&format!("- **{table}**: ")), "{table}");
        described.insert(table);
    }
    assert_eq!(words.matches("- **").count(), described.len());
}
