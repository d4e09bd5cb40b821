//! Rules on modes, kinds, links and names.

use std::collections::BTreeMap;

use super::links::{End, climbs_out, follow};
use super::{Outcome, Subject};
use crate::hash::RelPath;
use crate::listing::image::Node;

/// No file that everybody may write; a directory only with the sticky bit.
pub(super) fn no_world_writable(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (path, entry) in &subject.image.entries {
        let sticky = entry.mode & 0o1000 != 0;
        let counts = match entry.node {
            Node::Symlink { .. } => false,
            Node::Directory => !sticky,
            _ => true,
        };
        if counts && entry.mode & 0o002 != 0 {
            outcome.find(
                path,
                format!("everybody may write to it: mode {:04o}", entry.mode),
            );
        }
    }
    outcome
}

/// No device and no pipe.
pub(super) fn no_devices(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (path, entry) in &subject.image.entries {
        match entry.node {
            Node::Device {
                numbers: (major, minor),
                ..
            } => outcome.find(
                path,
                format!("it is {} {major}:{minor}", entry.node.in_words()),
            ),
            Node::Fifo => outcome.find(path, "it is a named pipe"),
            _ => {}
        }
    }
    outcome
}

/// Every link leads to something, or to what the kernel puts there.
pub(super) fn no_dangling_links(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (path, entry) in &subject.image.entries {
        let Node::Symlink { target } = &entry.node else {
            continue;
        };
        match follow(subject.image, path) {
            End::Nothing => outcome.find(path, format!("`{target}` is not there")),
            End::Circle => outcome.find(path, format!("`{target}` leads in a circle")),
            _ => {}
        }
    }
    outcome
}

/// No link climbs above the root.
pub(super) fn no_escaping_links(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (path, entry) in &subject.image.entries {
        if let Node::Symlink { target } = &entry.node
            && climbs_out(path, target)
        {
            outcome.find(path, format!("`{target}` climbs above the root"));
        }
    }
    outcome
}

/// No two names in a directory that differ by case only.
pub(super) fn no_case_collisions(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut names: BTreeMap<(&str, String), &RelPath> = BTreeMap::new();
    for path in subject.image.entries.keys() {
        let key = (path.parent_str(), path.file_name().to_lowercase());
        match names.get(&key) {
            Some(first) => {
                let message = format!("it differs from `/{first}` by case only");
                outcome.find(path, message);
            }
            None => {
                names.insert(key, path);
            }
        }
    }
    outcome
}
