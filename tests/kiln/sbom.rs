//! Bills of materials, and linkers' records, of real builds.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::world::{Run, World, serve};

/// A world whose builds have this machine's assembler, archiver and linker.
fn world() -> World {
    let world = World::new();
    let mut package = Vec::new();
    let mut data = tar::Builder::new(Vec::new());
    let mut sums = String::new();
    let mut add = |path: &Path, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        let name = path.strip_prefix("/").unwrap();
        data.append_data(&mut header, name, bytes).unwrap();
        sums.push_str(&format!("{:032}  {}\n", 0, name.display()));
    };
    for path in tools() {
        add(&path, &std::fs::read(&path).unwrap());
    }
    // Something that a root can bring into a program.
    let start = tempfile::tempdir().unwrap();
    let object = start.path().join("start.o");
    let source = start.path().join("start.s");
    std::fs::write(&source, START).unwrap();
    let status = Command::new("as")
        .arg("-o")
        .arg(&object)
        .arg(&source)
        .status();
    assert!(status.unwrap().success());
    add(
        Path::new("/usr/lib/start.o"),
        &std::fs::read(&object).unwrap(),
    );
    let data = data.into_inner().unwrap();
    let mut control = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(sums.len() as u64);
    header.set_mode(0o644);
    control
        .append_data(&mut header, "./md5sums", sums.as_bytes())
        .unwrap();
    let control = control.into_inner().unwrap();
    let mut archive = ar::Builder::new(&mut package);
    for (member, bytes) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar", control),
        ("data.tar", data),
    ] {
        let header = ar::Header::new(member.as_bytes().to_vec(), bytes.len() as u64);
        archive.append(&header, bytes.as_slice()).unwrap();
    }
    let name = world
        .path()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let sha256 = serve(&format!("/debian/pool/tools{name}_1_amd64.deb"), &package);
    world.write(
        "derivations/seed/tools.toml",
        &format!(
            "name = \"seed-tools\"\nversion = \"1\"\nsummary = \"x\"\nlicense = \"GPL-3.0\"\n[debian]\n\
             packages = [{{ name = \"binutils\", version = \"2:1\", sha256 = \"{sha256}\", path = \"pool/tools{name}_1_amd64.deb\" }}]\n"
        ),
    );
    world.write(
        "derivations/recipes/link.toml",
        "name = \"link\"\nsummary = \"x\"\n[recipe]\nroot = [\"seed/host\", \"seed/tools\"]\n",
    );
    world.write(
        "derivations/libs/tiny.toml",
        "name = \"tiny\"\nversion = \"3\"\nsummary = \"x\"\nlicense = \"GPL-2.0+\"\n\
         cpe = \"cpe:2.3:a:tiny:tiny:${version}:*:*:*:*:*:*:*\"\n[build]\nrecipe = \"link\"\n\
         [build.phases]\ninstall = '''\nmkdir \"$out/lib\"\n\
         printf '.globl one\\none: ret\\n' | as -o one.o -\nprintf '.globl two\\ntwo: ret\\n' | as -o two.o -\n\
         ar rcD \"$out/lib/libtiny.a\" one.o two.o\nar rcD \"$out/lib/libother.a\" two.o\n'''\n",
    );
    world.write(
        "derivations/apps/app.toml",
        "name = \"app\"\nversion = \"1\"\nsummary = \"x\"\nlicense = \"MIT\"\n[build]\nrecipe = \"link\"\n\
         inputs = [\"libs/tiny\"]\n[build.phases]\ninstall = '''\nmkdir \"$out/bin\"\n\
         printf '.globl main\\nmain: call one\\nret\\n' | as -o main.o -\n\
         \"$COMPILER_PATH/ld\" -static -o app /usr/lib/start.o main.o -L\"$tiny/lib\" -lother -ltiny\n\
         cp app \"$out/bin/app\"\nstrip \"$out/bin/app\"\nrm app\n\
         \"$COMPILER_PATH/ld\" -r -o both.o main.o main2.o 2> /dev/null || true\n'''\n\
         [outputs.out]\nlinkage = \"static\"\n",
    );
    world.write(
        "derivations/policies/loose.toml",
        "name = \"loose\"\nsummary = \"x\"\n[policy]\nrules = [\"explained\"]\n",
    );
    world.write(
        "derivations/images/app.toml",
        "name = \"app-image\"\nversion = \"7\"\nsummary = \"x\"\n[image]\npolicy = \"policies/loose\"\n\
         entrypoint = [\"/bin/app\"]\nuser = \"65534:65534\"\nwritable = [\"/tmp\"]\n\
         [[image.contents]]\npackage = \"apps/app\"\n",
    );
    world
}

/// Calls `main`, and then `exit`: the number of the call comes from a caller.
const START: &str = ".globl _start
_start: call main
mov $60, %edi
call make
hlt
make: mov %edi, %eax
xor %edi, %edi
syscall
ret
";

fn tools() -> BTreeSet<std::path::PathBuf> {
    let mut files = BTreeSet::new();
    for program in ["as", "ar", "ld", "strip"] {
        let path = Path::new("/usr/bin").join(program);
        let needed = Command::new("ldd").arg(&path).output().unwrap();
        for word in String::from_utf8_lossy(&needed.stdout).split_whitespace() {
            // The C library is the other package's.
            let brought = [
                "libbfd",
                "libopcodes",
                "libctf",
                "libsframe",
                "libz",
                "libzstd",
                "libjansson",
            ];
            if word.starts_with('/') && brought.iter().any(|name| word.contains(name)) {
                files.insert(std::path::PathBuf::from(word));
            }
        }
        files.insert(path);
    }
    files
}

fn good(run: Run) -> Run {
    assert_eq!(run.status, 0, "{run:?}");
    run
}

fn document(world: &World, arguments: &[&str]) -> Value {
    serde_json::from_str(&good(world.kiln(arguments)).stdout).unwrap()
}

fn packages(bill: &Value) -> Vec<&Value> {
    bill["packages"].as_array().unwrap().iter().collect()
}

fn id<'a>(bill: &'a Value, list: &str, key: &str, name: &str) -> &'a str {
    bill[list]
        .as_array()
        .unwrap()
        .iter()
        .find(|element| {
            element[key]
                .as_str()
                .is_some_and(|text| text.ends_with(name))
        })
        .unwrap_or_else(|| panic!("no {name} in {bill:#}"))["SPDXID"]
        .as_str()
        .unwrap()
}

fn related<'a>(bill: &'a Value, from: &str, kind: &str, to: &str) -> Option<&'a Value> {
    bill["relationships"]
        .as_array()
        .unwrap()
        .iter()
        .find(|relation| {
            relation["spdxElementId"] == json!(from)
                && relation["relationshipType"] == json!(kind)
                && relation["relatedSpdxElement"] == json!(to)
        })
}

#[test]
fn a_bill_tells_each_file_its_parts_and_what_was_linked_into_it() {
    let (world, other) = (world(), world());
    let bill = document(&world, &["sbom", "images/app"]);
    let image = id(&bill, "packages", "name", "app-image");
    // By the object's own name: the roots of their builds come from the same files.
    let app = id(&bill, "packages", "SPDXID", "-app-1");
    let tiny = id(&bill, "packages", "SPDXID", "-tiny-3");
    let seed = id(&bill, "packages", "name", "seed-tools");
    let binutils = id(&bill, "packages", "name", "binutils");
    let program = id(&bill, "files", "fileName", "./bin/app");
    let archive = id(&bill, "files", "fileName", "/lib/libtiny.a");
    let start = id(&bill, "files", "fileName", "/usr/lib/start.o");
    for (from, kind, to) in [
        ("SPDXRef-DOCUMENT", "DESCRIBES", image),
        (image, "CONTAINS", app),
        (app, "CONTAINS", program),
        (tiny, "BUILD_DEPENDENCY_OF", app),
        (seed, "CONTAINS", binutils),
        (app, "STATIC_LINK", tiny),
        (app, "STATIC_LINK", binutils),
        (binutils, "CONTAINS", start),
        (program, "STATIC_LINK", start),
    ] {
        assert!(
            related(&bill, from, kind, to).is_some(),
            "{from} {kind} {to}"
        );
    }
    let link = related(&bill, program, "STATIC_LINK", archive).unwrap();
    assert_eq!(link["comment"], json!("members: one.o"));
    let files = bill["files"].as_array().unwrap();
    assert_eq!(
        files.len(),
        3,
        "nothing of `libother.a` was taken: {files:#?}"
    );
    let held = std::fs::read(world.build("apps/app").join("bin/app")).unwrap();
    let file = files
        .iter()
        .find(|file| file["SPDXID"] == json!(program))
        .unwrap();
    assert_eq!(
        file["checksums"][1]["checksumValue"],
        json!(kiln::hash::Sha256Digest::of(&held).to_string())
    );
    let library = packages(&bill)
        .into_iter()
        .find(|package| package["SPDXID"] == json!(tiny))
        .unwrap();
    assert_eq!(library["licenseDeclared"], json!("GPL-2.0-or-later"));
    let locators: Vec<&Value> = library["externalRefs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reference| &reference["referenceLocator"])
        .collect();
    assert!(locators.contains(&&json!("cpe:2.3:a:tiny:tiny:3:*:*:*:*:*:*:*")));
    assert!(locators.contains(&&json!("pkg:generic/tiny@3")));
    assert_eq!(bill["comment"], Value::Null);
    // Again, and elsewhere: the same but for the package that each world made for itself.
    assert_eq!(bill, document(&world, &["sbom", "images/app"]));
    let elsewhere = document(&other, &["sbom", "images/app", "--json"]);
    assert_eq!(elsewhere["files"], bill["files"]);
}

#[test]
fn what_an_older_kiln_has_built_gets_its_record_when_it_is_proved() {
    let world = world();
    world.build("apps/app");
    let database = rusqlite::Connection::open(world.store().join("kiln.db")).unwrap();
    assert_eq!(database.execute("DELETE FROM links", []).unwrap(), 1);
    drop(database);
    let bill = document(&world, &["sbom", "apps/app"]);
    let said = bill["comment"].as_str().unwrap();
    assert!(said.contains("/bin/app"), "{said}");
    good(world.kiln(&["prove", "apps/app"]));
    let bill = document(&world, &["sbom", "apps/app"]);
    assert_eq!(bill["comment"], Value::Null);
    let program = id(&bill, "files", "fileName", "/bin/app");
    let archive = id(&bill, "files", "fileName", "/lib/libtiny.a");
    assert!(related(&bill, program, "STATIC_LINK", archive).is_some());
    good(world.kiln(&["store", "gc"]));
    let database = rusqlite::Connection::open(world.store().join("kiln.db")).unwrap();
    for table in ["links", "checksums"] {
        let left: i64 = database
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(left, 0, "{table}");
    }
}

#[test]
fn the_filter_of_an_image_has_the_calls_of_its_programs() {
    let world = world();
    let run = good(world.kiln(&["runtime", "images/app", "--for", "seccomp"]));
    assert!(
        run.stderr
            .contains("/bin/app: 1 system calls, all of them known"),
        "{run:?}"
    );
    let configuration = document(&world, &["runtime", "images/app"]);
    assert_eq!(configuration["process"]["user"]["uid"], json!(65534));
    let names = &configuration["linux"]["seccomp"]["syscalls"][0]["names"];
    assert!(names.as_array().unwrap().contains(&json!("exit")));
    assert!(!names.as_array().unwrap().contains(&json!("socket")));
    let run = good(world.kiln(&["runtime", "images/app", "--for", "podman", "-o", "how"]));
    assert_eq!(run.stdout, "how/seccomp.json\nhow/options\n");
    let options = std::fs::read_to_string(world.path().join("how/options")).unwrap();
    assert!(
        options.contains("--tmpfs=/tmp:rw,noexec,nosuid,nodev"),
        "{options}"
    );
    assert!(options.contains("seccomp.json"), "{options}");
}

#[test]
fn bills_stand_beside_an_image_and_go_with_it() {
    let world = world();
    let make = |rest: &[&str]| {
        let mut arguments = vec!["image", "images/app", "-o", "oci:layout:1"];
        arguments.extend(rest);
        good(world.kiln(&arguments)).stdout
    };
    let plain = make(&[]);
    let both = make(&["--sbom", "cyclonedx-1.6,spdx-2.3"]);
    assert_eq!(plain, both, "the image is the same");
    assert_eq!(make(&["--sbom", "spdx-2.3,cyclonedx-1.6"]), both);
    let read = |path: &str| -> Value {
        let bytes = std::fs::read(world.path().join("layout").join(path)).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        format!("blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap())
    };
    let index = read("index.json");
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 3, "{index:#}");
    let printed = document(&world, &["sbom", "images/app"]);
    let mut found = false;
    for entry in &entries[1..] {
        let referrer = read(&blob(entry));
        assert_eq!(referrer["subject"]["digest"], entries[0]["digest"]);
        assert_eq!(referrer["artifactType"], entry["artifactType"]);
        read(&blob(&referrer["config"]));
        found |= read(&blob(&referrer["layers"][0])) == printed;
    }
    assert!(found, "the document is what `kiln sbom` prints");
    // Another image under the tag takes them away.
    let file = world.path().join("derivations/images/app.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("65534", "1000")).unwrap();
    make(&[]);
    assert_eq!(read("index.json")["manifests"].as_array().unwrap().len(), 1);
}
