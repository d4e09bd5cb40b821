//! A look into the sandbox of a build: the same world, another program in it.

use std::path::{Path, PathBuf};

use kiln_sandbox::{Node, SandboxRequest};

use super::{BuildError, Builder, Conditions, additions, world};
use crate::action::Action;
use crate::derivation::{Limits, script_before};
use crate::store::Scratch;

/// The state in which a shell finds the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'a> {
    /// Sources laid out, nothing run but the recipe's `setup`.
    Fresh,
    /// Every phase before this one has run.
    Before(&'a str),
    /// As the last run left it that failed.
    Failed,
}

/// The sandbox of a build, laid out and not yet entered.
#[derive(Debug)]
pub struct Opened {
    /// What runs, and in which world. Only the script and the command are not the build's.
    pub request: SandboxRequest,
    /// Keeps the working directory, unless it is a failed build's.
    _work: Option<Scratch>,
}

impl Builder<'_> {
    /// Lays a build's sandbox out for a person to look around in. Nothing that happens in
    /// it changes an object; the inputs must be in the store.
    ///
    /// `command` is what bash runs instead of reading commands.
    ///
    /// # Errors
    /// [`BuildError`]; [`BuildError::NoPhase`] and [`BuildError::NotKept`] when there is
    /// nothing to start from.
    pub fn open(
        &self,
        action: &Action,
        start: Start<'_>,
        command: Option<&str>,
        cores: usize,
    ) -> Result<Opened, BuildError> {
        let digest = action.digest();
        let run = action
            .run()
            .ok_or_else(|| BuildError::NotARun(action.name.to_string()))?;
        let phase = match start {
            Start::Before(phase) => Some(phase),
            Start::Fresh | Start::Failed => None,
        };
        let before = match (script_before(&run.script, phase), phase) {
            (Some(before), _) => before,
            (None, Some(phase)) => {
                return Err(BuildError::NoPhase {
                    name: action.name.to_string(),
                    phase: phase.to_owned(),
                });
            }
            // A script without phases runs nothing before it.
            (None, None) => String::new(),
        };
        let conditions = Conditions::ordinary(cores);
        let (work, scratch) = self.working_directory(action, start)?;
        let additions = additions(action, digest, &conditions, &work);
        let world = world::World::new(self.store, action, run, &work)?;
        if scratch.is_some() {
            world.lay_out(&additions)?;
        }
        let mut request = world.request(
            &additions,
            &Limits::default(),
            &conditions,
            self.hermeticity,
        )?;
        (request.limits.wall, request.limits.silence) = (None, None);
        request.limits.log_bytes = None;
        let script = script(&before, command);
        for node in &mut request.nodes {
            if let Node::File { path, content, .. } = node
                && path == SCRIPT
            {
                *content = script.clone().into_bytes();
            }
        }
        request.command = match command {
            Some(_) => vec![BASH.to_owned(), SCRIPT.to_owned()],
            None => [BASH, "--noprofile", "--init-file", SCRIPT, "-i"]
                .map(str::to_owned)
                .to_vec(),
        };
        Ok(Opened {
            request,
            _work: scratch,
        })
    }

    fn working_directory(
        &self,
        action: &Action,
        start: Start<'_>,
    ) -> Result<(PathBuf, Option<Scratch>), BuildError> {
        if start == Start::Failed {
            let kept = self.store.failed_work(action.digest());
            let kept = kept.ok_or_else(|| BuildError::NotKept(action.name.to_string()))?;
            return Ok((kept, None));
        }
        let scratch = self.store.scratch()?;
        Ok((Path::to_owned(scratch.path()), Some(scratch)))
    }
}

const BASH: &str = "/bin/bash";

/// Where every build finds its script.
const SCRIPT: &str = "/kiln/script";

/// Returns what bash reads: the build's own beginning, and then the person's turn, in
/// which a failure is no end.
fn script(before: &str, command: Option<&str>) -> String {
    let command = command.unwrap_or_default();
    format!("{before}set +eu\nset +o pipefail\n{command}\n")
}
