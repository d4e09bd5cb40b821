//! Questions about reachability over references.
//!
//! In: a reference graph (`store` reads it). Out: shortest paths, trees, sizes. Pure.

pub mod drawing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::hash::{RelPath, StorePath};

/// A place in an object that names another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The object that is named.
    pub target: StorePath,
    /// The file that names it.
    pub file: RelPath,
    /// Offset of the first such place in the file.
    pub offset: u64,
}

/// What names what, for every object of a closure; each list is sorted.
pub type Graph = BTreeMap<StorePath, Vec<StorePath>>;

/// Returns the objects of a shortest chain of references, both ends included, or `None`
/// when there is none. Of several shortest chains, the first by the order of paths.
pub fn shortest_path<'a>(
    graph: &'a Graph,
    from: &StorePath,
    to: &StorePath,
) -> Option<Vec<&'a StorePath>> {
    let mut reached: BTreeMap<&StorePath, Option<&'a StorePath>> = BTreeMap::new();
    let (start, _) = graph.get_key_value(from)?;
    reached.insert(start, None);
    let mut pending = VecDeque::from([start]);
    while let Some(at) = pending.pop_front() {
        if at == to {
            break;
        }
        for target in graph.get(at).into_iter().flatten() {
            if !reached.contains_key(target)
                && let Some((target, _)) = graph.get_key_value(target)
            {
                reached.insert(target, Some(at));
                pending.push_back(target);
            }
        }
    }
    let mut chain = vec![graph.get_key_value(to).map(|(path, _)| path)?];
    while let Some(before) = *reached.get(chain.last()?)? {
        chain.push(before);
    }
    chain.reverse();
    Some(chain)
}

/// Returns the objects of a graph, each after all that it names: of those whose names have
/// all come, the first by the order of paths is next. What is not in the graph is left out.
pub fn in_order(graph: &Graph) -> Vec<&StorePath> {
    let mut missing: BTreeMap<&StorePath, usize> = BTreeMap::new();
    let mut named_by: BTreeMap<&StorePath, Vec<&StorePath>> = BTreeMap::new();
    for (path, targets) in graph {
        let targets: BTreeSet<&StorePath> = targets
            .iter()
            .filter(|target| graph.contains_key(*target))
            .collect();
        missing.insert(path, targets.len());
        for target in targets {
            named_by.entry(target).or_default().push(path);
        }
    }
    let mut ready: BTreeSet<&StorePath> = missing
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(path, _)| *path)
        .collect();
    let mut order = Vec::new();
    while let Some(path) = ready.pop_first() {
        order.push(path);
        for user in named_by.get(path).into_iter().flatten() {
            if let Some(count) = missing.get_mut(user) {
                *count -= 1;
                if *count == 0 {
                    ready.insert(user);
                }
            }
        }
    }
    order
}

/// One line of a closure drawn as a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeLine<'a> {
    /// For each level above: whether more siblings follow there. The last is this line's.
    pub more: Vec<bool>,
    /// The object.
    pub path: &'a StorePath,
    /// Whether it was drawn with all below it before, so that it is not repeated.
    pub repeated: bool,
}

/// Returns a closure as a tree in drawing order; each object's subtree stands once.
pub fn tree<'a>(graph: &'a Graph, start: &'a StorePath) -> Vec<TreeLine<'a>> {
    let mut lines = Vec::new();
    let mut drawn = BTreeSet::new();
    let mut pending: Vec<(Vec<bool>, &'a StorePath)> = vec![(Vec::new(), start)];
    while let Some((more, path)) = pending.pop() {
        let children: BTreeSet<&'a StorePath> = graph.get(path).into_iter().flatten().collect();
        let repeated = !drawn.insert(path) && !children.is_empty();
        if !repeated {
            for (index, child) in children.iter().rev().enumerate() {
                let mut below = more.clone();
                below.push(index > 0);
                pending.push((below, child));
            }
        }
        lines.push(TreeLine {
            more,
            path,
            repeated,
        });
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::ObjectDigest;

    fn object(byte: u8) -> StorePath {
        StorePath::new(ObjectDigest::from_bytes([byte; 32]), "x".parse().unwrap())
    }

    fn graph(edges: &[(u8, &[u8])]) -> Graph {
        edges
            .iter()
            .map(|(from, to)| (object(*from), to.iter().map(|to| object(*to)).collect()))
            .collect()
    }

    #[test]
    fn the_shortest_of_several_ways() {
        let graph = graph(&[
            (1, &[2, 3]),
            (2, &[4]),
            (3, &[5]),
            (4, &[5]),
            (5, &[]),
            (6, &[]),
        ]);
        let chain = shortest_path(&graph, &object(1), &object(5)).unwrap();
        assert_eq!(chain, [&object(1), &object(3), &object(5)]);
        assert_eq!(
            shortest_path(&graph, &object(1), &object(1)).unwrap(),
            [&object(1)]
        );
        assert!(shortest_path(&graph, &object(1), &object(6)).is_none());
    }

    #[test]
    fn what_is_named_comes_first_and_otherwise_the_least_path() {
        let graph = graph(&[(1, &[4, 3]), (2, &[]), (3, &[4]), (4, &[9]), (5, &[2, 2])]);
        let (in_order, bytes) = (in_order(&graph), [2, 4, 3, 1, 5].map(object));
        assert_eq!(in_order, bytes.iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_tree_draws_each_subtree_once() {
        let graph = graph(&[(1, &[2, 3]), (2, &[3]), (3, &[4]), (4, &[])]);
        let start = object(1);
        let lines = tree(&graph, &start);
        let drawn: Vec<(usize, bool)> = lines
            .iter()
            .map(|line| (line.more.len(), line.repeated))
            .collect();
        assert_eq!(
            drawn,
            [(0, false), (1, false), (2, false), (3, false), (1, true)]
        );
    }
}
