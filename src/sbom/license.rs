//! Licence expressions as SPDX has them today.

use spdx::{Expression, ParseMode};

/// Deprecated identifiers that are an exception to another licence, and what SPDX says
/// instead (the list's own deprecation notes).
const WITH_EXCEPTION: [(&str, &str); 8] = [
    (
        "GPL-2.0-with-GCC-exception",
        "GPL-2.0-only WITH GCC-exception-2.0",
    ),
    (
        "GPL-2.0-with-autoconf-exception",
        "GPL-2.0-only WITH Autoconf-exception-2.0",
    ),
    (
        "GPL-2.0-with-bison-exception",
        "GPL-2.0-or-later WITH Bison-exception-2.2",
    ),
    (
        "GPL-2.0-with-classpath-exception",
        "GPL-2.0-only WITH Classpath-exception-2.0",
    ),
    (
        "GPL-2.0-with-font-exception",
        "GPL-2.0-only WITH Font-exception-2.0",
    ),
    (
        "GPL-3.0-with-GCC-exception",
        "GPL-3.0-only WITH GCC-exception-3.1",
    ),
    (
        "GPL-3.0-with-autoconf-exception",
        "GPL-3.0-only WITH Autoconf-exception-3.0",
    ),
    ("bzip2-1.0.5", "bzip2-1.0.6"),
];

/// Returns an expression with every deprecated identifier replaced by the one that SPDX
/// names instead, or `None` for what is no SPDX expression at all.
pub fn current(text: &str) -> Option<String> {
    let words: Vec<&str> = text
        .split(' ')
        .map(|word| {
            let found = WITH_EXCEPTION.iter().find(|(old, _)| *old == word);
            found.map_or(word, |(_, new)| new)
        })
        .collect();
    let text = words.join(" ");
    if Expression::parse_mode(&text, ParseMode::STRICT).is_ok() {
        return Some(text);
    }
    let fixed = Expression::canonicalize(&text).ok().flatten()?;
    Expression::parse_mode(&fixed, ParseMode::STRICT).ok()?;
    Some(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deprecated_identifiers_become_those_of_today() {
        for (written, expected) in [
            ("MIT", Some("MIT")),
            ("GPL-2.0", Some("GPL-2.0-only")),
            ("GPL-2.0+ AND MIT", Some("GPL-2.0-or-later AND MIT")),
            (
                "(LGPL-2.1 OR MIT) AND Zlib",
                Some("(LGPL-2.1-only OR MIT) AND Zlib"),
            ),
            (
                "GPL-3.0-with-GCC-exception",
                Some("GPL-3.0-only WITH GCC-exception-3.1"),
            ),
            (
                "GPL-3.0-or-later AND GPL-2.0-or-later AND Artistic-1.0-Perl",
                Some("GPL-3.0-or-later AND GPL-2.0-or-later AND Artistic-1.0-Perl"),
            ),
            ("Do what you like", None),
            ("MIT AND", None),
        ] {
            assert_eq!(current(written).as_deref(), expected, "{written}");
        }
    }
}
