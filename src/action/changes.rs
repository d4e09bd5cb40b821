//! How two actions of one package differ.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, ActionKind, Debian, Run};
use crate::hash::{RelPath, StorePath};

/// One difference between an action and a later one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Another object stands where one stood: an input, a source or the root.
    Replaced {
        /// What it is to the action, in words.
        role: String,
        /// The object before.
        old: StorePath,
        /// The object now.
        new: StorePath,
    },
    /// Anything else, in words that follow the action's name.
    Own(String),
}

/// Returns every difference between an action and a later one, sorted.
pub fn changes(old: &Action, new: &Action) -> BTreeSet<Change> {
    let mut found = BTreeSet::new();
    if old.name != new.name {
        found.insert(own(format!("was called `{}`", old.name)));
    }
    match (&old.kind, &new.kind) {
        (
            ActionKind::Build {
                run: old_run,
                outputs: old_outputs,
                checks: old_checks,
            },
            ActionKind::Build {
                run,
                outputs,
                checks,
            },
        ) => {
            found.append(&mut run_changes(old_run, run));
            if old_outputs.keys().ne(outputs.keys()) {
                found.insert(own("has other outputs"));
            }
            if old_checks != checks {
                found.insert(own("has other demands on its outputs"));
            }
        }
        (ActionKind::Test { run: old_run }, ActionKind::Test { run }) => {
            found.append(&mut run_changes(old_run, run));
        }
        (
            ActionKind::Fetch {
                sha256: old_sha256,
                file: old_file,
            },
            ActionKind::Fetch { sha256, file },
        ) => {
            if old_sha256 != sha256 {
                found.insert(own("has another SHA-256"));
            }
            if old_file != file {
                found.insert(own(format!("was the file `{old_file}`")));
            }
        }
        (ActionKind::Debian(old), ActionKind::Debian(new)) => {
            found.append(&mut debian_changes(old, new));
        }
        (ActionKind::Merge { inputs: old }, ActionKind::Merge { inputs: new }) => {
            found.append(&mut list_changes("root", old, new));
        }
        _ => {
            found.insert(own("is made in another way"));
        }
    }
    found
}

fn own(words: impl Into<String>) -> Change {
    Change::Own(words.into())
}

fn run_changes(old: &Run, new: &Run) -> BTreeSet<Change> {
    let mut found = BTreeSet::new();
    if old.script != new.script {
        found.insert(own("has another script"));
    }
    if old.working_directory != new.working_directory {
        found.insert(own("starts in another directory"));
    }
    if old.ids != new.ids {
        found.insert(own("can be other users and groups"));
    }
    for (variable, (before, now)) in pairs(&old.environment, &new.environment) {
        if before != now {
            found.insert(own(format!("has another value of `{variable}`")));
        }
    }
    found.extend(replaced(
        "root".to_owned(),
        Some(&old.root),
        Some(&new.root),
    ));
    for (variable, (before, now)) in pairs(&old.inputs, &new.inputs) {
        found.extend(replaced(format!("input `{variable}`"), before, now));
    }
    for (at, (before, now)) in pairs(&old.sources, &new.sources) {
        let role = source_role(at);
        if let (Some(before), Some(now)) = (before, now)
            && before.layout != now.layout
        {
            found.insert(own(format!("lays its {role} out in another way")));
        }
        let object = |source: Option<&'_ super::SourceInput>| source.map(|s| s.object.clone());
        let (before, now) = (object(before), object(now));
        found.extend(replaced(role, before.as_ref(), now.as_ref()));
    }
    found
}

fn source_role(at: &RelPath) -> String {
    match at.as_str() {
        "source" => "source".to_owned(),
        other => format!("source `{other}`"),
    }
}

fn debian_changes(old: &Debian, new: &Debian) -> BTreeSet<Change> {
    let mut found = list_changes("package", &old.packages, &new.packages);
    if (&old.exclude, &old.links, &old.files) != (&new.exclude, &new.links, &new.files) {
        found.insert(own("leaves out or adds other files"));
    }
    found
}

/// Compares lists of objects: those of one name replace one another.
fn list_changes(what: &str, old: &[StorePath], new: &[StorePath]) -> BTreeSet<Change> {
    let by_name = |paths: &[StorePath]| -> BTreeMap<String, StorePath> {
        paths
            .iter()
            .map(|path| (path.name().to_string(), path.clone()))
            .collect()
    };
    let mut found: BTreeSet<Change> = pairs(&by_name(old), &by_name(new))
        .into_iter()
        .filter_map(|(name, (before, now))| replaced(format!("{what} `{name}`"), before, now))
        .collect();
    if found.is_empty() && old != new {
        found.insert(own(format!("has its {what}s in another order")));
    }
    found
}

fn replaced(role: String, old: Option<&StorePath>, new: Option<&StorePath>) -> Option<Change> {
    match (old, new) {
        (Some(old), Some(new)) if old != new => Some(Change::Replaced {
            role,
            old: old.clone(),
            new: new.clone(),
        }),
        (None, Some(_)) => Some(own(format!("has the new {role}"))),
        (Some(_), None) => Some(own(format!("has no {role} any more"))),
        _ => None,
    }
}

type Pairs<'a, K, V> = BTreeMap<&'a K, (Option<&'a V>, Option<&'a V>)>;

/// Returns what two maps hold under each key of either.
fn pairs<'a, K: Ord, V>(old: &'a BTreeMap<K, V>, new: &'a BTreeMap<K, V>) -> Pairs<'a, K, V> {
    old.keys()
        .chain(new.keys())
        .map(|key| (key, (old.get(key), new.get(key))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derivation::Ids;
    use crate::hash::ObjectDigest;

    fn object(byte: u8, name: &str) -> StorePath {
        StorePath::new(ObjectDigest::from_bytes([byte; 32]), name.parse().unwrap())
    }

    fn action(change: impl FnOnce(&mut Run)) -> Action {
        let mut run = Run {
            root: object(1, "root"),
            inputs: BTreeMap::from([("zlib".to_owned(), object(2, "zlib"))]),
            sources: BTreeMap::new(),
            environment: BTreeMap::from([("CC".to_owned(), "cc".to_owned())]),
            script: "make\n".to_owned(),
            working_directory: "/build".to_owned(),
            ids: Ids::One,
        };
        change(&mut run);
        Action {
            name: "demo-1".parse().unwrap(),
            kind: ActionKind::Test { run },
        }
    }

    #[test]
    fn each_kind_of_change_is_named() {
        let old = action(|_| {});
        assert!(changes(&old, &old.clone()).is_empty());
        let new = action(|run| {
            run.script.push_str("make install\n");
            run.ids = Ids::Range;
            run.environment.insert("CC".to_owned(), "gcc".to_owned());
            run.inputs.insert("zlib".to_owned(), object(3, "zlib"));
            run.inputs.insert("pcre2".to_owned(), object(4, "pcre2"));
        });
        let expected = [
            Change::Replaced {
                role: "input `zlib`".to_owned(),
                old: object(2, "zlib"),
                new: object(3, "zlib"),
            },
            own("can be other users and groups"),
            own("has another script"),
            own("has another value of `CC`"),
            own("has the new input `pcre2`"),
        ];
        assert_eq!(changes(&old, &new), BTreeSet::from(expected));
        let back = changes(&new, &old);
        assert!(
            back.contains(&own("has no input `pcre2` any more")),
            "{back:?}"
        );
    }

    #[test]
    fn packages_of_a_root_are_compared_by_name() {
        let root = |packages: Vec<StorePath>| Action {
            name: "base".parse().unwrap(),
            kind: ActionKind::Merge { inputs: packages },
        };
        let found = changes(
            &root(vec![object(1, "a"), object(2, "b")]),
            &root(vec![object(1, "a"), object(3, "b"), object(4, "c")]),
        );
        let expected = [
            Change::Replaced {
                role: "root `b`".to_owned(),
                old: object(2, "b"),
                new: object(3, "b"),
            },
            own("has the new root `c`"),
        ];
        assert_eq!(found, BTreeSet::from(expected));
    }
}
