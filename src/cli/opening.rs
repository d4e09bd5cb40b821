//! What is said while a store is opened that was not closed well.

use super::progress::bytes as shown;
use super::report::Output;
use crate::store::Opening;

/// Tells what takes a while, and what was lost.
pub(super) fn tell(output: &Output, event: Opening<'_>) {
    match event {
        Opening::Waiting => {
            output
                .tell("waiting for another kiln that checks the store, since the machine stopped");
        }
        // What was not recorded is made again without further words.
        Opening::Checking { objects: 0, .. } => {}
        Opening::Checking { objects, bytes } => output.tell(&format!(
            "the machine stopped before all was on the disk: hashing {objects} objects ({}) again",
            shown(bytes)
        )),
        Opening::Checked(recovered) => {
            for path in &recovered.restored {
                output.tell(&format!("restored {path} from sound copies"));
            }
            for path in &recovered.forgotten {
                output.tell(&format!(
                    "forgot {path}: its content is lost; build or add it again"
                ));
            }
            for root in &recovered.roots {
                output.tell(&format!("forgot the root `{root}`, which kept it"));
            }
        }
    }
}
