//! Names that are safe in a path, in a shell word and in a hashed document.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A text that is not a name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty or longer than the kind allows.
    #[error("a {kind} has 1 to {max} characters, `{text}` has {}", text.len())]
    Length {
        /// What kind of name was wanted.
        kind: &'static str,
        /// The longest allowed, in bytes.
        max: usize,
        /// The offending text.
        text: String,
    },
    /// A character that the kind does not allow.
    #[error("`{character}` is not allowed in the {kind} `{text}` (allowed: {allowed})")]
    Character {
        /// What kind of name was wanted.
        kind: &'static str,
        /// The first offending character.
        character: char,
        /// The offending text.
        text: String,
        /// The allowed characters, in words.
        allowed: &'static str,
    },
    /// A first character that the kind does not allow.
    #[error("the {kind} `{text}` must start with a letter or a digit")]
    Start {
        /// What kind of name was wanted.
        kind: &'static str,
        /// The offending text.
        text: String,
    },
}

fn check(
    kind: &'static str,
    text: &str,
    max: usize,
    allowed: &'static str,
    permits: fn(char) -> bool,
) -> Result<(), NameError> {
    if text.is_empty() || text.len() > max {
        return Err(NameError::Length {
            kind,
            max,
            text: text.chars().take(max + 1).collect(),
        });
    }
    if let Some(character) = text.chars().find(|&c| !permits(c)) {
        return Err(NameError::Character {
            kind,
            character,
            text: text.to_owned(),
            allowed,
        });
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(NameError::Start {
            kind,
            text: text.to_owned(),
        });
    }
    Ok(())
}

macro_rules! name_kind {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal, $allowed:literal, $permits:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check($kind, text, $max, $allowed, $permits)?;
                Ok(Self(text.into()))
            }
        }
    };
}

name_kind! {
    /// The readable part of a store path: `dash-0.5.12`, `dash-0.5.12-doc`.
    ObjectName, "object name", 128, "letters, digits and `+ - . _`",
    |c| c.is_ascii_alphanumeric() || "+-._".contains(c)
}
name_kind! {
    /// An output of a derivation: `out`, `dev`. It is also a shell variable in the build.
    OutputName, "output name", 32, "lower-case letters, digits and `_`",
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}
name_kind! {
    /// A package as the user names it: its derivation file's path below `derivations/`
    /// without the extension, with a `std:` prefix for the embedded set (`std:tools/dash`).
    PackageName, "package name", 200, "letters, digits and `+ - . _ / :`",
    |c| c.is_ascii_alphanumeric() || "+-._/:".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses() {
        for good in ["a", "dash-0.5.12", "gtk+3", "x_y", "7zip"] {
            assert!(good.parse::<ObjectName>().is_ok(), "{good}");
        }
        for bad in [
            "", ".", "..", ".hidden", "-flag", "a/b", "a b", "é", "a\n", "a\0",
        ] {
            assert!(bad.parse::<ObjectName>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(128).parse::<ObjectName>().is_ok());
        assert!("a".repeat(129).parse::<ObjectName>().is_err());
    }
}
