//! What happens while a user waits: a live tree on a terminal, a line for each change of
//! state elsewhere.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::report::Output;
use crate::build::LogLine;
use crate::plan::{Step, StepId, StepKind};
use crate::realise::{Event, Observer};

/// How often a live line is drawn again.
const TICK: Duration = Duration::from_millis(120);

/// Watches a run and tells the user.
pub(super) struct Progress {
    output: Output,
    state: Mutex<State>,
}

struct State {
    total: ProgressBar,
    bars: MultiProgress,
    running: BTreeMap<StepId, (ProgressBar, Instant)>,
}

fn verb(step: &Step) -> (&'static str, &'static str) {
    match step.kind {
        StepKind::Fetch { .. } => ("fetching", "fetched"),
        StepKind::Tree { .. } => ("reading", "read"),
        StepKind::Debian { .. } => ("unpacking", "unpacked"),
        StepKind::Merge { .. } => ("merging", "merged"),
        StepKind::Build(_) => ("building", "built"),
        StepKind::Test(_) => ("testing", "tested"),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

impl Progress {
    pub(super) fn new(output: Output) -> Self {
        let bars = MultiProgress::new();
        let total = ProgressBar::hidden();
        Self {
            output,
            state: Mutex::new(State {
                total,
                bars,
                running: BTreeMap::new(),
            }),
        }
    }

    fn say(&self, state: &State, text: &str) {
        // Above the live lines where there are any.
        if !self.output.live || state.bars.println(text).is_err() {
            self.output.tell(text);
        }
    }

    /// Takes the live lines away.
    pub(super) fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (bar, _) in std::mem::take(&mut state.running).into_values() {
            bar.finish_and_clear();
        }
        state.total.finish_and_clear();
    }

    fn planned(&self, state: &mut State, total: usize, missing: usize) {
        if missing == 0 {
            return;
        }
        if self.output.live {
            let bar = state.bars.add(ProgressBar::new(missing as u64));
            bar.set_style(style("{bar:24} {pos}/{len} steps, {elapsed}"));
            bar.enable_steady_tick(TICK);
            state.total = bar;
        } else {
            self.say(state, &format!("{missing} of {total} steps to do"));
        }
    }

    fn started(&self, state: &mut State, id: StepId, step: &Step) {
        let (doing, _) = verb(step);
        let bar = if self.output.live {
            let bar = state
                .bars
                .insert_before(&state.total, ProgressBar::new_spinner());
            bar.set_style(style("  {spinner} {prefix} {wide_msg} {elapsed}"));
            bar.set_prefix(format!("{doing} {}", step.label));
            bar.enable_steady_tick(TICK);
            bar
        } else {
            ProgressBar::hidden()
        };
        let quiet = matches!(step.kind, StepKind::Fetch { .. });
        if !self.output.live && !quiet {
            self.say(state, &format!("{doing} {}", step.label));
        }
        state.running.insert(id, (bar, Instant::now()));
    }

    fn ended(&self, state: &mut State, id: StepId, step: &Step, failed: bool) {
        state.total.inc(1);
        let Some((bar, since)) = state.running.remove(&id) else {
            return;
        };
        bar.finish_and_clear();
        state.bars.remove(&bar);
        let (doing, done) = verb(step);
        let seconds = since.elapsed().as_secs_f64();
        let text = if failed {
            format!("failed {doing} {} after {seconds:.1} s", step.label)
        } else {
            format!("{done} {} in {seconds:.1} s", step.label)
        };
        // On a terminal only what took a while is worth keeping on the screen.
        let kept = failed || matches!(step.kind, StepKind::Build(_) | StepKind::Test(_));
        if !self.output.live || kept {
            self.say(state, &text);
        }
    }
}

impl Observer for Progress {
    fn event(&self, step: Option<(StepId, &Step)>, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((id, step)) = step else {
            if let Event::Planned { total, missing } = event {
                self.planned(&mut state, total, missing);
            }
            return;
        };
        let bar = state.running.get(&id).map(|(bar, _)| bar.clone());
        match event {
            Event::Started => self.started(&mut state, id, step),
            Event::Finished => self.ended(&mut state, id, step, false),
            Event::Failed => self.ended(&mut state, id, step, true),
            Event::Waiting => {
                self.say(
                    &state,
                    &format!("waiting for another kiln that does {}", step.label),
                );
            }
            Event::AddressFailed { why } => self.say(&state, &format!("warning: {why}")),
            Event::Downloading { received, total } => {
                if let Some(bar) = bar {
                    let of = total
                        .map(|total| format!(" of {}", bytes(total)))
                        .unwrap_or_default();
                    bar.set_message(format!("{}{of}", bytes(received)));
                }
            }
            Event::Log(LogLine::Phase(phase)) => {
                if let Some(bar) = bar {
                    bar.set_message(format!("({phase})"));
                }
                if self.output.verbose {
                    self.say(&state, &format!("{}> phase {phase}", step.label));
                }
            }
            Event::Log(LogLine::Text(line)) => {
                if self.output.verbose {
                    let clean = anstream::adapter::strip_str(line).to_string();
                    self.say(&state, &format!("{}> {clean}", step.label));
                }
            }
            Event::Planned { .. } => {}
        }
    }
}

/// Returns a number of bytes as people read it.
pub(super) fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}
