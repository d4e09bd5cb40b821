//! Bad input gets one clear error with file, line and a next step, and exit status 2; the
//! store stays usable. The words are snapshots: they are reviewed like code.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::world::{MIRROR, Run, World, serve, serve_claiming};

/// Runs a build that must fail and returns what was said.
pub fn fails(world: &World, package: &str) -> String {
    let run = world.kiln(&["build", package]);
    let said = refused(run);
    world.assert_usable();
    said
}

/// Returns what a run said that must have failed, from its first error on.
pub fn refused(run: Run) -> String {
    assert_eq!(run.status, 2, "{run:?}");
    assert_eq!(run.stdout, "");
    let said = run
        .stderr
        .split_once("error: ")
        .map(|(_, said)| format!("error: {said}"));
    let said = said.unwrap_or(run.stderr);
    // Machines without the locale of the build environment let bash complain about it.
    let said: Vec<&str> = said
        .lines()
        .filter(|line| !line.contains("setlocale"))
        .collect();
    let said = said.join("\n");
    hide_digests(&said)
}

/// Replaces what differs from machine to machine: digests, and the programs of the host.
pub fn hide_digests(text: &str) -> String {
    let mut result = String::new();
    let mut word = String::new();
    for character in text.chars().chain(['\n']) {
        if character.is_ascii_alphanumeric() {
            word.push(character);
            continue;
        }
        let hidden = matches!(word.len(), 64 | 52) && word.chars().any(|c| c.is_ascii_digit());
        result.push_str(if hidden { "[DIGEST]" } else { &word });
        word.clear();
        result.push(character);
    }
    result.trim_end().to_owned()
}

fn edited(from: &str, to: &str) -> World {
    let world = World::new();
    world.package("tools/bad", "", "touch \"$out/x\"");
    let file = world.path().join("derivations/tools/bad.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
    world
}

#[test]
fn unknown_key() {
    insta::assert_snapshot!(fails(&edited("summary", "sumary"), "tools/bad"));
}

#[test]
fn wrong_type() {
    insta::assert_snapshot!(fails(
        &edited("version = \"1\"", "version = 1"),
        "tools/bad"
    ));
}

#[test]
fn unknown_package() {
    let world = edited(
        "recipe = \"sh\"",
        "recipe = \"sh\"\ninputs = [\"tools/goood\"]",
    );
    insta::assert_snapshot!(fails(&world, "tools/bad"));
    insta::assert_snapshot!(fails(&world, "tools/god"));
}

#[test]
fn dependency_cycle() {
    let world = edited(
        "recipe = \"sh\"",
        "recipe = \"sh\"\ninputs = [\"tools/other\"]",
    );
    let text = std::fs::read_to_string(world.path().join("derivations/tools/bad.toml")).unwrap();
    let text = text
        .replace("name = \"bad\"", "name = \"other\"")
        .replace("tools/other", "tools/bad");
    world.write("derivations/tools/other.toml", &text);
    insta::assert_snapshot!(fails(&world, "tools/bad"));
}

#[test]
fn wrong_sha256() {
    let world = World::new();
    let actual = serve("/sources/other", b"other bytes");
    let source = format!(
        "[source]\nurls = [\"{}/sources/other\"]\nsha256 = \"{}\"\n",
        *MIRROR,
        "0".repeat(63) + "1"
    );
    world.package("tools/bad", &source, "touch \"$out/x\"");
    insta::assert_snapshot!(fails(&world, "tools/bad").replace(&"=".repeat(30), ""));
    let kept = world.store().join("downloads").join(actual.to_string());
    assert_eq!(std::fs::read(kept).unwrap(), b"other bytes");
}

#[test]
fn no_mirror() {
    let world = World::new();
    let sha256 = "0".repeat(63) + "1";
    let source = format!("[source]\nurls = [\"mirror://nowhere/x.tar\"]\nsha256 = \"{sha256}\"\n");
    world.package("tools/bad", &source, "touch \"$out/x\"");
    insta::assert_snapshot!(fails(&world, "tools/bad"));
}

#[test]
fn no_address_answers() {
    let world = World::new();
    let sha256 = "0".repeat(63) + "1";
    let source = format!(
        "[source]\nurls = [\"{}/gone/x.tar\"]\nsha256 = \"{sha256}\"\n",
        *MIRROR
    );
    world.package("tools/bad", &source, "touch \"$out/x\"");
    insta::assert_snapshot!(fails(&world, "tools/bad"));
}

#[test]
fn truncated_download() {
    let world = World::new();
    let sha256 = serve_claiming("/sources/short", b"the first half", 28);
    let source = format!(
        "[source]\nurls = [\"{}/sources/short\"]\nsha256 = \"{sha256}\"\n",
        *MIRROR
    );
    world.package("tools/bad", &source, "touch \"$out/x\"");
    insta::assert_snapshot!(fails(&world, "tools/bad"));
}

/// Returns a package whose source is an archive with one hostile member.
fn hostile(at: &str, name: &str, kind: tar::EntryType, link: &str) -> World {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(0);
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, std::io::empty()).unwrap();
    let sha256 = serve(at, &archive.into_inner().unwrap());
    let world = World::new();
    let source = format!(
        "[source]\nurls = [\"{}{at}\"]\nsha256 = \"{sha256}\"\n",
        *MIRROR
    );
    world.package("tools/bad", &source, "touch \"$out/x\"");
    world
}

#[test]
fn archive_with_dots() {
    let world = hostile("/hostile/dots", "../out", tar::EntryType::Regular, "");
    insta::assert_snapshot!(fails(&world, "tools/bad"));
}

#[test]
fn archive_with_an_absolute_path() {
    let world = hostile(
        "/hostile/absolute",
        "/etc/passwd",
        tar::EntryType::Regular,
        "",
    );
    insta::assert_snapshot!(fails(&world, "tools/bad"));
}

#[test]
fn archive_with_a_link_out() {
    let world = hostile(
        "/hostile/link",
        "link",
        tar::EntryType::Symlink,
        "../../etc",
    );
    insta::assert_snapshot!(fails(&world, "tools/bad"));
}

fn building(install: &str, rest: &str) -> World {
    let world = World::new();
    world.package("tools/bad", "", install);
    let file = world.path().join("derivations/tools/bad.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}{rest}")).unwrap();
    world
}

#[test]
fn build_that_fails() {
    let world = building("echo working; ls /nothing-here; echo never", "");
    insta::assert_snapshot!(fails(&world, "tools/bad"));
}

#[test]
fn build_that_takes_too_long() {
    let world = building("echo waiting; sleep 100", "[build.limits]\ntime = \"1s\"\n");
    insta::assert_snapshot!(fails(&world, "tools/bad"));
}

#[test]
fn build_that_says_too_much() {
    let world = building(
        "while :; do echo more; done",
        "[build.limits]\nlog = \"1MiB\"\n",
    );
    let said = fails(&world, "tools/bad");
    insta::assert_snapshot!(
        said.replace("  | more\n", "")
            .replace("  | mor\n", "")
            .replace("  | mo\n", "")
            .replace("  | m\n", "")
    );
}

#[test]
fn build_without_output() {
    insta::assert_snapshot!(fails(&building(":", ""), "tools/bad"));
}

#[test]
fn build_that_leaves_a_fifo() {
    let world = building("mkdir \"$out/run\"; mkfifo \"$out/run/pipe\"", "");
    insta::assert_snapshot!(fails(&world, "tools/bad"));
}

#[test]
fn build_that_wants_the_network() {
    let port = MIRROR.rsplit(':').next().unwrap();
    let world = building(&format!("exec 3<>/dev/tcp/192.0.2.1/{port}"), "");
    insta::assert_snapshot!(fails(&world, "tools/bad").replace(port, "[PORT]"));
}

#[test]
fn program_that_is_not_static() {
    let world = World::new();
    world.package(
        "tools/bad",
        "[outputs.out]\nlinkage = \"static\"\n",
        "cp /usr/bin/cat \"$out/cat\"",
    );
    insta::assert_snapshot!(fails(&world, "tools/bad"));
}

#[test]
fn store_of_a_newer_kiln() {
    let world = World::new();
    world.build("tools/good");
    let database = rusqlite::Connection::open(world.store().join("kiln.db")).unwrap();
    let current: u32 = database
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    let run = world.kiln(&["build", "tools/good"]);
    assert_eq!(run.status, 2);
    insta::assert_snapshot!(run.stderr);
    database
        .pragma_update(None, "user_version", current)
        .unwrap();
    drop(database);
    world.assert_usable();
}

#[test]
fn store_that_cannot_be_written() {
    let world = World::new();
    // Not even root can make directories there.
    let run = world.run(
        world
            .command(&["build", "tools/good"])
            .env("KILN_STORE", "/proc/kiln"),
    );
    assert_eq!(run.status, 2);
    insta::assert_snapshot!(run.stderr);
}

#[test]
fn full_disk() {
    let world = building("dd if=/dev/zero of=\"$out/large\" bs=1M count=200", "");
    // A file system of its own, in namespaces of its own: no privilege is needed. Root has
    // no other user id in them.
    let script = "mount -t tmpfs -o size=96m none \"$KILN_STORE\" && \
                  \"$@\" build --weak-sandbox tools/bad; \
                  echo \"status $?\" >&2; exec \"$@\" build --weak-sandbox tools/good";
    std::fs::create_dir(world.store()).unwrap();
    let inner = world.command(&[]);
    let mut command = Command::new("unshare");
    command
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "bash",
            "-c",
            script,
            "kiln",
        ])
        .arg(inner.get_program())
        .current_dir(world.path())
        .env_clear()
        .envs(
            inner
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let run = world.run(command.arg0("unshare"));
    assert!(run.stderr.contains("No space left on device"), "{run:?}");
    assert!(run.stderr.contains("hint: free some space"), "{run:?}");
    assert!(run.stderr.contains("status 2"), "{run:?}");
    assert_eq!(
        run.status, 0,
        "the store was not usable afterwards: {run:?}"
    );
}
