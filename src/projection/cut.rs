//! Cutting an image into layers.
//!
//! Each object is a layer of its own as long as the budget allows: then the same object
//! gives the same layer in every image. Beyond it, neighbours in the order of how often
//! they change are joined, those first that cost least: whoever has one of two joined
//! objects and needs the other's new version gets both. Everything that counts is known
//! from the closure, so that the cut is the same on every machine.

use std::collections::{BTreeMap, BTreeSet};

use super::Placed;
use crate::closure::Graph;
use crate::hash::{RelPath, StorePath};

/// Entries that stay together.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    /// What the image's history calls it.
    pub titles: Vec<String>,
    /// The objects that it comes from.
    pub objects: BTreeSet<StorePath>,
    /// What it holds.
    pub entries: BTreeMap<RelPath, Placed>,
}

impl Group {
    fn size_bytes(&self) -> u128 {
        self.entries
            .values()
            .map(|placed| u128::from(placed.size_bytes()))
            .sum()
    }

    fn join(&mut self, other: Self) {
        self.titles.extend(other.titles);
        self.objects.extend(other.objects);
        for (path, placed) in other.entries {
            let there = self.entries.get(&path);
            // A plain directory above others does not replace one that is more.
            if there.is_none() || placed.object.is_some() {
                self.entries.insert(path, placed);
            }
        }
    }

    /// Returns its title: up to three names, and how many more there are.
    pub fn title(&self) -> String {
        const SHOWN: usize = 3;
        let names: Vec<&str> = self.titles.iter().map(String::as_str).collect();
        match names.len().checked_sub(SHOWN + 1) {
            None => names.join(", "),
            Some(more) => {
                let shown = names.get(..SHOWN).unwrap_or_default().join(", ");
                format!("{shown} and {} more", more + 1)
            }
        }
    }
}

/// Groups that a plan file puts together: a title, and the objects.
pub type Planned = Vec<(String, BTreeSet<StorePath>)>;

/// Joins what a plan file puts together, in its order; the rest follows.
pub(super) fn by_plan(groups: Vec<Group>, plan: &Planned) -> (Vec<Group>, Vec<Group>) {
    let mut planned: Vec<Group> = plan
        .iter()
        .map(|(title, _)| Group {
            titles: vec![title.clone()],
            ..Group::default()
        })
        .collect();
    let mut rest = Vec::new();
    for group in groups {
        let at = plan
            .iter()
            .position(|(_, objects)| !group.objects.is_empty() && group.objects.is_subset(objects));
        match at.and_then(|at| planned.get_mut(at)) {
            Some(layer) => layer.join(Group {
                titles: Vec::new(),
                ..group
            }),
            None => rest.push(group),
        }
    }
    planned.retain(|group| !group.entries.is_empty());
    (planned, rest)
}

/// Joins neighbours until there are no more than `budget`.
pub(super) fn under_budget(mut groups: Vec<Group>, budget: usize, graph: &Graph) -> Vec<Group> {
    let mut weights: Vec<Weight> = groups
        .iter()
        .map(|group| Weight {
            size: group.size_bytes(),
            changes: group
                .objects
                .iter()
                .map(|object| changes(graph, object))
                .sum::<u128>()
                .max(1),
        })
        .collect();
    while groups.len() > budget.max(1) {
        let cheapest = weights
            .windows(2)
            .enumerate()
            .min_by_key(|(_, pair)| cost(pair))
            .map(|(at, _)| at);
        let Some(at) = cheapest else {
            break;
        };
        let (other, weight) = (groups.remove(at + 1), weights.remove(at + 1));
        if let (Some(group), Some(joined)) = (groups.get_mut(at), weights.get_mut(at)) {
            group.join(other);
            joined.size += weight.size;
            joined.changes += weight.changes;
        }
    }
    groups
}

struct Weight {
    /// Bytes.
    size: u128,
    /// How often it changes: an object does so when anything that it refers to does, so
    /// the size of its closure is the measure.
    changes: u128,
}

/// Bytes that are sent needlessly when one of two joined groups changes.
fn cost(pair: &[Weight]) -> u128 {
    match pair {
        [one, two] => one.size * two.changes + two.size * one.changes,
        _ => u128::MAX,
    }
}

/// Returns the number of objects in an object's closure, itself included.
pub(super) fn changes(graph: &Graph, object: &StorePath) -> u128 {
    let mut seen = BTreeSet::from([object]);
    let mut pending = vec![object];
    while let Some(at) = pending.pop() {
        for target in graph.get(at).into_iter().flatten() {
            if seen.insert(target) {
                pending.push(target);
            }
        }
    }
    seen.len() as u128
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{BlobDigest, ObjectDigest};
    use crate::listing::Entry;

    fn object(number: u8) -> StorePath {
        let name = format!("o{number}").parse().unwrap();
        StorePath::new(ObjectDigest::from_bytes([number; 32]), name)
    }

    fn group(number: u8, size_bytes: u64) -> Group {
        let object = object(number);
        let placed = Placed {
            entry: Entry::File {
                digest: BlobDigest::of(&[number]),
                size_bytes,
                executable: false,
            },
            mode: 0o444,
            owner: (0, 0),
            object: Some(object.clone()),
        };
        Group {
            titles: vec![object.name().to_string()],
            objects: BTreeSet::from([object]),
            entries: BTreeMap::from([(format!("f{number}").parse().unwrap(), placed)]),
        }
    }

    fn titles(groups: &[Group]) -> Vec<String> {
        groups.iter().map(Group::title).collect()
    }

    #[test]
    fn the_cheapest_neighbours_are_joined() {
        let groups = vec![
            group(1, 1_000_000),
            group(2, 10),
            group(3, 20),
            group(4, 5_000_000),
        ];
        let graph = Graph::new();
        assert_eq!(under_budget(groups.clone(), 4, &graph).len(), 4);
        let three = under_budget(groups.clone(), 3, &graph);
        assert_eq!(titles(&three), ["o1", "o2, o3", "o4"]);
        let one = under_budget(groups, 1, &graph);
        assert_eq!(titles(&one), ["o1, o2, o3 and 1 more"]);
        assert_eq!(
            one.iter().map(|group| group.entries.len()).sum::<usize>(),
            4
        );
    }

    #[test]
    fn what_changes_often_stays_apart() {
        // The third stands on all others: joined with any, it takes that along each time.
        let groups = vec![group(1, 100), group(2, 100), group(3, 100)];
        let graph = Graph::from([(object(3), vec![object(1), object(2), object(4)])]);
        assert_eq!(titles(&under_budget(groups, 2, &graph)), ["o1, o2", "o3"]);
    }

    #[test]
    fn a_plan_comes_first() {
        let groups = vec![group(1, 1), group(2, 1), group(3, 1)];
        let plan = vec![("base".to_owned(), BTreeSet::from([object(3), object(1)]))];
        let (planned, rest) = by_plan(groups, &plan);
        assert_eq!(titles(&planned), ["base"]);
        assert_eq!(planned.first().map(|group| group.entries.len()), Some(2));
        assert_eq!(titles(&rest), ["o2"]);
    }
}
