//! The listing of an image that kiln builds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::derivation::{Image, Platform};
use crate::hash::{BlobDigest, PackageName, StorePath};
use crate::listing::Entry;
use crate::listing::facts::ContentFacts;
use crate::listing::image::{
    Configuration, ImageEntry, ImageLayer, ImageListing, Node, Origin, Provenance,
};
use crate::projection::Projection;

/// What is known about the contents of an image before it is made.
#[derive(Debug)]
pub struct Known {
    /// Facts about each distinct file.
    pub facts: BTreeMap<BlobDigest, ContentFacts>,
    /// Where each object of the image comes from.
    pub origins: BTreeMap<StorePath, Arc<Origin>>,
    /// Packages of which every file may be executed.
    pub executable_packages: BTreeSet<PackageName>,
}

/// Returns an image's listing: its projection, its configuration, and what is known.
pub fn listing(projection: &Projection, declared: &Image, known: Known) -> ImageListing {
    // Each is collected at once: what comes in order needs no search for its place.
    let layers = projection.layers.iter().enumerate();
    let holders: BTreeMap<_, _> = layers
        .flat_map(|(number, layer)| layer.iter().map(move |(path, _)| (path, number)))
        .collect();
    let mut holders = holders.into_iter().peekable();
    let listed = projection.entries.iter().map(|(path, placed)| {
        let node = match &placed.entry {
            Entry::File {
                digest, size_bytes, ..
            } => Node::File {
                digest: *digest,
                size_bytes: *size_bytes,
            },
            Entry::Directory => Node::Directory,
            Entry::Symlink { target } => Node::Symlink {
                target: target.clone(),
            },
        };
        // Both go forward in the same order.
        while holders.next_if(|(at, _)| *at < path).is_some() {}
        let holder = holders.next_if(|(at, _)| *at == path);
        let layer = holder.map_or(0, |(_, number)| number);
        let mut entry = ImageEntry::new(node, placed.mode, layer);
        entry.owner = placed.owner;
        entry.origin = placed
            .object
            .as_ref()
            .and_then(|object| known.origins.get(object).cloned());
        (path.clone(), entry)
    });
    let entries = listed.collect();
    let layers = projection
        .layers
        .iter()
        .map(|layer| ImageLayer {
            title: layer.title.clone(),
            size_bytes: layer.size_bytes(),
        })
        .collect();
    ImageListing {
        entries,
        hidden: Vec::new(),
        layers,
        configuration: configuration(declared),
        facts: known.facts,
        provenance: Provenance::Known,
        executables: Some(declared.executables.clone()),
        executable_packages: known.executable_packages,
    }
}

fn configuration(declared: &Image) -> Configuration {
    let (user, group) = declared.user;
    Configuration {
        architecture: declared.platform.architecture.clone(),
        os: Platform::OS.to_owned(),
        user: format!("{user}:{group}"),
        environment: declared
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        entrypoint: declared.entrypoint.clone(),
        command: declared.command.clone(),
        working_directory: declared.working_directory.clone(),
        labels: declared.labels.clone(),
        volumes: declared
            .writable
            .iter()
            .map(|path| format!("/{path}"))
            .collect::<BTreeSet<_>>(),
        ports: declared.ports.clone(),
        history: Vec::new(),
    }
}
