//! PURE: what a map of GNU ld says was taken (the manual's section on `-Map`).

use std::collections::{BTreeMap, BTreeSet};

/// Every file that a linker took, as it names it, with the members of those that are
/// archives. An archive of which nothing was taken is not among them.
pub(super) fn taken(map: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut taken: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut in_members = false;
    for line in map.lines() {
        if line.starts_with("Archive member included") {
            in_members = true;
        } else if let Some(file) = line.strip_prefix("LOAD ") {
            in_members = false;
            if !is_archive(file) {
                taken.entry(file.to_owned()).or_default();
            }
        } else if in_members && !line.is_empty() && !line.starts_with(char::is_whitespace) {
            match member(line) {
                Some((archive, member)) => {
                    let members = taken.entry(archive.to_owned()).or_default();
                    members.insert(member.to_owned());
                }
                // The next part of the map begins.
                None => in_members = false,
            }
        }
    }
    taken
}

/// Rust's compiler calls its archives `.rlib`.
fn is_archive(file: &str) -> bool {
    std::path::Path::new(file)
        .extension()
        .is_some_and(|extension| extension == "a" || extension == "rlib")
}

/// Reads `ARCHIVE(MEMBER)` at the start of a line; who wanted it may follow.
fn member(line: &str) -> Option<(&str, &str)> {
    let (archive, rest) = line.split_once('(')?;
    let (member, _) = rest.split_once(')')?;
    (is_archive(archive) && !member.is_empty()).then_some((archive, member))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_object_files_are_taken_and_unused_archives_are_not() {
        let map = "Archive member included to satisfy reference by file (symbol)

/kiln/store/x/lib/libc.a(puts.lo)
                              /tmp/a.o (puts)
libz.a(inflate.o)             b.o (inflate)
/usr/lib/libcore-60d8.rlib(core-60d8.core.0.rcgu.o)
                              b.o (panic)
/kiln/store/x/lib/libc.a(write.lo)
                              /kiln/store/x/lib/libc.a(puts.lo) (write)

Discarded input sections

 .note.GNU-stack 0x0 0x0 /usr/lib/crt1.o

Memory Configuration

Name             Origin             Length             Attributes

Linker script and memory map

LOAD /usr/lib/crt1.o
LOAD b.o
LOAD /kiln/store/x/lib/libcrypt.a
LOAD libz.a
LOAD /usr/lib/libcore-60d8.rlib
LOAD /usr/lib/libtest-8add.rlib
START GROUP
LOAD /kiln/store/x/lib/libc.a
END GROUP
libz.a(late.o)
";
        let taken = taken(map);
        let names = |file: &str| {
            let members = taken.get(file)?;
            Some(members.iter().map(String::as_str).collect::<Vec<_>>())
        };
        assert_eq!(
            names("/kiln/store/x/lib/libc.a"),
            Some(vec!["puts.lo", "write.lo"])
        );
        assert_eq!(names("libz.a"), Some(vec!["inflate.o"]));
        assert_eq!(names("/usr/lib/crt1.o"), Some(Vec::new()));
        assert_eq!(names("b.o"), Some(Vec::new()));
        assert_eq!(
            names("/usr/lib/libcore-60d8.rlib"),
            Some(vec!["core-60d8.core.0.rcgu.o"])
        );
        assert_eq!(taken.len(), 5, "{taken:?}");
    }
}
