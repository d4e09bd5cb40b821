//! PURE: finds the auxiliary vector on the stack that a new program starts with.
//!
//! | from the stack pointer up, in words of eight bytes |
//! |---|
//! | the number of arguments |
//! | a pointer to each argument, and 0 |
//! | a pointer to each variable, and 0 |
//! | pairs of a type and a value, up to the type `AT_NULL` (0) |

use nix::libc;

/// The type that the C library passes over.
pub(crate) const IGNORE: u64 = libc::AT_IGNORE;

/// What the supervisor changes of an auxiliary vector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where the type `AT_SYSINFO_EHDR` stands, in bytes from the stack pointer.
    pub vdso_type_at: Option<u64>,
    /// The address of the sixteen random bytes.
    pub random: Option<u64>,
}

/// Finds both entries; `None` where the bytes end before the vector does.
pub(crate) fn find(stack: &[u8]) -> Option<Found> {
    let mut words = stack
        .as_chunks::<8>()
        .0
        .iter()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .zip((0_u64..).step_by(8));
    let (count, _) = words.next()?;
    let count = usize::try_from(count).ok()?;
    // The arguments and their end, then the variables and theirs.
    words.nth(count)?;
    words.find(|(pointer, _)| *pointer == 0)?;
    let mut found = Found::default();
    loop {
        let (kind, at) = words.next()?;
        let (value, _) = words.next()?;
        match kind {
            libc::AT_NULL => return Some(found),
            libc::AT_SYSINFO_EHDR => found.vdso_type_at = Some(at),
            libc::AT_RANDOM => found.random = Some(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn the_vector_is_found_behind_arguments_and_variables() {
        // Two arguments, one variable; one argument has the vDSO type's number as address.
        let words = [2, 33, 200, 0, 300, 0, 6, 4096, 33, 0x7000, 25, 0x8000, 0, 0];
        let bytes = stack(&words);
        assert_eq!(
            find(&bytes),
            Some(Found {
                vdso_type_at: Some(64),
                random: Some(0x8000)
            })
        );
        for cut in 0..bytes.len() - 8 {
            assert_eq!(find(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(find(&stack(&[u64::MAX, 1, 0, 0, 0, 0])), None);
    }

    #[test]
    fn a_vector_without_both_has_neither() {
        assert_eq!(find(&stack(&[0, 0, 0, 0, 0])), Some(Found::default()));
    }
}
