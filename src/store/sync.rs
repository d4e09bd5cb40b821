//! What may not be on the disk yet.
//!
//! No file is synced by itself: that would make adding many times slower. Who brings
//! content into the store first sees to it that `locks/unsynced` says so, and that this
//! is on the disk:
//!
//! | bytes | |
//! |---|---|
//! | boot id and a newline | the kernel's name for the time since the machine started |
//! | seconds since 1970 and a newline | when content was first brought |
//! | a `.` for each time that content was brought | |
//!
//! The file is empty while all is on the disk. A command that finds it older than
//! [`PENDING`] syncs the file system as a whole. One that finds another boot in it knows
//! that the machine stopped in between, and has what was not synced checked
//! ([`super::recover`]).

use std::fs::File;
use std::io::{Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use rusqlite::OptionalExtension as _;

use super::lock::{failed, try_lock};
use super::recover::Opening;
use super::runs::now;
use super::{Store, StoreError, crash};

/// How long content waits before a command has it written to the disk, in seconds. The
/// kernel has written most of it by then, so the command does not wait for long.
const PENDING: i64 = 60;

/// Longest head of the file that says what is not synced, in bytes.
const MAX_HEAD: u64 = 128;

/// Held while content is brought into the store.
#[derive(Debug)]
pub(super) struct Writing {
    _shared: File,
}

/// What `locks/unsynced` says.
enum Unsynced {
    /// All is on the disk.
    Nothing,
    /// Content was brought since the machine started, first at this time.
    Since(i64),
    /// Content was brought before the machine started.
    OtherBoot,
}

impl Store {
    fn unsynced_path(&self) -> PathBuf {
        self.root().join("locks").join("unsynced")
    }

    /// Notes, on the disk, that content is being brought into the store that is not. To be
    /// called before the lock on objects is taken.
    pub(super) fn writing(&self) -> Result<Writing, StoreError> {
        self.must_be_writable()?;
        let path = self.unsynced_path();
        let cannot = |source| failed(path.clone(), source);
        let mut file = open(&path)?;
        loop {
            file.lock_shared().map_err(cannot)?;
            if file.metadata().map_err(cannot)?.len() > 0 {
                file.write_all(b".").map_err(cannot)?;
                return Ok(Writing { _shared: file });
            }
            file.unlock().map_err(cannot)?;
            file.lock().map_err(cannot)?;
            if file.metadata().map_err(cannot)?.len() == 0 {
                write_head(&mut file, &path).map_err(cannot)?;
            }
            file.unlock().map_err(cannot)?;
        }
    }

    /// Checks what a machine that stopped left behind, and has written to the disk what
    /// has waited for long enough. While there is nothing to do, this looks at one file.
    pub(super) fn settle(&self, watch: &dyn Fn(Opening<'_>)) -> Result<(), StoreError> {
        let path = self.unsynced_path();
        let mut file = match File::options().read(true).append(true).open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|source| failed(path.clone(), source))?,
        };
        match read(&mut file, &path)? {
            Unsynced::Nothing => Ok(()),
            Unsynced::Since(since) if (since..since.saturating_add(PENDING)).contains(&now()) => {
                Ok(())
            }
            Unsynced::Since(_) => self.sync_pending(&file),
            Unsynced::OtherBoot => {
                if !try_lock(&file, &path)? {
                    watch(Opening::Waiting);
                    file.lock().map_err(|source| failed(path.clone(), source))?;
                }
                // Another process may have done it while this one waited.
                if let Unsynced::OtherBoot = read(&mut file, &path)? {
                    self.recover(watch)?;
                    empty(&file, &path)?;
                }
                Ok(())
            }
        }
    }

    /// Has everything written to the disk, and notes that for the objects that were
    /// recorded before. Waits for nobody: what is brought meanwhile is for the next time.
    fn sync_pending(&self, file: &File) -> Result<(), StoreError> {
        let path = self.unsynced_path();
        let length = || {
            file.metadata()
                .map_err(|source| failed(path.clone(), source))
        };
        if !try_lock(file, &path)? {
            return Ok(());
        }
        let noted = length()?.len();
        let newest = self.newest_object()?;
        let removals = self.removals()?;
        file.unlock()
            .map_err(|source| failed(path.clone(), source))?;
        crash::point("sync: begun");
        self.sync_files()?;
        crash::point("sync: on the disk");
        if let Some(newest) = newest {
            self.note_synced(newest, removals)?;
        }
        crash::point("sync: noted");
        if try_lock(file, &path)? && length()?.len() == noted {
            empty(file, &path)?;
        }
        Ok(())
    }

    /// Has all files of the store written to the disk.
    ///
    /// # Errors
    /// [`StoreError::Access`]. The kernel tells a failure once and then takes the lost
    /// pages for written, so the next command is made to check everything.
    pub(super) fn sync_files(&self) -> Result<(), StoreError> {
        let root = self.root();
        let synced = File::open(root).and_then(|directory| Ok(rustix::fs::syncfs(&directory)?));
        synced.map_err(|source| {
            // If this fails as well, the disk is beyond help.
            drop(std::fs::write(self.unsynced_path(), "unknown\n0\n"));
            StoreError::Access {
                operation: "write to the disk what is in",
                path: root.to_owned(),
                source,
            }
        })
    }

    fn newest_object(&self) -> Result<Option<i64>, StoreError> {
        self.with_database(|connection| {
            connection
                .query_row("SELECT max(id) FROM objects WHERE synced = 0", [], |row| {
                    row.get(0)
                })
                .optional()
                .map(Option::flatten)
                .map_err(|source| self.failed(source))
        })
    }

    /// Notes that objects up to a row are on the disk, unless objects were removed since
    /// `removals` was read: their rows may be others' now.
    fn note_synced(&self, newest: i64, removals: u64) -> Result<(), StoreError> {
        self.in_transaction(|transaction| {
            if super::sweep::count_of_removals(transaction)? == removals {
                transaction.execute(
                    "UPDATE objects SET synced = 1 WHERE synced = 0 AND id <= ?1",
                    [newest],
                )?;
            }
            Ok(())
        })
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    File::options()
        .create(true)
        .read(true)
        .append(true)
        .open(path)
        .map_err(|source| failed(path.to_owned(), source))
}

/// Writes the head of an empty file, and waits until it is on the disk.
fn write_head(file: &mut File, path: &Path) -> std::io::Result<()> {
    file.write_all(format!("{}\n{}\n", boot_id(), now()).as_bytes())?;
    crash::point("unsynced: head written");
    file.sync_all()?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn read(file: &mut File, path: &Path) -> Result<Unsynced, StoreError> {
    let mut head = Vec::new();
    file.rewind()
        .and_then(|()| Read::take(&mut *file, MAX_HEAD).read_to_end(&mut head))
        .map_err(|source| failed(path.to_owned(), source))?;
    if head.is_empty() {
        return Ok(Unsynced::Nothing);
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines();
    let (boot, since) = (lines.next(), lines.next().map(str::parse));
    // What cannot be read was not written by this boot.
    Ok(match (boot, since) {
        (Some(boot), Some(Ok(since))) if boot == boot_id() => Unsynced::Since(since),
        _ => Unsynced::OtherBoot,
    })
}

fn empty(file: &File, path: &Path) -> Result<(), StoreError> {
    file.set_len(0)
        .map_err(|source| failed(path.to_owned(), source))
}

/// Returns the kernel's name for the time since the machine started (`random(4)`). Where
/// there is none, no stop of the machine is ever noticed.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(
        |_| "this machine tells no boot".to_owned(),
        |text| text.trim().to_owned(),
    )
}
