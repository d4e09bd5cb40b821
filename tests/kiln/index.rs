//! Images for several platforms under one index.

use serde_json::Value;

use crate::world::World;

/// A world with an image of data for each of two platforms.
fn two_platforms() -> World {
    let world = World::new();
    for (name, platform) in [("small", "linux/amd64"), ("other", "linux/arm64")] {
        world.write(
            &format!("derivations/images/{name}.toml"),
            &format!(
                "name = \"greeting\"\nversion = \"1\"\nsummary = \"says hello\"\nlicense = \"MIT\"\n\
                 [image]\npolicy = \"minimal\"\nplatform = \"{platform}\"\nuser = \"1000:1000\"\n\
                 [[image.files]]\npath = \"/greeting\"\ntext = \"hello from {platform}\\n\"\n"
            ),
        );
    }
    world
}

#[test]
fn images_of_two_platforms_become_one_that_each_machine_takes_its_own_from() {
    let world = two_platforms();
    for (image, place) in [
        ("images/small", "oci:small"),
        ("images/other", "oci-archive:other.tar"),
    ] {
        let run = world.kiln(&["image", image, "-o", place, "--sbom", "cyclonedx-1.6"]);
        assert_eq!(run.status, 0, "{run:?}");
    }
    let run = world.kiln(&["index", "oci:small", "other.tar", "-o", "oci:both"]);
    assert_eq!(run.status, 0, "{run:?}");
    insta::assert_snapshot!("index", run.stdout);
    // The order in which they are named, and the form that they come in, say nothing.
    let arguments = ["--json", "index", "oci-archive:other.tar", "small"];
    let places = ["-o", "oci:again:1.0", "-o", "oci-archive:both.tar"];
    let again = world.kiln(&[&arguments[..], &places].concat());
    assert_eq!(again.status, 0, "{again:?}");
    let document: Value = serde_json::from_str(&again.stdout).unwrap();
    assert!(run.stdout.contains(document["digest"].as_str().unwrap()));
    // Each platform has its own files.
    for (place, platform) in [
        ("oci:both", "linux/amd64"),
        ("oci:both", "linux/arm64"),
        ("oci:again:1.0", "linux/arm64"),
        ("oci-archive:both.tar", "linux/arm64"),
    ] {
        let arguments = ["inspect", "--json", "--policy", "minimal", "--platform"];
        let inspected = world.kiln(&[&arguments[..], &[platform, place]].concat());
        assert_eq!(inspected.status, 0, "{inspected:?}");
        let image = document["images"].as_array().unwrap().iter();
        let digest = image.filter(|image| image["platform"] == platform);
        let digest = digest.map(|image| image["digest"].as_str().unwrap()).next();
        assert!(inspected.stdout.contains(digest.unwrap()), "{inspected:?}");
    }
    // What refers to an image is there with it.
    let index: Value = serde_json::from_str(&read(&world, "both/index.json")).unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 3, "{index}");
    let missing = world.kiln(&["inspect", "oci:both", "--platform", "linux/riscv64"]);
    assert_eq!(missing.status, 2);
    insta::assert_snapshot!("index_without_a_platform", missing.stderr);
}

#[test]
fn an_index_is_added_to_a_layout_and_its_referrers_stay() {
    let world = two_platforms();
    for image in ["images/small", "images/other"] {
        let place = format!("oci:{}", image.replace('/', "-"));
        let run = world.kiln(&["image", image, "-o", &place, "--sbom", "spdx-2.3"]);
        assert_eq!(run.status, 0, "{run:?}");
    }
    let sources = ["index", "oci:images-small", "oci:images-other", "-o"];
    let run = world.kiln(&[&sources[..], &["oci:shared:both"]].concat());
    assert_eq!(run.status, 0, "{run:?}");
    let entries = |world: &World| {
        let index: Value = serde_json::from_str(&read(world, "shared/index.json")).unwrap();
        index["manifests"].as_array().unwrap().len()
    };
    assert_eq!(entries(&world), 3);
    // Another image beside it, under another tag.
    let run = world.kiln(&["image", "images/small", "-o", "oci:shared:small"]);
    assert_eq!(run.status, 0, "{run:?}");
    assert_eq!(entries(&world), 4);
    let inspected = world.kiln(&["inspect", "oci:shared:both", "--policy", "minimal"]);
    assert_eq!(inspected.status, 0, "{inspected:?}");
}

#[test]
fn what_cannot_be_joined_is_said_and_nothing_is_written() {
    let world = two_platforms();
    for (image, places) in [
        (
            "images/small",
            &["oci:small", "docker-archive:small.tar:x:1"][..],
        ),
        ("images/other", &["oci:other"]),
    ] {
        for place in places {
            let run = world.kiln(&["image", image, "-o", place]);
            assert_eq!(run.status, 0, "{run:?}");
        }
    }
    let same = world.kiln(&["index", "oci:small", "oci:small", "-o", "oci:same"]);
    assert_eq!(same.status, 0, "one image named twice is one: {same:?}");
    let world_said = |arguments: &[&str]| {
        let run = world.kiln(&[&["index"], arguments, &["-o", "oci:out"]].concat());
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{run:?}");
        assert!(!world.path().join("out").exists(), "{run:?}");
        run.stderr
    };
    let mut said = vec![
        world_said(&["docker-archive:small.tar"]),
        world_said(&["oci:missing"]),
        world_said(&["oci:small:nosuch"]),
    ];
    // The same platform twice, in images that are not the same.
    world.write(
        "derivations/images/third.toml",
        &read(&world, "derivations/images/small.toml").replace("hello from", "good day from"),
    );
    let run = world.kiln(&["image", "images/third", "-o", "oci:third"]);
    assert_eq!(run.status, 0, "{run:?}");
    said.push(world_said(&["oci:small", "oci:third"]));
    // A layer that was changed.
    let run = world.kiln(&[
        "index",
        "oci:other",
        "oci:small",
        "-o",
        "docker-archive:x.tar",
    ]);
    assert_eq!(run.status, 2);
    said.push(run.stderr);
    let manifest = only_manifest(&world, "other");
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let blob = format!("other/blobs/{}", layer.replace(':', "/"));
    std::fs::remove_file(world.path().join(&blob)).unwrap();
    world.write(&blob, "something else");
    said.push(world_said(&["oci:small", "oci:other"]));
    insta::assert_snapshot!("index_refused", said.join("\n"));
}

/// Returns the manifest that a layout's index names first.
fn only_manifest(world: &World, layout: &str) -> Value {
    let index: Value = serde_json::from_str(&read(world, &format!("{layout}/index.json"))).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let path = format!("{layout}/blobs/{}", digest.replace(':', "/"));
    serde_json::from_str(&read(world, &path)).unwrap()
}

fn read(world: &World, path: &str) -> String {
    std::fs::read_to_string(world.path().join(path)).unwrap()
}
