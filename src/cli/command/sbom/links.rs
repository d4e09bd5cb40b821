//! The linkers' records of what a bill of materials is about.

use std::collections::{BTreeMap, BTreeSet};

use super::Making;
use crate::cli::hints;
use crate::cli::report::{Failure, Problem};
use crate::fetch::deb;
use crate::hash::{ActionDigest, BlobDigest, RelPath, StorePath};
use crate::listing::facts::Kind;
use crate::listing::link::Link;
use crate::listing::{Entry, Listing};
use crate::plan::{StepId, StepKind};
use crate::sbom::{Contained, LinkedFile};
use crate::tree::facts::extract;

/// What is known of links.
#[derive(Default)]
pub(super) struct Links {
    /// Programs, with their records where there are any.
    pub programs: BTreeMap<(StorePath, BlobDigest), Option<Link>>,
    /// The files that records name.
    pub linked: BTreeMap<(StorePath, RelPath), LinkedFile>,
}

impl Making<'_> {
    /// Returns the records of every program of the subject.
    pub(super) fn links(&self, contents: &[Contained]) -> Result<Links, Failure> {
        let mut wanted: BTreeMap<&StorePath, BTreeSet<BlobDigest>> = BTreeMap::new();
        for contained in contents {
            if let (
                Some(object),
                Entry::File {
                    digest,
                    executable: true,
                    ..
                },
            ) = (&contained.object, &contained.entry)
            {
                wanted.entry(object).or_default().insert(*digest);
            }
        }
        let mut links = Links::default();
        for (object, digests) in wanted {
            let known = self.recorded(object)?;
            for digest in digests {
                match known.get(&digest) {
                    Some(link) => {
                        let key = (object.clone(), digest);
                        links.programs.insert(key, Some(link.clone()));
                    }
                    None if self.is_static(digest)? => {
                        links.programs.insert((object.clone(), digest), None);
                    }
                    None => {}
                }
            }
        }
        links.linked = self.linked(&links.programs)?;
        Ok(links)
    }

    /// Returns an object's records, by the program's content.
    fn recorded(&self, object: &StorePath) -> Result<BTreeMap<BlobDigest, Link>, Failure> {
        let store = &self.session.store;
        // Several actions may have given the same bytes, from other roots: those of this
        // graph come first, so that what the record names is in it.
        let current: BTreeSet<ActionDigest> = self
            .graph
            .steps()
            .filter_map(|(id, _)| self.realised.action_digest(id))
            .collect();
        let read = || {
            let mut producers = store.producers(object)?;
            producers.sort_by_key(|producer| !current.contains(&producer.action));
            for producer in producers {
                let links = store.links(producer.action, &producer.output)?;
                if links.is_empty() {
                    continue;
                }
                let listing = store.listing(object)?;
                return Ok(links
                    .into_iter()
                    .filter_map(|(path, link)| match listing.get(&path) {
                        Some(Entry::File { digest, .. }) => Some((*digest, link)),
                        _ => None,
                    })
                    .collect());
            }
            Ok(BTreeMap::new())
        };
        read().map_err(|error| hints::store(&error))
    }

    fn is_static(&self, digest: BlobDigest) -> Result<bool, Failure> {
        let path = self.session.store.blob_path(digest, true);
        let bytes = std::fs::read(&path).map_err(|error| {
            Failure::from(
                Problem::new(format!("cannot read `{}`", path.display()))
                    .because(error.to_string())
                    .hint("`kiln store verify` tells what is damaged"),
            )
        })?;
        Ok(match extract(&bytes).kind {
            Kind::Elf(elf) => elf.is_loaded() && elf.why_dynamic().is_none(),
            _ => false,
        })
    }

    /// Looks up every file that records name.
    fn linked(
        &self,
        programs: &BTreeMap<(StorePath, BlobDigest), Option<Link>>,
    ) -> Result<BTreeMap<(StorePath, RelPath), LinkedFile>, Failure> {
        let mut wanted: BTreeMap<&StorePath, BTreeSet<&RelPath>> = BTreeMap::new();
        for input in programs.values().flatten().flat_map(|link| &link.inputs) {
            wanted.entry(&input.object).or_default().insert(&input.path);
        }
        let store = &self.session.store;
        let mut linked = BTreeMap::new();
        for (object, paths) in wanted {
            // An object that was collected since is named by the record and nothing more.
            let Ok(listing) = store.listing(object) else {
                continue;
            };
            let packages = self.packages(object, &paths)?;
            for path in paths {
                if let Some(Entry::File {
                    digest,
                    size_bytes,
                    executable,
                }) = listing.get(path)
                {
                    let file = LinkedFile {
                        digest: *digest,
                        size_bytes: *size_bytes,
                        executable: *executable,
                        debian: packages.get(path).cloned(),
                    };
                    linked.insert((object.clone(), path.clone()), file);
                }
            }
        }
        Ok(linked)
    }

    /// Returns the Debian packages that brought files of a root, as the packages list them.
    fn packages(
        &self,
        root: &StorePath,
        paths: &BTreeSet<&RelPath>,
    ) -> Result<BTreeMap<RelPath, StorePath>, Failure> {
        let store = &self.session.store;
        let mut found = BTreeMap::new();
        for package in self.debian_packages(root) {
            if found.len() == paths.len() {
                break;
            }
            let listing: Listing = store
                .listing(&package)
                .map_err(|error| hints::store(&error))?;
            let Some((file, _)) = listing.iter().next() else {
                continue;
            };
            let archive = store.host_path(&package).join(file.as_str());
            let listed = deb::listed_files(&archive)
                .map_err(|error| Failure::from(Problem::from_error(&error)))?;
            for path in paths {
                if listed.contains(*path) {
                    found.insert((*path).clone(), package.clone());
                }
            }
        }
        Ok(found)
    }

    /// Returns the objects of the Debian packages that a root was made from, in order.
    fn debian_packages(&self, root: &StorePath) -> Vec<StorePath> {
        let outputs = |id: StepId| self.realised.outputs(id)?.values().next();
        let mut pending: Vec<StepId> = self
            .graph
            .steps()
            .filter(|(id, _)| outputs(*id) == Some(root))
            .map(|(id, _)| id)
            .take(1)
            .collect();
        let mut packages = Vec::new();
        while let Some(id) = pending.pop() {
            match self.graph.step(id).map(|step| &step.kind) {
                Some(StepKind::Merge { inputs }) => pending.extend(inputs),
                Some(StepKind::Debian { packages: debs, .. }) => {
                    packages.extend(debs.iter().filter_map(|deb| outputs(*deb).cloned()));
                }
                _ => {}
            }
        }
        packages
    }
}
