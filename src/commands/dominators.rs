//! The size that each item is responsible for: its own, that of its closure, and that of the items which no
//! other item needs.
//!
//! Items and their references are a graph. Its entry points are the items that no other item refers to and,
//! where items refer to each other in a circle that no item outside refers to, all items of this circle. An
//! item dominates another one if every path from an entry point to the other leads through it; without the
//! item, everything that it dominates would disappear too. The children of an item in the dominator tree are
//! the items that it alone brings.

use petgraph::algo::dominators::{Dominators, simple_fast};
use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, DfsPostOrder};

/// The graph of items, by number, with their sizes in bytes, and its dominator tree.
#[derive(Debug)]
pub struct ItemGraph {
    references: DiGraph<u64, ()>,
    /// Its root is an artificial node, which leads to all entry points.
    tree: Dominators<NodeIndex>,
    retained: Vec<u64>,
}

impl ItemGraph {
    /// Builds the dominator tree. `references` has the numbers of the items that each item refers to, which may
    /// include itself. Numbers that do not belong to an item are ignored. Takes quadratic time in the worst case; for
    /// the closures of real stores it is close to linear.
    pub fn new(sizes: Vec<u64>, references: &[Vec<usize>]) -> Self {
        let count = sizes.len();
        let mut graph = DiGraph::with_capacity(count + 1, references.iter().map(Vec::len).sum());
        for &size in &sizes {
            graph.add_node(size);
        }
        for (item, referred) in references.iter().enumerate().take(count) {
            for &other in referred.iter().filter(|&&other| other < count && other != item) {
                graph.add_edge(NodeIndex::new(item), NodeIndex::new(other), ());
            }
        }
        let components = kosaraju_scc(&graph);
        let mut component_of = vec![0; count];
        for (number, component) in components.iter().enumerate() {
            component.iter().for_each(|item| component_of[item.index()] = number);
        }
        let mut is_source = vec![true; components.len()];
        for edge in graph.raw_edges() {
            let [from, to] = [edge.source(), edge.target()].map(|item| component_of[item.index()]);
            is_source[to] &= from == to;
        }
        let root = graph.add_node(0);
        for item in (0..count).filter(|&item| is_source[component_of[item]]) {
            graph.add_edge(root, NodeIndex::new(item), ());
        }
        let tree = simple_fast(&graph, root);
        let mut retained = sizes;
        retained.push(0);
        // A depth-first search leaves an item before it leaves the dominator of the item.
        let mut leaves_first = DfsPostOrder::new(&graph, root);
        while let Some(item) = leaves_first.next(&graph) {
            if let Some(above) = tree.immediate_dominator(item) {
                let sum = retained[above.index()].saturating_add(retained[item.index()]);
                retained[above.index()] = sum;
            }
        }
        graph.remove_node(root);
        ItemGraph { references: graph, tree, retained }
    }

    /// Returns the size of an item and of everything that it alone brings.
    pub fn retained(&self, item: usize) -> u64 {
        self.retained[item]
    }

    /// Returns the immediate dominator: the nearest other item that every path to this one leads through.
    /// `None` for an entry point, and for an item without a common dominator of all paths to it.
    pub fn dominator(&self, item: usize) -> Option<usize> {
        let above = self.tree.immediate_dominator(NodeIndex::new(item))?;
        (above != self.tree.root()).then(|| above.index())
    }

    /// Returns, for each of `items`, the size of its closure: its own and that of all items that it refers to,
    /// directly or indirectly.
    pub fn closures(&self, items: &[usize]) -> Vec<u64> {
        let of = |&item: &usize| {
            let mut closure = Dfs::new(&self.references, NodeIndex::new(item));
            let mut sum = 0u64;
            while let Some(item) = closure.next(&self.references) {
                sum = sum.saturating_add(self.references[item]);
            }
            sum
        };
        items.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All items that a walk from `starts` reaches if it does not enter `without`.
    fn reached(references: &[Vec<usize>], starts: &[usize], without: Option<usize>) -> Vec<bool> {
        let mut seen = vec![false; references.len()];
        let mut pending = starts.to_vec();
        while let Some(item) = pending.pop() {
            if Some(item) != without && !std::mem::replace(&mut seen[item], true) {
                pending.extend(&references[item]);
            }
        }
        seen
    }

    /// Entry points by their definition: an item that is on a circle with every item that leads to it.
    fn entered(references: &[Vec<usize>]) -> Vec<usize> {
        let count = references.len();
        let below: Vec<_> = (0..count).map(|item| reached(references, &[item], None)).collect();
        let closed =
            |item: &usize| (0..count).all(|other| !below[other][*item] || below[*item][other]);
        (0..count).filter(closed).collect()
    }

    fn sum(sizes: &[u64], of: &[bool]) -> u64 {
        sizes.iter().zip(of).filter(|(_, taken)| **taken).map(|(size, _)| size).sum()
    }

    fn graphs() -> impl Strategy<Value = (Vec<u64>, Vec<Vec<usize>>)> {
        (1usize..14).prop_flat_map(|count| {
            let sizes = proptest::collection::vec(0u64..1000, count);
            // Some graphs have circles, and some are mostly trees.
            let edges =
                proptest::collection::vec((0..count, 0..count, any::<bool>()), 0..3 * count);
            (sizes, edges).prop_map(move |(sizes, edges)| {
                let mut references = vec![Vec::new(); count];
                for (from, to, any_way) in edges {
                    let (from, to) =
                        if any_way { (from, to) } else { (from.min(to), from.max(to)) };
                    references[from].push(to);
                }
                (sizes, references)
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn retained_size_equals_the_size_freed_by_deletion((sizes, references) in graphs()) {
            let graph = ItemGraph::new(sizes.clone(), &references);
            let starts = entered(&references);
            let every: Vec<_> = (0..sizes.len()).collect();
            let closures = graph.closures(&every);
            let all = reached(&references, &starts, None);
            prop_assert!(all.iter().all(|reached| *reached), "nothing is left out");
            let gone: Vec<Vec<bool>> = (0..sizes.len())
                .map(|item| reached(&references, &starts, Some(item)).iter().map(|left| !left).collect())
                .collect();
            for item in 0..sizes.len() {
                prop_assert_eq!(graph.retained(item), sum(&sizes, &gone[item]));
                prop_assert_eq!(closures[item], sum(&sizes, &reached(&references, &[item], None)));
                // The immediate dominator is the dominator of this item that all its other dominators dominate.
                let with: Vec<_> = (0..sizes.len()).filter(|&o| o != item && gone[o][item]).collect();
                let nearest = with.iter().copied().find(|&o| with.iter().all(|&p| p == o || gone[p][o]));
                prop_assert_eq!(graph.dominator(item), nearest);
            }
        }
    }

    #[test]
    fn deep_and_wide_graphs_are_handled() {
        // A chain of items whose first and whose last item both refer to further items: a recursive algorithm
        // overflows the stack.
        let (half, wide) = (100_000, 100);
        let mut references: Vec<Vec<usize>> = (0..half).map(|item| vec![item + 1]).collect();
        references[half - 1] = (half..half + wide).collect();
        references[0].extend(half..half + wide);
        references.resize(half + wide, Vec::new());
        let graph = ItemGraph::new(vec![1; half + wide], &references);
        assert_eq!(graph.retained(0), (half + wide) as u64);
        assert_eq!(graph.retained(1), half as u64 - 1);
        assert_eq!(graph.dominator(half + wide - 1), Some(0));
        assert_eq!(graph.closures(&[0, 1]), [(half + wide) as u64, (half + wide) as u64 - 1]);

        // As many circles of several items as possible, and one circle of all items.
        let pairs: Vec<_> = (0..2 * half).map(|item| vec![item ^ 1]).collect();
        let graph = ItemGraph::new(vec![1; 2 * half], &pairs);
        assert!(
            (0..2 * half).all(|item| graph.retained(item) == 1 && graph.dominator(item).is_none())
        );
        let circle: Vec<_> = (0..half).map(|item| vec![(item + 1) % half]).collect();
        let graph = ItemGraph::new(vec![1; half], &circle);
        assert!((0..half).all(|item| graph.dominator(item).is_none()));
    }

    #[test]
    fn sizes_saturate_at_u64_max() {
        let graph = ItemGraph::new(vec![u64::MAX, u64::MAX], &[vec![1], vec![]]);
        assert_eq!((graph.retained(0), graph.closures(&[0])), (u64::MAX, vec![u64::MAX]));
    }
}
