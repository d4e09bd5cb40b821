//! Rules against programs that an image for production seldom needs, by content where it
//! can tell, else by name.

use super::{Outcome, Subject};
use crate::hash::RelPath;
use crate::listing::facts::{Kind, Sign};
use crate::listing::image::Node;

/// Interpreters, without the version that their names end with.
const INTERPRETERS: [&str; 23] = [
    "awk", "bun", "deno", "erl", "escript", "gawk", "groovy", "guile", "irb", "java", "jshell",
    "lua", "luajit", "mawk", "node", "nodejs", "perl", "php", "pypy", "python", "Rscript", "ruby",
    "tclsh",
];

const PACKAGE_MANAGERS: [&str; 32] = [
    "apk", "apt", "apt-get", "aptitude", "brew", "bundle", "cargo", "composer", "conda", "dnf",
    "dpkg", "emerge", "flatpak", "gem", "guix", "microdnf", "nix", "nix-env", "npm", "opkg",
    "pacman", "pip", "pipx", "pnpm", "poetry", "rpm", "snap", "tdnf", "uv", "yarn", "yum",
    "zypper",
];

const COMPILERS: [&str; 27] = [
    "as", "c++", "c99", "cc", "cc1", "cc1plus", "clang", "clang++", "cpp", "g++", "gcc",
    "gfortran", "ghc", "go", "gold", "javac", "ld", "ld.bfd", "ld.gold", "ld.lld", "lld", "nasm",
    "ocamlopt", "rustc", "tcc", "yasm", "zig",
];

const NETWORK_TOOLS: [&str; 33] = [
    "arping",
    "curl",
    "dig",
    "ftp",
    "host",
    "ifconfig",
    "ip",
    "iptables",
    "nc",
    "nc.openbsd",
    "nc.traditional",
    "ncat",
    "netcat",
    "netstat",
    "nft",
    "nmap",
    "nslookup",
    "ping",
    "rsync",
    "scp",
    "sftp",
    "socat",
    "ss",
    "ssh",
    "ssh-keyscan",
    "tcpdump",
    "telnet",
    "tftp",
    "traceroute",
    "tshark",
    "wget",
    "wget2",
    "whois",
];

/// No interpreter of a language is there.
pub(super) fn no_interpreter(subject: Subject<'_>) -> Outcome {
    let mut outcome = by_name(subject, &INTERPRETERS, "an interpreter");
    for (path, _, facts) in subject.files() {
        let Some(facts) = facts else { continue };
        for sign in &facts.signs {
            if matches!(sign, Sign::Interpreter { .. }) && !outcome.names(path) {
                outcome.find(path, sign.to_string());
            }
        }
        if let Kind::Script { interpreter } = &facts.kind
            && is_one(interpreter, &INTERPRETERS)
        {
            outcome.find(path, format!("it is a script for `{interpreter}`"));
        }
    }
    outcome
}

/// No package manager is there.
pub(super) fn no_package_manager(subject: Subject<'_>) -> Outcome {
    by_name(subject, &PACKAGE_MANAGERS, "a package manager")
}

/// No compiler, assembler or linker is there.
pub(super) fn no_compiler(subject: Subject<'_>) -> Outcome {
    by_name(subject, &COMPILERS, "a compiler")
}

/// No tool that fetches, connects or scans is there.
pub(super) fn no_network_tool(subject: Subject<'_>) -> Outcome {
    by_name(subject, &NETWORK_TOOLS, "a network tool")
}

/// Finds programs, scripts and links by their names.
fn by_name(subject: Subject<'_>, names: &[&str], what: &str) -> Outcome {
    let mut outcome = Outcome::default();
    for (path, entry) in &subject.image.entries {
        let could_run = match &entry.node {
            Node::File { digest, .. } => {
                let kind = subject.image.facts.get(digest).map(|facts| &facts.kind);
                entry.mode & 0o111 != 0
                    && matches!(kind, None | Some(Kind::Elf(_) | Kind::Script { .. }))
            }
            Node::Symlink { .. } => is_program_directory(path),
            _ => false,
        };
        if could_run && is_one(path.file_name(), names) {
            outcome.find(path, format!("it has the name of {what}"));
        }
    }
    outcome
}

/// A link counts where programs are looked for: elsewhere its name means nothing.
fn is_program_directory(path: &RelPath) -> bool {
    let directory = path.parent_str().rsplit('/').next().unwrap_or("");
    ["bin", "sbin"].contains(&directory)
}

/// Returns whether a name, without a target before it and a version after it, is one of
/// some: `x86_64-linux-gnu-gcc-12` is `gcc`, `python3.11` is `python`.
fn is_one(path: &str, names: &[&str]) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    let last = plain.split("-linux-gnu-").last().unwrap_or(plain);
    [name, plain, last].iter().any(|name| names.contains(name))
}

impl Outcome {
    fn names(&self, path: &RelPath) -> bool {
        let mut findings = self.findings.iter();
        findings.any(|remark| remark.path.as_ref() == Some(path))
    }
}
