//! From the graph of steps to the document.

use std::collections::{BTreeMap, BTreeSet};

use super::fill;
use super::identity;
use super::model::{Bill, Component, File, Id, Kind, Part, Relation, RelationKind};
use crate::action::SourceLayout;
use crate::derivation::Definition;
use crate::hash::{BlobDigest, Checksums, OutputName, RelPath, Sha256Digest, StorePath};
use crate::listing::Entry;
use crate::listing::link::Link;
use crate::plan::{Graph, Loaded, Step, StepId, StepKind};

/// What a bill is about.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// An image.
    Image {
        /// Its definition.
        definition: &'a Definition,
        /// SHA-256 of its manifest.
        manifest: Sha256Digest,
    },
    /// An object of the store.
    Object(&'a StorePath),
}

/// Something that stands in the subject.
#[derive(Debug, Clone)]
pub struct Contained {
    /// Where.
    pub path: RelPath,
    /// What.
    pub entry: Entry,
    /// The object that it comes from; `None` for what the image itself declares.
    pub object: Option<StorePath>,
}

/// All that a bill is made from.
pub struct Inputs<'a> {
    /// The definitions.
    pub loaded: &'a Loaded,
    /// The steps.
    pub graph: &'a Graph,
    /// What each step gave.
    pub outputs: &'a BTreeMap<StepId, BTreeMap<OutputName, StorePath>>,
    /// What is in the subject.
    pub contents: &'a [Contained],
    /// Which objects each object of the subject names.
    pub references: &'a BTreeMap<StorePath, BTreeSet<StorePath>>,
    /// Hashes of every regular file in the subject, and of every file that a link names.
    pub checksums: &'a BTreeMap<BlobDigest, Checksums>,
    /// The static programs of the subject, with their linkers' records.
    pub programs: &'a BTreeMap<(StorePath, BlobDigest), Option<Link>>,
    /// The regular files that links name, with the seed's packages that brought them.
    pub linked: &'a BTreeMap<(StorePath, RelPath), LinkedFile>,
    /// The licences that crates state, by the SHA-256 of the crate.
    pub licenses: &'a BTreeMap<Sha256Digest, String>,
}

/// A file that a link names.
#[derive(Debug, Clone)]
pub struct LinkedFile {
    /// BLAKE3 of its content.
    pub digest: BlobDigest,
    /// Length, in bytes.
    pub size_bytes: u64,
    /// Whether it may be executed.
    pub executable: bool,
    /// The object that holds one Debian package, if the file is of such a one.
    pub debian: Option<StorePath>,
}

/// Returns the bill of a subject.
pub fn describe(inputs: &Inputs<'_>, subject: Subject<'_>) -> Bill {
    let mut makers = BTreeMap::new();
    for (id, outputs) in inputs.outputs {
        for (output, path) in outputs {
            makers.entry(path).or_insert((*id, output));
        }
    }
    let mut gathering = Gathering {
        inputs,
        makers,
        expanded: BTreeSet::new(),
        bill: Bill {
            subject: subject_id(&subject),
            components: BTreeMap::new(),
            files: BTreeMap::new(),
            relations: BTreeSet::new(),
            unrecorded: BTreeSet::new(),
        },
    };
    gathering.subject(&subject);
    gathering.contents();
    gathering.references();
    gathering.locked();
    gathering.bill
}

fn subject_id(subject: &Subject<'_>) -> Id {
    match subject {
        Subject::Image { manifest, .. } => Id::new("Image", &manifest.to_string()),
        Subject::Object(path) => object_id(path),
    }
}

fn object_id(path: &StorePath) -> Id {
    Id::new("Object", &path.base_name())
}

fn file_id(owner: &Id, path: &str) -> Id {
    let digest = Sha256Digest::of(format!("{owner} {path}").as_bytes()).to_string();
    Id::new("File", digest.get(..32).unwrap_or(&digest))
}

struct Gathering<'a> {
    inputs: &'a Inputs<'a>,
    /// Which step gave each object.
    makers: BTreeMap<&'a StorePath, (StepId, &'a OutputName)>,
    /// Objects whose origins are in the bill.
    expanded: BTreeSet<StorePath>,
    bill: Bill,
}

impl Gathering<'_> {
    fn relate(&mut self, from: &Id, kind: RelationKind, to: &Id) {
        self.bill.relations.insert(Relation {
            from: from.clone(),
            kind,
            to: to.clone(),
            members: Vec::new(),
        });
    }

    fn subject(&mut self, subject: &Subject<'_>) {
        match subject {
            Subject::Image {
                definition,
                manifest,
            } => {
                let mut component = Component::new(Kind::Image, Part::RunTime, "");
                fill::defined(&mut component, definition);
                component.sha256 = Some(*manifest);
                let id = self.bill.subject.clone();
                self.bill.components.insert(id, component);
            }
            Subject::Object(path) => drop(self.object(path, Part::RunTime)),
        }
    }

    fn contents(&mut self) {
        let subject = self.bill.subject.clone();
        for contained in self.inputs.contents {
            let owner = match &contained.object {
                Some(path) => self.object(path, Part::RunTime),
                None => subject.clone(),
            };
            if owner != subject {
                self.relate(&subject, RelationKind::Contains, &owner);
            }
            let path = format!("/{}", contained.path);
            match &contained.entry {
                Entry::Directory => {}
                Entry::Symlink { target } => {
                    if let Some(component) = self.bill.components.get_mut(&owner) {
                        component.symlinks.insert(path, target.clone());
                    }
                }
                Entry::File {
                    digest,
                    size_bytes,
                    executable,
                } => {
                    let file = File {
                        path,
                        owner,
                        blake3: *digest,
                        checksums: self.checksums(*digest),
                        size_bytes: *size_bytes,
                        executable: *executable,
                        part: Part::RunTime,
                    };
                    self.run_time_file(file, contained.object.as_ref());
                }
            }
        }
    }

    fn checksums(&self, digest: BlobDigest) -> Checksums {
        // The caller hashes every file that it names.
        self.inputs
            .checksums
            .get(&digest)
            .copied()
            .unwrap_or(Checksums {
                sha1: [0; 20],
                sha256: Sha256Digest::from_bytes([0; 32]),
            })
    }

    fn run_time_file(&mut self, file: File, object: Option<&StorePath>) {
        let id = file_id(&file.owner, &file.path);
        if file.executable
            && let Some(component) = self.bill.components.get_mut(&file.owner)
            && component.kind == Kind::Library
        {
            component.kind = Kind::Application;
        }
        self.relate(&file.owner, RelationKind::Contains, &id);
        let link = object.and_then(|object| {
            let key = (object.clone(), file.blake3);
            self.inputs.programs.get(&key)
        });
        match link {
            Some(Some(link)) => self.linked(&id, &file.owner, link),
            Some(None) => drop(self.bill.unrecorded.insert(file.path.clone())),
            None => {}
        }
        self.bill.files.insert(id, file);
    }

    /// Adds what a linker took into a program.
    fn linked(&mut self, program: &Id, owner: &Id, link: &Link) {
        for input in &link.inputs {
            let object = &input.object;
            let key = (object.clone(), input.path.clone());
            let Some(found) = self.inputs.linked.get(&key) else {
                continue;
            };
            let root = self.object(object, Part::Linked);
            let holder = match &found.debian {
                Some(package) => {
                    let id = self.object(package, Part::Linked);
                    self.promote(&id, Part::Linked);
                    id
                }
                None => {
                    self.promote(&root, Part::Linked);
                    root
                }
            };
            let path = format!("{object}/{}", input.path);
            let id = file_id(&holder, &path);
            let file = File {
                path,
                owner: holder.clone(),
                blake3: found.digest,
                checksums: self.checksums(found.digest),
                size_bytes: found.size_bytes,
                executable: found.executable,
                part: Part::Linked,
            };
            self.bill.files.entry(id.clone()).or_insert(file);
            self.relate(&holder, RelationKind::Contains, &id);
            self.relate(owner, RelationKind::StaticLink, &holder);
            self.bill.relations.insert(Relation {
                from: program.clone(),
                kind: RelationKind::StaticLink,
                to: id,
                members: input.members.clone(),
            });
        }
    }

    fn promote(&mut self, id: &Id, part: Part) {
        if let Some(component) = self.bill.components.get_mut(id) {
            component.part = component.part.min(part);
        }
    }

    fn references(&mut self) {
        for (object, named) in self.inputs.references {
            for other in named.iter().filter(|other| *other != object) {
                let from = self.object(object, Part::RunTime);
                let to = self.object(other, Part::RunTime);
                self.relate(&from, RelationKind::DependsOn, &to);
            }
        }
    }

    /// Counts the crates of what is in the subject, or linked into it, as parts of it.
    fn locked(&mut self) {
        let part = |id: &Id| self.bill.components.get(id).map(|found| found.part);
        let locked: Vec<Id> = self
            .bill
            .relations
            .iter()
            .filter(|relation| {
                relation.kind == RelationKind::Locks
                    && part(&relation.from).is_some_and(|part| part < Part::BuildTime)
            })
            .map(|relation| relation.to.clone())
            .collect();
        for id in locked {
            self.promote(&id, Part::Locked);
        }
    }

    /// Returns the component of an object, with all that it was made from.
    fn object(&mut self, path: &StorePath, part: Part) -> Id {
        let maker = self
            .makers
            .get(path)
            .and_then(|(id, output)| Some((self.inputs.graph.step(*id)?, *output)));
        let id = match maker {
            Some((step, _)) => match &step.kind {
                StepKind::Fetch { sha256, .. } => source_id(*sha256),
                _ => object_id(path),
            },
            None => object_id(path),
        };
        if self.bill.components.contains_key(&id) {
            // A seed is not linked as a whole, only what of it was taken.
            if part == Part::RunTime {
                self.promote(&id, part);
            }
            return id;
        }
        let mut component = Component::new(Kind::Library, Part::BuildTime, path.name().as_str());
        if part == Part::RunTime {
            component.part = part;
        }
        component.object = Some(path.clone());
        if let Some((step, output)) = maker {
            self.fill(&mut component, step, output);
        }
        self.bill.components.insert(id.clone(), component);
        if let Some((step, _)) = maker
            && self.expanded.insert(path.clone())
        {
            self.origins(&id, step);
        }
        id
    }

    fn fill(&self, component: &mut Component, step: &Step, output: &OutputName) {
        let definition = self.inputs.loaded.definitions.get(&step.package);
        match &step.kind {
            StepKind::Build(_) | StepKind::Debian { .. } => {
                let Some(definition) = definition else { return };
                fill::defined(component, definition);
                if output.as_str() != "out" {
                    component.name = format!("{}-{output}", component.name);
                }
                if let StepKind::Build(build) = &step.kind {
                    let main = build
                        .sources
                        .get(&"source".parse().expect("a plain name"))
                        .or_else(|| {
                            let mut own = build.sources.values();
                            own.find(|(_, layout)| *layout != SourceLayout::Crate)
                        });
                    let main = main.and_then(|(id, _)| self.inputs.graph.step(*id));
                    let (urls, sha256) = match main.map(|step| &step.kind) {
                        Some(StepKind::Fetch { urls, sha256, .. }) => {
                            (urls.as_slice(), Some(*sha256))
                        }
                        _ => (&[][..], None),
                    };
                    let version = component.version.as_deref();
                    component.purl = identity::released(&component.name, version, urls, sha256);
                }
            }
            StepKind::Fetch { file, sha256, urls } => {
                component.kind = Kind::Source;
                component.name = file.to_string();
                component.urls.clone_from(urls);
                component.sha256 = Some(*sha256);
                component.package = Some(step.package.to_string());
                let locks = self.inputs.loaded.locks.get(&step.package);
                let mut locks = locks.into_iter().flat_map(BTreeMap::values);
                if let Some(found) = locks.find_map(|lock| lock.find(*sha256)) {
                    let license = self.inputs.licenses.get(sha256);
                    fill::locked(component, found, license.map(String::as_str));
                } else if let Some(definition) = definition {
                    fill::fetched(component, definition, *sha256, file);
                }
            }
            StepKind::Tree { path } => {
                component.kind = Kind::Source;
                component.name = path.to_string();
                component.package = Some(step.package.to_string());
            }
            StepKind::Merge { .. } | StepKind::Test(_) => {
                component.package = Some(step.package.to_string());
            }
        }
    }

    /// Relates an object to what it was made from, and adds that.
    fn origins(&mut self, id: &Id, step: &Step) {
        match &step.kind {
            StepKind::Build(build) => {
                for (source, layout) in build.sources.values() {
                    let kind = match layout {
                        SourceLayout::Crate => RelationKind::Locks,
                        SourceLayout::Unpack | SourceLayout::Copy => RelationKind::GeneratedFrom,
                    };
                    self.made_with(id, kind, *source, None);
                }
                for (input, output) in build.inputs.values() {
                    self.made_with(id, RelationKind::BuiltWith, *input, Some(output));
                }
                self.made_with(id, RelationKind::BuiltBy, build.root, None);
            }
            StepKind::Debian { packages, .. } => {
                for package in packages {
                    self.made_with(id, RelationKind::Contains, *package, None);
                }
            }
            StepKind::Merge { inputs } => {
                for input in inputs {
                    self.made_with(id, RelationKind::Contains, *input, None);
                }
            }
            StepKind::Fetch { .. } | StepKind::Tree { .. } | StepKind::Test(_) => {}
        }
    }

    fn made_with(
        &mut self,
        id: &Id,
        kind: RelationKind,
        step: StepId,
        output: Option<&OutputName>,
    ) {
        let outputs = self.inputs.outputs.get(&step);
        let path = outputs.and_then(|outputs| match output {
            Some(output) => outputs.get(output),
            None => outputs.values().next(),
        });
        if let Some(path) = path.cloned() {
            let other = self.object(&path, Part::BuildTime);
            self.relate(id, kind, &other);
        }
    }
}

fn source_id(sha256: Sha256Digest) -> Id {
    Id::new("Source", &sha256.to_string())
}
