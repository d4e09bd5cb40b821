//! The first difference between what was built and what was rebuilt.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::ProofError;
use crate::hash::{OutputName, RelPath, StorePath};
use crate::listing::{Entry, Listing};
use crate::store::{ObjectPlan, Store};
use crate::tree::references::digest_text;
use crate::tree::seal::{Patch, patch_file};
use crate::tree::{TreeRoot, scan};

/// Where two builds of one action first differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The output.
    pub output: OutputName,
    /// The entry; `None` where the outputs themselves are others.
    pub path: Option<RelPath>,
    /// What differs, in words, with the bytes on both sides.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "output `{}`, file `{path}` {}", self.output, self.what),
            None => write!(f, "output `{}` {}", self.output, self.what),
        }
    }
}

/// Returns the first difference, in the order of outputs and paths.
pub(super) fn first(
    store: &Store,
    recorded: &BTreeMap<OutputName, StorePath>,
    rebuilt: &BTreeMap<OutputName, ObjectPlan>,
) -> Result<Difference, ProofError> {
    // Where the rebuild names itself, it shall name what was recorded: what is left then
    // is what really differs.
    let renamed: BTreeMap<_, _> = rebuilt
        .iter()
        .filter_map(|(output, plan)| {
            Some((digest_text(&plan.path), digest_text(recorded.get(output)?)))
        })
        .collect();
    for (output, plan) in rebuilt {
        let at = |path: Option<&RelPath>, what: String| Difference {
            output: output.clone(),
            path: path.cloned(),
            what,
        };
        let Some(before) = recorded.get(output) else {
            return Ok(at(None, "was not built the first time".to_owned()));
        };
        let root = TreeRoot::open(plan.tree())?;
        for (path, patches) in plan.patches() {
            if matches!(plan.listing.get(path), Some(Entry::File { .. })) {
                let patches: Vec<Patch> = patches
                    .iter()
                    .map(|patch| Patch {
                        text: renamed.get(&patch.text).copied().unwrap_or(patch.text),
                        ..*patch
                    })
                    .collect();
                patch_file(&root, path, &patches)?;
            }
        }
        let old = store.listing(before)?;
        let new = scan::list(&root)?;
        if let Some((path, what)) = compare(&old, &new) {
            let what = match what {
                What::Content => first_bytes(
                    &store.host_path(before).join(path.as_str()),
                    &plan.tree().join(path.as_str()),
                )?,
                What::Other(what) => what,
            };
            return Ok(at(Some(&path), what));
        }
    }
    let output = recorded
        .keys()
        .next()
        .cloned()
        .unwrap_or_else(|| "out".parse().expect("`out` is an output name"));
    let what = "names itself at other places".to_owned();
    Ok(Difference {
        output,
        path: None,
        what,
    })
}

enum What {
    Content,
    Other(String),
}

fn compare(old: &Listing, new: &Listing) -> Option<(RelPath, What)> {
    let other = |path: &RelPath, text: &str| Some((path.clone(), What::Other(text.to_owned())));
    let mut paths: Vec<&RelPath> = old.iter().chain(new.iter()).map(|(path, _)| path).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        match (old.get(path), new.get(path)) {
            (Some(_), None) => return other(path, "is missing in the rebuild"),
            (None, _) => return other(path, "is only in the rebuild"),
            (Some(a), Some(b)) if a == b => {}
            (Some(Entry::File { digest: a, .. }), Some(Entry::File { digest: b, .. })) => {
                if a == b {
                    return other(path, "has another executable bit in the rebuild");
                }
                return Some((path.clone(), What::Content));
            }
            (Some(Entry::Symlink { target: a }), Some(Entry::Symlink { target: b })) => {
                return other(path, &format!("points to `{a}`, in the rebuild to `{b}`"));
            }
            _ => return other(path, "is of another kind in the rebuild"),
        }
    }
    None
}

/// Bytes shown on each side.
const SHOWN: usize = 24;

fn first_bytes(old: &Path, new: &Path) -> Result<String, ProofError> {
    let open = |path: &Path| {
        File::open(path)
            .map(BufReader::new)
            .map_err(|source| ProofError::Access {
                path: path.to_owned(),
                source,
            })
    };
    let (mut a, mut b) = (open(old)?.bytes(), open(new)?.bytes());
    let mut offset = 0_u64;
    loop {
        let next = |bytes: &mut std::io::Bytes<BufReader<File>>, path: &Path| {
            bytes
                .next()
                .transpose()
                .map_err(|source| ProofError::Access {
                    path: path.to_owned(),
                    source,
                })
        };
        let (x, y) = (next(&mut a, old)?, next(&mut b, new)?);
        if x == y && x.is_some() {
            offset += 1;
            continue;
        }
        let show = |first: Option<u8>, rest: &mut std::io::Bytes<BufReader<File>>| {
            let bytes: Vec<u8> = first
                .into_iter()
                .chain(rest.take(SHOWN - 1).map_while(Result::ok))
                .collect();
            if bytes.is_empty() {
                "the end".to_owned()
            } else {
                format!("\"{}\"", bytes.escape_ascii())
            }
        };
        let (first, second) = (show(x, &mut a), show(y, &mut b));
        return Ok(format!(
            "differs at byte {offset}: {first}, in the rebuild {second}"
        ));
    }
}
