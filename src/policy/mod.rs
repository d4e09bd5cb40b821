//! Rules over an image's complete listing. Pure.
//!
//! In: an [`ImageListing`], of an image that kiln builds or of another's, and the rules
//! of a policy. Out: a verdict for each rule with its evidence, and what is waived with a
//! reason. A rule sees content, not names, wherever content can tell. What nobody can know
//! of an image is *not assessed*, which is never the same as passed.
//!
//! | file | its rules speak of |
//! |---|---|
//! | `origin` | where files come from: objects, sources, proofs, licences, the seed |
//! | `executables` | what can be executed, and with which privilege |
//! | `shells` | shells, multi-call binaries, compressed programs |
//! | `programs` | interpreters, compilers, package managers, network tools |
//! | `elf` | how programs and libraries are linked and hardened |
//! | `files` | modes, devices, links, names |
//! | `configuration` | user, writable places, labels |
//! | `secrets` | secrets and what people and machines leave behind |
//! | `sizes` | how much there may be |

mod built;
mod configuration;
mod elf;
mod executables;
mod files;
mod links;
mod origin;
mod programs;
mod secrets;
mod set;
mod shells;
mod sizes;

use std::collections::BTreeMap;

pub use built::{Known, listing};
pub use set::{Effective, gather};

use crate::derivation::{Demand, Exception, Parameters, Rule, Severity};
use crate::hash::{RelPath, STORE_PREFIX, StorePath};
use crate::listing::facts::{ContentFacts, Elf, Kind};
use crate::listing::image::{ImageEntry, ImageListing, Node};

/// An image and what a rule was given.
#[derive(Debug, Clone, Copy)]
struct Subject<'a> {
    image: &'a ImageListing,
    parameters: &'a Parameters,
}

/// What a rule says of an image.
#[derive(Debug, Default)]
struct Outcome {
    /// What violates it.
    findings: Vec<Remark>,
    /// What it cannot tell, and why.
    unknown: Vec<Remark>,
}

/// Something to say of a file, or of the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// The file; `None` for the whole image.
    pub path: Option<RelPath>,
    /// What is to be said, in words, with the evidence.
    pub message: String,
}

impl std::fmt::Display for Remark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.path {
            Some(path) => write!(f, "/{path}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Whether an image keeps a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It does.
    Passed,
    /// It does, but for what is waived.
    Waived,
    /// It cannot be told.
    NotAssessed,
    /// It does not.
    Failed,
}

impl Status {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "pass",
            Self::Waived => "waived",
            Self::NotAssessed => "not assessed",
            Self::Failed => "fail",
        }
    }
}

/// What is found about one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The rule.
    pub rule: Rule,
    /// How bad a violation is.
    pub severity: Severity,
    /// Violations that nothing waives, sorted.
    pub findings: Vec<Remark>,
    /// Violations that are waived, each with its reason.
    pub waived: Vec<(Remark, String)>,
    /// What cannot be told, and why.
    pub unknown: Vec<Remark>,
}

impl Judgement {
    /// Returns whether the image keeps the rule.
    pub fn status(&self) -> Status {
        if !self.findings.is_empty() {
            Status::Failed
        } else if !self.unknown.is_empty() {
            Status::NotAssessed
        } else if !self.waived.is_empty() {
            Status::Waived
        } else {
            Status::Passed
        }
    }
}

/// What a policy says of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// One for each rule, in the order of the catalogue.
    pub rules: Vec<Judgement>,
    /// Exceptions that waive nothing.
    pub unused: Vec<Exception>,
}

impl Verdict {
    /// Returns whether nothing violates the policy.
    pub fn holds(&self) -> bool {
        self.unused.is_empty() && self.rules.iter().all(|rule| rule.findings.is_empty())
    }

    /// Returns every violation that nothing waives: path by path, and of each the rules in
    /// the order of the catalogue.
    pub fn findings(&self) -> Vec<(Rule, &Remark)> {
        let rules = self.rules.iter();
        let mut all: Vec<(Rule, &Remark)> = rules
            .flat_map(|judged| judged.findings.iter().map(|remark| (judged.rule, remark)))
            .collect();
        all.sort_by_key(|(rule, remark)| (&remark.path, *rule, &remark.message));
        all
    }

    /// Returns every waived violation with its reason, in the order of the findings.
    pub fn waived(&self) -> Vec<(Rule, &Remark, &str)> {
        let rules = self.rules.iter();
        let mut all: Vec<(Rule, &Remark, &str)> = rules
            .flat_map(|judged| {
                let waived = judged.waived.iter();
                waived.map(|(remark, reason)| (judged.rule, remark, reason.as_str()))
            })
            .collect();
        all.sort_by_key(|(rule, remark, _)| (&remark.path, *rule, &remark.message));
        all
    }

    /// Returns how many rules have a status.
    pub fn count(&self, status: Status) -> usize {
        let rules = self.rules.iter();
        rules.filter(|judged| judged.status() == status).count()
    }
}

impl Outcome {
    fn find(&mut self, path: &RelPath, message: impl Into<String>) {
        self.findings.push(Remark {
            path: Some(path.clone()),
            message: message.into(),
        });
    }

    fn find_in_image(&mut self, message: impl Into<String>) {
        self.findings.push(Remark {
            path: None,
            message: message.into(),
        });
    }

    fn cannot_tell(&mut self, path: Option<&RelPath>, message: impl Into<String>) {
        self.unknown.push(Remark {
            path: path.cloned(),
            message: message.into(),
        });
    }
}

impl<'a> Subject<'a> {
    /// Returns every regular file with its facts, where they are known.
    fn files(
        self,
    ) -> impl Iterator<Item = (&'a RelPath, &'a ImageEntry, Option<&'a ContentFacts>)> {
        self.image
            .entries
            .iter()
            .filter_map(move |(path, entry)| match &entry.node {
                Node::File { digest, .. } => Some((path, entry, self.image.facts.get(digest))),
                _ => None,
            })
    }

    /// Returns every program and library; what cannot be read is reported as unknown.
    fn loaded(self, outcome: &mut Outcome) -> Vec<(&'a RelPath, &'a ImageEntry, &'a Elf)> {
        let mut loaded = Vec::new();
        for (path, entry, facts) in self.files() {
            let Some(Kind::Elf(elf)) = facts.map(|facts| &facts.kind) else {
                continue;
            };
            match &elf.unreadable {
                Some(why) => {
                    let message = format!("its headers cannot be read: {why}");
                    outcome.cannot_tell(Some(path), message);
                }
                None if elf.is_loaded() => loaded.push((path, entry, &**elf)),
                None => {}
            }
        }
        loaded
    }

    fn allows(self, path: &RelPath) -> bool {
        self.parameters
            .allow
            .iter()
            .any(|pattern| pattern.holds(path))
    }
}

pub use configuration::DEBUG_LABEL;

/// Applies one rule.
fn apply(rule: Rule, subject: Subject<'_>) -> Outcome {
    match rule {
        Rule::Explained => origin::explained(subject),
        Rule::SourceKnown => origin::source_known(subject),
        Rule::NoSeed => origin::no_seed(subject),
        Rule::ProofPresent => origin::proof_present(subject),
        Rule::LicensesAllowed => origin::licenses_allowed(subject),
        Rule::AllowedExecutables => executables::allowed(subject),
        Rule::NoSetuid => executables::no_setuid(subject),
        Rule::NoCapabilities => executables::no_capabilities(subject),
        Rule::NoShell => shells::no_shell(subject),
        Rule::NoMultiCall => shells::no_multi_call(subject),
        Rule::NoPacked => shells::no_packed(subject),
        Rule::NoInterpreter => programs::no_interpreter(subject),
        Rule::NoPackageManager => programs::no_package_manager(subject),
        Rule::NoCompiler => programs::no_compiler(subject),
        Rule::NoNetworkTool => programs::no_network_tool(subject),
        Rule::NoWorldWritable => files::no_world_writable(subject),
        Rule::NoDevices => files::no_devices(subject),
        Rule::NoDanglingLinks => files::no_dangling_links(subject),
        Rule::NoEscapingLinks => files::no_escaping_links(subject),
        Rule::NoCaseCollisions => files::no_case_collisions(subject),
        Rule::Static => elf::all_static(subject),
        Rule::Pie => elf::pie(subject),
        Rule::Relro => elf::relro(subject),
        Rule::NoExecutableStack => elf::no_executable_stack(subject),
        Rule::StackProtector => elf::stack_protector(subject),
        Rule::Fortify => elf::fortify(subject),
        Rule::NoTextRelocations => elf::no_text_relocations(subject),
        Rule::NoForeignRpath => elf::no_foreign_rpath(subject),
        Rule::LibrariesPresent => elf::libraries_present(subject),
        Rule::NoDebugSections => elf::no_debug_sections(subject),
        Rule::OneArchitecture => elf::one_architecture(subject),
        Rule::NonRootUser => configuration::non_root_user(subject),
        Rule::EntrypointPresent => configuration::entrypoint_present(subject),
        Rule::ReadOnlyRoot => configuration::read_only_root(subject),
        Rule::WritableWithoutPrograms => configuration::writable_without_programs(subject),
        Rule::RequiredLabels => configuration::required_labels(subject),
        Rule::NoDebugTwin => configuration::no_debug_twin(subject),
        Rule::NoSecretEnvironment => configuration::no_secret_environment(subject),
        Rule::NoSecrets => secrets::no_secrets(subject),
        Rule::NoHiddenSecrets => secrets::no_hidden_secrets(subject),
        Rule::NoShellHistory => secrets::no_shell_history(subject),
        Rule::NoPackageCaches => secrets::no_package_caches(subject),
        Rule::NoVersionControl => secrets::no_version_control(subject),
        Rule::NoBuildPaths => secrets::no_build_paths(subject),
        Rule::MaximumSize => sizes::maximum_size(subject),
        Rule::MaximumLayers => sizes::maximum_layers(subject),
        Rule::MaximumFiles => sizes::maximum_files(subject),
        Rule::MaximumHidden => sizes::maximum_hidden(subject),
    }
}

/// Applies rules to an image. What a rule's `allow` names is left out of its findings.
pub fn evaluate(image: &ImageListing, demands: &[Demand], exceptions: &[Exception]) -> Verdict {
    let demands: BTreeMap<Rule, &Demand> =
        demands.iter().map(|demand| (demand.rule, demand)).collect();
    let mut verdict = Verdict::default();
    let mut used = vec![false; exceptions.len()];
    for (rule, demand) in demands {
        let subject = Subject {
            image,
            parameters: &demand.parameters,
        };
        let outcome = apply(rule, subject);
        let mut judged = Judgement {
            rule,
            severity: demand.severity,
            findings: Vec::new(),
            waived: Vec::new(),
            unknown: left(outcome.unknown, subject),
        };
        for remark in left(outcome.findings, subject) {
            let mut waiver = None;
            for (exception, used) in exceptions.iter().zip(&mut used) {
                if exception.rule == rule && is_about(exception, remark.path.as_ref()) {
                    *used = true;
                    waiver = waiver.or(Some(exception));
                }
            }
            match waiver {
                Some(exception) => judged.waived.push((remark, exception.reason.clone())),
                None => judged.findings.push(remark),
            }
        }
        verdict.rules.push(judged);
    }
    verdict.unused = exceptions
        .iter()
        .zip(used)
        .filter(|(_, used)| !used)
        .map(|(exception, _)| exception.clone())
        .collect();
    verdict
}

/// Returns whether an exception is about a path. Where an object of the store lies is known
/// only once it is built, so that the digest may be left out.
fn is_about(exception: &Exception, path: Option<&RelPath>) -> bool {
    match (&exception.path, path) {
        (None, None) => true,
        (Some(written), Some(path)) => {
            written == path || without_digest(path).is_some_and(|short| short == written.as_str())
        }
        _ => false,
    }
}

/// Returns a path below the store without its object's digest; `None` for any other path.
fn without_digest(path: &RelPath) -> Option<String> {
    let store = STORE_PREFIX.trim_start_matches('/');
    let inside = path.as_str().strip_prefix(store)?.strip_prefix('/')?;
    let (base, below) = inside.split_once('/')?;
    let object = StorePath::from_base_name(base).ok()?;
    Some(format!("{store}/{}/{below}", object.name()))
}

/// Returns the remarks that `allow` leaves, sorted, each once.
fn left(mut remarks: Vec<Remark>, subject: Subject<'_>) -> Vec<Remark> {
    remarks.retain(|remark| {
        !remark
            .path
            .as_ref()
            .is_some_and(|path| subject.allows(path))
    });
    remarks.sort();
    remarks.dedup();
    remarks
}

#[cfg(test)]
mod tests;
