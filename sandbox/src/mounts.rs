//! The file tree: captured mounts, the new root, and what covers entries of `/proc`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::libc;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat, statat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::copy;
use crate::plan::{DEVICES, TERMINAL_DEVICE};
use crate::request::Access;
use crate::sys;

/// What is never allowed on a mount, whoever can write to it.
const SAFE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// Names in the directory below `/proc` of what masks a file and a directory.
const EMPTY_FILE: &str = ".file";
const CLOSED_FILE: &str = ".closed";
const EMPTY_DIRECTORY: &str = ".directory";

/// A file or directory of the host, as a mount that is not yet attached.
pub(crate) struct Captured {
    pub mount: OwnedFd,
    pub source: PathBuf,
    pub access: Access,
    /// Whether its files appear with other owners than they have.
    mapped: bool,
}

/// Returns a mount of a host path that is attached nowhere, with its attributes set; its files
/// appear with the owners that a user namespace maps theirs to, if there is one and the file
/// system can do that.
pub(crate) fn capture(
    source: &Path,
    access: Access,
    map: Option<&OwnedFd>,
) -> io::Result<Captured> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let mount = open_tree(CWD, source, flags)?;
    let mut attributes = libc::MOUNT_ATTR_NOSUID;
    // Devices are files of the host's `/dev`; anything else must not be one.
    if !is_device(source) {
        attributes |= libc::MOUNT_ATTR_NODEV;
    }
    if access == Access::ReadOnly {
        attributes |= libc::MOUNT_ATTR_RDONLY;
    }
    let map = map.filter(|_| !is_device(source));
    let mapped = map.is_some() && sys::mount_setattr_below(&mount, attributes, map).is_ok();
    if !mapped {
        sys::mount_setattr_below(&mount, attributes, None)?;
    }
    Ok(Captured {
        mount,
        source: source.to_owned(),
        access,
        mapped,
    })
}

/// Returns whether a path is one of the host's devices that a plan shows to a build; what
/// else is below `/dev` is a directory like any other.
fn is_device(source: &Path) -> bool {
    source.parent() == Some(Path::new("/dev"))
        && source
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| DEVICES.contains(&name) || name == TERMINAL_DEVICE)
}

impl Captured {
    /// Returns whether an id that is nobody's outside can do here what it is granted: read
    /// what everyone may read, or write.
    pub(crate) fn serves(&self) -> bool {
        self.access == Access::ReadOnly || self.mapped || is_device(&self.source)
    }

    /// Attaches the mount below the new root, at a place of its own kind.
    pub(crate) fn attach(&self, root: &OwnedFd, path: &str) -> io::Result<()> {
        let stat = rustix::fs::fstat(&self.mount)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            make_directories(root, path)?;
        } else {
            write_file(root, path, b"", 0o644)?;
        }
        attach(&self.mount, root, path)
    }
}

/// A directory of the host, and its copy in memory, which is attached nowhere yet.
pub(crate) struct Copied {
    host: Captured,
    memory: OwnedFd,
}

impl Copied {
    /// Copies a directory that was captured into memory.
    pub(crate) fn new(host: Captured) -> io::Result<Self> {
        let memory = new_mount("tmpfs", &[("mode", "0755")])?;
        copy::copy(&host.mount, &memory)?;
        Ok(Self { host, memory })
    }

    /// Attaches the copy below the new root.
    pub(crate) fn attach(&self, root: &OwnedFd, path: &str) -> io::Result<()> {
        make_directories(root, path)?;
        attach(&self.memory, root, path)
    }

    /// Replaces what is in the directory of the host by what is in the copy: whoever it
    /// belongs to there, here it is the caller's. No process may be left that writes to it.
    pub(crate) fn copy_back(&self) -> io::Result<()> {
        copy::clear(&self.host.mount)?;
        copy::copy_all(&self.memory, &self.host.mount)
    }

    /// Returns where the directory is on the host.
    pub(crate) fn source(&self) -> &Path {
        &self.host.source
    }
}

/// Opens a file of the host for reading, by way of a mount of its own: what the builder
/// sees of the descriptor does not tell where the file lies.
pub(crate) fn open_input(source: &Path) -> io::Result<OwnedFd> {
    let captured = capture(source, Access::ReadOnly, None)?;
    let path = format!("/proc/self/fd/{}", captured.mount.as_raw_fd());
    Ok(File::open(path)?.into())
}

/// Returns a new file system that is attached nowhere.
pub(crate) fn new_mount(kind: &str, options: &[(&str, &str)]) -> io::Result<OwnedFd> {
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
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(mount, "", root, path, flags)?)
}

/// Mounts an empty file system in memory.
pub(crate) fn mount_tmpfs(
    root: &OwnedFd,
    path: &str,
    mode: u32,
    size_bytes: Option<u64>,
) -> io::Result<()> {
    let mode = format!("{mode:o}");
    let size = size_bytes.map(|bytes| bytes.to_string());
    let mut options = vec![("mode", mode.as_str())];
    options.extend(size.as_deref().map(|size| ("size", size)));
    let mount = new_mount("tmpfs", &options)?;
    make_directories(root, path)?;
    attach(&mount, root, path)
}

/// The directory below `/proc`, which nothing else can reach: what lies over entries of
/// `/proc` comes from there.
pub(crate) struct BelowProc {
    /// The directory, to create files in.
    writable: OwnedFd,
    /// The same, by a mount that grants only reading: mounts of its files are born like it.
    shown: OwnedFd,
}

/// Mounts `/proc`, and returns what is below it.
pub(crate) fn mount_proc(root: &OwnedFd) -> io::Result<BelowProc> {
    let mount = new_mount("proc", &[])?;
    sys::mount_setattr(&mount, libc::MOUNT_ATTR_RDONLY)?;
    make_directories(root, "proc")?;
    let writable = open_directory(root, "proc")?;
    write_file(&writable, EMPTY_FILE, b"", 0o444)?;
    // A socket is opened by nobody, not even by who may read every file.
    mknodat(&writable, CLOSED_FILE, FileType::Socket, Mode::empty(), 0)?;
    mkdirat(&writable, EMPTY_DIRECTORY, Mode::from_raw_mode(0o555))?;
    let shown = clone_mount(root, "proc")?;
    let attributes = SAFE | libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOEXEC;
    sys::mount_setattr(&shown, attributes)?;
    attach(&shown, root, "proc")?;
    attach(&mount, root, "proc")?;
    Ok(BelowProc { writable, shown })
}

/// Hides an entry of `/proc`, if there is one, behind one that is empty.
pub(crate) fn mask(root: &OwnedFd, below: &BelowProc, path: &str, open: bool) -> io::Result<()> {
    let target = format!("proc/{path}");
    match statat(root, target.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let empty = match (directory, open) {
                (true, _) => EMPTY_DIRECTORY,
                (false, true) => EMPTY_FILE,
                (false, false) => CLOSED_FILE,
            };
            attach(&clone_mount(&below.shown, empty)?, root, &target)
        }
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Shows other content for an entry of `/proc`, if there is one.
pub(crate) fn cover(
    root: &OwnedFd,
    below: &BelowProc,
    path: &str,
    content: &[u8],
) -> io::Result<()> {
    let target = format!("proc/{path}");
    match statat(root, target.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => {
            let name = path.replace('/', "-");
            write_file(&below.writable, &name, content, 0o444)?;
            attach(&clone_mount(&below.shown, &name)?, root, &target)
        }
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns another mount of a file or directory, with the attributes of the one it is
/// reached by.
fn clone_mount(directory: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(directory, name, flags)?)
}

/// Makes the root itself read-only.
pub(crate) fn seal(root: &OwnedFd) -> io::Result<()> {
    sys::mount_setattr(root, SAFE | libc::MOUNT_ATTR_RDONLY)
}

/// Opens a directory below the new root.
pub(crate) fn open_directory(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(root, path, flags, Mode::empty())?)
}

/// Creates a directory below the new root. Nobody else is in it yet, and every path was
/// checked to be plain.
pub(crate) fn make_directories(root: &OwnedFd, path: &str) -> io::Result<()> {
    // Most stand beside others that were made.
    match mkdirat(root, path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => return Ok(()),
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
        let part = path.get(..end).unwrap_or(path);
        match mkdirat(root, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
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

/// Creates a symbolic link below the new root.
pub(crate) fn symlink(root: &OwnedFd, path: &str, target: &str) -> io::Result<()> {
    make_parents(root, path)?;
    Ok(symlinkat(target, root, path)?)
}

/// Creates a file below the new root.
pub(crate) fn write_file(root: &OwnedFd, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
    make_parents(root, path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(root, path, flags, Mode::from_raw_mode(mode))?;
    File::from(file).write_all(content)
}
