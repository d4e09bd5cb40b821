//! What the content of a file says about it: format, linkage, and telling signs.

use std::collections::BTreeSet;

/// What a file's bytes say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentFacts {
    /// The format.
    pub kind: Kind,
    /// Signs of what the program is, whatever its name.
    pub signs: BTreeSet<Sign>,
}

/// The format of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Kind {
    /// An ELF file: a program, library or object file.
    Elf(Elf),
    /// A text that names its interpreter.
    Script {
        /// The interpreter's path.
        interpreter: String,
    },
    /// An archive of object files.
    Archive,
    /// Anything else.
    #[default]
    Other,
}

/// The linkage of an ELF file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elf {
    /// The dynamic loader that the kernel would start (`PT_INTERP`).
    pub interpreter: Option<String>,
    /// Libraries that the loader would look for (`DT_NEEDED`).
    pub needed: Vec<String>,
    /// Set if the headers could not be read, so that nothing is known.
    pub unreadable: Option<String>,
}

impl Elf {
    /// Returns why the file is not static, or `None` when it is.
    pub fn why_dynamic(&self) -> Option<String> {
        if let Some(why) = &self.unreadable {
            return Some(format!("its headers cannot be read: {why}"));
        }
        if let Some(interpreter) = &self.interpreter {
            return Some(format!("it asks for the loader `{interpreter}`"));
        }
        (!self.needed.is_empty()).then(|| format!("it needs {}", self.needed.join(", ")))
    }
}

/// A sign of what a program is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// It holds the names of variables that only a shell manages.
    Shell {
        /// The names found.
        variables: Vec<&'static str>,
    },
    /// It holds a table of many programs' names, as BusyBox and toybox do.
    MultiCall {
        /// How many names of common programs stand in one run.
        applets: usize,
    },
}
