//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build packages and print where their outputs are
    Build(BuildArguments),
    /// Build images
    Image(ImageArguments),
    /// Rebuild what something was built from, and compare bit for bit
    Prove(ProveArguments),
    /// Print the log of a package's last build
    Log {
        /// A package, an action digest, or a store path
        target: String,
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

/// Commands on the store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// List every object
    Ls,
    /// Hash every object again and report what is not as recorded
    Verify,
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

    /// Where to put it: `oci:DIR`, `oci-archive:FILE` or `docker-archive:FILE`
    /// [default: an OCI layout in the store]
    #[arg(short, long, value_name = "TARGET")]
    pub output: Vec<String>,

    /// How much is done at once.
    #[command(flatten)]
    pub effort: Effort,
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
