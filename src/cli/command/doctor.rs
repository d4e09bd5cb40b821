//! `kiln doctor`: tries what building needs.

use serde_json::json;

use kiln_sandbox::{FeatureState, Launcher};

use crate::cli::arguments::Arguments;
use crate::cli::report::{Answer, Failure, Output};
use crate::cli::settings::Settings;
use crate::store::Store;

struct Finding {
    name: String,
    problem: Option<(String, String)>,
    note: String,
}

pub(in crate::cli) fn run(arguments: &Arguments, output: &Output) -> Result<Answer, Failure> {
    let settings = Settings::read(arguments)?;
    let mut findings: Vec<Finding> = kiln_sandbox::features(&Launcher::current())
        .into_iter()
        .map(|feature| Finding {
            name: feature.name.to_owned(),
            note: "a shell ran in all namespaces, with no privilege and no network".to_owned(),
            problem: match feature.state {
                FeatureState::Works => None,
                FeatureState::Missing { why, remedy } => Some((why, remedy)),
            },
        })
        .collect();
    findings.push(Finding {
        name: "store".to_owned(),
        note: settings.store.display().to_string(),
        problem: Store::open(&settings.store).err().map(|error| {
            (
                error.to_string(),
                "choose a writable directory with `--store DIR`".to_owned(),
            )
        }),
    });
    let bases = settings
        .mirrors
        .bases
        .get("debian")
        .cloned()
        .unwrap_or_default();
    findings.push(Finding {
        name: "mirror://debian".to_owned(),
        note: bases.join(" "),
        problem: bases.is_empty().then(|| {
            (
                "no base address is known".to_owned(),
                "write `[mirrors]` and `debian = [\"http://…/debian\"]` into `kiln.toml`, or set `KILN_MIRROR_DEBIAN`"
                    .to_owned(),
            )
        }),
    });
    let fine = findings.iter().all(|finding| finding.problem.is_none());
    if output.json {
        let documents: Vec<_> = findings
            .iter()
            .map(|finding| {
                json!({
                    "name": finding.name,
                    "works": finding.problem.is_none(),
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
                    output.line(&format!("missing  {}: {why}", finding.name));
                    output.line(&format!("         {remedy}"));
                }
            }
        }
    }
    Ok(if fine { Answer::Yes } else { Answer::No })
}
