//! A sealed Linux sandbox: a request goes in, an outcome comes out.
//!
//! The crate knows nothing of stores, derivations or images. A [`SandboxRequest`] says
//! what the root directory holds, which program runs, and what it may use;
//! [`Launcher::run`] runs it in namespaces of its own and returns an [`Outcome`] when
//! every process that it started is dead. It needs no privileges, and root gives it none.
//!
//! ```text
//! parent (any program, any threads)
//!   └─ monitor: the same executable, started again, single-threaded; enters the namespaces
//!        └─ init: PID 1 in them; performs the plan, drops every privilege, reaps
//!             └─ builder: PID 2; limits, seccomp, execve
//! ```
//!
//! | file | what it does |
//! |---|---|
//! | [`request`] | what can be asked for, and what is refused before anything is created |
//! | [`plan`] | PURE: a request becomes a list of steps that can be printed and reviewed |
//! | `apply` | performs the steps |
//! | `sys` | the system calls that no library wraps: here and in its like below `supervise` is the only `unsafe` code |
//! | `seccomp` | which system calls a builder may make |
//! | [`supervise`] | answers in the kernel's place, where a request varies what it says |
//! | `child` | monitor, init and builder |
//! | [`launch`] | the parent: starts, reads the log, enforces limits, waits until all is dead |
//! | [`features`] | tries what the host allows |

mod apply;
mod child;
pub mod features;
pub mod launch;
pub mod outcome;
pub mod plan;
pub mod request;
mod seccomp;
pub mod supervise;
mod sys;
mod wire;

pub use child::enter_if_asked;
pub use features::{Feature, FeatureState, features};
pub use launch::{Cancel, Launcher, SandboxError};
pub use outcome::{End, Outcome, Usage};
pub use request::{Access, Limits, Node, RequestError, SandboxRequest};
pub use supervise::{DirectoryOrder, KernelName, Supervision};
