//! Signs in the content of an ELF file of what the program is.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};

use super::secrets;
use crate::listing::facts::{Secret, Sign};

/// Variables that a POSIX shell manages itself; other programs know a few at most.
const SHELL_VARIABLES: [&str; 8] = [
    "PS1", "PS2", "PS4", "OPTIND", "IFS", "PPID", "OLDPWD", "CDPATH",
];

/// How many of them make a shell. Measured: dash 8, bash 8, mksh 8, zsh 8, BusyBox 7;
/// of coreutils, sed, grep, awk, jq, git, python, perl and make none has more than 2.
const SHELL_THRESHOLD: usize = 6;

/// Names of programs that no single project has together: none is coreutils'.
const APPLETS: [&str; 62] = [
    "ash",
    "awk",
    "blkid",
    "bunzip2",
    "cmp",
    "cpio",
    "crond",
    "diff",
    "dmesg",
    "fdisk",
    "find",
    "free",
    "fsck",
    "getty",
    "grep",
    "gunzip",
    "gzip",
    "halt",
    "hexdump",
    "httpd",
    "hwclock",
    "ifconfig",
    "init",
    "insmod",
    "killall",
    "klogd",
    "less",
    "login",
    "losetup",
    "lsmod",
    "mdev",
    "mkswap",
    "modprobe",
    "mount",
    "nc",
    "netstat",
    "nslookup",
    "passwd",
    "patch",
    "pidof",
    "ping",
    "poweroff",
    "ps",
    "reboot",
    "rmmod",
    "route",
    "sed",
    "su",
    "swapoff",
    "swapon",
    "sysctl",
    "syslogd",
    "tar",
    "telnet",
    "tftp",
    "top",
    "traceroute",
    "udhcpc",
    "umount",
    "unzip",
    "vi",
    "xargs",
];

/// How many of them in one table make a multi-call binary. Measured: BusyBox 61, toybox
/// 25; of coreutils, bash, dash, git, systemd, LLVM, util-linux and kmod none has more
/// than 4.
const APPLET_THRESHOLD: usize = 10;

/// Where a table may be: around the names that every one has.
const ANCHORS: [&str; 3] = ["\0chmod\0", "\0mount\0", "\0ifconfig\0"];

/// How far around an anchor the table reaches, in bytes: toybox's takes the most.
const TABLE: usize = 4096;

/// Most anchors that are looked at.
const MAX_ANCHORS: usize = 64;

/// Whether the bytes after a word are those that its program has there.
type Follows = fn(&[u8]) -> bool;

/// What multi-call binaries say of themselves, and what follows it there: a program that
/// only looks for these words, as this one does, has others after them.
const USAGE: [(&str, Follows); 4] = [
    ("BusyBox is a multi-call binary", |rest| {
        rest.starts_with(b" that")
    }),
    ("BusyBox v", |rest| {
        rest.first().is_some_and(u8::is_ascii_digit)
    }),
    ("Toybox %s multicall binary", |rest| rest.starts_with(b"%s")),
    ("usage: toybox [--long", |rest| rest.starts_with(b" |")),
];

/// Variables that only a language's own interpreter reads.
const LANGUAGES: [(&str, &str); 5] = [
    ("PYTHONHASHSEED", "Python"),
    ("PERL_HASH_SEED", "Perl"),
    ("RUBYLIB", "Ruby"),
    ("NODE_OPTIONS", "Node.js"),
    ("PHP_INI_SCAN_DIR", "PHP"),
];

/// Where people and their machines build.
const BUILD_PATHS: [&str; 5] = ["/home/", "/root/", "/Users/", "/builds/", "/usr/src/app/"];

/// Most paths that are named of one file.
const MAX_PATHS: usize = 4;

/// What a match means.
#[derive(Clone, Copy)]
enum Meaning {
    Variable(&'static str),
    Anchor,
    Usage(&'static str, Follows),
    Packer,
    Language(&'static str),
    BuildPath,
    Secret(usize),
}

static FINDER: LazyLock<(AhoCorasick, Vec<Meaning>)> = LazyLock::new(|| {
    let mut words: Vec<(String, Meaning)> = Vec::new();
    words.extend(SHELL_VARIABLES.map(|name| (format!("\0{name}"), Meaning::Variable(name))));
    words.extend(ANCHORS.map(|name| (name.to_owned(), Meaning::Anchor)));
    words.extend(USAGE.map(|(text, rest)| (text.to_owned(), Meaning::Usage(text, rest))));
    words.push(("UPX!".to_owned(), Meaning::Packer));
    words.extend(LANGUAGES.map(|(name, of)| (name.to_owned(), Meaning::Language(of))));
    words.extend(BUILD_PATHS.map(|path| (path.to_owned(), Meaning::BuildPath)));
    words.extend(
        secrets::PATTERNS
            .iter()
            .enumerate()
            .map(|(at, (start, _, _))| ((*start).to_owned(), Meaning::Secret(at))),
    );
    let (words, meanings): (Vec<_>, Vec<_>) = words.into_iter().unzip();
    let finder = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostFirst)
        .build(words)
        .expect("the patterns are few and short");
    (finder, meanings)
});

/// What was seen in a file.
#[derive(Default)]
pub(super) struct Seen {
    variables: BTreeSet<&'static str>,
    applets: usize,
    anchors: usize,
    others: BTreeSet<Sign>,
    pub secrets: BTreeSet<Secret>,
    pub build_paths: BTreeSet<String>,
}

impl Seen {
    /// Looks through a file once.
    pub fn scan(&mut self, bytes: &[u8]) {
        let (finder, meanings) = &*FINDER;
        for found in finder.find_iter(bytes) {
            let (start, end) = (found.start(), found.end());
            let before = start.checked_sub(1).and_then(|at| bytes.get(at)).copied();
            let after = bytes.get(end).copied();
            match meanings.get(found.pattern().as_usize()) {
                Some(Meaning::Variable(name)) if matches!(after, Some(0 | b'=')) => {
                    self.variables.insert(name);
                }
                Some(Meaning::Anchor) if self.anchors < MAX_ANCHORS => {
                    self.anchors += 1;
                    self.applets = self.applets.max(applets(bytes, start));
                }
                Some(Meaning::Usage(text, is_followed))
                    if is_followed(bytes.get(end..).unwrap_or_default()) =>
                {
                    self.others.insert(Sign::Usage {
                        text: (*text).into(),
                    });
                }
                Some(Meaning::Packer) if is_upx(bytes, start) => {
                    self.others.insert(Sign::Packed {
                        packer: "UPX".into(),
                    });
                }
                Some(Meaning::Language(language))
                    if before == Some(0) && matches!(after, Some(0 | b'=')) =>
                {
                    self.others.insert(Sign::Interpreter {
                        language: (*language).into(),
                    });
                }
                Some(Meaning::BuildPath) if self.build_paths.len() < MAX_PATHS => {
                    self.build_paths.extend(build_path(bytes, start));
                }
                Some(Meaning::Secret(pattern)) => {
                    if let Some(kind) = secrets::judge(*pattern, bytes, start, before) {
                        let offset = start as u64;
                        self.secrets.insert(Secret { kind, offset });
                    }
                }
                _ => {}
            }
        }
    }

    /// Returns the signs.
    pub fn signs(&self) -> BTreeSet<Sign> {
        let mut signs = self.others.clone();
        if self.variables.len() >= SHELL_THRESHOLD {
            signs.insert(Sign::Shell {
                variables: SHELL_VARIABLES
                    .into_iter()
                    .filter(|name| self.variables.contains(name))
                    .map(Cow::Borrowed)
                    .collect(),
            });
        }
        if self.applets >= APPLET_THRESHOLD {
            let applets = self.applets;
            signs.insert(Sign::MultiCall { applets });
        }
        signs
    }
}

/// Returns how many applets' names stand around a place.
fn applets(bytes: &[u8], at: usize) -> usize {
    let start = at.saturating_sub(TABLE);
    let window = bytes
        .get(start..(at + TABLE).min(bytes.len()))
        .unwrap_or_default();
    window
        .split(|&byte| byte == 0)
        .filter(|word| (2..=10).contains(&word.len()))
        .filter_map(|word| std::str::from_utf8(word).ok())
        .filter_map(|word| APPLETS.binary_search(&word).ok())
        .collect::<BTreeSet<_>>()
        .len()
}

/// Whether `UPX!` is the packer's header: `l_info` near the start of the file, or the
/// trailer near its end. A program that only speaks of it has it among its strings.
fn is_upx(bytes: &[u8], at: usize) -> bool {
    // `l_info`: checksum (4), magic (4), size of the loader (2), version, format.
    let version = bytes.get(at + 6).copied().unwrap_or(0);
    let format = bytes.get(at + 7).copied().unwrap_or(0);
    let near_start = at < 1024 && (9..=15).contains(&version) && (1..=45).contains(&format);
    // `PackHeader` at the very end: magic (4), version, format, method, level.
    let version = bytes.get(at + 4).copied().unwrap_or(0);
    let near_end = at + 64 > bytes.len() && (9..=15).contains(&version);
    near_start || near_end
}

/// Returns the path that starts at a place, if it is one of a building machine.
fn build_path(bytes: &[u8], start: usize) -> Option<String> {
    let path: Vec<u8> = bytes
        .get(start..(start + 120).min(bytes.len()))?
        .iter()
        .copied()
        .take_while(u8::is_ascii_graphic)
        .collect();
    let path = String::from_utf8(path).ok()?;
    let parts = path.split('/').filter(|part| !part.is_empty()).count();
    let is_source = [".c", ".h", ".cc", ".cpp", ".rs", ".go", ".S", ".py"]
        .iter()
        .any(|extension| path.ends_with(extension));
    let is_start = start
        .checked_sub(1)
        .and_then(|at| bytes.get(at))
        .is_none_or(|byte| !byte.is_ascii_alphanumeric() && !b"/._-".contains(byte));
    (is_start && parts >= 3 && (is_source || parts >= 4)).then_some(path)
}
