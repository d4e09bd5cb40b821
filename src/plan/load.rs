//! Reading every definition that some packages need.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::derivation::{
    self, Definition, Diagnostic, Kind, SourceFile, Spanned, nearest, resolve,
};
use crate::hash::PackageName;

/// Where derivation files come from.
pub trait Library {
    /// Returns the file that defines a package, or `None` when there is none.
    ///
    /// # Errors
    /// A text for people when the file is there and cannot be read.
    fn read(&self, package: &PackageName) -> Result<Option<Arc<SourceFile>>, String>;

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
}

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
        let written: Vec<&Spanned<PackageName>> = match &self.kind {
            Kind::Package(build) => [&build.recipe]
                .into_iter()
                .chain(&build.root)
                .chain(&build.inputs)
                .collect(),
            Kind::Recipe(recipe) => recipe.root.iter().chain(&recipe.inputs).collect(),
            Kind::Image(image) => image
                .contents
                .iter()
                .map(|c| &c.package)
                .chain([&image.policy])
                .collect(),
            Kind::Debian(_) | Kind::Policy(_) => Vec::new(),
        };
        written
            .into_iter()
            .map(|name| name.with(resolve(name, within)))
            .collect()
    }
}

/// Loads packages and everything they need.
///
/// # Errors
/// [`LoadError`]; diagnostics of all files that could be read come together.
pub fn load(library: &dyn Library, wanted: &[PackageName]) -> Result<Loaded, LoadError> {
    let mut loader = Loader {
        library,
        loaded: Loaded::default(),
        problems: Vec::new(),
    };
    for package in wanted {
        if !loader.visit(package, &mut Vec::new())? {
            let names = library.names();
            return Err(LoadError::Unknown {
                package: package.clone(),
                nearest: nearest(package.as_str(), names.iter().map(String::as_str))
                    .map(str::to_owned),
            });
        }
    }
    if loader.problems.is_empty() {
        Ok(loader.loaded)
    } else {
        Err(LoadError::Diagnostics(loader.problems))
    }
}

/// A chain of packages, each with the place where it names the next.
type Trail = Vec<(PackageName, Option<(Arc<SourceFile>, (usize, usize))>)>;

struct Loader<'a> {
    library: &'a dyn Library,
    loaded: Loaded,
    problems: Vec<Diagnostic>,
}

/// Longest chain of packages: far above any real one, far below what exhausts a stack.
const MAX_CHAIN: usize = 500;

impl Loader<'_> {
    /// Loads one package; `false` when there is none of that name.
    fn visit(&mut self, package: &PackageName, trail: &mut Trail) -> Result<bool, LoadError> {
        if self.loaded.definitions.contains_key(package) {
            return Ok(true);
        }
        let file = self
            .library
            .read(package)
            .map_err(|why| LoadError::Unreadable {
                package: package.clone(),
                why,
            })?;
        let Some(file) = file else { return Ok(false) };
        let definition = match derivation::parse(&file) {
            Ok(definition) => definition,
            Err(mut problems) => {
                self.problems.append(&mut problems);
                // Its needs are unknown; it must not be reported again for other users.
                return Ok(true);
            }
        };
        for need in definition.needs() {
            trail.push((package.clone(), Some((Arc::clone(&file), need.span))));
            self.visit_need(&definition, &need, trail)?;
            trail.pop();
        }
        self.loaded.order.push(package.clone());
        self.loaded.definitions.insert(package.clone(), definition);
        Ok(true)
    }

    fn visit_need(
        &mut self,
        definition: &Definition,
        need: &Spanned<PackageName>,
        trail: &mut Trail,
    ) -> Result<(), LoadError> {
        if let Some(start) = trail.iter().position(|(package, _)| *package == need.value) {
            let chain: Vec<String> = trail
                .iter()
                .skip(start)
                .map(|(package, _)| package.to_string())
                .chain([need.value.to_string()])
                .collect();
            self.report(
                definition
                    .problem(need.range(), "packages need each other in a circle")
                    .label("this closes the circle")
                    .because(chain.join(" -> "))
                    .hint("let one of them go without the other"),
            );
            return Ok(());
        }
        if trail.len() > MAX_CHAIN {
            self.report(definition.problem(need.range(), "the chain of packages is too long"));
            return Ok(());
        }
        if self.visit(&need.value, trail)? {
            return Ok(());
        }
        let names = self.library.names();
        let problem = definition
            .problem(
                need.range(),
                format!("there is no package `{}`", need.value),
            )
            .label("unknown package");
        self.report(
            match nearest(need.value.as_str(), names.iter().map(String::as_str)) {
                Some(near) => problem.hint(format!("did you mean `{near}`?")),
                None => problem.hint("`kiln show --packages` lists every package"),
            },
        );
        Ok(())
    }

    fn report(&mut self, problem: Diagnostic) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}
