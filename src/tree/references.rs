//! Finding store paths in bytes.
//!
//! A reference is the 52 base 32 characters of an object's digest, wherever they stand:
//! the prefix may be split off, the digest never is. Only digests that the build could
//! have known are looked for, so a hit is no accident. What this cannot see: a digest
//! that is compressed, encrypted or cut in pieces; gzip members are looked into by `scan`.

use std::collections::{BTreeMap, BTreeSet};

use crate::hash::StorePath;
use crate::hash::digest::BASE32_LEN;

/// The 52 characters of a digest as they stand in files.
pub type DigestText = [u8; BASE32_LEN];

/// Returns the digest part of a store path as bytes.
pub fn digest_text(path: &StorePath) -> DigestText {
    let mut text = [0; BASE32_LEN];
    text.copy_from_slice(path.digest().to_base32().as_bytes());
    text
}

/// What to look for in a tree.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Objects that may be referenced; the first hit in each file is reported.
    pub candidates: BTreeMap<DigestText, StorePath>,
    /// Scratch paths of outputs; every hit is reported, since each is rewritten.
    pub scratch: BTreeMap<DigestText, StorePath>,
}

impl Wanted {
    /// Builds the search from store paths.
    pub fn new<'a>(
        candidates: impl IntoIterator<Item = &'a StorePath>,
        scratch: impl IntoIterator<Item = &'a StorePath>,
    ) -> Self {
        let index = |path: &StorePath| (digest_text(path), path.clone());
        Self {
            candidates: candidates.into_iter().map(index).collect(),
            scratch: scratch.into_iter().map(index).collect(),
        }
    }

    /// Returns whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty() && self.scratch.is_empty()
    }
}

#[allow(clippy::cast_possible_truncation, clippy::indexing_slicing)]
const fn base32_table() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'a'..=b'z' | b'2'..=b'7');
        byte += 1;
    }
    table
}

static IS_BASE32: [bool; 256] = base32_table();

/// Looks through one stream of bytes, block by block.
#[derive(Debug)]
pub struct Scanner<'a> {
    wanted: &'a Wanted,
    seen: BTreeSet<DigestText>,
    /// The last bytes of the stream so far: fewer than a digest has.
    tail: Vec<u8>,
    /// Bytes taken so far.
    position: u64,
}

#[expect(
    clippy::indexing_slicing,
    reason = "each index is compared with the length first"
)]
impl<'a> Scanner<'a> {
    /// Starts at offset 0.
    pub fn new(wanted: &'a Wanted) -> Self {
        Self {
            wanted,
            seen: BTreeSet::new(),
            tail: Vec::new(),
            position: 0,
        }
    }

    /// Takes the next block and reports each hit: the path, its offset in the stream, and
    /// whether it is a scratch path.
    pub fn feed(&mut self, block: &[u8], mut hit: impl FnMut(&StorePath, u64, bool)) {
        const KEPT: usize = BASE32_LEN - 1;
        if self.wanted.is_empty() {
            return;
        }
        // Matches across the border begin in the tail; those within the block are found
        // in place. The tail is too short to hold a match that was found before.
        let mut joined = std::mem::take(&mut self.tail);
        let old = joined.len();
        joined.extend_from_slice(&block[..block.len().min(KEPT)]);
        self.search(&joined, self.position - old as u64, old, &mut hit);
        self.search(block, self.position, block.len(), &mut hit);
        self.position += block.len() as u64;
        if block.len() >= KEPT {
            joined.clear();
            joined.extend_from_slice(&block[block.len() - KEPT..]);
        } else {
            joined.drain(..joined.len().saturating_sub(KEPT));
        }
        self.tail = joined;
    }

    /// Searches for matches that begin before `begin_before`.
    fn search(
        &mut self,
        bytes: &[u8],
        at: u64,
        begin_before: usize,
        hit: &mut impl FnMut(&StorePath, u64, bool),
    ) {
        let mut start = 0;
        while start < begin_before && start + BASE32_LEN <= bytes.len() {
            let window = &bytes[start..start + BASE32_LEN];
            // The last byte outside the alphabet rules out every start up to it.
            if let Some(outside) = window
                .iter()
                .rposition(|&byte| !IS_BASE32[usize::from(byte)])
            {
                start += outside + 1;
                continue;
            }
            if let Ok(text) = <&DigestText>::try_from(window) {
                if let Some(path) = self.wanted.scratch.get(text) {
                    hit(path, at + start as u64, true);
                } else if let Some(path) = self.wanted.candidates.get(text)
                    && self.seen.insert(*text)
                {
                    hit(path, at + start as u64, false);
                }
            }
            start += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::ObjectDigest;
    use proptest::prelude::*;

    fn path(byte: u8) -> StorePath {
        StorePath::new(ObjectDigest::from_bytes([byte; 32]), "x".parse().unwrap())
    }

    fn hits(blocks: &[&[u8]], wanted: &Wanted) -> Vec<(u64, bool)> {
        let mut scanner = Scanner::new(wanted);
        let mut found = Vec::new();
        for block in blocks {
            scanner.feed(block, |_, offset, scratch| found.push((offset, scratch)));
        }
        found
    }

    #[test]
    fn first_hit_of_a_candidate_and_every_hit_of_a_scratch_path() {
        let (candidate, scratch) = (path(1), path(2));
        let wanted = Wanted::new([&candidate], [&scratch]);
        let text = format!("{candidate}:{candidate}:{scratch}:{scratch}");
        let offset = |n: u64| 12 + n * (candidate.to_string().len() as u64 + 1);
        assert_eq!(
            hits(&[text.as_bytes()], &wanted),
            [(offset(0), false), (offset(2), true), (offset(3), true)]
        );
    }

    proptest! {
        #[test]
        fn blocks_of_any_size_find_the_same(
            gaps in prop::collection::vec(0_usize..90, 1..6),
            cuts in prop::collection::vec(0_usize..400, 0..12),
            filler in "[a-z0-9/-]",
        ) {
            let scratch = path(9);
            let wanted = Wanted::new([], [&scratch]);
            let digest = scratch.digest().to_base32();
            let mut text = String::new();
            let mut expected = Vec::new();
            for gap in gaps {
                text.push_str(&filler.repeat(gap));
                text.push('/');
                expected.push((text.len() as u64, true));
                text.push_str(&digest);
            }
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let blocks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(hits(&blocks, &wanted), expected);
        }
    }
}
