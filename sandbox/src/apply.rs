//! Performs the plan: one loop, no decisions.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::libc;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};

use crate::plan::Step;
use crate::request::Access;
use crate::sys;

/// What the loop holds between steps.
#[derive(Default)]
struct World {
    captured: VecDeque<OwnedFd>,
    root: Option<OwnedFd>,
}

/// A step that the system refused.
#[derive(Debug)]
pub(crate) struct StepFailure {
    pub step: String,
    pub source: io::Error,
}

/// Performs steps in order, and stops at the first that fails.
pub(crate) fn apply(steps: &[Step]) -> Result<(), StepFailure> {
    let mut world = World::default();
    for step in steps {
        world.perform(step).map_err(|source| StepFailure {
            step: step.to_string(),
            source,
        })?;
    }
    Ok(())
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

impl World {
    fn root(&self) -> io::Result<&OwnedFd> {
        self.root
            .as_ref()
            .ok_or_else(|| broken("the new root is not mounted yet"))
    }

    fn perform(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::MakeMountsPrivate => Ok(rustix::mount::mount_change(
                "/",
                rustix::mount::MountPropagationFlags::PRIVATE
                    | rustix::mount::MountPropagationFlags::REC,
            )?),
            Step::Capture { source, access } => {
                self.captured.push_back(capture(source, *access)?);
                Ok(())
            }
            Step::MountRoot => {
                let root = new_mount("tmpfs", &[("mode", "0755"), ("size", "64m")])?;
                move_mount(&root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
                rustix::process::fchdir(&root)?;
                self.root = Some(root);
                Ok(())
            }
            Step::Directory { path } => make_directories(self.root()?, path),
            Step::Symlink { path, target } => {
                make_parents(self.root()?, path)?;
                Ok(symlinkat(target.as_str(), self.root()?, path.as_str())?)
            }
            Step::File {
                path,
                content,
                executable,
            } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                write_file(self.root()?, path, content, mode)
            }
            Step::Attach { path, directory } => {
                let mount = self
                    .captured
                    .pop_front()
                    .ok_or_else(|| broken("nothing captured"))?;
                if *directory {
                    make_directories(self.root()?, path)?;
                } else {
                    write_file(self.root()?, path, b"", 0o644)?;
                }
                attach(&mount, self.root()?, path)
            }
            Step::MountTmpfs { path, mode } => {
                let mount = new_mount("tmpfs", &[("mode", mode)])?;
                make_directories(self.root()?, path)?;
                attach(&mount, self.root()?, path)
            }
            Step::MountProc => {
                let mount = new_mount("proc", &[])?;
                sys::mount_setattr(&mount, libc::MOUNT_ATTR_RDONLY, false)?;
                make_directories(self.root()?, "proc")?;
                attach(&mount, self.root()?, "proc")
            }
            Step::PivotRoot => {
                // The old root ends up on top of the new one, and is then let go of.
                rustix::process::pivot_root(".", ".")?;
                unmount(".", UnmountFlags::DETACH)?;
                Ok(rustix::process::chdir("/")?)
            }
            Step::SealRoot => {
                let attributes =
                    libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
                sys::mount_setattr(self.root()?, attributes, false)
            }
            Step::LoopbackUp => sys::loopback_up(sys::control_socket()?.as_fd()),
            Step::HostName(name) => {
                nix::unistd::sethostname(name)?;
                sys::set_domain_name("(none)")
            }
            Step::DropCapabilities => drop_capabilities(),
            Step::NoNewPrivileges => Ok(nix::sys::prctl::set_no_new_privs()?),
            Step::Undumpable => Ok(nix::sys::prctl::set_dumpable(false)?),
        }
    }
}

/// Returns a mount of a host path that is attached nowhere, with its attributes set.
fn capture(source: &std::path::Path, access: Access) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let mount = open_tree(CWD, source, flags)
        .map_err(|errno| io::Error::new(io::Error::from(errno).kind(), io::Error::from(errno)))?;
    let mut attributes = libc::MOUNT_ATTR_NOSUID;
    // Devices are files of the host's `/dev`; anything else must not be one.
    if !source.starts_with("/dev") {
        attributes |= libc::MOUNT_ATTR_NODEV;
    }
    if access == Access::ReadOnly {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    sys::mount_setattr(&mount, attributes, true)?;
    Ok(mount)
}

fn new_mount(kind: &str, options: &[(&str, &str)]) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

fn attach(mount: &OwnedFd, root: &OwnedFd, path: &str) -> io::Result<()> {
    Ok(move_mount(
        mount,
        "",
        root,
        path,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?)
}

/// Creates a directory below the new root. Nobody else is in it yet, and every path was
/// checked to be plain.
fn make_directories(root: &OwnedFd, path: &str) -> io::Result<()> {
    for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
        match mkdirat(
            root,
            path.get(..end).unwrap_or(path),
            Mode::from_raw_mode(0o755),
        ) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn make_parents(root: &OwnedFd, path: &str) -> io::Result<()> {
    match path.rsplit_once('/') {
        Some((parent, _)) => make_directories(root, parent),
        None => Ok(()),
    }
}

fn write_file(root: &OwnedFd, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
    make_parents(root, path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(root, path, flags, Mode::from_raw_mode(mode))?;
    File::from(file).write_all(content)
}

fn drop_capabilities() -> io::Result<()> {
    use rustix::thread::{
        CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
    };
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // A capability that this kernel does not know cannot be gained either.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let locked = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(locked)?;
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    Ok(())
}
