//! Images: the same bytes everywhere, and policies that hold.

use crate::world::World;

fn world() -> World {
    let world = World::new();
    world.write(
        "derivations/policies/loose.toml",
        "name = \"loose\"\nsummary = \"x\"\n[policy]\nrules = [\"explained\", \"no-setuid\"]\n",
    );
    world.write(
        "derivations/policies/strict.toml",
        "name = \"strict\"\nsummary = \"x\"\n[policy]\n\
         rules = [\"explained\", \"allowed-executables\", \"no-shell\", \"no-setuid\", \"no-seed\", \"static\"]\n",
    );
    world.package(
        "tools/app",
        "",
        "mkdir \"$out/bin\" \"$out/share\"; cp /usr/bin/bash \"$out/bin/innocent\"; echo page > \"$out/share/page\"",
    );
    image(&world, "policies/loose", "");
    world
}

fn image(world: &World, policy: &str, rest: &str) {
    world.write(
        "derivations/images/app.toml",
        &format!(
            "name = \"app\"\nversion = \"1\"\nsummary = \"x\"\n[image]\npolicy = \"{policy}\"\n\
             entrypoint = [\"/bin/innocent\"]\nwritable = [\"/tmp\"]\n\
             [[image.contents]]\npackage = \"tools/app\"\n{rest}"
        ),
    );
}

fn digest(stdout: &str) -> &str {
    stdout
        .lines()
        .find_map(|line| line.strip_prefix("digest  "))
        .unwrap()
}

#[test]
fn two_stores_and_any_number_of_jobs_give_one_digest() {
    let (one, two) = (world(), world());
    let first = one.kiln(&["image", "images/app", "-j", "1", "--cores", "1", "--check"]);
    let second = two.kiln(&["image", "images/app"]);
    assert_eq!(
        (first.status, second.status),
        (0, 0),
        "{first:?} {second:?}"
    );
    assert_eq!(digest(&first.stdout), digest(&second.stdout));
    assert!(
        first
            .stdout
            .contains("check   reproducible: 1 builds repeated"),
        "{first:?}"
    );
}

#[test]
fn every_kind_of_target_is_written_and_written_again() {
    let world = world();
    let targets = [
        "oci:layout",
        "oci-archive:app.oci.tar",
        "docker-archive:app.docker.tar",
    ];
    let mut arguments = vec!["image", "images/app"];
    for target in &targets {
        arguments.extend(["-o", target]);
    }
    let first = world.kiln(&arguments);
    assert_eq!(first.status, 0, "{first:?}");
    let read = |path: &str| std::fs::read(world.path().join(path)).unwrap();
    let archives = (
        read("app.oci.tar"),
        read("app.docker.tar"),
        read("layout/index.json"),
    );
    assert_eq!(world.kiln(&arguments).stdout, first.stdout);
    assert_eq!(
        (
            read("app.oci.tar"),
            read("app.docker.tar"),
            read("layout/index.json")
        ),
        archives
    );
    // A second image joins a layout that is there.
    std::fs::write(world.path().join("occupied"), "x").unwrap();
    let refused = world.kiln(&["image", "images/app", "-o", "oci:occupied"]);
    assert_eq!(refused.status, 2);
    assert!(
        refused
            .stderr
            .contains("is there and is not an OCI image layout"),
        "{refused:?}"
    );
    let unknown = world.kiln(&["image", "images/app", "-o", "zip:x"]);
    assert_eq!(unknown.status, 2);
}

#[test]
fn a_violated_policy_lists_every_violation_and_writes_nothing() {
    let world = world();
    image(&world, "policies/strict", "");
    let run = world.kiln(&["image", "images/app", "-o", "oci:layout"]);
    assert_eq!(run.status, 1, "{run:?}");
    for expected in [
        "allowed-executables: /bin/innocent: an ELF file that the image does not list",
        "no-shell: /bin/innocent: it manages a shell's variables",
        "static: /bin/innocent: it asks for the loader",
    ] {
        assert!(run.stderr.contains(expected), "{expected}: {run:?}");
    }
    assert!(!world.path().join("layout").exists());
}

#[test]
fn exceptions_carry_a_reason_and_chosen_files_leave_the_rest_behind() {
    let world = world();
    image(&world, "policies/strict", "files = [\"share\"]\n");
    let run = world.kiln(&["image", "images/app", "-o", "oci:layout"]);
    assert_eq!(run.status, 0, "{run:?}");
    image(
        &world,
        "policies/strict",
        "files = [\"share\"]\n[[image.exceptions]]\nrule = \"no-shell\"\npath = \"/bin/x\"\nreason = \"y\"\n",
    );
    let run = world.kiln(&["image", "images/app"]);
    assert_eq!(run.status, 1);
    assert!(
        run.stderr
            .contains("exception for no-shell at /bin/x waives nothing"),
        "{run:?}"
    );
    image(&world, "policies/strict", "files = [\"share/pages\"]\n");
    let run = world.kiln(&["image", "images/app"]);
    assert_eq!(run.status, 2);
    assert!(run.stderr.contains("did you mean `share/page`?"), "{run:?}");
}

#[test]
fn nothing_of_the_seed_gets_in() {
    let world = world();
    world.write(
        "derivations/images/app.toml",
        "name = \"app\"\nsummary = \"x\"\n[image]\npolicy = \"policies/strict\"\n\
         [[image.contents]]\npackage = \"seed/host\"\nfiles = [\"etc/passwd\"]\n",
    );
    let run = world.kiln(&["image", "images/app"]);
    assert_eq!(run.status, 1);
    assert!(
        run.stderr
            .contains("no-seed: /etc/passwd: it is part of the binary seed"),
        "{run:?}"
    );
}

#[test]
fn a_flat_image_refuses_store_paths() {
    let world = world();
    world.package("tools/app", "", "echo \"$out\" > \"$out/config\"");
    let run = world.kiln(&["image", "images/app"]);
    assert_eq!(run.status, 2);
    assert!(run.stderr.contains("`config` at byte 12 names"), "{run:?}");
}
