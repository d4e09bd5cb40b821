//! A problem at a place in a file.

use std::ops::Range;
use std::sync::Arc;

use crate::hash::PackageName;

/// A place in a file, in bytes.
pub type Span = Range<usize>;

/// A file as it was read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceFile {
    /// What it defines.
    pub package: PackageName,
    /// How people find it: a path, or `<std>/tools/dash.toml`.
    pub shown: String,
    /// Its content.
    pub text: String,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands in its file.
    pub span: (usize, usize),
}

impl<T> Spanned<T> {
    /// Joins a value and its place.
    pub fn new(value: T, span: &Span) -> Self {
        Self {
            value,
            span: (span.start, span.end),
        }
    }

    /// Returns the place.
    pub fn range(&self) -> Span {
        self.span.0..self.span.1
    }

    /// Returns another value at the same place.
    pub fn with<U>(&self, value: U) -> Spanned<U> {
        Spanned {
            value,
            span: self.span,
        }
    }
}

/// A problem, where it is, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file.
    pub file: Arc<SourceFile>,
    /// The place in it.
    pub span: Span,
    /// What is wrong, in one phrase.
    pub message: String,
    /// A remark at the place itself.
    pub label: Option<String>,
    /// Why it is wrong.
    pub because: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// States a problem at a place.
    pub fn new(file: &Arc<SourceFile>, span: Span, message: impl Into<String>) -> Self {
        Self {
            file: Arc::clone(file),
            span,
            message: message.into(),
            label: None,
            because: None,
            hint: None,
        }
    }

    /// Adds a remark at the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Adds the reason.
    #[must_use]
    pub fn because(mut self, because: impl Into<String>) -> Self {
        self.because = Some(because.into());
        self
    }

    /// Adds the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the line and column of the place, both from 1; columns count characters.
    pub fn position(&self) -> (usize, usize) {
        let before = self
            .file
            .text
            .get(..self.span.start)
            .unwrap_or(&self.file.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }
}

/// Returns the candidate that is most like a word, if one is like it at all.
///
/// Likeness is the Damerau-Levenshtein distance (optimal string alignment); at most a
/// third of the word may differ. The first of several equally near ones is taken.
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (wanted.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(wanted, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(200).collect();
    let b: Vec<char> = b.chars().take(200).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX);
            let mut cost = (at(&last, j) + usize::from(x != y))
                .min(at(&last, j + 1) + 1)
                .min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                cost = cost.min(at(&before, j - 1) + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(
            nearest("tools/dahs", ["tools/sed", "tools/dash"]),
            Some("tools/dash")
        );
        assert_eq!(nearest("x", ["tools/sed"]), None);
    }
}
