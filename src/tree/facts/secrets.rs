//! Secrets that their form gives away.
//!
//! Each pattern starts with fixed bytes; what follows must have the form of the real
//! thing and must not be a placeholder. A library that knows the words `PRIVATE KEY`, or
//! a manual with `AKIAIOSFODNN7EXAMPLE`, holds no secret.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::listing::facts::{Secret, SecretKind};

/// Most bytes that a pattern looks at, from its start.
const SPAN: usize = 1024;

/// Most secrets that are named of one file.
const MAX_FOUND: usize = 16;

/// How a pattern starts, and what tells whether it is a secret.
pub(super) type Pattern = (&'static str, SecretKind, fn(&[u8]) -> bool);

/// All patterns; `bytes` starts with the fixed bytes.
pub(super) const PATTERNS: [Pattern; 18] = [
    ("-----BEGIN ", SecretKind::PrivateKey, private_key),
    ("AKIA", SecretKind::CloudKey, cloud_key),
    ("ASIA", SecretKind::CloudKey, cloud_key),
    ("aws_secret_access_key", SecretKind::CloudKey, cloud_secret),
    ("AIza", SecretKind::CloudKey, |b| token(b, 4, 35, true)),
    ("ghp_", SecretKind::AccessToken, |b| token(b, 4, 36, false)),
    ("gho_", SecretKind::AccessToken, |b| token(b, 4, 36, false)),
    ("ghu_", SecretKind::AccessToken, |b| token(b, 4, 36, false)),
    ("ghs_", SecretKind::AccessToken, |b| token(b, 4, 36, false)),
    ("ghr_", SecretKind::AccessToken, |b| token(b, 4, 36, false)),
    ("github_pat_", SecretKind::AccessToken, |b| {
        token(b, 11, 82, true)
    }),
    ("glpat-", SecretKind::AccessToken, |b| token(b, 6, 20, true)),
    ("xoxb-", SecretKind::AccessToken, |b| at_least(b, 5, 40)),
    ("xoxp-", SecretKind::AccessToken, |b| at_least(b, 5, 40)),
    ("npm_", SecretKind::AccessToken, |b| token(b, 4, 36, false)),
    ("pypi-AgEIcHlwaS5vcmc", SecretKind::AccessToken, |b| {
        at_least(b, 5, 70)
    }),
    ("sk_live_", SecretKind::AccessToken, |b| at_least(b, 8, 24)),
    ("\"auth\":", SecretKind::RegistryLogin, login),
];

static FINDER: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostFirst)
        .build(PATTERNS.map(|(start, _, _)| start))
        .expect("the patterns are few and short")
});

/// The secrets of a file that streams by.
#[derive(Default)]
pub(super) struct Secrets {
    /// Those found so far.
    pub found: BTreeSet<Secret>,
    /// Where the kept bytes start in the file.
    offset: u64,
    /// The last byte before them.
    before: Option<u8>,
}

impl Secrets {
    /// Looks through what is kept, and leaves there what a pattern may still need.
    pub fn scan(&mut self, kept: &mut Vec<u8>, last: bool) {
        let done = if last {
            kept.len()
        } else {
            kept.len().saturating_sub(SPAN)
        };
        for found in FINDER.find_iter(kept.as_slice()) {
            if found.start() >= done || self.found.len() >= MAX_FOUND {
                break;
            }
            let before = match found.start().checked_sub(1) {
                Some(at) => kept.get(at).copied(),
                None => self.before,
            };
            if let Some(kind) = judge(found.pattern().as_usize(), kept, found.start(), before) {
                self.found.insert(Secret {
                    kind,
                    offset: self.offset + found.start() as u64,
                });
            }
        }
        if let Some(at) = done.checked_sub(1) {
            self.before = kept.get(at).copied();
        }
        kept.drain(..done);
        self.offset += done as u64;
    }
}

/// Returns what a pattern's match is, if it is a secret.
pub(super) fn judge(
    pattern: usize,
    bytes: &[u8],
    start: usize,
    before: Option<u8>,
) -> Option<SecretKind> {
    let (fixed, kind, is_secret) = PATTERNS.get(pattern)?;
    let inside_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if inside_word && fixed.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let end = bytes.len().min(start + SPAN);
    is_secret(bytes.get(start..end)?).then_some(*kind)
}

fn private_key(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((title, rest)) = text
        .strip_prefix("-----BEGIN ")
        .and_then(|rest| rest.split_once("-----"))
    else {
        return false;
    };
    if title.len() > 40 || !title.contains("PRIVATE KEY") {
        return false;
    }
    // A key that is a text in JSON has `\n` in two characters.
    let plain = rest.replace("\\n", "\n");
    plain.lines().take(12).any(|line| {
        let line = line.trim().as_bytes();
        line.len() >= 40 && line.iter().all(|&byte| is_base64(byte)) && is_varied(line)
    })
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)
}

/// Whether a text has as many different characters as a random one: `xxxx…` has not.
fn is_varied(text: &[u8]) -> bool {
    text.iter().collect::<BTreeSet<_>>().len() >= 10
}

fn cloud_key(bytes: &[u8]) -> bool {
    let Some(rest) = bytes.get(4..20) else {
        return false;
    };
    let ends = bytes
        .get(20)
        .is_none_or(|byte| !byte.is_ascii_alphanumeric());
    ends && rest
        .iter()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
        && rest.iter().any(u8::is_ascii_digit)
        && !rest.ends_with(b"EXAMPLE")
        && rest.iter().collect::<BTreeSet<_>>().len() >= 8
}

/// A key beside its name: `aws_secret_access_key = 40 characters`.
fn cloud_secret(bytes: &[u8]) -> bool {
    let rest = bytes
        .get("aws_secret_access_key".len()..)
        .unwrap_or_default();
    let start = rest
        .iter()
        .position(|byte| !b" \t=:\"'".contains(byte))
        .unwrap_or(0);
    let value: Vec<u8> = rest
        .iter()
        .skip(start)
        .copied()
        .take_while(|&byte| is_base64(byte))
        .collect();
    start > 0 && value.len() == 40 && is_varied(&value) && !value.ends_with(b"EXAMPLEKEY")
}

/// A token of exactly so many characters after its fixed start.
fn token(bytes: &[u8], start: usize, length: usize, punctuated: bool) -> bool {
    let value = word(bytes, start, punctuated);
    value.len() == length && is_varied(value) && value.iter().any(u8::is_ascii_digit)
}

fn at_least(bytes: &[u8], start: usize, length: usize) -> bool {
    let value = word(bytes, start, true);
    value.len() >= length && is_varied(value) && value.iter().any(u8::is_ascii_digit)
}

fn word(bytes: &[u8], start: usize, punctuated: bool) -> &[u8] {
    let rest = bytes.get(start..).unwrap_or_default();
    let end = rest
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || punctuated && b"-_".contains(byte)))
        .unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}

/// A login of a container registry: `"auth": "` and a name and password in base 64.
fn login(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes.get("\"auth\":".len()..).unwrap_or_default());
    let Some(value) = text
        .trim_start()
        .strip_prefix('"')
        .and_then(|rest| rest.split('"').next())
    else {
        return false;
    };
    value.len() >= 8
        && data_encoding::BASE64
            .decode(value.as_bytes())
            .is_ok_and(|plain| plain.contains(&b':') && plain.iter().all(|b| (32..127).contains(b)))
}

#[cfg(test)]
mod tests {
    use super::super::extract;
    use super::*;

    fn kinds(text: &str) -> Vec<SecretKind> {
        extract(text.as_bytes())
            .secrets
            .into_iter()
            .map(|secret| secret.kind)
            .collect()
    }

    /// A text without meaning, of a length.
    fn noise(length: usize) -> String {
        "Zk3vQ9sLx0Tb7RmWc2YpJ5dHn8AeUg4fKi1oVyGqXhBtMrDw6Sj"
            .chars()
            .cycle()
            .take(length)
            .collect()
    }

    #[test]
    fn real_forms_are_found() {
        let key = format!("-----BEGIN RSA PRIVATE KEY-----\n{}\n", noise(64));
        assert_eq!(kinds(&key), [SecretKind::PrivateKey]);
        assert_eq!(kinds(&key.replace('\n', "\\n")), [SecretKind::PrivateKey]);
        for prefix in ["ghp_", "gho_", "npm_"] {
            assert_eq!(
                kinds(&format!("x={prefix}{}\n", noise(36))),
                [SecretKind::AccessToken]
            );
        }
        assert_eq!(
            kinds(&format!("glpat-{} ", noise(20))),
            [SecretKind::AccessToken]
        );
        assert_eq!(kinds("id=AKIAZ7Q2M4X9T3B6W8KD;"), [SecretKind::CloudKey]);
        let secret = format!("aws_secret_access_key = {}\n", noise(40));
        assert_eq!(kinds(&secret), [SecretKind::CloudKey]);
        let login = data_encoding::BASE64.encode(b"user:password");
        assert_eq!(
            kinds(&format!(
                "{{\"auths\":{{\"h\":{{\"auth\": \"{login}\"}}}}}}"
            )),
            [SecretKind::RegistryLogin]
        );
    }

    #[test]
    fn placeholders_and_talk_of_secrets_are_not() {
        for text in [
            "-----BEGIN RSA PRIVATE KEY-----\0-----END RSA PRIVATE KEY-----\0",
            "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n",
            "AKIAIOSFODNN7EXAMPLE",
            "AKIAXXXXXXXXXXXXXXXX",
            "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "aws_secret_access_key = YOUR_SECRET",
            "\"auth\": \"required\"",
        ] {
            assert!(kinds(text).is_empty(), "{text}");
        }
        let certificate = format!("-----BEGIN CERTIFICATE-----\n{}\n", noise(64));
        assert!(kinds(&certificate).is_empty());
        assert!(kinds(&format!("wordghp_{}", noise(36))).is_empty());
    }

    #[test]
    fn a_secret_is_found_wherever_the_pieces_end() {
        let mut bytes = vec![b'\n'; 2 * super::super::BLOCK];
        let token = format!("ghp_{}", noise(36));
        for at in [
            0,
            900,
            super::super::BLOCK - 20,
            super::super::BLOCK,
            bytes.len() - 40,
        ] {
            bytes.fill(b'\n');
            bytes[at..at + 40].copy_from_slice(token.as_bytes());
            for piece in [7, 4096, bytes.len()] {
                let mut scanner = super::super::Scanner::default();
                for piece in bytes.chunks(piece) {
                    scanner.update(piece);
                }
                let found = scanner.finish().secrets;
                let offsets: Vec<u64> = found.iter().map(|secret| secret.offset).collect();
                assert_eq!(offsets, [at as u64], "{piece}");
            }
        }
    }
}
