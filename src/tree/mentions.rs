//! Store paths in a file's bytes, with the path that follows them.
//!
//! Where `references` asks whether an object is named, this asks which of its files: the
//! text after a store path is read as long as it could be a path. What stands at an ELF
//! file's search path is no mention of a whole directory: the loader looks there for the
//! libraries that the file needs, and for nothing else.

use std::collections::{BTreeMap, BTreeSet};

use memchr::memmem;

use super::references::digest_text;
use crate::hash::StorePath;
use crate::listing::facts::ContentFacts;
use crate::listing::links::{Links, Mention};

/// Longest path below an object that is read, in bytes.
const MAX_REST: usize = 4096;

/// Returns what a file needs of others: `named` are the objects that it is known to name.
pub fn links<'a>(
    bytes: &[u8],
    facts: &ContentFacts,
    named: impl IntoIterator<Item = &'a StorePath>,
) -> Links {
    let mut links = Links::of_headers(facts);
    let own: BTreeSet<String> = links
        .search
        .iter()
        .chain(&links.interpreter)
        .map(|path| path.trim_end_matches('/').to_owned())
        .collect();
    let by_digest: BTreeMap<_, _> = named
        .into_iter()
        .map(|path| (digest_text(path), path))
        .collect();
    for (digest, object) in by_digest {
        let mut found = false;
        for at in memmem::find_iter(bytes, &digest) {
            found = true;
            let after = at + digest.len();
            let name = format!("-{}", object.name());
            let whole = bytes
                .get(after..)
                .and_then(|rest| rest.strip_prefix(name.as_bytes()));
            // A digest without the name stands for the whole object.
            let rest = whole.map(path_at).unwrap_or_default();
            if own.contains(format!("{object}{rest}").trim_end_matches('/')) {
                continue;
            }
            links.mentions.insert(Mention {
                object: object.clone(),
                rest,
            });
        }
        if !found {
            // It is in there, but compressed.
            links.mentions.insert(Mention {
                object: object.clone(),
                rest: String::new(),
            });
        }
    }
    links
}

/// Returns the path at the start of some bytes: a slash, and what could follow in a text.
fn path_at(bytes: &[u8]) -> String {
    if bytes.first() != Some(&b'/') {
        return String::new();
    }
    let ends = |byte: &u8| {
        byte.is_ascii_control()
            || byte.is_ascii_whitespace()
            || b"\"'`:;,|&()<>{}[]*?$\\!#=".contains(byte)
    };
    let length = bytes.iter().take(MAX_REST).position(ends);
    let length = length.unwrap_or(bytes.len().min(MAX_REST));
    String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::ObjectDigest;
    use crate::listing::facts::{Elf, Kind};

    fn object(number: u8) -> StorePath {
        let name = "zlib-1".parse().unwrap();
        StorePath::new(ObjectDigest::from_bytes([number; 32]), name)
    }

    fn rests(text: &str) -> Vec<String> {
        let found = links(text.as_bytes(), &ContentFacts::default(), [&object(1)]);
        found
            .mentions
            .into_iter()
            .map(|mention| mention.rest)
            .collect()
    }

    #[test]
    fn what_follows_a_store_path_is_read_to_its_end() {
        let path = object(1).to_string();
        for (text, expected) in [
            (format!("#!{path}/bin/sh -e\n"), "/bin/sh"),
            (format!("PATH={path}/bin:/usr/bin"), "/bin"),
            (format!("\"{path}\""), ""),
            (format!("{path}/share/%s.conf\0"), "/share/%s.conf"),
            (format!("{path}-doc/x"), ""),
            (object(1).digest().to_base32(), ""),
        ] {
            assert_eq!(rests(&text), [expected], "{text}");
        }
        // Named, but not where it can be read.
        assert_eq!(rests("compressed"), [""]);
    }

    #[test]
    fn a_search_path_is_no_mention() {
        let path = object(1).to_string();
        let elf = Elf {
            search: vec![format!("{path}/lib")],
            ..Elf::default()
        };
        let facts = ContentFacts {
            kind: Kind::Elf(Box::new(elf)),
            ..ContentFacts::default()
        };
        let found = links(format!("{path}/lib\0").as_bytes(), &facts, [&object(1)]);
        assert!(found.mentions.is_empty());
        let text = format!("{path}/lib\0{path}/share/x\0");
        let found = links(text.as_bytes(), &facts, [&object(1)]);
        assert_eq!(found.mentions.len(), 1);
    }
}
