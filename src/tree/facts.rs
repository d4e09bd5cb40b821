//! Reads facts out of file content, as it streams by.
//!
//! A [`Scanner`] takes a file's bytes in pieces of any length. It keeps an ELF file whole,
//! for its headers lie at both ends, and of any other file only what a pattern may span.

mod elf;
mod secrets;
mod signs;

use crate::listing::facts::{ContentFacts, Kind, Sign};
use elf::elf;
use secrets::Secrets;

/// Longest ELF file that is looked into, in bytes: of the programs that are common only
/// browsers have more. It bounds the memory.
pub const MAX_ELF: usize = 128 << 20;

/// Longest `#!` line that is read, as Linux reads it (`BINPRM_BUF_SIZE`).
const MAX_SHEBANG: usize = 256;

/// Bytes that are scanned at once.
const BLOCK: usize = 128 << 10;

/// Returns what a file's content says. It never fails: bytes that only look like a known
/// format are said to be unreadable.
pub fn extract(bytes: &[u8]) -> ContentFacts {
    if bytes.starts_with(elf::MAGIC) {
        return of_elf(bytes);
    }
    let mut scanner = Scanner::default();
    scanner.update(bytes);
    scanner.finish()
}

/// Reads facts out of one file, piece by piece.
#[derive(Default)]
pub struct Scanner {
    /// An ELF file from its start; of any other file, what has not been scanned yet.
    kept: Vec<u8>,
    /// The start of the file, as far as its format needs it.
    start: Vec<u8>,
    total_bytes: u64,
    /// The length of an ELF file, if it is known, as far as it is kept.
    expected: usize,
    secrets: Secrets,
}

impl Scanner {
    /// Starts a file of a known length, so that memory is asked for once.
    pub fn expecting(size_bytes: u64) -> Self {
        Self {
            expected: usize::try_from(size_bytes)
                .unwrap_or(usize::MAX)
                .min(MAX_ELF),
            ..Self::default()
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.total_bytes += bytes.len() as u64;
        let wanted = MAX_SHEBANG - self.start.len().min(MAX_SHEBANG);
        self.start
            .extend_from_slice(bytes.get(..wanted.min(bytes.len())).unwrap_or_default());
        if self.may_be_elf() {
            if self.kept.len() + bytes.len() <= MAX_ELF {
                if self.kept.capacity() < self.expected {
                    self.kept.reserve_exact(self.expected - self.kept.len());
                }
                self.kept.extend_from_slice(bytes);
            }
            return;
        }
        while !bytes.is_empty() {
            let room = BLOCK.saturating_sub(self.kept.len());
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.kept.extend_from_slice(now);
            bytes = later;
            if self.kept.len() >= BLOCK {
                self.secrets.scan(&mut self.kept, false);
            }
        }
    }

    /// Whether the file starts as an ELF file does, as far as it is known.
    fn may_be_elf(&self) -> bool {
        let length = self.start.len().min(elf::MAGIC.len());
        self.start.get(..length) == elf::MAGIC.get(..length)
    }

    /// Ends the file.
    pub fn finish(mut self) -> ContentFacts {
        if self.start.starts_with(elf::MAGIC) {
            if self.total_bytes > MAX_ELF as u64 {
                let unreadable = Some("it is larger than 128 MiB".to_owned());
                let elf = crate::listing::facts::Elf {
                    unreadable,
                    ..Default::default()
                };
                return ContentFacts {
                    kind: Kind::Elf(Box::new(elf)),
                    ..ContentFacts::default()
                };
            }
            return of_elf(&self.kept);
        }
        self.secrets.scan(&mut self.kept, true);
        let kind = if self.start.starts_with(b"#!") {
            Kind::Script {
                interpreter: shebang(&self.start),
            }
        } else if self.start.starts_with(b"!<arch>\n") {
            Kind::Archive
        } else {
            Kind::Other
        };
        ContentFacts {
            kind,
            secrets: self.secrets.found,
            ..ContentFacts::default()
        }
    }
}

fn of_elf(bytes: &[u8]) -> ContentFacts {
    let (elf, symbols) = elf(bytes);
    let mut seen = signs::Seen::default();
    seen.scan(bytes);
    let mut signs = seen.signs();
    signs.extend(
        symbols
            .into_iter()
            .map(|name| Sign::Symbol { name: name.into() }),
    );
    ContentFacts {
        kind: Kind::Elf(Box::new(elf)),
        signs,
        secrets: seen.secrets,
        build_paths: seen.build_paths,
    }
}

fn shebang(bytes: &[u8]) -> String {
    let line = bytes.get(2..).unwrap_or_default();
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line)
        .split_whitespace()
        .next()
        .unwrap_or("")
        .to_owned()
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

    /// Returns the evidence that a program is a multi-call binary.
    fn multi_call(bytes: &[u8]) -> Vec<String> {
        let signs = extract(bytes).signs;
        let telling = signs.iter().filter(|sign| sign.is_multi_call());
        telling.map(ToString::to_string).collect()
    }

    /// Overwrites every occurrence of a word.
    fn without(bytes: &[u8], word: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let places: Vec<usize> = memchr::memmem::find_iter(&bytes, word).collect();
        for at in places {
            bytes[at..at + word.len()].fill(b'x');
        }
        bytes
    }

    #[test]
    fn multi_call_binaries_are_recognised_whatever_is_taken_from_them() {
        let mut tried = 0;
        for path in ["/bin/busybox", "/bin/toybox"] {
            let Ok(bytes) = std::fs::read(path) else {
                eprintln!("skipped: there is no {path}");
                continue;
            };
            tried += 1;
            assert!(
                multi_call(&bytes).len() >= 2,
                "{path}: {:?}",
                multi_call(&bytes)
            );
            // No word of what it is called, then no table.
            let mut unnamed = bytes.clone();
            for word in ["BusyBox", "busybox", "Toybox", "toybox"] {
                unnamed = without(&unnamed, word.as_bytes());
            }
            let found = multi_call(&unnamed);
            assert!(found[0].contains("holds a table"), "{path}: {found:?}");
            let mut tableless = bytes.clone();
            for word in ["\0chmod\0", "\0mount\0", "\0ifconfig\0"] {
                tableless = without(&tableless, word.as_bytes());
            }
            let found = multi_call(&tableless);
            assert!(found[0].contains("it says"), "{path}: {found:?}");
        }
        for path in [
            "/bin/bash",
            "/bin/dash",
            "/bin/ls",
            "/bin/coreutils",
            "/bin/systemctl",
            "/bin/kmod",
            "/bin/udevadm",
            "/sbin/lvm",
            "/usr/bin/git",
            "/usr/bin/perl",
            "/usr/bin/llvm-ar",
            "/usr/bin/python3",
            "/usr/bin/gdb",
            "/proc/self/exe",
        ] {
            if let Ok(bytes) = std::fs::read(path) {
                tried += 1;
                assert!(
                    multi_call(&bytes).is_empty(),
                    "{path}: {:?}",
                    multi_call(&bytes)
                );
            }
        }
        assert!(tried > 3, "this machine has too few programs to try");
    }

    #[test]
    fn a_packer_is_recognised_by_its_header_and_not_by_its_name() {
        let packed = |signs: &std::collections::BTreeSet<Sign>| {
            signs.contains(&Sign::Packed {
                packer: "UPX".into(),
            })
        };
        let mut bytes = std::fs::read("/bin/true").unwrap();
        assert!(!packed(&extract(&bytes).signs));
        // After the ELF header and three program headers: checksum, magic, length of the
        // loader, version 13, format 22 (ELF for AMD64).
        let header = b"\x12\x34\x56\x78UPX!\x10\x09\x0d\x16";
        bytes[232..232 + header.len()].copy_from_slice(header);
        assert!(packed(&extract(&bytes).signs));
        bytes[232..232 + header.len()].fill(0);
        let name = b"\0UPX! is a packer\0";
        bytes[2000..2000 + name.len()].copy_from_slice(name);
        assert!(!packed(&extract(&bytes).signs));
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
