//! Bills of materials: what is in an image, and what it was built from.
//!
//! In: what stands at each path of an image or package, the definitions and steps that gave
//! it, and the linkers' records. Out: one [`Bill`], and the documents that say it in the
//! words of SPDX 2.3, SPDX 3.0.1 and `CycloneDX` 1.6. Nothing is guessed from files: all
//! comes from the graph that built them. Pure, and the same inputs give the same bytes:
//! no document has a clock's time or a random number.
//!
//! | file | what it does |
//! |---|---|
//! | [`model`] | the one document that every format is written from |
//! | [`gather`] | from the graph to the document |
//! | `fill` | what definitions, lock files and crates say of components |
//! | [`license`] | licence expressions as SPDX has them today |
//! | [`identity`] | package URLs, and document numbers that follow from the content |
//! | [`spdx2`], [`spdx3`], [`cyclonedx`] | the formats |

pub mod cyclonedx;
mod fill;
pub mod gather;
pub mod identity;
pub mod license;
pub mod model;
pub mod spdx2;
pub mod spdx3;

pub use gather::{Contained, Inputs, LinkedFile, Subject, describe};
pub use model::Bill;

use crate::hash::json::JsonError;

/// When every document says it was made: a fixed time, the same as in an image's
/// configuration.
pub const CREATED: &str = "1970-01-01T00:00:01Z";

/// A format of bills of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// SPDX 2.3 as JSON.
    Spdx2,
    /// SPDX 3.0.1 as JSON-LD.
    Spdx3,
    /// `CycloneDX` 1.6 as JSON.
    CycloneDx,
}

impl Format {
    /// Every format, in the order in which they are listed to users.
    pub const ALL: [Self; 3] = [Self::Spdx2, Self::Spdx3, Self::CycloneDx];

    /// Returns its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spdx2 => "spdx-2.3",
            Self::Spdx3 => "spdx-3.0",
            Self::CycloneDx => "cyclonedx-1.6",
        }
    }

    /// Returns the media type of its documents.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Spdx2 | Self::Spdx3 => "application/spdx+json",
            Self::CycloneDx => "application/vnd.cyclonedx+json",
        }
    }

    /// Writes a document as canonical JSON.
    ///
    /// # Errors
    /// [`JsonError`] when a number has no canonical form; no bill has such a one.
    pub fn write(self, bill: &Bill) -> Result<Vec<u8>, JsonError> {
        let document = match self {
            Self::Spdx2 => spdx2::document(bill)?,
            Self::Spdx3 => spdx3::document(bill)?,
            Self::CycloneDx => cyclonedx::document(bill)?,
        };
        crate::hash::json::canonical(&document)
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::as_str).join("`, `");
                format!("write one of `{known}`")
            })
    }
}

#[cfg(test)]
mod tests;
