//! Fills a store for the measurements: `objects STORE COUNT FILES`.
//!
//! Each object names up to three that were added before it, so that the last one, whose
//! path is printed, needs all of them. Half of an object's files have content of their
//! own, the others what many objects have.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use kiln::hash::StorePath;
use kiln::store::{ObjectPlan, Scratch, Store, plan_tree};

/// Objects that are registered at once.
const BATCH: usize = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, count, files] = arguments.as_slice() else {
        return Err("usage: objects STORE COUNT FILES".into());
    };
    let (count, files) = (count.parse()?, files.parse()?);
    let mut made: Vec<StorePath> = Vec::new();
    while made.len() < count {
        // A store that is opened anew leases nothing that was added before.
        let store = Store::open(Path::new(store))?;
        let scratch = store.scratch()?;
        let end = count.min(made.len() + BATCH);
        let mut plans = Vec::new();
        while made.len() < end {
            let plan = plan(&scratch, &made, count, files)?;
            made.push(plan.path.clone());
            plans.push(plan);
        }
        store.register(&plans, None)?;
    }
    if let Some(last) = made.last() {
        println!("{last}");
    }
    Ok(())
}

/// Writes the tree of the next object and plans it.
fn plan(
    scratch: &Scratch,
    made: &[StorePath],
    count: usize,
    files: usize,
) -> Result<ObjectPlan, Box<dyn Error>> {
    let number = made.len();
    let tree = scratch.path().join(number.to_string());
    fs::create_dir(&tree)?;
    let named: BTreeSet<StorePath> = named(number, count)
        .into_iter()
        .filter_map(|place| made.get(place).cloned())
        .collect();
    let mut names = format!("object {number}\n");
    for path in &named {
        writeln!(names, "{path}")?;
    }
    fs::write(tree.join("names"), names)?;
    for file in 1..files {
        let content = if file % 2 == 0 {
            format!("file {file} of object {number}\n")
        } else {
            format!("file {file} of many objects\n")
        };
        fs::write(tree.join(format!("file-{file}")), content)?;
    }
    Ok(plan_tree(
        &tree,
        &format!("object-{number}").parse()?,
        &named,
    )?)
}

/// Returns which objects one names, counted from the first that is added. Counted from
/// the last, number n names n + 1 and the two below it in a binary tree.
fn named(number: usize, count: usize) -> Vec<usize> {
    let from_last = count - 1 - number;
    [from_last + 1, 2 * from_last + 1, 2 * from_last + 2]
        .into_iter()
        .filter(|place| *place < count)
        .map(|place| count - 1 - place)
        .collect()
}
