//! Rules on what can be executed, and with which privilege.

use std::collections::{BTreeMap, BTreeSet};

use super::links::{End, follow};
use super::{Outcome, Subject};
use crate::hash::RelPath;
use crate::listing::facts::{ContentFacts, Kind};
use crate::listing::image::{ImageEntry, Node};

/// Says as what a file could be executed: it has an executable bit, or the magic bytes of
/// a program or script, for an interpreter or loader runs those without the bit.
pub(super) fn runs(entry: &ImageEntry, facts: Option<&ContentFacts>) -> Option<&'static str> {
    match facts.map(|facts| &facts.kind) {
        Some(Kind::Elf(_)) => Some("an ELF file"),
        Some(Kind::Script { .. }) => Some("a script"),
        _ => has_bit(entry).then_some("a file with an executable bit"),
    }
}

fn has_bit(entry: &ImageEntry) -> bool {
    entry.mode & 0o111 != 0
}

/// Whatever could be executed is listed, and whatever is listed can be. What may be
/// executed is declared by the image's file, or by `allow` in the policy.
pub(super) fn allowed(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let declared = subject.image.executables.as_ref();
    if declared.is_none() && subject.parameters.allow.is_empty() {
        outcome.cannot_tell(
            None,
            "neither the image nor the policy says which programs may be executed",
        );
        return outcome;
    }
    // What is listed may be a link: the program is where it leads.
    let mut listed: BTreeMap<RelPath, BTreeSet<&RelPath>> = BTreeMap::new();
    for path in declared.into_iter().flatten() {
        let program = match follow(subject.image, path) {
            End::File(program, _) => program,
            _ => path.clone(),
        };
        listed.entry(program).or_default().insert(path);
    }
    let mut unseen: BTreeSet<&RelPath> = declared.into_iter().flatten().collect();
    for (path, entry, facts) in subject.files() {
        let Some(what) = runs(entry, facts) else {
            continue;
        };
        let names = listed.get(path);
        if has_bit(entry) {
            for name in names.into_iter().flatten() {
                unseen.remove(name);
            }
        }
        let package = entry
            .origin
            .as_ref()
            .and_then(|origin| origin.package.as_ref());
        let by_package =
            package.is_some_and(|package| subject.image.executable_packages.contains(package));
        if names.is_none() && !by_package {
            outcome.find(path, format!("{what} that the image does not list"));
        }
    }
    for listed in unseen {
        outcome.find(listed, "listed, but there is no such program");
    }
    outcome
}

/// Nothing gains a privilege by being executed.
pub(super) fn no_setuid(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (path, entry) in &subject.image.entries {
        let is_link = matches!(entry.node, Node::Symlink { .. });
        if entry.mode & 0o6000 != 0 && !is_link {
            outcome.find(path, format!("it has mode {:04o}", entry.mode));
        }
    }
    outcome
}

/// No file has capabilities in its extended attributes.
pub(super) fn no_capabilities(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (path, entry) in &subject.image.entries {
        if let Some(value) = entry.attributes.get("security.capability") {
            let names = capabilities(value);
            let names = if names.is_empty() {
                "capabilities".to_owned()
            } else {
                names.join(", ")
            };
            outcome.find(path, format!("who executes it gets {names}"));
        }
    }
    outcome
}

/// Capabilities by their number, as `linux/capability.h` has them.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// Returns what a `vfs_cap_data` permits: a header, then words of permitted and
/// inheritable bits in turn, least significant byte first.
fn capabilities(value: &[u8]) -> Vec<String> {
    let word = |at: usize| {
        let bytes = value.get(at..at + 4)?.try_into().ok()?;
        Some(u64::from(u32::from_le_bytes(bytes)))
    };
    let permitted = word(4).unwrap_or(0) | word(12).unwrap_or(0) << 32;
    CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(number, _)| permitted >> number & 1 == 1)
        .map(|(_, name)| format!("cap_{name}"))
        .collect()
}
