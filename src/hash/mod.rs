//! What is hashed, and how: digests, names, store paths and the canonical encodings.
//!
//! In: bytes and typed values. Out: digests, and the exact bytes that were hashed.
//! Every hashed format of kiln lives in this folder and nowhere else; each is
//! specified byte for byte in the book's chapter "Formats" and held by test vectors.
//!
//! This stage is pure: it opens no file, reads no clock and no environment.
//!
//! | file | format |
//! |---|---|
//! | [`copy`] | SHA-256 of bytes while they are copied |
//! | [`digest`] | digest newtypes, hexadecimal and base 32 |
//! | [`name`] | names of objects, packages and outputs |
//! | [`path`] | `/kiln/store/<digest>-<name>`, and relative paths |
//! | [`directory`] | a tree as canonical Remote Execution `Directory` messages |
//! | [`json`] | canonical JSON (RFC 8785) |
//! | [`object`] | the digest in a store path, self references included |

pub mod copy;
pub mod digest;
pub mod directory;
pub mod json;
pub mod name;
pub mod object;
pub mod path;

pub use digest::{
    ActionDigest, BlobDigest, Checksums, DigestError, ObjectDigest, Sha256Digest, TreeDigest,
};
pub use name::{NameError, ObjectName, OutputName, PackageName};
pub use path::{PathError, RelPath, STORE_PREFIX, StorePath};
