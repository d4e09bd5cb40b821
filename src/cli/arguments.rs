//! What can be typed.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::derivation::Compression;

/// Builds software from source in sealed sandboxes, and images that hold only what was
/// declared.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, about, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Print results as JSON, one document
    #[arg(long, global = true)]
    pub json: bool,

    /// Where the store is [default: `KILN_STORE`, else `kiln` in the XDG data directory]
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,

    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: clap::ColorChoice,

    /// Show every line that builds write
    #[arg(short, long, global = true)]
    pub verbose: bool,

    /// Build also where this machine lacks a lock of the sandbox. What is built so is marked
    /// as not hermetic for good, and counts only with this option
    #[arg(long, global = true)]
    pub weak_sandbox: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build packages and print where their outputs are
    Build(BuildArguments),
    /// Build images
    Image(ImageArguments),
    /// Join images for several platforms into one, which each machine takes its own from
    Index(IndexArguments),
    /// Judge an image of any maker by the rules of a policy, or compare two
    Inspect(InspectArguments),
    /// Rebuild what something was built from, and compare bit for bit
    Prove(ProveArguments),
    /// Print the log of a package's last build
    Log {
        /// A package, an action digest, or a store path
        target: String,

        /// Follow a build that runs, also one of another kiln, until it ends
        #[arg(short, long)]
        follow: bool,
    },
    /// Show a package, or the exact bytes that identify its build
    Show(ShowArguments),
    /// Print what an output needs at run time
    Closure {
        /// A package or a store path
        target: String,
        /// Draw a tree
        #[arg(long)]
        tree: bool,
        /// Print sizes
        #[arg(long)]
        size: bool,
    },
    /// Print why one output needs another: the shortest chain, with file and offset
    Why {
        /// A package or a store path
        from: String,
        /// A package or a store path
        to: String,
    },
    /// Open a shell in the sandbox of a package's build
    Shell(ShellArguments),
    /// Run a program of a package in a sandbox of its own
    Run(RunArguments),
    /// Print how an image is to be run: for an OCI runtime, Kubernetes, Podman or Docker
    Runtime(RuntimeArguments),
    /// Print a bill of materials: every file with its package, source and licence, and what
    /// it was built with
    Sbom(SbomArguments),
    /// Compare two objects, closures or images: what was added, removed and changed
    Diff(DiffArguments),
    /// Draw what an output needs at run time, or what its build needs
    Graph(GraphArguments),
    /// Look into the store
    Store {
        /// What to do there.
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Test whether this machine can build, by trying it
    Doctor,
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// Returns whether an interrupt is an end that the command brings about itself: it ends
    /// builds, or has something to finish or to take back outside the store.
    pub(super) fn ends_in_order(&self) -> bool {
        match self {
            Self::Build(_) | Self::Image(_) | Self::Prove(_) | Self::Sbom(_) | Self::Runtime(_) => {
                true
            }
            Self::Store { command } => matches!(
                command,
                StoreCommand::Gc(_)
                    | StoreCommand::Verify { repair: true }
                    | StoreCommand::Export {
                        output: Some(_),
                        ..
                    }
            ),
            _ => false,
        }
    }
}

/// Commands on the store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// List every object
    Ls,
    /// Add a copy of a file or directory
    Add {
        /// The file or directory
        path: PathBuf,
        /// The readable part of its store path [default: its own name]
        #[arg(long)]
        name: Option<String>,
    },
    /// Print a file of an object, or list a directory of one
    Cat {
        /// A store path with a path below it, such as `/kiln/store/…-hello-2.12/bin/hello`
        path: String,
    },
    /// Look at every object again and report what is not as recorded
    Verify {
        /// Mend what is damaged: from other copies, by fetching, or by building again
        #[arg(long)]
        repair: bool,
    },
    /// Remove what nothing keeps
    Gc(GcArguments),
    /// What is kept from garbage collection
    Roots {
        /// What to do with them [default: ls]
        #[command(subcommand)]
        command: Option<RootsCommand>,
    },
    /// Print how much disk each object takes, alone and together with others
    Usage,
    /// Write objects and all they need to a stream
    Export {
        /// Packages or store paths
        #[arg(required = true, value_name = "TARGET")]
        targets: Vec<String>,
        /// The file to write [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Take in what `export` wrote, after checking all of it
    Import {
        /// The file to read [default: standard input]
        file: Option<PathBuf>,
    },
}

/// Arguments of `kiln store gc`.
#[derive(Debug, Args)]
pub struct GcArguments {
    /// Remove only as much as is needed to have at most so much on disk, least recently
    /// used first, such as `20G`
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_size: Option<u64>,

    /// Remove only what was not used for so long, such as `30d` or `12h`
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub unused_for: Option<std::time::Duration>,

    /// Only say what would be removed, and what stays and why
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// Commands on roots.
#[derive(Debug, Subcommand)]
pub enum RootsCommand {
    /// List them
    Ls,
    /// Keep an object, and all it needs, under a name
    Add {
        /// The name
        name: String,
        /// A package or a store path
        target: String,
    },
    /// Keep it no longer
    Rm {
        /// The name, or the path of the link
        name: String,
    },
}

/// Reads a number with a unit at its end.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.get(digits.len()..)?;
    let (_, factor) = units
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Takes the names of compressions, which completions offer.
fn compression() -> impl TypedValueParser<Value = Compression> {
    let names = Compression::NAMES.map(|(name, _)| name);
    PossibleValuesParser::new(names).map(|name| Compression::named(&name).unwrap_or_default())
}

fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 9] = [
        ("", 1),
        ("k", 1 << 10),
        ("m", 1 << 20),
        ("g", 1 << 30),
        ("t", 1 << 40),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
    ];
    with_unit(text, &UNITS).ok_or_else(|| "write a size as `500M`, `20G` or `1T`".to_owned())
}

fn age(text: &str) -> Result<std::time::Duration, String> {
    const UNITS: [(&str, u64); 5] = [
        ("s", 1),
        ("m", 60),
        ("h", 3600),
        ("d", 86400),
        ("w", 7 * 86400),
    ];
    with_unit(text, &UNITS)
        .map(std::time::Duration::from_secs)
        .ok_or_else(|| "write an age as `90m`, `12h`, `30d` or `8w`".to_owned())
}

/// How much is done at once.
#[derive(Debug, Args)]
pub struct Effort {
    /// Builds at once [default: the number of processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,

    /// Jobs that each build may use [default: the number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub cores: Option<u16>,

    /// Go on with whatever does not depend on a failure
    #[arg(short, long)]
    pub keep_going: bool,
}

/// Arguments of `kiln build`.
#[derive(Debug, Args)]
pub struct BuildArguments {
    /// Packages, such as `tools/hello` or `std:tools/hello`
    #[arg(required = true, value_name = "PACKAGE")]
    pub packages: Vec<String>,

    /// Make a symbolic link to the output, and keep it from garbage collection as long as
    /// the link is there
    #[arg(short, long, value_name = "FILE")]
    pub link: Option<PathBuf>,

    /// Say of everything that was built what had changed
    #[arg(long)]
    pub explain: bool,

    /// Only say what would be fetched and built
    #[arg(short = 'n', long, conflicts_with_all = ["explain", "link"])]
    pub dry_run: bool,

    /// How much is done at once.
    #[command(flatten)]
    pub effort: Effort,
}

/// Arguments of `kiln image`.
#[derive(Debug, Args)]
pub struct ImageArguments {
    /// Images, such as `images/web`
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,

    /// Rebuild everything that was built for it, and compare bit for bit
    #[arg(long)]
    pub check: bool,

    /// Where to put it: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`,
    /// `docker-archive:FILE[:NAME:TAG]` or `docker://HOST/NAME[:TAG]`
    /// [default: an OCI layout in the store]
    #[arg(short, long, value_name = "TARGET")]
    pub output: Vec<String>,

    /// How layers are encoded [default: as the image says]
    #[arg(long, value_name = "ENCODING", value_parser = compression())]
    pub compression: Option<Compression>,

    /// Say what was taken of each object and why, and what was left behind
    #[arg(long)]
    pub explain: bool,

    /// Put bills of materials beside it, as referrers: `spdx-2.3`, `spdx-3.0` or
    /// `cyclonedx-1.6`, several with commas between them
    #[arg(long, value_name = "FORMAT", value_delimiter = ',')]
    pub sbom: Vec<crate::sbom::Format>,

    /// Make its debug twin instead: the same layers, and the programs of `std:images/toolbox`
    /// in `/debug`; names and tags end in `-debug`
    #[arg(long)]
    pub debug: bool,

    /// Let an archive replace a file that kiln did not write
    #[arg(long)]
    pub force: bool,

    /// How much is done at once.
    #[command(flatten)]
    pub effort: Effort,
}

/// Arguments of `kiln index`.
#[derive(Debug, Args)]
pub struct IndexArguments {
    /// Layouts, archives or images of registries, as `oci:DIR[:TAG]`,
    /// `oci-archive:FILE[:TAG]` or `docker://HOST/NAME[:TAG]`, each for other platforms
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,

    /// Where to put it: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or
    /// `docker://HOST/NAME[:TAG]`
    #[arg(short, long, required = true, value_name = "TARGET")]
    pub output: Vec<String>,

    /// Let an archive replace a file that kiln did not write
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `kiln inspect`.
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// A layout directory or an archive, also as `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]` or
    /// `docker-archive:FILE[:TAG]`, or `docker://HOST/NAME[:TAG]`; with `--diff`, two of them
    #[arg(required_unless_present = "rules", num_args = 1..=2, value_name = "IMAGE")]
    pub images: Vec<String>,

    /// The policy: `minimal`, `hardened`, `regulated`, another by its name, or a file
    #[arg(short, long, value_name = "POLICY", default_value = "hardened")]
    pub policy: String,

    /// How the verdict is printed
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub format: InspectFormat,

    /// Which of several platforms, such as `linux/arm64` [default: the only one, else
    /// `linux/amd64`]
    #[arg(long, value_name = "OS/CPU")]
    pub platform: Option<crate::inspect::document::Platform>,

    /// List every rule, and judge nothing
    #[arg(long, conflicts_with_all = ["images", "diff"])]
    pub rules: bool,

    /// Say which files two images have in common, and which not
    #[arg(long)]
    pub diff: bool,
}

/// How `kiln inspect` prints a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum InspectFormat {
    /// For people: a line for each rule, and its evidence
    Table,
    /// Everything, as one JSON document
    Json,
    /// For code hosts and editors: SARIF 2.1.0
    Sarif,
}

/// Arguments of `kiln prove`.
#[derive(Debug, Args)]
pub struct ProveArguments {
    /// Packages or images
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<String>,

    /// How much is done at once.
    #[command(flatten)]
    pub effort: Effort,
}

/// Arguments of `kiln shell`.
#[derive(Debug, Args)]
pub struct ShellArguments {
    /// A package
    pub package: String,

    /// In the kept directory of its last build, which failed
    #[arg(long)]
    pub failed: bool,

    /// Run every phase before this one first: prepare, configure, build, check or install
    #[arg(long, value_name = "PHASE", conflicts_with = "failed")]
    pub at: Option<String>,

    /// Run this and end, instead of reading commands
    #[arg(short, long, value_name = "SCRIPT")]
    pub command: Option<String>,

    /// Print each step that sets up the sandbox, and do nothing
    #[arg(long, conflicts_with = "command")]
    pub plan: bool,

    /// How much is done at once.
    #[command(flatten)]
    pub effort: Effort,
}

/// Arguments of `kiln run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// A package
    pub package: String,

    /// The program in it [default: the only one in `bin`, or the one with the package's name]
    #[arg(long, value_name = "PATH")]
    pub program: Option<String>,

    /// Let it read a file or directory, at its own place or at another
    #[arg(long, value_name = "PATH[:INSIDE]")]
    pub read: Vec<String>,

    /// Let it read and change a file or directory, at its own place or at another
    #[arg(long, value_name = "PATH[:INSIDE]")]
    pub write: Vec<String>,

    /// Give it a variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,

    /// Where it starts [default: `/`]
    #[arg(short, long, value_name = "INSIDE")]
    pub workdir: Option<String>,

    /// Its arguments
    #[arg(last = true, value_name = "ARGS")]
    pub arguments: Vec<String>,

    /// How much is done at once.
    #[command(flatten)]
    pub effort: Effort,
}

/// Arguments of `kiln runtime`.
#[derive(Debug, Args)]
pub struct RuntimeArguments {
    /// An image, such as `images/web`
    pub image: String,

    /// What is to run it
    #[arg(long = "for", value_name = "WHAT", default_value = "oci")]
    pub form: RuntimeFormat,

    /// Write files into a directory, a filter of system calls among them [default: print]
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// How much is done at once.
    #[command(flatten)]
    pub effort: Effort,
}

/// What a runtime configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RuntimeFormat {
    /// An OCI runtime, such as crun or runc: the `config.json` of a bundle
    Oci,
    /// Kubernetes: a pod, as JSON
    Kubernetes,
    /// Podman: options of `podman run`
    Podman,
    /// Docker: options of `docker run`
    Docker,
    /// Seccomp: a filter that lets through what the image's programs can call
    Seccomp,
}

/// Arguments of `kiln sbom`.
#[derive(Debug, Args)]
pub struct SbomArguments {
    /// A package or an image; what is not built is built first
    pub target: String,

    /// The format: `spdx-2.3`, `spdx-3.0` or `cyclonedx-1.6`, each as JSON
    #[arg(short, long, value_name = "FORMAT", default_value = "spdx-2.3")]
    pub format: crate::sbom::Format,

    /// How much is done at once.
    #[command(flatten)]
    pub effort: Effort,
}

/// Arguments of `kiln diff`.
#[derive(Debug, Args)]
pub struct DiffArguments {
    /// A package, a store path, or an image
    pub old: String,

    /// A package, a store path, or an image
    pub new: String,

    /// Compare the objects that the two need at run time, not their files
    #[arg(long)]
    pub closure: bool,
}

/// Arguments of `kiln graph`.
#[derive(Debug, Args)]
pub struct GraphArguments {
    /// A package or a store path; with `--build`, a package or an image
    pub target: String,

    /// Draw the steps of the build, not what is needed at run time
    #[arg(long)]
    pub build: bool,

    /// In the language of Graphviz, which is the default
    #[arg(long, conflicts_with = "svg")]
    pub dot: bool,

    /// As a picture that every browser shows
    #[arg(long)]
    pub svg: bool,
}

/// Arguments of `kiln show`.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// A package, an action digest, or a store path
    #[arg(required_unless_present = "packages")]
    pub target: Option<String>,

    /// Print the action's canonical JSON: exactly the bytes whose BLAKE3 is its digest
    #[arg(long)]
    pub action: bool,

    /// List every package
    #[arg(long, conflicts_with = "action")]
    pub packages: bool,
}
