//! Damage of every kind is found and named, and mended where it can be.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::world::{MIRROR, World, serve, serve_claiming, truncate, unlock};

/// What a repair left, in words and as a document.
struct Mended {
    status: i32,
    said: Value,
}

impl Mended {
    /// Returns how each object with a name was mended.
    fn how(&self, name: &str) -> Vec<&str> {
        let all = self.said["repaired"].as_array().unwrap();
        all.iter()
            .filter(|one| one["object"].as_str().unwrap().ends_with(name))
            .map(|one| one["how"].as_str().unwrap())
            .collect()
    }
}

fn repair(world: &World) -> Mended {
    let run = world.kiln(&["store", "verify", "--repair", "--json"]);
    let said: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|_| panic!("{run:?}"));
    assert_eq!(said["sound"], run.status == 0, "{run:?}");
    Mended {
        status: run.status,
        said,
    }
}

/// Asserts that damage is found, with words of each problem, and returns what was said.
fn assert_found(world: &World, problems: &[&str]) -> String {
    let run = world.kiln(&["store", "verify"]);
    assert_eq!(run.status, 1, "{run:?}");
    for problem in problems {
        assert!(run.stdout.contains(problem), "{problem}: {run:?}");
    }
    let document = world.kiln(&["store", "verify", "--json"]);
    assert_eq!(document.status, 1);
    let document: Value = serde_json::from_str(&document.stdout).unwrap();
    assert_eq!(document["sound"], false);
    run.stdout
}

fn assert_sound(world: &World) {
    let run = world.kiln(&["store", "verify", "--json"]);
    assert_eq!(run.status, 0, "{run:?}");
    let said: Value = serde_json::from_str(&run.stdout).unwrap();
    let nothing = Value::Array(vec![]);
    for list in ["damage", "pool", "layers", "database", "unrecorded"] {
        assert_eq!(said[list], nothing, "{run:?}");
    }
}

fn database(world: &World) -> rusqlite::Connection {
    rusqlite::Connection::open(world.store().join("kiln.db")).unwrap()
}

/// Changes one byte of a file under all its names.
fn flip(path: &Path) {
    unlock(path, 0o644);
    let mut bytes = std::fs::read(path).unwrap();
    bytes[0] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn lose(object: &Path) {
    unlock(object, 0o755);
    kiln::tree::remove_tree(object).unwrap();
}

/// Returns the object with a name that the store has once.
fn object(world: &World, name: &str) -> PathBuf {
    let found: Vec<PathBuf> = std::fs::read_dir(world.store().join("store"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(name))
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn add(world: &World, name: &str, text: &str) -> PathBuf {
    world.write(&format!("trees/{name}/file"), text);
    let run = world.kiln(&["store", "add", &format!("trees/{name}")]);
    assert_eq!(run.status, 0, "{run:?}");
    object(world, &format!("-{name}"))
}

/// Makes a world with an object of a build that holds one of everything.
fn many() -> (World, PathBuf) {
    let world = World::new();
    world.package(
        "tools/many",
        "",
        "for f in flipped short missing mode time; do echo \"$f of many\" > \"$out/$f\"; done; \
         mkdir \"$out/sub\"; echo sub > \"$out/sub/file\"; ln -s flipped \"$out/link\"",
    );
    let path = world.build("tools/many");
    (world, path)
}

#[test]
fn a_built_object_is_built_again() {
    let (world, path) = many();
    let before = world.kiln(&["store", "ls"]).stdout;
    flip(&path.join("flipped"));
    truncate(&path.join("short"));
    assert_found(
        &world,
        &["/flipped has digest", "/short has 0 bytes instead of 14"],
    );
    let mended = repair(&world);
    assert_eq!(
        (mended.status, mended.how("-many-1")),
        (0, vec!["made again"])
    );
    assert_eq!(
        std::fs::read_to_string(path.join("flipped")).unwrap(),
        "flipped of many\n"
    );
    assert_eq!(world.kiln(&["store", "ls"]).stdout, before);
    assert_sound(&world);
}

#[test]
fn what_is_sound_in_the_pool_needs_no_build() {
    let (world, path) = many();
    for directory in ["", "sub"] {
        unlock(&path.join(directory), 0o755);
    }
    unlock(&path.join("mode"), 0o666);
    let time = std::fs::File::open(path.join("time")).unwrap();
    time.set_modified(std::time::SystemTime::now()).unwrap();
    std::fs::write(path.join("extra"), "").unwrap();
    std::fs::remove_file(path.join("missing")).unwrap();
    std::fs::remove_file(path.join("link")).unwrap();
    std::os::unix::fs::symlink("short", path.join("link")).unwrap();
    std::fs::remove_file(path.join("sub/file")).unwrap();
    std::fs::create_dir(path.join("sub/file")).unwrap();
    assert_found(
        &world,
        &[
            "/mode has mode 0666 instead of 0444",
            "/time has modification time",
            "/extra is not part of the object",
            "/missing is missing",
            "/link points to `short` instead of `flipped`",
            "/sub has mode 0755 instead of 0555",
            "/sub/file is of another kind",
            "-many-1 has mode 0755 instead of 0555",
        ],
    );
    let mended = repair(&world);
    let how = vec!["restored from sound copies"];
    assert_eq!((mended.status, mended.how("-many-1")), (0, how));
    assert_sound(&world);
}

#[test]
fn a_row_without_an_object_and_an_object_without_a_row() {
    let (world, path) = many();
    lose(&path);
    let stray = world.store().join("store/stray");
    std::fs::create_dir(&stray).unwrap();
    assert_found(&world, &["-many-1 is missing", "stray is not recorded"]);
    assert_eq!(repair(&world).status, 0);
    assert!(path.join("flipped").exists() && !stray.exists());
    // Also when the pool has lost its files since.
    lose(&path);
    let collected = world.kiln(&["store", "gc", "--unused-for", "1h"]);
    assert_eq!(collected.status, 0, "{collected:?}");
    let mended = repair(&world);
    assert_eq!(
        (mended.status, mended.how("-many-1")),
        (0, vec!["made again"])
    );
    assert_sound(&world);
}

#[test]
fn fetched_and_unpacked_objects_are_had_again_in_order() {
    let world = World::new();
    let sha256 = serve("/sources/again", b"fetched once more\n");
    let source = format!(
        "[source]\nurls = [\"{}/sources/again\"]\nsha256 = \"{sha256}\"\nunpack = false\n",
        *MIRROR
    );
    world.package("tools/user", &source, "cat again > \"$out/file\"");
    let user = world.build("tools/user");
    let package = object(&world, "host.deb");
    let fetched = object(&world, "-again");
    let root = object(&world, "-host-1");
    flip(&user.join("file"));
    truncate(&fetched.join("again"));
    flip(&root.join("usr/bin/bash"));
    lose(&package);
    let mended = repair(&world);
    assert_eq!(mended.status, 0, "{}", mended.said);
    for name in ["-again", "-host-1", "-user-1"] {
        assert_eq!(mended.how(name).len(), 1, "{name}: {}", mended.said);
    }
    assert_eq!(
        std::fs::read_to_string(user.join("file")).unwrap(),
        "fetched once more\n"
    );
    assert_sound(&world);
}

#[test]
fn what_nothing_makes_is_said_and_the_rest_is_mended() {
    let (world, path) = many();
    let added = add(&world, "added", "added by hand");
    flip(&added.join("file"));
    flip(&path.join("flipped"));
    let run = world.kiln(&["store", "verify", "--repair"]);
    assert_eq!(run.status, 1, "{run:?}");
    let name = added.file_name().unwrap().to_str().unwrap();
    let line = format!(
        "/kiln/store/{name}: not repaired: nothing is recorded that makes it: \
         it was added by hand, or is a working tree"
    );
    assert!(run.stdout.contains(&line), "{run:?}");
    assert!(run.stdout.contains("-many-1: made again"), "{run:?}");
    assert!(
        run.stderr.contains("2 problems are left, in 1 objects"),
        "{run:?}"
    );
    let mended = repair(&world);
    assert_eq!(mended.status, 1);
    assert_eq!(mended.said["repaired"][0]["repaired"], false);
    // As it is said: it goes, and comes back.
    for (arguments, status) in [
        (&["store", "gc"][..], 0),
        (&["store", "add", "trees/added"], 0),
        (&["store", "verify"], 0),
    ] {
        assert_eq!(world.kiln(arguments).status, status, "{arguments:?}");
    }
}

#[test]
fn a_source_that_is_gone_and_a_build_that_varies_are_not_repaired() {
    let world = World::new();
    let sha256 = serve("/sources/gone", b"there once\n");
    let source = format!(
        "[source]\nurls = [\"{}/sources/gone\"]\nsha256 = \"{sha256}\"\nunpack = false\n",
        *MIRROR
    );
    world.package("tools/gone", &source, "cat gone > \"$out/file\"");
    world.package("tools/varies", "", "date +%N > \"$out/file\"");
    world.build("tools/gone");
    let varies = world.build("tools/varies");
    truncate(&object(&world, "-gone").join("gone"));
    truncate(&varies.join("file"));
    serve_claiming("/sources/gone", b"something else\n", 15);
    let mended = repair(&world);
    assert_eq!(mended.status, 1);
    let how = mended.how("-gone");
    assert!(how[0].starts_with("not repaired: cannot fetch"), "{how:?}");
    let how = mended.how("-varies-1");
    assert!(how[0].ends_with("the build is not reproducible"), "{how:?}");
}

#[test]
fn files_of_the_pool_that_are_not_what_they_are_called() {
    let world = World::new();
    let one = add(&world, "one", "one");
    let digest = kiln::hash::BlobDigest::of(b"another").to_string();
    let pool = world.store().join("blobs");
    let (shard, _) = digest.split_at(2);
    std::fs::create_dir_all(pool.join(shard)).unwrap();
    let stale = pool.join(shard).join(&digest);
    std::fs::write(&stale, "stale").unwrap();
    std::fs::write(pool.join("stray"), "").unwrap();
    std::fs::create_dir(pool.join(shard).join("directory")).unwrap();
    assert_found(
        &world,
        &[
            &format!("{digest} has the content of"),
            "blobs/stray is not named after a digest",
            "directory is not named after a digest",
        ],
    );
    assert_eq!(repair(&world).status, 0);
    assert!(!stale.exists());
    assert_sound(&world);
    // Who brings that content now brings it right.
    let other = add(&world, "other", "another");
    assert_eq!(
        std::fs::read_to_string(other.join("file")).unwrap(),
        "another"
    );
    assert!(one.exists());
}

#[test]
fn a_lost_listing_is_read_again_from_a_sound_tree() {
    let world = World::new();
    let (one, two) = (add(&world, "one", "one"), add(&world, "two", "two"));
    database(&world)
        .execute("DELETE FROM listings", [])
        .unwrap();
    flip(&two.join("file"));
    assert_found(
        &world,
        &["-one has a damaged listing", "-two has a damaged listing"],
    );
    let mended = repair(&world);
    assert_eq!(mended.status, 1);
    assert_eq!(mended.how("-one"), ["restored from sound copies"]);
    assert!(mended.how("-two")[0].starts_with("not repaired"));
    assert!(one.join("file").exists());
}

#[test]
fn a_database_that_contradicts_itself_is_named() {
    let world = World::new();
    world.build("tools/good");
    let database = database(&world);
    database
        .execute_batch("PRAGMA foreign_keys = OFF; DELETE FROM actions")
        .unwrap();
    let said = assert_found(
        &world,
        &["kiln.db: a row of `realisations` names none of `actions`"],
    );
    assert_eq!(said.lines().count(), 3, "{said}");
    assert_eq!(repair(&world).status, 1);
}

#[test]
fn a_damaged_layer_is_found_and_made_again() {
    let world = World::new();
    world.write(
        "derivations/policies/loose.toml",
        "name = \"loose\"\nsummary = \"x\"\n[policy]\nrules = [\"explained\"]\n",
    );
    world.write(
        "derivations/images/small.toml",
        "name = \"small\"\nversion = \"1\"\nsummary = \"x\"\n[image]\npolicy = \"policies/loose\"\n\
         entrypoint = [\"/file\"]\n[[image.contents]]\npackage = \"tools/good\"\n",
    );
    let image = world.kiln(&["image", "images/small"]);
    assert_eq!(image.status, 0, "{image:?}");
    for layer in std::fs::read_dir(world.store().join("images/blobs")).unwrap() {
        flip(&layer.unwrap().path());
    }
    assert_found(&world, &["images/blobs/"]);
    assert_eq!(repair(&world).status, 0);
    let again = world.kiln(&["image", "images/small", "-o", "oci:layout"]);
    assert_eq!(again.status, 0, "{again:?}");
    assert_sound(&world);
}

#[test]
fn an_interrupted_repair_is_gone_on_with() {
    let (world, path) = many();
    let good = world.build("tools/good");
    flip(&path.join("flipped"));
    flip(&good.join("file"));
    let child = world
        .command(&["store", "verify", "--repair"])
        .env("KILN_STOP_AT", "replace: recorded")
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let output = crate::concurrent::interrupt_when_stopped(child);
    assert_eq!(output, Some(2));
    let mended = repair(&world);
    assert_eq!(
        (
            mended.status,
            mended.said["repaired"].as_array().unwrap().len()
        ),
        (0, 1)
    );
    assert_sound(&world);
}
