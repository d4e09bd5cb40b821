//! Rules on what can be executed, and how.

use std::collections::BTreeSet;

use super::Subject;
use crate::hash::RelPath;
use crate::listing::Entry;
use crate::listing::facts::Kind;

/// Whatever could be executed is listed, and whatever is listed can be.
///
/// A file counts if it has an executable bit, or the magic bytes of a program or script:
/// an interpreter or loader runs those without the bit.
pub(super) fn allowed(subject: &Subject<'_>) -> Vec<(RelPath, String)> {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, placed, facts) in subject.files() {
        let bit = matches!(
            placed.entry,
            Entry::File {
                executable: true,
                ..
            }
        );
        let what = match facts.map(|facts| &facts.kind) {
            Some(Kind::Elf(_)) => "an ELF file",
            Some(Kind::Script { .. }) => "a script",
            _ if bit => "a file with an executable bit",
            _ => continue,
        };
        if bit {
            seen.insert(path);
        }
        if !subject.executables.contains(path) {
            findings.push((path.clone(), format!("{what} that the image does not list")));
        }
    }
    for listed in subject.executables {
        if !seen.contains(listed) {
            findings.push((
                listed.clone(),
                "listed, but there is no such program".to_owned(),
            ));
        }
    }
    findings
}

/// Nothing gains a privilege by being executed.
pub(super) fn no_setuid(subject: &Subject<'_>) -> Vec<(RelPath, String)> {
    subject
        .projection
        .entries
        .iter()
        .filter(|(_, placed)| placed.mode & 0o6000 != 0)
        .map(|(path, placed)| (path.clone(), format!("it has mode {:04o}", placed.mode)))
        .collect()
}

/// Every ELF file is static.
pub(super) fn all_static(subject: &Subject<'_>) -> Vec<(RelPath, String)> {
    subject
        .files()
        .filter_map(|(path, _, facts)| match facts.map(|facts| &facts.kind) {
            Some(Kind::Elf(elf)) => elf.why_dynamic().map(|why| (path.clone(), why)),
            _ => None,
        })
        .collect()
}
