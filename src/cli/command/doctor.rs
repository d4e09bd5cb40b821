//! `kiln doctor`: tries what building needs.

use serde_json::json;

use kiln_sandbox::{FeatureState, Launcher, Need};

use crate::build::permitted;
use crate::cli::arguments::Arguments;
use crate::cli::report::{Answer, Failure, Output};
use crate::cli::settings::Settings;
use crate::store::{Hermeticity, Store};

struct Finding {
    name: String,
    /// Whether nothing can be built without it but by `--weak-sandbox`, if at all.
    needed: bool,
    problem: Option<(String, String)>,
    note: String,
}

pub(in crate::cli) fn run(arguments: &Arguments, output: &Output) -> Result<Answer, Failure> {
    let settings = Settings::read(arguments)?;
    let mut findings: Vec<Finding> = kiln_sandbox::features(&Launcher::current())
        .into_iter()
        .map(|feature| {
            let permitted = |hermeticity| match feature.need {
                Need::Always => false,
                Need::Layer(weakness) => permitted(hermeticity).contains(&weakness),
                Need::Asked => true,
            };
            let needed = !permitted(Hermeticity::Required);
            let (note, problem) = match feature.state {
                FeatureState::Works { note } => (note, None),
                FeatureState::Missing { why, remedy } => {
                    let remedy = if needed && permitted(Hermeticity::Waived) {
                        format!(
                            "{remedy}; or go without, and not hermetically, with `--weak-sandbox`"
                        )
                    } else {
                        remedy
                    };
                    (String::new(), Some((why, remedy)))
                }
            };
            Finding {
                name: feature.name.to_owned(),
                needed,
                note,
                problem,
            }
        })
        .collect();
    findings.push(Finding {
        name: "store".to_owned(),
        needed: true,
        note: settings.store.display().to_string(),
        problem: Store::open(&settings.store).err().map(|error| {
            (
                error.to_string(),
                "choose a writable directory with `--store DIR`".to_owned(),
            )
        }),
    });
    findings.extend([
        mirror(&settings, "debian", true),
        mirror(&settings, "crates", false),
    ]);
    let fine = findings
        .iter()
        .all(|finding| !finding.needed || finding.problem.is_none());
    if output.json {
        let documents: Vec<_> = findings
            .iter()
            .map(|finding| {
                json!({
                    "name": finding.name,
                    "works": finding.problem.is_none(),
                    "needed": finding.needed,
                    "note": finding.note,
                    "why": finding.problem.as_ref().map(|(why, _)| why),
                    "remedy": finding.problem.as_ref().map(|(_, remedy)| remedy),
                })
            })
            .collect();
        output.document(&json!({ "features": documents }));
    } else {
        for finding in &findings {
            match &finding.problem {
                None => output.line(&format!("ok       {}: {}", finding.name, finding.note)),
                Some((why, remedy)) => {
                    let state = if finding.needed { "missing" } else { "weaker " };
                    output.line(&format!("{state}  {}: {why}", finding.name));
                    output.line(&format!("         {remedy}"));
                }
            }
        }
    }
    Ok(if fine { Answer::Yes } else { Answer::No })
}

/// Finds out whether it is known where a mirror is.
fn mirror(settings: &Settings, name: &str, needed: bool) -> Finding {
    let bases = settings.mirrors.bases.get(name);
    let note = bases.map(|bases| bases.join(" ")).unwrap_or_default();
    Finding {
        name: format!("mirror://{name}"),
        needed,
        problem: note.is_empty().then(|| {
            (
                "no base address is known".to_owned(),
                format!(
                    "write `[mirrors]` and `{name} = [\"http://…/{name}\"]` into `kiln.toml`, or set `KILN_MIRROR_{}`",
                    name.to_uppercase()
                ),
            )
        }),
        note,
    }
}
