//! From typed errors to what the user reads: the chain of causes, and the next step.

mod fetch;
mod inspect;

use fetch::{fetch, fetch_at, with_fetch_hint};
pub(super) use inspect::inspect;

use super::report::{Failure, Problem};
use crate::build::{BuildError, in_words, memory_bytes};
use crate::derivation::{Definition, Ids, Kind, Source};
use crate::image::ImageError;
use crate::image::registry::RegistryError;
use crate::plan::{Loaded, Step, StepKind};
use crate::projection::ProjectionError;
use crate::realise::RealiseError;
use crate::store::StoreError;
use crate::tree::TreeError;

use kiln_sandbox::{End, SandboxError};

/// Says what the store could not do.
pub(super) fn store(error: &StoreError) -> Failure {
    let problem = Problem::from_error(error);
    match error {
        StoreError::Newer { path, .. } => problem
            .hint(format!(
                "use the newer kiln that wrote `{}`, or another store with `--store DIR`",
                path.display()
            ))
            .into(),
        _ if error.is_disk_full() => full(problem).into(),
        _ if error.is_corrupt() => problem.hint(NO_DATABASE).into(),
        StoreError::NoDatabase(_) => problem.hint(NO_DATABASE).into(),
        StoreError::ReadOnly(_) | StoreError::Older { .. } => problem
            .hint("make the directory writable, or choose another with `--store DIR`")
            .into(),
        StoreError::Listing { .. } => problem.hint(VERIFY).into(),
        StoreError::Tree(TreeError::Access { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            problem.hint(VERIFY).into()
        }
        StoreError::Access { source, .. }
            if matches!(
                source.kind(),
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            problem
                .hint("make the directory writable, or choose another with `--store DIR`")
                .into()
        }
        StoreError::Database { .. } => problem
            .hint("`kiln store verify` tells what is damaged; `--store DIR` chooses another store")
            .into(),
        StoreError::Access {
            operation: "create the store directory",
            ..
        } => problem
            .hint("name a directory that can be written with `--store DIR` or `KILN_STORE`")
            .into(),
        _ => problem.into(),
    }
}

/// What helps against a damaged object.
const VERIFY: &str = "`kiln store verify --repair` mends what can be mended";

/// What helps against a database that is lost.
const NO_DATABASE: &str =
    "put back a copy of `kiln.db`, or move the store away: what was built can be built again";

fn full(problem: Problem) -> Problem {
    problem.hint("free some space, or move the store with `--store DIR`; what was finished is kept")
}

/// Says why a step could not be realised, at its place in a file if it has one.
pub(super) fn realise(
    error: &RealiseError,
    step: Option<&Step>,
    loaded: Option<&Loaded>,
) -> Failure {
    let known = step.zip(loaded);
    let definition = known.and_then(|(step, loaded)| loaded.definitions.get(&step.package));
    match error {
        RealiseError::Fetch {
            source, package, ..
        } => match known {
            Some((step, loaded)) => fetch_at(source, step, loaded),
            None => fetch(source, package.as_str()).into(),
        },
        RealiseError::Unpack { source, .. } => {
            with_fetch_hint(Problem::from_error(error), source).into()
        }
        RealiseError::Tree { source, path, .. } => {
            let at = definition.and_then(|definition| {
                let Kind::Package(build) = &definition.kind else {
                    return None;
                };
                build.sources.values().find_map(|found| match found {
                    Source::Tree { path: written } if written.value == *path => {
                        Some((definition, written.range()))
                    }
                    _ => None,
                })
            });
            match at {
                Some((definition, span)) => Failure::Diagnostics(vec![
                    definition
                        .problem(span, error.to_string())
                        .because(source.to_string())
                        .hint("name a directory beside the derivation file"),
                ]),
                None => Problem::from_error(error).into(),
            }
        }
        RealiseError::Build(failure) => build(failure, step, definition),
        RealiseError::Test { source, package } => match build(source, step, definition) {
            Failure::Problems(mut all) => {
                for problem in &mut all {
                    problem.message =
                        format!("the test of `{package}` failed: {}", problem.message);
                }
                Failure::Problems(all)
            }
            other => other,
        },
        RealiseError::MergeConflict { .. } => Problem::from_error(error)
            .hint("let only one of the roots bring it: `exclude` leaves paths out")
            .into(),
        RealiseError::Store(error) => store(error),
        RealiseError::Access { source, .. } => {
            let problem = Problem::from_error(error);
            if source.kind() == std::io::ErrorKind::StorageFull {
                full(problem)
            } else {
                problem
            }
            .into()
        }
        RealiseError::Cancelled => Problem::new("interrupted").into(),
    }
}

/// Words in a log that mean that a build looked for the network.
const NETWORK_WORDS: [&str; 6] = [
    "Network is unreachable",
    "Temporary failure in name resolution",
    "Could not resolve host",
    "Name or service not known",
    "unable to resolve host",
    "bad address",
];

/// Returns which users and groups a step can be.
fn ids(step: &Step) -> Ids {
    match &step.kind {
        StepKind::Build(build) => build.ids,
        StepKind::Test(test) => test.ids,
        _ => Ids::One,
    }
}

/// Says why a build failed, and where its file says what was built.
pub(super) fn build(
    error: &BuildError,
    step: Option<&Step>,
    definition: Option<&Definition>,
) -> Failure {
    let mut problem = Problem::from_error(error);
    if let Some(definition) = definition {
        problem = problem.because(format!("declared in `{}`", place(definition)));
    }
    let package = step.map_or("PACKAGE", |step| step.package.as_str());
    match error {
        BuildError::Failed {
            action,
            end,
            limits,
            tail,
            ..
        } => {
            problem.details.clone_from(tail);
            problem = match end {
                End::WallLimit => problem.hint(format!(
                    "the limit is {}; raise `time` in `[build.limits]`",
                    in_words(limits.time)
                )),
                End::SilenceLimit => problem.hint(format!(
                    "the limit is {}; raise `silence` in `[build.limits]`",
                    in_words(limits.silence)
                )),
                End::LogLimit => problem.hint(format!(
                    "the limit is {} MiB; raise `log` in `[build.limits]`, or let it say less",
                    limits.log_bytes >> 20
                )),
                End::ProcessLimit => {
                    problem.hint("let the build start fewer processes at once (`$JOBS`)")
                }
                End::OutOfMemory => problem.hint(format!(
                    "all its processes together may have {} MiB; raise `memory` in `[build.limits]`, or let it do less at once (`--cores`)",
                    memory_bytes(limits) >> 20
                )),
                End::FileLimit | End::Cancelled | End::Exited(_) | End::Signaled(_) => problem,
            };
            if tail
                .iter()
                .any(|line| NETWORK_WORDS.iter().any(|word| line.contains(word)))
            {
                problem = problem.hint(
                    "builds have no network, ever: declare what it downloads as a `[sources.NAME]`",
                );
            }
            if tail
                .iter()
                .any(|line| line.contains("No space left on device"))
            {
                problem = match step.map_or(Ids::One, ids) {
                    Ids::One => full(problem),
                    Ids::Range => problem.hint(
                        "with `ids = \"range\"` a build writes to memory: let it write less, or build on a machine with more",
                    ),
                };
            }
            if *end != End::Cancelled {
                problem = problem
                    .hint(format!("the whole log: `kiln log {action}`"))
                    .hint(format!(
                        "a shell in what it left behind: `kiln shell --failed {package}`"
                    ));
            }
            problem
        }
        BuildError::EmptyOutput { output, action, .. } => problem
            .hint(format!(
                "the `install` phase must put files into `${output}`"
            ))
            .hint(format!("what it did: `kiln log {action}`")),
        BuildError::NotStatic { files, .. } => {
            problem.details = files
                .iter()
                .map(|(path, why)| format!("{path}: {why}"))
                .collect();
            problem.hint("link with `-static`, or leave `linkage` out of the output")
        }
        BuildError::NoPhase { .. } => problem.hint("phases are `prepare`, `configure`, `build`, `check` and `install`; those that neither its file nor its recipe has do not run"),
        BuildError::NotKept(_) => problem
            .because("its last build succeeded, or it is older than the last eight that failed")
            .hint(format!("`kiln shell {package}` starts from the sources")),
        BuildError::Source { source, .. } => with_fetch_hint(problem, source).hint(format!(
            "`unpack = false` gives `{package}` the file as it is"
        )),
        BuildError::Sandbox { source, .. } => with_sandbox_hints(problem, source),
        BuildError::Store(StoreError::Addition { .. }) => problem.hint(
            "an object holds only files, directories and links: remove it in the `install` phase",
        ),
        BuildError::Store(error) => return store(error),
        BuildError::Access { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            full(problem)
        }
        _ => problem,
    }
    .into()
}

/// Adds what to do about a sandbox that did not come about.
pub(super) fn with_sandbox_hints(problem: Problem, error: &SandboxError) -> Problem {
    let mut problem = problem;
    problem.hints.extend(error.remedy());
    if let SandboxError::Weaker { missing } = error {
        problem = problem.hint(format!(
            "`--weak-sandbox` goes without; what is built so is marked `{}` and is not hermetic for good",
            missing.name()
        ));
    }
    problem.hint("`kiln doctor` tests this machine")
}

/// Says why contents are not one image, at the place in the image's file.
pub(super) fn projection(error: &ProjectionError, definition: &Definition) -> Failure {
    let Kind::Image(image) = &definition.kind else {
        return Problem::from_error(error).into();
    };
    let content = |package: &crate::hash::PackageName| {
        image.contents.iter().find(|content| {
            crate::derivation::resolve(&content.package, &definition.file.package) == *package
        })
    };
    let diagnostic = match error {
        ProjectionError::NoSuchFile {
            package,
            path,
            nearest,
        } => {
            let span = content(package)
                .and_then(|content| {
                    content
                        .files
                        .iter()
                        .flatten()
                        .find(|file| file.value == *path)
                })
                .map_or(0..0, crate::derivation::Spanned::range);
            let problem = definition
                .problem(span, error.to_string())
                .label("no such file");
            match nearest {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint(format!("`kiln build {package}` prints where its files are")),
            }
        }
        ProjectionError::NotFlat {
            package,
            references,
        } => {
            let span = content(package).map_or(0..0, |content| content.package.range());
            let places: Vec<String> = references
                .iter()
                .map(|place| {
                    format!(
                        "`{}` at byte {} names `{}`",
                        place.file, place.offset, place.target
                    )
                })
                .collect();
            definition
                .problem(span, error.to_string())
                .because(places.join("; "))
                .hint("take `layout = \"store\"`, or choose only `files` that name nothing")
        }
        ProjectionError::Conflict { second, .. } => {
            let span = image
                .contents
                .iter()
                .find(|content| second.ends_with(content.package.value.as_str()))
                .map_or(0..0, |content| content.package.range());
            definition
                .problem(span, error.to_string())
                .hint("choose `files` of one of them, or put one elsewhere with `to`")
        }
        ProjectionError::NothingOwned(path) => definition
            .problem(path.range(), error.to_string())
            .hint("a path that ends with `/` means what lies below it"),
        ProjectionError::Path(_) => {
            let problem = Problem::from_error(error);
            return problem.hint("put the content elsewhere with `to`").into();
        }
    };
    Failure::Diagnostics(vec![diagnostic])
}

/// Says what a registry did not do.
pub(super) fn registry(error: &RegistryError) -> Failure {
    let problem = Problem::from_error(error);
    match error {
        RegistryError::Denied {
            host,
            with_login,
            said,
            ..
        } => {
            let problem = if said.is_empty() {
                problem
            } else {
                problem.because(format!("it says: {said}"))
            };
            if *with_login {
                problem.hint("the login that was found may not do this, or is no longer good")
            } else {
                problem.hint(format!(
                    "log in with `podman login {host}` or `docker login {host}`: kiln reads their files"
                ))
            }
        }
        RegistryError::Unreachable { .. } => {
            problem.hint("check the name and the network; what was sent stays there")
        }
        RegistryError::Untrusted { .. } => problem.hint(
            "if it is yours, name a file with its authority's certificate in `SSL_CERT_FILE`",
        ),
        RegistryError::Logins { problem: why, .. } | RegistryError::Helper { problem: why, .. } => {
            problem.because(why.clone())
        }
        RegistryError::Status { .. } | RegistryError::Answer { .. } => problem,
    }
    .into()
}

/// Says why an image could not be made or written.
pub(super) fn image(error: &ImageError) -> Failure {
    let problem = Problem::from_error(error);
    match error {
        ImageError::Registry(error) => registry(error),
        ImageError::NotALayout(_) => problem
            .hint("name a new or empty directory, or an OCI layout to add to")
            .into(),
        ImageError::NotAFile(_) => problem
            .hint("name a new file: no device, directory or link is written over")
            .into(),
        ImageError::NotOwn(_) => problem
            .hint("name another file, or replace this one with `--force`")
            .into(),
        ImageError::TagTaken { directory, .. } => problem
            .hint(format!(
                "give this one a tag of its own: `-o oci:{}:TAG`",
                directory.display()
            ))
            .into(),
        ImageError::DamagedBlob { path, .. } => problem
            .hint(format!(
                "delete `{}`; it will be made again",
                path.display()
            ))
            .into(),
        ImageError::Access { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            full(problem).into()
        }
        ImageError::Access {
            operation, source, ..
        } => problem
            .hint(match (source.kind(), *operation) {
                (std::io::ErrorKind::NotFound, "create a file in") => {
                    "create the directory first, or name another place with `-o`"
                }
                _ => "name a place that can be written with `-o`",
            })
            .into(),
        ImageError::Store(error) => store(error),
        _ => problem.into(),
    }
}

/// Returns the file of a definition and the line where it says what is built.
fn place(definition: &Definition) -> String {
    let at = match &definition.kind {
        Kind::Package(build) => build.recipe.range(),
        _ => 0..0,
    };
    let (line, _) = definition.problem(at, "").position();
    format!("{}:{line}", definition.file.shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derivation::Limits;
    use crate::hash::ActionDigest;

    #[test]
    fn a_build_that_ran_out_of_memory_is_told_its_limit() {
        let error = BuildError::Failed {
            name: "large-1".to_owned(),
            action: ActionDigest::from_bytes([0; 32]),
            phase: Some("build".to_owned()),
            end: End::OutOfMemory,
            limits: Limits {
                memory_bytes: Some(64 << 20),
                ..Limits::default()
            },
            tail: Vec::new(),
        };
        let Failure::Problems(problems) = build(&error, None, None) else {
            panic!("no problem of a machine");
        };
        assert_eq!(
            problems[0].message,
            "build of `large-1` ran out of memory in phase `build`"
        );
        assert!(
            problems[0].hints[0].starts_with("all its processes together may have 64 MiB;"),
            "{:?}",
            problems[0].hints
        );
    }
}
