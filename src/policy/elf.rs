//! Rules on how programs and libraries are linked and hardened.

use std::collections::BTreeSet;

use super::links::{End, follow_text};
use super::{Outcome, Subject};
use crate::hash::RelPath;
use crate::listing::facts::{Elf, Kind, Relro, Role};
use crate::listing::image::Node;

/// Calls a check with every program and library.
fn each(subject: Subject<'_>, mut check: impl FnMut(&RelPath, &Elf, &mut Outcome)) -> Outcome {
    let mut outcome = Outcome::default();
    for (path, _, elf) in subject.loaded(&mut outcome) {
        check(path, elf, &mut outcome);
    }
    outcome
}

/// Every ELF file is static.
pub(super) fn all_static(subject: Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (path, _, facts) in subject.files() {
        if let Some(Kind::Elf(elf)) = facts.map(|facts| &facts.kind)
            && let Some(why) = elf.why_dynamic()
        {
            outcome.find(path, why);
        }
    }
    outcome
}

/// Every program can be loaded at any address.
pub(super) fn pie(subject: Subject<'_>) -> Outcome {
    each(subject, |path, elf, outcome| {
        if elf.role == Role::Program {
            outcome.find(path, "it is loaded at a fixed address");
        }
    })
}

/// Relocations are read-only once a program runs. A program at a fixed address that binds
/// nothing has none to protect.
pub(super) fn relro(subject: Subject<'_>) -> Outcome {
    each(subject, |path, elf, outcome| {
        let has_none = elf.role == Role::Program && elf.needed.is_empty();
        match elf.relro {
            Relro::Full => {}
            _ if has_none => {}
            Relro::Partial => outcome.find(path, "functions that are bound late can be replaced"),
            Relro::None => outcome.find(path, "its relocations stay writable"),
        }
    })
}

/// No executable stack.
pub(super) fn no_executable_stack(subject: Subject<'_>) -> Outcome {
    each(subject, |path, elf, outcome| {
        if elf.executable_stack {
            outcome.find(path, "it asks for an executable stack");
        }
    })
}

/// Every dynamic program checks for a smashed stack.
pub(super) fn stack_protector(subject: Subject<'_>) -> Outcome {
    each(subject, |path, elf, outcome| match elf.stack_protector {
        Some(true) => {}
        Some(false) if elf.role == Role::Library => {}
        Some(false) => outcome.find(path, "no function of it checks the stack"),
        None => outcome.cannot_tell(Some(path), "it is static and has no symbols"),
    })
}

/// Every dynamic program calls checked functions.
pub(super) fn fortify(subject: Subject<'_>) -> Outcome {
    each(subject, |path, elf, outcome| match elf.fortified {
        Some(false) => outcome.find(path, "it calls only the unchecked forms of functions"),
        None if elf.needed.is_empty() => {
            outcome.cannot_tell(
                Some(path),
                "it is static, so that nothing tells what it calls",
            );
        }
        Some(true) | None => {}
    })
}

/// No loader writes to code.
pub(super) fn no_text_relocations(subject: Subject<'_>) -> Outcome {
    each(subject, |path, elf, outcome| {
        if elf.text_relocations {
            outcome.find(path, "the loader has to write to its code");
        }
    })
}

/// Libraries are looked for in the image only, where not everybody may write.
pub(super) fn no_foreign_rpath(subject: Subject<'_>) -> Outcome {
    each(subject, |path, elf, outcome| {
        for directory in &elf.search {
            let why = if directory.is_empty() || !directory.starts_with(['/', '$']) {
                "is relative to where it is started"
            } else if directory.starts_with('$') {
                continue;
            } else if follow_text(subject.image, directory) != End::Directory {
                "is not in the image"
            } else if is_world_writable(subject, directory) {
                "can be written to by everybody"
            } else {
                continue;
            };
            let message = format!("it looks for libraries in `{directory}`, which {why}");
            outcome.find(path, message);
        }
    })
}

fn is_world_writable(subject: Subject<'_>, directory: &str) -> bool {
    directory
        .trim_matches('/')
        .parse::<RelPath>()
        .ok()
        .and_then(|path| subject.image.entries.get(&path))
        .is_some_and(|entry| entry.mode & 0o002 != 0)
}

/// The loader and each library that a program needs are there, under their names.
pub(super) fn libraries_present(subject: Subject<'_>) -> Outcome {
    let names: BTreeSet<&str> = subject
        .image
        .entries
        .iter()
        .filter(|(_, entry)| matches!(entry.node, Node::File { .. } | Node::Symlink { .. }))
        .map(|(path, _)| path.file_name())
        .collect();
    each(subject, |path, elf, outcome| {
        if let Some(loader) = &elf.interpreter
            && !matches!(follow_text(subject.image, loader), End::File(..))
        {
            outcome.find(path, format!("its loader `{loader}` is not there"));
        }
        for needed in &elf.needed {
            let name = needed.rsplit('/').next().unwrap_or(needed);
            if !names.contains(name) {
                outcome.find(path, format!("it needs `{needed}`, which is not there"));
            }
        }
    })
}

/// No sections for a debugger.
pub(super) fn no_debug_sections(subject: Subject<'_>) -> Outcome {
    each(subject, |path, elf, outcome| {
        if elf.debug_sections {
            outcome.find(path, "it has sections for a debugger");
        }
    })
}

/// Machines by `e_machine`, in Go's words.
const MACHINES: [(u16, &str); 9] = [
    (3, "386"),
    (8, "mips64le"),
    (20, "ppc"),
    (21, "ppc64le"),
    (22, "s390x"),
    (40, "arm"),
    (62, "amd64"),
    (183, "arm64"),
    (243, "riscv64"),
];

/// Every program and library is for the image's processor.
pub(super) fn one_architecture(subject: Subject<'_>) -> Outcome {
    let wanted = subject.image.configuration.architecture.as_str();
    let name = |machine: u16| {
        let known = MACHINES.iter().find(|(number, _)| *number == machine);
        known.map_or("an unknown machine", |(_, name)| name)
    };
    if !MACHINES.iter().any(|(_, name)| *name == wanted) {
        let mut outcome = Outcome::default();
        outcome.cannot_tell(
            None,
            format!("the image is for `{wanted}`, which is unknown"),
        );
        return outcome;
    }
    each(subject, |path, elf, outcome| {
        let found = name(elf.machine);
        if found != wanted {
            let message = format!("it is for {found}, and the image for {wanted}");
            outcome.find(path, message);
        }
    })
}
