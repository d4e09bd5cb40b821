//! Reading `[build]`, its sources, outputs and test, and `[debian]`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::definition::{
    BuildTable, Debian, DebianPackage, Ids, Limits, Linkage, Meta, Output, Source, Test,
};
use super::diagnostic::{Diagnostic, Spanned};
use super::fields::Fields;
use super::phases::{RESERVED_VARIABLES, read_environment, read_phases, variable};
use crate::hash::{OutputName, PackageName, RelPath, Sha256Digest};

/// Where the main source is laid out, below `/build`.
pub(super) const MAIN_SOURCE: &str = "source";

/// The flag lists of `[build]` and the arrays that they become.
const FLAGS: [(&str, &str); 3] = [
    ("configure-flags", "configure_flags"),
    ("make-flags", "make_flags"),
    ("install-flags", "install_flags"),
];

pub(super) fn read_build(fields: &mut Fields<'_, '_>, meta: Option<&Meta>) -> Option<BuildTable> {
    let mut sources = BTreeMap::new();
    let main: RelPath = MAIN_SOURCE.parse().expect("a plain name");
    if let Some(source) = fields.table("source", |f| read_source(f, meta)) {
        sources.insert(main.clone(), source);
    }
    for (at, source) in fields.tables("sources", |name, f| {
        let at = f.parsed::<RelPath>(Some(name.clone()));
        let source = read_source(f, meta);
        Some((at?, source?))
    }) {
        if at.value.components().count() > 1 || at.value == main {
            fields.problem(
                at.range(),
                format!("`{}` cannot name a further source", at.value),
            );
        }
        sources.insert(at.value, source);
    }
    let outputs = read_outputs(fields);
    let test = fields.table("test", |f| {
        let script = f.required("script");
        let ids = read_ids(f);
        script.map(|script| Test {
            script: script.value,
            ids,
        })
    });
    let mut build = fields.table("build", |f| read_table(f, meta))?;
    check_variables(fields, &build, &outputs);
    build.sources = sources;
    build.outputs = outputs;
    build.test = test;
    Some(build)
}

fn read_table(fields: &mut Fields<'_, '_>, meta: Option<&Meta>) -> Option<BuildTable> {
    let recipe = fields.required("recipe");
    let recipe = fields.parsed::<String>(recipe).and_then(|recipe| {
        // A recipe is named without its folder.
        let name = match recipe.value.split_once(':') {
            Some((set, name)) => format!("{set}:recipes/{name}"),
            None => format!("recipes/{}", recipe.value),
        };
        fields.parsed::<PackageName>(Some(recipe.with(name)))
    });
    let mut flags = BTreeMap::new();
    for (key, array) in FLAGS {
        let texts = fields.texts(key);
        let values: Vec<String> = texts
            .iter()
            .filter_map(|text| substitute(fields, text, meta))
            .collect();
        if !values.is_empty() {
            flags.insert(array, values);
        }
    }
    Some(BuildTable {
        sources: BTreeMap::new(),
        root: fields.parsed_texts("root"),
        inputs: fields.parsed_texts("inputs"),
        flags,
        environment: read_environment(fields),
        phases: fields.table("phases", read_phases).unwrap_or_default(),
        ids: read_ids(fields),
        limits: fields.table("limits", read_limits).unwrap_or_default(),
        outputs: BTreeMap::new(),
        test: None,
        recipe: recipe?,
    })
}

/// Reads which users and groups a script can be.
pub(super) fn read_ids(fields: &mut Fields<'_, '_>) -> Ids {
    let Some(text) = fields.text("ids") else {
        return Ids::default();
    };
    if text.value == "range" {
        return Ids::Range;
    }
    let file = fields.file;
    fields.report(
        Diagnostic::new(
            file,
            text.range(),
            format!("`{}` is no choice of users and groups", text.value),
        )
        .hint("`ids = \"range\"` is all from 0 to 65535; without it there are user 1000 and group 100"),
    );
    Ids::default()
}

fn read_limits(fields: &mut Fields<'_, '_>) -> Option<Limits> {
    let defaults = Limits::default();
    let time = fields.text("time").and_then(|text| duration(fields, &text));
    let silence = fields
        .text("silence")
        .and_then(|text| duration(fields, &text));
    let log = fields.text("log").and_then(|text| size(fields, &text));
    let memory = fields.text("memory").and_then(|text| size(fields, &text));
    Some(Limits {
        time: time.unwrap_or(defaults.time),
        silence: silence.unwrap_or(defaults.silence),
        log_bytes: log.unwrap_or(defaults.log_bytes),
        memory_bytes: memory,
    })
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    number.parse().ok().map(|number| (number, unit.trim()))
}

pub(super) fn duration(fields: &mut Fields<'_, '_>, text: &Spanned<String>) -> Option<Duration> {
    let seconds = split_number(&text.value).and_then(|(number, unit)| match unit {
        "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3600),
        _ => None,
    });
    match seconds {
        Some(seconds @ 1..=604_800) => Some(Duration::from_secs(seconds)),
        _ => {
            let file = fields.file;
            fields.report(
                Diagnostic::new(
                    file,
                    text.range(),
                    format!("`{}` is not a duration", text.value),
                )
                .hint("write seconds, minutes or hours up to a week: `90s`, `30m`, `2h`"),
            );
            None
        }
    }
}

fn size(fields: &mut Fields<'_, '_>, text: &Spanned<String>) -> Option<u64> {
    let bytes = split_number(&text.value).and_then(|(number, unit)| match unit {
        "KiB" => number.checked_mul(1 << 10),
        "MiB" => number.checked_mul(1 << 20),
        "GiB" => number.checked_mul(1 << 30),
        _ => None,
    });
    if bytes.is_none_or(|bytes| bytes == 0) {
        let file = fields.file;
        fields.report(
            Diagnostic::new(
                file,
                text.range(),
                format!("`{}` is not a size", text.value),
            )
            .hint("write KiB, MiB or GiB: `64MiB`"),
        );
        return None;
    }
    bytes
}

fn read_source(fields: &mut Fields<'_, '_>, meta: Option<&Meta>) -> Option<Source> {
    if fields.has("path") {
        return read_beside(fields, "path", meta).map(|path| Source::Tree { path });
    }
    if fields.has("crates") {
        return read_beside(fields, "crates", meta).map(|lock| Source::Crates { lock });
    }
    let written = fields.texts("urls");
    if written.is_empty() {
        let file = fields.file;
        fields.report(
            Diagnostic::new(file, fields.span(), "the source has no address")
                .hint("add `urls = [\"https://…\", \"mirror://debian/…\"]`, or `path = \"…\"`, or `crates = \"Cargo.lock\"`"),
        );
    }
    let mut urls = Vec::new();
    for text in &written {
        if let Some(url) = substitute(fields, text, meta) {
            if ["https://", "http://", "mirror://"]
                .iter()
                .any(|scheme| url.starts_with(scheme))
            {
                urls.push(text.with(url));
            } else {
                let file = fields.file;
                fields.report(
                    Diagnostic::new(file, text.range(), format!("`{url}` is not an address"))
                        .hint("addresses start with `https://`, `http://` or `mirror://`"),
                );
            }
        }
    }
    let sha256 = fields.required("sha256");
    let sha256 = fields.parsed::<Sha256Digest>(sha256);
    let unpack = fields.flag("unpack").unwrap_or(true);
    Some(Source::Remote {
        urls,
        sha256: sha256?,
        unpack,
    })
}

/// Reads the path of something beside the derivation file, which is all that its source has.
fn read_beside(
    fields: &mut Fields<'_, '_>,
    key: &'static str,
    meta: Option<&Meta>,
) -> Option<Spanned<RelPath>> {
    let path = fields.text(key);
    let path = path.and_then(|text| Some(text.with(substitute(fields, &text, meta)?)));
    let path = fields.parsed::<RelPath>(path);
    for other in ["crates", "urls", "sha256", "unpack"] {
        if other != key && fields.has(other) {
            fields.problem(
                fields.span(),
                format!("a source has either `{key}` or `{other}`"),
            );
        }
    }
    // Asked for, so that they are not reported as unknown too.
    let _both = (
        fields.texts("urls"),
        fields.text("sha256"),
        fields.flag("unpack"),
    );
    if key != "crates" {
        drop(fields.text("crates"));
    }
    path
}

/// Replaces `${name}` and `${version}`.
fn substitute(
    fields: &mut Fields<'_, '_>,
    text: &Spanned<String>,
    meta: Option<&Meta>,
) -> Option<String> {
    let mut result = String::new();
    let mut rest = text.value.as_str();
    while let Some((before, after)) = rest.split_once("${") {
        result.push_str(before);
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        match (name, meta) {
            ("name", Some(meta)) => result.push_str(meta.name.as_str()),
            ("version", Some(meta)) => result.push_str(meta.version.as_deref().unwrap_or("")),
            // The missing name or version is reported where it is missing.
            ("name" | "version", None) => {}
            _ => {
                let file = fields.file;
                fields.report(
                    Diagnostic::new(
                        file,
                        text.range(),
                        format!("`${{{name}}}` means nothing here"),
                    )
                    .hint("the only substitutions are `${name}` and `${version}`"),
                );
                return None;
            }
        }
        rest = after;
    }
    result.push_str(rest);
    Some(result)
}

fn read_outputs(fields: &mut Fields<'_, '_>) -> BTreeMap<OutputName, Output> {
    let read = fields.tables("outputs", |name, f| {
        let name = f.parsed::<OutputName>(Some(name.clone()));
        let linkage = f
            .text("linkage")
            .and_then(|text| match text.value.as_str() {
                "static" => Some(Linkage::Static),
                other => {
                    let file = f.file;
                    f.report(
                        Diagnostic::new(file, text.range(), format!("`{other}` is not a linkage"))
                            .hint("the only linkage that can be demanded is `static`"),
                    );
                    None
                }
            });
        Some((name?.value, Output { linkage }))
    });
    if read.is_empty() {
        let out = "out".parse().expect("`out` is an output name");
        return BTreeMap::from([(out, Output::default())]);
    }
    read.into_iter().collect()
}

/// Refuses inputs and outputs whose variables would hide one another.
fn check_variables(
    fields: &mut Fields<'_, '_>,
    build: &BuildTable,
    outputs: &BTreeMap<OutputName, Output>,
) {
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    for output in outputs.keys() {
        taken.insert(output.as_str().to_owned(), format!("the output `{output}`"));
        if RESERVED_VARIABLES.contains(&output.as_str()) {
            fields.problem(
                0..0,
                format!("`{output}` cannot name an output: kiln sets that variable"),
            );
        }
    }
    for input in &build.inputs {
        let variable = variable(&input.value);
        let whose = format!("the input `{}`", input.value);
        let other = if RESERVED_VARIABLES.contains(&variable.as_str()) || variable == "version" {
            Some("kiln itself".to_owned())
        } else {
            taken.insert(variable.clone(), whose)
        };
        if let Some(other) = other {
            fields.problem(
                input.range(),
                format!(
                    "`{}` would set `${variable}`, which {other} sets",
                    input.value
                ),
            );
        }
    }
}

pub(super) fn read_debian(fields: &mut Fields<'_, '_>) -> Option<Debian> {
    fields.table("debian", |f| {
        let packages = f.list("packages", |p| {
            let name = p.required("name");
            let version = p.required("version");
            let sha256 = p.required("sha256");
            let sha256 = p.parsed::<Sha256Digest>(sha256);
            let path = p.required("path");
            let path = p.parsed::<RelPath>(path);
            Some(DebianPackage {
                name: name?.value,
                version: version?.value,
                sha256: sha256?,
                path: path?,
            })
        });
        if packages.is_empty() {
            f.problem(f.span(), "the root has no packages");
        }
        let exclude = f.parsed_texts::<RelPath>("exclude");
        Some(Debian {
            packages,
            exclude: exclude.into_iter().map(|path| path.value).collect(),
            links: read_paths(f, "links"),
            files: read_paths(f, "files"),
        })
    })
}

fn read_paths(fields: &mut Fields<'_, '_>, key: &'static str) -> BTreeMap<RelPath, String> {
    let mut map = BTreeMap::new();
    for (path, value) in fields.text_map(key) {
        if let Some(path) = fields.parsed::<RelPath>(Some(value.with(path))) {
            map.insert(path.value, value.value);
        }
    }
    map
}
