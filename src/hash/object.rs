//! The digest that names a store object.
//!
//! Most objects do not contain their own path: their digest is their tree's digest. One
//! that does cannot contain a hash of itself, so it is hashed with the digest part of
//! each such occurrence replaced by 52 `0` characters (which base 32 does not use), and
//! the positions are hashed with it, so that no two objects that differ only in where
//! they name themselves share a digest. What is hashed is canonical JSON:
//!
//! ```text
//! {"positions":[["bin/tool",1024],["lib/link",12]],"schema":"kiln.self-references.v1","tree":"<hex>"}
//! ```
//!
//! `tree` is the tree digest of the zeroed tree; each position is a file's path and the
//! offset of the digest part in the file's bytes (or in a symbolic link's target), sorted
//! by path in tree order, then by offset. The JSON starts with `{`, no `Directory` message
//! does, so the two kinds of preimage cannot be confused.

use serde_json::json;

use super::digest::BASE32_LEN;
use super::{ObjectDigest, RelPath, TreeDigest, json::canonical};

/// What stands in place of an object's own digest while it is hashed.
pub const ZEROED: [u8; BASE32_LEN] = [b'0'; BASE32_LEN];

/// Where an object names itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The file or symbolic link.
    pub path: RelPath,
    /// Offset of the digest part, in bytes.
    pub offset: u64,
}

/// A tree whose own digest parts were zeroed, and where they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfReferences {
    zeroed: TreeDigest,
    positions: Vec<Position>,
}

impl SelfReferences {
    /// Takes the digest of the zeroed tree and the positions, in any order.
    pub fn new(zeroed: TreeDigest, mut positions: Vec<Position>) -> Self {
        positions.sort();
        positions.dedup();
        Self { zeroed, positions }
    }

    /// Returns the bytes that are hashed; without a position there are none, and the
    /// tree's own digest is the object's.
    ///
    /// # Panics
    /// Never: file offsets are below 2^53, so the document always has a canonical form.
    pub fn preimage(&self) -> Option<Vec<u8>> {
        if self.positions.is_empty() {
            return None;
        }
        let positions: Vec<_> = self
            .positions
            .iter()
            .map(|p| json!([p.path.as_str(), p.offset]))
            .collect();
        let document = json!({
            "schema": "kiln.self-references.v1",
            "tree": self.zeroed.to_string(),
            "positions": positions,
        });
        Some(canonical(&document).expect("offsets are below 2^53 and nesting is three"))
    }

    /// Returns the object's digest.
    pub fn digest(&self) -> ObjectDigest {
        match self.preimage() {
            None => ObjectDigest::from_bytes(*self.zeroed.as_bytes()),
            Some(bytes) => ObjectDigest::from_bytes(*blake3::hash(&bytes).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str, offset: u64) -> Position {
        Position {
            path: path.parse().unwrap(),
            offset,
        }
    }

    #[test]
    fn without_self_references_the_tree_names_the_object() {
        let tree = TreeDigest::from_bytes([7; 32]);
        assert_eq!(
            SelfReferences::new(tree, vec![]).digest().as_bytes(),
            tree.as_bytes()
        );
    }

    #[test]
    fn positions_are_part_of_the_name() {
        let tree = TreeDigest::from_bytes([7; 32]);
        let one = SelfReferences::new(tree, vec![at("a", 1), at("b", 2)]);
        let same = SelfReferences::new(tree, vec![at("b", 2), at("a", 1)]);
        let moved = SelfReferences::new(tree, vec![at("a", 2), at("b", 2)]);
        assert_eq!(one.digest(), same.digest());
        assert_ne!(one.digest(), moved.digest());
        assert_eq!(
            String::from_utf8(one.preimage().unwrap()).unwrap(),
            format!(
                "{{\"positions\":[[\"a\",1],[\"b\",2]],\"schema\":\"kiln.self-references.v1\",\"tree\":\"{}\"}}",
                "07".repeat(32)
            )
        );
    }
}
