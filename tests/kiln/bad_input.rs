//! What is brought into the store from outside: trees that no object can hold, and streams
//! that are not what they say. Each is refused with a clear error, and leaves nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use kiln::hash::directory::{Directory, DirectoryNode, FileNode};
use kiln::hash::{BlobDigest, ObjectDigest, StorePath, TreeDigest};
use kiln::store::{Store, StoreError};
use prost::Message as _;

use crate::messages::hide_digests;
use crate::world::{Run, World, truncate, unlock};

/// Everything below a directory, without what says when.
fn walk(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(walk(&path));
        }
        found.insert(path);
    }
    found
}

/// Returns every object, every file of the pool, and all that work left behind.
fn state(store: &Path) -> BTreeSet<PathBuf> {
    let mut state = BTreeSet::new();
    for directory in ["store", "tmp", "downloads"] {
        state.extend(walk(&store.join(directory)));
    }
    let pool = walk(&store.join("blobs"));
    state.extend(pool.into_iter().filter(|path| path.is_file()));
    state
}

/// Asserts that a command is refused and changes nothing; returns what it said.
fn refused(world: &World, arguments: &[&str]) -> String {
    let before = state(&world.store());
    let run = world.kiln(arguments);
    assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{run:?}");
    assert_eq!(state(&world.store()), before, "{run:?}");
    let verified = world.kiln(&["store", "verify"]);
    assert_eq!(verified.status, 0, "{verified:?}");
    hide_digests(&run.stderr)
}

fn add(world: &World, name: &str, text: &str) -> String {
    world.write(&format!("trees/{name}/file"), text);
    let run = world.kiln(&["store", "add", &format!("trees/{name}"), "--json"]);
    assert_eq!(run.status, 0, "{run:?}");
    let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    document["path"].as_str().unwrap().to_owned()
}

#[test]
fn trees_that_no_object_can_hold() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::new();
    add(&world, "other", "other");
    let bad = std::ffi::OsStr::from_bytes(b"caf\xe9");
    let tree = |name: &str| {
        world.write(
            &format!("trees/{name}/first"),
            "it comes before the bad one",
        );
        world.path().join("trees").join(name)
    };
    std::fs::write(tree("name").join(bad), "").unwrap();
    std::os::unix::fs::symlink(bad, tree("target").join("link")).unwrap();
    let fifo = tree("fifo").join("sub");
    std::fs::create_dir(&fifo).unwrap();
    nix::unistd::mkfifo(&fifo.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    drop(std::os::unix::net::UnixListener::bind(tree("socket").join("s")).unwrap());
    std::os::unix::fs::symlink("/dev/null", world.path().join("trees/device")).unwrap();
    let mut deep = tree("deep");
    for _ in 0..65 {
        deep.push("d");
    }
    std::fs::create_dir_all(deep).unwrap();
    let mut said = String::new();
    for name in [
        "name", "target", "fifo", "socket", "device", "deep", "missing",
    ] {
        let words = refused(&world, &["store", "add", &format!("trees/{name}")]);
        said.push_str(&format!("== {name}\n{words}\n"));
    }
    let words = refused(&world, &["store", "add", "trees/fifo", "--name", "a b"]);
    said.push_str(&format!("== a name with a blank\n{words}\n"));
    insta::assert_snapshot!(said);
}

#[test]
fn a_file_becomes_the_only_entry_of_its_object() {
    let world = World::new();
    world.write("trees/note", "a note\n");
    world.write("trees/beside", "nothing of this");
    unlock(&world.path().join("trees/note"), 0o755);
    for named in ["trees/note", "link"] {
        if named == "link" {
            std::os::unix::fs::symlink("trees/note", world.path().join("link")).unwrap();
        }
        let run = world.kiln(&["store", "add", named, "--name", "note", "--json"]);
        assert_eq!(run.status, 0, "{run:?}");
        let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let path = document["path"].as_str().unwrap();
        assert_eq!(world.kiln(&["store", "cat", path]).stdout, "note*\n");
        let file = format!("{path}/note");
        assert_eq!(world.kiln(&["store", "cat", &file]).stdout, "a note\n");
    }
    assert_eq!(world.kiln(&["store", "ls"]).stdout.lines().count(), 1);
}

/// One object of a stream, each part as it is to be written.
#[derive(Clone)]
struct Record {
    base: Vec<u8>,
    named: Vec<String>,
    count: u32,
    tree: [u8; 32],
    messages: Vec<u8>,
    length: u64,
    content: Vec<u8>,
}

impl Record {
    /// Makes the record of an object as `export` writes it.
    fn new(
        name: &str,
        directories: &[Vec<u8>],
        root: &[u8],
        named: &[&str],
        content: &str,
    ) -> Self {
        let tree = *blake3_of(root).as_bytes();
        let mut sorted: Vec<&Vec<u8>> = directories.iter().collect();
        sorted.sort_by_key(|message| *blake3_of(message).as_bytes());
        let mut messages = Vec::new();
        for message in sorted {
            messages.extend(u32::try_from(message.len()).unwrap().to_le_bytes());
            messages.extend(message);
        }
        let path = StorePath::new(ObjectDigest::from_bytes(tree), name.parse().unwrap());
        Self {
            base: path.base_name().into_bytes(),
            named: named.iter().map(|&base| base.to_owned()).collect(),
            count: u32::try_from(named.len()).unwrap(),
            tree,
            length: messages.len() as u64,
            messages,
            content: content.as_bytes().to_vec(),
        }
    }

    /// Makes the record of an object with one directory.
    fn flat(name: &str, root: &[u8], content: &str) -> Self {
        Self::new(name, &[root.to_vec()], root, &[], content)
    }

    fn base(&self) -> &str {
        std::str::from_utf8(&self.base).unwrap()
    }

    fn write(&self, to: &mut Vec<u8>) {
        let name = |to: &mut Vec<u8>, name: &[u8]| {
            to.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
            to.extend(name);
        };
        to.push(1);
        name(to, &self.base);
        to.extend(self.count.to_le_bytes());
        for named in &self.named {
            name(to, named.as_bytes());
        }
        to.extend(self.tree);
        to.extend(self.length.to_le_bytes());
        to.extend(&self.messages);
        to.extend(&self.content);
    }
}

fn blake3_of(bytes: &[u8]) -> BlobDigest {
    BlobDigest::of(bytes)
}

fn stream(records: &[Record]) -> Vec<u8> {
    let mut bytes = b"kiln-export-v1\n".to_vec();
    for record in records {
        record.write(&mut bytes);
    }
    bytes.push(0);
    let digest = *blake3_of(&bytes).as_bytes();
    bytes.extend(digest);
    bytes
}

/// Returns the message of a directory with files.
fn files(files: &[(&str, &str)]) -> Vec<u8> {
    let mut directory = Directory::default();
    for (name, text) in files {
        directory.files.insert(
            (*name).to_owned(),
            FileNode {
                digest: BlobDigest::of(text.as_bytes()),
                size_bytes: text.len() as u64,
                executable: false,
            },
        );
    }
    directory.encode().bytes
}

/// Returns a message that the published bindings write, and kiln would not.
fn raw(names: &[&str], links: &[&str], directories: &[&str]) -> Vec<u8> {
    let digest = Some(reapi::Digest {
        hash: BlobDigest::of(b"x").to_string(),
        size_bytes: 1,
    });
    reapi::Directory {
        files: names
            .iter()
            .map(|&name| reapi::FileNode {
                name: name.to_owned(),
                digest: digest.clone(),
                ..Default::default()
            })
            .collect(),
        symlinks: links
            .iter()
            .map(|&name| reapi::SymlinkNode {
                name: name.to_owned(),
                target: "/etc".to_owned(),
                ..Default::default()
            })
            .collect(),
        directories: directories
            .iter()
            .map(|&name| reapi::DirectoryNode {
                name: name.to_owned(),
                digest: digest.clone(),
            })
            .collect(),
        ..Default::default()
    }
    .encode_to_vec()
}

/// Returns a record whose messages make more than a million entries of few bytes.
fn bomb() -> Record {
    let mut child = files(&[("file", "x")]);
    let mut messages = vec![child.clone()];
    for _ in 0..20 {
        let node = DirectoryNode {
            digest: TreeDigest::from_bytes(*blake3_of(&child).as_bytes()),
            size_bytes: child.len() as u64,
        };
        let mut directory = Directory::default();
        for name in ["a", "b"] {
            directory.directories.insert(name.to_owned(), node);
        }
        child = directory.encode().bytes;
        messages.push(child.clone());
    }
    Record::new("bomb", &messages, &child, &[], "x")
}

/// Returns a record of few bytes that is nested without end, also where a deep directory is
/// used once more at the top.
fn deep() -> Record {
    let mut child = files(&[("file", "x")]);
    let mut messages = vec![child.clone()];
    for level in 0..70 {
        let node = DirectoryNode {
            digest: TreeDigest::from_bytes(*blake3_of(&child).as_bytes()),
            size_bytes: child.len() as u64,
        };
        let mut directory = Directory::default();
        directory.directories.insert("a".to_owned(), node);
        if level < 30 {
            directory.directories.insert("b".to_owned(), node);
        }
        child = directory.encode().bytes;
        messages.push(child.clone());
    }
    Record::new("deep", &messages, &child, &[], "x")
}

/// A stream, and what is wrong with it.
type Hostile = (&'static str, Vec<u8>);

fn plain() -> Record {
    Record::flat("plain", &files(&[("file", "text")]), "text")
}

/// Returns two records, of which the second names the first.
fn needed_and_user() -> (Record, Record) {
    let needed = Record::flat("needed", &files(&[("file", "needed")]), "needed");
    let names_it = format!("/kiln/store/{}", needed.base());
    let tree = files(&[("a", &names_it), ("b", ""), ("c", &names_it)]);
    let trees = std::slice::from_ref(&tree);
    let user = Record::new("user", trees, &tree, &[needed.base()], &names_it);
    (needed, user)
}

/// Streams whose parts are wrong.
fn wrong_in_form() -> Vec<Hostile> {
    let with = |change: &dyn Fn(&mut Record)| {
        let mut record = plain();
        change(&mut record);
        stream(&[record])
    };
    let mut wrong_end = stream(&[plain()]);
    *wrong_end.last_mut().unwrap() ^= 1;
    let mut more = stream(&[plain()]);
    more.push(0);
    let other_name = Record::flat("plain", b"", "").base;
    let content = with(&|record| record.content = b"tixt".to_vec());
    let name = with(&|record| record.base.clone_from(&other_name));
    let slash = with(&|record| record.base = b"../../etc/passwd".to_vec());
    let bytes = with(&|record| record.base = vec![0xff; 60]);
    let long = with(&|record| record.base = vec![b'a'; 60_000]);
    vec![
        ("nothing", Vec::new()),
        ("something else", b"#!/bin/sh\necho hello\n".to_vec()),
        ("a file with other content", content),
        ("another name", name),
        ("a name with a slash", slash),
        ("a name that is not UTF-8", bytes),
        ("a long name", long),
        (
            "a million references",
            with(&|record| record.count = u32::MAX),
        ),
        ("one object twice", stream(&[plain(), plain()])),
        ("another digest of the whole", wrong_end),
        ("something after the end", more),
    ]
}

/// Streams whose trees are wrong.
fn wrong_trees() -> Vec<Hostile> {
    let with = |change: &dyn Fn(&mut Record)| {
        let mut record = plain();
        change(&mut record);
        stream(&[record])
    };
    let none = with(&|record| {
        record.length = 0;
        record.messages.clear();
    });
    let too_many = with(&|record| {
        let more = files(&[("more", "")]);
        let length = u32::try_from(more.len()).unwrap();
        record.messages.extend(length.to_le_bytes());
        record.messages.extend(more);
        record.length = record.messages.len() as u64;
    });
    let mut huge = Directory::default();
    for name in ["a", "b"] {
        let node = FileNode {
            digest: BlobDigest::of(b"x"),
            size_bytes: u64::MAX,
            executable: false,
        };
        huge.files.insert(name.to_owned(), node);
    }
    let raw = |names: &[&str], links: &[&str], directories: &[&str]| {
        stream(&[Record::flat("raw", &raw(names, links, directories), "x")])
    };
    vec![
        ("long directories", with(&|record| record.length = u64::MAX)),
        ("short directories", with(&|record| record.length -= 1)),
        ("no directories", none),
        ("a directory too many", too_many),
        ("a file of sixteen exbibytes", {
            stream(&[Record::flat("huge", &huge.encode().bytes, "x")])
        }),
        ("`..` as a name", raw(&[".."], &[], &[])),
        ("a path as a name", raw(&["a/b"], &[], &[])),
        ("an empty name", raw(&[""], &[], &[])),
        (
            "a link and a directory of one name",
            raw(&[], &["a"], &["a"]),
        ),
        ("names that are not sorted", raw(&["b", "a"], &[], &[])),
        ("a million entries in two kilobytes", stream(&[bomb()])),
        ("directories seventy deep", stream(&[deep()])),
    ]
}

/// Streams whose references are wrong.
fn wrong_references() -> Vec<Hostile> {
    let (needed, user) = needed_and_user();
    let mut liar = plain();
    liar.named = vec![needed.base().to_owned()];
    liar.count = 1;
    let mut unsorted = user.clone();
    unsorted.named = vec![plain().base().to_owned(), needed.base().to_owned()];
    unsorted
        .named
        .sort_by_key(|base| StorePath::from_base_name(base).unwrap());
    unsorted.named.reverse();
    unsorted.count = 2;
    vec![
        ("a reference to what is not there", stream(&[user])),
        (
            "a reference that is not so",
            stream(&[needed.clone(), liar]),
        ),
        (
            "references that are not sorted",
            stream(&[plain(), needed, unsorted]),
        ),
    ]
}

#[test]
fn streams_that_are_not_what_they_say() {
    let world = World::new();
    add(&world, "other", "text");
    let mut said = String::new();
    let all = [wrong_in_form(), wrong_trees(), wrong_references()];
    for (what, bytes) in all.concat() {
        std::fs::write(world.path().join("stream"), bytes).unwrap();
        let words = refused(&world, &["store", "import", "stream"]);
        said.push_str(&format!("== {what}\n{words}\n"));
    }
    insta::assert_snapshot!(said);
    // From standard input as well.
    let mut command = world.command(&["store", "import"]);
    let run = world.run(command.stdin(std::process::Stdio::null()));
    assert_eq!(run.status, 2, "{run:?}");
}

/// Makes a store and the stream of an object that needs another, made by hand.
fn sound_stream() -> (tempfile::TempDir, Store, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let (needed, user) = needed_and_user();
    (directory, store, stream(&[needed, user]))
}

#[test]
fn a_stream_made_by_hand_is_taken_and_written_again_as_the_same_bytes() {
    let (_directory, store, bytes) = sound_stream();
    let added = store.import(bytes.as_slice()).unwrap();
    assert_eq!(added.len(), 2);
    let mut again = Vec::new();
    store.export(&added[1..], &mut again).unwrap();
    assert_eq!(again, bytes);
    assert_eq!(store.import(bytes.as_slice()).unwrap(), []);
}

#[test]
fn a_reference_to_what_came_before_counts_although_it_is_not_said() {
    let (_directory, store, _) = sound_stream();
    let (needed, mut silent) = needed_and_user();
    silent.named.clear();
    silent.count = 0;
    let bytes = stream(&[needed, silent]);
    let added = store.import(bytes.as_slice()).unwrap();
    assert_eq!(store.closure([&added[1]]).unwrap().len(), 2);
}

#[test]
fn a_stream_that_ends_anywhere_leaves_nothing() {
    let (directory, store, bytes) = sound_stream();
    let before = state(directory.path());
    for end in 0..bytes.len() {
        let result = store.import(&bytes[..end]);
        assert!(
            matches!(result, Err(StoreError::Stream(_))),
            "{end}: {result:?}"
        );
        assert_eq!(state(directory.path()), before, "{end}");
    }
    assert_eq!(store.objects().unwrap(), []);
    store.import(bytes.as_slice()).unwrap();
}

#[test]
fn a_stream_with_any_byte_changed_leaves_nothing() {
    let (directory, store, bytes) = sound_stream();
    let before = state(directory.path());
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x20;
        let result = store.import(changed.as_slice());
        assert!(result.is_err(), "{at}: {result:?}");
        assert_eq!(state(directory.path()), before, "{at}");
    }
    assert_eq!(store.objects().unwrap(), []);
}

#[test]
fn what_is_damaged_is_not_exported() {
    let world = World::new();
    let object = add(&world, "object", "a text");
    let lies = world
        .store()
        .join("store")
        .join(object.rsplit('/').next().unwrap());
    let export = |world: &World| -> Run {
        let run = world.kiln(&["store", "export", &object, "--output", "out"]);
        assert_eq!(run.status, 2, "{run:?}");
        assert!(!world.path().join("out").exists());
        run
    };
    unlock(&lies.join("file"), 0o644);
    std::fs::write(lies.join("file"), "a tixt").unwrap();
    let mut said = format!("== flipped\n{}", export(&world).stderr);
    truncate(&lies.join("file"));
    said.push_str(&format!("== truncated\n{}", export(&world).stderr));
    unlock(&lies, 0o755);
    std::fs::remove_file(lies.join("file")).unwrap();
    said.push_str(&format!("== missing file\n{}", export(&world).stderr));
    std::fs::remove_dir(&lies).unwrap();
    said.push_str(&format!("== missing object\n{}", export(&world).stderr));
    let run = world.kiln(&["store", "export", "/kiln/store/nothing"]);
    assert_eq!(run.status, 2);
    said.push_str(&format!("== no object\n{}", run.stderr));
    insta::assert_snapshot!(hide_digests(&said));
}

#[test]
fn an_interrupted_import_ends_at_once() {
    let world = World::new();
    add(&world, "object", "a text");
    let mut child = world
        .interruptible(&["store", "import"])
        .env("KILN_STOP_AT", "scratch: locked")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It would wait for this for ever.
    let input = child.stdin.take();
    assert_eq!(crate::concurrent::interrupt_when_stopped(child), None);
    drop(input);
    world.assert_usable();
}

#[test]
fn an_interrupted_export_leaves_no_file() {
    let world = World::new();
    let object = add(&world, "object", "a text");
    let before = walk(world.path());
    let child = world
        .command(&["store", "export", &object, "--output", "out"])
        .env("KILN_STOP_AT", "lease: made")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(crate::concurrent::interrupt_when_stopped(child), Some(2));
    assert_eq!(walk(world.path()), before);
    let run = world.kiln(&["store", "export", &object, "--output", "out"]);
    assert_eq!(run.status, 0, "{run:?}");
}
