//! Where this machine gets its crates, from what Cargo has kept.
//!
//! An index of a registry says in its `config.json` where the crates are, and Cargo keeps
//! that file for every sparse index that it has asked (`registry/index/*/config.json` below
//! its home). So whatever Cargo's configuration or environment put in place of the public
//! registry, and however they did it, the base is known here once Cargo has used it.
//! Indices that want a login are left out: kiln sends none.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 16;

/// How an address goes on after the base, in an index that spells it out.
const REST: &str = "/{crate}/{version}/download";

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Index {
    dl: String,
    #[serde(default)]
    auth_required: bool,
}

/// Returns the base that the `config.json` of an index names (Cargo's book, "Index
/// configuration"): crates are at `BASE/NAME/VERSION/download`.
///
/// `None`: it is no such file, it wants a login, or its addresses are made in another way.
pub fn base(text: &str) -> Option<String> {
    let index: Index = serde_json::from_str(text).ok()?;
    let base = index.dl.strip_suffix(REST).unwrap_or(&index.dl);
    let base = base.trim_end_matches('/');
    let (scheme, rest) = base.split_once("://")?;
    let host = rest.split('/').next().unwrap_or_default();
    let usable = ["http", "https"].contains(&scheme)
        && !host.is_empty()
        && !host.contains('@')
        && !index.auth_required
        && base.chars().all(|c| c.is_ascii_graphic() && c != '{');
    usable.then(|| base.to_owned())
}

/// Returns the bases that Cargo has kept below its home, each once, in the order of the
/// indices' names.
pub fn read_home(home: &Path) -> Vec<String> {
    let mut indices: Vec<_> = std::fs::read_dir(home.join("registry/index"))
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("config.json"))
        .collect();
    indices.sort();
    let mut found: Vec<String> = Vec::new();
    for path in indices {
        let mut text = String::new();
        // What cannot be read has nothing to say; Cargo itself complains about it.
        if File::open(&path)
            .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
            .is_err()
        {
            continue;
        }
        found.extend(base(&text).filter(|base| !found.contains(base)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_says_where_its_crates_are() {
        let base = |text: &str| base(text).unwrap_or_default();
        for text in [
            r#"{"dl": "https://r.example/v1/crates", "api": "https://r.example"}"#,
            r#"{"dl": "https://r.example/v1/crates/"}"#,
            r#"{"dl": "https://r.example/v1/crates/{crate}/{version}/download"}"#,
        ] {
            assert_eq!(base(text), "https://r.example/v1/crates", "{text}");
        }
        for text in [
            "",
            "{}",
            r#"{"dl": ""}"#,
            r#"{"dl": "https://"}"#,
            r#"{"dl": "file:///crates"}"#,
            r#"{"dl": "https://me:word@r.example/crates"}"#,
            r#"{"dl": "https://r.example/crates", "auth-required": true}"#,
            r#"{"dl": "https://r.example/{prefix}/{crate}-{version}.crate"}"#,
            r#"{"dl": "https://r.example/a b"}"#,
        ] {
            assert_eq!(base(text), "", "{text}");
        }
    }

    #[test]
    fn every_index_that_cargo_kept_is_read_in_the_order_of_names() {
        let home = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("b-1", r#"{"dl": "https://b.example/crates"}"#),
            ("a-2", r#"{"dl": "https://a.example/crates"}"#),
            ("c-3", r#"{"dl": "https://a.example/crates/"}"#),
            ("d-4", "damaged"),
        ] {
            let index = home.path().join("registry/index").join(name);
            std::fs::create_dir_all(&index).unwrap();
            std::fs::write(index.join("config.json"), text).unwrap();
        }
        assert_eq!(
            read_home(home.path()),
            ["https://a.example/crates", "https://b.example/crates"]
        );
        assert!(read_home(&home.path().join("none")).is_empty());
    }
}
