//! Vectors for the hashed formats; the book's chapter on formats shows the same ones.

use std::collections::BTreeMap;

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use kiln::hash::directory::Directory;
use kiln::hash::object::{Position, SelfReferences};
use kiln::hash::{BlobDigest, StorePath, TreeDigest};
use kiln::listing::{Entry, Listing};
use kiln::store::Store;
use proptest::prelude::*;
use prost::Message as _;

/// Encodes a directory with the published bindings of the Remote Execution API.
fn published(directory: &Directory) -> Vec<u8> {
    let digest = |hash: String, size: u64| {
        Some(reapi::Digest {
            hash,
            size_bytes: i64::try_from(size).unwrap(),
        })
    };
    reapi::Directory {
        files: directory
            .files
            .iter()
            .map(|(name, file)| reapi::FileNode {
                name: name.clone(),
                digest: digest(file.digest.to_string(), file.size_bytes),
                is_executable: file.executable,
                ..Default::default()
            })
            .collect(),
        directories: directory
            .directories
            .iter()
            .map(|(name, node)| reapi::DirectoryNode {
                name: name.clone(),
                digest: digest(node.digest.to_string(), node.size_bytes),
            })
            .collect(),
        symlinks: directory
            .symlinks
            .iter()
            .map(|(name, target)| reapi::SymlinkNode {
                name: name.clone(),
                target: target.clone(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
    .encode_to_vec()
}

fn file(text: &str, executable: bool) -> Entry {
    Entry::File {
        digest: BlobDigest::of(text.as_bytes()),
        size_bytes: text.len() as u64,
        executable,
    }
}

/// The tree of the book's example.
fn example() -> Listing {
    let entries: BTreeMap<_, _> = [
        ("bin", Entry::Directory),
        ("bin/run", file("#!/bin/sh\necho hi\n", true)),
        ("empty", Entry::Directory),
        (
            "link",
            Entry::Symlink {
                target: "bin/run".to_owned(),
            },
        ),
        ("nothing", file("", false)),
    ]
    .into_iter()
    .map(|(path, entry)| (path.parse().unwrap(), entry))
    .collect();
    Listing::new(entries).unwrap()
}

#[test]
fn the_example_tree() {
    let encoded = example().encode();
    insta::assert_snapshot!(encoded.root.digest.to_string());
    let root = &encoded.messages[&encoded.root.digest];
    insta::assert_snapshot!(data_encoding::HEXLOWER.encode(root));
    let object = SelfReferences::new(encoded.root.digest, vec![]).digest();
    let path = StorePath::new(object, "example-1".parse().unwrap());
    insta::assert_snapshot!(path.to_string());
}

#[test]
fn the_example_with_a_self_reference() {
    let positions = vec![Position {
        path: "bin/run".parse().unwrap(),
        offset: 24,
    }];
    let references = SelfReferences::new(TreeDigest::from_bytes([0x11; 32]), positions);
    insta::assert_snapshot!(String::from_utf8(references.preimage().unwrap()).unwrap());
    insta::assert_snapshot!(references.digest().to_base32());
}

fn book() -> String {
    let book = concat!(env!("CARGO_MANIFEST_DIR"), "/book/src/formats.md");
    std::fs::read_to_string(book).unwrap()
}

/// The stream of the book: the example, and an object that names it.
fn example_stream() -> Vec<u8> {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    for path in ["bin", "empty"] {
        std::fs::create_dir_all(tree.join(path)).unwrap();
    }
    std::fs::write(tree.join("bin/run"), "#!/bin/sh\necho hi\n").unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(tree.join("bin/run"), mode).unwrap();
    std::fs::write(tree.join("nothing"), "").unwrap();
    symlink("bin/run", tree.join("link")).unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let example = store
        .add_copy(&tree, &"example-1".parse().unwrap())
        .unwrap();
    let note = directory.path().join("note");
    std::fs::write(&note, format!("{example}\n")).unwrap();
    let note = store.add_copy(&note, &"note".parse().unwrap()).unwrap();
    let mut stream = Vec::new();
    store.export(&[note], &mut stream).unwrap();
    stream
}

#[test]
fn the_example_stream() {
    let stream = example_stream();
    let shown = data_encoding::HEXLOWER.encode(&stream);
    insta::assert_snapshot!(shown);
    assert!(book().replace('\n', "").contains(&shown));
    // What the book shows is taken in by a store that has nothing.
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let added = store.import(stream.as_slice()).unwrap();
    let names: Vec<String> = added.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(names.join("\n"));
    assert!(book().contains(&names[0]) && book().contains(&names[1]));
}

#[test]
fn the_book_shows_these_vectors() {
    let book = book();
    let unfolded = book.replace('\n', "");
    let encoded = example().encode();
    let root = &encoded.messages[&encoded.root.digest];
    assert!(unfolded.contains(&data_encoding::HEXLOWER.encode(root)));
    assert!(book.contains(&encoded.root.digest.to_string()));
    let positions = vec![Position {
        path: "bin/run".parse().unwrap(),
        offset: 24,
    }];
    let references = SelfReferences::new(TreeDigest::from_bytes([0x11; 32]), positions);
    assert!(book.contains(std::str::from_utf8(&references.preimage().unwrap()).unwrap()));
    assert!(book.contains(&references.digest().to_base32()));
    // The action's vector stands beside its code, as the digest of the book's document.
    let document = book
        .lines()
        .find(|line| line.starts_with("{\"checks\""))
        .unwrap();
    assert!(book.contains(&BlobDigest::of(document.as_bytes()).to_string()));
}

#[test]
fn every_directory_of_the_example_is_what_the_published_bindings_write() {
    for message in example().encode().messages.values() {
        let directory = Directory::decode(message).unwrap();
        assert_eq!(published(&directory), *message);
    }
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9._+ äß-]{1,12}".prop_filter("a plain name", |name| name != "." && name != "..")
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        ("[a-z]{0,8}", any::<bool>()).prop_map(|(text, executable)| file(&text, executable)),
        Just(Entry::Directory),
        "[a-z/.]{1,12}".prop_map(|target| Entry::Symlink { target }),
    ]
}

proptest! {
    #[test]
    fn any_directory_is_what_the_published_bindings_write(
        entries in prop::collection::btree_map(name(), entry(), 0..12)
    ) {
        let entries = entries
            .into_iter()
            .filter_map(|(name, entry)| Some((name.parse().ok()?, entry)))
            .collect();
        let encoded = Listing::new(entries).unwrap().encode();
        for message in encoded.messages.values() {
            let directory = Directory::decode(message).unwrap();
            prop_assert_eq!(&published(&directory), message);
            prop_assert_eq!(&directory.encode().bytes, message);
        }
    }

    #[test]
    fn zeroed_trees_with_moved_positions_never_share_a_digest(
        tree in any::<[u8; 32]>(),
        a in prop::collection::btree_set(("[a-c]{1,2}", 0_u64..50), 0..5),
        b in prop::collection::btree_set(("[a-c]{1,2}", 0_u64..50), 0..5),
    ) {
        let digest = |positions: &std::collections::BTreeSet<(String, u64)>| {
            let positions = positions
                .iter()
                .map(|(path, offset)| Position { path: path.parse().unwrap(), offset: *offset })
                .collect();
            SelfReferences::new(TreeDigest::from_bytes(tree), positions).digest()
        };
        prop_assert_eq!(a == b, digest(&a) == digest(&b));
    }
}
