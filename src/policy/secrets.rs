//! Rules on secrets, and on what people and machines leave behind.

use super::{Outcome, Subject};
use crate::hash::RelPath;
use crate::listing::facts::{ContentFacts, Kind, Role, SecretKind};
use crate::listing::image::{ImageEntry, Node};

/// Files that hold logins or keys by their place, and what they hold.
const PLACES: [(&str, &str); 11] = [
    (".netrc", "logins"),
    (".git-credentials", "logins"),
    (".pgpass", "logins"),
    (".pypirc", "logins"),
    (".aws/credentials", "cloud access keys"),
    (".azure/accessTokens.json", "cloud access keys"),
    (
        ".config/gcloud/application_default_credentials.json",
        "cloud access keys",
    ),
    (".kube/config", "a cluster's login"),
    (".ssh/id_rsa", "a private key"),
    (".ssh/id_ed25519", "a private key"),
    (".ssh/id_ecdsa", "a private key"),
];

/// Directories whose keys are there to be tried with.
const TEST_DIRECTORIES: [&str; 7] = [
    "test",
    "tests",
    "testdata",
    "test-data",
    "testing",
    "examples",
    "fixtures",
];

/// Returns what secrets a file has: first what is certain, then what looks like test data.
fn found(path: &RelPath, entry: &ImageEntry, facts: Option<&ContentFacts>) -> Vec<String> {
    let mut found = Vec::new();
    let at = format!("/{path}");
    for (place, what) in PLACES {
        if at.ends_with(&format!("/{place}")) && entry.size_bytes() > 0 {
            found.push(format!("a file at this place holds {what}"));
        }
    }
    for secret in facts.iter().flat_map(|facts| &facts.secrets) {
        let counts = match secret.kind {
            // The form is too common to mean something at any other place.
            SecretKind::RegistryLogin => {
                at.ends_with("/config.json")
                    || at.ends_with("/.dockercfg")
                    || at.ends_with("/auth.json")
            }
            _ => true,
        };
        if counts {
            found.push(format!(
                "it holds {} at byte {}",
                secret.kind, secret.offset
            ));
        }
    }
    found
}

/// Why a secret at a place may be none: keys of tests are public. Libraries for TLS hold
/// such keys in their code and try themselves with them.
fn why_harmless(path: &RelPath, facts: Option<&ContentFacts>) -> Option<&'static str> {
    if path
        .components()
        .any(|component| TEST_DIRECTORIES.contains(&component))
    {
        return Some("in a directory of test data");
    }
    match facts.map(|facts| &facts.kind) {
        Some(Kind::Elf(elf)) if elf.role == Role::Library => {
            Some("in a library, which may try itself with it")
        }
        Some(Kind::Archive) => Some("in a library, which may try itself with it"),
        _ => None,
    }
}

/// No file that can be seen holds a secret.
pub(super) fn no_secrets(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (path, entry, facts) in subject.files() {
        for message in found(path, entry, facts) {
            match why_harmless(path, facts) {
                Some(why) => outcome.cannot_tell(Some(path), format!("{message}, {why}")),
                None => outcome.find(path, message),
            }
        }
    }
    outcome
}

/// No file that an upper layer hides holds a secret: who has the image has the layer.
pub(super) fn no_hidden_secrets(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for hidden in &subject.image.hidden {
        let Node::File { digest, .. } = &hidden.entry.node else {
            continue;
        };
        let facts = subject.image.facts.get(digest);
        for message in found(&hidden.path, &hidden.entry, facts) {
            let (layer, by) = (hidden.entry.layer + 1, hidden.by + 1);
            let message = format!("in layer {layer}, hidden by layer {by}: {message}");
            match why_harmless(&hidden.path, facts) {
                Some(why) => {
                    outcome.cannot_tell(Some(&hidden.path), format!("{message}, {why}"));
                }
                None => outcome.find(&hidden.path, message),
            }
        }
    }
    outcome
}

/// Files that a shell or interpreter writes while somebody types.
const HISTORIES: [&str; 9] = [
    ".ash_history",
    ".bash_history",
    ".history",
    ".lesshst",
    ".node_repl_history",
    ".psql_history",
    ".python_history",
    ".viminfo",
    ".zsh_history",
];

/// No history of what somebody typed.
pub(super) fn no_shell_history(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (path, entry, _) in subject.files() {
        if HISTORIES.contains(&path.file_name()) && entry.size_bytes() > 0 {
            outcome.find(path, "it records what somebody typed");
        }
    }
    outcome
}

/// Where package managers keep what they fetched.
const CACHES: [&str; 11] = [
    "var/cache/apk/",
    "var/cache/apt/archives/",
    "var/cache/dnf/",
    "var/cache/yum/",
    "var/cache/zypp/",
    "var/lib/apt/lists/",
    "/.cache/pip/",
    "/.npm/_cacache/",
    "/.cargo/registry/",
    "/.cache/go-build/",
    "/go/pkg/mod/cache/",
];

/// No package manager's cache; each is named once, by its first file.
pub(super) fn no_package_caches(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for cache in CACHES {
        let mut held: Vec<&RelPath> = Vec::new();
        let mut size_bytes = 0;
        for (path, entry, _) in subject.files() {
            let at = path.as_str();
            let inside = match cache.strip_prefix('/') {
                Some(below) => at.contains(cache) || at.starts_with(below),
                None => at.starts_with(cache),
            };
            if inside && entry.size_bytes() > 0 && path.file_name() != "lock" {
                held.push(path);
                size_bytes += entry.size_bytes();
            }
        }
        if let Some(first) = held.first() {
            let message = format!(
                "a package manager's cache: {} files with {size_bytes} bytes",
                held.len()
            );
            outcome.find(first, message);
        }
    }
    outcome
}

/// No folder of a version control system.
pub(super) fn no_version_control(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (path, entry) in &subject.image.entries {
        let name = path.file_name();
        let is_one = [".git", ".hg", ".svn", ".bzr", ".jj"].contains(&name);
        if is_one && entry.node == Node::Directory {
            outcome.find(path, "it holds the history of sources");
        }
    }
    outcome
}

/// No path of the machine that built a program is left in it.
pub(super) fn no_build_paths(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (path, _, facts) in subject.files() {
        let Some(facts) = facts else { continue };
        if let Some(first) = facts.build_paths.first() {
            outcome.find(path, format!("it holds the path `{first}`"));
        }
    }
    outcome
}
