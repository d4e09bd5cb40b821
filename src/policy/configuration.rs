//! Rules on how an image is run.

use super::executables::runs;
use super::links::{End, follow_text};
use super::{Outcome, Subject};
use crate::hash::RelPath;
use crate::listing::image::{ImageEntry, Node};

/// The user is not root, by number or name.
pub(super) fn non_root_user(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let user = &subject.image.configuration.user;
    match user.split(':').next().unwrap_or("") {
        "" => outcome.find_in_image("no user is set, which means root"),
        "root" => outcome.find_in_image(format!("the user is `{user}`")),
        name if name.parse::<u64>().is_ok_and(|id| id == 0) => {
            outcome.find_in_image(format!("the user is `{user}`, which is root"));
        }
        name if name.parse::<u64>().is_err() => outcome.cannot_tell(
            None,
            format!("the user is the name `{name}`; only a number says that it is not root"),
        ),
        _ => {}
    }
    outcome
}

/// Returns the ids of the image's user, where the configuration has numbers; root's else.
fn user(subject: Subject<'_>) -> (u32, u32) {
    let text = &subject.image.configuration.user;
    let mut parts = text.split(':').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// The image's first program is in it.
pub(super) fn entrypoint_present(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let configuration = &subject.image.configuration;
    let program = configuration
        .entrypoint
        .first()
        .or(configuration.command.first());
    let Some(program) = program else {
        outcome.cannot_tell(None, "the image does not say what it starts");
        return outcome;
    };
    let places = if program.contains('/') {
        vec![format!(
            "{}/{program}",
            if program.starts_with('/') {
                ""
            } else {
                configuration.working_directory.as_str()
            }
        )]
    } else {
        search_path(&configuration.environment)
            .into_iter()
            .map(|directory| format!("{directory}/{program}"))
            .collect()
    };
    let found = places
        .iter()
        .any(|place| matches!(follow_text(subject.image, place), End::File(..)));
    if !found {
        outcome.find_in_image(format!("it starts `{program}`, which is not there"));
    }
    outcome
}

/// Where a program is looked for that is named without a directory.
fn search_path(environment: &[String]) -> Vec<String> {
    let set = environment
        .iter()
        .find_map(|text| text.strip_prefix("PATH="));
    set.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .split(':')
        .map(str::to_owned)
        .collect()
}

/// Returns whether the image's user may write to an entry.
fn may_write(subject: Subject<'_>, entry: &ImageEntry) -> bool {
    let (user, group) = user(subject);
    if matches!(entry.node, Node::Symlink { .. }) || user == 0 {
        return false;
    }
    let (owner, owning) = entry.owner;
    // The owner may also give itself the right.
    owner == user || (owning == group && entry.mode & 0o020 != 0) || entry.mode & 0o002 != 0
}

/// Returns whether a path is in a declared volume.
fn is_in_volume(subject: Subject<'_>, path: &RelPath) -> bool {
    subject.image.configuration.volumes.iter().any(|volume| {
        let volume = volume.trim_matches('/');
        path.as_str()
            .strip_prefix(volume)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Nothing outside the declared volumes can be written to by the image's user, so that
/// the root can be mounted read-only without a difference.
pub(super) fn read_only_root(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    if user(subject).0 == 0 {
        outcome.cannot_tell(None, "root may write everywhere");
        return outcome;
    }
    for (path, entry) in &subject.image.entries {
        if may_write(subject, entry) && !is_in_volume(subject, path) {
            outcome.find(
                path,
                format!(
                    "the image's user may write to it, and no volume is declared: mode {:04o}",
                    entry.mode
                ),
            );
        }
    }
    outcome
}

/// No program lies where the image's user may write.
pub(super) fn writable_without_programs(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    if user(subject).0 == 0 {
        outcome.cannot_tell(None, "root may write everywhere");
        return outcome;
    }
    for (path, entry, facts) in subject.files() {
        let above = path
            .parent()
            .and_then(|parent| subject.image.entries.get(&parent))
            .is_some_and(|parent| may_write(subject, parent) && parent.mode & 0o1000 == 0);
        if runs(entry, facts).is_some()
            && (may_write(subject, entry) || above || is_in_volume(subject, path))
        {
            outcome.find(path, "the image's user may replace this program");
        }
    }
    outcome
}

/// The labels that are named are there, and not empty.
pub(super) fn required_labels(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for name in &subject.parameters.names {
        match subject.image.configuration.labels.get(name) {
            None => outcome.find_in_image(format!("it has no label `{name}`")),
            Some(value) if value.trim().is_empty() => {
                outcome.find_in_image(format!("its label `{name}` is empty"));
            }
            Some(_) => {}
        }
    }
    outcome
}

/// The label of debug twins: the name of the image that the twin is of.
pub const DEBUG_LABEL: &str = "kiln.debug-of";

/// The image is no debug twin.
pub(super) fn no_debug_twin(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    if let Some(of) = subject.image.configuration.labels.get(DEBUG_LABEL) {
        outcome.find_in_image(format!("it is the debug twin of `{of}`"));
    }
    outcome
}

/// Words that a variable's name has if its value is a secret.
const SECRET_WORDS: [&str; 9] = [
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "SECRET",
    "TOKEN",
    "API_KEY",
    "APIKEY",
    "PRIVATE_KEY",
    "CREDENTIALS",
];

/// Words after which such a name means where a secret is, not what it is.
const HARMLESS_ENDS: [&str; 6] = ["_FILE", "_PATH", "_DIR", "_URL", "_TTL", "_NAME"];

/// No variable and no recorded command holds a secret.
pub(super) fn no_secret_environment(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let configuration = &subject.image.configuration;
    for text in &configuration.environment {
        if let Some(name) = secret_assignment(text) {
            outcome.find_in_image(format!("the variable `{name}` has a value"));
        }
    }
    for (number, command) in configuration.history.iter().enumerate() {
        for word in command.split_whitespace() {
            let word = word.trim_matches(['"', '\'', ';', '|']);
            if let Some(name) = secret_assignment(word) {
                let message = format!("command {} of its history sets `{name}`", number + 1);
                outcome.find_in_image(message);
            }
        }
    }
    outcome
}

/// Returns the name of `NAME=VALUE` if the value must be a secret.
fn secret_assignment(text: &str) -> Option<&str> {
    let (name, value) = text.split_once('=')?;
    let upper = name.to_ascii_uppercase();
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_secret = SECRET_WORDS.iter().any(|word| upper.contains(word))
        && !HARMLESS_ENDS.iter().any(|end| upper.ends_with(end));
    // A reference to another variable is no value.
    let has_value = value.len() >= 4 && !value.starts_with('$');
    (is_name && is_secret && has_value).then_some(name)
}
