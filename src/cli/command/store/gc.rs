//! `kiln store gc`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::cli::arguments::GcArguments;
use crate::cli::hints;
use crate::cli::progress::bytes;
use crate::cli::report::{Answer, Failure, Problem};
use crate::cli::session::Session;
use crate::gc::{self, Choice, Kept, Limits};

pub(super) fn run(session: &Session, arguments: &GcArguments) -> Result<Answer, Failure> {
    let failed = |error| hints::store(&error);
    let store = &session.store;
    let _alone = store.collect_alone().map_err(failed)?.ok_or_else(|| {
        Problem::new("another process collects garbage in this store")
            .hint("wait until it is done; the store can be used meanwhile")
    })?;
    let limits = Limits {
        unused_for: arguments.unused_for,
        max_bytes: arguments.max_size,
    };
    let choice = gc::choose_in(store, limits).map_err(failed)?;
    if arguments.dry_run {
        tell(session, &choice);
        return Ok(Answer::Yes);
    }
    let bar = session
        .output
        .bar(choice.victims.len() as u64, "objects removed");
    let unrecorded = store.unrecorded().map_err(failed)?;
    store.remove_unrecorded(&unrecorded).map_err(failed)?;
    let swept = gc::collect(store, &choice, &mut |done| {
        bar.set_position(done as u64);
        !session.cancel.is_cancelled()
    })
    .map_err(failed)?;
    bar.finish_and_clear();
    // None of them holds any more once something was removed.
    store.forget_evaluations().map_err(failed)?;
    store.forget_all_failed().map_err(failed)?;
    if session.output.json {
        session.output.document(&json!({
            "objects": swept.objects,
            "files": swept.files,
            "bytes": swept.file_bytes,
        }));
    } else {
        session.output.tell(&format!(
            "removed {} objects and {} files: {} are free again",
            swept.objects,
            swept.files,
            bytes(swept.file_bytes)
        ));
    }
    if session.cancel.is_cancelled() {
        return Err(Problem::new("interrupted")
            .because("what was removed so far stays removed, the rest is as it was")
            .hint("run `kiln store gc` again to go on")
            .into());
    }
    Ok(Answer::Yes)
}

fn reason(kept: &Kept) -> String {
    match kept {
        Kept::Root(root) => format!("the root `{}` needs it", root.text()),
        Kept::Leased => "a running kiln uses it".to_owned(),
        Kept::Young => "it was used lately".to_owned(),
        Kept::Fits => "the store is small enough".to_owned(),
    }
}

fn tell(session: &Session, choice: &Choice) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    if session.output.json {
        let removed: Vec<Value> = choice
            .victims
            .iter()
            .map(|(path, used_at)| json!({ "path": path.to_string(), "used_at": used_at }))
            .collect();
        let kept: Vec<Value> = choice
            .kept
            .iter()
            .map(|(path, kept)| json!({ "path": path.to_string(), "because": reason(kept) }))
            .collect();
        session
            .output
            .document(&json!({ "removed": removed, "kept": kept }));
        return;
    }
    let victims = choice.victims.iter().map(|(path, used_at)| {
        let used = Duration::from_secs(u64::try_from(*used_at).unwrap_or(0));
        let age = in_words(now.saturating_sub(used));
        format!("remove {path}: nothing keeps it, last used {age} ago")
    });
    let kept = choice
        .kept
        .iter()
        .map(|(path, kept)| format!("keep {path}: {}", reason(kept)));
    session.output.lines(victims.chain(kept));
}

/// Returns an age in its largest unit.
fn in_words(age: Duration) -> String {
    let seconds = age.as_secs();
    for (unit, length) in [("d", 86400), ("h", 3600), ("m", 60)] {
        if seconds >= length {
            return format!("{}{unit}", seconds / length);
        }
    }
    format!("{seconds}s")
}
