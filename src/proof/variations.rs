//! What a rebuild sees differently from the first build. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use kiln_sandbox::{Clocks, DirectoryOrder, Stdin, Supervision};

use crate::build::Conditions;

/// How far ahead a rebuild's wall clock is: into another year, month, day, hour and minute.
const CLOCK_AHEAD: Duration = Duration::from_secs(34_567_890);

/// How long the machine has been up, in a rebuild, when that starts: seconds.
const UPTIME: u32 = 1_234_567;

/// One thing that a rebuild can see differently. The order is that of the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variation {
    /// Where things lie in a process's memory.
    Aslr,
    /// How many jobs it may use.
    Cores,
    /// The order in which directories are listed.
    DirectoryOrder,
    /// The NIS domain.
    DomainName,
    /// The host.
    HostName,
    /// Of the build's processes.
    ProcessNumbers,
    /// What outputs are called while they are built.
    ScratchPath,
    /// What standard input is.
    StandardInput,
    /// The file mode creation mask.
    Umask,
    /// How long the machine has been up.
    Uptime,
    /// Who builds.
    UserAndGroup,
    /// Date and time.
    WallClock,
}

/// Different in every rebuild, whatever is varied: it comes later.
const TIME: &str = "time";

impl Variation {
    /// Every variation, sorted.
    pub const ALL: [Self; 12] = [
        Self::Aslr,
        Self::Cores,
        Self::DirectoryOrder,
        Self::DomainName,
        Self::HostName,
        Self::ProcessNumbers,
        Self::ScratchPath,
        Self::StandardInput,
        Self::Umask,
        Self::Uptime,
        Self::UserAndGroup,
        Self::WallClock,
    ];

    /// Returns the name that is recorded and printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aslr => "aslr",
            Self::Cores => "cores",
            Self::DirectoryOrder => "directory-order",
            Self::DomainName => "domain-name",
            Self::HostName => "host-name",
            Self::ProcessNumbers => "process-numbers",
            Self::ScratchPath => "scratch-path",
            Self::StandardInput => "standard-input",
            Self::Umask => "umask",
            Self::Uptime => "uptime",
            Self::UserAndGroup => "user-and-group",
            Self::WallClock => "wall-clock",
        }
    }

    /// Returns whether a supervisor makes it.
    pub(super) fn is_supervised(self) -> bool {
        matches!(self, Self::DirectoryOrder | Self::WallClock)
    }

    fn apply(self, cores: usize, conditions: &mut Conditions) {
        let sandbox = &mut conditions.sandbox;
        let supervision = || Supervision::default();
        match self {
            Self::Aslr => sandbox.aslr = true,
            // One job where the first build had several, and the other way round.
            Self::Cores => conditions.cores = if cores > 1 { 1 } else { 2 },
            Self::DirectoryOrder => {
                sandbox
                    .supervision
                    .get_or_insert_with(supervision)
                    .directory_order = Some(DirectoryOrder::Reversed);
            }
            Self::DomainName => "rebuild.example".clone_into(&mut sandbox.domain_name),
            Self::HostName => "rebuilder".clone_into(&mut sandbox.host_name),
            Self::ProcessNumbers => sandbox.first_pid = Some(2345),
            Self::ScratchPath => "rebuild-1".clone_into(&mut conditions.salt),
            Self::StandardInput => sandbox.stdin = Stdin::EmptyPipe,
            Self::Umask => sandbox.umask = 0o027,
            Self::Uptime => {
                sandbox.clocks = Clocks {
                    monotonic_seconds: UPTIME,
                    boot_seconds: UPTIME,
                };
            }
            Self::UserAndGroup => (sandbox.uid, sandbox.gid) = (4321, 1234),
            Self::WallClock => {
                sandbox
                    .supervision
                    .get_or_insert_with(supervision)
                    .clock_ahead = Some(CLOCK_AHEAD);
            }
        }
    }
}

impl fmt::Display for Variation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns the names of variations, sorted, as they are recorded.
pub(super) fn names(varied: &BTreeSet<Variation>) -> String {
    let mut names: Vec<&str> = varied.iter().map(|variation| variation.name()).collect();
    names.push(TIME);
    names.sort_unstable();
    names.join(",")
}

/// Returns the conditions of a rebuild, given how many jobs an ordinary build may use.
///
/// The kernel release and the memory stay: the C library of the seed refuses to run on an
/// old kernel, and less memory than a build needs is no variation.
pub(super) fn conditions(cores: usize, varied: &BTreeSet<Variation>) -> Conditions {
    let mut conditions = Conditions::ordinary(cores);
    conditions.keep_failed = false;
    for variation in varied {
        variation.apply(cores, &mut conditions);
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variation_alone_changes_something_and_all_have_names_in_order() {
        let unvaried = conditions(2, &BTreeSet::new());
        let mut seen = vec![unvaried];
        for variation in Variation::ALL {
            let alone = conditions(2, &BTreeSet::from([variation]));
            assert!(!seen.contains(&alone), "{variation}");
            seen.push(alone);
        }
        assert!(Variation::ALL.is_sorted());
        assert!(Variation::ALL.is_sorted_by_key(|variation| variation.name()));
        assert_eq!(
            names(&BTreeSet::from([Variation::Umask, Variation::Aslr])),
            "aslr,time,umask"
        );
        // One job is not varied to one.
        let single = conditions(1, &BTreeSet::from([Variation::Cores]));
        assert_eq!(single.cores, 2);
    }
}
