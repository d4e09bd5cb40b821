//! Derivation files and recipes: text in, typed definitions out, or diagnostics with spans.
//!
//! One TOML file defines one package, root, recipe, image or policy; which one is told by
//! the table it has. Reading runs nothing and looks at nothing but the text. What always
//! holds of a definition: names, hashes, paths and durations are parsed, no key was
//! unknown, and `${name}` and `${version}` are replaced. Every problem of a file is
//! reported at once. This stage is pure.

mod definition;
mod diagnostic;
mod fields;
mod image;
mod package;
mod recipe;
mod script;

pub use definition::{
    BuildTable, Debian, DebianPackage, Definition, Kind, Limits, Linkage, Meta, Output, Phase,
    Phases, Recipe, Source, Test,
};
pub use diagnostic::{Diagnostic, SourceFile, Span, Spanned, nearest};
pub use image::{Content, Exception, Image, Layout, Policy, Rule};
pub use recipe::{apply, resolve, variable};
pub use script::{PHASE_MARKER, build_script, test_script};

use std::sync::Arc;

use fields::Fields;

/// Longest derivation file, in bytes.
pub const MAX_FILE: usize = 1 << 20;

/// Parses one derivation file.
///
/// # Errors
/// Every problem that the file has, in the order of its lines.
pub fn parse(file: &Arc<SourceFile>) -> Result<Definition, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let definition = read(file, &mut problems);
    problems.sort_by_key(|problem| (problem.span.start, problem.span.end));
    match definition {
        Some(definition) if problems.is_empty() => Ok(definition),
        _ if problems.is_empty() => Err(vec![Diagnostic::new(
            file,
            0..0,
            "the file defines nothing",
        )]),
        _ => Err(problems),
    }
}

fn read(file: &Arc<SourceFile>, problems: &mut Vec<Diagnostic>) -> Option<Definition> {
    if file.text.len() > MAX_FILE {
        problems.push(
            Diagnostic::new(
                file,
                0..0,
                format!("the file has {} bytes", file.text.len()),
            )
            .hint("a derivation file has at most 1 MiB; keep large data beside it"),
        );
        return None;
    }
    let (table, errors) = toml::de::DeTable::parse_recoverable(&file.text);
    for error in &errors {
        problems.push(Diagnostic::new(
            file,
            error.span().unwrap_or(0..0),
            error.message().to_owned(),
        ));
    }
    if !errors.is_empty() {
        // What a broken file leaves out would only be reported a second time.
        return None;
    }
    let span = 0..file.text.len().min(1);
    let mut fields = Fields::new(file, table.get_ref(), span, "the file", problems);
    definition::read(&mut fields)
}

#[cfg(test)]
mod tests;
