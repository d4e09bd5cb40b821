//! Which system calls the code of a static x86-64 program can make.
//!
//! Every instruction of the executable sections is decoded, once, in order. From each
//! `syscall` the value of `rax` is followed backwards: over instructions that leave it alone,
//! through moves between registers, to every place that jumps or falls there, and, where it
//! came as an argument, to every place that calls the function. What ends in a constant is a
//! call that the program can make. What ends anywhere else, such as in memory or in a
//! function whose callers cannot all be seen, is reported: then the program can make calls
//! that are not known, and a filter must not rest on the others alone.
//!
//! The result is right for code that compilers and assemblers make: that jumps into the
//! middle of instructions, or code that is made while the program runs, is not followed.

mod flow;
mod index;

use std::collections::BTreeSet;

use goblin::elf::header::{EM_X86_64, ET_DYN, ET_EXEC};
use goblin::elf::section_header::SHF_EXECINSTR;

use index::Index;

/// The system calls of a program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// Their numbers.
    pub numbers: BTreeSet<u32>,
    /// Calls whose numbers cannot be told, in the order of their addresses.
    pub unknown: Vec<Unknown>,
}

/// A system call whose number cannot be told from the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The address of the `syscall` instruction.
    pub address: u64,
    /// Why, in words.
    pub why: String,
}

/// A program whose code cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// It is no ELF file, or a damaged one.
    #[error("it is not a sound ELF file: {0}")]
    Malformed(String),
    /// It is for another processor, or no program.
    #[error("it is not a program for x86-64")]
    Foreign,
    /// It loads code of other files.
    #[error("it is not static: it loads code of other files")]
    Dynamic,
    /// It has more code than is looked at.
    #[error("it has more than {} MiB of code", MAX_CODE >> 20)]
    TooLarge,
}

/// Most code that is looked at, in bytes.
const MAX_CODE: usize = 32 << 20;

/// Parts of a program that are mapped: address and bytes.
type Parts<'a> = Vec<(u64, &'a [u8])>;

/// Returns the system calls that a program's code can make.
///
/// # Errors
/// [`CodeError`] when the file is not a static program for x86-64.
pub fn system_calls(bytes: &[u8]) -> Result<Calls, CodeError> {
    let malformed = |error: goblin::error::Error| CodeError::Malformed(error.to_string());
    let elf = goblin::elf::Elf::parse(bytes).map_err(malformed)?;
    let header = elf.header;
    if header.e_machine != EM_X86_64 || !elf.is_64 || ![ET_EXEC, ET_DYN].contains(&header.e_type) {
        return Err(CodeError::Foreign);
    }
    if elf.interpreter.is_some() || !elf.libraries.is_empty() {
        return Err(CodeError::Dynamic);
    }
    let slice = |offset: u64, size: u64| {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        bytes.get(start..end)
    };
    let missing = || CodeError::Malformed("a part of it is missing".to_owned());
    let mut code: Parts<'_> = Vec::new();
    for section in &elf.section_headers {
        if section.sh_flags & u64::from(SHF_EXECINSTR) != 0 && section.sh_size > 0 {
            let part = slice(section.sh_offset, section.sh_size).ok_or_else(missing)?;
            code.push((section.sh_addr, part));
        }
    }
    let mut data: Parts<'_> = Vec::new();
    for segment in &elf.program_headers {
        if segment.p_type != goblin::elf::program_header::PT_LOAD {
            continue;
        }
        let part = slice(segment.p_offset, segment.p_filesz).ok_or_else(missing)?;
        if !segment.is_executable() {
            data.push((segment.p_vaddr, part));
        } else if elf.section_headers.is_empty() {
            code.push((segment.p_vaddr, part));
        }
    }
    if code.iter().map(|(_, part)| part.len()).sum::<usize>() > MAX_CODE {
        return Err(CodeError::TooLarge);
    }
    // What a position-independent program puts into its data when it starts.
    let moved = elf
        .dynrelas
        .iter()
        .filter_map(|relocation| u64::try_from(relocation.r_addend?).ok());
    let index = Index::new(&code, &data, moved, elf.entry);
    let mut calls = Calls::default();
    for at in index.system_calls() {
        match flow::numbers(&index, at) {
            Ok(numbers) => calls.numbers.extend(numbers),
            Err(why) => calls.unknown.push(Unknown {
                address: index.address(at),
                why,
            }),
        }
    }
    Ok(calls)
}

#[cfg(test)]
mod tests;
