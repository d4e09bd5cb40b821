//! Locked crates: from a `Cargo.lock` to a build that finds each, and a bill that names each.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::messages::{fails, refused};
use crate::world::{MIRROR, Run, World, serve};

/// Where Cargo says that a crate of the public registry comes from, but for the name.
const PUBLIC: &str = "registry+https://github.com/rust-lang/demo-index";

/// Lets the mirror serve a crate, and returns its entry of a lock file.
fn publish(name: &str, version: &str, license: &str) -> String {
    let manifest =
        format!("[package]\nname = \"{name}\"\nversion = \"{version}\"\nlicense = \"{license}\"\n");
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in [
        ("Cargo.toml", manifest.as_str()),
        ("src/lib.rs", "#![no_std]\n"),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(
            &mut header,
            format!("{name}-{version}/{path}"),
            text.as_bytes(),
        )
        .unwrap();
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar.into_inner().unwrap()).unwrap();
    let at = format!("/crates/{name}/{version}/download");
    let sha256 = serve(&at, &gzip.finish().unwrap());
    entry(name, version, &sha256.to_string())
}

fn entry(name: &str, version: &str, sha256: &str) -> String {
    format!(
        "\n[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{PUBLIC}\"\nchecksum = \"{sha256}\"\n"
    )
}

/// Writes a lock file of a project with some crates.
fn lock(world: &World, entries: &str) {
    let own = "\n[[package]]\nname = \"looks\"\nversion = \"1.0.0\"\n";
    world.write(
        "derivations/tools/Cargo.lock",
        &format!("version = 4\n{own}{entries}"),
    );
}

/// A world with a package that looks at two crates.
fn world() -> World {
    let world = World::new();
    let entries = publish("first-crate", "1.2.3+meta", "MIT/Apache-2.0")
        + &publish("second", "0.1.0", "as you like");
    lock(&world, &entries);
    world.package(
        "tools/looks",
        "[sources.vendor]\ncrates = \"Cargo.lock\"\n",
        "ls -a vendor/second-0.1.0 > \"$out/files\"\nls vendor > \"$out/crates\"\n\
         cat vendor/*/.cargo-checksum.json > \"$out/sums\"\ncat vendor/first-crate-1.2.3+meta/src/lib.rs > \"$out/code\"",
    );
    world
}

fn good(run: Run) -> Run {
    assert_eq!(run.status, 0, "{run:?}");
    run
}

#[test]
fn a_build_finds_every_crate_of_its_lock_file_as_cargo_wants_it() {
    let world = world();
    let out = world.build("tools/looks");
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    assert_eq!(read("crates"), "first-crate-1.2.3+meta\nsecond-0.1.0\n");
    assert_eq!(
        read("files"),
        ".\n..\n.cargo-checksum.json\nCargo.toml\nsrc\n"
    );
    assert_eq!(read("code"), "#![no_std]\n");
    let lock = std::fs::read_to_string(world.path().join("derivations/tools/Cargo.lock")).unwrap();
    let sums: Vec<String> = lock
        .lines()
        .filter_map(|line| line.strip_prefix("checksum = \"")?.strip_suffix('"'))
        .map(|sum| format!("{{\"files\":{{}},\"package\":\"{sum}\"}}"))
        .collect();
    assert_eq!(read("sums"), sums.concat());
    let action = good(world.kiln(&["show", "--action", "tools/looks"])).stdout;
    let action: Value = serde_json::from_str(&action).unwrap();
    let source = &action["sources"]["vendor/first-crate-1.2.3+meta"];
    assert_eq!(source["layout"], json!("crate"));
    let object = source["object"].as_str().unwrap();
    assert!(
        object.ends_with("-first-crate-1.2.3+meta.crate"),
        "{object}"
    );
    good(world.kiln(&["prove", "tools/looks"]));
}

#[test]
fn a_changed_lock_file_is_seen() {
    let world = world();
    world.build("tools/looks");
    lock(&world, &publish("second", "0.2.0", "MIT"));
    let path = world.path().join("derivations/tools/looks.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        text.replace("second-0.1.0", "second-0.*")
            .replace("first-crate-1.2.3+meta", "second-0.*"),
    )
    .unwrap();
    let crates = |out: std::path::PathBuf| std::fs::read_to_string(out.join("crates")).unwrap();
    assert_eq!(crates(world.build("tools/looks")), "second-0.2.0\n");
    assert_eq!(crates(world.build("tools/looks")), "second-0.2.0\n");
    lock(&world, &publish("second", "0.1.0", "as you like"));
    assert_eq!(crates(world.build("tools/looks")), "second-0.1.0\n");
}

#[test]
fn the_registry_is_where_cargo_found_it() {
    let world = world();
    let mut command = world.command(&["build", "tools/looks"]);
    let run = world.run(command.env_remove("KILN_MIRROR_CRATES"));
    insta::assert_snapshot!("no_registry", refused(run));
    let index = "home/.cargo/registry/index/mirror-0123456789abcdef/config.json";
    world.write(index, &format!("{{\"dl\": \"{}/crates\"}}", *MIRROR));
    let mut command = world.command(&["build", "tools/looks"]);
    good(world.run(command.env_remove("KILN_MIRROR_CRATES")));
}

#[test]
fn a_lock_file_that_cannot_be_used_is_named_with_its_line() {
    let world = world();
    let said = |world: &World| fails(world, "tools/looks");
    let sum = "0".repeat(64);
    lock(
        &world,
        &entry("forked", "1.0.0", &sum).replace(PUBLIC, "git+https://example.org/forked#0123"),
    );
    insta::assert_snapshot!("locked_git", said(&world));
    lock(&world, &entry("absent", "1.0.0", &sum));
    insta::assert_snapshot!("absent_crate", said(&world));
    let other = publish("other", "1.0.0", "MIT");
    let bytes = other.split("checksum = \"").nth(1).unwrap();
    lock(&world, &other.replace(&bytes[..64], &sum));
    insta::assert_snapshot!("other_crate", said(&world));
    std::fs::remove_file(world.path().join("derivations/tools/Cargo.lock")).unwrap();
    insta::assert_snapshot!("no_lock_file", said(&world));
}

#[test]
fn a_package_is_shown_with_its_locked_crates() {
    let world = world();
    let short = good(world.kiln(&["show", "tools/looks"])).stdout;
    assert!(
        short.ends_with("lock: derivations/tools/Cargo.lock (2 crates)\n"),
        "{short}"
    );
    let long = good(world.kiln(&["show", "--json", "tools/looks"])).stdout;
    let long: Value = serde_json::from_str(&long).unwrap();
    let crates = &long["locks"][0]["crates"];
    assert_eq!(crates[1]["name"], json!("second"), "{long:#}");
    assert_eq!(crates[1]["sha256"].as_str().map(str::len), Some(64));
}

#[test]
fn a_bill_names_every_crate_with_its_part() {
    let world = world();
    let looks = "inputs = [\"tools/looks\"]";
    world.package("tools/user", "", "touch \"$out/x\"");
    let path = world.path().join("derivations/tools/user.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        text.replace("recipe = \"sh\"", &format!("recipe = \"sh\"\n{looks}")),
    )
    .unwrap();
    let bill = |package: &str, format: &str| -> Value {
        let run = good(world.kiln(&["sbom", package, "--format", format]));
        serde_json::from_str(&run.stdout).unwrap()
    };
    let named = |bill: &Value, name: &str| -> Value {
        let packages = bill["packages"].as_array().unwrap();
        let found = packages
            .iter()
            .find(|package| package["name"] == json!(name));
        found
            .unwrap_or_else(|| panic!("no {name}: {bill:#}"))
            .clone()
    };
    let of_package = bill("tools/looks", "spdx-2.3");
    let first = named(&of_package, "first-crate");
    assert_eq!(first["versionInfo"], json!("1.2.3+meta"));
    assert_eq!(first["licenseDeclared"], json!("MIT OR Apache-2.0"));
    let comment = first["comment"].as_str().unwrap();
    assert!(comment.starts_with("part: locked\n"), "{comment}");
    assert!(
        comment.contains("to be had at: mirror://crates/first-crate/1.2.3+meta/download"),
        "{comment}"
    );
    let references = first["externalRefs"].as_array().unwrap();
    assert!(
        references
            .iter()
            .any(|reference| reference["referenceLocator"]
                == json!("pkg:cargo/first-crate@1.2.3%2Bmeta"))
    );
    let lock = std::fs::read_to_string(world.path().join("derivations/tools/Cargo.lock")).unwrap();
    assert!(lock.contains(first["checksums"][0]["checksumValue"].as_str().unwrap()));
    let second = named(&of_package, "second");
    assert_eq!(second["licenseDeclared"], json!("NOASSERTION"));
    assert!(
        second["comment"]
            .as_str()
            .unwrap()
            .contains("licence as written: as you like")
    );
    let program = named(&of_package, "looks");
    for found in [&first, &second] {
        let relation = json!({
            "spdxElementId": program["SPDXID"],
            "relationshipType": "DEPENDS_ON",
            "relatedSpdxElement": found["SPDXID"],
        });
        assert!(
            of_package["relationships"]
                .as_array()
                .unwrap()
                .contains(&relation),
            "{of_package:#}"
        );
    }
    // Of what was only built with the program, its crates are not.
    let of_user = bill("tools/user", "spdx-2.3");
    let comment = named(&of_user, "second")["comment"].clone();
    assert!(
        comment.as_str().unwrap().starts_with("part: build-time\n"),
        "{comment}"
    );
    let names = |list: &Value| -> Vec<String> {
        let list = list.as_array().unwrap();
        let names = list.iter().map(|one| one["name"].as_str().unwrap());
        names.map(str::to_owned).collect()
    };
    let locked = bill("tools/looks", "cyclonedx-1.6");
    assert!(names(&locked["components"]).contains(&"first-crate".to_owned()));
    assert!(!names(&locked["formulation"][0]["components"]).contains(&"first-crate".to_owned()));
    let built = bill("tools/user", "cyclonedx-1.6");
    assert!(!names(&built["components"]).contains(&"first-crate".to_owned()));
    assert!(names(&built["formulation"][0]["components"]).contains(&"first-crate".to_owned()));
}
