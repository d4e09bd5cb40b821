//! Images of others: read whatever their form, judged, and refused where they are hostile.

use std::io::{Read, Write};
use std::path::Path;

use kiln::hash::Sha256Digest;
use kiln::inspect::source::{self, Source};
use kiln::inspect::{InspectError, Inspected, Progress, inspect};
use kiln::listing::image::Node;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::world::World;

struct Quiet;

impl Progress for Quiet {
    fn total(&self, _: u64) {}
    fn read(&self, _: u64) {}
}

/// A member of a layer: name, kind, mode, link target, data.
type Member<'a> = (&'a str, EntryType, u32, &'a str, &'a [u8]);

const FILE: EntryType = EntryType::Regular;
const DIRECTORY: EntryType = EntryType::Directory;
const LINK: EntryType = EntryType::Symlink;

/// Returns a member's header with a raw name, as a hostile layer would have it.
fn header(name: &str, kind: EntryType, mode: u32, link: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_cksum();
    header
}

fn layer(members: &[Member<'_>]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, kind, mode, link, data) in members {
        let header = header(name, *kind, *mode, link, data.len() as u64);
        tar.append(&header, *data).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// A layer's tar, its blob, and the media type of that.
struct Layer {
    tar: Vec<u8>,
    blob: Vec<u8>,
    media_type: &'static str,
}

fn plain(tar: Vec<u8>) -> Layer {
    let blob = tar.clone();
    Layer {
        tar,
        blob,
        media_type: "application/vnd.oci.image.layer.v1.tar",
    }
}

fn gzipped(tar: Vec<u8>) -> Layer {
    let blob = gzip(&tar);
    Layer {
        tar,
        blob,
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip",
    }
}

/// A layout in the making, and what its documents will say.
struct Layout {
    directory: tempfile::TempDir,
    manifests: Vec<Value>,
}

impl Layout {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("blobs/sha256")).unwrap();
        let marker = r#"{"imageLayoutVersion":"1.0.0"}"#;
        std::fs::write(directory.path().join("oci-layout"), marker).unwrap();
        Self {
            directory,
            manifests: Vec::new(),
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Stores a blob and returns its descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Sha256Digest::of(bytes);
        let path = self.path().join(format!("blobs/sha256/{digest}"));
        std::fs::write(path, bytes).unwrap();
        json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() })
    }

    fn image(&mut self, tag: &str, architecture: &str, config: &Value, layers: &[Layer]) {
        let diff_ids: Vec<String> = layers
            .iter()
            .map(|layer| format!("sha256:{}", Sha256Digest::of(&layer.tar)))
            .collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = self.blob(
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| self.blob(layer.media_type, &layer.blob))
            .collect();
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        self.manifest(tag, architecture, &manifest);
    }

    fn manifest(&mut self, tag: &str, architecture: &str, manifest: &Value) {
        let mut descriptor = self.blob(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        );
        descriptor["platform"] = json!({ "architecture": architecture, "os": "linux" });
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        self.manifests.push(descriptor);
        self.finish();
    }

    fn finish(&self) {
        let index = json!({ "schemaVersion": 2, "manifests": self.manifests });
        std::fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }

    /// Changes the only manifest by hand.
    fn change(&mut self, change: impl FnOnce(&mut Value)) {
        let digest = self.manifests[0]["digest"]
            .as_str()
            .unwrap()
            .replace("sha256:", "");
        let path = self.path().join(format!("blobs/sha256/{digest}"));
        let mut manifest: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        change(&mut manifest);
        self.manifests.clear();
        self.manifest("t", "amd64", &manifest);
    }

    fn read(&self) -> Result<Inspected, InspectError> {
        read(self.path().to_str().unwrap(), None)
    }

    /// Packs the layout as an archive.
    fn archive(&self, to: &Path) {
        let mut tar = Builder::new(std::fs::File::create(to).unwrap());
        for name in ["oci-layout", "index.json"] {
            tar.append_path_with_name(self.path().join(name), name)
                .unwrap();
        }
        for entry in std::fs::read_dir(self.path().join("blobs/sha256")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(self.path()).unwrap().to_owned();
            tar.append_path_with_name(&path, name).unwrap();
        }
        tar.finish().unwrap();
    }
}

fn read(image: &str, platform: Option<&str>) -> Result<Inspected, InspectError> {
    let platform = platform.map(|platform| platform.parse().unwrap());
    inspect(
        &source::open(&Source::parse(image)?)?,
        platform.as_ref(),
        &Quiet,
    )
}

fn one(members: &[Member<'_>]) -> Layout {
    let mut layout = Layout::new();
    layout.image("t", "amd64", &json!({}), &[plain(layer(members))]);
    layout
}

fn paths(inspected: &Inspected) -> Vec<String> {
    inspected
        .listing
        .entries
        .keys()
        .map(ToString::to_string)
        .collect()
}

fn layered() -> Layout {
    let lower = layer(&[
        ("./", DIRECTORY, 0o755, "", b""),
        ("usr/bin/", DIRECTORY, 0o755, "", b""),
        ("bin", LINK, 0o777, "usr/bin", b""),
        ("usr/bin/tool", FILE, 0o755, "", b"tool"),
        ("usr/bin/same", EntryType::Link, 0o755, "usr/bin/tool", b""),
        ("etc/secret", FILE, 0o600, "", b"lower secret"),
        ("opt/a", FILE, 0o644, "", b"a"),
        ("opt/b", FILE, 0o644, "", b"b"),
        ("etc/changed", FILE, 0o644, "", b"old"),
    ]);
    let upper = layer(&[
        // A whiteout acts on lower layers only, wherever it stands.
        ("opt/c", FILE, 0o644, "", b"c"),
        ("opt/.wh..wh..opq", FILE, 0o644, "", b""),
        ("etc/.wh.secret", FILE, 0o644, "", b""),
        ("etc/changed", FILE, 0o644, "", b"new"),
        // Below a link of the lower layer.
        ("bin/other", FILE, 0o755, "", b"other"),
    ]);
    let mut layout = Layout::new();
    let zstd = Layer {
        blob: zstd::encode_all(upper.as_slice(), 1).unwrap(),
        tar: upper,
        media_type: "application/vnd.oci.image.layer.v1.tar+zstd",
    };
    layout.image(
        "t",
        "amd64",
        &json!({ "User": "1:1" }),
        &[gzipped(lower), zstd],
    );
    layout
}

#[test]
fn layers_lie_over_one_another_and_what_they_hide_stays_known() {
    let read = layered().read().unwrap();
    assert_eq!(
        paths(&read),
        [
            "bin",
            "etc",
            "etc/changed",
            "opt",
            "opt/c",
            "usr",
            "usr/bin",
            "usr/bin/other",
            "usr/bin/same",
            "usr/bin/tool"
        ]
    );
    let hidden: Vec<(String, usize, usize)> = read
        .listing
        .hidden
        .iter()
        .map(|hidden| (hidden.path.to_string(), hidden.entry.layer, hidden.by))
        .collect();
    assert_eq!(
        hidden,
        ["opt/a", "opt/b", "etc/secret", "etc/changed"].map(|path| (path.to_owned(), 0, 1))
    );
    let same = &read.listing.entries[&"usr/bin/same".parse().unwrap()];
    assert_eq!(same.hard_link, Some("usr/bin/tool".parse().unwrap()));
    assert_eq!(same.mode, 0o755);
    assert_eq!(read.listing.configuration.user, "1:1");
    assert_eq!(read.listing.layers.len(), 2);
}

#[test]
fn every_form_gives_the_same_listing() {
    let layout = layered();
    let wanted = layout.read().unwrap().listing;
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    layout.archive(&archive);
    let compressed = directory.path().join("image.tar.gz");
    std::fs::write(&compressed, gzip(&std::fs::read(&archive).unwrap())).unwrap();
    let (archive, compressed) = (archive.to_str().unwrap(), compressed.to_str().unwrap());
    for image in [
        format!("oci:{}:t", layout.path().display()),
        archive.to_owned(),
        format!("oci-archive:{archive}"),
        format!("oci-archive:{archive}:t"),
        compressed.to_owned(),
    ] {
        let found = read(&image, None).unwrap().listing;
        assert_eq!(found.entries, wanted.entries, "{image}");
        assert_eq!(found.hidden, wanted.hidden, "{image}");
    }
    // One that ends within `index.json`.
    let whole = std::fs::read(archive).unwrap();
    let cut = directory.path().join("cut.tar");
    std::fs::write(&cut, &whole[..1600]).unwrap();
    let found = read(cut.to_str().unwrap(), None);
    assert!(
        matches!(found, Err(InspectError::NotAnImage { .. })),
        "{found:?}"
    );
}

#[test]
fn docker_archives_are_read_plain_compressed_and_with_linked_layers() {
    let tar = layer(&[("a", FILE, 0o644, "", b"a")]);
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "diff_ids": [format!("sha256:{}", Sha256Digest::of(&tar))] },
    });
    let manifest = json!([{
        "Config": "config.json", "RepoTags": ["n/app:1"], "Layers": ["two/layer.tar"],
    }]);
    let archive = layer(&[
        ("one/layer.tar", FILE, 0o644, "", &tar),
        ("two/layer.tar", LINK, 0o777, "../one/layer.tar", b""),
        (
            "config.json",
            FILE,
            0o644,
            "",
            config.to_string().as_bytes(),
        ),
        (
            "manifest.json",
            FILE,
            0o644,
            "",
            manifest.to_string().as_bytes(),
        ),
    ]);
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in [("plain", archive.clone()), ("compressed", gzip(&archive))] {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        for image in [
            path.display().to_string(),
            format!("docker-archive:{}:n/app:1", path.display()),
            format!("docker-archive:{}:1", path.display()),
        ] {
            assert_eq!(paths(&read(&image, None).unwrap()), ["a"], "{image}");
        }
        let unknown = read(&format!("docker-archive:{}:2", path.display()), None);
        assert!(
            matches!(unknown, Err(InspectError::NoSuchImage { .. })),
            "{unknown:?}"
        );
    }
}

#[test]
fn tags_and_platforms_choose_and_doubt_is_an_error() {
    let mut layout = Layout::new();
    for (tag, architecture, name) in [
        ("a", "amd64", "x"),
        ("a", "arm64", "y"),
        ("b", "arm64", "z"),
    ] {
        let tar = plain(layer(&[(name, FILE, 0o644, "", b"")]));
        layout.image(tag, architecture, &json!({}), &[tar]);
    }
    let at = |tag: &str, platform| read(&format!("oci:{}{tag}", layout.path().display()), platform);
    assert_eq!(paths(&at(":a", None).unwrap()), ["x"]);
    assert_eq!(paths(&at(":a", Some("linux/arm64")).unwrap()), ["y"]);
    assert_eq!(paths(&at(":b", None).unwrap()), ["z"]);
    for (tag, platform) in [
        ("", Some("linux/arm64")),
        (":a", Some("linux/s390x")),
        (":b", Some("linux/amd64")),
        (":c", None),
    ] {
        let found = at(tag, platform);
        assert!(
            matches!(found, Err(InspectError::NoSuchImage { .. })),
            "{tag} {platform:?}"
        );
    }
    // An index in an index, as registries have them.
    let inner = json!({ "schemaVersion": 2, "manifests": layout.manifests[..2] });
    let inner = layout.blob(
        "application/vnd.oci.image.index.v1+json",
        inner.to_string().as_bytes(),
    );
    layout.manifests = vec![inner];
    layout.finish();
    assert_eq!(paths(&layout.read().unwrap()), ["x"]);
}

fn problem(layout: &Layout) -> String {
    let error = layout.read().expect_err("it is refused");
    error.to_string()
}

#[test]
fn hostile_members_are_refused_each_with_one_error() {
    let long = "d/".repeat(45);
    let cases: [(&str, &[Member<'_>]); 9] = [
        (
            "`../out` leads out of the image",
            &[("../out", FILE, 0o644, "", b"x")],
        ),
        (
            "`a/../../out` leads out",
            &[("a/../../out", FILE, 0o644, "", b"x")],
        ),
        (
            "`.wh...` is a whiteout of no name",
            &[(".wh...", FILE, 0o644, "", b"")],
        ),
        (
            "`../.wh.x` leads out",
            &[("../.wh.x", FILE, 0o644, "", b"")],
        ),
        (
            "a hard link to a name that leads out",
            &[("l", EntryType::Link, 0o644, "../../etc/passwd", b"")],
        ),
        (
            "is a hard link to `x`, which is not there",
            &[("l", EntryType::Link, 0o644, "x", b"")],
        ),
        (
            "stands below `f`, which is not a directory",
            &[("f", FILE, 0o644, "", b""), ("f/x", FILE, 0o644, "", b"")],
        ),
        (
            "goes through links in a circle",
            &[
                ("a", LINK, 0o777, "b", b""),
                ("b", LINK, 0o777, "a", b""),
                ("a/x", FILE, 0o644, "", b""),
            ],
        ),
        (
            "is of a kind that layers do not have",
            &[("x", EntryType::new(b'?'), 0o644, "", b"")],
        ),
    ];
    for (expected, members) in cases {
        let found = problem(&one(members));
        assert!(found.contains(expected), "{expected}: {found}");
    }
    let deep = one(&[(&long, DIRECTORY, 0o755, "", b"")]);
    assert!(deep.read().is_ok(), "45 deep is within bounds");
}

#[test]
fn links_stay_inside_whatever_they_say() {
    let layout = one(&[
        ("up", LINK, 0o777, "../../../../etc", b""),
        ("root", LINK, 0o777, "/", b""),
        ("up/passwd", FILE, 0o644, "", b"inside"),
        ("root/file", FILE, 0o644, "", b"inside"),
        ("/absolute", FILE, 0o644, "", b"inside"),
    ]);
    let read = layout.read().unwrap();
    assert_eq!(
        paths(&read),
        ["absolute", "etc", "etc/passwd", "file", "root", "up"]
    );
}

#[test]
fn a_hundred_thousand_members_of_one_name_are_one_file() {
    let mut tar = Builder::new(Vec::new());
    for number in 0..100_000_u32 {
        let data = number.to_le_bytes();
        tar.append(&header("same", FILE, 0o644, "", 4), data.as_slice())
            .unwrap();
    }
    let mut layout = Layout::new();
    layout.image(
        "t",
        "amd64",
        &json!({}),
        &[gzipped(tar.into_inner().unwrap())],
    );
    let read = layout.read().unwrap();
    assert_eq!(paths(&read), ["same"]);
    assert_eq!(read.listing.hidden.len(), 99_999);
}

#[test]
fn a_sparse_file_of_100_gib_costs_what_it_stores() {
    let mut head = header("lastlog", EntryType::GNUSparse, 0o644, "", 0);
    let real: u64 = 100 << 30;
    // The real size in base 256, after the map.
    head.as_mut_bytes()[483..495].copy_from_slice(&{
        let mut field = [0_u8; 12];
        field[4..].copy_from_slice(&real.to_be_bytes());
        field[0] = 0x80;
        field
    });
    head.set_cksum();
    let mut tar = head.as_bytes().to_vec();
    tar.extend([0; 1024]);
    let mut layout = Layout::new();
    layout.image("t", "amd64", &json!({}), &[plain(tar)]);
    let read = layout.read().unwrap();
    let entry = &read.listing.entries[&"lastlog".parse().unwrap()];
    assert!(matches!(entry.node, Node::File { size_bytes, .. } if size_bytes == real));
}

#[test]
fn wrong_digests_sizes_and_ends_are_damage() {
    let members: &[Member<'_>] = &[("a", FILE, 0o644, "", &[7; 5000])];
    let image = |layer| {
        let mut layout = Layout::new();
        layout.image("t", "amd64", &json!({}), &[layer]);
        layout
    };
    let blob = |layout: &Layout, bytes: &[u8]| {
        layout
            .path()
            .join(format!("blobs/sha256/{}", Sha256Digest::of(bytes)))
    };
    let tar = layer(members);
    // Other bytes under the right name, of the right length.
    let layout = image(plain(tar.clone()));
    let mut other = tar.clone();
    other[600] ^= 1;
    std::fs::write(blob(&layout, &tar), &other).unwrap();
    assert!(
        problem(&layout).contains("it hashes to"),
        "{}",
        problem(&layout)
    );
    // Longer and shorter than its descriptor says.
    std::fs::write(blob(&layout, &tar), [tar.as_slice(), b"x"].concat()).unwrap();
    assert!(
        problem(&layout).contains("it has more bytes"),
        "{}",
        problem(&layout)
    );
    std::fs::write(blob(&layout, &tar), &tar[..1000]).unwrap();
    assert!(
        problem(&layout).contains("it has fewer bytes"),
        "{}",
        problem(&layout)
    );
    // Damage explains what a reader of the tar stumbles over.
    let mut header = tar.clone();
    header[100] ^= 1;
    std::fs::write(blob(&layout, &tar), &header).unwrap();
    assert!(
        problem(&layout).contains("it hashes to"),
        "{}",
        problem(&layout)
    );
    // A diffID of another tar.
    let layout = image(Layer {
        tar: layer(&[]),
        ..gzipped(tar.clone())
    });
    assert!(
        problem(&layout).contains("the configuration says"),
        "{}",
        problem(&layout)
    );
    // A gzip stream that ends in the middle, with a descriptor that agrees.
    let whole = gzip(&tar);
    let cut = whole[..whole.len() - 12].to_vec();
    let layout = image(Layer {
        blob: cut,
        ..gzipped(tar.clone())
    });
    assert!(
        matches!(layout.read(), Err(InspectError::Damaged { .. })),
        "{:?}",
        layout.read()
    );
    // No blob at all.
    let layout = image(plain(tar.clone()));
    std::fs::remove_file(blob(&layout, &tar)).unwrap();
    assert!(matches!(layout.read(), Err(InspectError::MissingBlob(_))));
}

#[test]
fn a_bomb_ends_at_its_ratio() {
    // 3 GiB of zeros in a file: zstd makes some 100 KiB of it.
    let size = 3 << 30;
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder
        .write_all(header("zeros", FILE, 0o644, "", size).as_bytes())
        .unwrap();
    std::io::copy(&mut std::io::repeat(0).take(size + 1024), &mut encoder).unwrap();
    let mut layout = Layout::new();
    let bomb = Layer {
        blob: encoder.finish().unwrap(),
        tar: Vec::new(),
        media_type: "application/vnd.oci.image.layer.v1.tar+zstd",
    };
    layout.image("t", "amd64", &json!({}), &[bomb]);
    let error = layout.read().err().unwrap();
    assert!(matches!(error, InspectError::TooLarge { .. }), "{error}");
}

#[test]
fn a_tar_may_end_right_after_its_last_byte() {
    let tar = layer(&[
        ("a", FILE, 0o644, "", b"a"),
        ("b", FILE, 0o644, "", b"12345"),
    ]);
    // Of the second file: header, data, and neither padding nor an end.
    let mut layout = Layout::new();
    layout.image(
        "t",
        "amd64",
        &json!({}),
        &[gzipped(tar[..1024 + 512 + 5].to_vec())],
    );
    assert_eq!(paths(&layout.read().unwrap()), ["a", "b"]);
    let mut layout = Layout::new();
    layout.image(
        "t",
        "amd64",
        &json!({}),
        &[gzipped(tar[..1024 + 512 + 4].to_vec())],
    );
    let found = problem(&layout);
    assert!(found.contains("`b` ends early"), "{found}");
}

#[test]
fn extended_headers_are_bounded_and_read_in_one_way() {
    let raw = |kind: u8, size: u64, data: &[u8]| {
        let mut tar = header("x", EntryType::new(kind), 0o644, "", size)
            .as_bytes()
            .to_vec();
        tar.extend(data);
        tar.resize(tar.len().next_multiple_of(512), 0);
        tar
    };
    let image = |tar: Vec<u8>| {
        let mut layout = Layout::new();
        layout.image("t", "amd64", &json!({}), &[plain(tar)]);
        layout
    };
    for kind in [b'L', b'x', b'g'] {
        let found = problem(&image(raw(kind, 90 << 30, b"")));
        assert!(found.contains("more than 1 MiB"), "{found}");
    }
    let found = problem(&image(raw(b'x', 12, b"99 path=abc\n")));
    assert!(found.contains("broken record"), "{found}");
    let twice = [
        raw(b'L', 3, b"one"),
        raw(b'x', 12, b"12 path=two\n"),
        raw(b'0', 0, b""),
    ];
    let found = problem(&image(twice.concat()));
    assert!(found.contains("a second name"), "{found}");
    // Capabilities come in a record.
    let record = b"33 SCHILY.xattr.security.x=value\n";
    assert_eq!(record.len(), 33);
    let read = image([raw(b'x', 33, record), raw(b'0', 0, b"")].concat())
        .read()
        .unwrap();
    let entry = &read.listing.entries[&"x".parse().unwrap()];
    assert_eq!(entry.attributes["security.x"], b"value");
}

#[test]
fn documents_that_are_two_things_or_too_much_are_refused() {
    let good = || one(&[("a", FILE, 0o644, "", b"")]);
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 6] = [
        ("an index and a manifest at once", |m| {
            m["manifests"] = json!([]);
        }),
        ("and its descriptor", |m| {
            m["mediaType"] = json!("application/vnd.oci.image.index.v1+json");
        }),
        ("is not a media type of a layer", |m| {
            m["layers"][0]["mediaType"] = json!("application/x-unknown");
        }),
        ("is not an image's configuration", |m| {
            m["config"]["mediaType"] = json!("application/vnd.unknown.config.v1+json");
        }),
        ("is not a SHA-256 digest", |m| {
            m["config"]["digest"] = json!("sha256:../../../../etc/passwd");
        }),
        ("it names 1 layers, and the manifest 0", |m| {
            m["layers"] = json!([]);
        }),
    ];
    for (expected, change) in cases {
        let mut layout = good();
        layout.change(change);
        let found = problem(&layout);
        assert!(found.contains(expected), "{expected}: {found}");
    }
    let layout = good();
    let index = layout.path().join("index.json");
    std::fs::write(&index, "[".repeat(1 << 20)).unwrap();
    assert!(
        problem(&layout).contains("recursion limit"),
        "{}",
        problem(&layout)
    );
    let file = std::fs::File::create(&index).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(matches!(layout.read(), Err(InspectError::TooLarge { .. })));
    std::fs::remove_file(&index).unwrap();
    assert!(matches!(
        layout.read(),
        Err(InspectError::NotAnImage { .. })
    ));
}

#[test]
fn the_command_says_yes_no_or_why_not() {
    let world = World::new();
    let mut layout = Layout::new();
    let token = b"ghp_Zk3vQ9sLx0Tb7RmWc2YpJ5dHn8AeUg4fKi1o";
    let tar = layer(&[("app/config", FILE, 0o644, "", token)]);
    layout.image("t", "amd64", &json!({ "User": "7:7" }), &[gzipped(tar)]);
    let image = layout.path().to_str().unwrap();
    let before = std::fs::read_dir(world.path()).unwrap().count();
    let no = world.kiln(&["inspect", image]);
    assert_eq!(no.status, 1, "{no:?}");
    assert!(
        no.stdout
            .contains("/app/config: it holds an access token at byte 0"),
        "{no:?}"
    );
    assert!(
        no.stderr.contains("violates the policy `hardened`"),
        "{no:?}"
    );
    assert!(!no.stdout.contains("ghp_"), "a secret is never printed");
    // Nothing is written, not even a store.
    assert_eq!(std::fs::read_dir(world.path()).unwrap().count(), before);
    world.write(
        "mine.toml",
        "name = \"mine\"\nsummary = \"x\"\n[policy]\nextends = \"minimal\"\n\
         [[policy.rules]]\nid = \"maximum-size\"\nat-most = 100\n\
         [[policy.exceptions]]\nrule = \"no-secrets\"\npath = \"/app/config\"\nreason = \"revoked\"\n",
    );
    let waived = world.kiln(&["inspect", image, "--policy", "mine.toml"]);
    assert_eq!(waived.status, 0, "{waived:?}");
    assert!(waived.stdout.contains("(revoked)"), "{waived:?}");
    let json = world.kiln(&["inspect", image, "--json", "-p", "mine.toml"]);
    let document: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(document["holds"], true);
    let rules = document["rules"].as_array().unwrap();
    let of = |id: &str| rules.iter().find(|rule| rule["id"] == id).unwrap();
    assert_eq!(of("no-secrets")["waived"][0]["reason"], "revoked");
    assert_eq!(of("entrypoint-present")["status"], "not assessed");
    let sarif = world.kiln(&["inspect", image, "--format", "sarif", "-p", "mine.toml"]);
    let document: Value = serde_json::from_str(&sarif.stdout).unwrap();
    let results = document["runs"][0]["results"].as_array().unwrap();
    let secret = results
        .iter()
        .find(|result| result["ruleId"] == "no-secrets")
        .unwrap();
    assert_eq!(secret["suppressions"][0]["justification"], "revoked");
    // What waives nothing is a violation.
    let text = std::fs::read_to_string(world.path().join("mine.toml")).unwrap();
    world.write("mine.toml", &text.replace("/app/config", "/app/other"));
    let unused = world.kiln(&["inspect", image, "--policy", "mine.toml"]);
    assert_eq!(unused.status, 1);
    assert!(unused.stdout.contains("waives nothing"), "{unused:?}");
    // Bad input of every kind.
    world.write("mine.toml", &text.replace("maximum-size", "maximum-sise"));
    for (arguments, expected) in [
        (vec!["inspect", "missing"], "there is no `missing`"),
        (
            vec!["inspect", image, "--policy", "none"],
            "there is no policy `none`",
        ),
        (
            vec!["inspect", image, "--policy", "mine.toml"],
            "did you mean `maximum-size`?",
        ),
        (
            vec!["inspect", image, "--platform", "linux/s390x"],
            "nothing for `linux/s390x`",
        ),
        (vec!["inspect", image, image], "two images are named"),
        (
            vec!["inspect", "--diff", image],
            "cannot be compared with itself",
        ),
    ] {
        let run = world.kiln(&arguments);
        assert_eq!(run.status, 2, "{run:?}");
        assert!(run.stderr.contains(expected), "{expected}: {run:?}");
        assert!(
            run.stderr.contains("hint:") || run.stderr.contains("mean"),
            "{run:?}"
        );
    }
}

#[test]
fn two_images_are_compared_file_by_file() {
    let world = World::new();
    let old = one(&[
        ("gone", FILE, 0o644, "", b"12345"),
        ("mode", FILE, 0o644, "", b""),
        ("same", FILE, 0o644, "", b"same"),
        ("text", FILE, 0o644, "", b"old"),
    ]);
    let new = one(&[
        ("mode", FILE, 0o755, "", b""),
        ("new", DIRECTORY, 0o755, "", b""),
        ("same", FILE, 0o644, "", b"same"),
        ("text", LINK, 0o777, "same", b""),
    ]);
    let (old, new) = (old.path().to_str().unwrap(), new.path().to_str().unwrap());
    let run = world.kiln(&["inspect", "--diff", old, new]);
    assert_eq!(run.status, 1);
    insta::assert_snapshot!(run.stdout, @r"
    removed          -5 B  /gone
    changed          +0 B  /mode (mode 0755, was 0644)
    added            +0 B  /new
    changed          -3 B  /text (was a file, is a symbolic link, mode 0777, was 0644)
    ");
    assert_eq!(world.kiln(&["inspect", "--diff", old, old]).status, 0);
}

#[test]
fn every_rule_is_listed_with_what_it_serves() {
    let world = World::new();
    let run = world.kiln(&["inspect", "--rules"]);
    assert_eq!(run.status, 0);
    assert_eq!(
        run.stdout.lines().count(),
        kiln::derivation::Rule::ALL.len()
    );
    assert!(
        run.stdout.contains("CIS Docker 4.1, NIST SP 800-190 4.1.2"),
        "{run:?}"
    );
}

#[test]
fn the_book_lists_every_rule() {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("book/src/reference/image-files.md");
    let book = std::fs::read_to_string(book).unwrap();
    for rule in kiln::derivation::Rule::ALL {
        let about = rule.about();
        let row = format!("| `{}` | {} | ", about.id, about.severity.as_str());
        assert!(book.contains(&row), "{row}");
    }
}

#[test]
fn policies_that_extend_one_another_in_a_circle_are_refused() {
    let world = World::new();
    let layout = one(&[]);
    for (name, other) in [("a", "b"), ("b", "a")] {
        world.write(
            &format!("derivations/policies/{name}.toml"),
            &format!(
                "name = \"{name}\"\nsummary = \"x\"\n[policy]\nextends = \"policies/{other}\"\n"
            ),
        );
    }
    let image = layout.path().to_str().unwrap();
    let run = world.kiln(&["inspect", image, "--policy", "policies/a"]);
    assert_eq!(run.status, 2, "{run:?}");
    assert!(run.stderr.contains("circle"), "{run:?}");
    // A package is no policy.
    let run = world.kiln(&["inspect", image, "--policy", "tools/good"]);
    assert_eq!(run.status, 2, "{run:?}");
    assert!(run.stderr.contains("is not a policy"), "{run:?}");
}

#[test]
fn a_built_image_keeps_what_its_policy_says_when_it_is_inspected() {
    let world = World::new();
    world.package(
        "tools/app",
        "",
        "mkdir \"$out/bin\"; echo text > \"$out/bin/page\"",
    );
    world.write(
        "derivations/images/app.toml",
        "name = \"app\"\nsummary = \"x\"\n[image]\npolicy = \"minimal\"\n\
         [[image.contents]]\npackage = \"tools/app\"\n",
    );
    let made = world.kiln(&["image", "images/app", "-o", "oci:layout"]);
    assert_eq!(made.status, 0, "{made:?}");
    let found = world.kiln(&["inspect", "layout", "--policy", "minimal"]);
    assert_eq!(found.status, 0, "{found:?}");
}

#[test]
fn names_do_not_move_the_cursor() {
    let world = World::new();
    let image = one(&[("etc/\u{1b}[2J\nok", FILE, 0o666, "", b"")]);
    let empty = one(&[]);
    let (image, empty) = (
        image.path().to_str().unwrap(),
        empty.path().to_str().unwrap(),
    );
    for arguments in [
        ["inspect", "--policy", "hardened", image].as_slice(),
        &["inspect", "--diff", empty, image],
    ] {
        let run = world.kiln(arguments);
        assert_eq!(run.status, 1, "{run:?}");
        assert!(run.stdout.contains("/etc/\u{fffd}[2J\u{fffd}ok"), "{run:?}");
        assert!(!run.stdout.contains('\u{1b}'), "{run:?}");
    }
}
