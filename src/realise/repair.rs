//! Making damaged objects whole: from the pool, or by doing again what made them.

use super::perform::{Work, make};
use super::{Event, RealiseError, Realiser};
use crate::action::{Action, ActionKind};
use crate::derivation::Limits;
use crate::hash::{ActionDigest, PackageName, StorePath};

/// How an object was made whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repaired {
    /// Sound copies of its files were there.
    Restored,
    /// It was fetched, unpacked or built again, and gave the same bytes.
    MadeAgain,
}

/// Why an object is still damaged.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Nothing is recorded that made it.
    #[error("nothing is recorded that makes it: it was added by hand, or is a working tree")]
    NoAction,
    /// What made it cannot be read.
    #[error("the action that made it cannot be read")]
    Action(#[from] crate::action::ReadError),
    /// Doing it again failed.
    #[error(transparent)]
    Failed(#[from] RealiseError),
    /// It gave other bytes this time.
    #[error("made again, it is `{0}`: the build is not reproducible")]
    Different(StorePath),
}

impl Realiser<'_> {
    /// Makes one damaged object whole. Damaged files must be out of the pool, and what
    /// the object is made from must be whole.
    ///
    /// # Errors
    /// [`RepairError`]; the object is as it was.
    pub fn repair(&self, path: &StorePath, making: &dyn Fn(&str)) -> Result<Repaired, RepairError> {
        if self.store.restore(path).map_err(RealiseError::from)? {
            return Ok(Repaired::Restored);
        }
        let producers = self.store.producers(path).map_err(RealiseError::from)?;
        let mut last = RepairError::NoAction;
        for producer in producers {
            match self.make_again(producer.action, path, making) {
                Ok(()) => return Ok(Repaired::MadeAgain),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn make_again(
        &self,
        digest: ActionDigest,
        path: &StorePath,
        making: &dyn Fn(&str),
    ) -> Result<(), RepairError> {
        let json = self.store.action_json(digest).map_err(RealiseError::from)?;
        let action = Action::from_json(&json)?;
        let addresses = self.store.addresses(digest).map_err(RealiseError::from)?;
        let package: PackageName = action
            .name
            .as_str()
            .parse()
            .or_else(|_| "object".parse())
            .map_err(|_| RepairError::NoAction)?;
        let label = match &action.kind {
            ActionKind::Fetch { file, .. } => file.to_string(),
            _ => action.name.to_string(),
        };
        making(&label);
        let work = Work {
            action: &action,
            digest,
            label: &label,
            package: &package,
            addresses: &addresses,
            limits: &Limits::default(),
        };
        let made = make(self, &work, &|_: Event<'_>| {})?;
        let found = made.plans.values().find(|plan| plan.path == *path);
        match found {
            Some(plan) => Ok(self.store.replace(plan).map_err(RealiseError::from)?),
            None => Err(made
                .plans
                .into_values()
                .next()
                .map_or(RepairError::NoAction, |plan| {
                    RepairError::Different(plan.path)
                })),
        }
    }
}
