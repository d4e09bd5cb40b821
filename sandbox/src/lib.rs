//! A sealed Linux sandbox: a request goes in, an outcome comes out.
//!
//! The crate knows nothing of stores, derivations or images. A [`SandboxRequest`] says
//! what the root directory holds, which program runs, and what it may use;
//! [`Launcher::run`] runs it in namespaces of its own and returns an [`Outcome`] when
//! every process that it started is dead. It needs no privileges, and root gives it none.
//!
//! ```text
//! parent (any program, any threads)
//!   └─ server: the same executable, started again, single-threaded; one for all runs
//!        └─ monitor: enters the namespaces; holds the life line
//!             ├─ supervisor, if asked for: answers calls in the kernel's place
//!             └─ init: PID 1 in them; builds the tree, drops every privilege, reaps
//!                  └─ builder: limits, Landlock, seccomp, tries every lock, execve
//! ```
//!
//! | file | what it does |
//! |---|---|
//! | [`request`] | what can be asked for |
//! | [`validate`] | what is refused before anything is created |
//! | [`step`] | PURE: one thing that is done before the program runs, as data |
//! | [`plan`], `machine` | PURE: a request becomes a list of steps that can be printed |
//! | `apply` | performs the steps: one loop |
//! | `mounts`, `copy` | the file tree |
//! | [`range`], `ids` | a range of users and groups, where a request asks for one |
//! | `namespaces` | what a run enters, and what of it is made before there is a run |
//! | `identity` | users, clocks, capabilities, limits |
//! | `landlock`, `seccomp`, `table` | what may be written, and which system calls may be made |
//! | [`lock`] | tries from inside that everything is closed |
//! | [`supervise`] | answers in the kernel's place, where a request varies what it says |
//! | `sys` | the system calls that no library wraps: here and in `supervise` is the only `unsafe` code |
//! | `child` | server, monitor and init, and the supervisor's start and end |
//! | `group` | limits on a run as a whole, where a control group can be made |
//! | [`launch`], `server`, `run`, `terminal` | the parent: starts, reads the log, waits until all is dead |
//! | [`outcome`], [`error`] | how a run ended, or why there was none |
//! | [`features`], `trial` | tries what the host allows |

mod apply;
pub mod cancel;
mod child;
mod copy;
pub mod error;
pub mod features;
mod group;
mod identity;
mod ids;
mod landlock;
pub mod launch;
pub mod lock;
mod machine;
mod mounts;
mod namespaces;
pub mod outcome;
pub mod plan;
pub mod range;
pub mod request;
mod run;
mod seccomp;
mod server;
pub mod step;
pub mod supervise;
mod sys;
mod table;
mod terminal;
mod trial;
pub mod validate;
mod wire;

pub use cancel::Cancel;
pub use child::enter_if_asked;
pub use error::SandboxError;
pub use features::{Feature, FeatureState, Need, features};
pub use launch::{Groups, Keyboard, Launcher, NoGroups, Stream};
pub use lock::Lock;
pub use outcome::{End, Outcome, Usage};
pub use plan::{Caller, Power, steps};
pub use range::{HostIds, NoRange};
pub use request::{
    Access, Clocks, Ids, Limits, Machine, Node, Release, SandboxRequest, Stdin, Terminal, Together,
    Weakness,
};
pub use step::{Entry, IdSpan, Mapper, Resource, Step};
pub use supervise::{DirectoryOrder, KernelName, Supervision};
pub use validate::RequestError;
