//! Image registries, as the OCI distribution specification 1.1 has them.
//!
//! | file | what it does |
//! |---|---|
//! | [`reference`](mod@reference) | PURE: `HOST/NAME:TAG` |
//! | `credentials` | logins from the files and helpers of Docker and Podman |
//! | `challenge` | PURE: what a registry asks for when it does not let one in |
//! | [`client`] | requests, each let in |
//! | `pull` | manifests and blobs, as they come |
//! | [`push`] | blobs in chunks that go on where they broke off, then the manifest |
//!
//! A registry on this machine's loopback is spoken to in plain HTTP, any other only in
//! HTTPS. Nothing that a registry answers is trusted: digests are compared here, and
//! answers that are read are bounded.

pub mod client;
pub mod push;
pub mod reference;

mod challenge;
mod credentials;
mod pull;

use std::path::PathBuf;

pub use client::Registry;
pub use credentials::{CredentialFiles, Credentials};
pub use reference::Reference;

/// A registry that does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It cannot be reached.
    #[error("cannot reach the registry `{host}`")]
    Unreachable {
        /// The registry.
        host: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// Its certificate is not one of an authority that is trusted.
    #[error("the certificate of the registry `{host}` is not trusted")]
    Untrusted {
        /// The registry.
        host: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// It does not let anyone do this, or not with this login.
    #[error("the registry `{host}` does not allow to {operation}")]
    Denied {
        /// The registry.
        host: String,
        /// What was tried, as a verb.
        operation: String,
        /// Whether a login was found and given.
        with_login: bool,
        /// What it said.
        said: String,
    },
    /// It answers what it should not.
    #[error("the registry `{host}` cannot {operation}: status {status}{}{said}", if .said.is_empty() { "" } else { ", " })]
    Status {
        /// The registry.
        host: String,
        /// What was tried, as a verb.
        operation: String,
        /// The status of its answer.
        status: u16,
        /// What it said, shortened.
        said: String,
    },
    /// It answers against the specification.
    #[error("the registry `{host}` {problem}")]
    Answer {
        /// The registry.
        host: String,
        /// What is wrong, as words after its name.
        problem: String,
    },
    /// A file with logins that cannot be used.
    #[error("cannot use the logins in `{}`", path.display())]
    Logins {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A program that keeps logins failed.
    #[error("`{program}` gives no login for `{host}`")]
    Helper {
        /// The program.
        program: String,
        /// The registry.
        host: String,
        /// What it said.
        problem: String,
    },
}
