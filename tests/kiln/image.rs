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
fn archives_replace_nothing_but_archives() {
    let world = world();
    let to = |target: &str, force: &[&str]| {
        world.kiln(&[&["image", "images/app", "-o", target], force].concat())
    };
    // A FIFO stands for a device: should it be lost, this machine does not miss it.
    let fifo = world.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("elsewhere", world.path().join("link")).unwrap();
    std::fs::create_dir(world.path().join("directory")).unwrap();
    for name in ["fifo", "link", "directory"] {
        for scheme in ["oci-archive", "docker-archive"] {
            let run = to(&format!("{scheme}:{name}"), &["--force"]);
            assert_eq!(run.status, 2, "{run:?}");
            assert!(
                run.stderr
                    .contains(&format!("`{name}` is there and is not a regular file")),
                "{run:?}"
            );
        }
    }
    let metadata = std::fs::symlink_metadata(&fifo).unwrap();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(
        &metadata.file_type()
    ));
    for text in ["", "my thesis\n", &"x".repeat(2000)] {
        world.write("precious", text);
        let run = to("oci-archive:precious", &[]);
        assert_eq!(run.status, 2, "{run:?}");
        assert!(
            run.stderr.contains("replace this one with `--force`"),
            "{run:?}"
        );
        let there = std::fs::read_to_string(world.path().join("precious")).unwrap();
        assert_eq!(there, text);
    }
    assert_eq!(to("oci-archive:precious", &["--force"]).status, 0);
    assert_eq!(to("docker-archive:precious", &[]).status, 0);
    let run = to("oci-archive:none/x.tar", &[]);
    assert_eq!(run.status, 2);
    assert_eq!(
        run.stderr.lines().collect::<Vec<_>>(),
        [
            "error: cannot create a file in `none`",
            "  because: No such file or directory (os error 2)",
            "  hint: create the directory first, or name another place with `-o`",
        ]
    );
}

#[test]
fn each_image_of_a_layout_has_a_tag_of_its_own() {
    let world = world();
    let text = std::fs::read_to_string(world.path().join("derivations/images/app.toml")).unwrap();
    world.write(
        "derivations/images/other.toml",
        &text.replace("name = \"app\"", "name = \"other\""),
    );
    let run = world.kiln(&["image", "images/app", "-o", "oci:layout"]);
    assert!(
        run.stdout.starts_with("image   oci:layout:latest\n"),
        "{run:?}"
    );
    let taken = world.kiln(&["image", "images/other", "-o", "oci:layout"]);
    assert_eq!(taken.status, 2, "{taken:?}");
    assert!(
        taken
            .stderr
            .contains("`layout` has another image under the tag `latest`: `app`"),
        "{taken:?}"
    );
    let named = world.kiln(&["image", "images/other", "-o", "oci:layout:v1.0"]);
    assert_eq!(named.status, 0, "{named:?}");
    assert!(!world.path().join("layout:v1.0").exists());
    // A newer image of the same name may have the tag.
    world.package(
        "tools/app",
        "",
        "mkdir \"$out/share\"; echo new > \"$out/share/page\"",
    );
    let newer = world.kiln(&["image", "images/app", "-o", "oci:layout"]);
    assert_eq!(newer.status, 0, "{newer:?}");
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(world.path().join("layout/index.json")).unwrap())
            .unwrap();
    let digests: Vec<(&str, &str)> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let tag = &entry["annotations"]["org.opencontainers.image.ref.name"];
            (tag.as_str().unwrap(), entry["digest"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        digests,
        [
            ("v1.0", digest(&named.stdout)),
            ("latest", digest(&newer.stdout))
        ]
    );
}

#[test]
fn of_several_outputs_the_one_called_out_is_taken() {
    let world = world();
    world.package(
        "tools/app",
        "[outputs.lib]\n[outputs.out]",
        "echo lib > \"$lib/of-lib\"; echo out > \"$out/of-out\"",
    );
    let run = world.kiln(&["image", "images/app", "-o", "oci-archive:x.tar"]);
    assert_eq!(run.status, 0, "{run:?}");
    let bytes = std::fs::read(world.path().join("x.tar")).unwrap();
    let holds = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    assert!(holds(b"of-out") && !holds(b"of-lib"));
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
