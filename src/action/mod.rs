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
//!
//! A `build` or `test` that can be every user and group from 0 to 65535, and give files to
//! them, has `ids` too, which is `range`.

mod changes;
mod read;

use std::collections::{BTreeMap, BTreeSet};

use crate::derivation::Ids;
use crate::hash::json::Text;
use crate::hash::{
    ActionDigest, ObjectDigest, ObjectName, OutputName, RelPath, Sha256Digest, StorePath,
};

pub use changes::{Change, changes};
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
    /// Which users and groups it can be.
    pub ids: Ids,
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
    /// The object's only file is a crate; its content is unpacked, with the file
    /// `.cargo-checksum.json` that Cargo looks for in a vendored one.
    Crate,
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
    pub fn json(&self) -> Vec<u8> {
        let mut members = match &self.kind {
            ActionKind::Fetch { sha256, file } => vec![
                ("kind", Text::string("fetch")),
                ("sha256", Text::string(&sha256.to_string())),
                ("file", Text::string(file.as_str())),
            ],
            ActionKind::Debian(debian) => vec![
                ("kind", Text::string("debian")),
                ("packages", texts(&debian.packages)),
                ("exclude", texts(&debian.exclude)),
                ("links", by_path(&debian.links)),
                ("files", by_path(&debian.files)),
            ],
            ActionKind::Merge { inputs } => {
                vec![("kind", Text::string("merge")), ("inputs", texts(inputs))]
            }
            ActionKind::Build {
                run,
                outputs,
                checks,
            } => {
                let outputs = outputs
                    .iter()
                    .map(|(name, object)| (name.as_str(), Text::string(object.as_str())));
                let checks = checks.iter().map(|(name, checks)| {
                    let checks = checks.iter().map(|check| Text::string(check.as_str()));
                    (name.as_str(), Text::array(checks))
                });
                let mut members = run_members("build", run);
                members.push(("outputs", Text::object(outputs)));
                members.push(("checks", Text::object(checks)));
                members
            }
            ActionKind::Test { run } => run_members("test", run),
        };
        members.push(("schema", Text::string(SCHEMA)));
        members.push(("name", Text::string(self.name.as_str())));
        Text::object(members).into_bytes()
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

impl SourceLayout {
    /// Every layout.
    const ALL: [Self; 3] = [Self::Unpack, Self::Copy, Self::Crate];

    /// Returns the word in the action's JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unpack => "unpack",
            Self::Copy => "copy",
            Self::Crate => "crate",
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

fn texts<'a, T: ToString + 'a>(items: impl IntoIterator<Item = &'a T>) -> Text {
    Text::array(
        items
            .into_iter()
            .map(|item| Text::string(&item.to_string())),
    )
}

fn by_path(map: &BTreeMap<RelPath, String>) -> Text {
    Text::object(
        map.iter()
            .map(|(path, text)| (path.as_str(), Text::string(text))),
    )
}

fn run_members(kind: &str, run: &Run) -> Vec<(&'static str, Text)> {
    let inputs = run
        .inputs
        .iter()
        .map(|(name, path)| (name.as_str(), Text::string(&path.to_string())));
    let sources = run.sources.iter().map(|(at, source)| {
        let source = Text::object([
            ("object", Text::string(&source.object.to_string())),
            ("layout", Text::string(source.layout.as_str())),
        ]);
        (at.as_str(), source)
    });
    let environment = run
        .environment
        .iter()
        .map(|(name, value)| (name.as_str(), Text::string(value)));
    let mut members = vec![
        ("kind", Text::string(kind)),
        ("system", Text::string(SYSTEM)),
        ("command", Text::array(COMMAND.map(Text::string))),
        ("root", Text::string(&run.root.to_string())),
        ("inputs", Text::object(inputs)),
        ("sources", Text::object(sources)),
        ("environment", Text::object(environment)),
        ("script", Text::string(&run.script)),
        ("working-directory", Text::string(&run.working_directory)),
    ];
    // What most do not ask for is not there, so that it changes no digest of theirs.
    if run.ids == Ids::Range {
        members.push(("ids", Text::string(RANGE)));
    }
    members
}

/// The member `ids` of a run that has a range of them.
const RANGE: &str = "range";

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
                    ids: Ids::One,
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
    fn a_range_of_ids_is_a_member_of_its_own() {
        let mut ranged = build();
        if let ActionKind::Build { run, .. } = &mut ranged.kind {
            run.ids = Ids::Range;
        }
        let text = String::from_utf8(ranged.json()).unwrap();
        let without = String::from_utf8(build().json()).unwrap();
        assert_eq!(text.replace(r#""ids":"range","#, ""), without);
        assert_ne!(text, without);
        for action in [ranged, build()] {
            assert_eq!(Action::from_json(&action.json()).unwrap(), action);
        }
        for bad in [r#""ids":"one","#, r#""ids":null,"#, r#""ids":["range"],"#] {
            let text = text.replace(r#""ids":"range","#, bad);
            assert!(Action::from_json(text.as_bytes()).is_err(), "{bad}");
        }
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
