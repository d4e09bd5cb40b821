//! The debug twin of an image: the same layers, and a toolbox on top of them.

use super::gather::gather;
use super::{Made, declared};
use crate::cli::hints;
use crate::cli::report::{Failure, Problem};
use crate::cli::session::Session;
use crate::derivation::{Compression, Definition, Image as Declared};
use crate::hash::{PackageName, RelPath};
use crate::image::{Tag, assemble};
use crate::listing::Entry;
use crate::plan::{Graph, Loaded};
use crate::policy::DEBUG_LABEL;
use crate::projection::Projection;
use crate::realise::Realised;

use super::target::Target;
use crate::image::registry::Reference;

/// The image whose contents are added.
const TOOLBOX: &str = "std:images/toolbox";

/// Where they are put.
const DIRECTORY: &str = "debug";

/// What is added to names and tags.
const SUFFIX: &str = "-debug";

/// Returns the name of the image whose contents are added.
pub(super) fn toolbox() -> PackageName {
    TOOLBOX.parse().expect("it is a package's name")
}

/// Makes the twin of an image that was made and judged. The verdict stays that on the image:
/// the twin itself is never for production, and says so.
pub(super) fn twin(
    session: &Session,
    loaded: &Loaded,
    (graph, realised): (&Graph, &Realised),
    (of, compression): (&Declared, Option<Compression>),
    made: Made,
) -> Result<Made, Failure> {
    let toolbox = toolbox();
    let (definition, added) = declared(loaded, &toolbox)?;
    let mut added = added.clone();
    for content in &mut added.contents {
        let inside = content
            .to
            .as_ref()
            .map_or_else(String::new, |to| format!("/{to}"));
        content.to = format!("{DIRECTORY}{inside}").parse().ok();
    }
    // Only its programs are wanted.
    added.files.clear();
    added.writable.clear();
    added.ownership.clear();
    let added = gather(
        session,
        loaded,
        (graph, realised),
        (&toolbox, definition, &added),
    )?
    .projection;
    let name = made.definition.meta.name.clone();
    let projection = on_top(made.projection, added).map_err(|path| {
        Failure::from(
            Problem::new(format!("`{name}` can have no debug twin"))
                .because(format!("it has `/{path}`, where the toolbox goes")),
        )
    })?;
    let (twin, declared) = described(made.definition, of)?;
    let image = assemble(
        &session.store,
        &twin,
        &declared,
        &projection,
        compression.unwrap_or(declared.compression),
    )
    .map_err(|error| hints::image(&error))?;
    Ok(Made {
        image,
        contents: made.contents,
        objects: made.objects,
        reached: made.reached,
        verdict: made.verdict,
        policy: made.policy,
        definition: twin,
        projection,
        is_twin: true,
    })
}

/// Lays a projection over another one, whose layers stay the lower ones; or returns a path
/// that both have.
fn on_top(mut below: Projection, above: Projection) -> Result<Projection, RelPath> {
    for (path, placed) in above.entries {
        match below.entries.get(&path) {
            None => drop(below.entries.insert(path, placed)),
            Some(there) if there.entry == Entry::Directory && placed.entry == Entry::Directory => {}
            Some(_) => return Err(path),
        }
    }
    below.layers.extend(above.layers);
    Ok(below)
}

/// Returns what says of the twin that it is one.
fn described(mut definition: Definition, of: &Declared) -> Result<(Definition, Declared), Failure> {
    let name = definition.meta.name.to_string();
    let twin = format!("{name}{SUFFIX}");
    definition.meta.name = twin
        .parse()
        .map_err(|error: crate::hash::NameError| Failure::from(Problem::from_error(&error)))?;
    definition.meta.summary = format!(
        "Debug twin of {name}, never for production: {}",
        definition.meta.summary
    );
    let mut declared = of.clone();
    for (label, value) in [
        (DEBUG_LABEL, name.as_str()),
        ("org.opencontainers.image.title", twin.as_str()),
    ] {
        declared.labels.insert(label.to_owned(), value.to_owned());
    }
    let path = declared.environment.entry("PATH".to_owned()).or_default();
    if !path.is_empty() {
        path.push(':');
    }
    path.push_str(&format!("/{DIRECTORY}/bin"));
    Ok((definition, declared))
}

/// Returns the place of a twin where its image would have another one.
pub(super) fn place(target: Target) -> Target {
    let suffixed = |tag: Tag| Tag::Named(format!("{tag}{SUFFIX}"));
    match target {
        Target::Layout { directory, tag } => Target::Layout {
            directory,
            tag: suffixed(tag),
        },
        Target::Archive {
            format,
            file,
            name,
            tag,
        } => Target::Archive {
            format,
            file,
            name,
            tag: suffixed(tag),
        },
        Target::Registry(reference) => {
            let tag = Some(format!("{}{SUFFIX}", reference.tag()));
            Target::Registry(Reference { tag, ..reference })
        }
    }
}
