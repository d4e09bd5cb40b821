//! Where this machine gets its Debian packages, from its apt configuration.
//!
//! Both formats of `sources.list(5)` are read: one line an entry, and deb822 stanzas.
//! Entries of other distributions and of third parties are left out: an entry counts if
//! its address ends as Debian's archives do (`/debian`, `/debian-security`, or a stamp
//! below `/archive/debian…`), it has the component `main`, and no suite is Ubuntu's.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Suites that only Ubuntu has.
const UBUNTU: [&str; 12] = [
    "trusty", "xenial", "bionic", "focal", "jammy", "kinetic", "lunar", "mantic", "noble",
    "oracular", "plucky", "questing",
];

struct Entry {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
}

/// Returns the base addresses of one configuration file, in its order.
///
/// `deb822` tells the format: the file's name ends in `.sources`.
pub fn bases(text: &str, deb822: bool) -> Vec<String> {
    let entries = if deb822 { stanzas(text) } else { lines(text) };
    let mut bases = Vec::new();
    for entry in entries {
        let is_ubuntu = entry.suites.iter().any(|suite| {
            UBUNTU.iter().any(|name| {
                suite
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
            })
        });
        if is_ubuntu || !entry.components.iter().any(|component| component == "main") {
            continue;
        }
        for uri in entry.uris {
            let uri = uri.trim_end_matches('/').to_owned();
            if is_debian(&uri) && !bases.contains(&uri) {
                bases.push(uri);
            }
        }
    }
    bases
}

fn is_debian(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return false;
    };
    if !["http", "https"].contains(&scheme) {
        return false;
    }
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let last = path.rsplit('/').next().unwrap_or("");
    let snapshot = path.contains("archive/debian")
        && last.len() == 16
        && last.ends_with('Z')
        && last
            .chars()
            .all(|c| c.is_ascii_digit() || c == 'T' || c == 'Z');
    matches!(last, "debian" | "debian-security") || snapshot
}

fn lines(text: &str) -> Vec<Entry> {
    text.lines().filter_map(one_line).collect()
}

/// Reads `deb [options] uri suite [component …]`.
fn one_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next().unwrap_or("").trim();
    let rest = line
        .strip_prefix("deb")?
        .strip_prefix([' ', '\t'])?
        .trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    Some(Entry {
        uris: vec![uri],
        suites: vec![suite],
        components: words.collect(),
    })
}

fn stanzas(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            entries.extend(stanza(&std::mem::take(&mut fields)));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((key, value)) = line.split_once(':') {
            fields.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    entries
}

fn stanza(fields: &[(String, String)]) -> Option<Entry> {
    let words = |key: &str| -> Vec<String> {
        fields
            .iter()
            .filter(|(name, _)| name == key)
            .flat_map(|(_, value)| value.split_whitespace().map(str::to_owned))
            .collect()
    };
    let enabled = words("enabled")
        .first()
        .is_none_or(|word| !["no", "false", "0"].contains(&word.as_str()));
    let binary = words("types").iter().any(|kind| kind == "deb");
    (enabled && binary).then(|| Entry {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
    })
}

/// Returns the base addresses in an apt directory (`/etc/apt`): the main archives before
/// those of security updates, each once, in the order in which apt reads the files.
pub fn read_directory(directory: &Path) -> Vec<String> {
    let mut files = vec![directory.join("sources.list")];
    let mut parts: Vec<_> = std::fs::read_dir(directory.join("sources.list.d"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|e| e == "list" || e == "sources")
        })
        .collect();
    parts.sort();
    files.append(&mut parts);
    let mut found: Vec<String> = Vec::new();
    for path in files {
        let mut bytes = Vec::new();
        // A file that cannot be read has nothing to say; apt itself complains about it.
        if File::open(&path)
            .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
            .is_err()
        {
            continue;
        }
        let deb822 = path.extension().is_some_and(|e| e == "sources");
        for base in bases(&String::from_utf8_lossy(&bytes), deb822) {
            if !found.contains(&base) {
                found.push(base);
            }
        }
    }
    found.sort_by_key(|base| base.contains("security"));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_entries() {
        let text = "# comment\n\
            deb http://mirror.example/debian bookworm main contrib # why\n\
            deb [arch=amd64 signed-by=/x] https://mirror.example/debian-security/ bookworm-security main\n\
            deb-src http://mirror.example/source/debian bookworm main\n\
            deb http://mirror.example/ubuntu jammy main\n\
            deb http://odd.example/debian noble-updates main\n\
            deb http://third.example/apt stable main\n\
            deb http://parts.example/debian bookworm contrib\n\
            deb cdrom:[Debian]/ bookworm main\n";
        assert_eq!(
            bases(text, false),
            [
                "http://mirror.example/debian",
                "https://mirror.example/debian-security"
            ]
        );
    }

    #[test]
    fn stanzas_of_deb822() {
        let text = "Types: deb deb-src\nURIs: http://a.example/debian\n http://b.example/debian/\n\
            Suites: trixie trixie-updates\nComponents: main\n# a comment\nSigned-By:\n -----BEGIN\n .\n\n\
            Types: deb\nURIs: http://off.example/debian\nSuites: trixie\nComponents: main\nEnabled: no\n\n\
            types: deb\nuris: http://s.example/archive/debian-security/20250520T000000Z\n\
            suites: trixie-security\ncomponents: main\n";
        assert_eq!(
            bases(text, true),
            [
                "http://a.example/debian",
                "http://b.example/debian",
                "http://s.example/archive/debian-security/20250520T000000Z"
            ]
        );
    }

    #[test]
    fn security_comes_last() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("sources.list.d")).unwrap();
        std::fs::write(
            directory.path().join("sources.list"),
            "deb http://m.example/debian-security x-security main\n",
        )
        .unwrap();
        std::fs::write(
            directory.path().join("sources.list.d/a.sources"),
            "Types: deb\nURIs: http://m.example/debian\nSuites: x\nComponents: main\n",
        )
        .unwrap();
        assert_eq!(
            read_directory(directory.path()),
            [
                "http://m.example/debian",
                "http://m.example/debian-security"
            ]
        );
    }
}
