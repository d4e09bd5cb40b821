//! Reading a `Cargo.lock`: the crates that a program needs, each by name, version and hash.
//!
//! The file is Cargo's own (versions 3 and 4 of its format). Every crate in it that is not
//! part of the project must come from the public registry and have a checksum: what no
//! hash names cannot be fetched by hash. Whether code of a crate ends up in the program
//! cannot be told from the file, which names tests' crates and other platforms' too.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, SourceFile, Spanned};
use super::fields::Fields;
use super::read::read_table;
use crate::hash::{RelPath, Sha256Digest};

/// Most crates that one file may name.
const MAX_CRATES: usize = 2048;

/// How Cargo begins the source of a crate of the public registry, wherever that is mirrored:
/// its index is a repository of the Rust project. The repository's name follows.
const PUBLIC: &str = "registry+https://github.com/rust-lang/";

/// A lock file, read.
#[derive(Debug, Clone)]
pub struct Lock {
    /// The file it was read from.
    pub file: Arc<SourceFile>,
    /// The crates of the registry, by the directory that each gets.
    pub crates: BTreeMap<RelPath, LockedCrate>,
}

/// A crate of the registry.
#[derive(Debug, Clone, PartialEq)]
pub struct LockedCrate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What its file must hash to.
    pub sha256: Spanned<Sha256Digest>,
}

impl Lock {
    /// Returns the crate whose file has a hash.
    pub fn find(&self, sha256: Sha256Digest) -> Option<&LockedCrate> {
        self.crates
            .values()
            .find(|found| found.sha256.value == sha256)
    }
}

/// Parses a lock file.
///
/// # Errors
/// Every problem that the file has, in the order of its lines.
pub fn parse_lock(file: &Arc<SourceFile>) -> Result<Lock, Vec<Diagnostic>> {
    read_table(file, |fields| {
        let place = fields.span_of("version");
        match fields.number("version") {
            Some(3 | 4) => {}
            // What is no number is reported already.
            None if fields.has("version") => {}
            version => {
                let said = match version {
                    Some(version) => format!("the lock file is of version {version}"),
                    None => "the lock file does not say of which version it is".to_owned(),
                };
                let file = fields.file;
                fields.report(Diagnostic::new(file, place, said).hint(
                    "versions 3 and 4 are known; `cargo generate-lockfile` of a Cargo since 1.53 writes one of them",
                ));
            }
        }
        let read = fields.list("package", |package| Some(read_crate(package)));
        if read.len() > MAX_CRATES {
            let message = format!("the lock file names {} crates", read.len());
            let file = fields.file;
            fields.report(
                Diagnostic::new(file, 0..0, message)
                    .hint(format!("a lock file may name {MAX_CRATES}")),
            );
            return None;
        }
        let mut crates = BTreeMap::new();
        for (directory, found) in read.into_iter().flatten() {
            let place = directory.range();
            let shown = format!("`{} {}`", found.name, found.version);
            if crates.insert(directory.value, found).is_some() {
                fields.problem(place, format!("{shown} stands in the file twice"));
            }
        }
        Some(Lock {
            file: Arc::clone(fields.file),
            crates,
        })
    })
}

/// Reads one entry; `None` for one of the project itself, and for one with a problem.
fn read_crate(fields: &mut Fields<'_, '_>) -> Option<(Spanned<RelPath>, LockedCrate)> {
    let name = fields.required("name");
    let version = fields.required("version");
    let source = fields.text("source");
    let checksum = fields.text("checksum");
    // What a crate needs stands in the file by itself.
    drop(fields.texts("dependencies"));
    let (name, version, source) = (name?, version?, source?);
    let file = fields.file;
    let shown = format!("`{} {}`", name.value, version.value);
    if !is_public(&source.value) {
        let (message, hint) = if source.value.starts_with("git+") {
            (
                format!("{shown} comes from a git repository, and no checksum names it"),
                "use a released version; or make its tree a source of its own, and name that by `path` in `Cargo.toml`",
            )
        } else {
            (
                format!("{shown} does not come from the public registry"),
                "make it a source of its own, with `urls` and `sha256`, and name that by `path` in `Cargo.toml`",
            )
        };
        fields.report(Diagnostic::new(file, source.range(), message).hint(hint));
        return None;
    }
    let Some(checksum) = checksum else {
        fields.report(
            Diagnostic::new(file, name.range(), format!("{shown} has no checksum"))
                .hint("let Cargo write the file again: `cargo generate-lockfile`"),
        );
        return None;
    };
    if !is_name(&name.value) {
        let message = format!(
            "`{}` cannot be the name of a crate",
            name.value.escape_debug()
        );
        fields.problem(name.range(), message);
        return None;
    }
    if !is_version(&version.value) {
        let shown = version.value.escape_debug();
        fields.problem(version.range(), format!("`{shown}` is not a version"));
        return None;
    }
    let directory = name.with(format!("{}-{}", name.value, version.value));
    let directory = fields.parsed::<RelPath>(Some(directory));
    let sha256 = fields.parsed::<Sha256Digest>(Some(checksum));
    let found = LockedCrate {
        name: name.value,
        version: version.value,
        sha256: sha256?,
    };
    Some((directory?, found))
}

fn is_public(source: &str) -> bool {
    let index = source.strip_prefix(PUBLIC);
    index.is_some_and(|index| index.ends_with("-index") && !index.contains(['/', '?', '#']))
}

/// Returns whether the registry would take a name. It has no dot, so that a name, `-` and a
/// version are never those of another crate.
fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// Returns whether a text begins with three numbers, as every semantic version does, and
/// has only characters of one.
fn is_version(text: &str) -> bool {
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let numbers = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    text.len() <= 128
        && core.split('.').count() == 3
        && core.split('.').all(numbers)
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".-+".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "registry+https://github.com/rust-lang/demo-index";
    const SUM: &str = "6a474ac46e8b0b32916c4c60df694c82058d3297d8b385b74508030ca4a8f28a";

    fn parsed(text: &str) -> Result<Lock, Vec<Diagnostic>> {
        parse_lock(&Arc::new(SourceFile {
            package: "tools/demo".parse().unwrap(),
            shown: "derivations/tools/Cargo.lock".to_owned(),
            text: text.to_owned(),
        }))
    }

    fn good() -> String {
        format!(
            "# This file is automatically @generated by Cargo.\nversion = 4\n\n\
             [[package]]\nname = \"demo\"\nversion = \"0.1.0\"\ndependencies = [\n \"itoa\",\n]\n\n\
             [[package]]\nname = \"itoa\"\nversion = \"1.0.1+x.2\"\nsource = \"{INDEX}\"\nchecksum = \"{SUM}\"\n"
        )
    }

    /// Returns what is said of a file that differs from a good one.
    fn said(from: &str, to: &str) -> String {
        let text = good();
        assert!(text.contains(from), "{from}");
        let problems = parsed(&text.replacen(from, to, 1)).expect_err("the file is bad");
        let lines: Vec<String> = problems
            .into_iter()
            .map(|problem| {
                let (line, column) = problem.position();
                let hint = problem.hint.unwrap_or_default();
                format!("{line}:{column} {} / {hint}", problem.message)
            })
            .collect();
        lines.join("\n")
    }

    #[test]
    fn crates_of_the_registry_are_read_and_the_project_s_own_are_not() {
        let lock = parsed(&good()).unwrap();
        let found: Vec<_> = lock.crates.iter().collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0.as_str(), "itoa-1.0.1+x.2");
        assert_eq!(found[0].1.version, "1.0.1+x.2");
        assert_eq!(lock.find(SUM.parse().unwrap()).unwrap().name, "itoa");
        assert!(parsed(&good().replace("version = 4", "version = 3")).is_ok());
    }

    #[test]
    fn what_is_no_lock_of_hashes_is_refused_with_its_place() {
        let twice = format!(
            "[[package]]\nname = \"itoa\"\nversion = \"1.0.1+x.2\"\nsource = \"{INDEX}\"\nchecksum = \"{SUM}\"\n\n[[package]]\nname = \"demo\""
        );
        let said = [
            said("version = 4", "version = 2"),
            said("version = 4\n", ""),
            said("version = 4", "version = \"4\""),
            said(
                INDEX,
                "git+https://github.com/rust-lang/demo-index?rev=1#0123456",
            ),
            said(INDEX, "registry+https://example.org/rust-lang/demo-index"),
            said(INDEX, "registry+https://github.com/rust-lang/demo/x-index"),
            said(INDEX, "sparse+https://example.org/index/"),
            said(&format!("checksum = \"{SUM}\"\n"), ""),
            said(SUM, "6A"),
            said("\"itoa\"\nversion", "\"../itoa\"\nversion"),
            said("\"itoa\"\nversion", "\"it.oa\"\nversion"),
            said("\"itoa\"\nversion", "\"\"\nversion"),
            said("1.0.1+x.2", "1.0/../../x"),
            said("1.0.1+x.2", "1.0"),
            said("1.0.1+x.2", "1.0.0\\u0000"),
            said("[[package]]\nname = \"demo\"", &twice),
            said("dependencies", "replace"),
            said("[[package]]", "[metadata]\nx = \"y\"\n[[package]]"),
            said("[[package]]", "[[package"),
        ];
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn a_lock_of_too_many_crates_is_refused() {
        let mut text = "version = 4\n".to_owned();
        for number in 0..=MAX_CRATES {
            text.push_str(&format!(
                "[[package]]\nname = \"a{number}\"\nversion = \"1.0.0\"\n"
            ));
        }
        let problems = parsed(&text).unwrap_err();
        assert_eq!(problems[0].message, "the lock file names 2049 crates");
        let (fewer, _) = text.rsplit_once("[[package]]").unwrap();
        assert!(parsed(fewer).unwrap().crates.is_empty());
    }
}
