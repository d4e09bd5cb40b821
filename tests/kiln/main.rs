//! The tests that run `kiln` as users do: real sandboxes, a real database, a real server
//! on the loopback interface. One binary, so that it is linked once.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod bad_input;
mod bad_store;
mod build;
mod collection;
mod concurrent;
mod crash;
mod crates;
mod evaluation;
mod gc;
mod golden;
mod ids;
mod image;
mod index;
mod inspect;
mod layers;
mod messages;
mod questions;
mod reboot;
mod reproduce;
mod sbom;
mod shell;
mod store;
mod verify;
mod weak;
mod world;
