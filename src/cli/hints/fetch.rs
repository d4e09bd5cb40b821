//! Words for sources that cannot be had.

use std::sync::Arc;

use super::full;
use crate::cli::report::{Failure, Problem};
use crate::derivation::{Diagnostic, Kind, Source, SourceFile, Span, Spanned};
use crate::fetch::{Attempt, FetchError};
use crate::hash::{PackageName, Sha256Digest};
use crate::plan::{Loaded, Step, StepKind};

fn tried(attempts: &[Attempt]) -> Vec<String> {
    attempts
        .iter()
        .map(|attempt| format!("{}: {}", attempt.url, attempt.why))
        .collect()
}

/// The line that says where a mirror is.
fn mirror_hint(name: &str) -> String {
    if name == "crates" {
        return "let Cargo fetch something on this machine, or say where the registry has crates, in \
                `kiln.toml`: `[mirrors]` and below it `crates = [\"https://…/crates\"]`, or for one run: \
                `KILN_MIRROR_CRATES=https://…/crates`"
            .to_owned();
    }
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

/// Where a hash is declared, and the addresses that go with it.
struct Place<'a> {
    file: &'a Arc<SourceFile>,
    hash: Span,
    addresses: Span,
    /// The derivation file, and where it names the addresses or the lock file.
    named: (&'a Arc<SourceFile>, Span),
    /// Whether a lock file declares it, which nobody writes by hand.
    locked: bool,
}

/// Points at the hash or the addresses in the derivation file, or in its lock file.
pub(super) fn fetch_at(error: &FetchError, step: &Step, loaded: &Loaded) -> Failure {
    let StepKind::Fetch { sha256, .. } = &step.kind else {
        return fetch(error, step.package.as_str()).into();
    };
    let Some(place) = place(loaded, &step.package, *sha256) else {
        return fetch(error, step.package.as_str()).into();
    };
    let diagnostic = match error {
        FetchError::WrongHash {
            expected,
            actual,
            kept,
            attempts,
        } => {
            let kept = kept.display();
            let message = format!("`{}` has another SHA-256 than declared", step.label);
            Diagnostic::new(place.file, place.hash, message)
                .label("declared here")
                .because(format!(
                    "declared `{expected}`, got `{actual}`; {}",
                    tried(attempts).join("; ")
                ))
                .hint(if place.locked {
                    format!("a registry never changes a crate: ask another mirror, or find out who changed the lock file; the bytes are kept as `{kept}`")
                } else {
                    format!("if the new bytes are right, write their hash; they are kept as `{kept}` and need no second download")
                })
        }
        FetchError::NoMirror(name) => {
            let (file, span) = place.named;
            Diagnostic::new(file, span, error.to_string()).hint(mirror_hint(name))
        }
        FetchError::NoAddress { attempts, .. } => {
            let message = format!("`{}` cannot be fetched", step.label);
            Diagnostic::new(place.file, place.addresses, message)
                .because(tried(attempts).join("; "))
                .hint(if place.locked {
                    "check the network, or add a mirror that has the crate: its base works as one of `[mirrors] crates`"
                } else {
                    "check the network, or add an address; a snapshot archive's base works as one of `[mirrors] debian`"
                })
        }
        other => return fetch(other, step.package.as_str()).into(),
    };
    Failure::Diagnostics(vec![diagnostic])
}

/// Returns where a package's files declare a hash.
fn place<'a>(loaded: &'a Loaded, package: &PackageName, sha256: Sha256Digest) -> Option<Place<'a>> {
    let definition = loaded.definitions.get(package)?;
    let declared = match &definition.kind {
        Kind::Package(build) => build.sources.values().find_map(|source| match source {
            Source::Remote {
                urls,
                sha256: declared,
                ..
            } if declared.value == sha256 => {
                let first = urls
                    .first()
                    .map_or_else(|| declared.range(), Spanned::range);
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
    };
    if let Some((hash, addresses)) = declared {
        return Some(Place {
            file: &definition.file,
            hash,
            addresses: addresses.clone(),
            named: (&definition.file, addresses),
            locked: false,
        });
    }
    let Kind::Package(build) = &definition.kind else {
        return None;
    };
    let locks = loaded.locks.get(package)?;
    build.sources.values().find_map(|source| {
        let Source::Crates { lock: path } = source else {
            return None;
        };
        let lock = locks.get(&path.value)?;
        let at = lock.find(sha256)?.sha256.range();
        Some(Place {
            file: &lock.file,
            hash: at.clone(),
            addresses: at,
            named: (&definition.file, path.range()),
            locked: true,
        })
    })
}
