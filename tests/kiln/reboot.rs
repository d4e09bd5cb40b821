//! The machine stops at any time: what was not on the disk is checked when the store is
//! next opened, and nothing else is.

use std::path::Path;

use crate::world::{World, truncate, unlock};

fn assert_settled(world: &World) {
    assert_eq!(std::fs::read(world.unsynced()).unwrap(), b"");
    let verified = world.kiln(&["store", "verify"]);
    assert_eq!(verified.status, 0, "{verified:?}");
}

/// Loses a whole object, as a file system may.
fn lose(object: &Path) {
    unlock(object, 0o755);
    std::fs::remove_dir_all(object).unwrap();
}

fn objects(world: &World) -> Vec<String> {
    let run = world.kiln(&["store", "ls"]);
    assert_eq!(run.status, 0, "{run:?}");
    run.stdout.lines().map(str::to_owned).collect()
}

fn count(world: &World, sql: &str) -> i64 {
    let database = rusqlite::Connection::open(world.store().join("kiln.db")).unwrap();
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn lost_content_is_forgotten_with_all_that_needs_it_and_built_again() {
    let world = World::new();
    world.user_of_good("tools/user", "echo \"see $good/file\" > \"$out/note\"");
    let (good, user) = (world.build("tools/good"), world.build("tools/user"));
    for (root, package) in [("first", "tools/user"), ("second", "seed/host")] {
        let added = world.kiln(&["store", "roots", "add", root, package]);
        assert_eq!(added.status, 0, "{added:?}");
    }
    let before = objects(&world);
    truncate(&good.join("file"));
    world.reboot();
    let run = world.kiln(&["store", "ls"]);
    assert_eq!(run.status, 0, "{run:?}");
    assert!(run.stderr.contains("hashing"), "{run:?}");
    for lost in [&good, &user] {
        let name = lost.file_name().unwrap().to_str().unwrap();
        let line = format!("forgot /kiln/store/{name}: its content is lost");
        assert!(run.stderr.contains(&line), "{run:?}");
        assert!(!run.stdout.contains(name), "{run:?}");
    }
    assert!(run.stderr.contains("forgot the root `first`"), "{run:?}");
    let roots = world.kiln(&["store", "roots"]);
    assert!(roots.stdout.starts_with("second ->"), "{roots:?}");
    assert_settled(&world);
    assert_eq!((world.build("tools/user"), objects(&world)), (user, before));
    assert_eq!(
        std::fs::read_to_string(good.join("file")).unwrap(),
        "good\n"
    );
}

#[test]
fn what_can_be_put_together_from_sound_copies_is_restored() {
    let world = World::new();
    let good = world.build("tools/good");
    let before = objects(&world);
    lose(&good);
    world.reboot();
    let run = world.kiln(&["store", "ls"]);
    assert!(run.stderr.contains("restored /kiln/store/"), "{run:?}");
    assert_eq!(objects(&world), before);
    assert_settled(&world);
}

#[test]
fn trees_without_a_row_and_files_without_an_object_go() {
    let world = World::new();
    world.build("tools/good");
    let kept: Vec<_> = ["kiln.db", "kiln.db-wal"]
        .map(|name| {
            let path = world.store().join(name);
            (std::fs::read(&path).ok(), path)
        })
        .into();
    world.package("tools/more", "", "echo more > \"$out/file\"");
    let more = world.build("tools/more");
    // The database loses its last transactions, the pool the content of a file.
    for (bytes, path) in kept {
        match bytes {
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
            None => drop(std::fs::remove_file(path)),
        }
    }
    truncate(&more.join("file"));
    world.reboot();
    assert!(
        objects(&world)
            .iter()
            .all(|path| !path.ends_with("-more-1"))
    );
    assert!(!more.exists());
    assert_settled(&world);
    // A file of that content is trusted by who brings it again.
    assert_eq!(world.build("tools/more"), more);
    assert_eq!(
        std::fs::read_to_string(more.join("file")).unwrap(),
        "more\n"
    );
}

#[test]
fn what_was_brought_long_ago_is_synced_and_never_looked_at_again() {
    let world = World::new();
    let good = world.build("tools/good");
    assert_ne!(
        count(&world, "SELECT count(*) FROM objects WHERE synced = 0"),
        0
    );
    world.wait_long();
    let before = objects(&world);
    assert_eq!(
        count(&world, "SELECT count(*) FROM objects WHERE synced = 0"),
        0
    );
    assert_eq!(std::fs::read(world.unsynced()).unwrap(), b"");
    // Later another object is brought, and the machine stops.
    world.write("tree/note", "a note");
    let added = world.kiln(&["store", "add", "tree"]);
    assert_eq!(added.status, 0, "{added:?}");
    truncate(&good.join("file"));
    world.reboot();
    let run = world.kiln(&["store", "ls"]);
    assert!(run.stderr.contains("hashing 1 objects (6 B)"), "{run:?}");
    // Damage of another kind is for `verify` to find.
    assert_eq!(run.stdout.lines().count(), before.len() + 1);
    assert_eq!(world.kiln(&["store", "verify"]).status, 1);
    let repaired = world.kiln(&["store", "verify", "--repair"]);
    assert_eq!(repaired.status, 0, "{repaired:?}");
}

#[test]
fn a_store_that_was_synced_is_not_checked_after_a_stop() {
    let world = World::new();
    world.build("tools/good");
    world.wait_long();
    let before = objects(&world);
    assert_eq!(std::fs::read(world.unsynced()).unwrap(), b"");
    let run = world.kiln(&["store", "ls"]);
    assert_eq!((run.stderr.as_str(), objects(&world)), ("", before));
}

#[test]
fn who_comes_while_another_checks_waits_and_says_so() {
    let world = World::new();
    world.build("tools/good");
    world.reboot();
    let held = std::fs::File::open(world.unsynced()).unwrap();
    held.lock().unwrap();
    let mut child = world
        .command(&["store", "ls"])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut lines, &mut said).unwrap();
    assert!(said.starts_with("waiting for another kiln"), "{said}");
    // The other one is done with it.
    std::fs::write(world.unsynced(), "").unwrap();
    held.unlock().unwrap();
    said.clear();
    std::io::BufRead::read_line(&mut lines, &mut said).unwrap();
    assert_eq!(said, "");
    assert!(child.wait().unwrap().success());
}

#[test]
fn cached_layers_are_made_again_after_a_stop() {
    let world = World::new();
    world.build("tools/good");
    world.write(
        "derivations/policies/loose.toml",
        "name = \"loose\"\nsummary = \"x\"\n[policy]\nrules = [\"explained\"]\n",
    );
    world.write(
        "derivations/images/small.toml",
        "name = \"small\"\nversion = \"1\"\nsummary = \"x\"\n[image]\npolicy = \"policies/loose\"\n\
         entrypoint = [\"/file\"]\n[[image.contents]]\npackage = \"tools/good\"\n",
    );
    let first = world.kiln(&["image", "images/small"]);
    assert_eq!(first.status, 0, "{first:?}");
    let layers = world.store().join("images/blobs");
    for layer in std::fs::read_dir(&layers).unwrap() {
        let layer = layer.unwrap().path();
        let length = std::fs::metadata(&layer).unwrap().len();
        std::fs::write(&layer, vec![0; usize::try_from(length).unwrap()]).unwrap();
    }
    world.reboot();
    let again = world.kiln(&["image", "images/small", "-o", "oci:layout"]);
    assert_eq!(again.status, 0, "{again:?}");
}
