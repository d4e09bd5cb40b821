//! Words for sources that cannot be had.

use super::full;
use crate::cli::report::{Failure, Problem};
use crate::derivation::{Definition, Diagnostic, Kind, Source};
use crate::fetch::{Attempt, FetchError};
use crate::hash::Sha256Digest;
use crate::plan::{Step, StepKind};

fn tried(attempts: &[Attempt]) -> Vec<String> {
    attempts
        .iter()
        .map(|attempt| format!("{}: {}", attempt.url, attempt.why))
        .collect()
}

/// The line that says where a mirror is.
fn mirror_hint(name: &str) -> String {
    format!(
        "say where a mirror is, in `kiln.toml`: `[mirrors]` and below it `{name} = [\"http://…/{name}\"]`, \
         or for one run: `KILN_MIRROR_{}=http://…/{name}`",
        name.to_uppercase()
    )
}

pub(super) fn fetch(error: &FetchError, who: &str) -> Problem {
    with_fetch_hint(Problem::from_error(error), error).because(format!("needed by `{who}`"))
}

pub(super) fn with_fetch_hint(mut problem: Problem, error: &FetchError) -> Problem {
    match error {
        FetchError::NoMirror(name) => problem.hint(mirror_hint(name)),
        FetchError::NoAddress { attempts, .. } => {
            problem.details = tried(attempts);
            problem
                .hint("check the network, or add a mirror that has the file: a snapshot archive's base works as one of `[mirrors] debian`")
        }
        FetchError::WrongHash { attempts, kept, .. } => {
            problem.details = tried(attempts);
            problem.hint(format!("the bytes are kept as `{}`", kept.display()))
        }
        FetchError::Access { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            full(problem)
        }
        _ => problem,
    }
}

/// Points at the hash or the addresses in the derivation file.
pub(super) fn fetch_at(error: &FetchError, step: &Step, definition: &Definition) -> Failure {
    let StepKind::Fetch { sha256, .. } = &step.kind else {
        return fetch(error, step.package.as_str()).into();
    };
    let Some((hash_at, url_at)) = places(definition, *sha256) else {
        return fetch(error, step.package.as_str()).into();
    };
    let file = &definition.file;
    let diagnostic = match error {
        FetchError::WrongHash { expected, actual, kept, attempts } => {
            Diagnostic::new(file, hash_at, format!("`{}` has another SHA-256 than declared", step.label))
                .label("declared here")
                .because(format!(
                    "declared `{expected}`, got `{actual}`; {}",
                    tried(attempts).join("; ")
                ))
                .hint(format!(
                    "if the new bytes are right, write their hash; they are kept as `{}` and need no second download",
                    kept.display()
                ))
        }
        FetchError::NoMirror(name) => {
            Diagnostic::new(file, url_at, error.to_string()).hint(mirror_hint(name))
        }
        FetchError::NoAddress { attempts, .. } => {
            Diagnostic::new(file, url_at, format!("`{}` cannot be fetched", step.label))
                .because(tried(attempts).join("; "))
                .hint("check the network, or add an address; a snapshot archive's base works as one of `[mirrors] debian`")
        }
        other => return fetch(other, step.package.as_str()).into(),
    };
    Failure::Diagnostics(vec![diagnostic])
}

/// Returns where a file declares a hash and the addresses that go with it.
fn places(
    definition: &Definition,
    sha256: Sha256Digest,
) -> Option<(std::ops::Range<usize>, std::ops::Range<usize>)> {
    match &definition.kind {
        Kind::Package(build) => build.sources.values().find_map(|source| match source {
            Source::Remote {
                urls,
                sha256: declared,
                ..
            } if declared.value == sha256 => {
                let first = urls
                    .first()
                    .map_or_else(|| declared.range(), crate::derivation::Spanned::range);
                Some((declared.range(), first))
            }
            _ => None,
        }),
        Kind::Debian(debian) => debian
            .packages
            .iter()
            .find(|package| package.sha256.value == sha256)
            .map(|package| (package.sha256.range(), package.path.range())),
        _ => None,
    }
}
