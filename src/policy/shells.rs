//! The rule against shells, and against programs that are many programs.

use super::Subject;
use crate::hash::RelPath;
use crate::listing::Entry;
use crate::listing::facts::{Kind, Sign};

/// Names under which a shell is looked for by other programs.
const NAMES: [&str; 14] = [
    "ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "rbash", "sh", "tcsh",
    "toybox", "yash", "zsh",
];

/// No file is a shell by its content, needs one as its interpreter, or has a shell's name.
pub(super) fn no_shell(subject: &Subject<'_>) -> Vec<(RelPath, String)> {
    let mut findings = Vec::new();
    for (path, _, facts) in subject.files() {
        let Some(facts) = facts else { continue };
        let mut evidence: Vec<String> = facts
            .signs
            .iter()
            .map(|sign| match sign {
                Sign::Shell { variables } => {
                    format!("it manages a shell's variables: {}", variables.join(", "))
                }
                Sign::MultiCall { applets } => {
                    format!("it holds a table with {applets} names of common programs")
                }
            })
            .collect();
        if let Kind::Script { interpreter } = &facts.kind
            && is_shell_name(interpreter)
        {
            evidence.push(format!("it is a script for `{interpreter}`"));
        }
        let executable = matches!(facts.kind, Kind::Elf(_) | Kind::Script { .. });
        if evidence.is_empty() && executable && is_shell_name(path.file_name()) {
            evidence.push("it has a shell's name".to_owned());
        }
        if !evidence.is_empty() {
            findings.push((path.clone(), evidence.join("; ")));
        }
    }
    for (path, placed) in &subject.projection.entries {
        if let Entry::Symlink { target } = &placed.entry
            && (is_shell_name(path.file_name()) || is_shell_name(target))
        {
            findings.push((path.clone(), format!("it is a shell's name for `{target}`")));
        }
    }
    findings
}

fn is_shell_name(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    NAMES.contains(&name)
}
