//! PURE: a system call filter that decides by number, as a search tree, and then by
//! arguments where those count.
//!
//! The kernel asks a filter about every number once when it is installed, and again at each
//! call whose arguments the filter looks at. A list of comparisons, one for each number,
//! made that a sixth of a small run; a tree of ranges needs eight comparisons at most.

use nix::libc;
use seccompiler::{BpfProgram, sock_filter};

/// What a filter answers to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The call is made.
    Allow,
    /// The call fails with this error number.
    Errno(i32),
    /// The call fails with this error number where all tests of a list hold; else it is made.
    Refuse(Vec<Vec<Test>>, i32),
}

/// Something that may hold for the lower half of an argument, which are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Test {
    /// It has one of these bits at least.
    Any(u8, u32),
    /// It is this.
    Is(u8, u32),
    /// It is something else.
    IsNot(u8, u32),
}

/// Instructions of classic BPF (`linux/bpf_common.h`): load a word, jump, jump if equal, if
/// greater or equal, if a bit is set, return.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Where `struct seccomp_data` holds the call's number, the instruction set, and the first
/// argument, whose lower half comes first as in all numbers of this instruction set.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// `AUDIT_ARCH_X86_64`.
const X86_64: u32 = 0xc000_003e;

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number.unsigned_abs()
}

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
    let mut tests = Vec::new();
    let mut found = tree(&ranges, &mut tests);
    // Tests stand behind the tree, out of the way of its short jumps.
    let length = found.len();
    for (at, step) in found.iter_mut().enumerate() {
        if step.code == JUMP {
            step.k += distance(length - at - 1);
        }
    }
    program.append(&mut found);
    program.append(&mut tests);
    program
}

fn distance(instructions: usize) -> u32 {
    u32::try_from(instructions).expect("the kernel takes 4096 instructions")
}

/// Returns the code that searches ranges, each of which ends where the next starts. It jumps
/// to tests as far as these are from the first of them.
fn tree(ranges: &[(u32, Answer)], tests: &mut BpfProgram) -> BpfProgram {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let Some((start, answer)) = upper.first() else {
        return Vec::new();
    };
    if lower.is_empty() {
        return vec![match answer {
            Answer::Allow => instruction(RETURN, libc::SECCOMP_RET_ALLOW),
            Answer::Errno(number) => instruction(RETURN, errno(*number)),
            Answer::Refuse(lists, number) => {
                let at = distance(tests.len());
                for list in lists {
                    tests.append(&mut refusal(list, *number));
                }
                tests.push(instruction(RETURN, libc::SECCOMP_RET_ALLOW));
                instruction(JUMP, at)
            }
        }];
    }
    let lower = tree(lower, tests);
    let skip = u8::try_from(lower.len()).expect("fewer than 128 ranges are below any jump");
    let mut code = vec![jump(JUMP_GREATER_EQUAL, *start, skip, 0)];
    code.extend(lower);
    code.extend(tree(upper, tests));
    code
}

/// Returns the code that refuses a call if all tests hold, and else goes on behind itself.
fn refusal(list: &[Test], number: i32) -> BpfProgram {
    let mut code = Vec::new();
    for (at, test) in list.iter().enumerate() {
        // Two instructions for each test that follows, and the refusal.
        let past = u8::try_from(2 * (list.len() - at - 1) + 1).expect("calls have six arguments");
        let (argument, step) = match *test {
            Test::Any(argument, bits) => (argument, jump(JUMP_SET, bits, 0, past)),
            Test::Is(argument, value) => (argument, jump(JUMP_EQUAL, value, 0, past)),
            Test::IsNot(argument, value) => (argument, jump(JUMP_EQUAL, value, past, 0)),
        };
        code.push(instruction(LOAD, ARGUMENTS + 8 * u32::from(argument)));
        code.push(step);
    }
    code.push(instruction(RETURN, errno(number)));
    code
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Interprets a filter as the kernel does.
    pub(crate) fn run(
        program: &[sock_filter],
        architecture: u32,
        number: u32,
        arguments: [u64; 6],
    ) -> u32 {
        let mut data = [number.to_le_bytes(), architecture.to_le_bytes()].concat();
        data.extend([0; 8]);
        data.extend(arguments.map(u64::to_le_bytes).concat());
        let (mut at, mut word) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let taken = match step.code {
                LOAD => {
                    let from = usize::try_from(step.k).unwrap();
                    word = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
                    continue;
                }
                JUMP => {
                    at += usize::try_from(step.k).unwrap();
                    continue;
                }
                JUMP_EQUAL => word == step.k,
                JUMP_GREATER_EQUAL => word >= step.k,
                JUMP_SET => word & step.k != 0,
                RETURN => return step.k,
                other => panic!("{other}"),
            };
            at += usize::from(if taken { step.jt } else { step.jf });
        }
    }

    /// Returns what a filter answers to a call of this instruction set.
    pub(crate) fn asked(program: &[sock_filter], number: u32, arguments: [u64; 6]) -> u32 {
        run(program, X86_64, number, arguments)
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    #[test]
    fn each_number_gets_its_answer() {
        let answer = |number| match number {
            0..=9 | 20 | 300 => Answer::Allow,
            12..=15 => Answer::Errno(libc::ENOTSUP),
            _ => Answer::Errno(libc::ENOSYS),
        };
        let none = errno(libc::ENOSYS);
        let program = filter(0..=300, answer, Answer::Errno(libc::ENOSYS));
        for number in 0..=300 {
            let expected = match answer(number) {
                Answer::Allow => ALLOW,
                Answer::Errno(number) => errno(number),
                Answer::Refuse(..) => unreachable!(),
            };
            assert_eq!(asked(&program, number, [0; 6]), expected, "{number}");
        }
        for number in [301, 1 << 30, (1 << 30) + 1, u32::MAX] {
            assert_eq!(asked(&program, number, [0; 6]), none);
        }
        let i386 = 0x4000_0003;
        let killed = libc::SECCOMP_RET_KILL_PROCESS;
        assert_eq!(run(&program, i386, 0, [0; 6]), killed);
    }

    #[test]
    fn arguments_count_where_they_are_asked_for() {
        use Test::{Any, Is, IsNot};
        let answer = |number| match number {
            7 => Answer::Refuse(
                vec![vec![Any(0, 0b110), IsNot(5, 3)], vec![Is(1, 9)]],
                libc::EPERM,
            ),
            9 => Answer::Refuse(vec![vec![IsNot(0, 1), IsNot(0, 2)]], libc::EACCES),
            _ => Answer::Allow,
        };
        let program = filter(0..=20, answer, Answer::Errno(libc::ENOSYS));
        let upper = 1 << 40;
        for (number, arguments, expected) in [
            (7, [0b010, 0, 0, 0, 0, 0], errno(libc::EPERM)),
            (7, [upper | 0b100, 0, 0, 0, 0, 2], errno(libc::EPERM)),
            (7, [0b111, 0, 0, 0, 0, 3], ALLOW),
            (7, [0b001, 0, 0, 0, 0, 0], ALLOW),
            (7, [0, upper | 9, 0, 0, 0, 3], errno(libc::EPERM)),
            (7, [9, 0, 9, 9, 9, 9], ALLOW),
            (9, [1, 0, 0, 0, 0, 0], ALLOW),
            (9, [2, 0, 0, 0, 0, 0], ALLOW),
            (9, [3, 0, 0, 0, 0, 0], errno(libc::EACCES)),
            (8, [6, 9, 0, 0, 0, 0], ALLOW),
            (10, [6, 9, 0, 0, 0, 0], ALLOW),
            (21, [6, 9, 0, 0, 0, 0], errno(libc::ENOSYS)),
        ] {
            let found = asked(&program, number, arguments);
            assert_eq!(found, expected, "{number} {arguments:?}");
        }
    }
}
