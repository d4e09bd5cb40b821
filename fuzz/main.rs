//! Feeds the parsers of foreign bytes with changed copies of good input.
//!
//! `fuzz TARGET SECONDS [SEED]`, or `fuzz TARGET FILE` for one input. See `README.md`.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln::derivation::{Diagnostic, SourceFile};
use kiln::inspect::layer::{Budget, ReadLayer, members};
use kiln::inspect::{document, merge};
use kiln::listing::image::{Configuration, ImageLayer};
use kiln::tree::facts::extract;

/// Longest input that is made.
const MAX_INPUT: usize = 64 << 10;

/// Most inputs that are kept to be changed further.
const MAX_CORPUS: usize = 2000;

/// One parser.
struct Target {
    name: &'static str,
    seeds: fn() -> Vec<Vec<u8>>,
    /// Words that its inputs have.
    words: &'static [&'static str],
    /// Makes a changed input pass the first check, if there is one.
    mend: fn(&mut [u8]),
    /// Parses, and returns what came of it, in words.
    parse: fn(&[u8]) -> String,
}

const TARGETS: [Target; 4] = [
    Target {
        name: "tar",
        seeds: tars,
        words: &[
            "ustar\0",
            "ustar  \0",
            ".wh.",
            ".wh..wh..opq",
            "../",
            "/",
            "12 path=a/b\n",
            "30 SCHILY.xattr.security.a=x\n",
            "22 GNU.sparse.size=9\n",
            "\u{80}",
            "7777777",
        ],
        mend: mend_checksums,
        parse: parse_tar,
    },
    Target {
        name: "manifest",
        seeds: documents,
        words: &[
            "\"manifests\":[]",
            "\"layers\":[",
            "\"config\":{}",
            "null",
            "{",
            "[",
            "-1",
            "18446744073709551616",
            "\"sha256:\"",
            "\"mediaType\":\"\"",
            "\\u0000",
            "1e999",
        ],
        mend: |_| {},
        parse: parse_document,
    },
    Target {
        name: "elf",
        seeds: || {
            ["/bin/true", "/bin/sh"]
                .iter()
                .filter_map(|p| read(p))
                .collect()
        },
        words: &[
            "\x7fELF",
            "UPX!",
            "\0chmod\0",
            "\0PS1\0",
            "ghp_",
            "-----BEGIN ",
            "/home/",
        ],
        mend: |bytes| {
            if let Some(start) = bytes.get_mut(..4) {
                start.copy_from_slice(b"\x7fELF");
            }
        },
        parse: |bytes| {
            let facts = extract(bytes);
            format!("{:?} {:?}", facts.kind, facts.signs)
        },
    },
    Target {
        name: "derivation",
        seeds: derivations,
        words: &[
            "[policy]\n",
            "[image]\n",
            "[build]\n",
            "rules = [",
            "allow = [\"/\"]",
            "\"\"\"",
            "'''",
            "${name}",
            "at-most = 0x7fffffffffffffff\n",
            "[[",
            "]]",
            "= {",
            "\\u{0}",
            "[[package]]\n",
            "checksum = \"",
            "source = \"registry+",
        ],
        mend: |_| {},
        parse: parse_derivation,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let target = arguments
        .first()
        .and_then(|name| TARGETS.iter().find(|target| target.name == *name));
    let (Some(target), Some(what)) = (target, arguments.get(1)) else {
        eprintln!("usage: fuzz tar|manifest|elf|derivation SECONDS|FILE [SEED]");
        return ExitCode::from(2);
    };
    if let Ok(seconds) = what.parse() {
        let seed = arguments.get(2).and_then(|seed| seed.parse().ok());
        return run(target, Duration::from_secs(seconds), seed.unwrap_or(1));
    }
    match std::fs::read(what) {
        Ok(bytes) => {
            println!("{}", (target.parse)(&bytes));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot read `{what}`: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(target: &Target, time: Duration, seed: u64) -> ExitCode {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut corpus = (target.seeds)();
    corpus
        .iter_mut()
        .for_each(|input| input.truncate(MAX_INPUT));
    let mut answers = BTreeSet::new();
    let start = Instant::now();
    let mut tries = 0_u64;
    while start.elapsed() < time {
        let mut input = random.choose(&corpus).cloned().unwrap_or_default();
        for _ in 0..=random.below(4) {
            change(&mut input, &corpus, target.words, &mut random);
        }
        input.truncate(MAX_INPUT);
        if random.below(4) > 0 {
            (target.mend)(&mut input);
        }
        tries += 1;
        let Ok(answer) = catch_unwind(AssertUnwindSafe(|| (target.parse)(&input))) else {
            let file = format!("fuzz-{}.bin", target.name);
            match std::fs::write(&file, &input) {
                Ok(()) => eprintln!("{}: panic after {tries} inputs: see `{file}`", target.name),
                Err(error) => eprintln!("cannot write `{file}`: {error}"),
            }
            return ExitCode::from(1);
        };
        // Places and lengths are no news.
        let words: String = answer
            .chars()
            .filter(|c| !c.is_ascii_digit())
            .take(400)
            .collect();
        if corpus.len() < MAX_CORPUS && answers.insert(words) {
            corpus.push(input);
        }
    }
    println!(
        "{}: {tries} inputs, {} different answers, no panic",
        target.name,
        answers.len()
    );
    ExitCode::SUCCESS
}

/// Changes an input in one of the ways in which bytes go wrong.
fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&str], random: &mut Random) {
    const TELLING: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'/', b'"'];
    let at = random.below(input.len().max(1));
    let length = 1 + random.below(16);
    let end = (at + length).min(input.len());
    match random.below(8) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.choose(&TELLING).copied().unwrap_or(0);
            }
        }
        2 => drop(input.drain(at.min(end)..end)),
        3 => {
            let again = input.get(at..end).unwrap_or_default().to_vec();
            input.splice(at.min(input.len())..at.min(input.len()), again);
        }
        4 => {
            let word = random.choose(words).copied().unwrap_or("").as_bytes();
            let over = at.min(input.len())..(at + word.len()).min(input.len());
            input.splice(over, word.iter().copied());
        }
        5 => {
            let word = random.choose(words).copied().unwrap_or("").as_bytes();
            let at = at.min(input.len());
            input.splice(at..at, word.iter().copied());
        }
        6 => input.truncate(at),
        _ => {
            let other = random.choose(corpus).cloned().unwrap_or_default();
            let from = random.below(other.len().max(1));
            input.truncate(at);
            input.extend_from_slice(other.get(from..).unwrap_or_default());
        }
    }
}

/// xorshift64*: equal seeds give equal numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, most: usize) -> usize {
        let most = u64::try_from(most).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % most).unwrap_or(0)
    }

    fn choose<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

fn read(path: &str) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}

fn tars() -> Vec<Vec<u8>> {
    let mut plain = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    for (name, kind) in [
        ("d/", tar::EntryType::Directory),
        ("d/f", tar::EntryType::Regular),
        ("d/l", tar::EntryType::Symlink),
        ("d/h", tar::EntryType::Link),
        ("d/.wh.x", tar::EntryType::Regular),
        ("p", tar::EntryType::Fifo),
    ] {
        let data: &[u8] = if name == "d/f" { b"#!/bin/sh\n" } else { b"" };
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(data.len() as u64);
        let set = header
            .set_path(name)
            .and_then(|()| header.set_link_name("d/f"));
        set.expect("short names fit");
        header.set_cksum();
        plain.append(&header, data).expect("memory takes it");
    }
    let mut long = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    long.append_data(&mut header, "long/".repeat(40) + "name", b"abc".as_slice())
        .expect("memory takes it");
    let records = [("path", b"pax".as_slice()), ("size", b"3")];
    long.append_pax_extensions(records)
        .expect("memory takes it");
    header.set_cksum();
    long.append(&header, b"abc".as_slice())
        .expect("memory takes it");
    vec![
        plain.into_inner().expect("memory takes it"),
        long.into_inner().expect("memory takes it"),
    ]
}

/// Gives every block that may be a header the checksum that it needs.
fn mend_checksums(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        let looks_like_header = block.get(257..262) == Some(b"ustar");
        let Some(field) = block.get_mut(148..156) else {
            continue;
        };
        if looks_like_header {
            field.fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            if let Some(field) = block.get_mut(148..156) {
                field.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
    }
}

fn parse_tar(bytes: &[u8]) -> String {
    let mut stream = bytes;
    let (changes, facts) = match members(0, "fuzz", &mut stream, &Budget::default()) {
        Ok(read) => read,
        Err(error) => return error.to_string(),
    };
    let layer = ReadLayer {
        index: 0,
        layer: ImageLayer::default(),
        changes,
        facts,
    };
    let upper = layer.at(1);
    match merge::merge(vec![layer, upper], Configuration::default()) {
        Ok(listing) => format!("{} {}", listing.entries.len(), listing.hidden.len()),
        Err(error) => error.to_string(),
    }
}

fn documents() -> Vec<Vec<u8>> {
    let digest = "0".repeat(64);
    let descriptor = |kind: &str| {
        format!(
            r#"{{"mediaType":"{kind}","digest":"sha256:{digest}","size":7,"platform":{{"os":"linux","architecture":"arm","variant":"v7"}},"annotations":{{"org.opencontainers.image.ref.name":"t"}}}}"#
        )
    };
    let config = descriptor("application/vnd.oci.image.config.v1+json");
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar+gzip");
    let manifest = descriptor("application/vnd.oci.image.manifest.v1+json");
    [
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer},{layer}]}}"#),
        format!(r#"{{"schemaVersion":2,"manifests":[{manifest},{manifest}]}}"#),
        format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"User":"1","Env":["A=b"],"Labels":{{"a":"b"}},"Volumes":{{"/x":{{}}}},"Cmd":null}},"rootfs":{{"diff_ids":["sha256:{digest}"]}},"history":[{{"created_by":"x"}}]}}"#
        ),
        r#"[{"Config":"c.json","RepoTags":["a:b"],"Layers":["l/layer.tar"]}]"#.to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

fn parse_document(bytes: &[u8]) -> String {
    let words = |result: Result<String, kiln::inspect::InspectError>| {
        result.unwrap_or_else(|error| error.to_string())
    };
    [
        words(document::document(bytes, None).map(|found| format!("{found:?}"))),
        words(document::artifact(bytes).map(|found| format!("{found:?}"))),
        words(document::configuration(bytes).map(|found| format!("{found:?}"))),
        words(document::docker_manifest(bytes).map(|found| format!("{found:?}"))),
    ]
    .join(" | ")
}

fn derivations() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut pending = vec![std::path::PathBuf::from("derivations")];
    while let Some(directory) = pending.pop() {
        let Ok(entries) = std::fs::read_dir(directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "toml" || extension == "lock")
            {
                found.extend(std::fs::read(path));
            }
        }
    }
    found.sort();
    found
}

fn parse_derivation(bytes: &[u8]) -> String {
    let file = Arc::new(SourceFile {
        package: "fuzz".parse().expect("a package name"),
        shown: "fuzz".to_owned(),
        text: String::from_utf8_lossy(bytes).into_owned(),
    });
    let said = |problems: Vec<Diagnostic>| {
        let said = problems.iter().map(|problem| {
            let (line, column) = problem.position();
            format!("{line}:{column}: {}", problem.message)
        });
        said.collect::<Vec<_>>().join("; ")
    };
    let definition = match kiln::derivation::parse(&file) {
        Ok(definition) => format!("{:?}", definition.needs()),
        Err(problems) => said(problems),
    };
    let lock = match kiln::derivation::parse_lock(&file) {
        Ok(lock) => format!("{:?}", lock.crates.keys()),
        Err(problems) => said(problems),
    };
    format!("{definition}\n{lock}")
}
