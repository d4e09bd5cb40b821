//! Seizes a thread while it executes a program or repeats a wait, and lets go of it.
//!
//! A thread is watched from the notification of such a call to its first stop after it, or
//! to its death. Whatever stops it otherwise lets it go as it was before: a signal is passed
//! on, a stopped process stays stopped, and the kernel starts an interrupted call again.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use nix::libc;

use super::clock::{Absolute, shifted_back};
use super::random::Stream;
use super::{Call, SuperviseError, Supervision, Tried, auxv, sys};

/// What a thread answers to be interrupted with: the kernel starts the call again when the
/// thread has stopped. It never leaves the kernel, because the interruption is pending.
pub(crate) const START_AGAIN: i32 = 513;

/// The most of a new program's stack that is searched: the kernel takes fewer arguments.
const MOST_STACK: usize = 8 << 20;

/// Below the stack pointer, out of the way of what leaf functions keep there.
const SCRATCH: u64 = 512;

/// Why a thread is watched.
#[derive(Debug, Clone, Copy)]
enum Watch {
    /// It executes a program.
    Execution,
    /// It repeats a wait.
    Repetition(Repetition),
}

#[derive(Debug, Clone, Copy)]
struct Repetition {
    call: Call,
    absolute: Absolute,
    stage: Stage,
}

/// How far a repetition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The call was interrupted.
    Interrupted,
    /// The thread has the other pointer and is on its way to the call.
    Entering,
    /// It is in the call.
    Inside,
}

/// The threads that are watched.
#[derive(Debug, Default)]
pub(crate) struct Tracer {
    watched: BTreeMap<i32, Watch>,
    ahead: Duration,
    hides_vdso: bool,
}

impl Tracer {
    /// Watches nothing yet.
    pub(crate) fn new(supervision: &Supervision) -> Self {
        Self {
            watched: BTreeMap::new(),
            ahead: supervision.clock_ahead.unwrap_or_default(),
            hides_vdso: supervision.hides_vdso(),
        }
    }

    /// Watches a thread that is about to execute a program.
    pub(crate) fn expect_program(&mut self, call: &Call) -> io::Result<()> {
        self.watch(call.thread, Watch::Execution)
    }

    /// Watches a thread whose wait is to be repeated, and interrupts it.
    pub(crate) fn expect_repetition(&mut self, call: &Call, absolute: Absolute) -> io::Result<()> {
        let repetition = Repetition {
            call: *call,
            absolute,
            stage: Stage::Interrupted,
        };
        self.watch(call.thread, Watch::Repetition(repetition))?;
        sys::interrupt(call.thread)
    }

    /// Returns whether a call is the repetition of one, with the shifted time.
    pub(crate) fn is_repetition(&self, call: &Call) -> bool {
        matches!(
            self.watched.get(&call.thread),
            Some(Watch::Repetition(Repetition {
                stage: Stage::Inside,
                ..
            }))
        )
    }

    fn watch(&mut self, thread: i32, why: Watch) -> io::Result<()> {
        match sys::seize(thread) {
            // It was seized for a program that could not be executed.
            Err(error)
                if error.raw_os_error() == Some(libc::EPERM)
                    && self.watched.contains_key(&thread) => {}
            result => result?,
        }
        self.watched.insert(thread, why);
        Ok(())
    }

    /// Takes all news of the watched threads.
    pub(crate) fn take_news(&mut self, random: Option<&mut Stream>) -> Result<(), SuperviseError> {
        let mut random = random;
        while let Some((thread, status)) =
            sys::next_news().tried("wait for the programs it supervises")?
        {
            if !libc::WIFSTOPPED(status) {
                self.watched.remove(&thread);
                continue;
            }
            match self.stopped(thread, status, random.as_deref_mut()) {
                // Killed meanwhile; its death is the next news.
                Err(SuperviseError { source, .. })
                    if source.raw_os_error() == Some(libc::ESRCH) => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn stopped(
        &mut self,
        thread: i32,
        status: i32,
        random: Option<&mut Stream>,
    ) -> Result<(), SuperviseError> {
        const CALL: i32 = libc::SIGTRAP | 0x80;
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        if event == libc::PTRACE_EVENT_EXEC {
            let former = sys::executing_thread(thread).tried("ask who executed a program")?;
            self.watched.remove(&former);
            self.watched.remove(&thread);
            self.rewrite_program(thread, random)?;
            return let_go(thread, 0);
        }
        let Some(Watch::Repetition(repetition)) = self.watched.get(&thread).copied() else {
            return self.pass_on(thread, signal, event);
        };
        match (repetition.stage, event, signal) {
            (Stage::Interrupted, libc::PTRACE_EVENT_STOP, libc::SIGTRAP) => {
                self.start_repetition(thread, repetition)
            }
            (Stage::Entering, 0, CALL) => {
                self.advance(thread, repetition, Stage::Inside);
                sys::run_to_call(thread).tried("follow a wait")
            }
            (Stage::Inside, 0, CALL) => {
                restore(thread, repetition)?;
                self.watched.remove(&thread);
                let_go(thread, 0)
            }
            (stage, ..) => {
                if stage != Stage::Interrupted {
                    restore(thread, repetition)?;
                }
                self.pass_on(thread, signal, event)
            }
        }
    }

    /// Lets go of a thread that stopped for a reason of its own.
    fn pass_on(&mut self, thread: i32, signal: i32, event: i32) -> Result<(), SuperviseError> {
        self.watched.remove(&thread);
        let_go(thread, if event == 0 { signal } else { 0 })
    }

    fn advance(&mut self, thread: i32, repetition: Repetition, stage: Stage) {
        let repetition = Repetition {
            stage,
            ..repetition
        };
        self.watched.insert(thread, Watch::Repetition(repetition));
    }

    /// Points an interrupted call to a shifted copy of its time, and starts it again.
    fn start_repetition(
        &mut self,
        thread: i32,
        repetition: Repetition,
    ) -> Result<(), SuperviseError> {
        const WHAT: &str = "repeat a wait";
        let Repetition { call, absolute, .. } = repetition;
        let mut registers = sys::registers(thread).tried(WHAT)?;
        let interrupted = registers.rax.cast_signed() == -i64::from(START_AGAIN)
            && registers.orig_rax.cast_signed() == call.number;
        if !interrupted {
            // The interruption came when the call was over: there is nothing to repeat.
            return self.pass_on(thread, 0, libc::PTRACE_EVENT_STOP);
        }
        let scratch = (registers.rsp.saturating_sub(SCRATCH)) & !15;
        let structure = shifted_back(&call, absolute, self.ahead).tried(WHAT)?;
        sys::write_memory(thread, scratch, &structure).tried(WHAT)?;
        *pointer(&mut registers, absolute) = scratch;
        sys::set_registers(thread, &registers).tried(WHAT)?;
        self.advance(thread, repetition, Stage::Entering);
        sys::run_to_call(thread).tried(WHAT)
    }

    /// Makes a new program see no vDSO, and the seed's random bytes.
    fn rewrite_program(
        &self,
        process: i32,
        random: Option<&mut Stream>,
    ) -> Result<(), SuperviseError> {
        const WHAT: &str = "rewrite the auxiliary vector of a program";
        /// The code segment of 64-bit programs; any other is killed by its first call.
        const LONG_MODE: u64 = 0x33;
        let registers = sys::registers(process).tried(WHAT)?;
        if !self.hides_vdso || registers.cs != LONG_MODE {
            return Ok(());
        }
        let found = search_stack(process, registers.rsp).tried(WHAT)?;
        if let Some(at) = found.vdso_type_at {
            let ignore = auxv::IGNORE.to_le_bytes();
            sys::write_memory(process, registers.rsp + at, &ignore).tried(WHAT)?;
        }
        if let (Some(address), Some(stream)) = (found.random, random) {
            sys::write_memory(process, address, &stream.take(16)).tried(WHAT)?;
        }
        Ok(())
    }
}

fn search_stack(process: i32, from: u64) -> io::Result<auxv::Found> {
    let mut size = 8 << 10;
    while size <= MOST_STACK {
        let mut stack = vec![0; size];
        let count = sys::read_memory(process, from, &mut stack)?;
        if let Some(found) = stack.get(..count).and_then(auxv::find) {
            return Ok(found);
        }
        if count < size {
            break;
        }
        size *= 4;
    }
    Err(io::Error::from(io::ErrorKind::InvalidData))
}

/// Gives a thread's register back what the program had in it.
fn restore(thread: i32, repetition: Repetition) -> Result<(), SuperviseError> {
    const WHAT: &str = "end a repeated wait";
    let Repetition { call, absolute, .. } = repetition;
    let mut registers = sys::registers(thread).tried(WHAT)?;
    if let Some(original) = call.arguments.get(absolute.argument) {
        *pointer(&mut registers, absolute) = *original;
    }
    sys::set_registers(thread, &registers).tried(WHAT)
}

/// Returns the register of the argument that points to the time.
fn pointer(registers: &mut libc::user_regs_struct, absolute: Absolute) -> &mut u64 {
    match absolute.argument {
        2 => &mut registers.rdx,
        3 => &mut registers.r10,
        _ => &mut registers.r8,
    }
}

fn let_go(thread: i32, signal: i32) -> Result<(), SuperviseError> {
    sys::let_go(thread, signal).tried("let go of a program")
}
