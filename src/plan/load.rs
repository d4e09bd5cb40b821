//! Reading every definition that some packages need.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rayon::prelude::*;

use crate::derivation::{
    self, Definition, Diagnostic, Kind, Lock, Source, SourceFile, Spanned, nearest, parse_lock,
    resolve, resolve_policy,
};
use crate::hash::{PackageName, RelPath};

/// Where derivation files come from.
pub trait Library: Sync {
    /// Returns the file that defines a package, or `None` when there is none.
    ///
    /// # Errors
    /// A text for people when the file is there and cannot be read.
    fn read(&self, package: &PackageName) -> Result<Option<Arc<SourceFile>>, String>;

    /// Returns a text that lies beside a package's derivation file, or `None` when there
    /// is none.
    ///
    /// # Errors
    /// A text for people when the file is there and cannot be read.
    fn read_beside(
        &self,
        package: &PackageName,
        path: &RelPath,
    ) -> Result<Option<Arc<SourceFile>>, String>;

    /// Returns the names of all packages, for suggestions.
    fn names(&self) -> Vec<String>;
}

/// Definitions by name; each is complete with everything that it names.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The definitions.
    pub definitions: BTreeMap<PackageName, Definition>,
    /// The packages in an order in which each comes after those it needs.
    pub order: Vec<PackageName>,
    /// The lock files that the definitions name.
    pub locks: BTreeMap<PackageName, Locks>,
}

/// The lock files of one definition, by path.
pub type Locks = BTreeMap<RelPath, Lock>;

/// What cannot be loaded.
#[derive(Debug)]
pub enum LoadError {
    /// Problems at places in files.
    Diagnostics(Vec<Diagnostic>),
    /// A package that was asked for by the user does not exist.
    Unknown {
        /// What was asked for.
        package: PackageName,
        /// The name that is most like it.
        nearest: Option<String>,
    },
    /// A file that is there cannot be read.
    Unreadable {
        /// The package.
        package: PackageName,
        /// Why.
        why: String,
    },
}

impl Definition {
    /// Returns the packages that this one names, resolved, with where each is named.
    pub fn needs(&self) -> Vec<Spanned<PackageName>> {
        let within = &self.file.package;
        let policy = match &self.kind {
            Kind::Image(image) => Some(&image.policy),
            Kind::Policy(policy) => policy.extends.as_ref(),
            _ => None,
        };
        let written: Vec<&Spanned<PackageName>> = match &self.kind {
            Kind::Package(build) => [&build.recipe]
                .into_iter()
                .chain(&build.root)
                .chain(&build.inputs)
                .collect(),
            Kind::Recipe(recipe) => recipe.root.iter().chain(&recipe.inputs).collect(),
            Kind::Image(image) => image.contents.iter().map(|c| &c.package).collect(),
            Kind::Debian(_) | Kind::Policy(_) => Vec::new(),
        };
        written
            .into_iter()
            .map(|name| name.with(resolve(name, within)))
            .chain(policy.map(|name| name.with(resolve_policy(name, within))))
            .collect()
    }
}

/// Loads packages and everything they need.
///
/// # Errors
/// [`LoadError`]; diagnostics of all files that could be read come together.
pub fn load(library: &dyn Library, wanted: &[PackageName]) -> Result<Loaded, LoadError> {
    let read = read_all(library, wanted)?;
    for package in wanted {
        if matches!(read.get(package), None | Some(Read::Absent)) {
            let names = library.names();
            return Err(LoadError::Unknown {
                package: package.clone(),
                nearest: nearest(package.as_str(), names.iter().map(String::as_str))
                    .map(str::to_owned),
            });
        }
    }
    let mut problems = Problems::default();
    for found in read.values() {
        if let Read::Broken(all) = found {
            problems.0.extend(all.iter().cloned());
        }
    }
    let order = order(library, wanted, &read, &mut problems);
    if !problems.0.is_empty() {
        return Err(LoadError::Diagnostics(problems.0));
    }
    let mut loaded = Loaded {
        order,
        ..Loaded::default()
    };
    for (package, found) in read {
        if let Read::Definition(definition, _, locks) = found {
            if !locks.is_empty() {
                loaded.locks.insert(package.clone(), locks);
            }
            loaded.definitions.insert(package, *definition);
        }
    }
    Ok(loaded)
}

/// A package's file, read.
enum Read {
    /// What it defines, what that needs, and the lock files that it names.
    Definition(Box<Definition>, Vec<Spanned<PackageName>>, Locks),
    /// Its needs are unknown.
    Broken(Vec<Diagnostic>),
    /// There is none.
    Absent,
}

/// Fewer files than this are not worth waking threads for.
const FEW: usize = 16;

/// Reads packages, then what they need, and so on; the files of each round in parallel.
fn read_all(
    library: &dyn Library,
    wanted: &[PackageName],
) -> Result<BTreeMap<PackageName, Read>, LoadError> {
    let mut read = BTreeMap::new();
    let mut round: BTreeSet<PackageName> = wanted.iter().cloned().collect();
    while !round.is_empty() {
        let names: Vec<PackageName> = round.into_iter().collect();
        let found: Vec<Result<Read, LoadError>> = if names.len() < FEW {
            names.iter().map(|name| read_one(library, name)).collect()
        } else {
            names
                .par_iter()
                .map(|name| read_one(library, name))
                .collect()
        };
        let mut needed = BTreeSet::new();
        for (name, found) in names.into_iter().zip(found) {
            let found = found?;
            if let Read::Definition(_, needs, _) = &found {
                needed.extend(needs.iter().map(|need| need.value.clone()));
            }
            read.insert(name, found);
        }
        round = needed
            .into_iter()
            .filter(|name| !read.contains_key(name))
            .collect();
    }
    Ok(read)
}

fn read_one(library: &dyn Library, package: &PackageName) -> Result<Read, LoadError> {
    let file = library.read(package).map_err(|why| LoadError::Unreadable {
        package: package.clone(),
        why,
    })?;
    let Some(file) = file else {
        return Ok(Read::Absent);
    };
    Ok(match derivation::parse(&file) {
        Ok(definition) => {
            let needs = definition.needs();
            match read_locks(library, &definition) {
                Ok(locks) => Read::Definition(Box::new(definition), needs, locks),
                Err(problems) => Read::Broken(problems),
            }
        }
        Err(problems) => Read::Broken(problems),
    })
}

/// Reads the lock files that a definition names.
fn read_locks(library: &dyn Library, definition: &Definition) -> Result<Locks, Vec<Diagnostic>> {
    let Kind::Package(build) = &definition.kind else {
        return Ok(Locks::new());
    };
    let mut locks = Locks::new();
    let mut problems = Vec::new();
    for source in build.sources.values() {
        let Source::Crates { lock: path } = source else {
            continue;
        };
        match library.read_beside(&definition.file.package, &path.value) {
            Ok(Some(file)) => match parse_lock(&file) {
                Ok(lock) => drop(locks.insert(path.value.clone(), lock)),
                Err(mut all) => problems.append(&mut all),
            },
            Ok(None) => problems.push(
                definition
                    .problem(
                        path.range(),
                        format!("there is no `{}` beside this file", path.value),
                    )
                    .hint("`crates` names the project's `Cargo.lock`; `cargo generate-lockfile` writes one"),
            ),
            Err(why) => problems.push(
                definition
                    .problem(path.range(), format!("`{}` cannot be read", path.value))
                    .because(why),
            ),
        }
    }
    if problems.is_empty() {
        Ok(locks)
    } else {
        Err(problems)
    }
}

/// Problems, each once.
#[derive(Default)]
struct Problems(Vec<Diagnostic>);

impl Problems {
    fn report(&mut self, problem: Diagnostic) {
        if !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }
}

/// A package whose needs are being visited, and how many of them were.
struct Visit<'a> {
    package: &'a PackageName,
    definition: &'a Definition,
    needs: std::slice::Iter<'a, Spanned<PackageName>>,
}

/// Returns the packages, each after those it needs; reports circles, and needs that do not
/// exist.
fn order(
    library: &dyn Library,
    wanted: &[PackageName],
    read: &BTreeMap<PackageName, Read>,
    problems: &mut Problems,
) -> Vec<PackageName> {
    let mut order = Vec::new();
    let mut begun: BTreeSet<&PackageName> = BTreeSet::new();
    let visit = |package| match read.get_key_value(package) {
        Some((package, Read::Definition(definition, needs, _))) => Some(Visit {
            package,
            definition,
            needs: needs.iter(),
        }),
        _ => None,
    };
    for package in wanted {
        let mut trail: Vec<Visit<'_>> = Vec::new();
        if begun.insert(package) {
            trail.extend(visit(package));
        }
        // The packages on the trail, for a look-up that does not walk it.
        let mut open: BTreeSet<&PackageName> = trail.iter().map(|visit| visit.package).collect();
        while let Some(top) = trail.last_mut() {
            let Some(need) = top.needs.next() else {
                open.remove(top.package);
                order.push(top.package.clone());
                trail.pop();
                continue;
            };
            let definition = top.definition;
            if open.contains(&need.value) {
                problems.report(circle(definition, need, &trail));
            } else if matches!(read.get(&need.value), None | Some(Read::Absent)) {
                problems.report(absent(library, definition, need));
            } else if begun.insert(&need.value)
                && let Some(next) = visit(&need.value)
            {
                open.insert(next.package);
                trail.push(next);
            }
        }
    }
    order
}

fn circle(definition: &Definition, need: &Spanned<PackageName>, trail: &[Visit<'_>]) -> Diagnostic {
    let chain: Vec<&str> = trail
        .iter()
        .map(|visit| visit.package)
        .skip_while(|package| **package != need.value)
        .chain([&need.value])
        .map(PackageName::as_str)
        .collect();
    definition
        .problem(need.range(), "packages need each other in a circle")
        .label("this closes the circle")
        .because(chain.join(" -> "))
        .hint("let one of them go without the other")
}

fn absent(
    library: &dyn Library,
    definition: &Definition,
    need: &Spanned<PackageName>,
) -> Diagnostic {
    let names = library.names();
    let problem = definition
        .problem(
            need.range(),
            format!("there is no package `{}`", need.value),
        )
        .label("unknown package");
    match nearest(need.value.as_str(), names.iter().map(String::as_str)) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem.hint("`kiln show --packages` lists every package"),
    }
}
