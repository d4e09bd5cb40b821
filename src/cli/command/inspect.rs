//! `kiln inspect`: the rules of a policy on an image of any maker, and what two images
//! have in common.

mod difference;
mod sarif;

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::verdict::{controls, remark, set, unused, unused_documents};
use crate::cli::arguments::{Arguments, InspectArguments, InspectFormat};
use crate::cli::hints;
use crate::cli::library::{Files, read_file};
use crate::cli::progress::bytes;
use crate::cli::report::{Answer, Failure, Output, Problem};
use crate::cli::session::{package, registry};
use crate::cli::settings::Settings;
use crate::derivation::{Rule, SourceFile, built_in};
use crate::hash::{PackageName, RelPath};
use crate::image::registry::Reference;
use crate::inspect::source::{self, Opened, Source};
use crate::inspect::{Inspected, Progress, inspect, printable, remote};
use crate::listing::image::ImageEntry;
use crate::plan::{self, Library, LoadError};
use crate::policy::{self, Effective, Remark, Status, Verdict, evaluate};

/// Most remarks that are printed of one rule; JSON and SARIF have all.
const MAX_SHOWN: usize = 20;

pub(in crate::cli) fn run(
    arguments: &Arguments,
    inspect: &InspectArguments,
    output: &Output,
) -> Result<Answer, Failure> {
    if inspect.rules {
        list_rules(output);
        return Ok(Answer::Yes);
    }
    match (inspect.diff, inspect.images.as_slice()) {
        (false, [image]) => judge(arguments, inspect, image, output),
        (true, [old, new]) => {
            let platform = inspect.platform.as_ref();
            let old = read(old, platform, output)?;
            let new = read(new, platform, output)?;
            Ok(difference::report(&old.listing, &new.listing, output))
        }
        (false, _) => Err(Problem::new("two images are named")
            .hint("compare them with `--diff`, or inspect one after the other")
            .into()),
        (true, _) => Err(Problem::new("one image cannot be compared with itself")
            .hint("name two: `kiln inspect --diff OLD NEW`")
            .into()),
    }
}

fn judge(
    arguments: &Arguments,
    inspect: &InspectArguments,
    image: &str,
    output: &Output,
) -> Result<Answer, Failure> {
    // A policy that cannot be read is told before an image that takes a while.
    let effective = effective(arguments, &inspect.policy)?;
    let inspected = read(image, inspect.platform.as_ref(), output)?;
    let verdict = evaluate(
        &inspected.listing,
        &effective.demands,
        &effective.exceptions,
    );
    let format = if output.json {
        InspectFormat::Json
    } else {
        inspect.format
    };
    match format {
        InspectFormat::Json => {
            output.document(&document(image, &inspect.policy, &inspected, &verdict));
        }
        InspectFormat::Sarif => output.document(&sarif::document(&verdict)),
        InspectFormat::Table => print(image, &inspect.policy, &inspected, &verdict, output),
    }
    Ok(if verdict.holds() {
        Answer::Yes
    } else {
        Answer::No
    })
}

fn read(
    image: &str,
    platform: Option<&crate::inspect::document::Platform>,
    output: &Output,
) -> Result<Inspected, Failure> {
    let opened = open(image)?;
    let bar = Bar(output.bytes_bar(0, "read"));
    let inspected = inspect(&opened, platform, &bar);
    bar.0.finish_and_clear();
    inspected.map_err(|error| hints::inspect(&error, image))
}

/// Shows how much of an image was read.
pub(super) struct Bar(pub indicatif::ProgressBar);

impl Progress for Bar {
    fn total(&self, bytes: u64) {
        self.0.set_length(bytes);
    }
    fn read(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

/// Opens an image that a user named: a layout, an archive, or one of a registry.
pub(super) fn open(image: &str) -> Result<Opened, Failure> {
    let opened = match registry_image(image)? {
        Some(reference) => remote::open(registry(&reference)?),
        None => Source::parse(image).and_then(|source| source::open(&source)),
    };
    opened.map_err(|error| hints::inspect(&error, image))
}

/// Returns the reference that `docker://` names.
pub(super) fn registry_image(image: &str) -> Result<Option<Reference>, Failure> {
    let Some(reference) = image.strip_prefix("docker://") else {
        return Ok(None);
    };
    let reference = reference.parse::<Reference>().map_err(|problem| {
        Problem::new(format!("`{image}` is not an image"))
            .because(problem)
            .hint("write `docker://HOST/NAME[:TAG]`")
    })?;
    Ok(Some(reference))
}

/// Returns the rules of a policy that is named, or of a file.
fn effective(arguments: &Arguments, policy: &str) -> Result<Effective, Failure> {
    let settings = Settings::read(arguments)?;
    let mut library = WithFile {
        files: Files::new(settings.project.as_ref()),
        file: None,
    };
    let path = Path::new(policy);
    let name = if path.is_file() {
        let name: PackageName = "policy-file".parse().expect("a package name");
        library.file = Some(policy_file(policy, &name)?);
        name
    } else {
        built_in(policy).map_or_else(|| package(policy), Ok)?
    };
    let loaded =
        plan::load(&library, std::slice::from_ref(&name)).map_err(|error| match error {
            LoadError::Diagnostics(all) => Failure::Diagnostics(all),
            LoadError::Unknown { .. } => Problem::new(format!("there is no policy `{policy}`"))
                .hint("name `minimal`, `hardened`, `regulated`, a policy of the project, or a file")
                .into(),
            LoadError::Unreadable { why, .. } => {
                Problem::new(format!("cannot read the policy `{policy}`"))
                    .because(why)
                    .into()
            }
        })?;
    policy::gather(&loaded.definitions, &name).ok_or_else(|| {
        Problem::new(format!("`{policy}` is not a policy"))
            .because("its file has no `[policy]` table")
            .hint("name `minimal`, `hardened`, `regulated`, a policy of the project, or a file")
            .into()
    })
}

fn policy_file(path: &str, name: &PackageName) -> Result<Arc<SourceFile>, Failure> {
    let unreadable = |why: String| {
        Failure::from(Problem::new(format!("cannot read the policy `{path}`")).because(why))
    };
    let text = read_file(Path::new(path))
        .and_then(|text| text.ok_or_else(|| "it is not there".to_owned()))
        .map_err(unreadable)?;
    Ok(Arc::new(SourceFile {
        package: name.clone(),
        shown: path.to_owned(),
        text,
    }))
}

/// The derivation files, and one more.
struct WithFile {
    files: Files,
    file: Option<Arc<SourceFile>>,
}

impl Library for WithFile {
    fn read(&self, package: &PackageName) -> Result<Option<Arc<SourceFile>>, String> {
        match &self.file {
            Some(file) if file.package == *package => Ok(Some(Arc::clone(file))),
            _ => self.files.read(package),
        }
    }

    fn read_beside(
        &self,
        package: &PackageName,
        path: &RelPath,
    ) -> Result<Option<Arc<SourceFile>>, String> {
        self.files.read_beside(package, path)
    }

    fn names(&self) -> Vec<String> {
        self.files.names()
    }
}

fn list_rules(output: &Output) {
    if output.json {
        let rules: Vec<Value> = Rule::ALL.iter().map(|rule| about(*rule)).collect();
        output.document(&json!({ "rules": rules }));
        return;
    }
    output.lines(Rule::ALL.iter().map(|rule| {
        let about = rule.about();
        let controls = match controls(*rule).join(", ") {
            none if none.is_empty() => none,
            some => format!(" ({some})"),
        };
        let severity = about.severity.as_str();
        format!("{:<26} {severity:<6} {}{controls}", about.id, about.summary)
    }));
}

fn about(rule: Rule) -> Value {
    let about = rule.about();
    json!({
        "id": about.id,
        "severity": about.severity.as_str(),
        "summary": about.summary,
        "controls": controls(rule),
    })
}

fn print(image: &str, policy: &str, inspected: &Inspected, verdict: &Verdict, output: &Output) {
    let mut lines = Vec::new();
    for judged in &verdict.rules {
        let severity = judged.severity.as_str();
        let status = judged.status();
        lines.push(format!(
            "{:<12}  {severity:<6}  {}",
            status.as_str(),
            judged.rule.as_str()
        ));
        let waived = judged
            .waived
            .iter()
            .map(|(remark, reason)| format!("waived: {remark} ({reason})"));
        let unknown = judged
            .unknown
            .iter()
            .map(|remark| format!("not assessed: {remark}"));
        some(&mut lines, judged.findings.iter().map(Remark::to_string));
        some(&mut lines, waived);
        some(&mut lines, unknown);
    }
    lines.extend(
        verdict
            .unused
            .iter()
            .map(|exception| format!("{:<12}  {:<6}  {}", "fail", "high", unused(exception))),
    );
    output.lines(lines.iter().map(|line| printable(line)));
    let listing = &inspected.listing;
    let size: u64 = listing.entries.values().map(ImageEntry::size_bytes).sum();
    let word = if verdict.holds() { "keeps" } else { "violates" };
    output.tell(&format!(
        "`{image}` (sha256:{}) {word} the policy `{policy}`: {} passed, {} failed, {} waived, \
         {} not assessed; {} entries, {}, {} layers",
        inspected.digest,
        verdict.count(Status::Passed),
        verdict.count(Status::Failed) + usize::from(!verdict.unused.is_empty()),
        verdict.count(Status::Waived),
        verdict.count(Status::NotAssessed),
        listing.entries.len(),
        bytes(size),
        listing.layers.len(),
    ));
}

fn some(lines: &mut Vec<String>, remarks: impl ExactSizeIterator<Item = String>) {
    let more = remarks.len().saturating_sub(MAX_SHOWN);
    lines.extend(
        remarks
            .take(MAX_SHOWN)
            .map(|remark| format!("              {remark}")),
    );
    if more > 0 {
        lines.push(format!(
            "              and {more} more; `--format json` has all"
        ));
    }
}

fn document(image: &str, policy: &str, inspected: &Inspected, verdict: &Verdict) -> Value {
    let remarks = |all: &[Remark]| json!(all.iter().map(remark).collect::<Vec<_>>());
    let rules: Vec<Value> = verdict
        .rules
        .iter()
        .map(|judged| {
            let mut rule = about(judged.rule);
            set(&mut rule, "severity", json!(judged.severity.as_str()));
            set(&mut rule, "status", json!(judged.status().as_str()));
            set(&mut rule, "findings", remarks(&judged.findings));
            set(&mut rule, "not_assessed", remarks(&judged.unknown));
            let waived: Vec<Value> = judged
                .waived
                .iter()
                .map(|(about, reason)| {
                    let mut document = remark(about);
                    set(&mut document, "reason", json!(reason));
                    document
                })
                .collect();
            set(&mut rule, "waived", json!(waived));
            rule
        })
        .collect();
    let listing = &inspected.listing;
    json!({
        "image": image,
        "digest": format!("sha256:{}", inspected.digest),
        "tag": inspected.tag,
        "platform": format!(
            "{}/{}",
            listing.configuration.os,
            listing.configuration.architecture
        ),
        "policy": policy,
        "holds": verdict.holds(),
        "entries": listing.entries.len(),
        "size_bytes": listing.entries.values().map(ImageEntry::size_bytes).sum::<u64>(),
        "hidden_files": listing.hidden.len(),
        "layers": listing.layers.iter().map(|layer| json!({
            "title": layer.title,
            "size_bytes": layer.size_bytes,
        })).collect::<Vec<_>>(),
        "rules": rules,
        "unused_exceptions": unused_documents(verdict),
    })
}
