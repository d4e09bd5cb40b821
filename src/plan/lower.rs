//! From loaded definitions to steps.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::{BuildStep, Graph, Step, StepId, StepKind, TestStep};
use super::load::Loaded;
use crate::action::{Check, SourceLayout};
use crate::derivation::{
    BuildTable, Debian, Definition, Diagnostic, Kind, Limits, Linkage, Recipe, Source, Spanned,
    apply, build_script, resolve, test_script, variable,
};
use crate::hash::{ObjectName, PackageName, RelPath, Sha256Digest};

/// Variables that every build and test starts with.
const WORLD: [(&str, &str); 6] = [
    ("HOME", "/homeless"),
    ("LC_ALL", "C.UTF-8"),
    ("PATH", "/usr/bin:/usr/sbin"),
    ("SHELL", "/bin/bash"),
    ("SOURCE_DATE_EPOCH", "1"),
    ("TZ", "UTC"),
];

/// Returns the steps that realise everything loaded, tests included.
///
/// # Errors
/// Diagnostics for definitions that do not fit together: a recipe that is none, an input
/// that gives no outputs.
pub fn lower(loaded: &Loaded) -> Result<Graph, Vec<Diagnostic>> {
    let mut lowering = Lowering {
        loaded,
        graph: Graph::default(),
        problems: Vec::new(),
    };
    for package in &loaded.order {
        if let Some(definition) = loaded.definitions.get(package) {
            match &definition.kind {
                Kind::Package(build) => lowering.package(package, definition, build),
                Kind::Debian(debian) => lowering.debian(package, definition, debian),
                Kind::Image(image) => {
                    for content in &image.contents {
                        lowering.output_of(definition, &content.package);
                    }
                }
                Kind::Recipe(_) | Kind::Policy(_) => {}
            }
        }
    }
    if lowering.problems.is_empty() {
        Ok(lowering.graph)
    } else {
        Err(lowering.problems)
    }
}

struct Lowering<'a> {
    loaded: &'a Loaded,
    graph: Graph,
    problems: Vec<Diagnostic>,
}

impl<'a> Lowering<'a> {
    /// Returns the step of a named package that gives outputs, or reports it.
    fn output_of(
        &mut self,
        definition: &Definition,
        written: &Spanned<PackageName>,
    ) -> Option<StepId> {
        let name = resolve(written, &definition.file.package);
        let step = self.graph.package(&name);
        if step.is_none() {
            self.problems.push(
                definition
                    .problem(written.range(), format!("`{name}` gives no outputs"))
                    .hint("name a package with a `[build]` or `[debian]` table"),
            );
        }
        step
    }

    fn debian(&mut self, package: &PackageName, definition: &Definition, debian: &Debian) {
        let mut packages = Vec::new();
        for deb in &debian.packages {
            let file: RelPath = match deb.path.value.file_name().parse() {
                Ok(file) => file,
                Err(_) => deb.path.value.clone(),
            };
            let url = format!("mirror://debian/{}", deb.path.value);
            packages.push(self.fetch(package, file, deb.sha256.value, vec![url]));
        }
        let Ok(name) = definition.object_name("out") else {
            return;
        };
        let step = self.graph.push(Step {
            label: package.to_string(),
            package: package.clone(),
            name,
            kind: StepKind::Debian {
                packages,
                exclude: debian.exclude.clone(),
                links: debian.links.clone(),
                files: debian.files.clone(),
            },
        });
        self.graph.name(package.clone(), step);
    }

    fn fetch(
        &mut self,
        package: &PackageName,
        file: RelPath,
        sha256: Sha256Digest,
        urls: Vec<String>,
    ) -> StepId {
        self.graph.push(Step {
            label: file.to_string(),
            package: package.clone(),
            name: object_name_of_file(file.file_name()),
            kind: StepKind::Fetch { file, sha256, urls },
        })
    }

    fn package(&mut self, package: &PackageName, definition: &Definition, build: &BuildTable) {
        let Some((recipe, recipe_definition)) = self.recipe(definition, build) else {
            return;
        };
        let Some(root) = self.root(package, definition, build, recipe, recipe_definition) else {
            return;
        };
        let mut inputs = BTreeMap::new();
        let implicit = recipe.inputs.iter().map(|input| (recipe_definition, input));
        for (whose, input) in implicit.chain(build.inputs.iter().map(|input| (definition, input))) {
            if let Some(step) = self.output_of(whose, input) {
                let out = "out".parse().expect("`out` is an output name");
                inputs.insert(variable(&input.value), (step, out));
            }
        }
        let sources = self.sources(package, definition, build);
        let (phases, mut environment) = apply(build, recipe);
        world(&mut environment, definition);
        let has_main = sources.keys().any(|at| at.as_str() == "source");
        let mut outputs = BTreeMap::new();
        let mut checks = BTreeMap::new();
        for (output, demand) in &build.outputs {
            match definition.object_name(output.as_str()) {
                Ok(name) => outputs.insert(output.clone(), name),
                Err(error) => {
                    self.problems
                        .push(definition.problem(0..0, error.to_string()));
                    continue;
                }
            };
            if demand.linkage == Some(Linkage::Static) {
                checks.insert(output.clone(), BTreeSet::from([Check::Static]));
            }
        }
        let Some(name) = outputs.values().next().cloned() else {
            return;
        };
        let step = self.graph.push(Step {
            label: package.to_string(),
            package: package.clone(),
            name: name.clone(),
            kind: StepKind::Build(Box::new(BuildStep {
                root,
                inputs,
                sources,
                environment,
                script: build_script(build, recipe, &phases),
                working_directory: if has_main { "/build/source" } else { "/build" }.to_owned(),
                outputs,
                checks,
                ids: build.ids.max(recipe.ids),
                limits: build.limits.clone(),
            })),
        });
        self.graph.name(package.clone(), step);
        if let Some(test) = &build.test {
            let mut environment = BTreeMap::new();
            world(&mut environment, definition);
            self.graph.push(Step {
                label: format!("{package} (test)"),
                package: package.clone(),
                name,
                kind: StepKind::Test(Box::new(TestStep {
                    root,
                    build: step,
                    environment,
                    script: test_script(&test.script),
                    ids: test.ids,
                    limits: Limits::default(),
                })),
            });
        }
    }

    fn recipe(
        &mut self,
        definition: &Definition,
        build: &BuildTable,
    ) -> Option<(&'a Recipe, &'a Definition)> {
        let name = resolve(&build.recipe, &definition.file.package);
        let found = self.loaded.definitions.get(&name);
        match found.map(|found| (&found.kind, found)) {
            Some((Kind::Recipe(recipe), found)) => Some((recipe, found)),
            Some(_) => {
                self.problems.push(
                    definition.problem(build.recipe.range(), format!("`{name}` is not a recipe")),
                );
                None
            }
            // Its own problems are reported already.
            None => None,
        }
    }

    fn root(
        &mut self,
        package: &PackageName,
        definition: &Definition,
        build: &BuildTable,
        recipe: &Recipe,
        recipe_definition: &Definition,
    ) -> Option<StepId> {
        let mut roots = Vec::new();
        for root in &recipe.root {
            roots.push(self.output_of(recipe_definition, root)?);
        }
        for root in &build.root {
            roots.push(self.output_of(definition, root)?);
        }
        if let [single] = roots.as_slice() {
            return Some(*single);
        }
        let name: ObjectName = "root".parse().expect("`root` is a name");
        Some(self.graph.push(Step {
            label: format!("{package} (root)"),
            package: package.clone(),
            name,
            kind: StepKind::Merge { inputs: roots },
        }))
    }

    fn sources(
        &mut self,
        package: &PackageName,
        definition: &Definition,
        build: &BuildTable,
    ) -> BTreeMap<RelPath, (StepId, SourceLayout)> {
        let mut sources = BTreeMap::new();
        for (at, source) in &build.sources {
            let step = match source {
                Source::Remote {
                    urls,
                    sha256,
                    unpack,
                } => {
                    let texts: Vec<String> = urls.iter().map(|url| url.value.clone()).collect();
                    let file = file_of_url(texts.first().map_or("", String::as_str), definition);
                    let step = self.fetch(package, file, sha256.value, texts);
                    (
                        step,
                        if *unpack {
                            SourceLayout::Unpack
                        } else {
                            SourceLayout::Copy
                        },
                    )
                }
                Source::Tree { path } => {
                    let step = self.graph.push(Step {
                        label: format!("{package} ({})", path.value),
                        package: package.clone(),
                        name: object_name_of_file(&format!("{}-{at}", definition.meta.name)),
                        kind: StepKind::Tree {
                            path: path.value.clone(),
                        },
                    });
                    (step, SourceLayout::Copy)
                }
                Source::Crates { lock } => {
                    self.crates(package, at, &lock.value, &mut sources);
                    continue;
                }
            };
            sources.insert(at.clone(), step);
        }
        sources
    }

    /// Adds each crate of a lock file below a directory.
    fn crates(
        &mut self,
        package: &PackageName,
        at: &RelPath,
        lock: &RelPath,
        sources: &mut BTreeMap<RelPath, (StepId, SourceLayout)>,
    ) {
        let locks = self.loaded.locks.get(package);
        // Loading has read every lock file that a definition names.
        let Some(lock) = locks.and_then(|locks| locks.get(lock)) else {
            return;
        };
        for (directory, found) in &lock.crates {
            // Names and versions have the length and form of one component each.
            let (Ok(file), Ok(below)) = (
                format!("{directory}.crate").parse(),
                format!("{at}/{directory}").parse(),
            ) else {
                continue;
            };
            let address = address_of_crate(&found.name, &found.version);
            let step = self.fetch(package, file, found.sha256.value, vec![address]);
            sources.insert(below, (step, SourceLayout::Crate));
        }
    }
}

/// Returns where the registry has the file of a crate. The rest of the address is what the
/// registry's index says when it gives only a base.
fn address_of_crate(name: &str, version: &str) -> String {
    format!("{CRATES}{name}/{version}/download")
}

const CRATES: &str = "mirror://crates/";

/// Returns the name and the version of the crate that a `mirror://crates/` address is of.
pub fn crate_at(address: &str) -> Option<(&str, &str)> {
    let (name, version) = address
        .strip_prefix(CRATES)?
        .strip_suffix("/download")?
        .split_once('/')?;
    (!version.contains('/')).then_some((name, version))
}

fn world(environment: &mut BTreeMap<String, String>, definition: &Definition) {
    for (name, value) in WORLD {
        environment.insert(name.to_owned(), value.to_owned());
    }
    environment.insert("name".to_owned(), definition.meta.name.to_string());
    let version = definition.meta.version.clone().unwrap_or_default();
    environment.insert("version".to_owned(), version);
}

/// Returns the last part of an address, without a query.
fn file_of_url(url: &str, definition: &Definition) -> RelPath {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let of_crate = crate_at(path).map(|(name, version)| format!("{name}-{version}.crate"));
    let last = of_crate.as_deref().or_else(|| path.rsplit('/').next());
    let plain: String = last.unwrap_or_default().chars().map(printable).collect();
    plain
        .parse()
        .or_else(|_| definition.meta.name.as_str().parse())
        .expect("a package's name is a plain path")
}

fn printable(character: char) -> char {
    if character.is_ascii_alphanumeric() || "+-._".contains(character) {
        character
    } else {
        '_'
    }
}

/// Returns a file's name as the readable part of a store path.
fn object_name_of_file(file: &str) -> ObjectName {
    let plain: String = file.chars().map(printable).collect();
    let start = plain.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let cut: String = start.chars().take(120).collect();
    cut.parse()
        .or_else(|_| "source".parse())
        .expect("a name is left, or `source` is one")
}
