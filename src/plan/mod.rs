//! From definitions to steps: which packages are needed, in which order.
//!
//! In: names of packages, and a library that reads derivation files. Out: a [`Graph`] of
//! steps, or diagnostics that point into the files: unknown packages with the nearest
//! name, cycles as a path. This stage is pure: the library does the reading.

mod graph;
mod load;
mod lower;

pub use graph::{BuildStep, Graph, Step, StepId, StepKind, TestStep};
pub use load::{Library, LoadError, Loaded, Locks, load};
pub use lower::{crate_at, lower};
