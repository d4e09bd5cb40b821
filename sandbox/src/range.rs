//! Which ids of this machine may stand behind a range: `/etc/subuid` and `/etc/subgid`.
//!
//! The administrator lends a user ids there, by name or by number: a line is
//! `OWNER:FIRST:COUNT` (subuid(5)). They are lent to the user alone, so that nobody else's
//! file or process has one. Whether a line holds is `newuidmap`'s to judge; here the first
//! is found that is large enough, and what is missing gets a name.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::identity::OUTSIDE;
use crate::plan::Power;
use crate::step::IdSpan;

/// How many users, and how many groups, a range has inside: 0 to 65535.
pub const COUNT: u32 = 1 << 16;

/// How many of them are lent; one is the caller's own.
const LENT: u32 = COUNT - 1;

/// The first ids that may be lent: up to here they are those of users and services.
const FIRST: u32 = 1 << 16;

/// Where `usermod` begins to lend.
const SUGGESTED: u32 = 100_000;

/// More than any machine lends, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Where the programs are that may map ids; the caller's `PATH` is not asked.
const PLACES: [&str; 4] = [
    "/usr/bin",
    "/bin",
    "/run/wrappers/bin",
    "/run/current-system/profile/bin",
];

/// What is lent, of users and of groups, and the program that honours it.
const USERS: (&str, &str) = ("/etc/subuid", "newuidmap");
const GROUPS: (&str, &str) = ("/etc/subgid", "newgidmap");

/// The first users and groups of this machine that are lent to the caller: each is the
/// start of 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostIds {
    /// The first user id.
    pub users: u32,
    /// The first group id.
    pub groups: u32,
}

/// Why a caller has no range of ids.
#[derive(Debug, thiserror::Error)]
pub enum NoRange {
    /// The program is not there that may map ids for an ordinary user.
    #[error("`{program}` is not installed")]
    NoProgram {
        /// Its name.
        program: &'static str,
    },
    /// Nothing, or too little, is lent.
    #[error("`{file}` lends `{owner}` no {LENT} ids in a row above {}", FIRST - 1)]
    NotLent {
        /// The file.
        file: &'static str,
        /// The caller.
        owner: String,
        /// The first id from which on nothing is lent in either file.
        free: u32,
    },
    /// A line for the caller that does not say what is lent.
    #[error("line {line} of `{file}` is not `{owner}:FIRST:COUNT`")]
    Malformed {
        /// The file.
        file: &'static str,
        /// Which line, from 1.
        line: usize,
        /// The caller.
        owner: String,
    },
    /// A file could not be read.
    #[error("cannot read `{file}`")]
    Unreadable {
        /// The file.
        file: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl NoRange {
    /// Returns what to change on this host.
    pub fn remedy(&self) -> String {
        match self {
            Self::NoProgram { .. } => {
                "as root: `apt install uidmap`, or your system's package with `newuidmap`"
                    .to_owned()
            }
            Self::NotLent { owner, free, .. } => {
                let last = u64::from(*free) + u64::from(LENT);
                format!(
                    "as root: `usermod --add-subuids {free}-{last} --add-subgids {free}-{last} \
                     {owner}`"
                )
            }
            Self::Malformed { file, .. } => {
                format!("correct the line of `{file}`, as subuid(5) describes it")
            }
            Self::Unreadable { file, .. } => {
                format!("let everyone read `{file}`, a text of less than 4 MiB")
            }
        }
    }
}

/// Returns what the ids of a range are outside: one is the caller's own, and the others
/// follow one another from the first that is lent. Without that one, there is no other.
pub(crate) fn spans(own: u32, first: Option<u32>) -> Vec<IdSpan> {
    let span = |inside, outside: Option<u32>, count| IdSpan {
        inside,
        outside,
        count,
    };
    let lent = |inside, skipped, count| {
        let outside = first?.saturating_add(skipped);
        (count > 0).then(|| span(inside, Some(outside), count))
    };
    let after = COUNT.saturating_sub(own).saturating_sub(1);
    [
        lent(0, 0, own),
        Some(span(own, None, 1)),
        lent(own.saturating_add(1), own, after),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Finds the ids that are lent to this process's user.
///
/// # Errors
/// [`NoRange`] with the first thing that is missing.
pub(crate) fn find(power: Power) -> Result<HostIds, NoRange> {
    let uid = nix::unistd::geteuid();
    // Root maps ids itself.
    if power != Power::Root {
        for (_, name) in [USERS, GROUPS] {
            program(name).ok_or(NoRange::NoProgram { program: name })?;
        }
    }
    let name = nix::unistd::User::from_uid(uid)
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name);
    let (users, groups) = (read(USERS.0)?, read(GROUPS.0)?);
    let own = [uid.as_raw(), nix::unistd::getegid().as_raw(), OUTSIDE];
    let first = |file, text: &str| match lent(text, &[&name, &uid.to_string()], &own) {
        Ok(Some(first)) => Ok(first),
        Ok(None) => Err(NoRange::NotLent {
            file,
            owner: name.clone(),
            free: free([&users, &groups]),
        }),
        Err(line) => Err(NoRange::Malformed {
            file,
            line,
            owner: name.clone(),
        }),
    };
    Ok(HostIds {
        users: first(USERS.0, &users)?,
        groups: first(GROUPS.0, &groups)?,
    })
}

/// Returns where a program is that may map ids.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    PLACES
        .into_iter()
        .map(|place| Path::new(place).join(name))
        .find(|path| path.is_file())
}

/// Reads a file; one that is not there lends nothing.
fn read(file: &'static str) -> Result<String, NoRange> {
    let text = || -> io::Result<String> {
        let opened = match File::open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            other => other?,
        };
        let mut bytes = Vec::new();
        opened.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
    };
    text().map_err(|source| NoRange::Unreadable { file, source })
}

/// Returns the first id of the first range of an owner that is large enough and holds none
/// of some ids; the error is the number of a line of theirs that cannot be read.
fn lent(text: &str, owners: &[&str], taken: &[u32]) -> Result<Option<u32>, usize> {
    let mut found = None;
    for (at, line) in text.lines().enumerate() {
        let Some((owner, rest)) = line.split_once(':') else {
            continue;
        };
        if !owners.contains(&owner) {
            continue;
        }
        let (first, count) = numbers(rest).ok_or(at + 1)?;
        let end = first.checked_add(count).ok_or(at + 1)?;
        let holds = taken.iter().any(|id| (first..end).contains(id));
        if found.is_none() && first >= FIRST && count >= LENT && !holds {
            found = Some(first);
        }
    }
    Ok(found)
}

/// Reads `FIRST:COUNT`: digits only, which excludes signs and spaces.
fn numbers(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| -> Option<u32> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse().ok() } else { None }
    };
    let (first, count) = text.split_once(':')?;
    Some((number(first)?, number(count)?))
}

/// Returns the first id from which on nothing is lent to anyone, as far as there is room for
/// a range below the ids of root's sandboxes.
fn free(texts: [&str; 2]) -> u32 {
    texts
        .into_iter()
        .flat_map(str::lines)
        .filter_map(|line| numbers(line.split_once(':')?.1))
        .filter_map(|(first, count)| first.checked_add(count))
        .filter(|end| end.saturating_add(LENT) < OUTSIDE)
        .fold(SUGGESTED, u32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_the_caller_and_what_is_lent() {
        let span = |inside, outside, count| IdSpan {
            inside,
            outside,
            count,
        };
        let all = |own| spans(own, Some(100_000));
        assert_eq!(
            all(1000),
            [
                span(0, Some(100_000), 1000),
                span(1000, None, 1),
                span(1001, Some(101_000), 64_535)
            ]
        );
        let last = [span(0, Some(100_000), 65_535), span(65_535, None, 1)];
        assert_eq!(all(65_535), last);
        let first = [span(0, None, 1), span(1, Some(100_000), 65_535)];
        assert_eq!(all(0), first);
        assert_eq!(spans(1000, None), [span(1000, None, 1)]);
    }

    #[test]
    fn the_first_range_that_is_large_enough() {
        let text =
            "# lent\nother:100000:65536\nme:200000:1000\n1000:300000:65535\nme:400000:65536\n";
        assert_eq!(lent(text, &["me", "1000"], &[]), Ok(Some(300_000)));
        assert_eq!(lent(text, &["me"], &[]), Ok(Some(400_000)));
        assert_eq!(lent(text, &["you"], &[]), Ok(None));
        assert_eq!(lent("", &["me"], &[]), Ok(None));
        // One that holds somebody's id, or those of services, is none.
        assert_eq!(lent(text, &["me"], &[400_007]), Ok(None));
        assert_eq!(lent("me:0:4000000\n", &["me"], &[]), Ok(None));
        assert_eq!(lent("me:65535:65536\n", &["me"], &[]), Ok(None));
        assert_eq!(lent("me:65536:65534\n", &["me"], &[]), Ok(None));
        assert_eq!(lent("me:65536:65535\n", &["me"], &[]), Ok(Some(65_536)));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_an_error_for_its_owner_alone() {
        for bad in [
            "me:",
            "me:1",
            "me:1:",
            "me::1",
            "me:a:1",
            "me:1:-1",
            "me:+1:2",
            "me: 1:2",
            "me:1:2:3",
            "me:4294967296:1",
            "me:4294967295:1",
            "me:1:2 ",
        ] {
            let text = format!("other:100000:65536\n{bad}\n");
            assert_eq!(lent(&text, &["me"], &[]), Err(2), "{bad}");
            assert_eq!(lent(&text, &["other"], &[]), Ok(Some(100_000)), "{bad}");
        }
    }

    #[test]
    fn what_is_suggested_is_nobody_s() {
        assert_eq!(free(["", ""]), 100_000);
        assert_eq!(free(["a:100000:65536\nbad\n", "b:165536:65536\n"]), 231_072);
        assert_eq!(free(["a:4294900000:60000\n", ""]), 100_000);
        let error = NoRange::NotLent {
            file: "/etc/subuid",
            owner: "me".to_owned(),
            free: 231_072,
        };
        assert_eq!(
            error.remedy(),
            "as root: `usermod --add-subuids 231072-296607 --add-subgids 231072-296607 me`"
        );
        assert_eq!(
            error.to_string(),
            "`/etc/subuid` lends `me` no 65535 ids in a row above 65535"
        );
    }
}
