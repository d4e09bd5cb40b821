//! Everything that most commands need, opened once.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_sandbox::{Cancel, Launcher};

use super::arguments::{Arguments, Effort};
use super::evaluation::{self, Known};
use super::hints;
use super::library::Files;
use super::opening;
use super::progress::Progress;
use super::report::{Failure, Output, Problem};
use super::settings::{self, Settings};
use crate::build::Builder;
use crate::fetch::Fetcher;
use crate::hash::{PackageName, StorePath};
use crate::image::registry::{CredentialFiles, Reference, Registry};
use crate::plan::{self, Graph, LoadError, Loaded, StepId};
use crate::realise::{Realised, Realiser};
use crate::store::{Hermeticity, Lacking, Store};

/// What a command works with.
pub(super) struct Session {
    pub output: Output,
    pub store: Store,
    pub launcher: Launcher,
    pub files: Files,
    pub cancel: Cancel,
    /// Whether results count that are not hermetic.
    pub hermeticity: Hermeticity,
    fetcher: Fetcher,
}

/// What a user named.
pub(super) enum Target {
    /// A package.
    Package(PackageName),
    /// An object of the store.
    Object(StorePath),
    /// An action.
    Action(crate::hash::ActionDigest),
}

impl Session {
    pub(super) fn open(arguments: &Arguments, output: &Output) -> Result<Self, Failure> {
        let settings = Settings::read(arguments)?;
        let store = Store::open_watched(&settings.store, &|event| opening::tell(output, event))
            .map_err(|error| hints::store(&error))?;
        let cancel = Cancel::new()
            .map_err(|error| Problem::new("cannot start").because(error.to_string()))?;
        // Everything else ends at once: what it leaves, the next command removes.
        if arguments.command.ends_in_order() {
            stop_on_signals(&cancel);
        }
        Ok(Self {
            output: *output,
            store,
            launcher: Launcher::current(),
            files: Files::new(settings.project.as_ref()),
            cancel,
            hermeticity: if arguments.weak_sandbox {
                Hermeticity::Waived
            } else {
                Hermeticity::Required
            },
            fetcher: Fetcher::new(settings.mirrors, ureq::Proxy::try_from_env())
                .trusting(settings::authorities()),
        })
    }

    /// Loads packages with everything they need.
    pub(super) fn load(&self, names: &[PackageName]) -> Result<Loaded, Failure> {
        plan::load(&self.files, names).map_err(|error| match error {
            LoadError::Diagnostics(all) => Failure::Diagnostics(all),
            LoadError::Unknown { package, nearest } => {
                let problem = Problem::new(format!("there is no package `{package}`"));
                match nearest {
                    Some(near) => problem.hint(format!("did you mean `{near}`?")),
                    None => problem.hint("`kiln show --packages` lists every package"),
                }
                .into()
            }
            LoadError::Unreadable { package, why } => {
                Problem::new(format!("cannot read the derivation file of `{package}`"))
                    .because(why)
                    .into()
            }
        })
    }

    /// Realises a graph; any failed step is a failure of the whole.
    pub(super) fn realise(
        &self,
        loaded: &Loaded,
        graph: &Graph,
        effort: &Effort,
    ) -> Result<Realised, Failure> {
        self.realise_only(loaded, graph, effort, None)
    }

    /// Realises steps of a graph, which must include what they need.
    pub(super) fn realise_only(
        &self,
        loaded: &Loaded,
        graph: &Graph,
        effort: &Effort,
        only: Option<&BTreeSet<StepId>>,
    ) -> Result<Realised, Failure> {
        let progress = Progress::new(self.output);
        let realised = Realiser {
            jobs: jobs(effort),
            cores: cores(effort),
            keep_going: effort.keep_going,
            only,
            ..self.realiser(&progress)
        }
        .realise(graph);
        progress.finish();
        let realised = realised.map_err(|error| hints::realise(&error, None, None))?;
        if realised.failures.is_empty() {
            return Ok(realised);
        }
        let mut diagnostics = Vec::new();
        let mut problems = Vec::new();
        for failure in &realised.failures {
            match hints::realise(&failure.error, graph.step(failure.step), Some(loaded)) {
                // That a mirror is not known is said once, however many files it has.
                Failure::Diagnostics(all) => {
                    for diagnostic in all {
                        if !diagnostics.contains(&diagnostic) {
                            diagnostics.push(diagnostic);
                        }
                    }
                }
                Failure::Problems(mut all) => problems.append(&mut all),
            }
        }
        if problems.is_empty() {
            return Err(Failure::Diagnostics(diagnostics));
        }
        if !diagnostics.is_empty() {
            self.output.failure(&Failure::Diagnostics(diagnostics));
        }
        Err(Failure::Problems(problems))
    }

    /// Reads what a user named: a store path, an action digest, or a package.
    pub(super) fn target(&self, text: &str) -> Result<Target, Failure> {
        let base = text
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or(text);
        if let Ok(path) = StorePath::from_base_name(base) {
            return match self.store.object(&path) {
                Ok(Some(_)) => Ok(Target::Object(path)),
                Ok(None) => Err(Problem::new(format!("`{path}` is not in the store"))
                    .hint("`kiln store ls` lists every object")
                    .into()),
                Err(error) => Err(hints::store(&error)),
            };
        }
        if let Ok(action) = text.parse() {
            return Ok(Target::Action(action));
        }
        package(text).map(Target::Package)
    }

    /// Returns a target's single object; a package must have been built.
    pub(super) fn object(&self, text: &str) -> Result<StorePath, Failure> {
        match self.target(text)? {
            Target::Object(path) => Ok(path),
            Target::Package(name) => {
                let names = std::slice::from_ref(&name);
                if let Some(known) = self.recall(names)
                    && let Some(package) = known.get(&name)
                    && let Some(path) = package.outputs.values().next()
                {
                    return Ok(path.clone());
                }
                let loaded = self.load(names)?;
                let graph = graph(&loaded)?;
                self.known_output(&graph, &name)?
                    .ok_or_else(|| not_built(&name))
            }
            Target::Action(digest) => {
                let found = self
                    .store
                    .realisation(digest)
                    .map_err(|error| hints::store(&error))?;
                found
                    .and_then(|found| found.outputs.into_values().next())
                    .ok_or_else(|| {
                        Problem::new(format!("the action `{digest}` produced nothing here")).into()
                    })
            }
        }
    }

    /// Returns a package's first output if everything up to it is in the store.
    fn known_output(
        &self,
        graph: &Graph,
        name: &PackageName,
    ) -> Result<Option<StorePath>, Failure> {
        let realised = self.known(graph)?;
        let step = graph.package(name);
        Ok(step
            .and_then(|step| realised.outputs(step))
            .and_then(|outputs| outputs.values().next().cloned()))
    }

    /// Returns what packages gave last time, if nothing can have changed since. Where
    /// results count that are not hermetic, the long way says which those are.
    pub(super) fn recall(&self, names: &[PackageName]) -> Option<Known> {
        match self.hermeticity {
            Hermeticity::Required => evaluation::recall(&self.store, &self.files, names),
            Hermeticity::Waived => None,
        }
    }

    /// Returns what the sandboxes did without in which steps of a graph were built.
    pub(super) fn lacking(
        &self,
        realised: &Realised,
        steps: impl IntoIterator<Item = StepId>,
    ) -> Result<Lacking, Failure> {
        let mut lacking = Lacking::default();
        if self.hermeticity == Hermeticity::Required {
            return Ok(lacking);
        }
        for digest in steps
            .into_iter()
            .filter_map(|step| realised.action_digest(step))
        {
            let found = self
                .store
                .realisation(digest)
                .map_err(|error| hints::store(&error))?;
            if let Some(found) = found {
                lacking = lacking.or(&found.lacking);
            }
        }
        Ok(lacking)
    }

    /// Returns what runs builds.
    pub(super) fn builder(&self) -> Builder<'_> {
        Builder {
            store: &self.store,
            launcher: &self.launcher,
            cancel: &self.cancel,
            hermeticity: self.hermeticity,
        }
    }

    /// Returns a realiser that does one thing at a time.
    pub(super) fn realiser<'a>(&'a self, observer: &'a Progress) -> Realiser<'a> {
        Realiser {
            store: &self.store,
            launcher: &self.launcher,
            fetcher: &self.fetcher,
            trees: &self.files,
            observer,
            cancel: &self.cancel,
            hermeticity: self.hermeticity,
            jobs: 1,
            cores: 1,
            keep_going: false,
            only: None,
        }
    }

    /// Looks up what is there, and does nothing else.
    pub(super) fn known(&self, graph: &Graph) -> Result<Realised, Failure> {
        let progress = Progress::new(Output {
            live: false,
            verbose: false,
            ..self.output
        });
        self.realiser(&progress)
            .known(graph)
            .map_err(|error| hints::realise(&error, None, None))
    }
}

/// Prepares to speak to a registry, with the login that Podman or Docker have for it.
pub(super) fn registry(reference: &Reference) -> Result<Registry, Failure> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let files = CredentialFiles::from_environment(variable);
    let credentials = files
        .find(reference)
        .map_err(|error| hints::registry(&error))?;
    Ok(Registry::new(
        reference,
        credentials,
        ureq::Proxy::try_from_env(),
        &settings::authorities(),
    ))
}

/// Returns the steps that realise what was loaded.
pub(super) fn graph(loaded: &Loaded) -> Result<Graph, Failure> {
    plan::lower(loaded).map_err(Failure::Diagnostics)
}

/// Reads a package's name as typed.
pub(super) fn package(text: &str) -> Result<PackageName, Failure> {
    let text = text.strip_suffix(".toml").unwrap_or(text);
    text.parse()
        .map_err(|error: crate::hash::NameError| Problem::from_error(&error).into())
}

/// Says that something has to be built first.
pub(super) fn not_built(name: &PackageName) -> Failure {
    Problem::new(format!("`{name}` has not been built in this store"))
        .hint(format!("run `kiln build {name}`"))
        .into()
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Returns how many builds run at once.
pub(super) fn jobs(effort: &Effort) -> usize {
    effort.jobs.map_or_else(processors, usize::from)
}

/// Returns how many jobs each build may use.
pub(super) fn cores(effort: &Effort) -> usize {
    effort.cores.map_or_else(processors, usize::from)
}

/// Ends builds at the first interrupt, and the process at the second.
fn stop_on_signals(cancel: &Cancel) {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let again = Arc::new(AtomicBool::new(false));
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
        tracing::warn!("signals cannot be watched; Ctrl-C ends kiln at once");
        return;
    };
    let cancel = cancel.clone();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if again.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            cancel.cancel();
        }
    });
}
