//! Reading `[policy]`: which rules an image must keep, with what parameters, and what is
//! waived.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::diagnostic::{Diagnostic, Spanned};
use super::fields::Fields;
use super::recipe::resolve;
use super::rules::{Rule, Severity, Takes};
use crate::hash::{PackageName, RelPath};

/// Rules that every image of a kind must keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The policy whose rules and exceptions hold too, as written.
    pub extends: Option<Spanned<PackageName>>,
    /// The rules; what is demanded here counts before what is demanded in `extends`.
    pub demands: Vec<Demand>,
    /// Findings that are waived, whatever the image.
    pub exceptions: Vec<Exception>,
}

/// A rule with what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// The rule.
    pub rule: Rule,
    /// How bad a violation is.
    pub severity: Severity,
    /// What it was given.
    pub parameters: Parameters,
}

impl Demand {
    /// Demands a rule without parameters.
    pub fn plain(rule: Rule) -> Self {
        Self {
            rule,
            severity: rule.about().severity,
            parameters: Parameters::default(),
        }
    }
}

/// What a rule was given; which of them it takes, its catalogue entry says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Paths that the rule does not speak of.
    pub allow: Vec<PathPattern>,
    /// The most that may be there.
    pub at_most: Option<u64>,
    /// Names that must be there, or may be.
    pub names: BTreeSet<String>,
}

/// A path, or a directory with all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// One path.
    Exactly(RelPath),
    /// What lies below a directory.
    Below(RelPath),
}

impl PathPattern {
    /// Returns whether a path is meant.
    pub fn holds(&self, path: &RelPath) -> bool {
        match self {
            Self::Exactly(exactly) => exactly == path,
            Self::Below(top) => path.is_below(top),
        }
    }
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('/') {
            Some(directory) => directory.parse().map(|Absolute(path)| Self::Below(path)),
            None => text.parse().map(|Absolute(path)| Self::Exactly(path)),
        }
    }
}

/// A waived finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// The rule.
    pub rule: Rule,
    /// The file that it would speak of; `None` for a rule that speaks of the whole image.
    pub path: Option<RelPath>,
    /// Why it is waived.
    pub reason: String,
}

/// A path that a file gives in absolute form: `/bin/dash`.
pub(super) struct Absolute(pub RelPath);

impl FromStr for Absolute {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.strip_prefix('/')
            .ok_or_else(|| format!("`{text}` is not absolute; paths in the image start with `/`"))?
            .parse()
            .map(Self)
            .map_err(|error: crate::hash::PathError| error.to_string())
    }
}

/// The policies that are named without a directory.
const BUILT_IN: [&str; 3] = ["minimal", "hardened", "regulated"];

/// Returns the built-in set of a name, if there is one.
pub fn built_in(name: &str) -> Option<PackageName> {
    BUILT_IN
        .contains(&name)
        .then(|| format!("std:policies/{name}").parse().ok())
        .flatten()
}

/// Returns what a policy's name means in a file: a built-in set, or as [`resolve`] says.
pub fn resolve_policy(written: &Spanned<PackageName>, within: &PackageName) -> PackageName {
    built_in(written.value.as_str()).unwrap_or_else(|| resolve(written, within))
}

pub(super) fn read_policy(fields: &mut Fields<'_, '_>) -> Option<Policy> {
    fields.table("policy", |f| {
        let problems = f.problems.len();
        let extends = f.text("extends");
        let extends = f.parsed::<PackageName>(extends);
        let demands = if f.is_list_of_tables("rules") {
            f.list("rules", read_demand)
        } else {
            f.parsed_texts::<Rule>("rules")
                .into_iter()
                .map(|rule| Demand::plain(rule.value))
                .collect()
        };
        if demands.is_empty() && extends.is_none() && f.problems.len() == problems {
            f.problem(f.span(), "the policy has no rules");
        }
        Some(Policy {
            extends,
            demands,
            exceptions: f.list("exceptions", read_exception),
        })
    })
}

fn read_demand(fields: &mut Fields<'_, '_>) -> Option<Demand> {
    let rule = fields.required("id");
    let rule = fields.parsed::<Rule>(rule);
    let severity = fields.text("severity");
    let severity = fields.parsed::<Severity>(severity);
    let takes = rule.as_ref().map(|rule| rule.value.about().takes);
    let mut parameters = Parameters::default();
    // A key that the rule does not take is never asked for, and so reported as unknown.
    match takes {
        Some(Takes::Paths) => {
            parameters.allow = fields
                .parsed_texts::<PathPattern>("allow")
                .into_iter()
                .map(|pattern| pattern.value)
                .collect();
        }
        Some(Takes::Number) => {
            parameters.at_most = fields.number("at-most");
            needs(
                fields,
                "at-most",
                parameters.at_most.is_none(),
                "`at-most = 100`",
            );
        }
        Some(Takes::Names) => {
            parameters.names = fields
                .texts("names")
                .into_iter()
                .map(|name| name.value)
                .collect();
            needs(
                fields,
                "names",
                parameters.names.is_empty(),
                "`names = [\"…\"]`",
            );
        }
        // Of an unknown rule, no key is known to be wrong.
        None => {
            fields.has("allow").then(|| fields.texts("allow"));
            fields.has("names").then(|| fields.texts("names"));
            fields.has("at-most").then(|| fields.number("at-most"));
        }
        Some(Takes::Nothing) => {}
    }
    let rule = rule?.value;
    Some(Demand {
        rule,
        severity: severity.map_or(rule.about().severity, |severity| severity.value),
        parameters,
    })
}

fn needs(fields: &mut Fields<'_, '_>, key: &'static str, missing: bool, example: &str) {
    if missing && !fields.has(key) {
        let file = fields.file;
        fields.report(
            Diagnostic::new(file, fields.span(), format!("the rule needs `{key}`"))
                .hint(format!("add {example}")),
        );
    }
}

pub(super) fn read_exception(fields: &mut Fields<'_, '_>) -> Option<Exception> {
    let rule = fields.required("rule");
    let rule = fields.parsed::<Rule>(rule);
    let path = fields.text("path");
    let path = match path {
        Some(text) => Some(fields.parsed::<Absolute>(Some(text))?.value.0),
        None => None,
    };
    let reason = fields.required("reason")?;
    if reason.value.trim().is_empty() {
        fields.problem(reason.range(), "an exception needs a reason");
    }
    Some(Exception {
        rule: rule?.value,
        path,
        reason: reason.value,
    })
}
