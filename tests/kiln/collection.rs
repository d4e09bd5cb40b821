//! Builds that try to fool the step that collects what they leave behind.

use std::fs::{File, Permissions, TryLockError};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln::tree::scan::{scan_files, walk};
use kiln::tree::{TreeError, TreeRoot, Wanted};

use crate::world::{MIRROR, Running, World, serve};

/// The program of the sandbox's own tests, for what a shell cannot do.
static PROBE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let made = directory.path().join("probe");
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-O1", "-o"]).arg(&made);
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/sandbox/tests/escape/probe");
    for entry in std::fs::read_dir(sources).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "c") {
            compiler.arg(path);
        }
    }
    let output = compiler.output().expect("these tests need `cc`");
    assert!(output.status.success(), "{output:?}");
    std::fs::read(made).unwrap()
});

/// Writes a package whose script can call `/tmp/probe`.
fn with_probe(world: &World, name: &str, script: &str) {
    let sha256 = serve("/sources/probe", &PROBE);
    world.package(
        name,
        &format!(
            "[sources.probe]\nurls = [\"{}/sources/probe\"]\nsha256 = \"{sha256}\"\nunpack = false\n",
            *MIRROR
        ),
        &format!("cp /build/probe/probe /tmp/probe; chmod 755 /tmp/probe\n{script}"),
    );
}

/// Asserts that a build fails, says why, and leaves nothing but a store that works.
fn fails_saying(world: &World, package: &str, words: &str) {
    let run = world.kiln(&["build", package]);
    assert_eq!(run.status, 2, "{run:?}");
    assert!(run.stderr.contains(words), "{run:?}");
    assert_nothing_left(world);
    world.assert_usable();
}

fn assert_nothing_left(world: &World) {
    let left = std::fs::read_dir(world.store().join("tmp")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn a_link_to_the_host_is_kept_as_it_is_and_not_followed() {
    let world = World::new();
    world.write("private/file", "private\n");
    let (directory, file) = (
        world.path().join("private"),
        world.path().join("private/file"),
    );
    std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let before = std::fs::metadata(&file).unwrap();
    world.package(
        "tools/links",
        "",
        &format!(
            "ln -s {0} \"$out/directory\"; ln -s {0}/file \"$out/file\"; ln -s / \"$out/root\"",
            directory.display()
        ),
    );
    let path = world.build("tools/links");
    for (name, target) in [
        ("directory", directory),
        ("file", file.clone()),
        ("root", "/".into()),
    ] {
        assert_eq!(std::fs::read_link(path.join(name)).unwrap(), target);
        // Whoever follows it does reach the host.
        assert!(path.join(name).exists());
    }
    let after = std::fs::metadata(&file).unwrap();
    assert_eq!(
        (after.mode(), after.mtime(), after.nlink(), after.ctime()),
        (
            before.mode(),
            before.mtime(),
            before.nlink(),
            before.ctime()
        )
    );
    let found = walk(&TreeRoot::open(&path).unwrap()).unwrap();
    assert_eq!(found.len(), 3, "{found:?}");
    world.assert_usable();
}

#[test]
fn an_input_cannot_become_part_of_an_output_by_a_hard_link() {
    let world = World::new();
    let file = world.build("tools/good").join("file");
    let links = std::fs::metadata(&file).unwrap().nlink();
    world.user_of_good(
        "tools/thief",
        "ln \"$good/file\" \"$out/file\"; chmod 777 \"$out/file\"",
    );
    let run = world.kiln(&["build", "tools/thief"]);
    assert_eq!(run.status, 2, "{run:?}");
    let found = std::fs::metadata(&file).unwrap();
    assert_eq!((found.mode() & 0o7777, found.nlink()), (0o444, links));
    // The twin: on one file system, and not in a sandbox, the link is made.
    std::fs::hard_link(&file, world.path().join("twin")).unwrap();
}

#[test]
fn a_socket_is_no_part_of_an_object() {
    let world = World::new();
    let script = "/tmp/probe listen \"$out/socket\" & while ! test -S \"$out/socket\"; do :; done";
    with_probe(&world, "tools/socket", script);
    fails_saying(&world, "tools/socket", "`socket` is a socket");
}

#[test]
fn a_fifo_in_the_place_of_a_file_does_not_stop_the_collection() {
    let world = World::new();
    world.package("tools/fifo", "", "touch \"$out/a\"; mkfifo \"$out/b\"");
    fails_saying(&world, "tools/fifo", "`b` is a FIFO");
}

#[test]
fn an_output_cannot_be_replaced() {
    let world = World::new();
    world.package(
        "tools/gone",
        "",
        "! rm -r \"$out\" 2>/dev/null; ! ln -sfT / \"$out\" 2>/dev/null; \
         test -d \"$out\"; test ! -L \"$out\"; echo kept > \"$out/file\"",
    );
    let path = world.build("tools/gone");
    assert_eq!(
        std::fs::read_to_string(path.join("file")).unwrap(),
        "kept\n"
    );
}

/// Such a tree cannot be named, deleted or walked by paths.
#[test]
fn a_tree_deeper_than_any_path_is_refused_and_cleared_away() {
    let world = World::new();
    let long = "d".repeat(200);
    world.package(
        "tools/deep",
        "",
        &format!(
            "cd \"$out\"; for i in $(seq 60); do mkdir {long}; cd -P {long} 2>/dev/null; done"
        ),
    );
    let run = world.kiln(&["build", "tools/deep"]);
    assert_eq!(run.status, 2, "{run:?}");
    assert_nothing_left(&world);
    world.assert_usable();
    let gc = world.kiln(&["store", "gc"]);
    assert_eq!(gc.status, 0, "{gc:?}");
}

#[test]
fn a_sparse_file_of_100_gib_is_refused() {
    let world = World::new();
    let script = "dd if=/dev/null of=\"$out/file\" bs=1 seek=107374182400 count=0";
    world.package("tools/sparse", "", script);
    let run = world.kiln(&["build", "tools/sparse"]);
    assert_eq!(run.status, 2, "{run:?}");
    assert_nothing_left(&world);
}

/// Nobody but the owner can reach a build while it runs: no descriptor comes out through
/// a socket in a work directory, and no other user plants anything in it.
#[test]
fn the_work_directory_is_the_owner_s_alone() {
    let world = World::new();
    let child = world.start_slow_build();
    let scratch: Vec<PathBuf> = std::fs::read_dir(world.store().join("tmp"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("build").is_dir())
        .collect();
    let modes: Vec<u32> = scratch
        .iter()
        .map(|path| std::fs::metadata(path).unwrap().mode() & 0o7777)
        .collect();
    drop(child);
    assert_eq!(modes, [0o700]);
}

/// The build holds a lock on a file of its output, which the host can see.
#[test]
fn a_build_dies_with_kiln() {
    let world = World::new();
    with_probe(
        &world,
        "tools/lasting",
        "exec /tmp/probe deaf \"$out/lock\"",
    );
    let child = world
        .command(&["build", "-v", "tools/lasting"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Running(child);
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("deaf")));
    let held = std::fs::read_dir(world.store().join("tmp"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("outputs/out/lock"))
        .find(|path| path.exists())
        .unwrap();
    let lock = File::open(held).unwrap();
    assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    drop(child);
    // Returns when every process of the build is dead, however long that takes.
    lock.lock().unwrap();
    world.assert_usable();
}

/// Makes two directories with a file each, and beside them a directory that is private.
fn tree(base: &Path) {
    for name in ["tree/one", "tree/two", "private"] {
        std::fs::create_dir_all(base.join(name)).unwrap();
    }
    for (name, text) in [
        ("tree/one", "own"),
        ("tree/two", "own"),
        ("private", "private"),
    ] {
        std::fs::write(base.join(name).join("file"), text).unwrap();
    }
}

/// Puts a link to the private directory where each directory was.
fn swap(base: &Path) {
    for name in ["one", "two"] {
        std::fs::rename(base.join("tree").join(name), base.join(name)).unwrap();
        symlink("../private", base.join("tree").join(name)).unwrap();
    }
}

#[test]
fn a_directory_that_becomes_a_link_during_collection_leads_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path();
    tree(base);
    let root = TreeRoot::open(&base.join("tree")).unwrap();
    let swapped = AtomicBool::new(false);
    // One thread: the first file is open when both directories are swapped, the second
    // is not.
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    let scanned = pool.install(|| {
        scan_files(&root, &Wanted::default(), &|file, _, search| {
            if !swapped.swap(true, Ordering::Relaxed) {
                swap(base);
            }
            let text = std::io::read_to_string(file)?;
            assert_eq!(text, "own");
            search(text.as_bytes());
            Ok((kiln::hash::BlobDigest::of(text.as_bytes()), 3))
        })
    });
    match scanned {
        Err(TreeError::Access { source, .. }) => {
            assert_eq!(source.raw_os_error(), Some(nix::libc::ELOOP));
        }
        other => panic!("{other:?}"),
    }
    // The twin: whoever goes by path reads the private file now.
    let by_path = std::fs::read_to_string(base.join("tree/two/file"));
    assert_eq!(by_path.unwrap(), "private");
}

#[test]
fn a_tree_that_becomes_a_link_during_deletion_takes_nothing_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path();
    tree(base);
    swap(base);
    kiln::tree::remove_tree(&base.join("tree")).unwrap();
    assert!(!base.join("tree").exists());
    let private = std::fs::read_to_string(base.join("private/file"));
    assert_eq!(private.unwrap(), "private");
}
