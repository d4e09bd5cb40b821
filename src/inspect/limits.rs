//! How much an image may ask for, and why so much.

/// Longest index, manifest or configuration, in bytes: registries take 4 MiB at most.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// Most manifests that are looked at, indexes in indexes included.
pub const MAX_MANIFESTS: usize = 4096;

/// Deepest nesting of indexes: an index of indexes of platforms has two.
pub const MAX_INDEX_DEPTH: usize = 4;

/// Most layers: overlay file systems take 127 or 128, and histories some more.
pub const MAX_LAYERS: usize = 512;

/// Most members of all layers together: the largest images in use have a third of it. At
/// about 300 bytes each it bounds the memory.
pub const MAX_MEMBERS: u64 = 1_000_000;

/// Most bytes in all names, link targets and extended attributes together.
pub const MAX_NAMES: u64 = 128 << 20;

/// Longest extended header of one member, in bytes: a name has 4 KiB at most, and an
/// extended attribute 64 KiB.
pub const MAX_EXTENSION: u64 = 1 << 20;

/// Most bytes that one layer decompresses to.
pub const MAX_LAYER: u64 = 64 << 30;

/// Decompressed bytes from which on the ratio counts.
pub const RATIO_FROM: u64 = 1 << 30;

/// Largest ratio of decompressed to compressed bytes beyond [`RATIO_FROM`]. Programs and
/// texts have 2 to 10; gzip reaches 1,000 with zeros only, which no image has a GiB of.
pub const MAX_RATIO: u64 = 200;

/// Largest window of a zstd stream, as a power of two: 128 MiB, what `zstd --ultra -22`
/// makes and container tools take.
pub const ZSTD_WINDOW_LOG: u32 = 27;

/// Most members of an archive that holds blobs.
pub const MAX_BLOBS: usize = 100_000;
