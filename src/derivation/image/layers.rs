//! Layer plans: which packages share a layer.

use std::sync::Arc;

use super::super::diagnostic::{Diagnostic, SourceFile, Spanned};
use super::super::read::read_table;
use crate::hash::PackageName;

/// A layer plan, read.
#[derive(Debug, Clone)]
pub struct LayerPlanFile {
    /// The file it was read from, for messages about it later.
    pub file: Arc<SourceFile>,
    /// The layers, lowest first.
    pub layers: Vec<PlannedLayer>,
}

/// A layer of a plan.
#[derive(Debug, Clone)]
pub struct PlannedLayer {
    /// What the image's history calls it.
    pub title: String,
    /// The packages whose objects are in it, as written.
    pub packages: Vec<Spanned<PackageName>>,
}

/// Reads a layer plan.
///
/// # Errors
/// Diagnostics for what is no TOML, unknown keys, and names that are none.
pub fn parse_layer_plan(file: &Arc<SourceFile>) -> Result<LayerPlanFile, Vec<Diagnostic>> {
    let layers = read_table(file, |fields| {
        let layers = fields.list("layers", |f| {
            let title = f.required("title");
            let packages = f.parsed_texts::<PackageName>("packages");
            if packages.is_empty() {
                f.problem(f.span(), "the layer has no `packages`");
            }
            Some(PlannedLayer {
                title: title?.value,
                packages,
            })
        });
        if layers.is_empty() {
            fields.problem(fields.span(), "the plan has no `[[layers]]`");
        }
        Some(layers)
    })?;
    Ok(LayerPlanFile {
        file: Arc::clone(file),
        layers,
    })
}
