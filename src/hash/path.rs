//! Store paths and relative paths, as types that cannot hold a bad one.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::digest::BASE32_LEN;
use super::{DigestError, NameError, ObjectDigest, ObjectName};

/// Where objects are seen inside sandboxes and images, on every machine. Not hashed.
pub const STORE_PREFIX: &str = "/kiln/store";

/// A text that is not a store path, or not a relative path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Not below [`STORE_PREFIX`], or without `-` after the digest.
    #[error("`{0}` is not a store path (`/kiln/store/<52 characters>-<name>`)")]
    NotStore(String),
    /// The digest part is malformed.
    #[error("`{path}` is not a store path")]
    Digest {
        /// The offending text.
        path: String,
        /// Why.
        source: DigestError,
    },
    /// The name part is malformed.
    #[error("`{path}` is not a store path")]
    Name {
        /// The offending text.
        path: String,
        /// Why.
        source: NameError,
    },
    /// Empty, absolute, with a `.`, `..` or empty component, with NUL, or too long or deep.
    #[error("`{path}` is not a plain relative path: {reason}")]
    NotRelative {
        /// The offending text.
        path: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
}

/// The name of a store object: `/kiln/store/<digest>-<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath {
    digest: ObjectDigest,
    name: ObjectName,
}

impl StorePath {
    /// Joins a digest and a name.
    pub fn new(digest: ObjectDigest, name: ObjectName) -> Self {
        Self { digest, name }
    }

    /// Returns the digest.
    pub fn digest(&self) -> ObjectDigest {
        self.digest
    }

    /// Returns the readable part.
    pub fn name(&self) -> &ObjectName {
        &self.name
    }

    /// Returns `<digest>-<name>`: the object's entry in a store directory.
    pub fn base_name(&self) -> String {
        format!("{}-{}", self.digest.to_base32(), self.name)
    }

    /// Parses `<digest>-<name>`.
    ///
    /// # Errors
    /// [`PathError`] when the digest or the name is malformed.
    pub fn from_base_name(text: &str) -> Result<Self, PathError> {
        let shown = || text.chars().take(220).collect::<String>();
        let (digest, rest) = text
            .split_at_checked(BASE32_LEN)
            .ok_or_else(|| PathError::NotStore(shown()))?;
        let name = rest
            .strip_prefix('-')
            .ok_or_else(|| PathError::NotStore(shown()))?;
        Ok(Self {
            digest: ObjectDigest::from_base32(digest).map_err(|source| PathError::Digest {
                path: shown(),
                source,
            })?,
            name: name.parse().map_err(|source| PathError::Name {
                path: shown(),
                source,
            })?,
        })
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{STORE_PREFIX}/{}-{}",
            self.digest.to_base32(),
            self.name
        )
    }
}

impl FromStr for StorePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        text.strip_prefix(STORE_PREFIX)
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or_else(|| PathError::NotStore(text.chars().take(220).collect()))
            .and_then(Self::from_base_name)
    }
}

/// Longest name of one directory entry, in bytes (`NAME_MAX`).
pub const MAX_COMPONENT: usize = 255;
/// Deepest nesting of a tree that kiln takes in: far above any real package, far below
/// what exhausts a stack or `PATH_MAX`.
pub const MAX_DEPTH: usize = 64;

/// A path below some root: one or more components, none of them empty, `.` or `..`,
/// no NUL, at most [`MAX_COMPONENT`] bytes each and [`MAX_DEPTH`] of them.
///
/// The order is that of the components, as a walk of the tree in sorted order meets
/// them: `a/b` stands before `a.b`, unlike in plain byte order.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelPath(Arc<str>);

impl RelPath {
    /// Returns the path as text, components joined by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the components, outermost first.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// Returns the last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Returns the path without its last component, or `None` at the top.
    pub fn parent(&self) -> Option<Self> {
        self.0
            .rsplit_once('/')
            .map(|(parent, _)| Self(parent.into()))
    }

    /// Returns the path without its last component as text, empty at the top.
    pub fn parent_str(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(parent, _)| parent)
    }

    /// Returns whether it lies below a directory, at any depth.
    pub fn is_below(&self, directory: &Self) -> bool {
        self.0
            .strip_prefix(&*directory.0)
            .is_some_and(|rest| rest.starts_with('/'))
    }

    /// Returns every proper prefix, outermost first: for `a/b/c`, `a` and `a/b`.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + '_ {
        self.0
            .match_indices('/')
            .map(|(at, _)| Self(self.0[..at].into()))
    }

    /// Appends one component.
    ///
    /// # Errors
    /// [`PathError::NotRelative`] when the result breaks a rule of the type.
    pub fn join(&self, component: &str) -> Result<Self, PathError> {
        format!("{}/{component}", self.0).parse()
    }
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        // Where a component ends, the path with the shorter one comes first.
        let rank = |byte: u8| if byte == b'/' { 0 } else { byte };
        let (own, other) = (self.0.as_bytes(), other.0.as_bytes());
        // Eight at once as far as they are the same: most paths share their directories.
        let words = own.chunks_exact(8).zip(other.chunks_exact(8));
        let same = 8 * words.take_while(|(own, other)| own == other).count();
        let (_, own_rest) = own.split_at(same);
        let (_, other_rest) = other.split_at(same);
        let mut pairs = own_rest.iter().copied().zip(other_rest.iter().copied());
        match pairs.find(|(own, other)| own != other) {
            Some((own, other)) => rank(own).cmp(&rank(other)),
            None => own.len().cmp(&other.len()),
        }
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({:?})", self.0)
    }
}

impl FromStr for RelPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let refuse = |reason| {
            Err(PathError::NotRelative {
                path: text.chars().take(220).collect(),
                reason,
            })
        };
        if text.is_empty() {
            return refuse("it is empty");
        }
        if text.starts_with('/') {
            return refuse("it is absolute");
        }
        let mut depth = 0;
        for component in text.split('/') {
            depth += 1;
            match component {
                "" => return refuse("it has an empty component"),
                "." | ".." => return refuse("it has a `.` or `..` component"),
                _ if component.len() > MAX_COMPONENT => {
                    return refuse("a component is longer than 255 bytes");
                }
                _ if component.contains('\0') => return refuse("it contains NUL"),
                _ => {}
            }
        }
        if depth > MAX_DEPTH {
            return refuse("it is nested more than 64 deep");
        }
        Ok(Self(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn paths_are_ordered_by_components(
            a in "[-./0a\u{e9}]{1,9}",
            b in "[-./0a\u{e9}]{1,9}",
        ) {
            if let (Ok(a), Ok(b)) = (a.parse::<RelPath>(), b.parse::<RelPath>()) {
                prop_assert_eq!(a.cmp(&b), a.components().cmp(b.components()), "{} {}", a, b);
            }
        }
    }

    #[test]
    fn store_paths_round_trip() {
        let text = format!("/kiln/store/{}-dash-0.5.12", "a".repeat(52));
        let path: StorePath = text.parse().unwrap();
        assert_eq!(path.to_string(), text);
        assert_eq!(path.name().as_str(), "dash-0.5.12");
        for bad in [
            "/nix/store/x",
            "/kiln/store/",
            &format!("/kiln/store/{}", "a".repeat(52)),
            &format!("/kiln/store/{}-", "a".repeat(52)),
            &format!("/kiln/store/{}-../x", "a".repeat(52)),
            &format!("/kiln/store/{}-x", "A".repeat(52)),
        ] {
            assert!(bad.parse::<StorePath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn relative_paths_are_plain() {
        for bad in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0b"] {
            assert!(bad.parse::<RelPath>().is_err(), "{bad:?}");
        }
        assert!(
            "a/".repeat(64)
                .trim_end_matches('/')
                .parse::<RelPath>()
                .is_ok()
        );
        assert!(
            "a/".repeat(65)
                .trim_end_matches('/')
                .parse::<RelPath>()
                .is_err()
        );
        assert!("x".repeat(256).parse::<RelPath>().is_err());
    }

    #[test]
    fn order_is_that_of_a_sorted_walk() {
        let mut paths: Vec<RelPath> = ["a.b", "a/b", "a", "b"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        paths.sort();
        let texts: Vec<&str> = paths.iter().map(RelPath::as_str).collect();
        assert_eq!(texts, ["a", "a/b", "a.b", "b"]);
    }

    #[test]
    fn ancestors_from_the_outside_in() {
        let path: RelPath = "a/b/c".parse().unwrap();
        let texts: Vec<String> = path.ancestors().map(|p| p.to_string()).collect();
        assert_eq!(texts, ["a", "a/b"]);
    }
}
