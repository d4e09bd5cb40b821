//! The catalogue of rules: id, severity, what each demands, and the controls it serves.
//!
//! `policy` decides whether an image keeps a rule; here is only what a policy file can
//! name. An id never changes its meaning.

use std::fmt;
use std::str::FromStr;

use super::diagnostic::nearest;

/// How bad a violation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Low,
    /// Helps an attacker who is in already, or hides what is there.
    Medium,
    /// Gives an attacker what should not be there.
    High,
}

impl Severity {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Low, Self::Medium, Self::High]
            .into_iter()
            .find(|severity| severity.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a severity (known: low, medium, high)"))
    }
}

/// A control of a published catalogue that a rule serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// A section of the CIS Docker Benchmark, version 1.6.0.
    Cis(&'static str),
    /// A section of NIST SP 800-190.
    Nist(&'static str),
    /// A level of the build track of SLSA, version 1.0.
    Slsa(&'static str),
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cis(section) => write!(f, "CIS Docker {section}"),
            Self::Nist(section) => write!(f, "NIST SP 800-190 {section}"),
            Self::Slsa(level) => write!(f, "SLSA {level}"),
        }
    }
}

/// What a rule can be given in a policy file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// `allow`: absolute paths, a directory with `/` at its end.
    Paths,
    /// `at-most`: a number.
    Number,
    /// `names`: texts.
    Names,
}

/// What is said of a rule.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its stable id.
    pub id: &'static str,
    /// How bad a violation is, unless a policy says otherwise.
    pub severity: Severity,
    /// What it demands, in a line.
    pub summary: &'static str,
    /// What it serves.
    pub controls: &'static [Control],
    /// What it can be given.
    pub takes: Takes,
}

/// Declares [`Rule`] and what is said of each in one place, so that neither can lack one.
macro_rules! rules {
    ($($name:ident $id:literal $severity:ident $takes:ident [$($catalogue:ident $section:literal),*] $summary:literal)*) => {
        /// A rule that an image can keep or violate.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule {
            $(#[doc = $summary] $name,)*
        }

        impl Rule {
            /// All rules, in the order in which they are listed and applied.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns what is said of it.
            pub fn about(self) -> &'static About {
                match self {
                    $(Self::$name => &About {
                        id: $id,
                        severity: Severity::$severity,
                        summary: $summary,
                        controls: &[$(Control::$catalogue($section)),*],
                        takes: Takes::$takes,
                    },)*
                }
            }
        }
    };
}

rules! {
    Explained "explained" High Nothing [Cis "4.11", Nist "4.1.5", Slsa "Build L1"]
        "Every file and link comes from a declared object"
    AllowedExecutables "allowed-executables" High Paths [Cis "4.3", Nist "4.1.2"]
        "Only listed files can be executed, and each listed one is there"
    NoShell "no-shell" High Paths [Cis "4.3", Nist "4.1.2"]
        "No shell, no script for one, and no multi-call binary"
    NoMultiCall "no-multi-call" High Paths [Cis "4.3", Nist "4.1.2"]
        "No BusyBox, toybox or kin, by content, whatever its name"
    NoPacked "no-packed-programs" High Paths [Nist "4.1.3"]
        "No program that is compressed, so that nobody can see what it is"
    NoInterpreter "no-interpreter" Medium Paths [Cis "4.3", Nist "4.1.2"]
        "No interpreter of a language, unless it is allowed"
    NoPackageManager "no-package-manager" Medium Paths [Cis "4.3", Nist "4.1.2"]
        "No package manager"
    NoCompiler "no-compiler" Medium Paths [Cis "4.3", Nist "4.1.2"]
        "No compiler, assembler or linker"
    NoNetworkTool "no-network-tool" Medium Paths [Cis "4.3", Nist "4.1.2"]
        "No tool that fetches, connects or scans, unless it is allowed"
    NoSetuid "no-setuid" High Paths [Cis "4.8", Nist "4.1.2"]
        "No setuid or setgid bit"
    NoCapabilities "no-capabilities" High Paths [Cis "4.8", Nist "4.1.2"]
        "No file gives capabilities to who executes it"
    NoWorldWritable "no-world-writable" Medium Paths [Nist "4.1.2"]
        "No file that everybody may write, and no such directory without the sticky bit"
    NoDevices "no-devices" High Paths [Nist "4.1.2"]
        "No device node and no named pipe"
    NoDanglingLinks "no-dangling-links" Low Paths [Nist "4.1.2"]
        "Every symbolic link leads to something in the image"
    NoEscapingLinks "no-escaping-links" Medium Paths [Nist "4.1.2"]
        "No symbolic link climbs above the root"
    NoCaseCollisions "no-case-collisions" Low Paths [Nist "4.1.2"]
        "No two names that differ by case only"
    Static "static" Medium Paths [Nist "4.1.2"]
        "Every ELF file is static"
    Pie "pie" Medium Paths [Nist "4.1.2"]
        "Every program can be loaded at any address"
    Relro "relro" Medium Paths [Nist "4.1.2"]
        "The relocations of every program and library are read-only once it runs"
    NoExecutableStack "no-executable-stack" High Paths [Nist "4.1.2"]
        "No program or library needs an executable stack"
    StackProtector "stack-protector" Low Paths [Nist "4.1.2"]
        "Every dynamic program checks for a smashed stack"
    Fortify "fortify" Low Paths [Nist "4.1.2"]
        "Every dynamic program calls the checked forms of the C library's functions"
    NoTextRelocations "no-text-relocations" Medium Paths [Nist "4.1.2"]
        "No loader has to write to a program's code"
    NoForeignRpath "no-foreign-rpath" Medium Paths [Nist "4.1.2"]
        "No program looks for libraries outside the image, or where everybody may write"
    LibrariesPresent "libraries-present" Medium Paths [Nist "4.1.2"]
        "The loader and every library that a program needs are in the image"
    NoDebugSections "no-debug-sections" Low Paths [Cis "4.3"]
        "No program or library has sections for a debugger"
    OneArchitecture "one-architecture" Medium Paths [Nist "4.1.2"]
        "Every program and library is for the image's processor"
    NonRootUser "non-root-user" High Nothing [Cis "4.1", Nist "4.1.2"]
        "The image runs as a user that is not root"
    EntrypointPresent "entrypoint-present" Low Nothing [Nist "4.1.2"]
        "The program that the image starts is in it"
    ReadOnlyRoot "read-only-root" Medium Nothing [Cis "5.13", Nist "4.4.4"]
        "Nothing but declared volumes is writable by the image's user"
    WritableWithoutPrograms "writable-without-programs" Medium Nothing [Nist "4.4.4"]
        "No program lies where the image's user may write"
    RequiredLabels "required-labels" Low Names [Nist "4.1.5"]
        "The image has the labels that are named"
    NoDebugTwin "no-debug-twin" High Nothing [Cis "4.3", Nist "4.1.2"]
        "The image is no debug twin, which is never for production"
    NoSecrets "no-secrets" High Paths [Cis "4.10", Nist "4.1.4"]
        "No private key, token or login"
    NoHiddenSecrets "no-hidden-secrets" High Paths [Cis "4.10", Nist "4.1.4"]
        "No private key, token or login in a lower layer that an upper one hides"
    NoSecretEnvironment "no-secret-environment" High Nothing [Cis "4.10", Nist "4.1.4"]
        "No variable or build command of the configuration holds a password or token"
    NoShellHistory "no-shell-history" Medium Paths [Nist "4.1.4"]
        "No history of what somebody typed"
    NoPackageCaches "no-package-caches" Low Paths [Cis "4.3"]
        "No package manager's cache or index"
    NoVersionControl "no-version-control" Medium Paths [Nist "4.1.4"]
        "No folder of a version control system"
    NoBuildPaths "no-build-paths" Low Paths [Nist "4.1.4"]
        "No path of the machine that built a program is left in it"
    MaximumSize "maximum-size" Low Number [Cis "4.3"]
        "All files together have at most so many bytes"
    MaximumLayers "maximum-layers" Low Number []
        "The image has at most so many layers"
    MaximumFiles "maximum-files" Low Number [Cis "4.3"]
        "The image has at most so many files"
    MaximumHidden "maximum-hidden" Low Number [Cis "4.3"]
        "What upper layers hide has at most so many bytes"
    LicensesAllowed "licenses-allowed" Medium Names []
        "The licence of every file is known, and one of those named"
    SourceKnown "source-known" High Nothing [Cis "4.11", Nist "4.1.5", Slsa "Build L1"]
        "The sources of every file are known by hash"
    NoSeed "no-seed" High Nothing [Cis "4.2", Nist "4.1.5", Slsa "Build L3"]
        "Nothing is, or refers to, the binary seed"
    ProofPresent "proof-present" Medium Nothing [Nist "4.1.5", Slsa "Build L3"]
        "Every file was rebuilt, and the bytes were the same"
}

impl Rule {
    /// Returns its id.
    pub fn as_str(self) -> &'static str {
        self.about().id
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|rule| rule.as_str() == text);
        found.copied().ok_or_else(|| {
            let ids = Self::ALL.iter().map(|rule| rule.as_str());
            match nearest(text, ids) {
                Some(near) => format!("`{text}` is not a rule; did you mean `{near}`?"),
                None => format!("`{text}` is not a rule; `kiln inspect --rules` lists all"),
            }
        })
    }
}
