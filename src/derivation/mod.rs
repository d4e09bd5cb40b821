//! Derivation files and recipes: text in, typed definitions out, or diagnostics with spans.
//!
//! One TOML file defines one package, root, recipe, image or policy; which one is told by
//! the table it has. Reading runs nothing and looks at nothing but the text. What always
//! holds of a definition: names, hashes, paths and durations are parsed, no key was
//! unknown, and `${name}` and `${version}` are replaced. Every problem of a file is
//! reported at once. This stage is pure.

mod definition;
mod diagnostic;
mod fields;
mod image;
mod lock;
mod package;
mod phases;
mod policy;
mod read;
mod recipe;
mod rules;
mod script;

pub use definition::{
    BuildTable, Debian, DebianPackage, Definition, Ids, Kind, Limits, Linkage, Meta, Output, Phase,
    Phases, Recipe, Source, Test,
};
pub use diagnostic::{Diagnostic, SourceFile, Span, Spanned, nearest};
pub use image::{
    Compression, Content, DEFAULT_BUDGET, Group, HealthCheck, Image, LayerPlanFile, Layers, Layout,
    OwnFile, Ownership, PlannedLayer, Platform, User, parse_layer_plan,
};
pub use lock::{Lock, LockedCrate, parse_lock};
pub use phases::variable;
pub use policy::{Demand, Exception, Parameters, PathPattern, Policy, built_in, resolve_policy};
pub use read::{MAX_FILE, parse};
pub use recipe::{apply, resolve};
pub use rules::{About, Control, Rule, Severity, Takes};
pub use script::{PHASE_MARKER, build_script, script_before, test_script};

#[cfg(test)]
mod tests;
