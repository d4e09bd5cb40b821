//! A verdict as SARIF 2.1.0, which code hosts and editors show.

use serde_json::{Value, json};

use super::super::verdict::{controls, set, unused};
use crate::derivation::Severity;
use crate::policy::{Judgement, Remark, Verdict};

/// SARIF's word for a severity.
fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low => "note",
    }
}

/// Returns the document. A violation is a result; one that is waived is suppressed with
/// its reason; what cannot be told is of the kind `open`.
pub(super) fn document(verdict: &Verdict) -> Value {
    let rules: Vec<Value> = verdict
        .rules
        .iter()
        .map(|judged| {
            let about = judged.rule.about();
            json!({
                "id": about.id,
                "shortDescription": { "text": about.summary },
                "defaultConfiguration": { "level": level(judged.severity) },
                "properties": { "tags": controls(judged.rule) },
            })
        })
        .collect();
    let mut results: Vec<Value> = verdict.rules.iter().flat_map(of_rule).collect();
    results.extend(verdict.unused.iter().map(|exception| {
        json!({
            "ruleId": exception.rule.as_str(),
            "level": "error",
            "message": { "text": unused(exception) },
        })
    }));
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "kiln",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "results": results,
        }],
    })
}

fn of_rule(judged: &Judgement) -> Vec<Value> {
    let result = |remark: &Remark| {
        let mut result = json!({
            "ruleId": judged.rule.as_str(),
            "level": level(judged.severity),
            "message": { "text": remark.message },
        });
        if let Some(path) = &remark.path {
            set(
                &mut result,
                "locations",
                json!([{
                    "physicalLocation": { "artifactLocation": { "uri": uri(path.as_str()) } },
                }]),
            );
        }
        result
    };
    let found = judged.findings.iter().map(result);
    let waived = judged.waived.iter().map(|(remark, reason)| {
        let mut result = result(remark);
        set(
            &mut result,
            "suppressions",
            json!([{ "kind": "external", "justification": reason }]),
        );
        result
    });
    let unknown = judged.unknown.iter().map(|remark| {
        let mut result = result(remark);
        set(&mut result, "kind", json!("open"));
        set(&mut result, "level", json!("none"));
        result
    });
    found.chain(waived).chain(unknown).collect()
}

/// Returns a path as a relative reference of RFC 3986.
fn uri(path: &str) -> String {
    path.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
