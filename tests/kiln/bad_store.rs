//! Stores in which something is wrong: the database, the disk, the permission to write.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::messages::hide_digests;
use crate::world::{Run, World, unlock};

/// Asserts that a command is refused and leaves the database as it is.
fn refused(world: &World, arguments: &[&str]) -> String {
    let database = world.store().join("kiln.db");
    let before = std::fs::read(&database).unwrap();
    let run = world.kiln(arguments);
    assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{run:?}");
    assert_eq!(std::fs::read(&database).unwrap(), before);
    run.stderr
}

/// Makes a store with two objects whose database is closed, and all on the disk.
fn world() -> (World, String) {
    let world = World::new();
    for name in ["one", "two"] {
        world.write(&format!("trees/{name}/file"), name);
        let run = world.kiln(&["store", "add", &format!("trees/{name}")]);
        assert_eq!(run.status, 0, "{run:?}");
    }
    world.wait_long();
    let listed = world.kiln(&["store", "ls"]);
    assert_eq!(listed.status, 0, "{listed:?}");
    (world, listed.stdout)
}

#[test]
fn a_database_that_is_not_one() {
    let (world, listed) = world();
    let path = world.store().join("kiln.db");
    let sound = std::fs::read(&path).unwrap();
    let mut said = String::new();
    for (what, bytes) in [
        ("garbage", vec![0xab; 8192]),
        ("its first page", sound[..4096].to_vec()),
        ("its first bytes", sound[..50].to_vec()),
        ("nothing", Vec::new()),
    ] {
        std::fs::write(&path, bytes).unwrap();
        for command in [&["store", "ls"][..], &["build", "tools/good"]] {
            let words = refused(&world, command);
            said.push_str(&format!("== {what}: {}\n{words}", command.join(" ")));
        }
    }
    insta::assert_snapshot!(said);
    // With the file put back, everything is there.
    std::fs::write(&path, sound).unwrap();
    assert_eq!(world.kiln(&["store", "ls"]).stdout, listed);
    world.assert_usable();
}

#[test]
fn a_database_of_which_a_part_is_damaged_is_found_so() {
    let (world, _) = world();
    let path = world.store().join("kiln.db");
    let mut bytes = std::fs::read(&path).unwrap();
    // Everything after the first page, where the tables' own description is.
    for byte in &mut bytes[4096..] {
        *byte = 0xab;
    }
    std::fs::write(&path, bytes).unwrap();
    let words = refused(&world, &["store", "verify"]);
    insta::assert_snapshot!(words);
}

/// Runs a shell script with `kiln` as `$@`, where it may mount.
fn in_namespace(world: &World, script: &str) -> Run {
    let inner = world.command(&[]);
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "bash", "-c"])
        .args([script, "kiln"])
        .arg(inner.get_program())
        .current_dir(world.path())
        .env_clear()
        .envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    world.run(command.arg0("unshare"))
}

/// Lets the store lie on a file system that cannot be written.
const READ_ONLY: &str = "mount --bind \"$KILN_STORE\" \"$KILN_STORE\" && \
                         mount -o remount,ro,bind \"$KILN_STORE\" || exit 99; ";

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_store_that_can_only_be_read_can_be_looked_at() {
    let world = World::new();
    world.user_of_good("tools/user", "echo \"see $good/file\" > \"$out/note\"");
    let user = world.build("tools/user");
    let base = user.file_name().unwrap().to_str().unwrap();
    let added = world.kiln(&["store", "roots", "add", "mine", "tools/user"]);
    assert_eq!(added.status, 0, "{added:?}");
    let looks = [
        "build tools/user",
        "closure tools/user",
        "why tools/user tools/good",
        "show tools/user",
        "log tools/user",
        "store ls",
        "store usage",
        "store verify",
        "store roots",
        "store export tools/user -o stream",
        &format!("store cat /kiln/store/{base}/note"),
    ];
    for look in looks {
        let writable = world.kiln(&look.split(' ').collect::<Vec<_>>());
        let read = in_namespace(&world, &format!("{READ_ONLY}\"$@\" {look}"));
        assert_eq!(read.status, 0, "{look}: {read:?}");
        assert_eq!(read.stdout, writable.stdout, "{look}");
    }
    let mut said = String::new();
    for change in [
        "store add derivations",
        "store gc",
        "store roots add x tools/user",
        "store import stream",
    ] {
        let run = in_namespace(&world, &format!("{READ_ONLY}\"$@\" {change}"));
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{run:?}");
        said.push_str(&format!("== {change}\n{}", run.stderr));
    }
    insta::assert_snapshot!(said);
    world.assert_usable();
}

#[test]
fn a_store_that_can_only_be_read_shows_what_was_written_last() {
    let (world, listed) = world();
    // A process that is killed leaves its last transactions beside the database.
    world.write("trees/three/file", "three");
    let mut command = world.command(&["store", "add", "trees/three"]);
    command.env("KILN_CRASH_AT", "register: done");
    assert!(!command.status().unwrap().success());
    assert!(files(&world.store()).contains(&"kiln.db-wal".to_owned()));
    for also in ["", "rm \"$KILN_STORE/kiln.db-shm\"; "] {
        let script = format!("{also}{READ_ONLY}\"$@\" store ls");
        let run = in_namespace(&world, &script);
        assert_eq!(run.status, 0, "{run:?}");
        let three: Vec<&str> = run.stdout.lines().collect();
        assert_eq!(three.len(), listed.lines().count() + 1, "{run:?}");
    }
}

#[test]
fn an_older_store_that_can_only_be_read() {
    let (world, _) = world();
    let database = rusqlite::Connection::open(world.store().join("kiln.db")).unwrap();
    database.pragma_update(None, "user_version", 1).unwrap();
    drop(database);
    let run = in_namespace(&world, &format!("{READ_ONLY}\"$@\" store ls"));
    assert_eq!(run.status, 2, "{run:?}");
    insta::assert_snapshot!(run.stderr);
}

/// Lets the store lie on a small file system in memory.
const SMALL: &str = "mount -t tmpfs -o size=48m none \"$KILN_STORE\" || exit 99; ";

#[test]
fn a_full_disk_ends_an_addition_and_leaves_nothing_of_it() {
    let world = World::new();
    std::fs::create_dir(world.store()).unwrap();
    world.write("trees/small/file", "small");
    let large = world.path().join("trees/large/b");
    world.write("trees/large/a", "it comes before the large one");
    let file = std::fs::File::create(large).unwrap();
    file.set_len(100 << 20).unwrap();
    let script = "\"$@\" store add trees/large; echo \"status $?\" >&2; \
                  find \"$KILN_STORE/blobs\" \"$KILN_STORE/tmp\" -type f; \
                  \"$@\" store add trees/small >&2 && exec \"$@\" store verify";
    let run = in_namespace(&world, &format!("{SMALL}{script}"));
    assert_eq!((run.status, run.stdout.as_str()), (0, ""), "{run:?}");
    let (said, rest) = run.stderr.split_once("status 2\n").unwrap();
    assert!(rest.contains("-small\n"), "{run:?}");
    insta::assert_snapshot!(hide_digests(said));
}

#[test]
fn a_full_disk_ends_an_import_and_leaves_nothing_of_it() {
    let world = World::new();
    world.write("trees/large/a", "it comes before the large one");
    let large = world.path().join("trees/large/b");
    let file = std::fs::File::create(large).unwrap();
    file.set_len(60 << 20).unwrap();
    let run = world.kiln(&["store", "add", "trees/large", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let path = document["path"].as_str().unwrap();
    let run = world.kiln(&["store", "export", path, "-o", "stream"]);
    assert_eq!(run.status, 0, "{run:?}");
    world.write("trees/small/file", "small");
    let script = "\"$@\" store import stream; echo \"status $?\" >&2; \
                  find \"$KILN_STORE/blobs\" \"$KILN_STORE/tmp\" -type f; \
                  \"$@\" store add trees/small >&2 && exec \"$@\" store verify";
    let run = in_namespace(&world, &format!("{SMALL}{script}"));
    assert_eq!((run.status, run.stdout.as_str()), (0, ""), "{run:?}");
    let (said, _) = run.stderr.split_once("status 2\n").unwrap();
    insta::assert_snapshot!(hide_digests(said));
}

#[test]
fn a_full_disk_while_outputs_are_added_leaves_nothing_in_the_pool() {
    let world = World::new();
    // The output fits. A file with two names is copied when it is added, which does not.
    world.package(
        "tools/large",
        "",
        "echo a > \"$out/a\"; dd if=/dev/zero of=\"$out/file\" bs=1M count=64; \
         ln \"$out/file\" \"$out/link\"",
    );
    std::fs::create_dir(world.store()).unwrap();
    let script = "mount -t tmpfs -o size=100m none \"$KILN_STORE\" || exit 99; \
                  \"$@\" build --weak-sandbox tools/large; echo \"status $?\" >&2; \
                  find \"$KILN_STORE/blobs\" -type f -links 1; exec \"$@\" store verify";
    let run = in_namespace(&world, script);
    assert_eq!((run.status, run.stdout.as_str()), (0, ""), "{run:?}");
    assert!(run.stderr.contains("status 2"), "{run:?}");
    assert!(run.stderr.contains("hint: free some space"), "{run:?}");
    assert!(run.stderr.contains("cannot copy"), "{run:?}");
}

#[test]
fn a_large_file_is_added_in_little_memory() {
    let world = World::new();
    world.write("trees/large/small", "small");
    let file = std::fs::File::create(world.path().join("trees/large/file")).unwrap();
    file.set_len(256 << 20).unwrap();
    let inner = world.command(&["store", "add", "trees/large"]);
    let mut command = Command::new("bash");
    command
        // Of addresses, in KiB: the program, its threads' stacks, and their buffers.
        .args(["-c", "ulimit -v 200000; exec \"$@\"", "bash"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .current_dir(world.path())
        .env_clear()
        .envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("RAYON_NUM_THREADS", "2");
    let run = world.run(&mut command);
    assert_eq!(run.status, 0, "{run:?}");
    unlock(world.path(), 0o755);
}
