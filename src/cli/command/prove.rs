//! `kiln prove`, and `kiln image --check`.

use std::sync::Mutex;
use std::sync::PoisonError;

use rayon::prelude::*;
use serde_json::json;

use crate::cli::arguments::{Effort, ProveArguments};
use crate::cli::hints;
use crate::cli::progress::Progress;
use crate::cli::report::{Answer, Failure, Problem, without};
use crate::cli::session::{Session, cores, graph, jobs, package};
use crate::hash::PackageName;
use crate::plan::{Graph, Step, StepId, StepKind};
use crate::proof::{Proof, ProofError, Variation, prove};
use crate::realise::{Event, Observer as _, Realised};
use crate::store::Verdict;

pub(in crate::cli) fn run(
    session: &Session,
    arguments: &ProveArguments,
) -> Result<Answer, Failure> {
    let names = arguments
        .targets
        .iter()
        .map(|name| package(name))
        .collect::<Result<Vec<_>, _>>()?;
    let loaded = session.load(&names)?;
    let graph = graph(&loaded)?;
    let realised = session.realise(&loaded, &graph, &arguments.effort)?;
    let rebuilt = rebuild(
        session,
        &graph,
        &realised,
        &arguments.effort,
        Recorded::Ignore,
    )?;
    report(session, &names, &rebuilt);
    for failure in &rebuilt.failures {
        session.output.failure_beside(failure);
    }
    if !rebuilt.failures.is_empty() {
        return Ok(Answer::Failed);
    }
    let proved = rebuilt.proofs.iter().all(Proof::holds);
    Ok(if proved { Answer::Yes } else { Answer::No })
}

/// Whether a verdict that this store has recorded is taken as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Recorded {
    /// Taken if it says that the action is reproducible.
    Accept,
    /// Every action is rebuilt.
    Ignore,
}

/// What came of rebuilding.
pub(super) struct Rebuilt {
    /// The verdicts, in the graph's order.
    pub proofs: Vec<Proof>,
    /// Why some actions have none.
    pub failures: Vec<Failure>,
}

/// Rebuilds every action that was built, and compares. A rebuild that fails keeps no other
/// from its verdict.
pub(super) fn rebuild(
    session: &Session,
    graph: &Graph,
    realised: &Realised,
    effort: &Effort,
    recorded: Recorded,
) -> Result<Rebuilt, Failure> {
    let mut built: Vec<(StepId, &Step)> = graph
        .steps()
        .filter(|(_, step)| matches!(step.kind, StepKind::Build(_)))
        .collect();
    let mut proofs = Vec::new();
    if recorded == Recorded::Accept {
        let mut open = Vec::new();
        for (id, step) in built {
            match known(session, realised, id)? {
                Some(proof) => proofs.push((id, proof)),
                None => open.push((id, step)),
            }
        }
        built = open;
    }
    let progress = Progress::new(session.output);
    if !built.is_empty() {
        let total = built.len();
        progress.event(
            None,
            Event::Planned {
                total,
                missing: total,
            },
        );
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs(effort))
        .build()
        .map_err(|error| {
            Failure::from(Problem::new("cannot start threads").because(error.to_string()))
        })?;
    let failures: Mutex<Vec<(StepId, ProofError)>> = Mutex::default();
    let fresh: Vec<(StepId, Proof)> = pool.install(|| {
        built
            .par_iter()
            .filter_map(|(id, step)| {
                match prove_step(session, realised, &progress, *id, step, effort) {
                    Ok(proof) => Some((*id, proof)),
                    Err(error) => {
                        failures
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push((*id, error));
                        None
                    }
                }
            })
            .collect()
    });
    progress.finish();
    let mut failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    failures.sort_by_key(|(id, _)| *id);
    proofs.extend(fresh);
    proofs.sort_by_key(|(id, _)| *id);
    Ok(Rebuilt {
        proofs: proofs.into_iter().map(|(_, proof)| proof).collect(),
        failures: failures
            .iter()
            .map(|(id, error)| failed(error, graph.step(*id)))
            .collect(),
    })
}

fn failed(error: &ProofError, step: Option<&Step>) -> Failure {
    match error {
        ProofError::Rebuild { source, .. } => hints::build(source, step, None),
        ProofError::Store(error) => hints::store(error),
        other => Problem::from_error(other).into(),
    }
}

/// Returns a recorded proof that an action is reproducible.
fn known(session: &Session, realised: &Realised, id: StepId) -> Result<Option<Proof>, Failure> {
    let Some(action) = realised.action(id) else {
        return Ok(None);
    };
    let digest = action.digest();
    let proof = session
        .store
        .proof(digest)
        .map_err(|error| hints::store(&error))?;
    Ok(proof
        .filter(|proof| proof.verdict == Verdict::Reproducible)
        .filter(|proof| session.hermeticity.accepts(&proof.lacking))
        .map(|proof| Proof {
            action: digest,
            name: action.name.to_string(),
            difference: None,
            cause: None,
            variations: proof.variations,
            lacking: proof.lacking,
        }))
}

fn prove_step(
    session: &Session,
    realised: &Realised,
    progress: &Progress,
    id: StepId,
    step: &Step,
    effort: &Effort,
) -> Result<Proof, ProofError> {
    let (Some(action), StepKind::Build(build)) = (realised.action(id), &step.kind) else {
        return Err(ProofError::NotBuilt(step.label.clone()));
    };
    progress.event(Some((id, step)), Event::Started);
    let result = prove(
        &session.builder(),
        action,
        &step.label,
        &build.limits,
        cores(effort),
        &mut |line| {
            progress.event(Some((id, step)), Event::Log(line));
        },
    );
    let event = if result.is_ok() {
        Event::Finished
    } else {
        Event::Failed
    };
    progress.event(Some((id, step)), event);
    result
}

fn report(session: &Session, names: &[PackageName], rebuilt: &Rebuilt) {
    let Rebuilt { proofs, failures } = rebuilt;
    if session.output.json {
        let mut document = json!({
            "targets": names.iter().map(PackageName::as_str).collect::<Vec<_>>(),
            "reproducible": failures.is_empty()
                && proofs.iter().all(|proof| proof.difference.is_none()),
            "hermetic": proofs.iter().all(|proof| proof.lacking.is_hermetic()),
            "actions": documents(proofs),
        });
        if !failures.is_empty()
            && let Some(members) = document.as_object_mut()
        {
            let errors: Vec<_> = failures.iter().flat_map(Failure::documents).collect();
            members.insert("errors".to_owned(), json!(errors));
        }
        session.output.document(&document);
        return;
    }
    for proof in proofs {
        session.output.line(&sentence(proof));
    }
    if failures.is_empty() {
        session.output.line(&summary(proofs));
    }
}

/// Returns proofs for programs.
pub(super) fn documents(proofs: &[Proof]) -> Vec<serde_json::Value> {
    proofs
        .iter()
        .map(|proof| {
            json!({
                "action": proof.action.to_string(),
                "name": proof.name,
                "reproducible": proof.difference.is_none(),
                "difference": proof.difference.as_ref().map(ToString::to_string),
                "cause": proof.cause.as_ref().map(|cause| {
                    cause.variations().map(Variation::name).collect::<Vec<_>>()
                }),
                "variations": proof.variations,
                "hermetic": proof.lacking.is_hermetic(),
                "lacking": proof.lacking.names().collect::<Vec<_>>(),
            })
        })
        .collect()
}

/// Returns a proof for people.
pub(super) fn sentence(proof: &Proof) -> String {
    match proof.explanation() {
        None if !proof.lacking.is_hermetic() => format!(
            "same       {}, which is not hermetic: {}",
            proof.name,
            without(&proof.lacking)
        ),
        None => format!("same       {}", proof.name),
        Some(explanation) => format!("different  {}: {explanation}", proof.name),
    }
}

/// Returns the verdict over all.
pub(super) fn summary(proofs: &[Proof]) -> String {
    let different = proofs
        .iter()
        .filter(|proof| proof.difference.is_some())
        .count();
    let weak = proofs
        .iter()
        .filter(|proof| !proof.lacking.is_hermetic())
        .count();
    if different == 0 && weak > 0 {
        format!(
            "not proved: every bit the same, but {weak} of {} builds are not hermetic",
            proofs.len()
        )
    } else if different == 0 {
        format!(
            "reproducible: {} builds repeated, every bit the same",
            proofs.len()
        )
    } else {
        format!(
            "not reproducible: {different} of {} builds differ",
            proofs.len()
        )
    }
}
