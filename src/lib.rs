//! kiln builds software from source in sealed sandboxes, keeps every result in a
//! content-addressed store, and projects closures of that store into OCI images.
//!
//! ```text
//! derivation file -> derivation -> action -> sandboxed build -> store object -> closure -> image -> proof
//! ```
//!
//! Each arrow is a module below, each noun a type, and data flows left to right: a module
//! imports only modules above it in this list, and a pure one only pure ones (a test holds
//! this).

pub mod hash;
pub mod listing;
pub mod tree;
pub mod derivation;
pub mod action;
pub mod fetch;
pub mod closure;
pub mod store;
pub mod gc;
pub mod plan;
pub mod build;
pub mod realise;
pub mod projection;
pub mod image;
pub mod inspect;
pub mod join;
pub mod policy;
pub mod sbom;
pub mod runtime;
pub mod proof;
pub mod cli;
