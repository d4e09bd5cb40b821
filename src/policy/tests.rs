use std::sync::Arc;

use super::*;
use crate::derivation::PathPattern;
use crate::hash::{BlobDigest, ObjectDigest, StorePath};
use crate::listing::image::{Hidden, Origin, Provenance};
use crate::tree::facts::extract;

#[derive(Default)]
struct Fixture {
    image: ImageListing,
    parameters: Parameters,
}

fn object(byte: u8) -> StorePath {
    StorePath::new(ObjectDigest::from_bytes([byte; 32]), "x".parse().unwrap())
}

fn path(text: &str) -> RelPath {
    text.parse().unwrap()
}

fn origin() -> Origin {
    Origin {
        object: object(1),
        package: None,
        license: Some("MIT".to_owned()),
        seed: None,
        source_known: true,
        reproduced: None,
    }
}

impl Fixture {
    fn new(files: &[(&str, &[u8], u32)]) -> Self {
        let mut fixture = Self::default();
        fixture.image.provenance = Provenance::Known;
        for (at, bytes, mode) in files {
            fixture.file(at, bytes, *mode);
        }
        fixture
    }

    fn file(&mut self, at: &str, bytes: &[u8], mode: u32) -> &mut ImageEntry {
        let digest = BlobDigest::of(bytes);
        self.image.facts.insert(digest, extract(bytes));
        let size_bytes = bytes.len() as u64;
        self.node(at, Node::File { digest, size_bytes }, mode)
    }

    fn link(&mut self, at: &str, target: &str) {
        let target = target.to_owned();
        self.node(at, Node::Symlink { target }, 0o777);
    }

    fn node(&mut self, at: &str, node: Node, mode: u32) -> &mut ImageEntry {
        let at = path(at);
        for above in at.ancestors() {
            let directory = ImageEntry::new(Node::Directory, 0o555, 0);
            self.image.entries.entry(above).or_insert(directory);
        }
        let mut entry = ImageEntry::new(node, mode, 0);
        entry.origin = Some(Arc::new(origin()));
        self.image.entries.insert(at.clone(), entry);
        self.image.entries.get_mut(&at).unwrap()
    }

    fn judge(&self, rule: Rule) -> Judgement {
        let demand = Demand {
            parameters: self.parameters.clone(),
            ..Demand::plain(rule)
        };
        evaluate(&self.image, &[demand], &[]).rules.remove(0)
    }

    fn findings(&self, rule: Rule) -> Vec<String> {
        let findings = self.judge(rule).findings;
        findings.iter().map(Remark::to_string).collect()
    }

    fn paths(&self, rule: Rule) -> Vec<String> {
        let findings = self.judge(rule).findings.into_iter();
        findings
            .map(|remark| {
                remark
                    .path
                    .map_or_else(String::new, |path| path.to_string())
            })
            .collect()
    }
}

const STATIC_ELF: &[u8] = b"\x7fELF";

#[test]
fn executables_are_a_closed_list() {
    let mut fixture = Fixture::new(&[
        ("bin/listed", STATIC_ELF, 0o555),
        ("bin/unlisted", STATIC_ELF, 0o555),
        ("lib/without-bit", b"#!/bin/perl\n", 0o444),
        ("share/text", b"text", 0o444),
        ("share/odd", b"text", 0o555),
    ]);
    assert_eq!(
        fixture.judge(Rule::AllowedExecutables).status(),
        Status::NotAssessed
    );
    fixture.image.executables = Some([path("bin/listed"), path("bin/missing")].into());
    insta::assert_snapshot!(fixture.findings(Rule::AllowedExecutables).join("\n"), @r"
    /bin/missing: listed, but there is no such program
    /bin/unlisted: an ELF file that the image does not list
    /lib/without-bit: a script that the image does not list
    /share/odd: a file with an executable bit that the image does not list
    ");
    // What the policy allows needs no list of the image's.
    fixture.image.executables = None;
    fixture.parameters.allow = vec![
        PathPattern::Below(path("bin")),
        PathPattern::Exactly(path("lib/without-bit")),
    ];
    assert_eq!(fixture.paths(Rule::AllowedExecutables), ["share/odd"]);
}

#[test]
fn a_shell_is_found_by_content_script_or_name() {
    let dash = std::fs::read("/bin/dash").unwrap_or_else(|_| std::fs::read("/bin/sh").unwrap());
    let mut fixture = Fixture::new(&[
        ("bin/harmless", &dash, 0o555),
        ("bin/script", b"#!/bin/sh\n", 0o555),
        ("bin/bash", STATIC_ELF, 0o555),
        ("bin/cat", &std::fs::read("/bin/cat").unwrap(), 0o555),
        ("share/doc/bash", b"text", 0o444),
    ]);
    fixture.link("bin/sh", "harmless");
    assert_eq!(
        fixture.paths(Rule::NoShell),
        ["bin/bash", "bin/harmless", "bin/script", "bin/sh"]
    );
}

#[test]
fn many_names_of_many_projects_make_a_multi_call_binary() {
    let own = std::fs::read("/proc/self/exe").unwrap();
    let mut fixture = Fixture::new(&[("bin/one", &own, 0o555)]);
    // One project's names, however many, are no sign.
    for name in [
        "cat", "ls", "cp", "halt", "reboot", "poweroff", "modprobe", "insmod",
    ] {
        fixture.link(&format!("bin/{name}"), "one");
    }
    assert!(fixture.findings(Rule::NoMultiCall).is_empty());
    for name in ["awk", "mount", "ping", "top", "tar"] {
        fixture.link(&format!("bin/{name}"), "/bin/one");
    }
    let found = fixture.findings(Rule::NoMultiCall);
    assert!(
        found[0].contains("it has 14 names, such as awk"),
        "{found:?}"
    );
    // Hard links are the same content under other names.
    let mut fixture = Fixture::new(&[]);
    for name in ["grep", "umount", "wget", "pidof", "gzip"] {
        fixture.file(&format!("bin/{name}"), &own, 0o555);
    }
    assert_eq!(fixture.paths(Rule::NoMultiCall).len(), 5);
}

#[test]
fn dynamic_programs_privileges_and_origins_are_found() {
    let own = std::fs::read("/proc/self/exe").unwrap();
    let mut fixture = Fixture::new(&[("bin/dynamic", &own, 0o555), ("bin/text", b"x", 0o555)]);
    let program = path("bin/text");
    let change = |fixture: &mut Fixture, change: &dyn Fn(&mut ImageEntry)| {
        change(fixture.image.entries.get_mut(&program).unwrap());
    };
    assert_eq!(fixture.findings(Rule::Static).len(), 1);
    assert!(fixture.findings(Rule::NoSetuid).is_empty());
    change(&mut fixture, &|entry| entry.mode = 0o4555);
    assert_eq!(
        fixture.findings(Rule::NoSetuid),
        ["/bin/text: it has mode 4555"]
    );
    change(&mut fixture, &|entry| {
        // Version 2, effective; permitted: net_bind_service (10).
        let value = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        entry
            .attributes
            .insert("security.capability".to_owned(), value.to_vec());
    });
    assert_eq!(
        fixture.findings(Rule::NoCapabilities),
        ["/bin/text: who executes it gets cap_net_bind_service"]
    );
    assert!(fixture.findings(Rule::NoSeed).is_empty());
    change(&mut fixture, &|entry| {
        Arc::make_mut(entry.origin.as_mut().unwrap()).seed = Some(object(2));
    });
    assert_eq!(fixture.paths(Rule::NoSeed), ["bin/text"]);
    assert!(fixture.findings(Rule::Explained).is_empty());
    assert_eq!(
        fixture.judge(Rule::ProofPresent).status(),
        Status::NotAssessed
    );
    change(&mut fixture, &|entry| entry.origin = None);
    assert_eq!(fixture.paths(Rule::Explained), ["bin/text"]);
    assert_eq!(fixture.paths(Rule::SourceKnown), ["bin/text"]);
}

#[test]
fn of_another_s_image_origins_are_not_assessed() {
    let mut fixture = Fixture::new(&[("a", b"x", 0o444)]);
    fixture.image.provenance = Provenance::Unknown;
    for rule in [
        Rule::Explained,
        Rule::SourceKnown,
        Rule::NoSeed,
        Rule::ProofPresent,
        Rule::LicensesAllowed,
    ] {
        assert_eq!(
            fixture.judge(rule).status(),
            Status::NotAssessed,
            "{rule:?}"
        );
    }
}

#[test]
fn licences_are_read_as_expressions() {
    let mut fixture = Fixture::new(&[("a", b"x", 0o444)]);
    let names = [
        "GPL-2.0",
        "LGPL-2.1-or-later",
        "LicenseRef-ours",
        "MIT",
        "Zlib",
    ];
    fixture.parameters.names = names.map(str::to_owned).into();
    for (license, is_allowed) in [
        ("MIT", true),
        ("MIT AND Zlib", true),
        ("MIT AND GPL-3.0-only", false),
        ("MIT OR GPL-3.0-only", true),
        ("(MIT OR GPL-3.0-only) AND Zlib", true),
        ("(MIT AND GPL-3.0-only) OR Zlib", true),
        ("(MIT OR Zlib) AND GPL-3.0-only", false),
        ("MIT WITH LLVM-exception", true),
        ("GPL-3.0-only", false),
        ("GPL-2.0", true),
        ("GPL-2.0-or-later", false),
        ("GPL-2.0-only", false),
        ("LGPL-2.1-or-later", true),
        ("LGPL-2.1-only", false),
        ("LicenseRef-ours", true),
        ("LicenseRef-theirs", false),
        ("Whatever you like", false),
        ("MIT AND", false),
        ("", false),
    ] {
        let entry = fixture.image.entries.get_mut(&path("a")).unwrap();
        Arc::make_mut(entry.origin.as_mut().unwrap()).license = Some(license.to_owned());
        let found = fixture.findings(Rule::LicensesAllowed);
        assert_eq!(found.is_empty(), is_allowed, "{license}");
    }
}

#[test]
fn links_are_followed_as_a_program_in_the_image_would() {
    let mut fixture = Fixture::new(&[("usr/lib/x", b"x", 0o444)]);
    fixture.link("lib", "usr/lib");
    fixture.link("good", "/lib/x");
    fixture.link("also-good", "lib/../lib/x");
    fixture.link("std", "/proc/self/fd/1");
    fixture.link("dangling", "lib/y");
    fixture.link("below-file", "lib/x/y");
    fixture.link("round", "round");
    fixture.link("usr/out", "../../etc/shadow");
    assert_eq!(
        fixture.paths(Rule::NoDanglingLinks),
        ["below-file", "dangling", "round", "usr/out"]
    );
    assert_eq!(fixture.paths(Rule::NoEscapingLinks), ["usr/out"]);
}

#[test]
fn modes_kinds_and_names() {
    let mut fixture = Fixture::new(&[
        ("etc/open", b"x", 0o666),
        ("etc/Open", b"x", 0o644),
        ("etc/closed", b"x", 0o644),
    ]);
    fixture.node("tmp", Node::Directory, 0o1777);
    fixture.node("free", Node::Directory, 0o777);
    let numbers = (8, 0);
    fixture.node(
        "sda",
        Node::Device {
            block: true,
            numbers,
        },
        0o600,
    );
    fixture.node("pipe", Node::Fifo, 0o600);
    assert_eq!(fixture.paths(Rule::NoWorldWritable), ["etc/open", "free"]);
    assert_eq!(fixture.paths(Rule::NoCaseCollisions), ["etc/open"]);
    assert_eq!(
        fixture.findings(Rule::NoDevices),
        [
            "/pipe: it is a named pipe",
            "/sda: it is a block device 8:0"
        ]
    );
}

#[test]
fn users_and_writable_places() {
    let mut fixture = Fixture::new(&[("app/run", b"#!/x\n", 0o755)]);
    for (user, status) in [
        ("", Status::Failed),
        ("root", Status::Failed),
        ("0:0", Status::Failed),
        ("00", Status::Failed),
        ("nobody", Status::NotAssessed),
        ("65534:65534", Status::Passed),
    ] {
        fixture.image.configuration.user = user.to_owned();
        assert_eq!(fixture.judge(Rule::NonRootUser).status(), status, "{user}");
    }
    assert!(fixture.findings(Rule::ReadOnlyRoot).is_empty());
    fixture.image.entries.get_mut(&path("app")).unwrap().owner = (65534, 0);
    assert_eq!(fixture.paths(Rule::ReadOnlyRoot), ["app"]);
    assert_eq!(fixture.paths(Rule::WritableWithoutPrograms), ["app/run"]);
    fixture.image.configuration.volumes = ["/app".to_owned()].into();
    assert!(fixture.findings(Rule::ReadOnlyRoot).is_empty());
    assert_eq!(fixture.paths(Rule::WritableWithoutPrograms), ["app/run"]);
}

#[test]
fn programs_are_known_by_name_and_content() {
    let python = std::fs::read("/usr/bin/python3").unwrap_or_default();
    let mut fixture = Fixture::new(&[
        ("usr/bin/x86_64-linux-gnu-gcc-12", STATIC_ELF, 0o755),
        ("usr/bin/python3.11", STATIC_ELF, 0o755),
        ("usr/bin/apt-get", STATIC_ELF, 0o755),
        ("usr/bin/curl", STATIC_ELF, 0o755),
        ("usr/bin/script", b"#!/usr/bin/perl -w\n", 0o755),
        ("usr/bin/renamed", &python, 0o755),
        ("usr/share/doc/gcc", b"text", 0o644),
        ("usr/bin/gccgo-text", b"text", 0o755),
    ]);
    fixture.link("usr/bin/cc", "x");
    assert_eq!(
        fixture.paths(Rule::NoCompiler),
        ["usr/bin/cc", "usr/bin/x86_64-linux-gnu-gcc-12"]
    );
    let mut interpreters = vec!["usr/bin/python3.11", "usr/bin/script"];
    if !python.is_empty() {
        interpreters.insert(1, "usr/bin/renamed");
    }
    assert_eq!(fixture.paths(Rule::NoInterpreter), interpreters);
    assert_eq!(fixture.paths(Rule::NoPackageManager), ["usr/bin/apt-get"]);
    assert_eq!(fixture.paths(Rule::NoNetworkTool), ["usr/bin/curl"]);
}

const TOKEN: &[u8] = b"ghp_Zk3vQ9sLx0Tb7RmWc2YpJ5dHn8AeUg4fKi1o";

#[test]
fn secrets_are_found_in_every_layer() {
    let mut fixture = Fixture::new(&[
        ("app/config", TOKEN, 0o644),
        ("app/tests/config", TOKEN, 0o644),
        ("root/.netrc", b"machine x login y password z", 0o600),
        ("root/.bash_history", b"ls", 0o600),
        ("var/lib/apt/lists/a", b"x", 0o644),
    ]);
    fixture.node("app/.git", Node::Directory, 0o755);
    assert_eq!(
        fixture.findings(Rule::NoSecrets),
        [
            "/app/config: it holds an access token at byte 0",
            "/root/.netrc: a file at this place holds logins"
        ]
    );
    assert_eq!(fixture.judge(Rule::NoSecrets).unknown.len(), 1);
    assert_eq!(fixture.paths(Rule::NoShellHistory), ["root/.bash_history"]);
    assert_eq!(
        fixture.paths(Rule::NoPackageCaches),
        ["var/lib/apt/lists/a"]
    );
    assert_eq!(fixture.paths(Rule::NoVersionControl), ["app/.git"]);
    assert!(fixture.findings(Rule::NoHiddenSecrets).is_empty());
    let entry = fixture.image.entries.remove(&path("app/config")).unwrap();
    let path = path("app/config");
    fixture.image.hidden.push(Hidden { path, entry, by: 1 });
    assert_eq!(
        fixture.findings(Rule::NoHiddenSecrets),
        ["/app/config: in layer 1, hidden by layer 2: it holds an access token at byte 0"]
    );
}

#[test]
fn secrets_of_the_configuration() {
    let mut fixture = Fixture::default();
    fixture.image.configuration.environment = [
        "PATH=/bin",
        "DB_PASSWORD=hunter22",
        "DB_PASSWORD_FILE=/run/secrets/db",
        "TOKEN=$OTHER",
    ]
    .map(str::to_owned)
    .to_vec();
    fixture.image.configuration.history = vec!["RUN |1 API_TOKEN=abcdefgh make".to_owned()];
    assert_eq!(
        fixture.findings(Rule::NoSecretEnvironment),
        [
            "command 1 of its history sets `API_TOKEN`",
            "the variable `DB_PASSWORD` has a value"
        ]
    );
}

#[test]
fn hardening_is_read_from_headers() {
    let own = std::fs::read("/proc/self/exe").unwrap();
    let mut fixture = Fixture::new(&[("bin/own", &own, 0o755)]);
    fixture.image.configuration.architecture = "amd64".to_owned();
    for rule in [
        Rule::Pie,
        Rule::Relro,
        Rule::NoExecutableStack,
        Rule::NoTextRelocations,
        Rule::NoForeignRpath,
    ] {
        assert_eq!(fixture.judge(rule).status(), Status::Passed, "{rule:?}");
    }
    let missing = fixture.findings(Rule::LibrariesPresent);
    assert!(
        missing.iter().any(|text| text.contains("its loader")),
        "{missing:?}"
    );
    assert_eq!(fixture.paths(Rule::NoDebugSections), ["bin/own"]);
    fixture.image.configuration.architecture = "arm64".to_owned();
    assert_eq!(
        fixture.judge(Rule::OneArchitecture).status(),
        Status::Failed
    );
    // A broken header is never a pass.
    let broken = Fixture::new(&[("bin/broken", STATIC_ELF, 0o755)]);
    assert_eq!(broken.judge(Rule::Pie).status(), Status::NotAssessed);
}

#[test]
fn limits_and_labels() {
    let mut fixture = Fixture::new(&[("a", b"12345", 0o644), ("b", b"1", 0o644)]);
    fixture.parameters.at_most = Some(6);
    assert!(fixture.findings(Rule::MaximumSize).is_empty());
    fixture.parameters.at_most = Some(5);
    assert_eq!(fixture.findings(Rule::MaximumSize).len(), 1);
    fixture.file("c", b"12345", 0o644).hard_link = Some(path("a"));
    fixture.parameters.at_most = Some(6);
    assert!(fixture.findings(Rule::MaximumSize).is_empty());
    // Once its first name is gone, the other one counts.
    fixture.image.entries.remove(&path("a"));
    assert!(fixture.findings(Rule::MaximumSize).is_empty());
    fixture.parameters.at_most = Some(5);
    assert_eq!(fixture.findings(Rule::MaximumSize).len(), 1);
    assert!(fixture.findings(Rule::MaximumFiles).is_empty());
    fixture.parameters.at_most = Some(1);
    assert_eq!(fixture.findings(Rule::MaximumFiles).len(), 1);
    fixture.parameters.names = ["title".to_owned()].into();
    assert_eq!(fixture.findings(Rule::RequiredLabels).len(), 1);
    let labels = &mut fixture.image.configuration.labels;
    labels.insert("title".to_owned(), "x".to_owned());
    assert!(fixture.findings(Rule::RequiredLabels).is_empty());
    assert!(fixture.findings(Rule::NoDebugTwin).is_empty());
    let labels = &mut fixture.image.configuration.labels;
    labels.insert("kiln.debug-of".to_owned(), "web".to_owned());
    assert_eq!(fixture.findings(Rule::NoDebugTwin).len(), 1);
}

#[test]
fn exceptions_waive_one_finding_and_must_waive_one() {
    let fixture = Fixture::new(&[
        ("bin/sh", b"#!/bin/sh\n", 0o555),
        ("bin/ash", b"#!/bin/sh\n", 0o555),
    ]);
    let exception = |at: &str| Exception {
        rule: Rule::NoShell,
        path: Some(path(at)),
        reason: "wanted".to_owned(),
    };
    let exceptions = [exception("bin/sh"), exception("bin/none")];
    let verdict = evaluate(&fixture.image, &[Demand::plain(Rule::NoShell)], &exceptions);
    assert_eq!(verdict.findings().len(), 1);
    assert_eq!(verdict.rules[0].waived[0].1, "wanted");
    assert_eq!(verdict.unused, [exception("bin/none")]);
    assert!(!verdict.holds());
}

#[test]
fn an_exception_may_leave_out_the_digest_of_an_object() {
    let object = format!("kiln/store/{}-dash-0.5.12", "a".repeat(52));
    let (dash, other) = (
        format!("{object}/bin/dash"),
        format!("{object}-extra/bin/dash"),
    );
    let script = b"#!/bin/sh\n";
    let fixture = Fixture::new(&[(&dash, script, 0o555), (&other, script, 0o555)]);
    let waived = |at: &str| {
        let exception = Exception {
            rule: Rule::NoShell,
            path: Some(path(at)),
            reason: "wanted".to_owned(),
        };
        let verdict = evaluate(
            &fixture.image,
            &[Demand::plain(Rule::NoShell)],
            &[exception],
        );
        let waived = verdict.waived().into_iter();
        waived
            .map(|(_, remark, _)| remark.to_string())
            .collect::<String>()
    };
    assert!(waived("kiln/store/dash-0.5.12/bin/dash").starts_with(&format!("/{dash}: ")));
    assert!(waived(&dash).starts_with(&format!("/{dash}: ")));
    for elsewhere in [
        "kiln/store/dash-0.5.12/bin/sh",
        "kiln/store/dash-0.5.1/bin/dash",
        "dash-0.5.12/bin/dash",
    ] {
        assert_eq!(waived(elsewhere), "");
    }
}

#[test]
fn findings_come_path_by_path() {
    let mut fixture = Fixture::new(&[("a", b"#!/bin/sh\n", 0o4555), ("b", b"#!/bin/sh\n", 0o4555)]);
    fixture.image.configuration.user = "0".to_owned();
    let demands = [Rule::NoSetuid, Rule::NonRootUser, Rule::NoShell].map(Demand::plain);
    let verdict = evaluate(&fixture.image, &demands, &[]);
    let found: Vec<(&str, Rule)> = verdict
        .findings()
        .into_iter()
        .map(|(rule, remark)| (remark.path.as_ref().map_or("", RelPath::as_str), rule))
        .collect();
    assert_eq!(
        found,
        [
            ("", Rule::NonRootUser),
            ("a", Rule::NoShell),
            ("a", Rule::NoSetuid),
            ("b", Rule::NoShell),
            ("b", Rule::NoSetuid),
        ]
    );
}
