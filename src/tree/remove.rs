//! Deleting a tree that may hold anything: unreadable directories, links, great depth.
//!
//! `std::fs::remove_dir_all` keeps a descriptor per level and fails on deep trees and on
//! directories without permissions; a builder can make both. This walk holds one
//! descriptor per level only down to a limit, and first hoists what lies deeper.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, fchmod, openat, renameat_with, unlinkat,
};
use rustix::io::Errno;

use super::TreeError;

/// Levels that are open at once; deeper directories are moved up first.
const OPEN_LEVELS: usize = 64;

struct Level {
    fd: OwnedFd,
    name: CString,
    subdirectories: Vec<CString>,
}

/// Deletes whatever stands at `path`; nothing there is no error.
///
/// # Errors
/// [`TreeError::Access`] when something cannot be deleted; what was deleted stays deleted.
pub fn remove_tree(path: &Path) -> Result<(), TreeError> {
    let failed = |errno: Errno| TreeError::Access {
        operation: "delete",
        path: path.to_owned(),
        source: errno.into(),
    };
    let parent: PathBuf = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let Some(name) = path.file_name() else {
        return Err(failed(Errno::INVAL));
    };
    let parent = match openat(
        CWD,
        &parent,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.map_err(failed)?,
    };
    remove_entry(&parent, name).map_err(failed)
}

fn remove_entry(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
    let mut hoisted = 0_u64;
    let mut levels = vec![empty_of_files(parent.as_fd(), name)?];
    while let Some(level) = levels.last_mut() {
        let Some(child) = level.subdirectories.pop() else {
            let done = levels.pop().ok_or(Errno::INVAL)?;
            drop(done.fd);
            let above = levels.last().map_or(parent, |level| &level.fd);
            unlinkat(above, &done.name, AtFlags::REMOVEDIR)?;
            continue;
        };
        if levels.len() < OPEN_LEVELS {
            let above = levels.last().ok_or(Errno::INVAL)?;
            let next = empty_of_files(above.fd.as_fd(), child)?;
            levels.push(next);
        } else {
            // Too deep: move the child to the top, where its depth starts again.
            let deepest = levels.last().ok_or(Errno::INVAL)?;
            make_accessible(deepest.fd.as_fd(), &child)?;
            let top = levels.first().ok_or(Errno::INVAL)?;
            let to = hoist(deepest, &child, top, &mut hoisted)?;
            if let Some(top) = levels.first_mut() {
                top.subdirectories.push(to);
            }
        }
    }
    Ok(())
}

/// Moves a directory up under a name that nothing there has yet.
fn hoist(from: &Level, child: &CString, to: &Level, counter: &mut u64) -> Result<CString, Errno> {
    loop {
        let name = CString::new(format!(".kiln-hoisted-{counter}")).map_err(|_| Errno::INVAL)?;
        *counter += 1;
        match renameat_with(&from.fd, child, &to.fd, &name, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(name),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn make_accessible(parent: impl AsFd, name: &CString) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(&parent, name, OFlags::RDONLY | flags, Mode::empty()) {
        Ok(fd) => {
            fchmod(&fd, Mode::RWXU)?;
            Ok(fd)
        }
        Err(Errno::ACCESS) => {
            // Not readable even for its owner. The entry is a directory of ours (the
            // caller saw it refuse `unlink`), and nobody else writes here any more.
            rustix::fs::chmodat(&parent, name, Mode::RWXU, AtFlags::empty())?;
            openat(&parent, name, OFlags::RDONLY | flags, Mode::empty())
        }
        Err(errno) => Err(errno),
    }
}

/// Opens a directory, deletes all that is not a directory in it, and lists the rest.
fn empty_of_files(parent: impl AsFd, name: CString) -> Result<Level, Errno> {
    let fd = make_accessible(parent, &name)?;
    let mut subdirectories = Vec::new();
    for entry in Dir::read_from(&fd)? {
        let entry = entry?;
        let child = entry.file_name();
        if child == c"." || child == c".." {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            subdirectories.push(child.to_owned());
            continue;
        }
        match unlinkat(&fd, child, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => subdirectories.push(child.to_owned()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(Level {
        fd,
        name,
        subdirectories,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn deletes_deep_locked_and_linked_trees() {
        let top = tempfile::tempdir().unwrap();
        let victim = top.path().join("victim");
        std::fs::create_dir(&victim).unwrap();
        let kept = top.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&kept, victim.join("link")).unwrap();
        // Deeper than PATH_MAX can name.
        let mut at = openat(
            CWD,
            &victim,
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .unwrap();
        let name = "d".repeat(200);
        for _ in 0..300 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = openat(
                &at,
                &name,
                OFlags::RDONLY | OFlags::DIRECTORY,
                Mode::empty(),
            )
            .unwrap();
        }
        drop(at);
        let locked = victim.join("locked");
        std::fs::create_dir(&locked).unwrap();
        std::fs::write(locked.join("file"), "x").unwrap();
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o000)).unwrap();

        remove_tree(&victim).unwrap();
        assert!(!victim.exists());
        assert!(kept.join("file").exists(), "a link was followed");
        remove_tree(&victim).unwrap();
    }

    #[test]
    fn deletes_a_single_file() {
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("file");
        std::fs::write(&file, "x").unwrap();
        remove_tree(&file).unwrap();
        assert!(!file.exists());
    }
}
