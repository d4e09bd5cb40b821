//! What a collection removes and what it leaves, and that it leaves the store whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use kiln::hash::StorePath;
use kiln::store::Store;
use serde_json::Value;

use crate::world::{Run, World};

/// Adds a tree with one file of its own, and one that all have.
fn add(world: &World, name: &str, text: &str) -> String {
    world.write(&format!("trees/{name}/own"), text);
    world.write(&format!("trees/{name}/same"), "the same in all\n");
    let at = format!("trees/{name}");
    document(&world.kiln(&["store", "add", &at, "--json"]))["path"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn document(run: &Run) -> Value {
    assert_eq!(run.status, 0, "{run:?}");
    serde_json::from_str(&run.stdout).unwrap()
}

fn objects(world: &World) -> BTreeSet<String> {
    let run = world.kiln(&["store", "ls"]);
    assert_eq!(run.status, 0, "{run:?}");
    run.stdout.lines().map(str::to_owned).collect()
}

/// Runs a collection; returns how many objects and files it removed.
fn collect(world: &World, limits: &[&str]) -> (u64, u64) {
    let mut arguments = vec!["store", "gc", "--json"];
    arguments.extend(limits);
    let said = document(&world.kiln(&arguments));
    assert_whole(world);
    let number = |name: &str| said[name].as_u64().unwrap();
    (number("objects"), number("files"))
}

/// Asserts that nothing is damaged, unrecorded, or in the pool without an object.
fn assert_whole(world: &World) {
    let verified = document(&world.kiln(&["store", "verify", "--json"]));
    for empty in ["damage", "pool", "unrecorded"] {
        assert_eq!(verified[empty], Value::Array(vec![]), "{verified}");
    }
    assert_eq!(verified["unused_files"], 0, "{verified}");
}

fn run(world: &World, arguments: &[&str]) {
    let run = world.kiln(arguments);
    assert_eq!(run.status, 0, "{run:?}");
}

/// Sets when an object was last used, in seconds since 1970.
fn used(world: &World, object: &str, at: i64) {
    let base = object.rsplit('/').next().unwrap();
    let database = rusqlite::Connection::open(world.store().join("kiln.db")).unwrap();
    let changed = database
        .execute(
            "UPDATE objects SET used_at = ?2 WHERE path = ?1",
            rusqlite::params![base, at],
        )
        .unwrap();
    assert_eq!(changed, 1);
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

fn store_path(object: &str) -> StorePath {
    StorePath::from_base_name(object.rsplit('/').next().unwrap()).unwrap()
}

#[test]
fn roots_by_name_and_by_link_keep_what_they_need_until_they_end() {
    let world = World::new();
    let needed = add(&world, "needed", "needed");
    let named = add(&world, "named", &needed);
    let linked = add(&world, "linked", "linked");
    let loose = add(&world, "loose", "loose");
    run(&world, &["store", "roots", "add", "mine", &named]);
    let link = world.path().join("result");
    let store = Store::open(&world.store()).unwrap();
    store.link(&link, &store_path(&linked)).unwrap();
    let said = world.kiln(&["store", "roots", "ls"]);
    let lines = format!("mine -> {named}\n[DIR]/result -> {linked}\n");
    assert_eq!(said.stdout, lines);
    assert_eq!(
        document(&world.kiln(&["store", "roots", "--json"])),
        serde_json::json!({ "roots": [
            { "kind": "name", "name": "mine", "path": named },
            { "kind": "link", "name": "[DIR]/result", "path": linked },
        ] })
    );
    assert_eq!(collect(&world, &[]), (1, 1));
    let left = BTreeSet::from([needed.clone(), named.clone(), linked.clone()]);
    assert_eq!(objects(&world), left);
    assert!(!left.contains(&loose));
    // The link leads to another object now.
    store.link(&link, &store_path(&needed)).unwrap();
    assert_eq!(collect(&world, &[]), (1, 1));
    run(&world, &["store", "roots", "rm", "mine"]);
    assert_eq!(collect(&world, &[]), (1, 1));
    assert_eq!(objects(&world), BTreeSet::from([needed]));
    std::fs::remove_file(link).unwrap();
    assert_eq!(collect(&world, &[]), (1, 2));
    assert_eq!(world.kiln(&["store", "roots"]).stdout, "");
}

#[test]
fn a_link_never_takes_the_place_of_something_else() {
    let world = World::new();
    let object = add(&world, "object", "object");
    let store = Store::open(&world.store()).unwrap();
    let file = world.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let error = store.link(&file, &store_path(&object)).unwrap_err();
    assert!(error.to_string().starts_with("cannot make the link"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    assert_eq!(world.kiln(&["store", "roots"]).stdout, "");
}

#[test]
fn a_root_is_moved_and_a_wrong_one_refused() {
    let world = World::new();
    let (one, two) = (add(&world, "one", "one"), add(&world, "two", "two"));
    run(&world, &["store", "roots", "add", "mine", &one]);
    run(&world, &["store", "roots", "add", "mine", &two]);
    assert_eq!(collect(&world, &[]), (1, 1));
    assert_eq!(objects(&world), BTreeSet::from([two.clone()]));
    for (arguments, words) in [
        (["add", "a/b", &two], "`a/b` cannot be the name of a root"),
        (["add", "", &two], "`` cannot be the name of a root"),
        (["add", "mine", &one], "is not in the store"),
    ] {
        let mut all = vec!["store", "roots"];
        all.extend(arguments);
        let run = world.kiln(&all);
        assert_eq!(run.status, 2, "{run:?}");
        assert!(run.stderr.contains(words), "{run:?}");
    }
    let run = world.kiln(&["store", "roots", "rm", "other"]);
    assert_eq!(run.status, 2, "{run:?}");
    assert!(run.stderr.contains("there is no root `other`"), "{run:?}");
    assert_eq!(
        world.kiln(&["store", "roots"]).stdout,
        format!("mine -> {two}\n")
    );
}

#[test]
fn what_a_running_build_uses_stays() {
    let world = World::new();
    let good = world.build("tools/good");
    world.user_of_good("tools/slow", "echo started; sleep 300");
    let running = world.start_build("tools/slow");
    let before = objects(&world);
    let loose = add(&world, "loose", "loose");
    let plan = world.kiln(&["store", "gc", "--dry-run"]);
    let base = good.file_name().unwrap().to_str().unwrap();
    let line = format!("keep /kiln/store/{base}: a running kiln uses it\n");
    assert!(plan.stdout.contains(&line), "{plan:?}");
    assert!(plan.stdout.starts_with(&format!("remove {loose}:")));
    assert_eq!(collect(&world, &[]).0, 1);
    assert_eq!(objects(&world), before);
    assert!(good.join("file").exists());
    drop(running);
    assert_eq!(collect(&world, &[]).0, before.len() as u64);
    assert_eq!(objects(&world), BTreeSet::new());
    world.assert_usable();
}

#[test]
fn what_was_used_lately_stays_with_all_that_it_needs() {
    let world = World::new();
    let needed = add(&world, "needed", "needed");
    let young = add(&world, "young", &needed);
    let old = add(&world, "old", &format!("old {needed}"));
    let day = 86400;
    used(&world, &needed, now() - 30 * day);
    used(&world, &young, now() - day);
    used(&world, &old, now() - 30 * day);
    assert_eq!(collect(&world, &["--unused-for", "8w"]), (0, 0));
    assert_eq!(collect(&world, &["--unused-for", "10d"]), (1, 1));
    assert_eq!(
        objects(&world),
        BTreeSet::from([needed.clone(), young.clone()])
    );
    assert_eq!(collect(&world, &["--unused-for", "12h"]), (2, 3));
}

#[test]
fn a_build_that_finds_its_outputs_notes_their_use() {
    let world = World::new();
    let good = world.build("tools/good");
    let object = format!("/{}", good.file_name().unwrap().to_str().unwrap());
    used(&world, &object, 1000);
    run(&world, &["build", "tools/good"]);
    collect(&world, &["--unused-for", "1h"]);
    assert!(good.exists());
    used(&world, &object, 1000);
    assert_eq!(collect(&world, &["--unused-for", "1h"]).0, 1);
    assert!(!good.exists());
}

#[test]
fn a_budget_takes_what_was_used_least_lately() {
    let world = World::new();
    let kilobyte = "x".repeat(1023);
    let names: Vec<String> = (0..4)
        .map(|number| {
            add(
                &world,
                &format!("n{number}"),
                &format!("{kilobyte}{number}"),
            )
        })
        .collect();
    for (name, at) in names.iter().zip([40, 20, 30, 10]) {
        used(&world, name, at);
    }
    // Four files of 1024 bytes, and one that all share.
    let left = |numbers: &[usize]| -> BTreeSet<String> {
        numbers
            .iter()
            .map(|number| names[*number].clone())
            .collect()
    };
    assert_eq!(collect(&world, &["--max-size", "5k"]), (0, 0));
    assert_eq!(collect(&world, &["--max-size", "3200"]), (1, 1));
    assert_eq!(objects(&world), left(&[0, 1, 2]));
    assert_eq!(collect(&world, &["--max-size", "2k"]), (2, 2));
    assert_eq!(objects(&world), left(&[0]));
    run(&world, &["store", "roots", "add", "kept", &names[0]]);
    assert_eq!(collect(&world, &["--max-size", "0"]), (0, 0));
    run(&world, &["store", "roots", "rm", "kept"]);
    assert_eq!(collect(&world, &["--max-size", "0"]), (1, 2));
}

#[test]
fn a_dry_run_says_what_would_go_and_why_and_changes_nothing() {
    let world = World::new();
    let needed = add(&world, "needed", "needed");
    let rooted = add(&world, "rooted", &needed);
    let young = add(&world, "young", "young");
    let old = add(&world, "old", &needed);
    run(&world, &["store", "roots", "add", "mine", &rooted]);
    used(&world, &old, now() - 40 * 86400);
    let said = world.kiln(&["store", "gc", "--dry-run", "--unused-for", "30d"]);
    let mut kept = [
        (&needed, "the root `mine` needs it"),
        (&rooted, "the root `mine` needs it"),
        (&young, "it was used lately"),
    ];
    kept.sort_by_key(|(path, _)| store_path(path));
    let kept = kept.map(|(path, why)| format!("keep {path}: {why}"));
    assert_eq!(
        said.stdout,
        format!(
            "remove {old}: nothing keeps it, last used 40d ago\n{}\n",
            kept.join("\n")
        )
    );
    let limits = ["store", "gc", "-n", "--max-size", "1G", "--json"];
    let plan = document(&world.kiln(&limits));
    assert_eq!(plan["removed"], Value::Array(vec![]));
    let kept = plan["kept"].as_array().unwrap();
    assert_eq!(kept.len(), 4);
    let because = |path: &str| {
        let found = kept.iter().find(|kept| kept["path"] == path).unwrap();
        found["because"].as_str().unwrap().to_owned()
    };
    assert_eq!(because(&old), "the store is small enough");
    assert_eq!(because(&rooted), "the root `mine` needs it");
    let plan = document(&world.kiln(&["store", "gc", "--dry-run", "--json"]));
    let removed: Vec<_> = plan["removed"].as_array().unwrap().iter().collect();
    assert_eq!(removed[0]["path"], old.as_str());
    assert_eq!(removed[1]["path"], young.as_str());
    assert_eq!(removed.len(), 2);
    assert_eq!(
        objects(&world),
        BTreeSet::from([needed, rooted, young, old])
    );
    assert_whole(&world);
}

#[test]
fn an_interrupted_collection_leaves_a_sound_store_and_is_gone_on_with() {
    let world = World::new();
    let count = 600;
    {
        let store = Store::open(&world.store()).unwrap();
        for number in 0..count {
            let tree = format!("trees/{number}");
            world.write(&format!("{tree}/own"), &number.to_string());
            store
                .add_copy(&world.path().join(tree), &"x".parse().unwrap())
                .unwrap();
        }
    }
    let mut child = world
        .command(&["store", "gc"])
        .env("KILN_STOP_AT", "remove: done")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = child.stderr.take().unwrap();
    let status = crate::concurrent::interrupt_when_stopped(child);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut errors, &mut said).unwrap();
    assert_eq!(status, Some(2), "{said}");
    insta::assert_snapshot!(said);
    assert_whole(&world);
    let left = objects(&world).len();
    assert_eq!(left, count - 512);
    assert_eq!(collect(&world, &[]).0, left as u64);
    assert_eq!(objects(&world), BTreeSet::new());
}

#[test]
fn one_collects_at_a_time() {
    let world = World::new();
    add(&world, "one", "one");
    let lock = std::fs::File::open(world.store().join("locks/collection"));
    let lock = lock.or_else(|_| std::fs::File::create(world.store().join("locks/collection")));
    let lock = lock.unwrap();
    lock.lock().unwrap();
    let run = world.kiln(&["store", "gc"]);
    assert_eq!(run.status, 2);
    insta::assert_snapshot!(run.stderr);
}

#[test]
fn an_action_whose_output_went_is_done_again_for_all_of_them() {
    let world = World::new();
    world.package(
        "tools/both",
        "[outputs.out]\n[outputs.dev]\n",
        "echo out > \"$out/file\"; echo dev > \"$dev/file\"",
    );
    let first = world.kiln(&["build", "tools/both"]);
    assert_eq!((first.status, first.stdout.lines().count()), (0, 2));
    let base = first.stdout.lines().next().unwrap().rsplit('/').next();
    let kept = format!("/kiln/store/{}", base.unwrap());
    run(&world, &["store", "roots", "add", "mine", &kept]);
    run(&world, &["store", "roots", "add", "seed", "seed/host"]);
    collect(&world, &[]);
    let again = world.kiln(&["build", "tools/both"]);
    assert_eq!((again.status, again.stdout), (0, first.stdout));
    assert!(
        again.stderr.contains("built tools/both"),
        "{}",
        again.stderr
    );
    assert_whole(&world);
}

#[test]
fn downloads_and_layers_that_nobody_used_for_a_day_go() {
    let world = World::new();
    add(&world, "one", "one");
    let file = |path: &str, days: u64| -> PathBuf {
        world.write(&format!("store/{path}"), "bytes");
        let path = world.store().join(path);
        let at = SystemTime::now() - Duration::from_secs(days * 86400 + 60);
        let file = std::fs::File::options().append(true).open(&path).unwrap();
        // A layer was used when it was last read, whenever it was made.
        let made = if path.to_string_lossy().contains("images") {
            SystemTime::UNIX_EPOCH
        } else {
            at
        };
        let times = std::fs::FileTimes::new()
            .set_modified(made)
            .set_accessed(at);
        file.set_times(times).unwrap();
        path
    };
    let old = [
        file("downloads/download-abc", 1),
        file(&format!("downloads/{}", "a".repeat(64)), 1),
        file("images/blobs/layer-abc", 2),
        file(&format!("images/blobs/{}", "b".repeat(64)), 2),
    ];
    let young = [
        file("downloads/download-def", 0),
        file("images/blobs/layer-def", 0),
    ];
    assert_eq!(collect(&world, &["--unused-for", "1h"]), (0, 4));
    assert!(!old.iter().any(|path| path.exists()));
    assert!(young.iter().all(|path| Path::exists(path)));
}
