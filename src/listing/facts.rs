//! What the content of a file says about it: format, linkage, and telling signs.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What a file's bytes say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentFacts {
    /// The format.
    pub kind: Kind,
    /// Signs of what the program is, whatever its name.
    pub signs: BTreeSet<Sign>,
    /// Secrets in it: where, and of which kind; never the secret.
    pub secrets: BTreeSet<Secret>,
    /// Paths of the machine that built it, as they stand in an ELF file.
    pub build_paths: BTreeSet<String>,
}

/// The format of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// An ELF file: a program, library or object file.
    Elf(Box<Elf>),
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

/// What the headers of an ELF file say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elf {
    /// The dynamic loader that the kernel would start (`PT_INTERP`).
    pub interpreter: Option<String>,
    /// Libraries that the loader would look for (`DT_NEEDED`).
    pub needed: Vec<String>,
    /// Set if the headers could not be read, so that nothing is known.
    pub unreadable: Option<String>,
    /// What it is for.
    pub role: Role,
    /// The machine that it runs on: `e_machine`.
    pub machine: u16,
    /// Directories in which it has the loader look (`DT_RPATH`, `DT_RUNPATH`).
    pub search: Vec<String>,
    /// How much of its relocations is read-only once it runs.
    pub relro: Relro,
    /// Whether its stack may be executed (`PT_GNU_STACK` with `PF_X`, or without the header).
    pub executable_stack: bool,
    /// Whether the loader has to write to its code (`DT_TEXTREL`).
    pub text_relocations: bool,
    /// Whether its functions check for a smashed stack; `None` where no symbol can tell.
    pub stack_protector: Option<bool>,
    /// Whether it calls the checked forms of functions that have one; `None` where no
    /// symbol can tell, or none of them is called.
    pub fortified: Option<bool>,
    /// Whether sections for a debugger are left in it.
    pub debug_sections: bool,
}

/// What an ELF file is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A program at a fixed address.
    Program,
    /// A program at any address (PIE).
    PositionIndependent,
    /// A shared library.
    Library,
    /// Anything else: an object file, a kernel module, a memory dump.
    #[default]
    Other,
}

/// How much of an ELF file's relocations is read-only once it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relro {
    /// Nothing.
    #[default]
    None,
    /// All but the table of functions that are bound late.
    Partial,
    /// Everything.
    Full,
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

    /// Returns whether it is something that is loaded and run: no object file.
    pub fn is_loaded(&self) -> bool {
        self.role != Role::Other
    }
}

/// A sign of what a program is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Sign {
    /// It holds the names of variables that only a shell manages.
    Shell {
        /// The names found.
        variables: Vec<Cow<'static, str>>,
    },
    /// It holds a table of many programs' names, as BusyBox and toybox do.
    MultiCall {
        /// How many names of programs from outside coreutils stand in one run.
        applets: usize,
    },
    /// It says of itself that it is a multi-call binary of this kind.
    Usage {
        /// The telling words.
        text: Cow<'static, str>,
    },
    /// It has a symbol of a multi-call binary's source.
    Symbol {
        /// The symbol.
        name: Cow<'static, str>,
    },
    /// It is compressed, so that its content cannot be seen.
    Packed {
        /// What did it.
        packer: Cow<'static, str>,
    },
    /// It reads the variables that only the interpreter of a language reads.
    Interpreter {
        /// The language.
        language: Cow<'static, str>,
    },
}

impl Sign {
    /// Returns whether it is a sign of BusyBox, toybox or their kin.
    pub fn is_multi_call(&self) -> bool {
        matches!(
            self,
            Self::MultiCall { .. } | Self::Usage { .. } | Self::Symbol { .. }
        )
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell { variables } => {
                write!(
                    f,
                    "it manages a shell's variables: {}",
                    variables.join(", ")
                )
            }
            Self::MultiCall { applets } => {
                write!(
                    f,
                    "it holds a table with {applets} names of common programs"
                )
            }
            Self::Usage { text } => write!(f, "it says `{text}`"),
            Self::Symbol { name } => write!(f, "it has the symbol `{name}`"),
            Self::Packed { packer } => write!(f, "it is compressed with {packer}"),
            Self::Interpreter { language } => write!(f, "it reads the variables of {language}"),
        }
    }
}

/// A secret in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Secret {
    /// What it is.
    pub kind: SecretKind,
    /// Where it starts, in bytes from the start of the file.
    pub offset: u64,
}

/// Kinds of secrets that their form gives away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SecretKind {
    /// A private key in PEM.
    PrivateKey,
    /// A key of a cloud: its id, or what is beside it.
    CloudKey,
    /// An access token of a code host or package registry.
    AccessToken,
    /// A login of a container registry.
    RegistryLogin,
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PrivateKey => "a private key",
            Self::CloudKey => "a cloud access key",
            Self::AccessToken => "an access token",
            Self::RegistryLogin => "a registry login",
        })
    }
}
