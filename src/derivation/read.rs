//! Reading a whole file: which kind it defines, and what every kind has.

use std::sync::Arc;

use super::definition::{Definition, Kind, Meta};
use super::diagnostic::{Diagnostic, SourceFile};
use super::fields::Fields;
use super::{image, package, policy, recipe};
use crate::hash::ObjectName;

/// Longest derivation file, in bytes.
pub const MAX_FILE: usize = 1 << 20;

/// Parses one derivation file.
///
/// # Errors
/// Every problem that the file has, in the order of its lines.
pub fn parse(file: &Arc<SourceFile>) -> Result<Definition, Vec<Diagnostic>> {
    read_table(file, read_definition)
}

/// Reads a TOML file's table, whatever it holds.
///
/// # Errors
/// Every problem that the file has, in the order of its lines.
pub(super) fn read_table<T>(
    file: &Arc<SourceFile>,
    read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>,
) -> Result<T, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let value = read_toml(file, &mut problems, read);
    problems.sort_by_key(|problem| (problem.span.start, problem.span.end));
    match value {
        Some(value) if problems.is_empty() => Ok(value),
        _ if problems.is_empty() => Err(vec![Diagnostic::new(
            file,
            0..0,
            "the file defines nothing",
        )]),
        _ => Err(problems),
    }
}

fn read_toml<T>(
    file: &Arc<SourceFile>,
    problems: &mut Vec<Diagnostic>,
    read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>,
) -> Option<T> {
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
    let value = read(&mut fields);
    fields.finish();
    value
}

/// The tables of which a file has exactly one.
const KINDS: [&str; 5] = ["build", "debian", "recipe", "image", "policy"];

fn read_definition(fields: &mut Fields<'_, '_>) -> Option<Definition> {
    let present: Vec<&str> = KINDS.into_iter().filter(|kind| fields.has(kind)).collect();
    let [kind] = present.as_slice() else {
        let message = if present.is_empty() {
            "the file does not say what it defines".to_owned()
        } else {
            format!("the file defines several things: {}", present.join(", "))
        };
        let file = fields.file;
        fields.report(Diagnostic::new(file, fields.span(), message).hint(
            "a file has exactly one of `[build]`, `[debian]`, `[recipe]`, `[image]`, `[policy]`",
        ));
        return None;
    };
    let versioned = matches!(*kind, "build" | "debian");
    let meta = read_meta(fields, versioned);
    let kind = match *kind {
        "build" => package::read_build(fields, meta.as_ref()).map(|b| Kind::Package(Box::new(b))),
        "debian" => package::read_debian(fields).map(Kind::Debian),
        "recipe" => recipe::read(fields).map(|r| Kind::Recipe(Box::new(r))),
        "image" => image::read_image(fields).map(|i| Kind::Image(Box::new(i))),
        _ => policy::read_policy(fields).map(Kind::Policy),
    };
    let definition = Definition {
        file: Arc::clone(fields.file),
        meta: meta?,
        kind: kind?,
    };
    if let Err(error) = definition.object_name("out") {
        fields.problem(0..0, error.to_string());
    }
    Some(definition)
}

fn read_meta(fields: &mut Fields<'_, '_>, versioned: bool) -> Option<Meta> {
    let name = fields.required("name");
    let name = fields.parsed::<ObjectName>(name);
    let version = if versioned {
        fields.required("version")
    } else {
        fields.text("version")
    };
    let summary = fields.required("summary");
    let license = if versioned {
        fields.required("license")
    } else {
        fields.text("license")
    };
    if let Some(license) = &license
        && !license
            .value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || " .+-()".contains(c))
    {
        fields.problem(license.range(), "`license` is not an SPDX expression");
    }
    let homepage = fields.text("homepage");
    let cpe = read_cpe(
        fields,
        version.as_ref().map(|version| version.value.as_str()),
    );
    if versioned && version.is_none() {
        return None;
    }
    Some(Meta {
        name: name?.value,
        version: version.map(|version| version.value),
        summary: summary?.value,
        license: license.map(|license| license.value),
        homepage: homepage.map(|homepage| homepage.value),
        cpe,
    })
}

/// Reads a formatted string of CPE 2.3 (NISTIR 7695, section 6.2): eleven parts, with
/// `${version}` for the version.
fn read_cpe(fields: &mut Fields<'_, '_>, version: Option<&str>) -> Option<String> {
    let text = fields.text("cpe")?;
    let cpe = text.value.replace("${version}", version.unwrap_or("*"));
    let parts = cpe.strip_prefix("cpe:2.3:").map(|parts| {
        // A colon that belongs to a part has a backslash before it.
        let parts: Vec<String> = parts
            .replace("\\:", "\u{0}")
            .split(':')
            .map(str::to_owned)
            .collect();
        parts
    });
    let sound = parts.is_some_and(|parts| {
        parts.len() == 11
            && parts.iter().all(|part| !part.is_empty())
            && parts
                .first()
                .is_some_and(|part| ["a", "o", "h"].contains(&part.as_str()))
            && cpe.chars().all(|c| c.is_ascii_graphic())
    });
    if !sound {
        let file = fields.file;
        fields.report(
            Diagnostic::new(file, text.range(), format!("`{}` is not a CPE name", text.value))
                .hint("write eleven parts after `cpe:2.3:`, such as `cpe:2.3:a:zlib:zlib:${version}:*:*:*:*:*:*:*`"),
        );
        return None;
    }
    Some(cpe)
}
