//! Tries to escape from the sandbox: one test for each act that must be refused, and for
//! each a twin that shows that the act works outside, so that the test can fail.
//!
//! The acts are those of the program in `probe/`, which is compiled once. The mechanisms
//! are those of published escapes from builders and container runtimes, and what a build
//! could learn of the machine that runs it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod attempt;
mod daemons;
mod descriptors;
mod files;
mod kernel;
#[path = "../common/lent.rs"]
mod lent;
mod limits;
mod modes;
mod mounts;
mod processes;
mod programs;
mod runs;
mod runtime;
mod sockets;
mod tells;
mod user;
