//! What packages and recipes share: phases and variables.

use std::collections::BTreeMap;

use super::definition::{Phase, Phases};
use super::fields::Fields;
use crate::hash::PackageName;

/// Variables that kiln sets itself.
pub(super) const RESERVED_VARIABLES: [&str; 14] = [
    "HOME",
    "IFS",
    "JOBS",
    "LC_ALL",
    "PATH",
    "PWD",
    "SHELL",
    "SOURCE_DATE_EPOCH",
    "TMPDIR",
    "TZ",
    "configure_flags",
    "install_flags",
    "make_flags",
    "name",
];

/// Returns the shell variable that names an input: its last component, with every
/// character that no variable can have replaced by `_`.
pub fn variable(package: &PackageName) -> String {
    let last = package.as_str().rsplit(['/', ':']).next().unwrap_or("");
    let name: String = last
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("_{name}")
    } else {
        name
    }
}

pub(super) fn read_environment(fields: &mut Fields<'_, '_>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for (name, value) in fields.text_map("environment") {
        if !is_variable(&name) || RESERVED_VARIABLES.contains(&name.as_str()) {
            fields.problem(
                value.range(),
                format!("`{name}` cannot be set: it is no shell variable, or kiln sets it"),
            );
        }
        environment.insert(name, value.value);
    }
    environment
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

pub(super) fn read_phases(fields: &mut Fields<'_, '_>) -> Option<Phases> {
    let mut phases = Phases::new();
    for phase in Phase::ALL {
        if let Some(script) = fields.text(phase.as_str()) {
            phases.insert(phase, script.value);
        }
    }
    Some(phases)
}
