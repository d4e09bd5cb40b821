//! The order of directory entries.
//!
//! A directory is read whole when it is read from its start, ordered, and then given away
//! from that snapshot. The place where a reader stands is kept in the open directory itself:
//! after an answer its position is the one that the file system gave with the last entry of
//! the answer, which says where the reader is in the snapshot too. So `lseek`, `telldir`,
//! `seekdir` and `rewinddir`, and descriptors that share a position, need no supervisor.
//!
//! A directory stays in the file system's order when it has more than [`MOST_ENTRIES`]
//! entries, when two entries have one position, or when a reader stands where no snapshot
//! and no fresh reading knows an entry.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use nix::libc;
use rustix::fs::{FileType, RawDir, SeekFrom, fstat, seek, tell};

use super::{Call, DirectoryOrder, Reply, SuperviseError, Tried, deliver, sys};

/// The largest directory that is ordered.
pub(crate) const MOST_ENTRIES: usize = 1 << 18;

/// How many entries of earlier snapshots are kept, and of how many.
const KEPT_ENTRIES: usize = 1 << 20;
const KEPT_SNAPSHOTS: usize = 64;

/// The largest answer, in bytes; programs ask for an eighth of it.
const LARGEST_ANSWER: u64 = 256 << 10;

/// A directory: device and inode.
type Identity = (u64, u64);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    inode: u64,
    /// The position after it, in the file system's own order.
    cookie: u64,
    kind: u8,
    name: Vec<u8>,
}

#[derive(Debug)]
struct Snapshot {
    directory: Identity,
    entries: Vec<Entry>,
    /// The positions that readers were left at.
    stops: BTreeSet<u64>,
}

/// What undoes an answer that did not arrive.
#[derive(Debug)]
pub(crate) struct Moved {
    descriptor: OwnedFd,
    from: u64,
}

impl Moved {
    /// Moves the reader back.
    pub(crate) fn undo(self) -> io::Result<()> {
        Ok(seek(&self.descriptor, SeekFrom::Start(self.from)).map(drop)?)
    }
}

/// The directories that were read, the last one at the end.
#[derive(Debug)]
pub(crate) struct Directories {
    order: DirectoryOrder,
    /// What [`sys::processes`] opened.
    processes: Option<OwnedFd>,
    snapshots: VecDeque<Snapshot>,
    unordered: BTreeSet<Identity>,
}

impl Directories {
    /// Has read nothing yet.
    pub(crate) fn new(order: DirectoryOrder, processes: Option<OwnedFd>) -> Self {
        Self {
            order,
            processes,
            snapshots: VecDeque::new(),
            unordered: BTreeSet::new(),
        }
    }

    /// Answers `getdents64` and `getdents`; also returns what undoes it.
    pub(crate) fn reply(&mut self, call: &Call) -> Result<(Reply, Option<Moved>), SuperviseError> {
        const WHAT: &str = "read a directory for a program";
        let [number, address, room, ..] = call.arguments;
        let processes = self.processes.as_ref();
        let number = (number & 0xffff_ffff) as u32;
        let descriptor = match sys::duplicate(processes, call.thread, number.cast_signed()) {
            Ok(descriptor) => descriptor,
            Err(error) => return unreadable(error, WHAT),
        };
        let about = fstat(&descriptor).tried(WHAT)?;
        let identity = (about.st_dev, about.st_ino);
        if FileType::from_raw_mode(about.st_mode) != FileType::Directory
            || self.unordered.contains(&identity)
        {
            return Ok((Reply::Proceed, None));
        }
        let at = tell(&descriptor).tried(WHAT)?;
        let Some((snapshot, next)) = self.find(&descriptor, identity, at).tried(WHAT)? else {
            return Ok((Reply::Proceed, None));
        };
        let room = usize::try_from((room & 0xffff_ffff).min(LARGEST_ANSWER)).unwrap_or(0);
        let rest = snapshot.entries.get(next..).unwrap_or(&[]);
        let (bytes, count) = encode(rest, room, call.number == libc::SYS_getdents64);
        let Some(last) = count.checked_sub(1).and_then(|last| rest.get(last)) else {
            let too_small = Reply::Error(libc::EINVAL);
            let reply = if rest.is_empty() {
                Reply::Value(0)
            } else {
                too_small
            };
            return Ok((reply, None));
        };
        let value = i64::try_from(bytes.len()).unwrap_or(0);
        let reply = deliver(call, address, &bytes, value)?;
        if !matches!(reply, Reply::Value(_)) {
            return Ok((reply, None));
        }
        snapshot.stops.insert(last.cookie);
        seek(&descriptor, SeekFrom::Start(last.cookie)).tried(WHAT)?;
        let moved = Moved {
            descriptor,
            from: at,
        };
        Ok((reply, Some(moved)))
    }

    /// Returns the snapshot that a reader reads from, and its next entry; leaves the reader
    /// where it stood. `None` is the file system's own order.
    fn find(
        &mut self,
        descriptor: &OwnedFd,
        identity: Identity,
        at: u64,
    ) -> io::Result<Option<(&mut Snapshot, usize)>> {
        let known = (at != 0).then(|| self.known(identity, at)).flatten();
        let place = match known {
            Some(place) => place,
            None => {
                let entries = self.read(descriptor, at)?;
                let next = entries.as_ref().and_then(|entries| following(entries, at));
                let (Some(entries), Some(next)) = (entries, next) else {
                    self.unordered.insert(identity);
                    return Ok(None);
                };
                (self.keep(identity, entries), next)
            }
        };
        let (index, next) = place;
        Ok(self.snapshots.get_mut(index).map(|found| (found, next)))
    }

    /// Finds a place in a snapshot: one that a reader was left at, or any.
    fn known(&self, identity: Identity, at: u64) -> Option<(usize, usize)> {
        let of_it = || {
            let all = self.snapshots.iter().enumerate().rev();
            all.filter(|(_, snapshot)| snapshot.directory == identity)
        };
        of_it()
            .filter(|(_, snapshot)| snapshot.stops.contains(&at))
            .chain(of_it())
            .find_map(|(index, snapshot)| Some((index, following(&snapshot.entries, at)?)))
    }

    fn keep(&mut self, directory: Identity, entries: Vec<Entry>) -> usize {
        self.snapshots.push_back(Snapshot {
            directory,
            entries,
            stops: BTreeSet::new(),
        });
        let held = |snapshots: &VecDeque<Snapshot>| -> usize {
            snapshots
                .iter()
                .map(|snapshot| snapshot.entries.len())
                .sum()
        };
        while self.snapshots.len() > KEPT_SNAPSHOTS || held(&self.snapshots) > KEPT_ENTRIES {
            self.snapshots.pop_front();
        }
        self.snapshots.len().saturating_sub(1)
    }

    /// Reads a whole directory and orders it; `None` when it cannot be ordered.
    fn read(&self, descriptor: &OwnedFd, at: u64) -> io::Result<Option<Vec<Entry>>> {
        if at != 0 {
            seek(descriptor, SeekFrom::Start(0))?;
        }
        let entries = read_entries(descriptor);
        seek(descriptor, SeekFrom::Start(at))?;
        // What the file system refuses, the kernel refuses again.
        let Ok(mut entries) = entries else {
            return Ok(None);
        };
        let cookies: BTreeSet<u64> = entries.iter().map(|entry| entry.cookie).collect();
        if entries.len() > MOST_ENTRIES || cookies.len() < entries.len() || cookies.contains(&0) {
            return Ok(None);
        }
        arrange(&mut entries, self.order);
        Ok(Some(entries))
    }
}

/// Tells a bad descriptor, which the kernel refuses too, from what ends the run.
fn unreadable(
    error: io::Error,
    what: &'static str,
) -> Result<(Reply, Option<Moved>), SuperviseError> {
    match error.raw_os_error() {
        Some(libc::EBADF) => Ok((Reply::Proceed, None)),
        Some(libc::ESRCH) => Ok((Reply::Gone, None)),
        Some(libc::EOPNOTSUPP) => Err(error)
            .tried("read a directory for a thread with descriptors of its own, before Linux 6.9"),
        _ => Err(error).tried(what),
    }
}

/// Returns the index of the entry that a reader at a position reads next.
fn following(entries: &[Entry], at: u64) -> Option<usize> {
    if at == 0 {
        return Some(0);
    }
    let found = entries.iter().position(|entry| entry.cookie == at)?;
    Some(found + 1)
}

fn read_entries(descriptor: &OwnedFd) -> io::Result<Vec<Entry>> {
    let mut block = vec![MaybeUninit::uninit(); 32 << 10];
    let mut directory = RawDir::new(descriptor, &mut block);
    let mut entries = Vec::new();
    while let Some(entry) = directory.next() {
        let entry = entry?;
        entries.push(Entry {
            inode: entry.ino(),
            cookie: entry.next_entry_cookie(),
            kind: kind(entry.file_type()),
            name: entry.file_name().to_bytes().to_vec(),
        });
        if entries.len() > MOST_ENTRIES {
            break;
        }
    }
    Ok(entries)
}

/// Returns a type as directory entries say it: the upper bits of a mode.
fn kind(of: FileType) -> u8 {
    match of {
        FileType::Unknown => libc::DT_UNKNOWN,
        known => u8::try_from(known.as_raw_mode() >> 12).unwrap_or(libc::DT_UNKNOWN),
    }
}

fn arrange(entries: &mut [Entry], order: DirectoryOrder) {
    let dots = |entry: &Entry| match entry.name.as_slice() {
        b"." => 0,
        b".." => 1,
        _ => 2,
    };
    match order {
        DirectoryOrder::Reversed => {
            entries.reverse();
            entries.sort_by_key(dots);
        }
        DirectoryOrder::Hashed(number) => {
            entries.sort_by_cached_key(|entry| {
                (dots(entry), hash(number, &entry.name), entry.name.clone())
            });
        }
    }
}

/// Returns FNV-1a of a name, begun with a number, and mixed.
fn hash(number: u64, name: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let sum = name.iter().fold(number ^ 0xcbf2_9ce4_8422_2325, step);
    (sum ^ sum >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Returns as many entries as there is room for, and how many they are.
///
/// | bytes | `getdents64` | `getdents` |
/// |---|---|---|
/// | 8 | inode | inode |
/// | 8 | position after it | position after it |
/// | 2 | length of all, a multiple of 8 | length of all, a multiple of 8 |
/// | 1 | type | |
/// | | name, and zeros | name, and zeros |
/// | 1 | | type |
fn encode(entries: &[Entry], room: usize, modern: bool) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    let mut count = 0;
    for entry in entries {
        let length = (8 + 8 + 2 + 1 + entry.name.len() + 1).next_multiple_of(8);
        if bytes.len() + length > room {
            break;
        }
        let end = bytes.len() + length;
        bytes.extend(entry.inode.to_le_bytes());
        bytes.extend(entry.cookie.to_le_bytes());
        bytes.extend(u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
        if modern {
            bytes.push(entry.kind);
        }
        bytes.extend_from_slice(&entry.name);
        bytes.resize(end, 0);
        if let (false, Some(last)) = (modern, bytes.last_mut()) {
            *last = entry.kind;
        }
        count += 1;
    }
    (bytes, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, cookie: u64) -> Entry {
        Entry {
            inode: 5,
            cookie,
            kind: libc::DT_REG,
            name: name.into(),
        }
    }

    #[test]
    fn entries_are_laid_out_as_the_kernel_does() {
        let (bytes, count) = encode(&[entry("ab", 9), entry("c", 10)], 40, true);
        assert_eq!((bytes.len(), count), (24, 1));
        assert_eq!(bytes[16..], [24, 0, libc::DT_REG, b'a', b'b', 0, 0, 0]);
        let (bytes, _) = encode(&[entry("ab", 9)], 24, false);
        assert_eq!(bytes[16..], [24, 0, b'a', b'b', 0, 0, 0, libc::DT_REG]);
        assert_eq!(encode(&[entry("ab", 9)], 23, true).1, 0);
    }

    #[test]
    fn dots_come_first_and_the_rest_in_order() {
        let names = |order| {
            let mut entries = [entry("a", 1), entry("..", 2), entry("b", 3), entry(".", 4)];
            arrange(&mut entries, order);
            entries.map(|entry| String::from_utf8(entry.name).unwrap())
        };
        assert_eq!(names(DirectoryOrder::Reversed), [".", "..", "b", "a"]);
        let orders: BTreeSet<_> = (0..8).map(|n| names(DirectoryOrder::Hashed(n))).collect();
        assert!(orders.len() > 1);
    }

    #[test]
    fn a_reader_goes_on_behind_the_entry_it_stands_at() {
        let entries = [entry("z", 7), entry("a", 3)];
        assert_eq!(following(&entries, 0), Some(0));
        assert_eq!(following(&entries, 7), Some(1));
        assert_eq!(following(&entries, 3), Some(2));
        assert_eq!(following(&entries, 8), None);
    }
}
