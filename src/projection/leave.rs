//! What is left out of an object that is taken as a whole: parts that no program needs at
//! run time.
//!
//! The rules speak of paths as packages install them, with or without `usr/`. A file that
//! an image names itself, or that a taken file names, is taken all the same, and a content
//! may keep what a rule would leave out.

use crate::hash::RelPath;

/// A rule that leaves files out.
#[derive(Debug, PartialEq, Eq)]
pub struct LeaveOut {
    /// Its name, for `keep`.
    pub name: &'static str,
    /// What it speaks of, in words.
    pub about: &'static str,
    /// Directories that are left out with all they hold.
    directories: &'static [&'static str],
    /// Ends of file names that are left out wherever they lie.
    endings: &'static [&'static str],
}

/// The rules, by name.
pub const LEFT_OUT: [LeaveOut; 7] = [
    LeaveOut {
        name: "build-metadata",
        about: "what build systems look for",
        directories: &[
            "lib/cmake",
            "lib/pkgconfig",
            "share/aclocal",
            "share/cmake",
            "share/pkgconfig",
        ],
        endings: &[".la"],
    },
    LeaveOut {
        name: "completions",
        about: "completions for shells",
        directories: &["share/bash-completion", "share/fish", "share/zsh"],
        endings: &[],
    },
    LeaveOut {
        name: "debug-information",
        about: "what debuggers read",
        directories: &["lib/debug", "share/gdb"],
        endings: &[".debug"],
    },
    LeaveOut {
        name: "documentation",
        about: "what people read",
        directories: &[
            "doc",
            "info",
            "man",
            "share/doc",
            "share/gtk-doc",
            "share/info",
            "share/man",
        ],
        endings: &[],
    },
    LeaveOut {
        name: "headers",
        about: "what compilers read",
        directories: &["include"],
        endings: &[],
    },
    LeaveOut {
        name: "locales",
        about: "messages in other languages",
        directories: &["share/locale", "share/i18n"],
        endings: &[],
    },
    LeaveOut {
        name: "static-libraries",
        about: "what linkers read",
        directories: &[],
        endings: &[".a", ".o"],
    },
];

/// Returns the rule that leaves a file out, or `None`.
pub fn left_out(path: &RelPath) -> Option<&'static LeaveOut> {
    let text = path.as_str();
    let text = text.strip_prefix("usr/").unwrap_or(text);
    let text = text.strip_prefix("local/").unwrap_or(text);
    let within = |directory: &str| {
        text.strip_prefix(directory)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    LEFT_OUT.iter().find(|rule| {
        rule.directories.iter().any(|directory| within(directory))
            || rule.endings.iter().any(|ending| text.ends_with(ending))
    })
}

/// Returns the rule of a name.
pub fn rule_named(name: &str) -> Option<&'static LeaveOut> {
    LEFT_OUT.iter().find(|rule| rule.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(path: &str) -> Option<&'static str> {
        left_out(&path.parse().unwrap()).map(|rule| rule.name)
    }

    #[test]
    fn paths_are_judged_by_where_packages_install_them() {
        for (path, expected) in [
            ("include/zlib.h", Some("headers")),
            ("usr/include", Some("headers")),
            ("usr/local/include/x.h", Some("headers")),
            ("share/man/man1/x.1", Some("documentation")),
            ("lib/libz.a", Some("static-libraries")),
            ("lib/pkgconfig/zlib.pc", Some("build-metadata")),
            ("share/locale/de/LC_MESSAGES/x.mo", Some("locales")),
            ("lib/libz.so.1", None),
            ("bin/include", None),
            ("includes/x", None),
            ("srv/www/doc/index.html", None),
        ] {
            assert_eq!(rule(path), expected, "{path}");
        }
    }
}
