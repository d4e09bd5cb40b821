//! Reading `[recipe]`, and applying a recipe to a package.

use std::collections::BTreeMap;

use super::definition::Recipe;
use super::definition::{BuildTable, Phase, Phases};
use super::diagnostic::Spanned;
use super::fields::Fields;
use super::package::read_ids;
use super::phases::{read_environment, read_phases};
use crate::hash::PackageName;

pub(super) fn read(fields: &mut Fields<'_, '_>) -> Option<Recipe> {
    fields.table("recipe", |f| {
        let (setup, finish, phases) = f
            .table("phases", |p| {
                let setup = p.text("setup").map(|text| text.value);
                let finish = p.text("finish").map(|text| text.value);
                Some((setup, finish, read_phases(p)?))
            })
            .unwrap_or_default();
        let root = f.parsed_texts("root");
        if root.is_empty() {
            f.problem(
                f.span(),
                "the recipe has no `root`: nothing could run in its builds",
            );
        }
        Some(Recipe {
            root,
            inputs: f.parsed_texts("inputs"),
            environment: read_environment(f),
            ids: read_ids(f),
            setup,
            finish,
            phases,
        })
    })
}

/// Returns the phases of a package with its recipe applied, and the variables.
///
/// The package's phases and variables replace the recipe's of the same name.
pub fn apply(package: &BuildTable, recipe: &Recipe) -> (Phases, BTreeMap<String, String>) {
    let mut phases: Phases = Phases::new();
    for phase in Phase::ALL {
        if let Some(script) = package
            .phases
            .get(&phase)
            .or_else(|| recipe.phases.get(&phase))
            && !script.trim().is_empty()
        {
            phases.insert(phase, script.clone());
        }
    }
    let mut environment = recipe.environment.clone();
    environment.extend(package.environment.clone());
    (phases, environment)
}

/// Returns what a name means in a file: one without a prefix in a file of the embedded
/// set means that set.
pub fn resolve(written: &Spanned<PackageName>, within: &PackageName) -> PackageName {
    let in_std = within.as_str().starts_with("std:");
    if in_std && !written.value.as_str().contains(':') {
        format!("std:{}", written.value)
            .parse()
            .unwrap_or_else(|_| written.value.clone())
    } else {
        written.value.clone()
    }
}
