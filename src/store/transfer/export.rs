//! Writing the stream.

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::{Counted, MAGIC};
use crate::closure::in_order;
use crate::hash::{BlobDigest, StorePath};
use crate::listing::Entry;
use crate::store::pool::access;
use crate::store::{Store, StoreError};
use crate::tree::{TreeRoot, scan};

impl Store {
    /// Writes objects and all they need.
    ///
    /// # Errors
    /// [`StoreError::Stream`] when writing fails, [`StoreError::Unknown`],
    /// [`StoreError::Access`]; also when a file is not what is recorded.
    pub fn export(&self, starts: &[StorePath], to: impl Write) -> Result<usize, StoreError> {
        let mut looking = self.look()?;
        for start in starts {
            if !looking.object(start)? {
                return Err(StoreError::Unknown(start.clone()));
            }
        }
        looking.finish()?;
        let mut to = Counted::new(to);
        let mut sent: BTreeSet<BlobDigest> = BTreeSet::new();
        to.put(MAGIC)?;
        let graph = self.graph_of(starts)?;
        for path in in_order(&graph) {
            self.export_object(path, &mut to, &mut sent)?;
        }
        to.put(&[0])?;
        let digest = *to.hasher.finalize().as_bytes();
        to.put(&digest)?;
        to.inner.flush().map_err(|source| to.broken(source))?;
        Ok(graph.len())
    }

    fn export_object(
        &self,
        path: &StorePath,
        to: &mut Counted<impl Write>,
        sent: &mut BTreeSet<BlobDigest>,
    ) -> Result<(), StoreError> {
        let listing = self.listing(path)?;
        let named: BTreeSet<StorePath> = self
            .references(path)?
            .into_iter()
            .map(|reference| reference.target)
            .collect();
        to.put(&[1])?;
        to.put_name(path)?;
        let count = u32::try_from(named.len()).unwrap_or(u32::MAX);
        to.put(&count.to_le_bytes())?;
        for target in &named {
            to.put_name(target)?;
        }
        let encoded = listing.encode();
        to.put(encoded.root.digest.as_bytes())?;
        let messages = encoded.to_bytes();
        to.put(&(messages.len() as u64).to_le_bytes())?;
        to.put(&messages)?;
        let root = TreeRoot::open(&self.host_path(path))?;
        for (at, entry) in listing.iter() {
            let Entry::File { digest, .. } = entry else {
                continue;
            };
            if !sent.insert(*digest) {
                continue;
            }
            let mut file = root.open_file(at)?;
            let mut failure = None;
            let hashed = scan::hash_stream(&mut file, |bytes| {
                to.put(bytes).map_err(|error| {
                    failure = Some(error);
                    io::ErrorKind::Other.into()
                })
            });
            if let Some(error) = failure {
                return Err(error);
            }
            let (found, _) = hashed.map_err(|source| access("read", &root.shown(at), source))?;
            if found != *digest {
                let problem = io::Error::other("it is damaged: `kiln store verify` tells more");
                return Err(access("export", &root.shown(at), problem));
            }
        }
        Ok(())
    }
}
