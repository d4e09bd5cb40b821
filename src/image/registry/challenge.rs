//! What a registry asks for when it does not let one in: `WWW-Authenticate`.

use std::collections::BTreeMap;

/// Longest challenge that is read, in bytes.
const MAX: usize = 8192;

/// How to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// With name and password in each request.
    Basic,
    /// With a token from another server.
    Bearer {
        /// Its address.
        realm: String,
        /// What the registry calls itself there.
        service: Option<String>,
        /// What the token must allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Reads a challenge; `None` for one of another kind.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.get(..MAX).unwrap_or(text).trim();
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut parameters = parameters(rest);
        Some(Self::Bearer {
            realm: parameters.remove("realm")?,
            service: parameters.remove("service"),
            scope: parameters.remove("scope"),
        })
    }
}

/// Reads `name="value",…`; values may be quoted, with backslashes before quotes.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text.trim_start();
    while let Some((name, after)) = rest.split_once('=') {
        let mut value = String::new();
        let mut end = after.len();
        let mut characters = after.char_indices();
        let quoted = after.starts_with('"');
        if quoted {
            characters.next();
        }
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' if quoted => value.extend(characters.next().map(|(_, escaped)| escaped)),
                '"' if quoted => {
                    end = at + 1;
                    break;
                }
                ',' if !quoted => {
                    end = at;
                    break;
                }
                _ => value.push(character),
            }
        }
        found.insert(name.trim().to_ascii_lowercase(), value);
        rest = after
            .get(end..)
            .unwrap_or("")
            .trim_start_matches([',', ' ']);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_real_registries_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        };
        for (text, expected) in [
            ("Basic realm=\"Registry\"", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://auth.example/token\",service=\"registry\",scope=\"repository:a/b:pull,push\"",
                Some(bearer(
                    "https://auth.example/token",
                    Some("registry"),
                    Some("repository:a/b:pull,push"),
                )),
            ),
            (
                "bearer realm=https://a/t, service=x",
                Some(bearer("https://a/t", Some("x"), None)),
            ),
            ("Bearer realm=\"a\\\"b\"", Some(bearer("a\"b", None, None))),
            ("Bearer service=\"x\"", None),
            ("Negotiate", None),
            ("", None),
            (
                "Bearer realm=\"unclosed",
                Some(bearer("unclosed", None, None)),
            ),
        ] {
            assert_eq!(Challenge::parse(text), expected, "{text}");
        }
    }
}
