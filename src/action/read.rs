//! From canonical JSON back to an action: to repeat what was done, without its files.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::derivation::Ids;

use super::{
    Action, ActionKind, COMMAND, Check, Debian, RANGE, Run, SCHEMA, SYSTEM, SourceInput,
    SourceLayout,
};

/// JSON that is no action of this kiln.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not JSON, or has other members.
    #[error("it is not the JSON of an action")]
    Json(#[from] serde_json::Error),
    /// A member holds what it cannot.
    #[error("the action's `{member}` is `{value}`, which is not possible")]
    Member {
        /// The member.
        member: &'static str,
        /// What it holds.
        value: String,
    },
    /// It is read, but written again it would be other bytes.
    #[error("the action's JSON is not canonical")]
    NotCanonical,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Document {
    Fetch {
        sha256: String,
        file: String,
    },
    Debian {
        packages: Vec<String>,
        exclude: Vec<String>,
        links: BTreeMap<String, String>,
        files: BTreeMap<String, String>,
    },
    Merge {
        inputs: Vec<String>,
    },
    Build {
        #[serde(flatten)]
        run: RunDocument,
        outputs: BTreeMap<String, String>,
        checks: BTreeMap<String, Vec<String>>,
    },
    Test {
        #[serde(flatten)]
        run: RunDocument,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RunDocument {
    system: String,
    command: Vec<String>,
    root: String,
    inputs: BTreeMap<String, String>,
    sources: BTreeMap<String, SourceDocument>,
    environment: BTreeMap<String, String>,
    script: String,
    working_directory: String,
    ids: Option<String>,
}

#[derive(Deserialize)]
struct SourceDocument {
    object: String,
    layout: String,
}

#[derive(Deserialize)]
struct Head {
    schema: String,
    name: String,
}

fn parse<T: std::str::FromStr>(member: &'static str, text: &str) -> Result<T, ReadError> {
    text.parse().map_err(|_| ReadError::Member {
        member,
        value: text.to_owned(),
    })
}

fn expect(member: &'static str, found: &str, wanted: &str) -> Result<(), ReadError> {
    if found == wanted {
        return Ok(());
    }
    Err(ReadError::Member {
        member,
        value: found.to_owned(),
    })
}

impl Action {
    /// Reads what [`Action::json`] wrote.
    ///
    /// # Errors
    /// [`ReadError`], also when writing the result again would give other bytes.
    pub fn from_json(json: &[u8]) -> Result<Self, ReadError> {
        let head: Head = serde_json::from_slice(json)?;
        expect("schema", &head.schema, SCHEMA)?;
        let kind = match serde_json::from_slice(json)? {
            Document::Fetch { sha256, file } => ActionKind::Fetch {
                sha256: parse("sha256", &sha256)?,
                file: parse("file", &file)?,
            },
            Document::Debian {
                packages,
                exclude,
                links,
                files,
            } => ActionKind::Debian(Debian {
                packages: all("packages", &packages)?,
                exclude: all("exclude", &exclude)?,
                links: by("links", links, |text| Ok(text.to_owned()))?,
                files: by("files", files, |text| Ok(text.to_owned()))?,
            }),
            Document::Merge { inputs } => ActionKind::Merge {
                inputs: all("inputs", &inputs)?,
            },
            Document::Build {
                run,
                outputs,
                checks,
            } => ActionKind::Build {
                run: read_run(run)?,
                outputs: by("outputs", outputs, |text| parse("outputs", text))?,
                checks: checks
                    .into_iter()
                    .map(|(output, checks)| Ok((parse("checks", &output)?, read_checks(&checks)?)))
                    .collect::<Result<_, ReadError>>()?,
            },
            Document::Test { run } => ActionKind::Test {
                run: read_run(run)?,
            },
        };
        let action = Self {
            name: parse("name", &head.name)?,
            kind,
        };
        if action.json() == json {
            Ok(action)
        } else {
            Err(ReadError::NotCanonical)
        }
    }
}

fn all<T: std::str::FromStr, C: FromIterator<T>>(
    member: &'static str,
    texts: &[String],
) -> Result<C, ReadError> {
    texts.iter().map(|text| parse(member, text)).collect()
}

fn by<K: std::str::FromStr + Ord, V>(
    member: &'static str,
    map: BTreeMap<String, String>,
    value: impl Fn(&str) -> Result<V, ReadError>,
) -> Result<BTreeMap<K, V>, ReadError> {
    map.into_iter()
        .map(|(key, text)| Ok((parse(member, &key)?, value(&text)?)))
        .collect()
}

fn read_checks(checks: &[String]) -> Result<BTreeSet<Check>, ReadError> {
    checks
        .iter()
        .map(|check| {
            expect("checks", check, Check::Static.as_str())?;
            Ok(Check::Static)
        })
        .collect()
}

fn read_run(document: RunDocument) -> Result<Run, ReadError> {
    expect("system", &document.system, SYSTEM)?;
    expect("command", &document.command.join(" "), &COMMAND.join(" "))?;
    Ok(Run {
        root: parse("root", &document.root)?,
        inputs: by("inputs", document.inputs, |text| parse("inputs", text))?,
        sources: document
            .sources
            .into_iter()
            .map(|(at, source)| {
                let layout = SourceLayout::ALL
                    .into_iter()
                    .find(|layout| layout.as_str() == source.layout)
                    .ok_or(ReadError::Member {
                        member: "sources",
                        value: source.layout,
                    })?;
                let object = parse("sources", &source.object)?;
                Ok((parse("sources", &at)?, SourceInput { object, layout }))
            })
            .collect::<Result<_, ReadError>>()?,
        environment: document.environment,
        script: document.script,
        working_directory: document.working_directory,
        ids: match document.ids {
            None => Ids::One,
            Some(ids) => expect("ids", &ids, RANGE).map(|()| Ids::Range)?,
        },
    })
}
