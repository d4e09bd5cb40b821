//! A program's instructions, and from where each can be reached.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};

use super::Parts;

/// The instructions of a program by their place in the code.
pub(super) struct Index {
    instructions: Vec<Instruction>,
    /// Direct jumps, by where they lead.
    jumps: BTreeMap<u64, Vec<usize>>,
    /// Direct calls, by where they lead.
    calls: BTreeMap<u64, Vec<usize>>,
    /// Addresses of code that instructions use as values or that stand in data, and the one
    /// at which the program starts.
    named: BTreeSet<u64>,
}

/// How an instruction can be reached.
pub(super) struct Reached {
    /// From these jumps, when they have been taken.
    pub jumped: Vec<usize>,
    /// From the one before, when it has been executed.
    pub fell: Option<usize>,
    /// From these calls, when they are about to be executed.
    pub called: Vec<usize>,
    /// From places that cannot be seen.
    pub unseen: bool,
}

impl Index {
    /// Decodes a program. `moved` are addresses that it puts into its data when it starts.
    pub(super) fn new(
        code: &Parts<'_>,
        data: &Parts<'_>,
        moved: impl Iterator<Item = u64>,
        entry: u64,
    ) -> Self {
        let mut instructions = Vec::new();
        for (address, bytes) in code {
            let mut decoder = Decoder::with_ip(64, bytes, *address, DecoderOptions::NONE);
            while decoder.can_decode() {
                instructions.push(decoder.decode());
            }
        }
        instructions.sort_by_key(Instruction::ip);
        let is_code = |address: u64| {
            code.iter()
                .any(|(start, bytes)| address >= *start && address - *start < bytes.len() as u64)
        };
        let mut index = Self {
            instructions,
            jumps: BTreeMap::new(),
            calls: BTreeMap::new(),
            named: moved.chain([entry]).filter(|a| is_code(*a)).collect(),
        };
        for (at, instruction) in index.instructions.iter().enumerate() {
            let direct = instruction.op0_kind() == OpKind::NearBranch64;
            match instruction.flow_control() {
                FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch if direct => {
                    let target = instruction.near_branch_target();
                    index.jumps.entry(target).or_default().push(at);
                }
                FlowControl::Call if direct => {
                    let target = instruction.near_branch_target();
                    index.calls.entry(target).or_default().push(at);
                }
                _ => {}
            }
            let values = values(instruction);
            index
                .named
                .extend(values.into_iter().filter(|a| is_code(*a)));
        }
        for (_, bytes) in data {
            for word in bytes.chunks_exact(8) {
                let word = word.try_into().map(u64::from_le_bytes).unwrap_or_default();
                if is_code(word) {
                    index.named.insert(word);
                }
            }
        }
        index
    }

    /// Returns every system call's place.
    pub(super) fn system_calls(&self) -> Vec<usize> {
        // The calls of 32-bit programs have other numbers: nothing that is made for x86-64
        // makes one, and what does is reported as unknown by the way of its register.
        self.instructions
            .iter()
            .enumerate()
            .filter(|(_, instruction)| {
                matches!(instruction.code(), Code::Syscall | Code::Sysenter)
                    || (instruction.mnemonic() == Mnemonic::Int && instruction.immediate8() == 0x80)
            })
            .map(|(at, _)| at)
            .collect()
    }

    pub(super) fn get(&self, at: usize) -> Option<&Instruction> {
        self.instructions.get(at)
    }

    pub(super) fn address(&self, at: usize) -> u64 {
        self.get(at).map_or(0, Instruction::ip)
    }

    /// Returns the place of a direct predecessor in the code, if it goes on to this one.
    pub(super) fn falls_from(&self, at: usize) -> Option<usize> {
        let before = at.checked_sub(1)?;
        let (previous, this) = (self.get(before)?, self.get(at)?);
        let goes_on = !matches!(
            previous.flow_control(),
            FlowControl::UnconditionalBranch
                | FlowControl::IndirectBranch
                | FlowControl::Return
                | FlowControl::Exception
        ) && previous.mnemonic() != Mnemonic::Hlt
            && previous.code() != Code::INVALID;
        (goes_on && previous.next_ip() == this.ip()).then_some(before)
    }

    /// Returns from where an instruction can be reached.
    pub(super) fn reached(&self, at: usize) -> Reached {
        let address = self.address(at);
        let called = self.calls.get(&address).cloned().unwrap_or_default();
        let jumped = self.jumps.get(&address).cloned().unwrap_or_default();
        let mut fell = None;
        let named = self.named.contains(&address);
        if let Some(before) = self.falls_from(at) {
            // Before a function stands padding, or a call that never returns.
            let starts = !called.is_empty() || named;
            let ends = self.get(before).is_some_and(|previous| {
                is_padding(previous)
                    || (previous.flow_control() == FlowControl::Call
                        && previous.code() != Code::Syscall)
            });
            if !(starts && ends) {
                fell = Some(before);
            }
        }
        let nowhere = jumped.is_empty() && fell.is_none() && called.is_empty();
        let padding = self.get(at).is_some_and(is_padding);
        Reached {
            jumped,
            fell,
            called,
            unseen: named || (nowhere && !padding),
        }
    }

    /// Returns whether control can come to an instruction other than from the one before.
    pub(super) fn is_target(&self, at: usize) -> bool {
        let address = self.address(at);
        self.jumps.contains_key(&address)
            || self.calls.contains_key(&address)
            || self.named.contains(&address)
    }
}

/// Returns whether an instruction only fills space between functions.
fn is_padding(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3)
        || (instruction.mnemonic() == Mnemonic::Xchg
            && instruction.op0_register() == instruction.op1_register())
}

/// Returns the constants that an instruction uses other than as the target of a jump.
fn values(instruction: &Instruction) -> Vec<u64> {
    let mut found = Vec::new();
    for operand in 0..instruction.op_count() {
        match instruction.op_kind(operand) {
            OpKind::Memory
                if instruction.memory_base() == Register::RIP
                    || (instruction.memory_base() == Register::None
                        && instruction.memory_index() == Register::None) =>
            {
                found.push(instruction.memory_displacement64());
            }
            OpKind::Immediate32 | OpKind::Immediate64 | OpKind::Immediate32to64 => {
                found.push(instruction.immediate(operand));
            }
            _ => {}
        }
    }
    found
}
