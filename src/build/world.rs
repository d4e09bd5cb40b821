//! The world that a build wakes up in: its work directory and its sandbox request.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kiln_sandbox::{Access, Limits as SandboxLimits, Node, SandboxRequest, Together};

use super::{BuildError, Conditions, links, memory_bytes, permitted};
use crate::action::{Action, Run, SourceLayout};
use crate::derivation::{Ids, Limits};
use crate::fetch::{crates, unpack, worktree};
use crate::hash::{OutputName, STORE_PREFIX, StorePath};
use crate::listing::Entry;
use crate::store::{Addition, Hermeticity, Store};

/// Entries of `/` that the sandbox makes itself.
const RESERVED: [&str; 6] = ["build", "dev", "kiln", "proc", "sys", "tmp"];

/// Processes that one build may have at once; a fork bomb ends here.
const MAX_PROCESSES: u64 = 4096;

/// Bytes of one file: above any real one, and far below what would be hashed for hours.
const MAX_FILE: u64 = 64 << 30;

/// Files that one process may have open.
const MAX_OPEN_FILES: u64 = 4096;

pub(super) struct World<'a> {
    pub store: &'a Store,
    pub action: &'a Action,
    pub run: &'a Run,
    /// Where `build/` and `outputs/` are.
    pub work: &'a Path,
    /// The objects that the build can see, its root left out.
    visible: BTreeSet<StorePath>,
}

impl<'a> World<'a> {
    pub(super) fn new(
        store: &'a Store,
        action: &'a Action,
        run: &'a Run,
        work: &'a Path,
    ) -> Result<Self, BuildError> {
        let mut visible = store.closure(run.inputs.values())?;
        let mut of_root = store.closure([&run.root])?;
        of_root.remove(&run.root);
        visible.append(&mut of_root);
        Ok(Self {
            store,
            action,
            run,
            work,
            visible,
        })
    }

    fn build_directory(&self) -> PathBuf {
        self.work.join("build")
    }

    /// Makes `/build` with the sources in it, and an empty directory for each output.
    pub(super) fn lay_out(
        &self,
        additions: &BTreeMap<OutputName, Addition>,
    ) -> Result<(), BuildError> {
        let build = self.build_directory();
        create(&build)?;
        for addition in additions.values() {
            create(&addition.tree)?;
        }
        for (at, source) in &self.run.sources {
            let into = build.join(at.as_str());
            create(&into)?;
            let object = self.store.host_path(&source.object);
            let failed = |source| BuildError::Source {
                name: self.action.name.to_string(),
                at: at.to_string(),
                source: Box::new(source),
            };
            match source.layout {
                SourceLayout::Unpack => {
                    let archive = self.only_file(&source.object)?;
                    unpack::unpack(&archive, &into).map_err(failed)?;
                }
                SourceLayout::Crate => {
                    let archive = self.only_file(&source.object)?;
                    crates::unpack(&archive, &into).map_err(failed)?;
                }
                SourceLayout::Copy => {
                    worktree::copy_tree(&object, &into, worktree::Select::All).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Returns where the only file of a fetched object lies.
    fn only_file(&self, object: &StorePath) -> Result<PathBuf, BuildError> {
        let listing = self.store.listing(object)?;
        let base = self.store.host_path(object);
        Ok(listing
            .iter()
            .next()
            .map_or_else(|| base.clone(), |(path, _)| base.join(path.as_str())))
    }

    /// Returns the objects that the build can see, its root left out.
    pub(super) fn visible(&self) -> &BTreeSet<StorePath> {
        &self.visible
    }

    /// Returns the objects that an output may reference.
    pub(super) fn candidates(&self) -> BTreeSet<StorePath> {
        let mut candidates = self.visible.clone();
        candidates.insert(self.run.root.clone());
        candidates
    }

    /// Returns the request for the sandbox.
    pub(super) fn request(
        &self,
        additions: &BTreeMap<OutputName, Addition>,
        limits: &Limits,
        conditions: &Conditions,
        hermeticity: Hermeticity,
    ) -> Result<SandboxRequest, BuildError> {
        let mut nodes = self.root_nodes()?;
        nodes.push(Node::Directory {
            path: STORE_PREFIX.to_owned(),
        });
        for path in &self.visible {
            nodes.push(Node::Bind {
                path: path.to_string(),
                source: self.store.host_path(path),
                access: Access::ReadOnly,
            });
        }
        for addition in additions.values() {
            if let Some(told) = &addition.scratch {
                nodes.push(Node::Bind {
                    path: told.to_string(),
                    source: addition.tree.clone(),
                    access: Access::ReadWrite,
                });
            }
        }
        nodes.push(Node::Bind {
            path: "/build".to_owned(),
            source: self.build_directory(),
            access: Access::ReadWrite,
        });
        nodes.push(Node::File {
            path: "/kiln/script".to_owned(),
            content: self.run.script.clone().into_bytes(),
            executable: false,
        });
        if !additions.is_empty() {
            create(&links::directory(self.work))?;
            nodes.extend(links::nodes(self.work));
        }
        let mut request = conditions.sandbox.clone();
        request.nodes = nodes;
        request.environment = self.environment(additions, conditions);
        request
            .working_directory
            .clone_from(&self.run.working_directory);
        request.ids = match self.run.ids {
            Ids::One => kiln_sandbox::Ids::One,
            Ids::Range => kiln_sandbox::Ids::Range,
        };
        request.weak = permitted(hermeticity);
        request.limits = SandboxLimits {
            wall: Some(limits.time),
            silence: Some(limits.silence),
            log_bytes: Some(limits.log_bytes),
            processes: Some(MAX_PROCESSES),
            open_files: Some(MAX_OPEN_FILES),
            file_bytes: Some(MAX_FILE),
            memory_bytes: None,
            scratch_bytes: None,
            together: Together {
                memory_bytes: Some(memory_bytes(limits)),
                processes: Some(MAX_PROCESSES),
                // Jobs that a build may use are processors that it gets.
                processors: u32::try_from(conditions.cores).ok(),
            },
        };
        Ok(request)
    }

    fn root_nodes(&self) -> Result<Vec<Node>, BuildError> {
        let base = self.store.host_path(&self.run.root);
        let mut nodes = Vec::new();
        for (path, entry) in self.store.listing(&self.run.root)?.iter() {
            if path.parent().is_some() {
                continue;
            }
            if RESERVED.contains(&path.as_str()) {
                return Err(BuildError::ReservedEntry {
                    root: self.run.root.clone(),
                    entry: path.to_string(),
                });
            }
            let inside = format!("/{path}");
            nodes.push(match entry {
                Entry::Symlink { target } => Node::Symlink {
                    path: inside,
                    target: target.clone(),
                },
                Entry::Directory | Entry::File { .. } => Node::Bind {
                    path: inside,
                    source: base.join(path.as_str()),
                    access: Access::ReadOnly,
                },
            });
        }
        Ok(nodes)
    }

    fn environment(
        &self,
        additions: &BTreeMap<OutputName, Addition>,
        conditions: &Conditions,
    ) -> BTreeMap<String, String> {
        let mut environment = self.run.environment.clone();
        for (variable, path) in &self.run.inputs {
            environment.insert(variable.clone(), path.to_string());
        }
        for (output, addition) in additions {
            if let Some(told) = &addition.scratch {
                environment.insert(output.as_str().to_owned(), told.to_string());
            }
        }
        environment.insert("JOBS".to_owned(), conditions.cores.to_string());
        if !additions.is_empty() {
            environment
                .entry(links::VARIABLE.to_owned())
                .or_insert_with(|| links::DIRECTORY.to_owned());
        }
        environment
    }
}

fn create(path: &Path) -> Result<(), BuildError> {
    std::fs::create_dir_all(path).map_err(|source| BuildError::Access {
        operation: "create",
        path: path.to_owned(),
        source,
    })
}
