//! Which objects may go, and taking them away.
//!
//! In: a census of the store, its roots, what living processes use, and the user's
//! limits. Out: for each object whether it is kept and why ([`choose`], pure), and a
//! smaller store ([`collect`]). What always holds: what a root or a living process needs
//! stays, at any moment, whatever runs beside; an interrupted collection leaves a whole
//! store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::hash::{BlobDigest, StorePath};
use crate::listing::Entry;
use crate::store::{Census, Root, Store, StoreError, Swept};

/// How far a collection goes. Without a limit, everything goes that nothing keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Only what was not used for so long.
    pub unused_for: Option<Duration>,
    /// Only as much as is needed to have at most so many bytes on disk, least recently
    /// used first.
    pub max_bytes: Option<u64>,
}

/// Why an object stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A root, or something that a root needs.
    Root(Root),
    /// A living process uses it, or something that needs it.
    Leased,
    /// It, or something that needs it, was used since the given age.
    Young,
    /// The store is small enough without it going.
    Fits,
}

/// What [`choose`] decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Objects that go, those that name others before those they name, with the seconds
    /// since 1970 when each was last used.
    pub victims: Vec<(StorePath, i64)>,
    /// Objects that stay, with the reason.
    pub kept: BTreeMap<StorePath, Kept>,
}

/// Decides what goes. `now` is in seconds since 1970; `freed` returns how many bytes of
/// disk the store has, and how many go when an object is removed after those before it.
///
/// # Errors
/// What `disk` fails with.
pub fn choose<E>(
    census: &Census,
    roots: &BTreeMap<Root, StorePath>,
    limits: Limits,
    now: i64,
    disk: impl FnOnce() -> Result<Disk, E>,
) -> Result<Choice, E> {
    let count = census.objects.len();
    let places: BTreeMap<&StorePath, usize> = census
        .objects
        .iter()
        .enumerate()
        .map(|(place, known)| (&known.path, place))
        .collect();
    let mut reasons: Vec<Option<Kept>> = vec![None; count];
    for (root, path) in roots {
        if let Some(place) = places.get(path) {
            keep(census, &mut reasons, *place, &Kept::Root(root.clone()));
        }
    }
    for place in &census.leased {
        keep(census, &mut reasons, *place, &Kept::Leased);
    }
    if let Some(unused_for) = limits.unused_for {
        let since = now - i64::try_from(unused_for.as_secs()).unwrap_or(i64::MAX);
        for (place, known) in census.objects.iter().enumerate() {
            if known.used_at > since {
                keep(census, &mut reasons, place, &Kept::Young);
            }
        }
    }
    let mut order = removal_order(census, &reasons);
    if let Some(max_bytes) = limits.max_bytes {
        let mut disk = disk()?;
        let mut going = 0;
        for (_, place) in &order {
            if disk.bytes <= max_bytes {
                break;
            }
            disk.remove(*place);
            going += 1;
        }
        for (_, place) in order.split_off(going) {
            if let Some(reason) = reasons.get_mut(place) {
                *reason = Some(Kept::Fits);
            }
        }
    }
    let path = |place: usize| census.objects.get(place).map(|known| known.path.clone());
    Ok(Choice {
        victims: order
            .into_iter()
            .filter_map(|(used_at, place)| Some((path(place)?, used_at)))
            .collect(),
        kept: reasons
            .into_iter()
            .enumerate()
            .filter_map(|(place, reason)| Some((path(place)?, reason?)))
            .collect(),
    })
}

/// Keeps an object and all that it needs, unless they are kept already.
fn keep(census: &Census, reasons: &mut [Option<Kept>], place: usize, why: &Kept) {
    let mut pending = vec![place];
    while let Some(place) = pending.pop() {
        match reasons.get_mut(place) {
            Some(reason @ None) => *reason = Some(why.clone()),
            _ => continue,
        }
        if let Some(known) = census.objects.get(place) {
            pending.extend(&known.targets);
        }
    }
}

/// Returns the objects without a reason to stay: least recently used first, and each
/// before what it names. An object counts as used when something that names it was.
fn removal_order(census: &Census, reasons: &[Option<Kept>]) -> Vec<(i64, usize)> {
    let mut used: Vec<i64> = census.objects.iter().map(|known| known.used_at).collect();
    let mut depth: Vec<u32> = vec![0; used.len()];
    // What is named was added before what names it.
    for (place, known) in census.objects.iter().enumerate().rev() {
        let (own, own_depth) = (
            used.get(place).copied().unwrap_or_default(),
            depth.get(place).copied().unwrap_or_default(),
        );
        for target in &known.targets {
            if let Some(used) = used.get_mut(*target) {
                *used = (*used).max(own);
            }
            if let Some(depth) = depth.get_mut(*target) {
                *depth = (*depth).max(own_depth + 1);
            }
        }
    }
    let mut order: Vec<(i64, u32, usize)> = used
        .into_iter()
        .zip(depth)
        .enumerate()
        .filter(|(place, _)| reasons.get(*place).is_none_or(Option::is_none))
        .map(|(place, (used, depth))| (used, depth, place))
        .collect();
    order.sort_unstable();
    order
        .into_iter()
        .map(|(used, _, place)| (used, place))
        .collect()
}

/// How much disk the files of all objects take, each file counted once.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// Bytes in all.
    pub bytes: u64,
    /// For each object, its distinct files.
    files: Vec<BTreeSet<BlobDigest>>,
    /// How many objects have a file, and its length.
    users: BTreeMap<BlobDigest, (usize, u64)>,
}

impl Disk {
    /// Reads the listings of all objects.
    ///
    /// # Errors
    /// [`StoreError`] when a listing cannot be read.
    pub fn measure(store: &Store, census: &Census) -> Result<Self, StoreError> {
        let mut disk = Self::default();
        for known in &census.objects {
            let mut files = BTreeSet::new();
            for (_, entry) in store.listing(&known.path)?.iter() {
                if let Entry::File {
                    digest, size_bytes, ..
                } = entry
                    && files.insert(*digest)
                {
                    let (users, _) = disk.users.entry(*digest).or_insert((0, *size_bytes));
                    *users += 1;
                    if *users == 1 {
                        disk.bytes += size_bytes;
                    }
                }
            }
            disk.files.push(files);
        }
        Ok(disk)
    }

    /// Returns how many bytes of an object nothing else has, and how many others have too.
    pub fn split(&self, place: usize) -> (u64, u64) {
        let mut split = (0, 0);
        for digest in self.files.get(place).into_iter().flatten() {
            match self.users.get(digest) {
                Some((1, size_bytes)) => split.0 += size_bytes,
                Some((_, size_bytes)) => split.1 += size_bytes,
                None => {}
            }
        }
        split
    }

    fn remove(&mut self, place: usize) {
        for digest in self.files.get(place).into_iter().flatten() {
            if let Some((users, size_bytes)) = self.users.get_mut(digest) {
                *users -= 1;
                if *users == 0 {
                    self.bytes -= *size_bytes;
                }
            }
        }
    }
}

/// Decides what goes from a store now.
///
/// # Errors
/// [`StoreError`] when the store cannot be read.
pub fn choose_in(store: &Store, limits: Limits) -> Result<Choice, StoreError> {
    let roots = store.roots()?;
    let census = store.census()?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    choose(
        &census,
        &roots,
        limits,
        i64::try_from(now).unwrap_or(i64::MAX),
        || Disk::measure(store, &census),
    )
}

/// Removes what was chosen, and every file that nothing links to afterwards. `goes_on` is
/// asked again and again, with the number of objects that are done.
///
/// # Errors
/// [`StoreError`]; what was removed before stays removed, and the store is whole.
pub fn collect(
    store: &Store,
    choice: &Choice,
    goes_on: &mut dyn FnMut(usize) -> bool,
) -> Result<Swept, StoreError> {
    let victims: Vec<StorePath> = choice
        .victims
        .iter()
        .map(|(path, _)| path.clone())
        .collect();
    let objects = match store.remove_objects(&victims, goes_on) {
        // A removal needs a little room itself.
        Err(error) if error.is_disk_full() => {
            store.sweep_pool()?;
            store.remove_objects(&victims, goes_on)?
        }
        other => other?,
    };
    let (pool, caches) = (store.sweep_pool()?, store.sweep_caches()?);
    Ok(Swept {
        objects,
        files: pool.files + caches.files,
        file_bytes: pool.file_bytes + caches.file_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::ObjectDigest;
    use crate::store::Known;

    fn path(byte: usize) -> StorePath {
        let byte = u8::try_from(byte).unwrap();
        StorePath::new(ObjectDigest::from_bytes([byte; 32]), "x".parse().unwrap())
    }

    /// Objects by number, each with its last use and what it names; 10 bytes each.
    fn census(objects: &[(i64, &[usize])]) -> Census {
        Census {
            objects: objects
                .iter()
                .enumerate()
                .map(|(number, (used_at, targets))| Known {
                    path: path(number),
                    size_bytes: 10,
                    used_at: *used_at,
                    targets: targets.to_vec(),
                })
                .collect(),
            leased: BTreeSet::new(),
        }
    }

    fn disk(count: usize) -> Disk {
        let digest = |number: usize| BlobDigest::of(&number.to_le_bytes());
        Disk {
            bytes: 10 * count as u64,
            files: (0..count).map(|n| BTreeSet::from([digest(n)])).collect(),
            users: (0..count).map(|n| (digest(n), (1, 10))).collect(),
        }
    }

    fn chosen(census: &Census, roots: &[usize], limits: Limits) -> Vec<usize> {
        let roots = roots
            .iter()
            .map(|number| (Root::Name(number.to_string()), path(*number)))
            .collect();
        let count = census.objects.len();
        let choice = choose::<()>(census, &roots, limits, 1000, || Ok(disk(count))).unwrap();
        assert_eq!(choice.victims.len() + choice.kept.len(), count);
        choice
            .victims
            .iter()
            .map(|(victim, _)| (0..count).find(|n| path(*n) == *victim).unwrap())
            .collect()
    }

    #[test]
    fn what_a_root_or_a_process_needs_stays() {
        let mut census = census(&[(1, &[]), (1, &[0]), (1, &[]), (1, &[2]), (1, &[])]);
        assert_eq!(chosen(&census, &[1], Limits::default()), [3, 4, 2]);
        census.leased.insert(3);
        assert_eq!(chosen(&census, &[1], Limits::default()), [4]);
    }

    #[test]
    fn what_was_used_lately_stays_with_what_it_needs() {
        let census = census(&[(1, &[]), (990, &[0]), (1, &[]), (800, &[])]);
        let limits = Limits {
            unused_for: Some(Duration::from_secs(100)),
            ..Limits::default()
        };
        assert_eq!(chosen(&census, &[], limits), [2, 3]);
    }

    #[test]
    fn a_budget_takes_the_least_recently_used_first_and_never_what_is_named() {
        // 0 is old, but 1 names it and was used last of all.
        let census = census(&[(1, &[]), (900, &[0]), (5, &[]), (7, &[2]), (6, &[])]);
        let limits = |bytes| Limits {
            max_bytes: Some(bytes),
            ..Limits::default()
        };
        assert_eq!(chosen(&census, &[], limits(50)), Vec::<usize>::new());
        assert_eq!(chosen(&census, &[], limits(45)), [4]);
        assert_eq!(chosen(&census, &[], limits(20)), [4, 3, 2]);
        assert_eq!(chosen(&census, &[], limits(0)), [4, 3, 2, 1, 0]);
        assert_eq!(chosen(&census, &[4], limits(20)), [3, 2, 1]);
    }
}
