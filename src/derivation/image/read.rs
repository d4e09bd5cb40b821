//! Reading `[image]`.

use std::collections::{BTreeMap, BTreeSet};

use super::super::diagnostic::{Diagnostic, Spanned};
use super::super::fields::Fields;
use super::super::package::duration;
use super::super::policy::{Absolute, PathPattern, read_exception};
use super::accounts::{NSSWITCH, group, passwd, read_groups, read_users};
use super::{
    Compression, Content, DEFAULT_BUDGET, HealthCheck, Image, Layers, Layout, OwnFile, Ownership,
    Platform, User,
};
use crate::hash::{PackageName, RelPath};

/// Processors in Go's words.
const ARCHITECTURES: [&str; 7] = [
    "386", "amd64", "arm", "arm64", "ppc64le", "riscv64", "s390x",
];

/// Files that are put into an image under a name of their own: what each is, stands in
/// the book.
const PARTS: [&str; 5] = ["certificates", "group", "nsswitch", "passwd", "time-zones"];

/// Most layers that engines take.
const MAX_LAYERS: u64 = 127;

pub(in crate::derivation) fn read_image(fields: &mut Fields<'_, '_>) -> Option<Image> {
    fields.table("image", |f| {
        let mut contents = f.list("contents", read_content);
        let mut files = read_files(f);
        let users = read_users(f);
        let groups = read_groups(f, &users);
        let parts = f.texts("parts");
        for part in &parts {
            let text = match part.value.as_str() {
                "passwd" => passwd(&users),
                "group" => group(&groups),
                "nsswitch" => NSSWITCH.to_owned(),
                "certificates" => {
                    contents.push(data(part, "ca-certificates"));
                    continue;
                }
                "time-zones" => {
                    contents.push(data(part, "tzdata"));
                    continue;
                }
                other => {
                    let message = format!("`{other}` is not a part");
                    one_of(f, part, message, &PARTS);
                    continue;
                }
            };
            let place = match part.value.as_str() {
                "nsswitch" => "etc/nsswitch.conf".to_owned(),
                name => format!("etc/{name}"),
            };
            if text.is_empty() {
                let message = format!("the part `{}` would be empty", part.value);
                let hint = format!(
                    "declare what is in it: `[[image.{}s]]`",
                    match part.value.as_str() {
                        "passwd" => "user",
                        name => name,
                    }
                );
                let diagnostic = Diagnostic::new(f.file, part.range(), message).hint(hint);
                f.report(diagnostic);
            }
            let Ok(place) = place.parse::<RelPath>() else {
                continue;
            };
            let file = OwnFile::Text {
                text,
                executable: false,
            };
            if files.insert(place.clone(), file).is_some() {
                f.problem(part.range(), format!("`/{place}` is there twice"));
            }
        }
        if contents.is_empty() && files.is_empty() {
            f.problem(
                f.span(),
                "the image has no `[[image.contents]]` and no `[[image.files]]`",
            );
        }
        let policy = f.required("policy");
        let policy = f.parsed::<PackageName>(policy);
        let working_directory = f
            .text("working-directory")
            .map_or_else(|| "/".to_owned(), |text| text.value);
        let user = f.text("user").and_then(|text| owner(f, &text, &users));
        let (executables, executable_packages) = read_executables(f);
        Some(Image {
            platform: read_platform(f),
            layout: read_layout(f),
            contents,
            files,
            ownership: f.list("ownership", |f| read_ownership(f, &users)),
            users,
            groups,
            entrypoint: plain(f.texts("entrypoint")),
            command: plain(f.texts("command")),
            user: user.unwrap_or((65534, 65534)),
            environment: plain_map(f.text_map("environment")),
            working_directory,
            ports: read_ports(f),
            labels: plain_map(f.text_map("labels")),
            stop_signal: read_stop_signal(f),
            health_check: f.table("health-check", read_health_check),
            writable: absolute(f, "writable"),
            layers: read_layers(f),
            compression: read_compression(f),
            executables,
            executable_packages,
            exceptions: f.list("exceptions", read_exception),
            policy: policy?,
        })
    })
}

/// Returns the content that a part stands for: a package of the standard set.
fn data(part: &Spanned<String>, name: &str) -> Content {
    let package: PackageName = format!("std:data/{name}")
        .parse()
        .expect("it is a package's name");
    Content {
        package: part.with(package),
        files: None,
        to: None,
        keep: BTreeSet::new(),
    }
}

fn one_of(f: &mut Fields<'_, '_>, text: &Spanned<String>, message: String, known: &[&str]) {
    let diagnostic = Diagnostic::new(f.file, text.range(), message);
    let known: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    f.report(diagnostic.hint(format!("write one of {}", known.join(", "))));
}

fn plain(texts: Vec<Spanned<String>>) -> Vec<String> {
    texts.into_iter().map(|text| text.value).collect()
}

fn plain_map(map: BTreeMap<String, Spanned<String>>) -> BTreeMap<String, String> {
    map.into_iter()
        .map(|(key, text)| (key, text.value))
        .collect()
}

fn absolute(fields: &mut Fields<'_, '_>, key: &'static str) -> BTreeSet<RelPath> {
    fields
        .parsed_texts::<Absolute>(key)
        .into_iter()
        .map(|path| path.value.0)
        .collect()
}

fn read_platform(f: &mut Fields<'_, '_>) -> Platform {
    let Some(text) = f.text("platform") else {
        return Platform::default();
    };
    let parts: Vec<&str> = text.value.split('/').collect();
    let (architecture, variant) = match parts.as_slice() {
        [Platform::OS, architecture] => (*architecture, None),
        [Platform::OS, architecture, variant] => (*architecture, Some(*variant)),
        _ => ("", None),
    };
    let good = |variant: &str| {
        !variant.is_empty() && variant.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    if !ARCHITECTURES.contains(&architecture) || !variant.is_none_or(good) {
        let known: Vec<String> = ARCHITECTURES
            .iter()
            .map(|name| format!("{}/{name}", Platform::OS))
            .collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        one_of(
            f,
            &text,
            format!("`{}` is not a platform", text.value),
            &known,
        );
    }
    Platform {
        architecture: architecture.to_owned(),
        variant: variant.map(str::to_owned),
    }
}

fn read_layout(f: &mut Fields<'_, '_>) -> Layout {
    let Some(text) = f.text("layout") else {
        return Layout::Flat;
    };
    match text.value.as_str() {
        "flat" => Layout::Flat,
        "store" => Layout::Store,
        other => {
            let message = format!("`{other}` is not a layout");
            one_of(f, &text, message, &["flat", "store"]);
            Layout::Flat
        }
    }
}

fn read_compression(f: &mut Fields<'_, '_>) -> Compression {
    let Some(text) = f.text("compression") else {
        return Compression::None;
    };
    Compression::named(&text.value).unwrap_or_else(|| {
        let message = format!("`{}` is not a compression", text.value);
        one_of(f, &text, message, &Compression::NAMES.map(|(name, _)| name));
        Compression::None
    })
}

fn read_layers(f: &mut Fields<'_, '_>) -> Layers {
    if f.is_text("layers") {
        let text = f.text("layers");
        return match f.parsed::<RelPath>(text) {
            Some(path) => Layers::Plan(path),
            None => Layers::Budget(DEFAULT_BUDGET),
        };
    }
    let span = f.span_of("layers");
    match f.number("layers") {
        Some(number @ 1..=MAX_LAYERS) => {
            Layers::Budget(usize::try_from(number).unwrap_or(DEFAULT_BUDGET))
        }
        Some(number) => {
            let message = format!("{number} is not a number of layers");
            let diagnostic = Diagnostic::new(f.file, span, message).hint(format!(
                "write 1 to {MAX_LAYERS}, or the name of a plan file"
            ));
            f.report(diagnostic);
            Layers::Budget(DEFAULT_BUDGET)
        }
        None => Layers::Budget(DEFAULT_BUDGET),
    }
}

/// Reads a user and a group: two numbers, or a user that the image declares.
fn owner(f: &mut Fields<'_, '_>, text: &Spanned<String>, users: &[User]) -> Option<(u32, u32)> {
    let ids = match text.value.split_once(':') {
        Some((user, group)) => user.parse::<u32>().ok().zip(group.parse::<u32>().ok()),
        None => users
            .iter()
            .find(|user| user.name == text.value)
            .map(|user| (user.uid, user.gid)),
    };
    if ids.is_none() {
        let message = format!("`{}` is not a user", text.value);
        let diagnostic = Diagnostic::new(f.file, text.range(), message)
            .hint("write numbers, user and group: `65534:65534`, or a name of `[[image.users]]`");
        f.report(diagnostic);
    }
    ids
}

fn read_ownership(f: &mut Fields<'_, '_>, users: &[User]) -> Option<Ownership> {
    let paths = f.required("path");
    let paths = f.parsed::<PathPattern>(paths);
    let owner = f.text("owner").map(|text| owner(f, &text, users));
    let file_mode = f.text("mode").map(|text| mode(f, &text));
    let directory_mode = f.text("directory-mode").map(|text| mode(f, &text));
    if owner.is_none() && file_mode.is_none() && directory_mode.is_none() {
        f.problem(
            f.span(),
            "the rule has no `owner`, no `mode` and no `directory-mode`",
        );
    }
    Some(Ownership {
        paths: paths?,
        owner: owner.flatten(),
        mode: file_mode.flatten(),
        directory_mode: directory_mode.flatten(),
    })
}

/// Reads permission bits in octal. Nothing gains a privilege by being executed.
fn mode(f: &mut Fields<'_, '_>, text: &Spanned<String>) -> Option<u32> {
    let digits = (3..=4).contains(&text.value.len())
        && text
            .value
            .bytes()
            .all(|digit| (b'0'..=b'7').contains(&digit));
    let mode = u32::from_str_radix(&text.value, 8).ok().filter(|_| digits);
    let (message, hint) = match mode {
        Some(mode) if mode & 0o6000 != 0 => (
            format!("`{}` has a setuid or setgid bit", text.value),
            "no file of an image runs with another's rights",
        ),
        Some(mode) => return Some(mode),
        None => (
            format!("`{}` is not a mode", text.value),
            "write permission bits in octal: `0750`",
        ),
    };
    let diagnostic = Diagnostic::new(f.file, text.range(), message).hint(hint);
    f.report(diagnostic);
    None
}

fn read_executables(f: &mut Fields<'_, '_>) -> (BTreeSet<RelPath>, Vec<Spanned<PackageName>>) {
    let mut paths = BTreeSet::new();
    let mut packages = Vec::new();
    for text in f.texts("executables") {
        if text.value.starts_with('/') {
            paths.extend(f.parsed::<Absolute>(Some(text)).map(|path| path.value.0));
        } else {
            packages.extend(f.parsed::<PackageName>(Some(text)));
        }
    }
    (paths, packages)
}

fn read_stop_signal(f: &mut Fields<'_, '_>) -> Option<String> {
    let text = f.text("stop-signal")?;
    let name = text.value.strip_prefix("SIG").is_some_and(|rest| {
        !rest.is_empty()
            && rest.bytes().all(|byte| {
                byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"+-".contains(&byte)
            })
    });
    let number = text
        .value
        .parse::<u8>()
        .is_ok_and(|n| (1..=64).contains(&n));
    if name || number {
        return Some(text.value);
    }
    let message = format!("`{}` is not a signal", text.value);
    let diagnostic =
        Diagnostic::new(f.file, text.range(), message).hint("write its name: `SIGQUIT`");
    f.report(diagnostic);
    None
}

fn read_health_check(f: &mut Fields<'_, '_>) -> Option<HealthCheck> {
    let command = plain(f.texts("command"));
    if command.is_empty() {
        f.problem(f.span(), "the health check has no `command`");
    }
    let mut time = |key| f.text(key).and_then(|text| duration(f, &text));
    let interval = time("interval");
    let timeout = time("timeout");
    let start_period = time("start-period");
    Some(HealthCheck {
        command,
        interval,
        timeout,
        start_period,
        retries: f
            .number("retries")
            .and_then(|number| u32::try_from(number).ok()),
    })
}

fn read_ports(fields: &mut Fields<'_, '_>) -> BTreeSet<String> {
    let mut ports = BTreeSet::new();
    for text in fields.texts("ports") {
        let good = text.value.split_once('/').is_some_and(|(port, protocol)| {
            port.parse::<u16>().is_ok_and(|port| port > 0) && ["tcp", "udp"].contains(&protocol)
        });
        if good {
            ports.insert(text.value);
        } else {
            let file = fields.file;
            fields.report(
                Diagnostic::new(
                    file,
                    text.range(),
                    format!("`{}` is not a port", text.value),
                )
                .hint("write the number and the protocol: `8080/tcp`"),
            );
        }
    }
    ports
}

fn read_content(fields: &mut Fields<'_, '_>) -> Option<Content> {
    let package = fields.required("package");
    let package = fields.parsed::<PackageName>(package);
    let files = fields
        .has("files")
        .then(|| fields.parsed_texts::<RelPath>("files"));
    let to = match fields.text("to") {
        Some(text) if text.value == "/" => None,
        other => fields.parsed::<Absolute>(other).map(|path| path.value.0),
    };
    let keep = fields.texts("keep").into_iter().map(|text| text.value);
    let keep = keep.collect();
    Some(Content {
        package: package?,
        files,
        to,
        keep,
    })
}

fn read_files(fields: &mut Fields<'_, '_>) -> BTreeMap<RelPath, OwnFile> {
    let files = fields.list("files", |f| {
        let path = f.required("path");
        let path = f.parsed::<Absolute>(path);
        let text = f.text("text");
        let source = f.text("source");
        let source = f.parsed::<RelPath>(source);
        let executable = f.flag("executable");
        let file = match (text, source) {
            (Some(text), None) => OwnFile::Text {
                text: text.value,
                executable: executable.unwrap_or(false),
            },
            (None, Some(source)) => OwnFile::Source(source),
            _ => {
                f.problem(f.span(), "a file has either `text` or `source`");
                return None;
            }
        };
        if executable.is_some() && matches!(file, OwnFile::Source(_)) {
            f.problem(
                f.span_of("executable"),
                "a file beside the image's file has its own executable bit",
            );
        }
        let path = path?;
        Some((path.range(), path.value.0, file))
    });
    let mut all = BTreeMap::new();
    for (at, path, file) in files {
        if all.contains_key(&path) {
            fields.problem(at, format!("`/{path}` is there twice"));
        }
        all.insert(path, file);
    }
    all
}
