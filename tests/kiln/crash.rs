//! Killed at any point of any change, a process leaves a store that the next command
//! opens, finds whole, and in which nothing is missing that was there before.
//!
//! Each change is first run to its end, which lists the points that it passes
//! (`src/store/crash.rs`), and then killed at each of them, in a copy of the store.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::world::{World, serve, truncate, unlock};

/// A change of the store.
struct Change {
    name: &'static str,
    world: World,
    command: Vec<String>,
    /// Its exit status when nobody kills it.
    status: i32,
    /// Whether it adds several things one after the other.
    steps: bool,
    /// Occurrences of one point that are tried.
    most: usize,
}

impl Change {
    fn new(name: &'static str, world: World, command: &[&str]) -> Self {
        Self {
            name,
            world,
            command: command.iter().map(|&word| word.to_owned()).collect(),
            status: 0,
            steps: false,
            most: 2,
        }
    }

    fn kiln(&self, store: &Path, arguments: &[&str]) -> Command {
        let mut command = self.world.command(arguments);
        command.env("KILN_STORE", store);
        command
    }

    fn step(&self, store: &Path) -> Command {
        let words: Vec<&str> = self.command.iter().map(String::as_str).collect();
        self.kiln(store, &words)
    }

    /// Runs a command that must end with a status, and returns its lines.
    fn run(&self, what: &str, command: &mut Command, status: i32) -> Vec<String> {
        let run = self.world.run(command);
        assert_eq!(run.status, status, "{}, {what}: {run:?}", self.name);
        run.stdout.lines().map(str::to_owned).collect()
    }

    /// Returns what `verify` finds.
    fn damage(&self, what: &str, store: &Path) -> BTreeSet<String> {
        let run = self.world.run(&mut self.kiln(store, &["store", "verify"]));
        let damage: BTreeSet<String> = run.stdout.lines().map(str::to_owned).collect();
        let status = i32::from(!damage.is_empty());
        assert_eq!(run.status, status, "{}, {what}: {run:?}", self.name);
        // The pool's files are named with their place, which is another in each copy.
        let place = |line: String| match line.split_once("/blobs/") {
            Some((_, rest)) => rest.to_owned(),
            None => line,
        };
        damage.into_iter().map(place).collect()
    }

    /// Copies the store of the world, hard links and modes included.
    fn copy(&self, name: &str) -> Copy {
        let to = self.world.path().join(name);
        if self.world.store().exists() {
            copy(&self.world.store(), &to);
        }
        Copy(to)
    }

    /// Runs the change to its end, and returns how often it passes each point.
    fn rehearse(&self) -> (BTreeMap<String, usize>, State) {
        let store = self.copy("rehearsal");
        let passed = self.world.path().join("points");
        self.run(
            "rehearsal",
            self.step(&store.0).env("KILN_CRASH_POINTS", &passed),
            self.status,
        );
        let mut points = BTreeMap::new();
        for line in std::fs::read_to_string(passed).unwrap().lines() {
            *points.entry(line.to_owned()).or_default() += 1;
        }
        self.assert_whole("rehearsal", &store.0);
        let after = State {
            objects: objects(&store.0),
            damage: BTreeSet::new(),
        };
        (points, after)
    }

    /// Kills the change when it passes a point for the n-th time.
    fn kill(&self, point: &str, nth: usize, before: &State, after: &State) {
        let what = format!("killed at `{point}` for the {nth}. time");
        let store = self.copy(&format!("{point} {nth}"));
        let killed = self
            .step(&store.0)
            .env("KILN_CRASH_AT", format!("{point}#{nth}"))
            .output()
            .unwrap();
        assert_eq!(killed.status.signal(), Some(9), "{what}: {killed:?}");
        if before.damage.is_empty() {
            self.assert_whole(&what, &store.0);
        } else {
            let damage = self.damage(&what, &store.0);
            let new: Vec<_> = damage.difference(&before.damage).collect();
            assert!(new.is_empty(), "{}, {what}: {new:?}", self.name);
        }
        let left = objects(&store.0);
        let kept = before.objects.intersection(&after.objects);
        let lost: Vec<_> = kept.filter(|object| !left.contains(*object)).collect();
        assert!(lost.is_empty(), "{}, {what}: lost {lost:?}", self.name);
        assert!(
            self.steps || left == before.objects || left == after.objects,
            "{}, {what}: {left:?} is half of it",
            self.name
        );
        // What was begun can be done again, and gives the same.
        self.run(&what, &mut self.step(&store.0), self.status);
        self.assert_whole(&what, &store.0);
        let again = objects(&store.0);
        assert_eq!(again, after.objects, "{}, {what}", self.name);
    }

    fn assert_whole(&self, what: &str, store: &Path) {
        let found = self.run(what, &mut self.kiln(store, &["store", "verify"]), 0);
        assert_eq!(found, Vec::<String>::new(), "{}, {what}", self.name);
        let left: Vec<_> = std::fs::read_dir(store.join("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{}, {what}: {left:?}", self.name);
        let noted = std::fs::read(store.join("locks/objects")).unwrap_or_default();
        assert_eq!(noted, b"", "{}, {what}", self.name);
    }

    /// Tries everything; returns the points that it passes.
    fn try_all(&self) -> BTreeSet<String> {
        // A copy, since looking may change what is to be changed.
        let before = self.copy("before");
        let before = State {
            damage: self.damage("before", &before.0),
            objects: objects(&before.0),
        };
        let (points, after) = self.rehearse();
        for (point, count) in &points {
            for nth in 1..=*count.min(&self.most) {
                self.kill(point, nth, &before, &after);
            }
        }
        points.into_keys().collect()
    }
}

/// What is in a store, and what is wrong with it.
struct State {
    objects: BTreeSet<String>,
    damage: BTreeSet<String>,
}

/// Returns the objects that a store has recorded.
fn objects(store: &Path) -> BTreeSet<String> {
    let database = rusqlite::Connection::open(store.join("kiln.db")).unwrap();
    let mut paths = database.prepare("SELECT path FROM objects").unwrap();
    let paths = paths.query_map([], |row| row.get(0)).unwrap();
    paths.collect::<Result<_, _>>().unwrap()
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// A copy of a store, deleted when it is no longer needed.
struct Copy(PathBuf);

impl Drop for Copy {
    fn drop(&mut self) {
        kiln::tree::remove_tree(&self.0).unwrap();
    }
}

/// Adds a directory with files, a program, a directory, a link, and a reference.
fn add(world: &World, name: &str, reference: &str) -> String {
    let at = format!("trees/{name}");
    world.write(&format!("{at}/same"), "the same in all\n");
    world.write(&format!("{at}/own"), &format!("{name} {reference}\n"));
    world.write(&format!("{at}/sub/run"), &format!("run {name}\n"));
    unlock(&world.path().join(&at).join("sub/run"), 0o755);
    let link = world.path().join(&at).join("link");
    if !link.exists() {
        std::os::unix::fs::symlink("sub/run", link).unwrap();
    }
    let run = world.kiln(&["store", "add", &at, "--json"]);
    assert_eq!(run.status, 0, "{run:?}");
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    document["path"].as_str().unwrap().to_owned()
}

/// Makes a world whose store has two objects, of which the second needs the first.
fn two() -> (World, [String; 2]) {
    let world = World::new();
    let first = add(&world, "first", "");
    let second = add(&world, "second", &first);
    (world, [first, second])
}

fn lies(world: &World, object: &str) -> PathBuf {
    let base = object.rsplit('/').next().unwrap();
    world.store().join("store").join(base)
}

fn into_empty_store() -> Change {
    let (world, _) = two();
    let change = Change::new("add to no store", world, &["store", "add", "trees/second"]);
    kiln::tree::remove_tree(&change.world.store()).unwrap();
    change
}

fn add_one() -> Change {
    let (world, [first, _]) = two();
    let third = world.path().join("trees/third");
    std::fs::create_dir(&third).unwrap();
    for name in ["same", "sub"] {
        let from = world.path().join("trees/first").join(name);
        copy(&from, &third);
    }
    world.write("trees/third/own", &first);
    Change::new("add", world, &["store", "add", "trees/third"])
}

fn build() -> Change {
    let world = World::new();
    let sha256 = serve("/sources/crash", b"a source\n");
    let source = format!(
        "[source]\nurls = [\"{}/sources/crash\"]\nsha256 = \"{sha256}\"\nunpack = false\n\
         [outputs.out]\n[outputs.dev]\n",
        *crate::world::MIRROR
    );
    world.build("tools/good");
    world.package(
        "tools/crash",
        &source,
        "cat crash > \"$out/file\"; echo \"$out\" > \"$dev/self\"; echo \"$dev\" > \"$dev/own\"",
    );
    let mut change = Change::new("build", world, &["build", "tools/crash"]);
    change.steps = true;
    change
}

fn import() -> Change {
    let (world, [_, second]) = two();
    let run = world.kiln(&["store", "export", &second, "--output", "stream"]);
    assert_eq!(run.status, 0, "{run:?}");
    kiln::tree::remove_tree(&world.store()).unwrap();
    add(&world, "other", "");
    Change::new("import", world, &["store", "import", "stream"])
}

fn refused_import() -> Change {
    let mut change = import();
    let stream = change.world.path().join("stream");
    let mut bytes = std::fs::read(&stream).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(stream, bytes).unwrap();
    change.name = "refused import";
    change.status = 2;
    change
}

fn collection() -> Change {
    let (world, [first, second]) = two();
    let third = add(&world, "third", &second);
    add(&world, "fourth", &third);
    let run = world.kiln(&["store", "roots", "add", "kept", &first]);
    assert_eq!(run.status, 0, "{run:?}");
    let mut change = Change::new("collection", world, &["store", "gc"]);
    change.most = usize::MAX;
    change
}

fn repair() -> Change {
    let world = World::new();
    let good = world.build("tools/good");
    let sound = add(&world, "first", "");
    truncate(&good.join("file"));
    let sound = lies(&world, &sound);
    unlock(&sound, 0o755);
    kiln::tree::remove_tree(&sound).unwrap();
    std::fs::create_dir(world.store().join("store/stray")).unwrap();
    Change::new("repair", world, &["store", "verify", "--repair"])
}

/// Puts the database of a first kiln in the place of the one that is there.
fn with_first_schema(world: &World) {
    let at = world.store().join("kiln.db");
    let now = rusqlite::Connection::open(&at).unwrap();
    let old = world.path().join("old.db");
    let first = rusqlite::Connection::open(&old).unwrap();
    let script = include_str!("../../store-schema/0001_initial.sql");
    first.execute_batch(script).unwrap();
    first.pragma_update(None, "user_version", 1).unwrap();
    first
        .execute("ATTACH ?1 AS now", [at.to_str().unwrap()])
        .unwrap();
    let paths: Vec<String> = now
        .prepare("SELECT path FROM objects")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for path in paths {
        let root = kiln::tree::TreeRoot::open(&world.store().join("store").join(path)).unwrap();
        let listing = kiln::tree::scan::list(&root).unwrap();
        for (digest, message) in listing.encode().messages {
            first
                .execute(
                    "INSERT OR IGNORE INTO directories VALUES (?1, ?2)",
                    rusqlite::params![digest.as_bytes(), message],
                )
                .unwrap();
        }
    }
    first
        .execute_batch(
            "INSERT INTO objects SELECT id, path, tree, size_bytes, entries, registered_at
               FROM now.objects;
             INSERT INTO self_positions SELECT * FROM now.self_positions;
             INSERT INTO object_references SELECT * FROM now.object_references;
             INSERT INTO actions SELECT * FROM now.actions;
             INSERT INTO realisations SELECT action, output, object, origin
               FROM now.realisations;
             INSERT INTO builds SELECT id, action, started_at, wall_ms, cpu_ms,
               peak_memory_bytes, outcome, log FROM now.builds;
             DETACH now;",
        )
        .unwrap();
    drop((first, now));
    for name in ["kiln.db", "kiln.db-wal", "kiln.db-shm"] {
        drop(std::fs::remove_file(world.store().join(name)));
    }
    std::fs::rename(old, at).unwrap();
}

fn migration() -> Change {
    let world = World::new();
    world.user_of_good("tools/user", "echo \"see $good/file\" > \"$out/note\"");
    world.build("tools/user");
    with_first_schema(&world);
    // It does nothing if nothing was lost; were something built, its log would be new.
    let logs = world.store().join("logs");
    kiln::tree::remove_tree(&logs).unwrap();
    Change::new("migration", world, &["build", "tools/user"])
}

fn stop_of_the_machine() -> Change {
    let (world, [first, second]) = two();
    let third = add(&world, "third", &second);
    add(&world, "fourth", &third);
    let other = add(&world, "other", &first);
    truncate(&lies(&world, &third).join("own"));
    unlock(&lies(&world, &other), 0o755);
    kiln::tree::remove_tree(&lies(&world, &other)).unwrap();
    std::fs::create_dir(world.store().join("store/stray")).unwrap();
    world.reboot();
    Change::new("stop of the machine", world, &["store", "ls"])
}

fn sync() -> Change {
    let (world, _) = two();
    world.wait_long();
    Change::new("sync", world, &["store", "ls"])
}

fn mending() -> Change {
    let mut change = add_one();
    let store = change.world.store();
    let killed = change
        .step(&store)
        .env("KILN_CRASH_AT", "register: tree moved")
        .status()
        .unwrap();
    assert_eq!(killed.signal(), Some(9));
    change.name = "mending";
    change
}

/// Returns the names of the points in the sources.
fn points_of_the_sources() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut points = BTreeSet::new();
    for (_, code) in crate::layers::sources(&folder) {
        for (at, call) in code.match_indices("crash::point(\"") {
            let name = code[at + call.len()..].split('"').next().unwrap();
            points.insert(name.to_owned());
        }
    }
    points
}

#[test]
fn killed_at_any_point_the_store_is_whole_and_has_what_it_had() {
    let changes: [fn() -> Change; 11] = [
        into_empty_store,
        add_one,
        build,
        import,
        refused_import,
        collection,
        repair,
        migration,
        stop_of_the_machine,
        sync,
        mending,
    ];
    let passed = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for change in changes {
            let passed = &passed;
            scope.spawn(move || {
                let points = change().try_all();
                passed.lock().unwrap().extend(points);
            });
        }
    });
    assert_eq!(passed.into_inner().unwrap(), points_of_the_sources());
}
