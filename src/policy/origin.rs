//! Rules on where files come from.

use spdx::{Expression, ParseMode};

use super::{Outcome, Subject};
use crate::hash::RelPath;
use crate::listing::image::{Node, Origin, Provenance};

/// Why nothing can be told of another's image.
const UNKNOWN: &str = "the image does not say where its files come from";

/// Calls a check with every file and link that has an origin; without known origins,
/// nothing can be told.
fn each(
    subject: Subject<'_>,
    mut check: impl FnMut(&RelPath, Option<&Origin>, &mut Outcome),
) -> Outcome {
    let mut outcome = Outcome::default();
    if subject.image.provenance == Provenance::Unknown {
        outcome.cannot_tell(None, UNKNOWN);
        return outcome;
    }
    for (path, entry) in &subject.image.entries {
        if entry.node != Node::Directory {
            check(path, entry.origin.as_deref(), &mut outcome);
        }
    }
    outcome
}

/// Every file and link comes from an object; only directories may be there just to hold
/// others, or because they were declared writable.
pub(super) fn explained(subject: Subject<'_>) -> Outcome {
    each(subject, |path, origin, outcome| {
        if origin.is_none() {
            outcome.find(path, "no declared object explains it");
        }
    })
}

/// Every file's sources are recorded by hash.
pub(super) fn source_known(subject: Subject<'_>) -> Outcome {
    each(subject, |path, origin, outcome| {
        if !origin.is_some_and(|origin| origin.source_known) {
            outcome.find(path, "its sources are not recorded by hash");
        }
    })
}

/// No file comes from an object that is, or reaches, a binary seed.
pub(super) fn no_seed(subject: Subject<'_>) -> Outcome {
    each(subject, |path, origin, outcome| {
        let Some(Origin {
            object,
            seed: Some(seed),
            ..
        }) = origin
        else {
            return;
        };
        if seed == object {
            outcome.find(path, format!("it is part of the binary seed `{seed}`"));
        } else {
            let message = format!("`{object}` refers to the binary seed `{seed}`");
            outcome.find(path, message);
        }
    })
}

/// Every file was built a second time, to the same bytes.
pub(super) fn proof_present(subject: Subject<'_>) -> Outcome {
    each(subject, |path, origin, outcome| {
        match origin.and_then(|origin| origin.reproduced) {
            Some(true) => {}
            Some(false) => outcome.find(path, "a rebuild gave other bytes"),
            None => outcome.cannot_tell(Some(path), "it was not rebuilt in this run"),
        }
    })
}

/// Every file's licence is one that is named.
///
/// Of an expression with `AND`, each part must be named; of one with `OR`, one of them.
pub(super) fn licenses_allowed(subject: Subject<'_>) -> Outcome {
    each(subject, |path, origin, outcome| {
        let license = origin.and_then(|origin| origin.license.as_deref());
        match license {
            None => outcome.find(path, "its licence is not recorded"),
            Some(license) if !allowed(license, subject) => {
                outcome.find(path, format!("its licence is `{license}`"));
            }
            Some(_) => {}
        }
    })
}

/// Reads an SPDX expression; an exception (`WITH`) only adds to what its licence permits.
fn allowed(expression: &str, subject: Subject<'_>) -> bool {
    let names = &subject.parameters.names;
    Expression::parse_mode(expression, ParseMode::LAX).is_ok_and(|expression| {
        expression.evaluate(|wanted| names.contains(&wanted.license.to_string()))
    })
}
