//! The rules against shells, programs that are many programs, and compressed programs.

use std::collections::{BTreeMap, BTreeSet};

use super::{Outcome, Subject};
use crate::hash::BlobDigest;
use crate::listing::facts::{Kind, Sign};
use crate::listing::image::Node;

/// Names under which a shell is looked for by other programs.
const NAMES: [&str; 14] = [
    "ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "rbash", "sh", "tcsh",
    "toybox", "yash", "zsh",
];

/// Names of programs of different projects: who has many of them is a multi-call binary.
/// Coreutils, systemd, git, LVM, kmod and LLVM have two families of names at most.
const FAMILIES: [&[&str]; 6] = [
    &["ash", "sh", "hush"],
    &["awk", "sed", "grep", "egrep", "find", "xargs", "diff"],
    &[
        "mount", "umount", "fdisk", "losetup", "mkswap", "dmesg", "hwclock",
    ],
    &[
        "ifconfig", "route", "ping", "netstat", "nslookup", "telnet", "wget", "nc", "udhcpc",
    ],
    &["ps", "top", "free", "pidof", "killall", "sysctl", "watch"],
    &[
        "tar", "gzip", "gunzip", "bunzip2", "unzip", "cpio", "vi", "less",
    ],
];

/// Families that one program must have names of.
const FAMILY_THRESHOLD: usize = 4;

/// No file is a shell by its content, needs one as its interpreter, or has a shell's name.
pub(super) fn no_shell(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (path, _, facts) in subject.files() {
        let Some(facts) = facts else { continue };
        let mut evidence: Vec<String> = facts
            .signs
            .iter()
            .filter(|sign| sign.is_multi_call() || matches!(sign, Sign::Shell { .. }))
            .map(Sign::to_string)
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
            outcome.find(path, evidence.join("; "));
        }
    }
    for (path, entry) in &subject.image.entries {
        if let Node::Symlink { target } = &entry.node
            && (is_shell_name(path.file_name()) || is_shell_name(target))
        {
            outcome.find(path, format!("it is a shell's name for `{target}`"));
        }
    }
    outcome
}

fn is_shell_name(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    NAMES.contains(&name)
}

/// No file is BusyBox, toybox or of their kin: by a table of names, by what it says of
/// itself, by its symbols, or by the names that lead to it.
pub(super) fn no_multi_call(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let names = names(subject);
    for (path, entry, facts) in subject.files() {
        let Some(facts) = facts else { continue };
        if !matches!(facts.kind, Kind::Elf(_)) {
            continue;
        }
        let mut evidence: Vec<String> = facts
            .signs
            .iter()
            .filter(|sign| sign.is_multi_call())
            .map(Sign::to_string)
            .collect();
        if let Node::File { digest, .. } = &entry.node
            && let Some(names) = names.get(digest)
            && families(names) >= FAMILY_THRESHOLD
        {
            evidence.push(format!(
                "it has {} names, such as {}",
                names.len(),
                some(names)
            ));
        }
        if !evidence.is_empty() {
            outcome.find(path, evidence.join("; "));
        } else if packed(&facts.signs).is_some() {
            outcome.cannot_tell(
                Some(path),
                "it is compressed, so that nobody can see what it is",
            );
        }
    }
    outcome
}

/// Returns every name under which each content can be executed: files, hard links, and
/// symbolic links.
fn names(subject: Subject<'_>) -> BTreeMap<BlobDigest, BTreeSet<&str>> {
    let mut names: BTreeMap<BlobDigest, BTreeSet<&str>> = BTreeMap::new();
    for (path, entry) in &subject.image.entries {
        let file = match &entry.node {
            Node::File { digest, .. } => Some(*digest),
            Node::Symlink { .. } => match super::links::follow(subject.image, path) {
                super::links::End::File(_, digest) => Some(digest),
                _ => None,
            },
            _ => None,
        };
        if let Some(digest) = file {
            names.entry(digest).or_default().insert(path.file_name());
        }
    }
    names
}

fn families(names: &BTreeSet<&str>) -> usize {
    FAMILIES
        .iter()
        .filter(|family| family.iter().any(|name| names.contains(name)))
        .count()
}

fn some(names: &BTreeSet<&str>) -> String {
    let telling = names
        .iter()
        .filter(|name| FAMILIES.iter().any(|family| family.contains(name)));
    telling.take(6).copied().collect::<Vec<_>>().join(", ")
}

/// Returns the sign of a packer; UPX is the only one that is looked for.
fn packed(signs: &BTreeSet<Sign>) -> Option<&Sign> {
    signs
        .iter()
        .find(|sign| matches!(sign, Sign::Packed { .. }))
}

/// No program is compressed.
pub(super) fn no_packed(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (path, _, facts) in subject.files() {
        if let Some(sign) = facts.and_then(|facts| packed(&facts.signs)) {
            outcome.find(path, format!("{sign}: what it does cannot be seen"));
        }
    }
    outcome
}
