//! What the headers of an ELF file say.

use std::collections::BTreeSet;

use goblin::elf::Elf as ElfFile;
use goblin::elf::dynamic::{
    DF_1_NOW, DF_1_PIE, DF_BIND_NOW, DF_TEXTREL, DT_BIND_NOW, DT_TEXTREL, Dynamic,
};
use goblin::elf::header::{ET_DYN, ET_EXEC};
use goblin::elf::program_header::{PF_X, PT_GNU_RELRO, PT_GNU_STACK};

use crate::listing::facts::{Elf, Relro, Role};

/// The first bytes of every ELF file.
pub(super) const MAGIC: &[u8] = b"\x7fELF";

/// Symbols that only the sources of multi-call binaries have.
const SYMBOLS: [&str; 8] = [
    "applet_main",
    "applet_names",
    "bb_banner",
    "bb_show_usage",
    "busybox_main",
    "run_applet_and_exit",
    "toy_exec",
    "toybox_main",
];

/// Functions of the C library that have a checked form.
const FORTIFIABLE: [&str; 16] = [
    "fgets",
    "fread",
    "memcpy",
    "memmove",
    "memset",
    "poll",
    "printf",
    "read",
    "realpath",
    "recv",
    "snprintf",
    "sprintf",
    "strcat",
    "strcpy",
    "strncpy",
    "vsnprintf",
];

/// Returns what the headers say, and the telling symbols.
pub(super) fn elf(bytes: &[u8]) -> (Elf, BTreeSet<&'static str>) {
    let file = match ElfFile::parse(bytes) {
        Ok(file) => file,
        Err(error) => {
            let unreadable = Some(error.to_string());
            let elf = Elf {
                unreadable,
                ..Elf::default()
            };
            return (elf, BTreeSet::new());
        }
    };
    let role = role(&file);
    let names = Names::of(&file);
    let elf = Elf {
        interpreter: file.interpreter.map(str::to_owned),
        needed: file
            .libraries
            .iter()
            .map(|name| (*name).to_owned())
            .collect(),
        unreadable: None,
        role,
        machine: file.header.e_machine,
        search: file
            .rpaths
            .iter()
            .chain(&file.runpaths)
            .flat_map(|paths| paths.split(':'))
            .map(str::to_owned)
            .collect(),
        relro: relro(&file),
        executable_stack: role != Role::Other
            && file
                .program_headers
                .iter()
                .find(|header| header.p_type == PT_GNU_STACK)
                .is_none_or(|header| header.p_flags & PF_X != 0),
        text_relocations: file.dynamic.as_ref().is_some_and(|dynamic| {
            dynamic.info.flags & DF_TEXTREL != 0 || has(dynamic, DT_TEXTREL)
        }),
        stack_protector: names.stack_protector(),
        fortified: names.fortified(),
        debug_sections: file.section_headers.iter().any(|section| {
            file.shdr_strtab
                .get_at(section.sh_name)
                .is_some_and(|name| name.starts_with(".debug_") || name.starts_with(".zdebug_"))
        }),
    };
    let symbols = SYMBOLS
        .into_iter()
        .filter(|name| names.all.contains(name))
        .collect();
    (elf, symbols)
}

fn role(file: &ElfFile<'_>) -> Role {
    match file.header.e_type {
        ET_EXEC => Role::Program,
        ET_DYN if file.interpreter.is_some() => Role::PositionIndependent,
        ET_DYN => {
            let flag = file
                .dynamic
                .as_ref()
                .is_some_and(|dynamic| dynamic.info.flags_1 & DF_1_PIE != 0);
            // Older linkers leave the flag out; a library has no place to start at, or
            // has a name of its own.
            if flag || (file.header.e_entry != 0 && file.soname.is_none()) {
                Role::PositionIndependent
            } else {
                Role::Library
            }
        }
        _ => Role::Other,
    }
}

fn has(dynamic: &Dynamic, tag: u64) -> bool {
    dynamic.dyns.iter().any(|entry| entry.d_tag == tag)
}

fn relro(file: &ElfFile<'_>) -> Relro {
    let present = file
        .program_headers
        .iter()
        .any(|header| header.p_type == PT_GNU_RELRO);
    if !present {
        return Relro::None;
    }
    match &file.dynamic {
        // Without a dynamic section nothing is bound late.
        None => Relro::Full,
        Some(dynamic)
            if dynamic.info.flags & DF_BIND_NOW != 0
                || dynamic.info.flags_1 & DF_1_NOW != 0
                || has(dynamic, DT_BIND_NOW) =>
        {
            Relro::Full
        }
        Some(_) => Relro::Partial,
    }
}

/// The names of a file's symbols.
struct Names<'a> {
    all: BTreeSet<&'a str>,
    /// Whether what is missing is known to be missing: the file is dynamic, so that all it
    /// takes from libraries is named, or it was not stripped.
    complete: bool,
    /// Whether it takes anything from libraries.
    dynamic: bool,
}

impl<'a> Names<'a> {
    fn of(file: &ElfFile<'a>) -> Self {
        let dynamic = file
            .dynsyms
            .iter()
            .filter_map(|symbol| file.dynstrtab.get_at(symbol.st_name));
        let own = file
            .syms
            .iter()
            .filter_map(|symbol| file.strtab.get_at(symbol.st_name));
        Self {
            all: dynamic.chain(own).collect(),
            complete: !file.libraries.is_empty() || !file.syms.is_empty(),
            dynamic: !file.libraries.is_empty(),
        }
    }

    fn stack_protector(&self) -> Option<bool> {
        let found = [
            "__stack_chk_fail",
            "__stack_chk_fail_local",
            "__stack_chk_guard",
        ]
        .iter()
        .any(|name| self.all.contains(name));
        (found || self.complete).then_some(found)
    }

    /// A static program has the unchecked forms too, whoever calls them.
    fn fortified(&self) -> Option<bool> {
        let checked = self
            .all
            .iter()
            .any(|name| name.starts_with("__") && name.ends_with("_chk"));
        let plain = FORTIFIABLE.iter().any(|name| self.all.contains(name));
        (self.dynamic && (checked || plain)).then_some(checked)
    }
}
