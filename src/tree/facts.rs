//! Reads facts out of file content.

use std::collections::BTreeSet;

use goblin::elf::Elf as ElfFile;
use memchr::memmem::Finder;

use crate::listing::facts::{ContentFacts, Elf, Kind, Sign};

/// Variables that a POSIX shell manages itself; other programs know a few at most.
const SHELL_VARIABLES: [&str; 8] = [
    "PS1", "PS2", "PS4", "OPTIND", "IFS", "PPID", "OLDPWD", "CDPATH",
];

/// How many of them make a shell. Measured: dash 8, bash 8, mksh 8, zsh 8, BusyBox 7;
/// of coreutils, sed, grep, awk, jq, git, python, perl and make none has more than 2.
const SHELL_THRESHOLD: usize = 6;

/// Names of common programs, as they stand in a multi-call binary's table.
const APPLETS: [&str; 40] = [
    "basename", "cat", "chgrp", "chmod", "chown", "chroot", "cp", "cut", "date", "dd", "df",
    "dirname", "du", "echo", "env", "expr", "false", "head", "hostname", "id", "kill", "ln", "ls",
    "mkdir", "mkfifo", "mknod", "mount", "mv", "nice", "ps", "pwd", "rm", "rmdir", "sleep", "sort",
    "tail", "tee", "touch", "true", "umount",
];

/// How many of them in one table make a multi-call binary.
const APPLET_THRESHOLD: usize = 16;

/// Longest `#!` line that is read, as Linux reads it (`BINPRM_BUF_SIZE`).
const MAX_SHEBANG: usize = 256;

/// Returns what a file's content says. It never fails: bytes that only look like a known
/// format are said to be unreadable.
pub fn extract(bytes: &[u8]) -> ContentFacts {
    if bytes.starts_with(b"\x7fELF") {
        return ContentFacts {
            kind: Kind::Elf(elf(bytes)),
            signs: signs(bytes),
        };
    }
    let kind = if bytes.starts_with(b"#!") {
        Kind::Script {
            interpreter: shebang(bytes),
        }
    } else if bytes.starts_with(b"!<arch>\n") {
        Kind::Archive
    } else {
        Kind::Other
    };
    ContentFacts {
        kind,
        signs: BTreeSet::new(),
    }
}

fn shebang(bytes: &[u8]) -> String {
    let line = bytes
        .get(2..bytes.len().min(MAX_SHEBANG))
        .unwrap_or_default();
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line)
        .split_whitespace()
        .next()
        .unwrap_or("")
        .to_owned()
}

fn elf(bytes: &[u8]) -> Elf {
    match ElfFile::parse(bytes) {
        Ok(file) => Elf {
            interpreter: file.interpreter.map(str::to_owned),
            needed: file
                .libraries
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
            unreadable: None,
        },
        Err(error) => Elf {
            unreadable: Some(error.to_string()),
            ..Elf::default()
        },
    }
}

fn signs(bytes: &[u8]) -> BTreeSet<Sign> {
    let mut signs = BTreeSet::new();
    let variables: Vec<&'static str> = SHELL_VARIABLES
        .into_iter()
        .filter(|name| holds_variable(bytes, name))
        .collect();
    if variables.len() >= SHELL_THRESHOLD {
        signs.insert(Sign::Shell { variables });
    }
    let applets = applet_table(bytes);
    if applets >= APPLET_THRESHOLD {
        signs.insert(Sign::MultiCall { applets });
    }
    signs
}

/// Returns whether a name stands in the bytes as a string of its own, or as `NAME=`.
fn holds_variable(bytes: &[u8], name: &str) -> bool {
    Finder::new(name).find_iter(bytes).any(|at| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        let after = bytes.get(at + name.len());
        before == Some(&0) && matches!(after, Some(0 | b'='))
    })
}

/// Returns the largest number of distinct applet names in one run of short strings.
fn applet_table(bytes: &[u8]) -> usize {
    let mut best = 0;
    // Every table has `chmod`: a multi-call binary without it is no userspace.
    for at in Finder::new(b"\0chmod\0").find_iter(bytes).take(64) {
        let start = at.saturating_sub(4096);
        let window = bytes
            .get(start..(at + 4096).min(bytes.len()))
            .unwrap_or_default();
        let found: BTreeSet<&str> = window
            .split(|&byte| byte == 0)
            .filter_map(|word| std::str::from_utf8(word).ok())
            .filter_map(|word| APPLETS.into_iter().find(|applet| *applet == word))
            .collect();
        best = best.max(found.len());
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shells_of_this_machine_are_recognised_and_other_programs_are_not() {
        let mut shells = 0;
        for (path, is_shell) in [
            ("/bin/dash", true),
            ("/bin/bash", true),
            ("/bin/busybox", true),
            ("/bin/mksh", true),
            ("/bin/zsh", true),
            ("/bin/ls", false),
            ("/bin/env", false),
            ("/bin/sed", false),
            ("/bin/grep", false),
            ("/usr/bin/git", false),
            ("/usr/bin/perl", false),
            ("/usr/bin/make", false),
            ("/usr/bin/awk", false),
        ] {
            let Ok(bytes) = std::fs::read(path) else {
                continue;
            };
            let facts = extract(&bytes);
            let found = facts
                .signs
                .iter()
                .any(|sign| matches!(sign, Sign::Shell { .. }));
            assert_eq!(found, is_shell, "{path}: {:?}", facts.signs);
            shells += usize::from(is_shell);
        }
        assert!(shells >= 1, "this machine has no shell to try");
    }

    #[test]
    fn linkage_and_interpreters() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let Kind::Elf(own) = extract(&bytes).kind else {
            panic!("this test is an ELF file")
        };
        assert!(own.why_dynamic().is_some());
        let script = extract(b"#! /bin/sh -e\nexit");
        assert_eq!(
            script.kind,
            Kind::Script {
                interpreter: "/bin/sh".to_owned()
            }
        );
        assert_eq!(extract(b"plain").kind, Kind::Other);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
            elf.extend(&bytes);
            extract(&elf);
            extract(&bytes);
        }

        #[test]
        fn no_changed_program_panics(at in 0_usize..4096, byte in any::<u8>()) {
            let mut bytes = std::fs::read("/bin/true").unwrap();
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
            extract(&bytes);
        }
    }
}
