//! Questions about reachability over references.
//!
//! In: a reference graph (`store` reads it). Out: shortest paths, trees, sizes. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::hash::StorePath;

/// What names what, for every object of a closure.
pub type Graph<R> = BTreeMap<StorePath, Vec<R>>;

/// A reference, seen as an edge of the graph.
pub trait Edge {
    /// Returns the object that is named.
    fn target(&self) -> &StorePath;
}

/// Returns a shortest chain of references from one object to another, or `None` when
/// there is none. Of several shortest chains, the first by the order of edges is taken.
pub fn shortest_path<'a, R: Edge>(
    graph: &'a Graph<R>,
    from: &StorePath,
    to: &StorePath,
) -> Option<Vec<(&'a StorePath, &'a R)>> {
    let mut reached: BTreeMap<&StorePath, Option<(&'a StorePath, &'a R)>> = BTreeMap::new();
    let (start, _) = graph.get_key_value(from)?;
    reached.insert(start, None);
    let mut pending = VecDeque::from([start]);
    while let Some(at) = pending.pop_front() {
        if at == to {
            break;
        }
        for edge in graph.get(at).into_iter().flatten() {
            if !reached.contains_key(edge.target())
                && let Some((target, _)) = graph.get_key_value(edge.target())
            {
                reached.insert(target, Some((at, edge)));
                pending.push_back(target);
            }
        }
    }
    let mut chain = Vec::new();
    let mut at = graph.get_key_value(to).map(|(path, _)| path)?;
    while let Some((before, edge)) = *reached.get(at)? {
        chain.push((before, edge));
        at = before;
    }
    chain.reverse();
    Some(chain)
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
pub fn tree<'a, R: Edge>(graph: &'a Graph<R>, start: &'a StorePath) -> Vec<TreeLine<'a>> {
    let mut lines = Vec::new();
    let mut drawn = BTreeSet::new();
    let mut pending: Vec<(Vec<bool>, &'a StorePath)> = vec![(Vec::new(), start)];
    while let Some((more, path)) = pending.pop() {
        let children: BTreeSet<&'a StorePath> = graph
            .get(path)
            .into_iter()
            .flatten()
            .map(Edge::target)
            .collect();
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

    struct To(StorePath);

    impl Edge for To {
        fn target(&self) -> &StorePath {
            &self.0
        }
    }

    fn object(byte: u8) -> StorePath {
        StorePath::new(ObjectDigest::from_bytes([byte; 32]), "x".parse().unwrap())
    }

    fn graph(edges: &[(u8, &[u8])]) -> Graph<To> {
        edges
            .iter()
            .map(|(from, to)| (object(*from), to.iter().map(|to| To(object(*to))).collect()))
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
        let via: Vec<&StorePath> = chain.iter().map(|(from, _)| *from).collect();
        assert_eq!(via, [&object(1), &object(3)]);
        assert_eq!(
            shortest_path(&graph, &object(1), &object(1)).unwrap().len(),
            0
        );
        assert!(shortest_path(&graph, &object(1), &object(6)).is_none());
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
