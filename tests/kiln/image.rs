//! Images: the same bytes everywhere, and policies that hold.

use std::collections::BTreeSet;
use std::path::Path;

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

/// An image of its own text: `rest` follows `policy`.
fn write_image(world: &World, name: &str, rest: &str) {
    world.write(
        &format!("derivations/images/{name}.toml"),
        &format!(
            "name = \"{name}\"\nversion = \"1\"\nsummary = \"x\"\n[image]\n\
             policy = \"policies/loose\"\n{rest}"
        ),
    );
}

/// Returns what a tar of one of a layout's layers holds: mode, owner and name of each entry.
fn entries(world: &World, layout: &str) -> Vec<String> {
    let blobs = world.path().join(layout).join("blobs/sha256");
    let manifest = manifest(world, layout);
    let mut all = Vec::new();
    for layer in manifest["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap();
        let file =
            std::fs::File::open(blobs.join(digest.strip_prefix("sha256:").unwrap())).unwrap();
        for entry in tar::Archive::new(file).entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            all.push(format!(
                "{:04o} {}:{} {}",
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
                entry.path().unwrap().display()
            ));
        }
    }
    all
}

fn document(world: &World, layout: &str, digest: &str) -> serde_json::Value {
    let digest = digest.strip_prefix("sha256:").unwrap();
    let path = world.path().join(layout).join("blobs/sha256").join(digest);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn manifest(world: &World, layout: &str) -> serde_json::Value {
    let index = std::fs::read(world.path().join(layout).join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    document(
        world,
        layout,
        index["manifests"][0]["digest"].as_str().unwrap(),
    )
}

#[test]
fn files_of_the_images_own_stand_where_it_says_and_belong_to_whom_it_says() {
    let world = world();
    world.write("derivations/images/conf/app.conf", "listen\n");
    world.write("derivations/images/page.html", "hello\n");
    write_image(
        &world,
        "own",
        r##"
parts = ["passwd", "group", "nsswitch"]
user = "web"
writable = ["/var/cache/app"]
stop-signal = "SIGQUIT"
[image.health-check]
command = ["/bin/innocent", "--check"]
interval = "30s"
retries = 3
[[image.users]]
name = "web"
uid = 101
[[image.groups]]
name = "web"
gid = 101
members = ["web"]
[[image.files]]
path = "/etc/motd"
text = "welcome\n"
[[image.files]]
path = "/usr/bin/hello"
text = "#!/bin/innocent\n"
executable = true
[[image.files]]
path = "/etc/app"
source = "conf"
[[image.files]]
path = "/srv/index.html"
source = "page.html"
[[image.ownership]]
path = "/var/cache/app"
owner = "web"
mode = "0700"
[[image.ownership]]
path = "/srv/"
mode = "0644"
"##,
    );
    let run = world.kiln(&["image", "images/own", "-o", "oci:own"]);
    assert_eq!(run.status, 0, "{run:?}");
    insta::assert_snapshot!("own_files", entries(&world, "own").join("\n"));
    let config = document(
        &world,
        "own",
        manifest(&world, "own")["config"]["digest"]
            .as_str()
            .unwrap(),
    );
    insta::assert_snapshot!(
        "configuration",
        serde_json::to_string_pretty(&config["config"]).unwrap()
    );
    let again = world.kiln(&["image", "images/own", "-o", "oci:own"]);
    assert_eq!(again.stdout, run.stdout);
    // What an image's file says wrongly is said at its place.
    write_image(
        &world,
        "wrong",
        r#"
parts = ["passwd", "shadow"]
platform = "windows/amd64"
compression = "xz"
layers = 0
[[image.users]]
name = "a:b"
uid = 4294967295
[[image.groups]]
name = "one"
gid = 7
[[image.groups]]
name = "one"
gid = 7
[[image.files]]
path = "/x"
text = "x"
source = "y"
[[image.ownership]]
path = "/x"
mode = "4755"
"#,
    );
    let wrong = world.kiln(&["image", "images/wrong"]);
    assert_eq!(wrong.status, 2);
    insta::assert_snapshot!("wrong_image_file", wrong.stderr);
    write_image(
        &world,
        "missing",
        "[[image.files]]\npath = \"/x\"\nsource = \"y\"\n",
    );
    let missing = world.kiln(&["image", "images/missing"]);
    assert_eq!(missing.status, 2);
    insta::assert_snapshot!("missing_own_file", missing.stderr);
}

/// Packages that name one another by store path, and an image of the first.
fn linked() -> World {
    let world = world();
    let install = "mkdir -p \"$out/share/doc\" \"$out/lib\"; echo data > \"$out/share/data\"; \
                   echo more > \"$out/share/more\"; echo a > \"$out/lib/libx.a\"; echo d > \"$out/share/doc/x\"";
    world.package("libs/data", "", install);
    world.write(
        "derivations/tools/reader.toml",
        "name = \"reader\"\nversion = \"1\"\nsummary = \"x\"\nlicense = \"MIT\"\n\
         [build]\nrecipe = \"sh\"\ninputs = [\"libs/data\"]\n[build.phases]\ninstall = '''\n\
         mkdir \"$out/bin\"; echo \"read $data/share/data\" > \"$out/bin/reader.conf\"\n\
         echo other > \"$out/bin/other\"; ln -s reader.conf \"$out/bin/alias\"\n'''\n",
    );
    world
}

#[test]
fn the_store_layout_takes_what_is_named_and_explains_the_rest() {
    let world = linked();
    let contents = "[[image.contents]]\npackage = \"tools/reader\"\nfiles = [\"bin/alias\"]\n";
    write_image(&world, "linked", &format!("layout = \"store\"\n{contents}"));
    let run = world.kiln(&["image", "images/linked", "-o", "oci:linked", "--explain"]);
    assert_eq!(run.status, 0, "{run:?}");
    let filters = vec![("[a-z2-7]{52}|[0-9a-f]{64}", "DIGEST")];
    insta::with_settings!({ filters => filters }, {
        insta::assert_snapshot!("explanation", run.stdout);
        insta::assert_snapshot!("store_layout", entries(&world, "linked").join("\n"));
    });
    // The same in a flat image names the way out.
    write_image(&world, "flat", contents);
    let flat = world.kiln(&["image", "images/flat"]);
    assert_eq!(flat.status, 2);
    assert!(
        flat.stderr.contains("take `layout = \"store\"`"),
        "{flat:?}"
    );
}

#[test]
fn an_object_gives_one_layer_in_every_image() {
    let world = linked();
    let contents = "layout = \"store\"\n[[image.contents]]\npackage = \"tools/reader\"\n";
    write_image(&world, "one", contents);
    write_image(
        &world,
        "two",
        &format!("{contents}to = \"/opt\"\n[[image.contents]]\npackage = \"tools/app\"\n"),
    );
    let layers = |image: &str| -> Vec<String> {
        let run = world.kiln(&[
            "image",
            &format!("images/{image}"),
            "-o",
            &format!("oci:{image}"),
        ]);
        assert_eq!(run.status, 0, "{run:?}");
        let manifest = manifest(&world, image);
        let layers = manifest["layers"].as_array().unwrap().iter();
        layers
            .map(|layer| layer["digest"].as_str().unwrap().to_owned())
            .collect()
    };
    let (one, two) = (layers("one"), layers("two"));
    // Data, reader, links; and between them the other package.
    assert_eq!((one.len(), two.len()), (3, 4));
    assert!(
        one[..2].iter().all(|layer| two.contains(layer)),
        "{one:?} {two:?}"
    );
    // Under a budget they share layers, and a plan says which.
    write_image(&world, "few", &format!("layers = 2\n{contents}"));
    assert_eq!(layers("few").len(), 2);
    world.write(
        "derivations/images/cut.toml",
        "[[layers]]\ntitle = \"all\"\npackages = [\"tools/reader\", \"libs/data\"]\n",
    );
    write_image(
        &world,
        "planned",
        &format!("layers = \"cut.toml\"\n{contents}"),
    );
    assert_eq!(layers("planned").len(), 2);
    world.write(
        "derivations/images/cut.toml",
        "[[layers]]\ntitle = \"all\"\npackages = [\"tools/none\"]\n",
    );
    let wrong = world.kiln(&["image", "images/planned"]);
    assert_eq!(wrong.status, 2);
    assert!(
        wrong
            .stderr
            .contains("nothing of `tools/none` is needed for the image"),
        "{wrong:?}"
    );
}

#[test]
fn compressed_layers_hold_the_same_tars() {
    let world = world();
    let mut diff_ids = Vec::new();
    for compression in ["none", "gzip", "zstd"] {
        let target = format!("oci:{compression}");
        let arguments = [
            "image",
            "images/app",
            "-o",
            &target,
            "--compression",
            compression,
        ];
        let run = world.kiln(&arguments);
        assert_eq!(run.status, 0, "{run:?}");
        let manifest = manifest(&world, compression);
        let config = document(
            &world,
            compression,
            manifest["config"]["digest"].as_str().unwrap(),
        );
        diff_ids.push(config["rootfs"]["diff_ids"].clone());
        let layer = &manifest["layers"][0];
        let kind = match compression {
            "none" => "application/vnd.oci.image.layer.v1.tar".to_owned(),
            other => format!("application/vnd.oci.image.layer.v1.tar+{other}"),
        };
        assert_eq!(layer["mediaType"], kind.as_str());
        let encoder = layer["annotations"]["dev.kiln.layer.encoder"].as_str();
        assert_eq!(encoder.is_some(), compression != "none");
        // It comes from the cache the second time, and is judged as any image.
        assert_eq!(world.kiln(&arguments).stdout, run.stdout);
        let inspected = world.kiln(&["inspect", &target, "--policy", "policies/loose"]);
        assert!(inspected.status < 2, "{inspected:?}");
    }
    assert!(
        diff_ids.windows(2).all(|pair| pair[0] == pair[1]),
        "{diff_ids:?}"
    );
}

#[test]
fn a_layer_that_was_written_to_is_made_again_and_a_layout_that_was_is_refused() {
    let world = world();
    let run = world.kiln(&["image", "images/app", "-o", "oci:layout"]);
    assert_eq!(run.status, 0, "{run:?}");
    let manifest = manifest(&world, "layout");
    let digest = manifest["layers"][0]["digest"].as_str().unwrap();
    let digest = digest.strip_prefix("sha256:").unwrap();
    // Both names are of one file: a layout costs no second copy.
    let blob = world.path().join("layout/blobs/sha256").join(digest);
    let length = std::fs::metadata(&blob).unwrap().len();
    crate::world::unlock(&blob, 0o644);
    let file = std::fs::File::options().write(true).open(&blob).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"X", length / 2).unwrap();
    drop(file);
    let refused = world.kiln(&["image", "images/app", "-o", "oci:layout"]);
    assert_eq!(refused.status, 2, "{refused:?}");
    assert!(refused.stderr.contains("is damaged"), "{refused:?}");
    let elsewhere = world.kiln(&["image", "images/app", "-o", "oci:elsewhere"]);
    assert_eq!(elsewhere.status, 0, "{elsewhere:?}");
    let judged = world.kiln(&["inspect", "oci:elsewhere", "--policy", "policies/loose"]);
    assert!(judged.status < 2, "{judged:?}");
}

#[test]
fn an_image_that_is_made_again_reads_no_file_of_its_objects() {
    let world = world();
    image(&world, "policies/strict", "");
    let first = world.kiln(&["image", "images/app"]);
    assert_eq!(first.status, 1, "a shell is in it: {first:?}");
    image(&world, "policies/loose", "");
    let second = world.kiln(&["image", "images/app"]);
    assert_eq!(second.status, 0, "{second:?}");
    // Whatever would be read of the pool is not there any more.
    std::fs::rename(world.store().join("blobs"), world.path().join("blobs")).unwrap();
    std::fs::create_dir(world.store().join("blobs")).unwrap();
    let again = world.kiln(&["image", "images/app", "-o", "oci:again"]);
    assert_eq!(again.status, 0, "{again:?}");
    assert_eq!(digest(&again.stdout), digest(&second.stdout));
    // What is remembered is no other than what would be read.
    image(&world, "policies/strict", "");
    let judged = world.kiln(&["image", "images/app"]);
    assert_eq!(judged.status, 1);
    assert!(
        first.stderr.ends_with(&judged.stderr),
        "{first:?} {judged:?}"
    );
    // Forgotten, it is read; anything else in its place is forgotten too.
    for file in std::fs::read_dir(world.store().join("evaluations")).unwrap() {
        std::fs::write(file.unwrap().path(), "something else").unwrap();
    }
    let read = world.kiln(&["image", "images/app"]);
    assert_eq!(read.status, 2, "{read:?}");
    assert!(read.stderr.contains("cannot read"), "{read:?}");
}

/// What the standard set is under must not fail the policy that comes with it.
#[test]
fn the_strictest_policy_allows_the_licences_of_the_standard_set() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("derivations");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let policy: toml::Table = read(&top.join("policies/regulated.toml")).parse().unwrap();
    let allowed: BTreeSet<&str> = policy["policy"]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule["id"].as_str() == Some("licenses-allowed"))
        .flat_map(|rule| rule["names"].as_array().unwrap())
        .map(|name| name.as_str().unwrap())
        .collect();
    let mut count = 0;
    for folder in ["apps", "data", "libs", "tools"] {
        for entry in std::fs::read_dir(top.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let package: toml::Table = read(&path).parse().unwrap();
            let license = package["license"].as_str().unwrap();
            let expression = spdx::Expression::parse(license).unwrap();
            let is_allowed =
                expression.evaluate(|wanted| allowed.contains(wanted.license.to_string().as_str()));
            assert!(is_allowed, "{}: {license}", path.display());
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}
