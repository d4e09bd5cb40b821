//! One type for each kind of digest, so that no two kinds can be mixed up.
//!
//! All digests are 32 bytes. Hexadecimal (64 lower-case characters) is their form in
//! hashed documents and on the command line; base 32 (RFC 4648, lower case, no padding,
//! 52 characters) is the form of an object digest in a store path.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, Encoding, HEXLOWER};

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not 64 lower-case hexadecimal characters.
    #[error("`{0}` is not a digest of 64 lower-case hexadecimal characters")]
    Hex(String),
    /// Not 52 characters of lower-case base 32 with a zero remainder.
    #[error("`{0}` is not a digest of 52 characters of lower-case base 32")]
    Base32(String),
}

/// Length of a digest in hexadecimal.
const HEX_LEN: usize = 64;

fn parse_hex(text: &str) -> Result<[u8; 32], DigestError> {
    let mut bytes = [0; 32];
    // Into place: there are thousands in the listing of one tree.
    if text.len() == HEX_LEN && HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).is_ok() {
        return Ok(bytes);
    }
    Err(DigestError::Hex(text.chars().take(80).collect()))
}

macro_rules! digest_kind {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes 32 bytes that are known to be this kind of digest.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Returns the 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(HEXLOWER.encode_mut_str(&self.0, &mut [0; HEX_LEN]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), HEXLOWER.encode(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

digest_kind! {
    /// BLAKE3 of a file's bytes.
    BlobDigest
}
digest_kind! {
    /// BLAKE3 of the canonical `Directory` message at the root of a tree ([`super::directory`]).
    TreeDigest
}
digest_kind! {
    /// What names a store object: its tree digest, or, where the object contains its own
    /// path, the digest of [`super::object::SelfReferences`].
    ObjectDigest
}
digest_kind! {
    /// BLAKE3 of an action's canonical JSON.
    ActionDigest
}
digest_kind! {
    /// SHA-256, as upstream projects publish it and as OCI names blobs.
    Sha256Digest
}

/// The hashes of a file that other formats than kiln's demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checksums {
    /// SHA-1, without which SPDX 2.3 takes no file. Nothing here trusts it.
    pub sha1: [u8; 20],
    /// SHA-256.
    pub sha256: Sha256Digest,
}

impl BlobDigest {
    /// Hashes a byte string that is already in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl Sha256Digest {
    /// Hashes a byte string that is already in memory.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

/// RFC 4648 base 32 in lower case without padding.
static BASE32_LOWER: std::sync::LazyLock<Encoding> = std::sync::LazyLock::new(|| {
    let mut specification = BASE32_NOPAD.specification();
    specification.symbols = specification.symbols.to_ascii_lowercase();
    specification
        .encoding()
        .expect("lower case keeps the 32 symbols distinct")
});

/// Characters of an object digest in base 32: 256 bits in groups of five, rounded up.
pub const BASE32_LEN: usize = 52;

impl ObjectDigest {
    /// Returns the 52 characters that stand in a store path.
    pub fn to_base32(self) -> String {
        BASE32_LOWER.encode(&self.0)
    }

    /// Parses the 52 characters that stand in a store path.
    ///
    /// # Errors
    /// [`DigestError::Base32`] for another length, another alphabet, or trailing bits that
    /// are not zero (each digest has exactly one text).
    pub fn from_base32(text: &str) -> Result<Self, DigestError> {
        BASE32_LOWER
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| DigestError::Base32(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_of_known_bytes() {
        let zero = ObjectDigest::from_bytes([0; 32]);
        assert_eq!(zero.to_base32(), "a".repeat(52));
        let ones = ObjectDigest::from_bytes([0xff; 32]);
        assert_eq!(ones.to_base32(), format!("{}q", "7".repeat(51)));
        assert_eq!(ObjectDigest::from_base32(&ones.to_base32()), Ok(ones));
    }

    #[test]
    fn every_digest_has_one_text() {
        // The last character carries one bit; the other four must be zero.
        assert!(ObjectDigest::from_base32(&format!("{}b", "a".repeat(51))).is_err());
        assert!(ObjectDigest::from_base32(&"A".repeat(52)).is_err());
        assert!(ObjectDigest::from_base32(&"a".repeat(51)).is_err());
        assert!("0".repeat(63).parse::<BlobDigest>().is_err());
        assert!("A".repeat(64).parse::<BlobDigest>().is_err());
    }

    #[test]
    fn digests_of_the_empty_string() {
        assert_eq!(
            BlobDigest::of(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        assert_eq!(
            Sha256Digest::of(b"").to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
