//! Which step is done when, on which thread.
//!
//! Downloads wait for the network and builds for the processor, so each kind has threads
//! of its own. Among steps that are ready, the first in the graph's order goes first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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

struct State<'a> {
    realised: &'a mut Realised,
    /// Steps whose inputs are all there, by lane.
    ready: [BTreeSet<StepId>; 2],
    /// Inputs that a step still waits for.
    waiting: BTreeMap<StepId, BTreeSet<StepId>>,
    /// Steps that some thread works on.
    running: usize,
    stop: bool,
}

impl State<'_> {
    fn make_ready(&mut self, graph: &Graph, id: StepId) {
        if let Some(step) = graph.step(id) {
            let [network, processor] = &mut self.ready;
            match lane(step) {
                Lane::Network => network.insert(id),
                Lane::Processor => processor.insert(id),
            };
        }
    }

    fn take(&mut self, lane: Lane) -> Option<StepId> {
        let [network, processor] = &mut self.ready;
        match lane {
            Lane::Network => network.pop_first(),
            Lane::Processor => processor.pop_first(),
        }
    }

    fn idle(&self) -> bool {
        self.running == 0 && self.ready.iter().all(BTreeSet::is_empty)
    }
}

pub(super) fn run(realiser: &Realiser<'_>, graph: &Graph, realised: &mut Realised) {
    let mut state = State {
        realised,
        ready: [BTreeSet::new(), BTreeSet::new()],
        waiting: BTreeMap::new(),
        running: 0,
        stop: false,
    };
    for (id, step) in graph.steps() {
        if state.realised.outputs(id).is_some() {
            continue;
        }
        let open: BTreeSet<StepId> = step
            .inputs()
            .into_iter()
            .filter(|input| state.realised.outputs(*input).is_none())
            .collect();
        if open.is_empty() {
            state.make_ready(graph, id);
        } else {
            state.waiting.insert(id, open);
        }
    }
    let state = Mutex::new(state);
    let changed = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..realiser.jobs.max(1) {
            scope.spawn(|| work(realiser, graph, &state, &changed, Lane::Processor));
        }
        for _ in 0..DOWNLOADS {
            scope.spawn(|| work(realiser, graph, &state, &changed, Lane::Network));
        }
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.realised.failures.sort_by_key(|failure| failure.step);
    state.realised.performed.sort();
}

fn lock<'a, 'b>(state: &'a Mutex<State<'b>>) -> MutexGuard<'a, State<'b>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(
    realiser: &Realiser<'_>,
    graph: &Graph,
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
        let Some(step) = graph.step(id) else { return };
        let action = step.action(|input| guard.realised.outputs(input));
        if let Some(action) = &action {
            guard.realised.actions.insert(id, action.clone());
        }
        drop(guard);

        let result = if realiser.cancel.is_cancelled() {
            Err(RealiseError::Cancelled)
        } else {
            perform::perform(realiser, id, step, action.as_ref())
        };

        let mut guard = lock(state);
        guard.running -= 1;
        match result {
            Ok((outputs, performed)) => {
                guard.realised.outputs.insert(id, Arc::new(outputs));
                if performed {
                    guard.realised.performed.push(id);
                }
                realiser.observer.event(Some((id, step)), Event::Finished);
                let freed: Vec<StepId> = guard
                    .waiting
                    .iter_mut()
                    .filter_map(|(waiter, open)| {
                        (open.remove(&id) && open.is_empty()).then_some(*waiter)
                    })
                    .collect();
                for waiter in freed {
                    guard.waiting.remove(&waiter);
                    guard.make_ready(graph, waiter);
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
