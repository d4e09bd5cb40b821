//! Limits on a run as a whole, by a control group (cgroup v2) of its own.
//!
//! The parent makes the group near its own, and removes it when the run is dead. The
//! monitor joins it before it does anything else, so all that a run starts is born in it.
//! Where a user may make groups, and with which controllers, is found by making one and
//! letting a process join it. See the kernel's `Documentation/admin-guide/cgroup-v2.rst`.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::launch::Launcher;
use crate::request::Together;
use crate::trial::{self, Trial};

/// What groups of kiln begin with; what was left by one that was killed is found by it.
const PREFIX: &str = "kiln-";

/// The file that a process joins a group by.
const MEMBERS: &str = "cgroup.procs";

/// Controllers without which a group limits nothing.
const NEEDED: [&str; 2] = ["memory.max", "pids.max"];

/// One period of the processor's, in microseconds.
const PERIOD: u64 = 100_000;

/// How often, and how long apart, the removal of a group is tried whose last process is
/// just dying.
const TRIES: u32 = 2000;
const PAUSE: Duration = Duration::from_millis(1);

/// What a group limits processor time by, where it can.
const PROCESSORS: &str = "cpu.max";

/// Where groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    directory: PathBuf,
    limits_processors: bool,
}

/// Why no groups can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// No cgroup v2 is mounted.
    NotMounted,
    /// The controllers are not in that hierarchy, but in those of v1, or nowhere.
    NoControllers,
    /// They are there, and not this user's to use.
    NotDelegated,
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotMounted => "no cgroup v2 is mounted",
            Self::NoControllers => "cgroup v2 has no controllers for memory and processes here",
            Self::NotDelegated => "no control group with memory and processes is delegated",
        })
    }
}

impl NoPlace {
    /// Returns what to change.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::NotMounted => "mount `cgroup2` on `/sys/fs/cgroup`",
            Self::NoControllers => {
                "boot with `cgroup_no_v1=all`, or `systemd.unified_cgroup_hierarchy=1`"
            }
            Self::NotDelegated => {
                "run kiln in a systemd user session: \
                 `systemd-run --user --scope -p Delegate=yes kiln …`"
            }
        }
    }
}

impl Place {
    /// Finds the nearest place where groups can be made, made use of and removed.
    pub(crate) fn find(launcher: &Launcher) -> Result<Self, NoPlace> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let mounts = read("/proc/self/mountinfo");
        let (mount, root) = mounted(&mounts).ok_or(NoPlace::NotMounted)?;
        let own = read("/proc/self/cgroup");
        let own = own_group(&own, root).ok_or(NoPlace::NotMounted)?;
        let mount = Path::new(mount);
        let controllers =
            std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        if !["memory", "pids"]
            .iter()
            .all(|name| controllers.split_whitespace().any(|one| one == *name))
        {
            return Err(NoPlace::NoControllers);
        }
        let own = mount.join(own);
        // Beside the caller's group is where processes may be: a group with processes in it
        // gives its children no controllers, unless it is the root of all.
        let above = own
            .ancestors()
            .skip(1)
            .take_while(|path| path.starts_with(mount));
        above
            .chain([own.as_path()])
            .find_map(|directory| Self::at(directory, launcher))
            .ok_or(NoPlace::NotDelegated)
    }

    /// Returns a directory as a place, if groups can be made and made use of there.
    fn at(directory: &Path, launcher: &Launcher) -> Option<Self> {
        let mut place = Self {
            directory: directory.to_owned(),
            limits_processors: false,
        };
        place.sweep();
        let group = place.make().ok()?;
        let limits = |file: &&str| group.path().join(file).exists();
        if !NEEDED.iter().all(limits) {
            // Neither the root of all groups nor one that was just delegated gives its
            // children controllers on its own account. One with processes in it refuses.
            std::fs::write(directory.join("cgroup.subtree_control"), "+memory +pids").ok()?;
            // Without this one, a group limits what it can.
            drop(std::fs::write(
                directory.join("cgroup.subtree_control"),
                "+cpu",
            ));
        }
        place.limits_processors = limits(&PROCESSORS);
        let joined = trial::perform(launcher, Trial::Join(group.path().to_owned()));
        (NEEDED.iter().all(limits) && joined.is_ok()).then_some(place)
    }

    /// Tells whether groups limit processor time here, too.
    pub(crate) fn limits_processors(&self) -> bool {
        self.limits_processors
    }

    /// Removes empty groups whose maker is dead.
    fn sweep(&self) {
        for entry in std::fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            let maker = name.to_str().and_then(|name| {
                let (maker, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
                maker.parse::<u32>().ok()
            });
            if maker.is_some_and(|maker| !Path::new(&format!("/proc/{maker}")).exists()) {
                // One with processes in it is another machine's, or another container's.
                drop(std::fs::remove_dir(entry.path()));
            }
        }
    }

    /// Makes an empty group without limits.
    pub(crate) fn make(&self) -> io::Result<Group> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = self
                .directory
                .join(format!("{PREFIX}{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Group(path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A group; it is removed when dropped, if no process is in it.
#[derive(Debug)]
pub(crate) struct Group(PathBuf);

/// What a group's limits did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Events {
    /// A process was killed since all together wanted more memory than they may have.
    pub out_of_memory: bool,
    /// A process could not be started since there were as many as there may be.
    pub process_limit: bool,
}

impl Group {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Sets limits.
    pub(crate) fn limit(&self, limits: &Together) -> io::Result<()> {
        let write = |file: &str, value: String| std::fs::write(self.0.join(file), value);
        if let Some(bytes) = limits.memory_bytes {
            write("memory.max", bytes.to_string())?;
            // What is swapped out is memory too. A kernel without swap has no such file.
            if self.0.join("memory.swap.max").exists() {
                write("memory.swap.max", "0".to_owned())?;
            }
        }
        if let Some(processes) = limits.processes {
            write("pids.max", processes.to_string())?;
        }
        if let Some(processors) = limits.processors
            && self.0.join(PROCESSORS).exists()
        {
            write(
                PROCESSORS,
                format!("{} {PERIOD}", u64::from(processors) * PERIOD),
            )?;
        }
        Ok(())
    }

    /// Returns what the limits did so far.
    pub(crate) fn events(&self) -> Events {
        let count = |file: &str, name: &str| {
            let text = std::fs::read_to_string(self.0.join(file)).unwrap_or_default();
            event(&text, name) > 0
        };
        Events {
            out_of_memory: count("memory.events", "oom_kill"),
            process_limit: count("pids.events", "max"),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..TRIES {
            match std::fs::remove_dir(&self.0) {
                // The monitor has said its last word and is not quite gone.
                Err(error) if error.kind() == ErrorKind::ResourceBusy => std::thread::sleep(PAUSE),
                // What is left then, the next run sweeps away.
                _ => return,
            }
        }
    }
}

/// Lets the calling process join a group.
pub(crate) fn join(group: &Path) -> io::Result<()> {
    std::fs::write(group.join(MEMBERS), "0")
}

/// Returns where cgroup v2 is mounted, and which of its groups is at that place.
fn mounted(mountinfo: &str) -> Option<(&str, &str)> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        filesystem.starts_with("cgroup2 ").then_some((point, root))
    })
}

/// Returns the caller's group, relative to the group that is mounted.
fn own_group<'a>(cgroup: &'a str, root: &str) -> Option<&'a str> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let below = own.strip_prefix(root.trim_end_matches('/'))?;
    Some(below.trim_start_matches('/'))
}

/// Returns a count of a file of names and counts.
fn event(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_groups_are_is_read_from_what_the_kernel_says() {
        let mountinfo = "30 20 0:5 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                         31 30 0:6 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                         32 30 0:7 /box /sys/fs/cgroup/unified rw shared:3 - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(mountinfo), Some(("/sys/fs/cgroup/unified", "/box")));
        assert_eq!(mounted("31 30 0:6 / /x rw - cgroup cgroup rw\n"), None);
        let cgroup = "4:memory:/other\n0::/box/user.slice/a.scope\n";
        assert_eq!(own_group(cgroup, "/box"), Some("user.slice/a.scope"));
        assert_eq!(own_group(cgroup, "/"), Some("box/user.slice/a.scope"));
        assert_eq!(own_group("0::/\n", "/"), Some(""));
        assert_eq!(own_group(cgroup, "/elsewhere"), None);
        assert_eq!(own_group("4:memory:/other\n", "/"), None);
    }

    #[test]
    fn counts_are_found_by_their_whole_name() {
        let text = "low 0\nhigh 1\nmax 22\noom 3\noom_kill 4\noom_group_kill 5\n";
        assert_eq!((event(text, "oom"), event(text, "oom_kill")), (3, 4));
        assert_eq!(event(text, "oom_group"), 0);
    }
}
