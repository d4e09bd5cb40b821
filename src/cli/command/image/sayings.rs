//! What the content of files says, remembered for each object: an image that is made again
//! reads no file of an object that it read before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::cli::memory;
use crate::cli::report::{Failure, Problem};
use crate::derivation::Layout;
use crate::hash::{BlobDigest, StorePath};
use crate::listing::facts::ContentFacts;
use crate::listing::links::{Links, Mention};
use crate::projection::{Objects, ToRead};
use crate::store::Store;
use crate::tree::facts::extract;
use crate::tree::mentions::links;
use crate::tree::scan::read_whole;

/// What files say, by object.
pub(super) struct Sayings<'a> {
    store: &'a Store,
    layout: Layout,
    objects: BTreeMap<StorePath, Remembered>,
    changed: BTreeSet<StorePath>,
    facts: Vec<(BlobDigest, ContentFacts)>,
}

/// What is remembered of an object, by the contents of its files.
#[derive(Default, Serialize, Deserialize)]
struct Remembered {
    /// Those that say nothing, sorted: of most that is all.
    silent: Vec<[u8; 32]>,
    /// What the others say.
    said: BTreeMap<[u8; 32], Said>,
}

/// What a file says.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    facts: Option<Box<ContentFacts>>,
    /// Store paths in it, by their names, and what follows them.
    mentions: Vec<(String, String)>,
}

/// What most files say.
static NOTHING: Said = Said {
    facts: None,
    mentions: Vec::new(),
};

impl<'a> Sayings<'a> {
    /// Knows nothing yet.
    pub fn new(store: &'a Store, layout: Layout) -> Self {
        Self {
            store,
            layout,
            objects: BTreeMap::new(),
            changed: BTreeSet::new(),
            facts: Vec::new(),
        }
    }

    /// Returns what files need of others, and keeps what their content says. In a flat image
    /// no file may name another object, which is told apart.
    pub fn of(&mut self, objects: &Objects, files: &[ToRead]) -> Result<Vec<Links>, Failure> {
        for file in files {
            let object = &file.place.object;
            if !self.objects.contains_key(object) {
                let remembered = memory::recall(&self.place(object)).unwrap_or_default();
                self.objects.insert(object.clone(), remembered);
            }
        }
        let mut links = vec![Links::default(); files.len()];
        let mut new = Vec::new();
        self.facts.reserve(files.len());
        for (file, links) in files.iter().zip(&mut links) {
            let remembered = self.objects.get(&file.place.object);
            match remembered.and_then(|remembered| remembered.recall(&file.digest)) {
                Some(said) => {
                    self.facts.push((file.digest, said.facts()));
                    *links = said.links();
                }
                None => new.push((file, links)),
            }
        }
        let read: Vec<Said> = new
            .par_iter()
            // One buffer for each thread: to get and give back memory for every file costs
            // more than to read it.
            .map_init(Vec::new, |buffer, (file, _)| {
                self.read(objects, file, buffer)
            })
            .collect::<Result<_, _>>()?;
        for ((file, links), said) in new.into_iter().zip(read) {
            self.facts.push((file.digest, said.facts()));
            *links = said.links();
            let object = &file.place.object;
            let remembered = self.objects.entry(object.clone()).or_default();
            remembered.learn(file.digest, said);
            self.changed.insert(object.clone());
        }
        for object in &self.changed {
            if let Some(remembered) = self.objects.get_mut(object) {
                remembered.silent.sort_unstable();
            }
        }
        Ok(links)
    }

    /// Returns what the content of each file says that was asked for, and remembers what was
    /// read anew.
    pub fn into_facts(self) -> BTreeMap<BlobDigest, ContentFacts> {
        for object in &self.changed {
            if let Some(remembered) = self.objects.get(object) {
                memory::keep(&self.place(object), remembered);
            }
        }
        self.facts.into_iter().collect()
    }

    fn place(&self, object: &StorePath) -> PathBuf {
        let layout: &[u8] = match self.layout {
            Layout::Flat => b"flat",
            Layout::Store => b"store",
        };
        let name = object.base_name();
        memory::place(self.store, [b"sayings", layout, name.as_bytes()])
    }

    fn read(
        &self,
        objects: &Objects,
        file: &ToRead,
        buffer: &mut Vec<u8>,
    ) -> Result<Said, Failure> {
        let path = self.store.blob_path(file.digest, file.executable);
        let bytes = File::open(&path)
            .and_then(|mut file| read_whole(&mut file, buffer))
            .map_err(|error| {
                Problem::new(format!("cannot read `{}`", path.display()))
                    .because(error.to_string())
                    .hint("`kiln store verify` tells what is damaged")
            })?;
        let facts = extract(bytes);
        let named: BTreeSet<&StorePath> = match (self.layout, objects.get(&file.place.object)) {
            (Layout::Store, Some(object)) => object
                .references
                .iter()
                .filter(|reference| reference.file == file.place.path)
                .map(|reference| &reference.target)
                .collect(),
            _ => BTreeSet::new(),
        };
        let links = links(bytes, &facts, named);
        Ok(Said {
            facts: (facts != ContentFacts::default()).then(|| Box::new(facts)),
            mentions: links
                .mentions
                .into_iter()
                .map(|mention| (mention.object.base_name(), mention.rest))
                .collect(),
        })
    }
}

impl Remembered {
    /// Returns what a content says, or `None` if it was never read.
    fn recall(&self, content: &BlobDigest) -> Option<&Said> {
        let content = content.as_bytes();
        let is_silent = || self.silent.binary_search(content).is_ok();
        let said = self.said.get(content);
        said.or_else(|| is_silent().then_some(&NOTHING))
    }

    fn learn(&mut self, content: BlobDigest, said: Said) {
        if said.facts.is_none() && said.mentions.is_empty() {
            self.silent.push(*content.as_bytes());
        } else {
            self.said.insert(*content.as_bytes(), said);
        }
    }
}

impl Said {
    fn facts(&self) -> ContentFacts {
        self.facts.as_deref().cloned().unwrap_or_default()
    }

    fn links(&self) -> Links {
        let facts = self.facts.as_deref();
        let mut links = facts.map(Links::of_headers).unwrap_or_default();
        for (name, rest) in &self.mentions {
            // Only names of store paths were written down.
            if let Ok(object) = StorePath::from_base_name(name) {
                let rest = rest.clone();
                links.mentions.insert(Mention { object, rest });
            }
        }
        links
    }
}
