//! Measures the parts of kiln alone: `cargo bench --bench parts`.
//!
//! Whole commands, beside other programs, are measured by `bench/peers`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use kiln::closure::{self, Graph};
use kiln::hash::{BlobDigest, ObjectDigest, RelPath, StorePath, json};
use kiln::image::layer;
use kiln::listing::{Entry, Listing};
use kiln::projection::{LayerPlan, Placed};
use kiln::store::{Store, plan_tree};
use kiln::tree::{TreeRoot, Wanted, facts, scan};

/// Files of the trees that are measured, 16 in a directory.
const FILES: usize = 2000;
/// Length of each, in bytes.
const LENGTH: usize = 16 << 10;

fn main() {
    divan::main();
}

fn path(number: usize) -> RelPath {
    format!("directory-{}/file-{number}", number / 16)
        .parse()
        .expect("a path")
}

/// Other bytes for every file.
fn content(number: usize) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH];
    blake3::Hasher::new()
        .update(&number.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

fn write_tree(tree: &Path) {
    for number in 0..FILES {
        let file = tree.join(path(number).as_str());
        fs::create_dir_all(file.parent().expect("a directory")).expect("room");
        fs::write(file, content(number)).expect("room");
    }
}

fn listing() -> Listing {
    let mut entries = BTreeMap::new();
    for number in 0..FILES {
        let path = path(number);
        for above in path.ancestors() {
            entries.insert(above, Entry::Directory);
        }
        let file = Entry::File {
            digest: BlobDigest::of(&content(number)),
            size_bytes: LENGTH as u64,
            executable: false,
        };
        entries.insert(path, file);
    }
    Listing::new(entries).expect("a listing")
}

fn object(number: usize) -> StorePath {
    let digest = ObjectDigest::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes());
    StorePath::new(digest, "object".parse().expect("a name"))
}

/// A graph in which each object names two others.
fn graph(count: usize) -> Graph {
    (0..count)
        .map(|number| {
            let targets = [2 * number + 1, 2 * number + 2];
            let mut targets: Vec<StorePath> = targets
                .into_iter()
                .filter(|target| *target < count)
                .map(object)
                .collect();
            targets.sort();
            (object(number), targets)
        })
        .collect()
}

/// Walking, hashing and searching a tree for 50 store paths.
#[divan::bench]
fn scan_tree(bencher: Bencher<'_, '_>) {
    let directory = tempfile::tempdir().expect("a directory");
    write_tree(directory.path());
    let root = TreeRoot::open(directory.path()).expect("a tree");
    let candidates: BTreeSet<StorePath> = (0..50).map(object).collect();
    let wanted = Wanted::new(&candidates, &[]);
    bencher
        .counter(BytesCount::new(FILES * LENGTH))
        .bench(|| scan(&root, &wanted).expect("a scan"));
}

/// Planning a tree and moving it into a store that has none of it.
#[divan::bench(sample_count = 20)]
fn register_tree(bencher: Bencher<'_, '_>) {
    bencher
        .counter(BytesCount::new(FILES * LENGTH))
        .with_inputs(|| {
            let directory = tempfile::tempdir().expect("a directory");
            let store = Store::open(&directory.path().join("store")).expect("a store");
            let tree = directory.path().join("tree");
            write_tree(&tree);
            (directory, store, tree)
        })
        .bench_local_refs(|(_, store, tree)| {
            let name = "tree".parse().expect("a name");
            let plan = plan_tree(tree, &name, &BTreeSet::new()).expect("a plan");
            store.register(&[plan], None).expect("an object");
        });
}

/// A listing to the messages that are hashed, and back.
#[divan::bench]
fn encode_listing(bencher: Bencher<'_, '_>) {
    let listing = listing();
    bencher
        .counter(ItemsCount::new(FILES))
        .bench(|| black_box(&listing).encode());
}

#[divan::bench]
fn decode_listing(bencher: Bencher<'_, '_>) {
    let tree = listing().encode();
    let bytes = tree.to_bytes();
    bencher
        .counter(ItemsCount::new(FILES))
        .bench(|| Listing::from_bytes(tree.root.digest, black_box(&bytes)).expect("a listing"));
}

#[divan::bench]
fn canonical_json(bencher: Bencher<'_, '_>) {
    let members: BTreeMap<String, serde_json::Value> = (0..1000)
        .map(|number| {
            let value = serde_json::json!({ "path": object(number).to_string(), "n": number });
            (format!("input-{number}"), value)
        })
        .collect();
    let document = serde_json::json!(members);
    let length = json::canonical(&document).expect("JSON").len();
    bencher
        .counter(BytesCount::new(length))
        .bench(|| json::canonical(black_box(&document)).expect("JSON"));
}

/// The shortest way from the top of a graph to its last object.
#[divan::bench(args = [1000, 10000])]
fn shortest_path(bencher: Bencher<'_, '_>, count: usize) {
    let graph = graph(count);
    let (from, to) = (object(0), object(count - 1));
    bencher
        .counter(ItemsCount::new(count))
        .bench(|| closure::shortest_path(&graph, &from, &to).map(|chain| chain.len()));
}

/// What a file is, from its bytes: the test program itself, a large ELF file.
#[divan::bench]
fn content_facts(bencher: Bencher<'_, '_>) {
    let own = fs::read("/proc/self/exe").expect("this program");
    bencher
        .counter(BytesCount::new(own.len()))
        .bench(|| facts::extract(black_box(&own)));
}

/// The tar of a layer.
#[divan::bench]
fn write_layer(bencher: Bencher<'_, '_>) {
    let listing = listing();
    let placed = listing.iter().map(|(path, entry)| {
        let placed = Placed {
            entry: entry.clone(),
            mode: 0o444,
            ..Placed::directory()
        };
        (path.clone(), placed)
    });
    let plan = LayerPlan::new("layer".to_owned(), placed.collect());
    let zeros = vec![0; LENGTH];
    bencher
        .counter(BytesCount::new(FILES * LENGTH))
        .bench(|| layer::write(&plan, std::io::sink(), |_, _| Ok(&*zeros)).expect("a layer"));
}
