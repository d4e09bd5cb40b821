//! Which step is done when, on which thread.
//!
//! Downloads wait for the network and builds for the processor, so each kind has threads
//! of its own. Among steps that are ready, the one with the longest chain of work behind
//! it goes first (critical path first); how long a step takes is what it took last time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Event, Failure, RealiseError, Realised, Realiser, perform};
use crate::plan::{Graph, Step, StepId, StepKind};

/// Downloads at once: enough to hide latency, few enough to be polite.
const DOWNLOADS: usize = 6;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    Network,
    Processor,
}

fn lane(step: &Step) -> Lane {
    match step.kind {
        StepKind::Fetch { .. } => Lane::Network,
        _ => Lane::Processor,
    }
}

/// Steps that are ready: the longest way to the end first, then the graph's order.
type Ready = BTreeSet<(Reverse<Duration>, StepId)>;

struct State<'a> {
    realised: &'a mut Realised,
    /// Steps whose inputs are all there, by lane.
    ready: [Ready; 2],
    /// For each step that waits, how many of its inputs are missing.
    waiting: BTreeMap<StepId, usize>,
    /// Steps that some thread works on.
    running: usize,
    stop: bool,
}

impl State<'_> {
    fn make_ready(&mut self, work: &Remaining<'_>, id: StepId) {
        let Some(step) = work.graph.step(id) else {
            return;
        };
        let way = work.ways.get(&id).copied().unwrap_or_default();
        let [network, processor] = &mut self.ready;
        match lane(step) {
            Lane::Network => network.insert((Reverse(way), id)),
            Lane::Processor => processor.insert((Reverse(way), id)),
        };
    }

    fn take(&mut self, lane: Lane) -> Option<StepId> {
        let [network, processor] = &mut self.ready;
        match lane {
            Lane::Network => network.pop_first(),
            Lane::Processor => processor.pop_first(),
        }
        .map(|(_, id)| id)
    }

    fn idle(&self) -> bool {
        self.running == 0 && self.ready.iter().all(BTreeSet::is_empty)
    }
}

/// What is to be done, and in which relation it stands.
struct Remaining<'a> {
    graph: &'a Graph,
    /// Who waits for a step.
    dependents: BTreeMap<StepId, Vec<StepId>>,
    /// How long it takes from the start of a step to the end of the last that needs it.
    ways: BTreeMap<StepId, Duration>,
}

impl<'a> Remaining<'a> {
    fn new(realiser: &Realiser<'_>, graph: &'a Graph, realised: &Realised) -> Self {
        let open: Vec<(StepId, &Step)> = graph
            .steps()
            .filter(|(id, _)| realised.outputs(*id).is_none())
            .filter(|(id, _)| realiser.only.is_none_or(|only| only.contains(id)))
            .collect();
        let mut dependents: BTreeMap<StepId, Vec<StepId>> = BTreeMap::new();
        for (id, step) in &open {
            for input in step.inputs() {
                if realised.outputs(input).is_none() {
                    dependents.entry(input).or_default().push(*id);
                }
            }
        }
        let mut ways: BTreeMap<StepId, Duration> = BTreeMap::new();
        for (id, step) in open.iter().rev() {
            let after = dependents
                .get(id)
                .into_iter()
                .flatten()
                .filter_map(|dependent| ways.get(dependent))
                .max()
                .copied()
                .unwrap_or_default();
            ways.insert(*id, expected(realiser, step) + after);
        }
        Self {
            graph,
            dependents,
            ways,
        }
    }
}

/// Returns how long a step will take, as far as is known.
fn expected(realiser: &Realiser<'_>, step: &Step) -> Duration {
    let unknown = match step.kind {
        StepKind::Build(_) => Duration::from_secs(10),
        _ => Duration::from_secs(1),
    };
    match step.kind {
        // A database that cannot be read now says so when it matters.
        StepKind::Build(_) | StepKind::Test(_) => realiser
            .store
            .last_duration(&step.label)
            .ok()
            .flatten()
            .unwrap_or(unknown),
        _ => unknown,
    }
}

pub(super) fn run(realiser: &Realiser<'_>, graph: &Graph, realised: &mut Realised) {
    let remaining = Remaining::new(realiser, graph, realised);
    let mut state = State {
        realised,
        ready: [Ready::new(), Ready::new()],
        waiting: BTreeMap::new(),
        running: 0,
        stop: false,
    };
    for dependent in remaining.dependents.values().flatten() {
        *state.waiting.entry(*dependent).or_default() += 1;
    }
    for id in remaining.ways.keys() {
        if !state.waiting.contains_key(id) {
            state.make_ready(&remaining, *id);
        }
    }
    let state = Mutex::new(state);
    let changed = Condvar::new();
    let downloads = remaining
        .ways
        .keys()
        .filter_map(|id| graph.step(*id))
        .filter(|step| lane(step) == Lane::Network)
        .count();
    std::thread::scope(|scope| {
        for _ in 0..realiser.jobs.max(1) {
            scope.spawn(|| work(realiser, &remaining, &state, &changed, Lane::Processor));
        }
        for _ in 0..downloads.min(DOWNLOADS) {
            scope.spawn(|| work(realiser, &remaining, &state, &changed, Lane::Network));
        }
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.realised.failures.sort_by_key(|failure| failure.step);
    state.realised.performed.sort();
}

fn lock<'a, 'b>(state: &'a Mutex<State<'b>>) -> MutexGuard<'a, State<'b>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Dropped when a thread panics at work: the others must not wait for it.
struct Lost<'a, 'b> {
    state: &'a Mutex<State<'b>>,
    changed: &'a Condvar,
}

impl Drop for Lost<'_, '_> {
    fn drop(&mut self) {
        lock(self.state).stop = true;
        self.changed.notify_all();
    }
}

fn work(
    realiser: &Realiser<'_>,
    remaining: &Remaining<'_>,
    state: &Mutex<State<'_>>,
    changed: &Condvar,
    lane: Lane,
) {
    loop {
        let mut guard = lock(state);
        let id = loop {
            if guard.stop || guard.idle() {
                changed.notify_all();
                return;
            }
            if let Some(id) = guard.take(lane) {
                break id;
            }
            guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        guard.running += 1;
        let Some(step) = remaining.graph.step(id) else {
            return;
        };
        let action = step
            .action(|input| guard.realised.outputs(input))
            .map(|action| {
                let digest = action.digest();
                (action, digest)
            });
        if let Some(action) = &action {
            guard.realised.actions.insert(id, action.clone());
        }
        drop(guard);

        let lost = Lost { state, changed };
        let result = if realiser.cancel.is_cancelled() {
            Err(RealiseError::Cancelled)
        } else {
            perform::perform(realiser, id, step, action.as_ref())
        };
        std::mem::forget(lost);

        let mut guard = lock(state);
        guard.running -= 1;
        match result {
            Ok((outputs, performed)) => {
                guard.realised.outputs.insert(id, Arc::new(outputs));
                if performed {
                    guard.realised.performed.push(id);
                }
                realiser.observer.event(Some((id, step)), Event::Finished);
                for waiter in remaining.dependents.get(&id).into_iter().flatten() {
                    let left = guard.waiting.entry(*waiter).or_default();
                    *left = left.saturating_sub(1);
                    if *left == 0 {
                        guard.make_ready(remaining, *waiter);
                    }
                }
            }
            Err(error) => {
                realiser.observer.event(Some((id, step)), Event::Failed);
                guard.realised.failures.push(Failure { step: id, error });
                guard.stop |= !realiser.keep_going;
            }
        }
        changed.notify_all();
    }
}
