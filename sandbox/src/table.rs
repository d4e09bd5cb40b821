//! PURE: a system call filter that decides by number, as a search tree.
//!
//! The kernel asks a filter about every number once when it is installed, and again at each
//! call whose arguments another filter looks at. A list of comparisons, one for each number,
//! made that a sixth of a small run; a tree of ranges needs seven comparisons at most.

use nix::libc;
use seccompiler::{BpfProgram, sock_filter};

/// What a filter answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The call is made.
    Allow,
    /// The call fails with this error number.
    Errno(i32),
}

impl Answer {
    fn code(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Errno(number) => libc::SECCOMP_RET_ERRNO | number.unsigned_abs(),
        }
    }
}

/// Instructions of classic BPF (`linux/bpf_common.h`): load a word, jump if equal, jump if
/// greater or equal, return.
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Where `struct seccomp_data` holds the call's number and the instruction set.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// `AUDIT_ARCH_X86_64`.
const X86_64: u32 = 0xc000_003e;

fn instruction(code: u16, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Returns the filter that gives each number up to the last of `numbers` its answer, every
/// other number `otherwise`, and kills a process that uses another instruction set.
pub(crate) fn filter(
    numbers: std::ops::RangeInclusive<u32>,
    answer: impl Fn(u32) -> Answer,
    otherwise: Answer,
) -> BpfProgram {
    let end = numbers.end().saturating_add(1);
    let mut ranges: Vec<(u32, Answer)> = Vec::new();
    for (start, answer) in numbers
        .map(|number| (number, answer(number)))
        .chain([(end, otherwise)])
    {
        if ranges.last().is_none_or(|(_, last)| *last != answer) {
            ranges.push((start, answer));
        }
    }
    let mut program = vec![
        instruction(LOAD, ARCHITECTURE),
        jump(JUMP_EQUAL, X86_64, 1, 0),
        instruction(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        instruction(LOAD, NUMBER),
    ];
    program.extend(tree(&ranges));
    program
}

/// Returns the code that searches ranges, each of which ends where the next starts.
fn tree(ranges: &[(u32, Answer)]) -> BpfProgram {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let Some((start, answer)) = upper.first() else {
        return Vec::new();
    };
    if lower.is_empty() {
        return vec![instruction(RETURN, answer.code())];
    }
    let lower = tree(lower);
    let skip = u8::try_from(lower.len()).expect("fewer than 128 ranges are below any jump");
    let mut code = vec![jump(JUMP_GREATER_EQUAL, *start, skip, 0)];
    code.extend(lower);
    code.extend(tree(upper));
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets a filter as the kernel does.
    fn run(program: &[sock_filter], architecture: u32, number: u32) -> u32 {
        let (mut at, mut word) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let taken = match step.code {
                LOAD => {
                    word = if step.k == NUMBER {
                        number
                    } else {
                        architecture
                    };
                    continue;
                }
                JUMP_EQUAL => word == step.k,
                JUMP_GREATER_EQUAL => word >= step.k,
                RETURN => return step.k,
                other => panic!("{other}"),
            };
            at += usize::from(if taken { step.jt } else { step.jf });
        }
    }

    #[test]
    fn each_number_gets_its_answer() {
        let answer = |number| match number {
            0..=9 | 20 | 300 => Answer::Allow,
            12..=15 => Answer::Errno(libc::ENOTSUP),
            _ => Answer::Errno(libc::ENOSYS),
        };
        let none = Answer::Errno(libc::ENOSYS);
        let program = filter(0..=300, answer, none);
        for number in 0..=300 {
            assert_eq!(
                run(&program, X86_64, number),
                answer(number).code(),
                "{number}"
            );
        }
        for number in [301, 1 << 30, (1 << 30) + 1, u32::MAX] {
            assert_eq!(run(&program, X86_64, number), none.code());
        }
        let i386 = 0x4000_0003;
        assert_eq!(run(&program, i386, 0), libc::SECCOMP_RET_KILL_PROCESS);
    }
}
