//! Rules over an image's complete listing. Pure.
//!
//! In: the projection, facts about each file's content, and what the image declares. Out:
//! findings, sorted, and those that the image waives with a reason. A rule sees content,
//! not names, wherever content can tell.

mod executables;
mod origin;
mod shells;

use std::collections::{BTreeMap, BTreeSet};

use crate::derivation::{Exception, Rule};
use crate::hash::{BlobDigest, RelPath, StorePath};
use crate::listing::Entry;
use crate::listing::facts::ContentFacts;
use crate::projection::{Placed, Projection};

/// An image, as rules see it.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Everything in it.
    pub projection: &'a Projection,
    /// Facts about each distinct file.
    pub facts: &'a BTreeMap<BlobDigest, ContentFacts>,
    /// The files that may be executed.
    pub executables: &'a BTreeSet<RelPath>,
    /// For each object in the image that is, or reaches, a seed: the seed.
    pub seeded: &'a BTreeMap<StorePath, StorePath>,
}

/// A rule that an image violates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file.
    pub path: RelPath,
    /// The rule.
    pub rule: Rule,
    /// What is wrong, in words, with the evidence.
    pub message: String,
}

/// What a policy says of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Violations that nothing waives.
    pub findings: Vec<Finding>,
    /// Violations that the image waives, each with its reason.
    pub waived: Vec<(Finding, String)>,
    /// Exceptions that waive nothing.
    pub unused: Vec<Exception>,
}

impl Verdict {
    /// Returns whether the image keeps the policy.
    pub fn holds(&self) -> bool {
        self.findings.is_empty() && self.unused.is_empty()
    }
}

impl Subject<'_> {
    /// Returns every regular file with its facts.
    fn files(&self) -> impl Iterator<Item = (&RelPath, &Placed, Option<&ContentFacts>)> {
        self.projection
            .entries
            .iter()
            .filter_map(|(path, placed)| match &placed.entry {
                Entry::File { digest, .. } => Some((path, placed, self.facts.get(digest))),
                Entry::Directory | Entry::Symlink { .. } => None,
            })
    }
}

/// Applies rules to an image.
pub fn evaluate(
    rules: &BTreeSet<Rule>,
    subject: &Subject<'_>,
    exceptions: &[Exception],
) -> Verdict {
    let mut all = BTreeSet::new();
    for rule in rules {
        let found = match rule {
            Rule::Explained => origin::explained(subject),
            Rule::NoSeed => origin::no_seed(subject),
            Rule::AllowedExecutables => executables::allowed(subject),
            Rule::NoSetuid => executables::no_setuid(subject),
            Rule::Static => executables::all_static(subject),
            Rule::NoShell => shells::no_shell(subject),
        };
        all.extend(found.into_iter().map(|(path, message)| Finding {
            path,
            rule: *rule,
            message,
        }));
    }
    let mut verdict = Verdict {
        unused: exceptions
            .iter()
            .filter(|exception| {
                !all.iter()
                    .any(|f| f.rule == exception.rule && f.path == exception.path)
            })
            .cloned()
            .collect(),
        ..Verdict::default()
    };
    for finding in all {
        let waiver = exceptions
            .iter()
            .find(|e| e.rule == finding.rule && e.path == finding.path);
        match waiver {
            Some(exception) => verdict.waived.push((finding, exception.reason.clone())),
            None => verdict.findings.push(finding),
        }
    }
    verdict
}

#[cfg(test)]
mod tests;
