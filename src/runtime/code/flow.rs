//! Following a register's value backwards to constants.

use std::collections::BTreeSet;

use iced_x86::{
    Code, ConditionCode, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};

use super::index::Index;

/// Steps after which following one value is given up.
const MAX_STEPS: usize = 1 << 18;

/// Instructions between a push and the pop that belongs to it.
const MAX_PUSHED: usize = 8;

/// Registers that a called function may change (System V ABI, section 3.2.1).
const CHANGED_BY_CALLS: [Register; 9] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

/// What an instruction does to a register, seen from after it.
enum Effect {
    /// Nothing.
    None,
    /// It holds a constant.
    Constant(u64),
    /// It holds what these hold before it.
    Copies(Vec<Register>),
    /// It holds what another one holds before the instruction at another place.
    CopiesAt(usize, Register),
    /// It holds something else.
    Other(String),
}

/// Returns the numbers that a system call can have.
pub(super) fn numbers(index: &Index, call: usize) -> Result<BTreeSet<u32>, String> {
    let mut found = BTreeSet::new();
    let is_64_bit = index.get(call).is_some_and(|i| i.code() == Code::Syscall);
    if !is_64_bit {
        return Err("it is a call of 32-bit programs".to_owned());
    }
    let mut seen = BTreeSet::new();
    // Values that are wanted before the instruction at a place.
    let mut pending = vec![(call, Register::RAX)];
    let mut factory = InstructionInfoFactory::new();
    while let Some((at, register)) = pending.pop() {
        if !seen.insert((at, register as usize)) {
            continue;
        }
        if seen.len() > MAX_STEPS {
            return Err("there are too many ways to it".to_owned());
        }
        let reached = index.reached(at);
        if reached.unseen {
            return Err(format!(
                "it depends on `{register:?}` at {:#x}, to which ways lead that cannot be seen",
                index.address(at)
            )
            .to_lowercase());
        }
        pending.extend(reached.called.iter().map(|caller| (*caller, register)));
        let ways = reached.jumped.iter().map(|at| (*at, true));
        for (before, jumped) in ways.chain(reached.fell.map(|at| (at, false))) {
            let known = compared(index, before, jumped, register);
            match known.unwrap_or_else(|| effect(index, &mut factory, before, register)) {
                Effect::None => pending.push((before, register)),
                Effect::Constant(value) => {
                    // Only the lower half counts, and numbers that no kernel has fail.
                    if let Ok(number) = u32::try_from(value & 0xffff_ffff)
                        && number <= super::super::seccomp::LAST
                    {
                        found.insert(number);
                    }
                }
                Effect::Copies(registers) => {
                    pending.extend(registers.into_iter().map(|register| (before, register)));
                }
                Effect::CopiesAt(place, register) => pending.push((place, register)),
                Effect::Other(why) => {
                    return Err(format!("{why} at {:#x}", index.address(before)));
                }
            }
        }
    }
    Ok(found)
}

fn effect(
    index: &Index,
    factory: &mut InstructionInfoFactory,
    at: usize,
    register: Register,
) -> Effect {
    let Some(instruction) = index.get(at) else {
        return Effect::Other("the code ends".to_owned());
    };
    if instruction.code() == Code::Syscall {
        // The kernel changes these three (`syscall(2)`).
        return if [Register::RAX, Register::RCX, Register::R11].contains(&register) {
            Effect::Other("it is the result of another system call".to_owned())
        } else {
            Effect::None
        };
    }
    if matches!(
        instruction.flow_control(),
        FlowControl::Call | FlowControl::IndirectCall
    ) {
        return if CHANGED_BY_CALLS.contains(&register) {
            Effect::Other("it is the result of a function".to_owned())
        } else {
            Effect::None
        };
    }
    let written = factory
        .info(instruction)
        .used_registers()
        .iter()
        .any(|used| {
            used.register().full_register() == register
                && !matches!(used.access(), OpAccess::Read | OpAccess::CondRead)
        });
    if !written {
        return Effect::None;
    }
    assigned(index, instruction, at, register)
}

/// Returns what an instruction that writes a register puts into it.
fn assigned(index: &Index, instruction: &Instruction, at: usize, register: Register) -> Effect {
    let to = instruction.op0_register();
    let whole = instruction.op0_kind() == OpKind::Register
        && to.full_register() == register
        && (to.is_gpr32() || to.is_gpr64());
    let other = |what: &str| Effect::Other(what.to_owned());
    if !whole
        && instruction.mnemonic() == Mnemonic::Mov
        && is_low_byte(to)
        && instruction.op1_kind() == OpKind::Immediate8
        && is_zero(index, at, register)
    {
        return Effect::Constant(instruction.immediate(1));
    }
    if !whole {
        return other("a part of it is changed");
    }
    let from = instruction.op1_register();
    match instruction.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movsxd => match instruction.op1_kind() {
            OpKind::Register if from.is_gpr32() || from.is_gpr64() => {
                Effect::Copies(vec![from.full_register()])
            }
            OpKind::Immediate32 | OpKind::Immediate64 | OpKind::Immediate32to64 => {
                Effect::Constant(instruction.immediate(1))
            }
            OpKind::Memory => other("it is read from memory"),
            _ => other("it is computed"),
        },
        Mnemonic::Xor | Mnemonic::Sub if clears(instruction, register) => Effect::Constant(0),
        Mnemonic::Or
            if matches!(
                instruction.op1_kind(),
                OpKind::Immediate8to32 | OpKind::Immediate8to64
            ) && instruction.immediate(1) & 0xffff_ffff == 0xffff_ffff =>
        {
            Effect::Constant(u64::MAX)
        }
        // Of the instructions that depend on a condition, only moves have two operands.
        _ if instruction.condition_code() != ConditionCode::None
            && instruction.op1_kind() == OpKind::Register =>
        {
            Effect::Copies(vec![register, from.full_register()])
        }
        Mnemonic::Pop => pushed(index, at),
        _ => other("it is computed"),
    }
}

/// Returns whether a register is the lowest byte of another one.
fn is_low_byte(register: Register) -> bool {
    use Register::{AH, BH, CH, DH};
    register.is_gpr8() && ![AH, BH, CH, DH].contains(&register)
}

fn clears(instruction: &Instruction, register: Register) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Xor | Mnemonic::Sub)
        && instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register()
        && instruction.op0_register().full_register() == register
        && !instruction.op0_register().is_gpr8()
        && !instruction.op0_register().is_gpr16()
}

/// Returns whether the instruction just before one clears a register.
fn is_zero(index: &Index, at: usize, register: Register) -> bool {
    !index.is_target(at)
        && index
            .falls_from(at)
            .and_then(|before| index.get(before))
            .is_some_and(|before| clears(before, register))
}

/// Returns the constant that a register holds where a comparison just before a jump has
/// found it equal to one.
fn compared(index: &Index, at: usize, jumped: bool, register: Register) -> Option<Effect> {
    let wanted = if jumped {
        ConditionCode::e
    } else {
        ConditionCode::ne
    };
    let jump = index.get(at)?;
    if jump.flow_control() != FlowControl::ConditionalBranch
        || jump.condition_code() != wanted
        || index.is_target(at)
    {
        return None;
    }
    let comparison = index.get(index.falls_from(at)?)?;
    let compares = comparison.op0_kind() == OpKind::Register
        && comparison.op0_register().full_register() == register
        && (comparison.op0_register().is_gpr32() || comparison.op0_register().is_gpr64());
    if !compares {
        return None;
    }
    match comparison.mnemonic() {
        Mnemonic::Test
            if comparison.op1_kind() == OpKind::Register
                && comparison.op1_register() == comparison.op0_register() =>
        {
            Some(Effect::Constant(0))
        }
        Mnemonic::Cmp => match comparison.op1_kind() {
            OpKind::Register | OpKind::Memory => None,
            _ => Some(Effect::Constant(comparison.immediate(1))),
        },
        _ => None,
    }
}

/// Returns what a pop takes from the stack, if a push stands just before it.
fn pushed(index: &Index, pop: usize) -> Effect {
    let mut at = pop;
    for _ in 0..MAX_PUSHED {
        if index.is_target(at) {
            break;
        }
        let Some(before) = index.falls_from(at) else {
            break;
        };
        at = before;
        let Some(instruction) = index.get(at) else {
            break;
        };
        if instruction.mnemonic() == Mnemonic::Push {
            return match instruction.op0_kind() {
                OpKind::Register => {
                    Effect::CopiesAt(at, instruction.op0_register().full_register())
                }
                OpKind::Memory => Effect::Other("it is read from memory".to_owned()),
                _ => Effect::Constant(instruction.immediate(0)),
            };
        }
        if instruction.is_stack_instruction() {
            break;
        }
    }
    Effect::Other("it is read from the stack".to_owned())
}
