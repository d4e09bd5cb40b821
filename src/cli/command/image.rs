//! `kiln image`.

mod explain;
pub(super) mod gather;
mod sayings;
pub(super) mod target;
mod twin;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::prove::{self, Recorded};
use super::sbom::Making;
use super::verdict::{absolute, remark_of, unused, unused_documents};
use crate::cli::arguments::ImageArguments;
use crate::cli::hints;
use crate::cli::report::{Answer, Failure, Problem, not_hermetic};
use crate::cli::session::{Session, graph, package};
use crate::derivation::{
    Compression, Definition, Image as Declared, Kind, resolve, resolve_policy,
};
use crate::hash::{PackageName, StorePath};
use crate::image::archive::Existing;
use crate::image::{Image, Tag, assemble};
use crate::listing::Listing;
use crate::listing::image::Origin;
use crate::plan::{Graph, Loaded, StepKind};
use crate::policy::{self, Known, Verdict, evaluate};
use crate::projection::{Content, Objects, Projection, Reached};
use crate::proof::Proof;
use crate::realise::Realised;

use explain::Explanation;
use gather::{Gathered, gather};
use target::Target;

pub(in crate::cli) fn run(
    session: &Session,
    arguments: &ImageArguments,
) -> Result<Answer, Failure> {
    let names = arguments
        .images
        .iter()
        .map(|name| package(name))
        .collect::<Result<Vec<_>, _>>()?;
    let targets = targets(&names, arguments)?;
    let mut wanted = names.clone();
    wanted.extend(arguments.debug.then(twin::toolbox));
    let loaded = session.load(&wanted)?;
    for name in &names {
        declared(&loaded, name)?;
    }
    let graph = graph(&loaded)?;
    let realised = session.realise(&loaded, &graph, &arguments.effort)?;
    let mut answer = Answer::Yes;
    let mut documents = Vec::new();
    let checked = if arguments.check {
        let effort = &arguments.effort;
        let rebuilt = prove::rebuild(session, &graph, &realised, effort, Recorded::Accept)?;
        let mut failures = rebuilt.failures.into_iter();
        if let Some(first) = failures.next() {
            failures.for_each(|failure| session.output.failure_beside(&failure));
            return Err(first);
        }
        Some(rebuilt.proofs)
    } else {
        None
    };
    for name in &names {
        let (definition, image) = declared(&loaded, name)?;
        let mut made = make(
            session,
            &loaded,
            (&graph, &realised),
            (name, definition, image),
            checked.as_deref(),
            arguments.compression,
        )?;
        made = completed(
            session,
            &loaded,
            (&graph, &realised),
            made,
            (image, arguments),
        )?;
        if !made.verdict.holds() {
            answer = Answer::No;
        }
        let needed = graph.steps().map(|(id, _)| id);
        let lacking = session.lacking(&realised, needed)?;
        if !lacking.is_hermetic() {
            session.output.tell(&not_hermetic(name, &lacking));
        }
        let existing = if arguments.force {
            Existing::Replace
        } else {
            Existing::ReplaceOwn
        };
        let mut document = deliver(session, name, &made, &targets, existing, checked.as_deref())?;
        if arguments.explain && !session.output.json {
            session.output.lines(made.explanation().lines());
        }
        if let Some(members) = document.as_object_mut() {
            members.insert("hermetic".to_owned(), json!(lacking.is_hermetic()));
            members.insert(
                "lacking".to_owned(),
                json!(lacking.names().collect::<Vec<_>>()),
            );
            if arguments.explain {
                members.insert("explanation".to_owned(), made.explanation().document());
            }
        }
        documents.push(document);
    }
    if !checked.iter().flatten().all(Proof::holds) {
        answer = Answer::No;
    }
    if session.output.json {
        session.output.document(&json!({ "images": documents }));
    }
    Ok(answer)
}

/// Reads where images go.
fn targets(names: &[PackageName], arguments: &ImageArguments) -> Result<Vec<Target>, Failure> {
    if names.len() > 1 && !arguments.output.is_empty() {
        return Err(Problem::new("several images cannot go to one place")
            .hint("make them one after the other, each with its own `-o`; `kiln index` joins images for several platforms")
            .into());
    }
    let parsed = arguments.output.iter().map(|text| target::parse(text));
    parsed
        .map(|target| {
            Ok(if arguments.debug {
                twin::place(target?)
            } else {
                target?
            })
        })
        .collect()
}

/// Makes the twin of an image, and the documents that go beside it, as far as asked for.
fn completed(
    session: &Session,
    loaded: &Loaded,
    (graph, realised): (&Graph, &Realised),
    mut made: Made,
    (image, arguments): (&Declared, &ImageArguments),
) -> Result<Made, Failure> {
    if arguments.debug {
        let of = (image, arguments.compression);
        made = twin::twin(session, loaded, (graph, realised), of, made)?;
    }
    if !arguments.sbom.is_empty() {
        let making = Making {
            session,
            loaded,
            graph,
            realised,
        };
        making.attach(
            &mut made.image,
            &made.definition,
            &made.projection,
            &arguments.sbom,
        )?;
    }
    Ok(made)
}

/// Returns the definition of a name, which must be an image's.
pub(super) fn declared<'a>(
    loaded: &'a Loaded,
    name: &PackageName,
) -> Result<(&'a Definition, &'a Declared), Failure> {
    match loaded
        .definitions
        .get(name)
        .map(|definition| (definition, &definition.kind))
    {
        Some((definition, Kind::Image(image))) => Ok((definition, image)),
        _ => Err(Problem::new(format!("`{name}` is not an image"))
            .because("its file has no `[image]` table")
            .hint(format!("`kiln build {name}` builds packages"))
            .into()),
    }
}

struct Made {
    image: Image,
    contents: Vec<Content>,
    objects: Objects,
    reached: Reached,
    verdict: Verdict,
    policy: PackageName,
    definition: Definition,
    projection: Projection,
    /// Whether it is a debug twin.
    is_twin: bool,
}

impl Made {
    fn explanation(&self) -> Explanation {
        Explanation::of(&self.contents, &self.objects, &self.reached)
    }
}

/// Returns the files of an image by name, or `None` if no image is named so. Everything
/// that it holds must have been built.
pub(super) fn listing(session: &Session, target: &str) -> Result<Option<Listing>, Failure> {
    let Ok(name) = package(target) else {
        return Ok(None);
    };
    let Ok(loaded) = session.load(std::slice::from_ref(&name)) else {
        return Ok(None);
    };
    let Ok((definition, image)) = declared(&loaded, &name) else {
        return Ok(None);
    };
    let graph = graph(&loaded)?;
    let realised = session.known(&graph)?;
    let gathered = gather(
        session,
        &loaded,
        (&graph, &realised),
        (&name, definition, image),
    )?;
    let entries = gathered
        .projection
        .entries
        .into_iter()
        .map(|(path, placed)| (path, placed.entry))
        .collect();
    Listing::new(entries)
        .map(Some)
        .map_err(|error| Problem::from_error(&error).into())
}

/// Makes an image without judging it.
pub(super) fn assembled(
    session: &Session,
    loaded: &Loaded,
    steps: (&Graph, &Realised),
    (name, definition, declared): (&PackageName, &Definition, &Declared),
) -> Result<(Projection, Image), Failure> {
    let gathered = gather(session, loaded, steps, (name, definition, declared))?;
    let image = assemble(
        &session.store,
        definition,
        declared,
        &gathered.projection,
        declared.compression,
    )
    .map_err(|error| hints::image(&error))?;
    Ok((gathered.projection, image))
}

fn make(
    session: &Session,
    loaded: &Loaded,
    (graph, realised): (&Graph, &Realised),
    (name, definition, declared): (&PackageName, &Definition, &Declared),
    checked: Option<&[Proof]>,
    compression: Option<Compression>,
) -> Result<Made, Failure> {
    let gathered = gather(
        session,
        loaded,
        (graph, realised),
        (name, definition, declared),
    )?;
    let policy = resolve_policy(&declared.policy, &definition.file.package);
    let Some(effective) = policy::gather(&loaded.definitions, &policy) else {
        let message = format!("`{policy}` is not a policy");
        return Err(Failure::Diagnostics(vec![
            definition.problem(declared.policy.range(), message),
        ]));
    };
    let known = Known {
        origins: origins(session, loaded, (graph, realised), &gathered, checked)?,
        executable_packages: declared
            .executable_packages
            .iter()
            .map(|written| resolve(written, &definition.file.package))
            .collect(),
        facts: gathered.facts,
    };
    let projection = &gathered.projection;
    let mut exceptions = declared.exceptions.clone();
    exceptions.extend(effective.exceptions);
    let compression = compression.unwrap_or(declared.compression);
    // Neither needs the other.
    let (verdict, image) = rayon::join(
        || {
            let listing = policy::listing(projection, declared, known);
            evaluate(&listing, &effective.demands, &exceptions)
        },
        || {
            assemble(
                &session.store,
                definition,
                declared,
                projection,
                compression,
            )
        },
    );
    let image = image.map_err(|error| hints::image(&error))?;
    Ok(Made {
        image,
        contents: gathered.contents,
        objects: gathered.objects,
        reached: gathered.reached,
        verdict,
        policy,
        definition: definition.clone(),
        projection: gathered.projection,
        is_twin: false,
    })
}

/// Returns what is known about where each object comes from. A source is named by its
/// hash in every derivation file, so that it is known for whatever was built; the files of
/// the image's own stand in its file or beside it.
fn origins(
    session: &Session,
    loaded: &Loaded,
    (graph, realised): (&Graph, &Realised),
    gathered: &Gathered,
    checked: Option<&[Proof]>,
) -> Result<BTreeMap<StorePath, Arc<Origin>>, Failure> {
    let seeds: BTreeSet<&StorePath> = graph
        .steps()
        .filter(|(_, step)| matches!(step.kind, StepKind::Debian { .. } | StepKind::Merge { .. }))
        .filter_map(|(id, _)| realised.outputs(id))
        .flat_map(BTreeMap::values)
        .collect();
    let mut origins = BTreeMap::new();
    for object in gathered.reached.taken.keys() {
        let package = gathered.packages.get(object);
        let definition = package.and_then(|package| loaded.definitions.get(package));
        let closure = session
            .store
            .closure([object])
            .map_err(|error| hints::store(&error))?;
        let origin = Origin {
            object: object.clone(),
            package: package.cloned(),
            license: definition.and_then(|definition| definition.meta.license.clone()),
            seed: closure.into_iter().find(|path| seeds.contains(path)),
            source_known: definition.is_some(),
            reproduced: checked.map(|proofs| proofs.iter().all(|proof| proof.difference.is_none())),
        };
        origins.insert(object.clone(), Arc::new(origin));
    }
    Ok(origins)
}

/// Writes an image where it was asked for and reports it; one that violates its policy is
/// reported and not written.
fn deliver(
    session: &Session,
    name: &PackageName,
    made: &Made,
    targets: &[Target],
    existing: Existing,
    checked: Option<&[Proof]>,
) -> Result<Value, Failure> {
    let Made {
        image,
        verdict,
        policy,
        ..
    } = made;
    let digest = format!("sha256:{}", image.manifest.digest);
    let mut places = Vec::new();
    if verdict.holds() {
        let standard = Target::Layout {
            directory: session
                .store
                .images()
                .join(format!("{}-{}", image.name, short(&digest))),
            tag: Tag::Default,
        };
        let standard = if made.is_twin {
            twin::place(standard)
        } else {
            standard
        };
        for target in if targets.is_empty() {
            std::slice::from_ref(&standard)
        } else {
            targets
        } {
            places.push(target::put_image(session, image, target, existing)?);
        }
    }
    if !session.output.json {
        print(session, name, made, &places, &digest, checked);
    }
    Ok(json!({
        "image": name.as_str(),
        "digest": digest,
        "places": places,
        "policy": policy.as_str(),
        "violations": verdict
            .findings()
            .iter()
            .map(|(rule, remark)| remark_of(*rule, remark))
            .collect::<Vec<_>>(),
        "waived": verdict.waived().iter().map(|(rule, remark, reason)| json!({
            "rule": rule.as_str(),
            "path": absolute(remark.path.as_ref()),
            "reason": reason,
        })).collect::<Vec<_>>(),
        "not_assessed": verdict.rules.iter().flat_map(|judged| {
            judged.unknown.iter().map(|remark| remark_of(judged.rule, remark))
        }).collect::<Vec<_>>(),
        "unused_exceptions": unused_documents(verdict),
        "check": checked.map(prove::documents),
    }))
}

/// Returns enough of a digest to tell images apart in a directory's name.
fn short(digest: &str) -> &str {
    digest
        .get("sha256:".len()..)
        .and_then(|hex| hex.get(..16))
        .unwrap_or(digest)
}

fn print(
    session: &Session,
    name: &PackageName,
    made: &Made,
    places: &[String],
    digest: &str,
    checked: Option<&[Proof]>,
) {
    let output = &session.output;
    let Made {
        verdict, policy, ..
    } = made;
    for (rule, remark, reason) in verdict.waived() {
        let at = remark.path.as_ref().map(|path| format!(" at /{path}"));
        let at = at.unwrap_or_default();
        output.tell(&format!("waived: {}{at}: {reason}", rule.as_str()));
    }
    if !verdict.holds() {
        let mut problem = Problem::new(format!("`{name}` violates its policy `{policy}`"));
        let findings = verdict.findings();
        problem.details.extend(
            findings
                .iter()
                .map(|(rule, remark)| format!("{}: {remark}", rule.as_str())),
        );
        problem.details.extend(verdict.unused.iter().map(unused));
        output.failure(
            &problem
                .hint("take it out of the image, or waive it with `[[image.exceptions]]` and a reason")
                .into(),
        );
        return;
    }
    for place in places {
        output.line(&format!("image   {place}"));
    }
    output.line(&format!("digest  {digest}"));
    if let Some(proofs) = checked {
        for proof in proofs.iter().filter(|proof| !proof.holds()) {
            output.line(&format!("check   {}", prove::sentence(proof)));
        }
        output.line(&format!("check   {}", prove::summary(proofs)));
    }
}
