//! One file a command, and [`changes`] and [`verdict`], which several print.

pub(super) mod build;
mod changes;
pub(super) mod closure;
pub(super) mod completions;
pub(super) mod diff;
pub(super) mod doctor;
pub(super) mod graph;
pub(super) mod image;
pub(super) mod index;
pub(super) mod inspect;
pub(super) mod log;
pub(super) mod prove;
pub(super) mod run;
pub(super) mod runtime;
pub(super) mod sbom;
pub(super) mod shell;
pub(super) mod show;
pub(super) mod store;
mod verdict;
pub(super) mod why;
