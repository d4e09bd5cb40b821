//! `kiln sbom`, and the bills of materials that `kiln image` attaches.

mod links;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rayon::prelude::*;

use super::image;
use crate::action::SourceLayout;
use crate::cli::arguments::SbomArguments;
use crate::cli::hints;
use crate::cli::report::{Answer, Failure, Problem};
use crate::cli::session::{Session, graph, not_built, package};
use crate::derivation::{Definition, Kind};
use crate::fetch::crates;
use crate::hash::{
    BlobDigest, Checksums, OutputName, RelPath, STORE_PREFIX, Sha256Digest, StorePath,
};
use crate::image::{Image, Referrer};
use crate::listing::Entry;
use crate::plan::{Graph, Loaded, StepId, StepKind};
use crate::projection::Projection;
use crate::realise::Realised;
use crate::sbom::{Bill, Contained, Format, Inputs, Subject, describe};

pub(in crate::cli) fn run(session: &Session, arguments: &SbomArguments) -> Result<Answer, Failure> {
    let name = package(&arguments.target)?;
    let loaded = session.load(std::slice::from_ref(&name))?;
    let graph = graph(&loaded)?;
    let realised = session.realise(&loaded, &graph, &arguments.effort)?;
    let making = Making {
        session,
        loaded: &loaded,
        graph: &graph,
        realised: &realised,
    };
    let Some(definition) = loaded.definitions.get(&name) else {
        return Err(not_built(&name));
    };
    let bill = match &definition.kind {
        Kind::Image(declared) => {
            let made = (&name, definition, declared.as_ref());
            let (projection, image) =
                image::assembled(session, &loaded, (&graph, &realised), made)?;
            making.of_image(definition, &projection, image.manifest.digest)?
        }
        Kind::Package(_) | Kind::Debian(_) => {
            let outputs = graph.package(&name).and_then(|step| realised.outputs(step));
            let Some(object) = outputs.and_then(image::gather::main_output) else {
                return Err(not_built(&name));
            };
            making.of_object(object)?
        }
        Kind::Recipe(_) | Kind::Policy(_) => {
            return Err(Problem::new(format!("`{name}` gives no files"))
                .hint("name a package or an image")
                .into());
        }
    };
    session.output.bytes(&write(&bill, arguments.format)?);
    Ok(Answer::Yes)
}

/// Writes a bill as a document.
pub(super) fn write(bill: &Bill, format: Format) -> Result<Vec<u8>, Failure> {
    format
        .write(bill)
        .map_err(|error| Problem::from_error(&error).into())
}

/// What bills are made from.
pub(super) struct Making<'a> {
    pub session: &'a Session,
    pub loaded: &'a Loaded,
    pub graph: &'a Graph,
    pub realised: &'a Realised,
}

impl Making<'_> {
    /// Returns the bill of an image.
    pub(super) fn of_image(
        &self,
        definition: &Definition,
        projection: &Projection,
        manifest: Sha256Digest,
    ) -> Result<Bill, Failure> {
        let contents: Vec<Contained> = projection
            .entries
            .iter()
            .map(|(path, placed)| Contained {
                path: path.clone(),
                entry: placed.entry.clone(),
                object: placed.object.clone(),
            })
            .collect();
        self.bill(
            Subject::Image {
                definition,
                manifest,
            },
            &contents,
        )
    }

    /// Adds bills of an image to it, in formats, each once.
    pub(super) fn attach(
        &self,
        image: &mut Image,
        definition: &Definition,
        projection: &Projection,
        formats: &[Format],
    ) -> Result<(), Failure> {
        let bill = self.of_image(definition, projection, image.manifest.digest)?;
        for format in formats.iter().collect::<BTreeSet<_>>() {
            let title = format!("{}.{}.json", image.name, format.as_str());
            let document = write(&bill, *format)?;
            let referrer = Referrer::new(&image.manifest, format.media_type(), &title, document)
                .map_err(|error| hints::image(&error))?;
            image.referrers.push(referrer);
        }
        Ok(())
    }

    /// Returns the bill of an object with all that it needs at run time.
    fn of_object(&self, object: &StorePath) -> Result<Bill, Failure> {
        let store = &self.session.store;
        let mut contents = Vec::new();
        for path in store
            .closure([object])
            .map_err(|error| hints::store(&error))?
        {
            let listing = store.listing(&path).map_err(|error| hints::store(&error))?;
            for (below, entry) in listing.iter() {
                let base = STORE_PREFIX.trim_start_matches('/');
                let at: RelPath = format!("{base}/{}/{below}", path.base_name())
                    .parse()
                    .map_err(|error: crate::hash::path::PathError| {
                        Failure::from(Problem::from_error(&error))
                    })?;
                contents.push(Contained {
                    path: at,
                    entry: entry.clone(),
                    object: Some(path.clone()),
                });
            }
        }
        self.bill(Subject::Object(object), &contents)
    }

    fn bill(&self, subject: Subject<'_>, contents: &[Contained]) -> Result<Bill, Failure> {
        let outputs: BTreeMap<StepId, BTreeMap<OutputName, StorePath>> = self
            .graph
            .steps()
            .filter_map(|(id, _)| Some((id, self.realised.outputs(id)?.clone())))
            .collect();
        let objects: BTreeSet<&StorePath> = contents
            .iter()
            .filter_map(|contained| contained.object.as_ref())
            .collect();
        let references = self.references(&objects)?;
        let links = self.links(contents)?;
        let mut files: BTreeSet<(BlobDigest, bool)> = contents
            .iter()
            .filter_map(|contained| match contained.entry {
                Entry::File {
                    digest, executable, ..
                } => Some((digest, executable)),
                _ => None,
            })
            .collect();
        files.extend(
            links
                .linked
                .values()
                .map(|file| (file.digest, file.executable)),
        );
        let checksums = self.checksums(files)?;
        let licenses = self.licenses()?;
        let inputs = Inputs {
            loaded: self.loaded,
            graph: self.graph,
            outputs: &outputs,
            contents,
            references: &references,
            checksums: &checksums,
            programs: &links.programs,
            linked: &links.linked,
            licenses: &licenses,
        };
        Ok(describe(&inputs, subject))
    }

    /// Returns the licences that the crates of the graph state.
    fn licenses(&self) -> Result<BTreeMap<Sha256Digest, String>, Failure> {
        let mut crates: BTreeMap<Sha256Digest, PathBuf> = BTreeMap::new();
        for (_, step) in self.graph.steps() {
            let StepKind::Build(build) = &step.kind else {
                continue;
            };
            for (source, layout) in build.sources.values() {
                let found = self.graph.step(*source).map(|step| &step.kind);
                let object = self.realised.outputs(*source);
                if let (SourceLayout::Crate, Some(StepKind::Fetch { sha256, file, .. })) =
                    (layout, found)
                    && let Some(object) = object.and_then(|outputs| outputs.values().next())
                {
                    let path = self.session.store.host_path(object).join(file.as_str());
                    crates.insert(*sha256, path);
                }
            }
        }
        let read: Vec<Option<(Sha256Digest, String)>> = crates
            .into_par_iter()
            .map(|(sha256, path)| {
                let license = crates::license(&path);
                let license = license.map_err(|error| Problem::from_error(&error))?;
                Ok(license.map(|license| (sha256, license)))
            })
            .collect::<Result<_, Failure>>()?;
        Ok(read.into_iter().flatten().collect())
    }

    /// Returns which objects of the subject name which others of it.
    fn references(
        &self,
        objects: &BTreeSet<&StorePath>,
    ) -> Result<BTreeMap<StorePath, BTreeSet<StorePath>>, Failure> {
        let mut found = BTreeMap::new();
        for object in objects {
            let references = self
                .session
                .store
                .references(object)
                .map_err(|error| hints::store(&error))?;
            let named: BTreeSet<StorePath> = references
                .into_iter()
                .map(|reference| reference.target)
                .filter(|target| objects.contains(target))
                .collect();
            if !named.is_empty() {
                found.insert((*object).clone(), named);
            }
        }
        Ok(found)
    }

    fn checksums(
        &self,
        files: BTreeSet<(BlobDigest, bool)>,
    ) -> Result<BTreeMap<BlobDigest, Checksums>, Failure> {
        files
            .into_par_iter()
            .map(|(digest, executable)| {
                let found = self.session.store.checksums(digest, executable);
                Ok((digest, found.map_err(|error| hints::store(&error))?))
            })
            .collect()
    }
}
