//! From an image's file to its projection: the contents, their closure, and every file of
//! it read once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::cli::hints;
use crate::cli::report::{Failure, Problem};
use crate::cli::session::{Session, not_built};
use crate::derivation::{
    DEFAULT_BUDGET, Definition, Diagnostic, Image as Declared, Layers, Layout, OwnFile, Spanned,
    nearest, parse_layer_plan, resolve,
};
use crate::hash::{BlobDigest, OutputName, PackageName, RelPath, StorePath};
use crate::listing::facts::ContentFacts;
use crate::plan::{Graph, Library as _, Loaded};
use crate::projection::leave::{LEFT_OUT, rule_named};
use crate::projection::{
    Content, Object, Objects, Planned, Projection, ProjectionError, Reached, Shape, project, reach,
};
use crate::realise::{Realised, Trees as _};

use super::sayings::Sayings;

/// What an image is made of.
pub(in crate::cli) struct Gathered {
    /// What its file names, own files last.
    pub contents: Vec<Content>,
    /// The objects that they come from and need.
    pub objects: Objects,
    /// Which package made each of them.
    pub packages: BTreeMap<StorePath, PackageName>,
    /// What is taken of them.
    pub reached: Reached,
    /// Where it stands.
    pub projection: Projection,
    /// What each taken file's content says.
    pub facts: BTreeMap<BlobDigest, ContentFacts>,
}

/// Gathers an image whose contents have been realised.
pub(in crate::cli) fn gather(
    session: &Session,
    loaded: &Loaded,
    (graph, realised): (&Graph, &Realised),
    (name, definition, declared): (&PackageName, &Definition, &Declared),
) -> Result<Gathered, Failure> {
    check_keep(definition, declared)?;
    let mut contents = contents(graph, realised, definition, declared)?;
    let mut packages = BTreeMap::new();
    for (id, step) in graph.steps() {
        for object in realised.outputs(id).into_iter().flat_map(BTreeMap::values) {
            packages.insert(object.clone(), step.package.clone());
        }
    }
    if let Some(content) = own_files(session, name, definition, declared)? {
        packages.insert(content.object.clone(), name.clone());
        contents.push(content);
    }
    let starts: Vec<StorePath> = contents.iter().map(|c| c.object.clone()).collect();
    let failed = |error| hints::store(&error);
    let references = session.store.graph_of(&starts).map_err(failed)?;
    let wanted: BTreeSet<&StorePath> = match declared.layout {
        Layout::Flat => starts.iter().collect(),
        Layout::Store => references.keys().collect(),
    };
    let objects = objects(session, wanted)?;
    let mut sayings = Sayings::new(&session.store, declared.layout);
    let reached = reach(&contents, &objects, |files| {
        sayings.of(&objects, files).map_err(Unreached::Read)
    });
    let reached = reached.map_err(|error| match error {
        Unreached::Projection(error) => hints::projection(&error, definition),
        Unreached::Read(failure) => failure,
    })?;
    let facts = sayings.into_facts();
    let plan = plan(session, loaded, definition, declared, &packages)?;
    let shape = Shape {
        layout: declared.layout,
        writable: &declared.writable,
        ownership: &declared.ownership,
        budget: match declared.layers {
            Layers::Budget(budget) => budget,
            Layers::Plan(_) => DEFAULT_BUDGET,
        },
        plan: plan.as_ref(),
        graph: &references,
    };
    let projection = project(&contents, &objects, &reached, &shape)
        .map_err(|error| hints::projection(&error, definition))?;
    Ok(Gathered {
        contents,
        objects,
        packages,
        reached,
        projection,
        facts,
    })
}

/// Why a closure by file was not found.
enum Unreached {
    /// What is chosen is not there.
    Projection(ProjectionError),
    /// A file could not be read.
    Read(Failure),
}

impl From<ProjectionError> for Unreached {
    fn from(error: ProjectionError) -> Self {
        Self::Projection(error)
    }
}

/// Refuses `keep` with names that no rule has.
fn check_keep(definition: &Definition, declared: &Declared) -> Result<(), Failure> {
    for content in &declared.contents {
        for name in &content.keep {
            if rule_named(name).is_none() {
                let names = LEFT_OUT.iter().map(|rule| rule.name);
                let message = format!("no rule leaves out `{name}`");
                let problem = definition.problem(content.package.range(), message);
                let hint = match nearest(name, names.clone()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the rules are {}", names.collect::<Vec<_>>().join(", ")),
                };
                return Err(Failure::Diagnostics(vec![problem.hint(hint)]));
            }
        }
    }
    Ok(())
}

fn contents(
    graph: &Graph,
    realised: &Realised,
    definition: &Definition,
    declared: &Declared,
) -> Result<Vec<Content>, Failure> {
    let mut contents = Vec::new();
    for content in &declared.contents {
        let name = resolve(&content.package, &definition.file.package);
        let outputs = graph.package(&name).and_then(|step| realised.outputs(step));
        let Some(object) = outputs.and_then(main_output) else {
            return Err(not_built(&name));
        };
        contents.push(Content {
            package: name,
            object: object.clone(),
            files: content
                .files
                .as_ref()
                .map(|files| files.iter().map(|file| file.value.clone()).collect()),
            to: content.to.clone(),
            keep: content.keep.clone(),
            own: false,
        });
    }
    Ok(contents)
}

/// Returns the output `out`, or the first by name of a package without one.
pub(in crate::cli) fn main_output(outputs: &BTreeMap<OutputName, StorePath>) -> Option<&StorePath> {
    outputs
        .iter()
        .find(|(name, _)| name.as_str() == "out")
        .or_else(|| outputs.iter().next())
        .map(|(_, object)| object)
}

/// Puts the image's own files into an object of the store, and returns it.
fn own_files(
    session: &Session,
    name: &PackageName,
    definition: &Definition,
    declared: &Declared,
) -> Result<Option<Content>, Failure> {
    if declared.files.is_empty() {
        return Ok(None);
    }
    let scratch = session
        .store
        .scratch()
        .map_err(|error| hints::store(&error))?;
    let tree = scratch.path().join("tree");
    for (path, file) in &declared.files {
        let to = tree.join(path.as_str());
        match file {
            OwnFile::Text { text, executable } => {
                write_text(&to, text, *executable).map_err(|error| failed_to_write(&to, &error))?;
            }
            OwnFile::Source(source) => copy_source(session, name, definition, source, &to)?,
        }
    }
    let object = definition
        .object_name("files")
        .map_err(|error| Problem::from_error(&error))?;
    let object = session
        .store
        .add_copy(&tree, &object)
        .map_err(|error| hints::store(&error))?;
    Ok(Some(Content {
        package: name.clone(),
        object,
        files: None,
        to: None,
        // They are all meant.
        keep: LEFT_OUT.iter().map(|rule| rule.name.to_owned()).collect(),
        own: true,
    }))
}

fn write_text(to: &Path, text: &str, executable: bool) -> std::io::Result<()> {
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = File::create_new(to)?;
    file.write_all(text.as_bytes())?;
    let mode = if executable { 0o755 } else { 0o644 };
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

fn failed_to_write(path: &Path, error: &std::io::Error) -> Failure {
    Problem::new(format!("cannot write `{}`", path.display()))
        .because(error.to_string())
        .into()
}

/// Copies what lies beside the image's file: a directory's content, or a file.
fn copy_source(
    session: &Session,
    name: &PackageName,
    definition: &Definition,
    source: &Spanned<RelPath>,
    to: &Path,
) -> Result<(), Failure> {
    let is_file = session.files.is_file(name, &source.value);
    // A file comes as the only entry of a directory.
    let into = if is_file {
        to.with_extension("kiln-beside")
    } else {
        to.to_owned()
    };
    std::fs::create_dir_all(&into).map_err(|error| failed_to_write(&into, &error))?;
    let taken = session.files.copy(name, &source.value, &into);
    taken.map_err(|error| {
        let message = format!("cannot take in `{}`", source.value);
        let problem = definition
            .problem(source.range(), message)
            .because(error.to_string())
            .hint("name a file or directory beside the image's file");
        Failure::Diagnostics(vec![problem])
    })?;
    if is_file {
        std::fs::rename(into.join(source.value.file_name()), to)
            .and_then(|()| std::fs::remove_dir(&into))
            .map_err(|error| failed_to_write(to, &error))?;
    }
    Ok(())
}

fn objects(session: &Session, wanted: BTreeSet<&StorePath>) -> Result<Objects, Failure> {
    let store = &session.store;
    let mut objects = Objects::new();
    for object in wanted {
        let read = || {
            let mut references = store.references(object)?;
            references.extend(store.self_references(object)?);
            Ok(Object {
                listing: store.listing(object)?,
                references,
            })
        };
        let read = read().map_err(|error| hints::store(&error))?;
        objects.insert(object.clone(), read);
    }
    Ok(objects)
}

/// Reads the layer plan, where there is one: for each layer, the objects of its packages.
fn plan(
    session: &Session,
    loaded: &Loaded,
    definition: &Definition,
    declared: &Declared,
    packages: &BTreeMap<StorePath, PackageName>,
) -> Result<Option<Planned>, Failure> {
    let Layers::Plan(path) = &declared.layers else {
        return Ok(None);
    };
    let within = &definition.file.package;
    let file = session.files.read_beside(within, &path.value);
    let file = match file {
        Ok(Some(file)) => file,
        Ok(None) => {
            let message = format!("there is no `{}` beside this file", path.value);
            let problem = definition.problem(path.range(), message);
            return Err(Failure::Diagnostics(vec![problem]));
        }
        Err(why) => {
            let message = format!("`{}` cannot be read", path.value);
            let problem = definition.problem(path.range(), message).because(why);
            return Err(Failure::Diagnostics(vec![problem]));
        }
    };
    let plan = parse_layer_plan(&file).map_err(Failure::Diagnostics)?;
    let known: BTreeSet<&PackageName> = packages.values().collect();
    let mut problems = Vec::new();
    let mut planned = Planned::new();
    for layer in &plan.layers {
        let mut objects = BTreeSet::new();
        for package in &layer.packages {
            let name = resolve(package, within);
            if !known.contains(&name) && !loaded.definitions.contains_key(&name) {
                let message = format!("nothing of `{name}` is needed for the image");
                problems.push(Diagnostic::new(&plan.file, package.range(), message));
            }
            let made = packages.iter().filter(|(_, by)| **by == name);
            objects.extend(made.map(|(object, _)| object.clone()));
        }
        planned.push((layer.title.clone(), objects));
    }
    if problems.is_empty() {
        Ok(Some(planned))
    } else {
        Err(Failure::Diagnostics(problems))
    }
}
