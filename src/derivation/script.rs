//! The bash script that a sandbox runs.

use std::fmt::Write as _;

use super::definition::{BuildTable, Phases, Recipe};

/// What stands before a phase's name on a log line of its own.
pub const PHASE_MARKER: &str = "@kiln phase ";

const PROLOGUE: &str = "set -euo pipefail\n";

/// Returns the script of a build: the flag arrays, then the recipe's `setup`, the phases
/// in order, and the recipe's `finish`. Each phase runs in the same shell, so that what
/// one exports the next one sees, and starts in the directory where the script started.
pub fn build_script(package: &BuildTable, recipe: &Recipe, phases: &Phases) -> String {
    let mut script = PROLOGUE.to_owned();
    for array in ["configure_flags", "make_flags", "install_flags"] {
        let words: Vec<String> = package
            .flags
            .get(array)
            .into_iter()
            .flatten()
            .map(|flag| quote(flag))
            .collect();
        line(&mut script, &format!("{array}=({})", words.join(" ")));
    }
    line(&mut script, "kiln_start=$PWD");
    if let Some(setup) = &recipe.setup {
        block(&mut script, setup);
    }
    for (phase, text) in phases {
        line(&mut script, "cd \"$kiln_start\"");
        line(
            &mut script,
            &format!("echo '{PHASE_MARKER}{}'", phase.as_str()),
        );
        block(&mut script, text);
    }
    if let Some(finish) = &recipe.finish {
        line(&mut script, "cd \"$kiln_start\"");
        line(&mut script, &format!("echo '{PHASE_MARKER}finish'"));
        block(&mut script, finish);
    }
    script
}

/// Returns the script of a test.
pub fn test_script(text: &str) -> String {
    let mut script = PROLOGUE.to_owned();
    line(&mut script, &format!("echo '{PHASE_MARKER}test'"));
    block(&mut script, text);
    script
}

/// Returns the beginning of a build's script: all that runs before a phase, or before the
/// first one. `None` when the script has no such phase.
pub fn script_before(script: &str, phase: Option<&str>) -> Option<String> {
    let marker = format!("echo '{PHASE_MARKER}{}", phase.unwrap_or_default());
    let mut before = String::new();
    for text in script.lines() {
        let found = text.strip_prefix(&marker).is_some_and(|rest| match phase {
            Some(_) => rest == "'",
            None => true,
        });
        if found {
            return Some(before);
        }
        line(&mut before, text);
    }
    None
}

fn line(script: &mut String, text: &str) {
    writeln!(script, "{text}").expect("writing to a string cannot fail");
}

fn block(script: &mut String, text: &str) {
    line(script, text.trim_matches('\n'));
}

/// Quotes a word for bash: single quotes, which only a single quote ends.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_cut_before_a_phase() {
        let mut script = PROLOGUE.to_owned();
        for phase in ["configure", "build", "build-more"] {
            line(&mut script, "cd \"$kiln_start\"");
            line(&mut script, &format!("echo '{PHASE_MARKER}{phase}'"));
            block(&mut script, &format!("\ndo {phase}\n"));
        }
        let before = |phase| script_before(&script, phase).unwrap();
        assert_eq!(before(None), "set -euo pipefail\ncd \"$kiln_start\"\n");
        assert_eq!(before(Some("configure")), before(None));
        assert!(before(Some("build")).ends_with("do configure\ncd \"$kiln_start\"\n"));
        assert!(before(Some("build-more")).contains("do build\n"));
        assert_eq!(script_before(&script, Some("install")), None);
    }

    #[test]
    fn bash_reads_quoted_words_back() {
        for word in [
            "plain",
            "",
            "a b",
            "it's",
            "$HOME `id` \\",
            "\"",
            "line\nbreak",
            "*",
            "''",
        ] {
            let script = format!("words=({}); printf '%s' \"${{words[0]}}\"", quote(word));
            let output = std::process::Command::new("bash")
                .args(["-c", &script])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }
}
