//! What the machine, the environment and `kiln.toml` say; read once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::arguments::Arguments;
use super::report::{Failure, Problem};
use crate::derivation::{Diagnostic, SourceFile};
use crate::fetch::{Mirrors, apt, cargo};

/// Settings of this run.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// The store's directory.
    pub store: PathBuf,
    /// The project: the nearest directory upwards that has a `kiln.toml`.
    pub project: Option<Project>,
    /// Base addresses of mirrors.
    pub mirrors: Mirrors,
}

/// A directory with a `kiln.toml`.
#[derive(Debug, Clone)]
pub(super) struct Project {
    /// The directory of its derivation files.
    pub derivations: PathBuf,
}

/// Largest `kiln.toml`, in bytes.
const MAX_FILE: u64 = 1 << 20;

impl Settings {
    pub(super) fn read(arguments: &Arguments) -> Result<Self, Failure> {
        let mut project = None;
        let mut mirrors = Mirrors::default();
        if let Some(file) = find_upwards("kiln.toml") {
            let (found, bases) = read_project(&file)?;
            project = Some(found);
            mirrors.bases = bases;
        }
        mirrors.bases.extend(mirrors_of_environment());
        // What apt and Cargo know comes after what was said on purpose.
        add_bases(
            &mut mirrors,
            "debian",
            apt::read_directory(Path::new("/etc/apt")),
        );
        if let Some(home) = cargo_home() {
            add_bases(&mut mirrors, "crates", cargo::read_home(&home));
        }
        Ok(Self {
            store: store_directory(arguments)?,
            project,
            mirrors,
        })
    }
}

/// Adds bases to those that a mirror has.
fn add_bases(mirrors: &mut Mirrors, name: &str, bases: Vec<String>) {
    let known = mirrors.bases.entry(name.to_owned()).or_default();
    for base in bases {
        if !known.contains(&base) {
            known.push(base);
        }
    }
}

/// Returns where Cargo keeps its files.
fn cargo_home() -> Option<PathBuf> {
    let chosen = variable("CARGO_HOME").map(PathBuf::from);
    chosen.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}

/// Where systems keep the certificates of the authorities that they trust: Debian and its
/// kin, Fedora, SUSE, Alpine.
const AUTHORITIES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Returns files with the certificates that this machine trusts; the first that there is
/// counts.
pub(super) fn authorities() -> Vec<PathBuf> {
    match variable("SSL_CERT_FILE") {
        Some(file) => vec![PathBuf::from(file)],
        None => AUTHORITIES.iter().map(PathBuf::from).collect(),
    }
}

/// The prefix of variables that name a mirror's bases, separated by spaces.
const MIRROR_VARIABLE: &str = "KILN_MIRROR_";

fn mirrors_of_environment() -> BTreeMap<String, Vec<String>> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter_map(|(name, value)| {
            let mirror = name.strip_prefix(MIRROR_VARIABLE)?.to_ascii_lowercase();
            let bases: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
            (!bases.is_empty()).then_some((mirror, bases))
        })
        .collect()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn store_directory(arguments: &Arguments) -> Result<PathBuf, Failure> {
    let chosen = arguments
        .store
        .clone()
        .or_else(|| variable("KILN_STORE").map(PathBuf::from))
        .or_else(|| variable("XDG_DATA_HOME").map(|data| PathBuf::from(data).join("kiln")))
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".local/share/kiln")));
    let Some(chosen) = chosen else {
        return Err(Problem::new("it is not known where the store is")
            .because("neither `KILN_STORE`, `XDG_DATA_HOME` nor `HOME` is set")
            .hint("name a directory with `--store DIR`")
            .into());
    };
    std::path::absolute(&chosen).map_err(|error| {
        Problem::new(format!("`{}` is not a directory name", chosen.display()))
            .because(error.to_string())
            .into()
    })
}

fn find_upwards(name: &str) -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors()
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

fn read_project(file: &Path) -> Result<(Project, BTreeMap<String, Vec<String>>), Failure> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        derivations: Option<PathBuf>,
        #[serde(default)]
        mirrors: BTreeMap<String, Vec<String>>,
    }
    let unreadable = |why: String| {
        Failure::from(Problem::new(format!("cannot read `{}`", file.display())).because(why))
    };
    let length = std::fs::metadata(file)
        .map_err(|error| unreadable(error.to_string()))?
        .len();
    if length > MAX_FILE {
        return Err(unreadable(format!(
            "it has {length} bytes; a `kiln.toml` has at most 1 MiB"
        )));
    }
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
    let settings: File = toml::from_str(&text).map_err(|error| {
        let source = Arc::new(SourceFile {
            package: "kiln.toml".parse().expect("a package name"),
            shown: file.display().to_string(),
            text: text.clone(),
        });
        let diagnostic = Diagnostic::new(
            &source,
            error.span().unwrap_or(0..0),
            error.message().to_owned(),
        )
        .hint("known keys: `derivations = \"DIR\"` and `[mirrors]`");
        Failure::Diagnostics(vec![diagnostic])
    })?;
    let directory = file.parent().unwrap_or(Path::new("."));
    let derivations = directory.join(
        settings
            .derivations
            .unwrap_or_else(|| PathBuf::from("derivations")),
    );
    Ok((Project { derivations }, settings.mirrors))
}
