//! Actions: derivations whose inputs are all replaced by the store objects they produced.
//!
//! In: resolved inputs. Out: the action's canonical JSON and its digest. What is in the
//! JSON is all that may decide an output's bytes; what is not in it (core count, job
//! count, time limits, the store's location, addresses of sources) may not. This stage is
//! pure. An auditor recomputes a digest with `kiln show --action X | b3sum`.
//!
//! Every document has the members `schema` (`kiln.action.v1`), `kind` and `name`; the
//! other members depend on the kind:
//!
//! | kind | members |
//! |---|---|
//! | `fetch` | `sha256` of the file, `file`: the name it gets |
//! | `debian` | `packages`: objects that each hold one `.deb`, in order; `exclude`, `files`, `links` |
//! | `merge` | `inputs`: objects whose trees are laid over one another without conflict |
//! | `build` | `checks`, `command`, `environment`, `inputs`, `outputs`, `root`, `script`, `sources`, `system`, `working-directory` |
//! | `test` | as `build`, without `outputs` and `checks` |

mod read;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::hash::json::canonical;
use crate::hash::{
    ActionDigest, ObjectDigest, ObjectName, OutputName, RelPath, Sha256Digest, StorePath,
};

pub use read::ReadError;

/// The schema named in every action; it changes when the meaning of a member does.
pub const SCHEMA: &str = "kiln.action.v1";

/// The only system that kiln builds for.
pub const SYSTEM: &str = "x86_64-linux";

/// A derivation with resolved inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The readable part of its (first) output's path.
    pub name: ObjectName,
    /// What is done.
    pub kind: ActionKind,
}

/// What an action does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionKind {
    /// A file of known content comes from somewhere.
    Fetch {
        /// Its hash.
        sha256: Sha256Digest,
        /// The entry of the object that it becomes.
        file: RelPath,
    },
    /// Debian packages are unpacked into one tree.
    Debian(Debian),
    /// Trees are merged into one.
    Merge {
        /// The trees, in order.
        inputs: Vec<StorePath>,
    },
    /// A sandboxed build.
    Build {
        /// What runs and what it sees.
        run: Run,
        /// The outputs and their paths' readable parts.
        outputs: BTreeMap<OutputName, ObjectName>,
        /// What is demanded of outputs.
        checks: BTreeMap<OutputName, BTreeSet<Check>>,
    },
    /// A sandboxed test of finished outputs; it produces nothing but its outcome.
    Test {
        /// What runs and what it sees.
        run: Run,
    },
}

/// How Debian packages become a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debian {
    /// Objects that each hold one package file.
    pub packages: Vec<StorePath>,
    /// Paths and directories that are left out.
    pub exclude: BTreeSet<RelPath>,
    /// Symbolic links that are added.
    pub links: BTreeMap<RelPath, String>,
    /// Files that are added.
    pub files: BTreeMap<RelPath, String>,
}

/// What runs in a sandbox, and what it sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The tree that becomes `/`.
    pub root: StorePath,
    /// Objects at their store paths, by the variable that names them.
    pub inputs: BTreeMap<String, StorePath>,
    /// Trees and archives that are laid out below `/build`, by directory.
    pub sources: BTreeMap<RelPath, SourceInput>,
    /// Variables, beside those that name inputs and outputs.
    pub environment: BTreeMap<String, String>,
    /// The bash script.
    pub script: String,
    /// Where the script starts.
    pub working_directory: String,
}

/// Something that is laid out below `/build` before a build starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceInput {
    /// The object that holds it.
    pub object: StorePath,
    /// How it is laid out.
    pub layout: SourceLayout,
}

/// How a source is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceLayout {
    /// The object's only file is an archive; its content is unpacked.
    Unpack,
    /// The object's tree is copied.
    Copy,
}

/// Something that is demanded of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Every ELF file is static.
    Static,
}

/// The command of every build and test: bash reads the script, nothing else.
pub const COMMAND: [&str; 2] = ["/bin/bash", "/kiln/script"];

impl Action {
    /// Returns the canonical JSON: exactly the bytes that are hashed.
    ///
    /// # Panics
    /// Never: the document has no numbers and is at most four levels deep.
    pub fn json(&self) -> Vec<u8> {
        let mut document = match &self.kind {
            ActionKind::Fetch { sha256, file } => json!({
                "kind": "fetch",
                "sha256": sha256.to_string(),
                "file": file.as_str(),
            }),
            ActionKind::Debian(debian) => json!({
                "kind": "debian",
                "packages": texts(&debian.packages),
                "exclude": texts(&debian.exclude),
                "links": by_path(&debian.links),
                "files": by_path(&debian.files),
            }),
            ActionKind::Merge { inputs } => json!({ "kind": "merge", "inputs": texts(inputs) }),
            ActionKind::Build {
                run,
                outputs,
                checks,
            } => {
                let mut document = run_json("build", run);
                let outputs: BTreeMap<_, _> = outputs
                    .iter()
                    .map(|(name, object)| (name.as_str(), object.as_str()))
                    .collect();
                let checks: BTreeMap<_, Vec<&str>> = checks
                    .iter()
                    .map(|(name, checks)| {
                        (name.as_str(), checks.iter().map(|c| c.as_str()).collect())
                    })
                    .collect();
                insert(&mut document, "outputs", json!(outputs));
                insert(&mut document, "checks", json!(checks));
                document
            }
            ActionKind::Test { run } => run_json("test", run),
        };
        insert(&mut document, "schema", json!(SCHEMA));
        insert(&mut document, "name", json!(self.name.as_str()));
        canonical(&document).expect("no numbers, and four levels at most")
    }

    /// Returns the digest of [`Action::json`].
    pub fn digest(&self) -> ActionDigest {
        ActionDigest::from_bytes(*blake3::hash(&self.json()).as_bytes())
    }

    /// Returns the run of a build or test.
    pub fn run(&self) -> Option<&Run> {
        match &self.kind {
            ActionKind::Build { run, .. } | ActionKind::Test { run } => Some(run),
            ActionKind::Fetch { .. } | ActionKind::Debian(_) | ActionKind::Merge { .. } => None,
        }
    }
}

impl Check {
    /// Returns the word in the action's JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "static",
        }
    }
}

/// Returns the path that a builder is told for an output before its digest is known.
///
/// It depends on the action, the output and a salt, so that two rebuilds can be given
/// different ones; it has the length of the final path and is rewritten to it.
pub fn scratch_path(
    action: ActionDigest,
    output: &OutputName,
    name: &ObjectName,
    salt: &str,
) -> StorePath {
    let mut hasher = blake3::Hasher::new_derive_key("kiln 2026-11 scratch path v1");
    hasher.update(action.as_bytes());
    for part in [output.as_str(), salt] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    StorePath::new(
        ObjectDigest::from_bytes(*hasher.finalize().as_bytes()),
        name.clone(),
    )
}

fn texts<'a, T: ToString + 'a>(items: impl IntoIterator<Item = &'a T>) -> Vec<String> {
    items.into_iter().map(ToString::to_string).collect()
}

fn by_path(map: &BTreeMap<RelPath, String>) -> BTreeMap<&str, &str> {
    map.iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect()
}

fn insert(document: &mut Value, key: &str, value: Value) {
    if let Value::Object(members) = document {
        members.insert(key.to_owned(), value);
    }
}

fn run_json(kind: &str, run: &Run) -> Value {
    let inputs: BTreeMap<&str, String> = run
        .inputs
        .iter()
        .map(|(name, path)| (name.as_str(), path.to_string()))
        .collect();
    let sources: BTreeMap<&str, Value> = run
        .sources
        .iter()
        .map(|(at, source)| {
            let layout = match source.layout {
                SourceLayout::Unpack => "unpack",
                SourceLayout::Copy => "copy",
            };
            (
                at.as_str(),
                json!({ "object": source.object.to_string(), "layout": layout }),
            )
        })
        .collect();
    json!({
        "kind": kind,
        "system": SYSTEM,
        "command": COMMAND,
        "root": run.root.to_string(),
        "inputs": inputs,
        "sources": sources,
        "environment": run.environment,
        "script": run.script,
        "working-directory": run.working_directory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(byte: u8, name: &str) -> StorePath {
        StorePath::new(ObjectDigest::from_bytes([byte; 32]), name.parse().unwrap())
    }

    fn build() -> Action {
        Action {
            name: "demo-1".parse().unwrap(),
            kind: ActionKind::Build {
                run: Run {
                    root: object(1, "base-12"),
                    inputs: BTreeMap::from([("musl".to_owned(), object(2, "musl-1.2.3"))]),
                    sources: BTreeMap::from([(
                        "source".parse().unwrap(),
                        SourceInput {
                            object: object(3, "demo-1.tar.gz"),
                            layout: SourceLayout::Unpack,
                        },
                    )]),
                    environment: BTreeMap::from([("CC".to_owned(), "musl-gcc".to_owned())]),
                    script: "make\n".to_owned(),
                    working_directory: "/build/source".to_owned(),
                },
                outputs: BTreeMap::from([("out".parse().unwrap(), "demo-1".parse().unwrap())]),
                checks: BTreeMap::from([("out".parse().unwrap(), BTreeSet::from([Check::Static]))]),
            },
        }
    }

    #[test]
    fn the_canonical_form_of_a_build() {
        insta::assert_snapshot!(String::from_utf8(build().json()).unwrap(), @r#"{"checks":{"out":["static"]},"command":["/bin/bash","/kiln/script"],"environment":{"CC":"musl-gcc"},"inputs":{"musl":"/kiln/store/aibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaiba-musl-1.2.3"},"kind":"build","name":"demo-1","outputs":{"out":"demo-1"},"root":"/kiln/store/aeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaq-base-12","schema":"kiln.action.v1","script":"make\n","sources":{"source":{"layout":"unpack","object":"/kiln/store/ambqgaydambqgaydambqgaydambqgaydambqgaydambqgaydambq-demo-1.tar.gz"}},"system":"x86_64-linux","working-directory":"/build/source"}"#);
        insta::assert_snapshot!(build().digest().to_string(), @"9a5e13a817bd291244d60519e55453d0586827d97e011dff9133ae9447c978ad");
    }

    #[test]
    fn scratch_paths_differ_by_salt_and_output() {
        let (action, name) = (build().digest(), "demo-1".parse().unwrap());
        let out: OutputName = "out".parse().unwrap();
        let first = scratch_path(action, &out, &name, "");
        assert_ne!(first, scratch_path(action, &out, &name, "rebuild-1"));
        assert_ne!(
            first,
            scratch_path(action, &"dev".parse().unwrap(), &name, "")
        );
        assert_eq!(
            first.to_string().len(),
            object(0, "demo-1").to_string().len()
        );
    }
}
