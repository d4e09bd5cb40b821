//! `kiln store verify`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::hints;
use crate::cli::progress::Progress;
use crate::cli::report::{Answer, Failure, Problem};
use crate::cli::session::Session;
use crate::hash::StorePath;
use crate::realise::{RepairError, Repaired};
use crate::store::ObjectInfo;
use crate::store::verify::Damage;

/// What is not as it should be.
struct Found {
    objects: Vec<ObjectInfo>,
    damage: Vec<Damage>,
    /// Damaged files of the pool and of the cached layers, and what is wrong.
    blobs: Vec<(PathBuf, String)>,
    layers: Vec<(PathBuf, String)>,
    /// What is wrong with the database.
    database: Vec<String>,
    unrecorded: Vec<String>,
    /// Files of the pool that nothing uses.
    unused: usize,
}

impl Found {
    fn is_sound(&self) -> bool {
        self.problems() == 0
    }

    fn problems(&self) -> usize {
        self.damage.len()
            + self.blobs.len()
            + self.layers.len()
            + self.database.len()
            + self.unrecorded.len()
    }

    fn damaged_objects(&self) -> BTreeSet<&StorePath> {
        self.damage.iter().map(|damage| &damage.object).collect()
    }
}

/// What became of each damaged object.
type Mended = BTreeMap<StorePath, Result<Repaired, RepairError>>;

pub(super) fn run(session: &Session, repair: bool) -> Result<Answer, Failure> {
    let found = look(session)?;
    if !repair || found.is_sound() {
        report(session, &found, &Mended::new(), found.is_sound());
        if !found.is_sound() {
            session
                .output
                .tell("`kiln store verify --repair` mends what can be mended");
        }
        return Ok(answer(found.is_sound()));
    }
    let mended = mend(session, &found)?;
    let left = look(session)?;
    report(session, &found, &mended, left.is_sound());
    if !session.output.json && !left.is_sound() {
        let objects = left.damaged_objects().len();
        session.output.tell(&format!(
            "{} problems are left, in {objects} objects",
            left.problems()
        ));
        if objects > 0 {
            session.output.tell(
                "what was added by hand can be added again once `kiln store gc` has removed it",
            );
        }
    }
    Ok(answer(left.is_sound()))
}

fn answer(sound: bool) -> Answer {
    if sound { Answer::Yes } else { Answer::No }
}

fn look(session: &Session) -> Result<Found, Failure> {
    let failed = |error| hints::store(&error);
    let store = &session.store;
    let objects = store.objects().map_err(failed)?;
    let total: u64 = objects.iter().map(|object| object.size_bytes).sum();
    let bar = session.output.bytes_bar(total, "hashed");
    let pool = store.verify_pool(&|count| bar.inc(count)).map_err(failed)?;
    bar.finish_and_clear();
    let bar = session.output.bar(objects.len() as u64, "objects compared");
    let damage = store
        .verify(&objects, &pool, &|| bar.inc(1))
        .map_err(failed)?;
    bar.finish_and_clear();
    Ok(Found {
        objects,
        damage,
        blobs: pool.damaged,
        layers: store.verify_layers().map_err(failed)?,
        database: store.verify_database().map_err(failed)?,
        unrecorded: store.unrecorded().map_err(failed)?,
        unused: pool.unused.len(),
    })
}

fn mend(session: &Session, found: &Found) -> Result<Mended, Failure> {
    let failed = |error| hints::store(&error);
    let store = &session.store;
    // A layer is made again when it is needed, a file of the pool with its object.
    let damaged = found.blobs.iter().chain(&found.layers);
    let files: Vec<PathBuf> = damaged.map(|(path, _)| path.clone()).collect();
    store.remove_files(&files).map_err(failed)?;
    store.remove_unrecorded(&found.unrecorded).map_err(failed)?;
    // What is needed is mended before what needs it: it was added before.
    let damaged = found.damaged_objects();
    let order = store.census().map_err(failed)?.objects;
    let progress = Progress::new(session.output);
    let realiser = session.realiser(&progress);
    let mut mended = Mended::new();
    for known in order.iter().filter(|known| damaged.contains(&known.path)) {
        if session.cancel.is_cancelled() {
            return Err(Problem::new("interrupted")
                .because("what was mended so far is mended")
                .hint("run `kiln store verify --repair` again to go on")
                .into());
        }
        let result = realiser.repair(&known.path, &|label| {
            session.output.tell(&format!("making {label} again"));
        });
        mended.insert(known.path.clone(), result);
    }
    progress.finish();
    Ok(mended)
}

fn outcome(result: &Result<Repaired, RepairError>) -> String {
    match result {
        Ok(Repaired::Restored) => "restored from sound copies".to_owned(),
        Ok(Repaired::MadeAgain) => "made again".to_owned(),
        Err(error) => {
            let problem = Problem::from_error(error);
            let mut text = format!("not repaired: {}", problem.message);
            for cause in &problem.because {
                text.push_str(&format!(": {cause}"));
            }
            text
        }
    }
}

fn report(session: &Session, found: &Found, mended: &Mended, sound: bool) {
    if session.output.json {
        session.output.document(&document(found, mended, sound));
        return;
    }
    let mut lines = Vec::new();
    for damage in &found.damage {
        let at = if damage.path.is_empty() {
            String::new()
        } else {
            format!("/{}", damage.path)
        };
        lines.push(format!("{}{at} {}", damage.object, damage.problem));
    }
    for (path, problem) in found.blobs.iter().chain(&found.layers) {
        lines.push(format!("{} {problem}", path.display()));
    }
    for problem in &found.database {
        lines.push(format!("kiln.db: {problem}"));
    }
    for name in &found.unrecorded {
        lines.push(format!(
            "{name} is not recorded: unfinished work, or put there by hand"
        ));
    }
    for (path, result) in mended {
        lines.push(format!("{path}: {}", outcome(result)));
    }
    session.output.lines(lines);
    if found.unused > 0 {
        session.output.tell(&format!(
            "{} files of the pool are used by no object; `kiln store gc` removes them",
            found.unused
        ));
    }
    session.output.tell(&format!(
        "{} objects, {} problems",
        found.objects.len(),
        found.problems()
    ));
}

fn document(found: &Found, mended: &Mended, sound: bool) -> Value {
    let damage: Vec<Value> = found
        .damage
        .iter()
        .map(|damage| {
            json!({
                "object": damage.object.to_string(),
                "path": damage.path,
                "problem": damage.problem,
            })
        })
        .collect();
    let files = |damaged: &[(PathBuf, String)]| -> Vec<Value> {
        damaged
            .iter()
            .map(|(path, problem)| json!({ "file": path.to_string_lossy(), "problem": problem }))
            .collect()
    };
    let repaired: Vec<Value> = mended
        .iter()
        .map(|(path, result)| {
            json!({
                "object": path.to_string(),
                "repaired": result.is_ok(),
                "how": outcome(result),
            })
        })
        .collect();
    json!({
        "objects": found.objects.len(),
        "damage": damage,
        "pool": files(&found.blobs),
        "layers": files(&found.layers),
        "database": found.database,
        "unrecorded": found.unrecorded,
        "unused_files": found.unused,
        "repaired": repaired,
        "sound": sound,
    })
}
