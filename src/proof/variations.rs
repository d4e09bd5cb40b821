//! What a rebuild sees differently from the first build. Pure.

use std::time::Duration;

use kiln_sandbox::{Clocks, DirectoryOrder, Stdin, Supervision, Weakness};

use crate::build::Conditions;
use crate::store::Lacking;

/// How far ahead a rebuild's wall clock is: into another year, month, day, hour and minute.
const CLOCK_AHEAD: Duration = Duration::from_secs(34_567_890);

/// How long the machine has been up, in a rebuild, when that starts: seconds.
const UPTIME: u32 = 1_234_567;

/// Variations that the kernel itself makes.
const ALWAYS: [&str; 11] = [
    "aslr",
    "cores",
    "domain-name",
    "host-name",
    "process-numbers",
    "scratch-path",
    "standard-input",
    "time",
    "umask",
    "uptime",
    "user-and-group",
];

/// Variations that need a supervisor.
const SUPERVISED: [&str; 2] = ["directory-order", "wall-clock"];

/// Returns the names of the variations, sorted, as they are recorded; what the rebuild's
/// sandbox lacked it could not vary.
pub(super) fn names(supervised: bool, lacking: &Lacking) -> String {
    let mut names = ALWAYS.to_vec();
    if lacking.names().any(|name| name == Weakness::TimeNamespace.name()) {
        names.retain(|name| *name != "uptime");
    }
    if supervised {
        names.extend(SUPERVISED);
    }
    names.sort_unstable();
    names.join(",")
}

/// Returns the conditions of a rebuild, given how many jobs an ordinary build may use.
///
/// The kernel release and the memory stay: the C library of the seed refuses to run on an
/// old kernel, and less memory than a build needs is no variation.
pub(super) fn conditions(cores: usize, supervised: bool) -> Conditions {
    // One job where the first build had several, and the other way round.
    let mut conditions = Conditions::ordinary(if cores > 1 { 1 } else { 2 });
    "rebuild-1".clone_into(&mut conditions.salt);
    let sandbox = &mut conditions.sandbox;
    "rebuilder".clone_into(&mut sandbox.host_name);
    "rebuild.example".clone_into(&mut sandbox.domain_name);
    (sandbox.uid, sandbox.gid) = (4321, 1234);
    sandbox.umask = 0o027;
    sandbox.aslr = true;
    sandbox.first_pid = Some(2345);
    sandbox.clocks = Clocks {
        monotonic_seconds: UPTIME,
        boot_seconds: UPTIME,
    };
    sandbox.stdin = Stdin::EmptyPipe;
    sandbox.supervision = supervised.then(|| Supervision {
        clock_ahead: Some(CLOCK_AHEAD),
        directory_order: Some(DirectoryOrder::Reversed),
        ..Supervision::default()
    });
    conditions
}
