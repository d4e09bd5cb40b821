//! Which one variation makes a build come out differently: halves are tried until one is
//! left.

use std::collections::BTreeSet;
use std::fmt;

use super::variations::Variation;

/// What makes a build come out differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Nothing that was varied: a rebuild under the first build's conditions differs as
    /// well.
    TimeOrChance,
    /// This, and nothing else.
    Variation(Variation),
    /// Some of these together, and none of the halves alone.
    Together(BTreeSet<Variation>),
}

impl Cause {
    /// Returns the variations that it takes.
    pub fn variations(&self) -> impl Iterator<Item = Variation> {
        let (one, several) = match self {
            Self::TimeOrChance => (None, None),
            Self::Variation(variation) => (Some(*variation), None),
            Self::Together(variations) => (None, Some(variations)),
        };
        one.into_iter()
            .chain(several.into_iter().flatten().copied())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimeOrChance => {
                f.write_str("it differs also with nothing varied: by time or by chance")
            }
            Self::Variation(variation) => write!(f, "varying `{variation}` alone does it"),
            Self::Together(variations) => {
                let names: Vec<String> = variations
                    .iter()
                    .map(|variation| format!("`{variation}`"))
                    .collect();
                write!(f, "several together do it, out of {}", names.join(", "))
            }
        }
    }
}

/// Whether a rebuild gives other bytes; nothing where that cannot be said.
pub(super) type Differs<E> = Result<Option<bool>, E>;

/// Searches among variations that make a difference together. `differs` rebuilds under
/// some of them, and says whether the bytes are others; nothing where it cannot say.
///
/// For `n` variations it asks at most `1 + 2 * ceil(log2(n))` times. Returns `None` where
/// an answer was missing.
///
/// # Errors
/// Those of `differs`.
pub(super) fn search<E>(
    varied: &BTreeSet<Variation>,
    differs: &mut dyn FnMut(&BTreeSet<Variation>) -> Differs<E>,
) -> Result<Option<Cause>, E> {
    match differs(&BTreeSet::new())? {
        None => return Ok(None),
        Some(true) => return Ok(Some(Cause::TimeOrChance)),
        Some(false) => {}
    }
    let mut suspects: Vec<Variation> = varied.iter().copied().collect();
    while suspects.len() > 1 {
        let (left, right) = suspects.split_at(suspects.len() / 2);
        let mut guilty = None;
        for half in [left, right] {
            match differs(&half.iter().copied().collect())? {
                None => return Ok(None),
                Some(true) => {
                    guilty = Some(half.to_vec());
                    break;
                }
                Some(false) => {}
            }
        }
        match guilty {
            Some(half) => suspects = half,
            None => return Ok(Some(Cause::Together(suspects.into_iter().collect()))),
        }
    }
    Ok(suspects.pop().map(Cause::Variation))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches where a rebuild differs if it sees all of these; returns the cause and how
    /// often it was asked.
    fn searched(needed: &[Variation]) -> (Cause, usize) {
        let all = BTreeSet::from(Variation::ALL);
        let mut asked = 0;
        let cause = search::<()>(&all, &mut |varied| {
            asked += 1;
            Ok(Some(needed.iter().all(|one| varied.contains(one))))
        });
        (cause.unwrap().unwrap(), asked)
    }

    #[test]
    fn each_single_cause_is_found_in_few_rebuilds() {
        for variation in Variation::ALL {
            let (cause, asked) = searched(&[variation]);
            assert_eq!(cause, Cause::Variation(variation));
            assert!(asked <= 9, "{variation}: {asked}");
        }
    }

    #[test]
    fn what_takes_two_and_what_takes_none_is_told_apart() {
        let (cause, _) = searched(&[Variation::Aslr, Variation::WallClock]);
        assert_eq!(cause, Cause::Together(BTreeSet::from(Variation::ALL)));
        let (cause, _) = searched(&[Variation::Aslr, Variation::Cores]);
        let near = [Variation::Aslr, Variation::Cores, Variation::DirectoryOrder];
        assert_eq!(cause, Cause::Together(BTreeSet::from(near)));
        assert_eq!(searched(&[]), (Cause::TimeOrChance, 1));
    }

    #[test]
    fn without_an_answer_there_is_no_cause() {
        let all = BTreeSet::from(Variation::ALL);
        let mut answers = [Some(false), Some(true), None].into_iter();
        let cause = search::<()>(&all, &mut |_| Ok(answers.next().flatten()));
        assert_eq!(cause, Ok(None));
    }
}
