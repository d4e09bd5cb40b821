use super::*;
use crate::hash::ObjectDigest;
use crate::tree::facts::extract;

struct Fixture {
    projection: Projection,
    facts: BTreeMap<BlobDigest, ContentFacts>,
    seeded: BTreeMap<StorePath, StorePath>,
}

fn object(byte: u8) -> StorePath {
    StorePath::new(ObjectDigest::from_bytes([byte; 32]), "x".parse().unwrap())
}

fn path(text: &str) -> RelPath {
    text.parse().unwrap()
}

impl Fixture {
    fn new(files: &[(&str, &[u8], bool)]) -> Self {
        let mut fixture = Self {
            projection: Projection::default(),
            facts: BTreeMap::new(),
            seeded: BTreeMap::new(),
        };
        for (at, bytes, executable) in files {
            let digest = BlobDigest::of(bytes);
            fixture.facts.insert(digest, extract(bytes));
            let size_bytes = bytes.len() as u64;
            let entry = Entry::File {
                digest,
                size_bytes,
                executable: *executable,
            };
            let mode = if *executable { 0o555 } else { 0o444 };
            fixture.projection.entries.insert(
                path(at),
                Placed {
                    entry,
                    mode,
                    object: Some(object(1)),
                },
            );
        }
        fixture
    }

    fn findings(&self, rule: Rule, listed: &[&str]) -> Vec<String> {
        let executables = listed.iter().map(|text| path(text)).collect();
        let subject = Subject {
            projection: &self.projection,
            facts: &self.facts,
            executables: &executables,
            seeded: &self.seeded,
        };
        evaluate(&BTreeSet::from([rule]), &subject, &[])
            .findings
            .into_iter()
            .map(|finding| format!("{}: {}", finding.path, finding.message))
            .collect()
    }
}

#[test]
fn executables_are_a_closed_list() {
    let fixture = Fixture::new(&[
        ("bin/listed", b"\x7fELF", true),
        ("bin/unlisted", b"\x7fELF", true),
        ("lib/without-bit", b"#!/bin/perl\n", false),
        ("share/text", b"text", false),
        ("share/odd", b"text", true),
    ]);
    insta::assert_snapshot!(
        fixture.findings(Rule::AllowedExecutables, &["bin/listed", "bin/missing"]).join("
"), @r"
    bin/missing: listed, but there is no such program
    bin/unlisted: an ELF file that the image does not list
    lib/without-bit: a script that the image does not list
    share/odd: a file with an executable bit that the image does not list
    ");
}

#[test]
fn a_shell_is_found_by_content_script_or_name() {
    let dash = std::fs::read("/bin/dash").unwrap_or_else(|_| std::fs::read("/bin/sh").unwrap());
    let mut fixture = Fixture::new(&[
        ("bin/harmless", &dash, true),
        ("bin/script", b"#!/bin/sh\n", true),
        ("bin/bash", b"\x7fELF", true),
        ("bin/cat", &std::fs::read("/bin/cat").unwrap(), true),
        ("share/doc/bash", b"text", false),
    ]);
    let link = Entry::Symlink {
        target: "harmless".to_owned(),
    };
    let placed = Placed {
        entry: link,
        mode: 0o555,
        object: Some(object(1)),
    };
    fixture.projection.entries.insert(path("bin/sh"), placed);
    let found = fixture.findings(Rule::NoShell, &[]);
    let names: Vec<&str> = found
        .iter()
        .map(|text| text.split(':').next().unwrap())
        .collect();
    assert_eq!(
        names,
        ["bin/bash", "bin/harmless", "bin/script", "bin/sh"],
        "{found:?}"
    );
}

#[test]
fn dynamic_programs_setuid_bits_and_seeds_are_found() {
    let own = std::fs::read("/proc/self/exe").unwrap();
    let mut fixture = Fixture::new(&[("bin/dynamic", &own, true), ("bin/text", b"x", true)]);
    assert_eq!(fixture.findings(Rule::Static, &[]).len(), 1);
    assert!(fixture.findings(Rule::NoSetuid, &[]).is_empty());
    fixture
        .projection
        .entries
        .get_mut(&path("bin/text"))
        .unwrap()
        .mode = 0o4555;
    assert_eq!(
        fixture.findings(Rule::NoSetuid, &[]),
        ["bin/text: it has mode 4555"]
    );
    assert!(fixture.findings(Rule::NoSeed, &[]).is_empty());
    fixture.seeded.insert(object(1), object(2));
    assert_eq!(fixture.findings(Rule::NoSeed, &[]).len(), 2);
    assert!(fixture.findings(Rule::Explained, &[]).is_empty());
    fixture
        .projection
        .entries
        .get_mut(&path("bin/text"))
        .unwrap()
        .object = None;
    assert_eq!(fixture.findings(Rule::Explained, &[]).len(), 1);
}

#[test]
fn exceptions_waive_one_finding_and_must_waive_one() {
    let fixture = Fixture::new(&[
        ("bin/sh", b"#!/bin/sh\n", true),
        ("bin/ash", b"#!/bin/sh\n", true),
    ]);
    let exception = |at: &str| Exception {
        rule: Rule::NoShell,
        path: path(at),
        reason: "wanted".to_owned(),
    };
    let subject = Subject {
        projection: &fixture.projection,
        facts: &fixture.facts,
        executables: &BTreeSet::new(),
        seeded: &fixture.seeded,
    };
    let exceptions = [exception("bin/sh"), exception("bin/none")];
    let verdict = evaluate(&BTreeSet::from([Rule::NoShell]), &subject, &exceptions);
    assert_eq!(verdict.findings.len(), 1);
    assert_eq!(verdict.waived[0].1, "wanted");
    assert_eq!(verdict.unused, [exception("bin/none")]);
    assert!(!verdict.holds());
}
