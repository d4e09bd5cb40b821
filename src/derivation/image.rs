//! Reading `[image]`.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::{Diagnostic, Spanned};
use super::fields::Fields;
use super::policy::{Absolute, Exception, read_exception};
use crate::hash::{PackageName, RelPath};

/// An image as declared.
#[derive(Debug, Clone)]
pub struct Image {
    /// How files are laid out.
    pub layout: Layout,
    /// What is in it, in order.
    pub contents: Vec<Content>,
    /// The program and the arguments that are always given.
    pub entrypoint: Vec<String>,
    /// Arguments that a user may replace.
    pub command: Vec<String>,
    /// User and group.
    pub user: (u32, u32),
    /// Variables.
    pub environment: BTreeMap<String, String>,
    /// Where the program starts.
    pub working_directory: String,
    /// Ports that it listens on: `8080/tcp`.
    pub ports: BTreeSet<String>,
    /// Labels of the configuration.
    pub labels: BTreeMap<String, String>,
    /// Directories that the program may write to.
    pub writable: BTreeSet<RelPath>,
    /// The policy, as written.
    pub policy: Spanned<PackageName>,
    /// Every file that may be executed, as absolute paths.
    pub executables: BTreeSet<RelPath>,
    /// Findings that are waived.
    pub exceptions: Vec<Exception>,
}

/// How files are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// At ordinary paths; nothing may need a store path.
    Flat,
}

/// A package, or parts of one, in an image.
#[derive(Debug, Clone)]
pub struct Content {
    /// The package, as written.
    pub package: Spanned<PackageName>,
    /// The files and directories that are taken; `None` for all.
    pub files: Option<Vec<Spanned<RelPath>>>,
    /// Where they are put; `None` for `/`.
    pub to: Option<RelPath>,
}

pub(super) fn read_image(fields: &mut Fields<'_, '_>) -> Option<Image> {
    fields.table("image", |f| {
        let layout = f.text("layout");
        if let Some(layout) = &layout
            && layout.value != "flat"
        {
            let file = f.file;
            f.report(
                Diagnostic::new(
                    file,
                    layout.range(),
                    format!("`{}` is not a layout", layout.value),
                )
                .hint("the only layout is `flat`"),
            );
        }
        let contents = f.list("contents", read_content);
        if contents.is_empty() {
            f.problem(f.span(), "the image has no `[[image.contents]]`");
        }
        let policy = f.required("policy");
        let policy = f.parsed::<PackageName>(policy);
        let working_directory = f
            .text("working-directory")
            .map_or_else(|| "/".to_owned(), |text| text.value);
        Some(Image {
            layout: Layout::Flat,
            contents,
            entrypoint: plain(f.texts("entrypoint")),
            command: plain(f.texts("command")),
            user: read_user(f).unwrap_or((65534, 65534)),
            environment: plain_map(f.text_map("environment")),
            working_directory,
            ports: read_ports(f),
            labels: plain_map(f.text_map("labels")),
            writable: absolute(f, "writable"),
            executables: absolute(f, "executables"),
            exceptions: f.list("exceptions", read_exception),
            policy: policy?,
        })
    })
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

fn read_user(fields: &mut Fields<'_, '_>) -> Option<(u32, u32)> {
    let text = fields.text("user")?;
    let ids = text
        .value
        .split_once(':')
        .and_then(|(user, group)| Some((user.parse::<u32>().ok()?, group.parse::<u32>().ok()?)));
    if ids.is_none() {
        let file = fields.file;
        fields.report(
            Diagnostic::new(
                file,
                text.range(),
                format!("`{}` is not a user", text.value),
            )
            .hint("write numbers, user and group: `65534:65534`"),
        );
    }
    ids
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
    Some(Content {
        package: package?,
        files,
        to,
    })
}
