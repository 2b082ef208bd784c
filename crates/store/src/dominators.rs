//! The size that each item is responsible for: its own, that of its closure, and that of the items which no
//! other item needs.
//!
//! Items and their references are a graph. Its entry points are the items that no other item refers to and,
//! where items refer to each other in a circle that no item outside refers to, all items of this circle. An
//! item dominates another one if every path from an entry point to the other leads through it; without the
//! item, everything that it dominates would disappear too. The children of an item in the dominator tree are
//! the items that it alone brings.
//!
//! The dominator tree is computed as in Lengauer and Tarjan, "A Fast Algorithm for Finding Dominators in a
//! Flowgraph" (1979), in the simple form: for n items and m references it takes time in the order of m log n,
//! whatever the graph.

/// The graph of items, by number, with their sizes in bytes.
#[derive(Debug)]
pub struct Blame {
    sizes: Vec<u64>,
    references: Edges,
    circles: Circles,
    entered: Vec<bool>,
    dominators: Vec<Option<usize>>,
    retained: Vec<u64>,
}

impl Blame {
    /// Builds the dominator tree. `references` has the numbers of the items that each item refers to, which may
    /// include itself. Numbers that do not belong to an item are ignored.
    pub fn new(sizes: Vec<u64>, references: &[Vec<usize>]) -> Self {
        let references = Edges::new(sizes.len(), references);
        let circles = Circles::new(&references);
        let entered = circles.entered(&references);
        let tree = Tree::new(&references, &references.turned(), &entered);
        let mut retained = sizes.clone();
        // From the leaves up: an item comes after its dominator.
        for &item in tree.order.iter().rev() {
            if let Some(above) = tree.dominators[item] {
                retained[above] = retained[above].saturating_add(retained[item]);
            }
        }
        Blame { sizes, references, circles, entered, dominators: tree.dominators, retained }
    }

    /// Returns the size of an item and of everything that it alone brings.
    pub fn retained(&self, item: usize) -> u64 {
        self.retained[item]
    }

    /// Returns the immediate dominator: the nearest other item that every path to this one leads through.
    /// `None` for an entry point, and for an item without a common dominator of all paths to it.
    pub fn dominator(&self, item: usize) -> Option<usize> {
        self.dominators[item]
    }

    /// Whether the item is an entry point of the graph.
    pub fn is_entered(&self, item: usize) -> bool {
        self.entered[item]
    }

    /// Returns, for each of `items`, the size of its closure: its own and that of all items that it refers to,
    /// directly or indirectly. Takes one pass over the graph for each 64 items.
    pub fn closures(&self, items: &[usize]) -> Vec<u64> {
        let of_chunk = |items: &[usize]| {
            // One bit for each of `items`: whether a circle is in its closure.
            let mut within = vec![0u64; self.circles.count];
            for (bit, &item) in items.iter().enumerate() {
                within[self.circles.of[item]] |= 1 << bit;
            }
            let mut sums = vec![0u64; items.len()];
            for &item in self.circles.order.iter().rev() {
                let mask = within[self.circles.of[item]];
                if mask == 0 {
                    continue;
                }
                for other in self.references.of(item) {
                    within[self.circles.of[other]] |= mask;
                }
                for (bit, sum) in sums.iter_mut().enumerate() {
                    if mask & (1 << bit) != 0 {
                        *sum = sum.saturating_add(self.sizes[item]);
                    }
                }
            }
            sums
        };
        items.chunks(64).flat_map(of_chunk).collect()
    }
}

/// Edges of the graph, in one allocation.
#[derive(Debug)]
struct Edges {
    /// Where the edges of each item begin in `ends`; the last number is where those of the last item end.
    starts: Vec<usize>,
    ends: Vec<u32>,
}

impl Edges {
    fn new(count: usize, lists: &[Vec<usize>]) -> Self {
        let mut edges = Edges { starts: vec![0], ends: Vec::new() };
        for item in 0..count {
            let listed = lists.get(item).into_iter().flatten();
            let others = listed.filter(|&&other| other < count && other != item);
            edges.ends.extend(others.filter_map(|&other| u32::try_from(other).ok()));
            edges.starts.push(edges.ends.len());
        }
        edges
    }

    fn count(&self) -> usize {
        self.starts.len() - 1
    }

    fn of(&self, item: usize) -> impl DoubleEndedIterator<Item = usize> {
        self.ends[self.starts[item]..self.starts[item + 1]].iter().map(|&other| other as usize)
    }

    /// Returns the edge of `item` with this number among the edges of `item`.
    fn nth(&self, item: usize, number: usize) -> Option<usize> {
        let at = self.starts[item] + number;
        (at < self.starts[item + 1]).then(|| self.ends[at] as usize)
    }

    /// Returns the graph with all edges reversed.
    fn turned(&self) -> Self {
        let mut starts = vec![0; self.count() + 1];
        self.ends.iter().for_each(|&other| starts[other as usize + 1] += 1);
        for item in 0..self.count() {
            starts[item + 1] += starts[item];
        }
        let (mut next, mut ends) = (starts.clone(), vec![0; self.ends.len()]);
        for item in 0..self.count() {
            for other in self.of(item) {
                ends[next[other]] = item as u32;
                next[other] += 1;
            }
        }
        Edges { starts, ends }
    }
}

/// Strongly connected components: items that refer to each other, directly or indirectly, are on one circle.
/// Most circles have one item. Computed as in Tarjan, "Depth-First Search and Linear Graph Algorithms" (1972).
#[derive(Debug)]
struct Circles {
    count: usize,
    /// The number of the circle that each item is on.
    of: Vec<usize>,
    /// All items, each one after the items that it refers to, except for those on its own circle.
    order: Vec<usize>,
}

impl Circles {
    fn new(references: &Edges) -> Self {
        const NONE: usize = usize::MAX;
        let items = references.count();
        let mut circles = Circles { count: 0, of: vec![NONE; items], order: Vec::new() };
        // When the search reached an item, and the earliest item that is known to be on its circle.
        let (mut met, mut earliest) = (vec![NONE; items], vec![NONE; items]);
        let (mut now, mut path, mut open) = (0, Vec::new(), Vec::new());
        for start in 0..items {
            if met[start] == NONE {
                path.push((start, 0));
            }
            while let Some((item, next)) = path.last_mut() {
                let item = *item;
                if *next == 0 {
                    (met[item], earliest[item]) = (now, now);
                    now += 1;
                    open.push(item);
                }
                let other = references.nth(item, *next);
                *next += 1;
                match other {
                    Some(other) if met[other] == NONE => path.push((other, 0)),
                    Some(other) if circles.of[other] == NONE => {
                        earliest[item] = earliest[item].min(met[other]);
                    }
                    Some(_) => {}
                    None => {
                        path.pop();
                        if let Some((above, _)) = path.last() {
                            earliest[*above] = earliest[*above].min(earliest[item]);
                        }
                        if earliest[item] == met[item] {
                            circles.close(item, &mut open);
                        }
                    }
                }
            }
        }
        circles
    }

    /// Makes one circle of all open items that the search reached since `first`.
    fn close(&mut self, first: usize, open: &mut Vec<usize>) {
        while let Some(item) = open.pop() {
            self.of[item] = self.count;
            self.order.push(item);
            if item == first {
                break;
            }
        }
        self.count += 1;
    }

    /// Returns, for each item, whether it is on a circle that no item outside refers to.
    fn entered(&self, references: &Edges) -> Vec<bool> {
        let mut led_to = vec![false; self.count];
        for (item, &circle) in self.of.iter().enumerate() {
            for other in references.of(item).map(|other| self.of[other]) {
                led_to[other] |= other != circle;
            }
        }
        self.of.iter().map(|&circle| !led_to[circle]).collect()
    }
}

/// The dominator tree, below an artificial root that leads to all entry points.
struct Tree {
    dominators: Vec<Option<usize>>,
    /// All items, each one after its dominator.
    order: Vec<usize>,
}

/// The number of the root in the order of the depth-first search.
const ROOT: usize = 0;

impl Tree {
    fn new(references: &Edges, referrers: &Edges, entered: &[bool]) -> Self {
        let (order, number, parents) = walk(references, entered);
        // From here on, an item is identified by its number in the depth-first search; 0 is the root.
        let count = order.len() + 1;
        let mut forest = Forest::new(count);
        let mut dominators = vec![ROOT; count];
        let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); count];
        for at in (1..count).rev() {
            let item = order[at - 1];
            if entered[item] {
                forest.semi[at] = ROOT;
            }
            for referrer in referrers.of(item) {
                let best = forest.best(number[referrer]);
                forest.semi[at] = forest.semi[at].min(forest.semi[best]);
            }
            waiting[forest.semi[at]].push(at);
            let parent = parents[at];
            forest.above[at] = Some(parent);
            for below in std::mem::take(&mut waiting[parent]) {
                let best = forest.best(below);
                dominators[below] =
                    if forest.semi[best] < forest.semi[below] { best } else { parent };
            }
        }
        for at in 1..count {
            if dominators[at] != forest.semi[at] {
                dominators[at] = dominators[dominators[at]];
            }
        }
        let mut by_item = vec![None; order.len()];
        for (&item, &dominator) in order.iter().zip(&dominators[1..]) {
            by_item[item] = dominator.checked_sub(1).map(|above| order[above]);
        }
        Tree { dominators: by_item, order }
    }
}

/// Walks the graph from the root in depth-first order. Returns the items in the order in which it reaches them,
/// the number of each item in this order, counted from 1, and, by number, the parent from which it reached the
/// item.
fn walk(references: &Edges, entered: &[bool]) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
    let count = references.count();
    let (mut order, mut number) = (Vec::with_capacity(count), vec![0; count]);
    let mut parents = vec![ROOT; count + 1];
    for start in (0..count).filter(|&item| entered[item]) {
        let mut pending = vec![(start, ROOT)];
        while let Some((item, parent)) = pending.pop() {
            if number[item] != 0 {
                continue;
            }
            order.push(item);
            number[item] = order.len();
            parents[order.len()] = parent;
            let below = references.of(item).rev().filter(|&other| number[other] == 0);
            pending.extend(below.map(|other| (other, order.len())));
        }
    }
    (order, number, parents)
}

/// The processed part of the depth-first tree, with compressed paths.
struct Forest {
    semi: Vec<usize>,
    above: Vec<Option<usize>>,
    /// The node with the least `semi` among those that path compression skips.
    least: Vec<usize>,
}

impl Forest {
    fn new(count: usize) -> Self {
        Forest { semi: (0..count).collect(), above: vec![None; count], least: (0..count).collect() }
    }

    /// Returns the node with the least `semi` on the path from `at` up to the top of its tree, without the top.
    fn best(&mut self, at: usize) -> usize {
        let mut way = Vec::new();
        let mut here = at;
        while let Some(above) = self.above[here] {
            way.push(here);
            here = above;
        }
        // From the top down: each node takes over the best one above it, and becomes a child of the top.
        let top = here;
        let Some(mut upper) = way.pop() else { return self.least[at] };
        while let Some(lower) = way.pop() {
            if self.semi[self.least[upper]] < self.semi[self.least[lower]] {
                self.least[lower] = self.least[upper];
            }
            self.above[lower] = Some(top);
            upper = lower;
        }
        self.least[at]
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
            let blame = Blame::new(sizes.clone(), &references);
            let starts = entered(&references);
            let every: Vec<_> = (0..sizes.len()).collect();
            let closures = blame.closures(&every);
            let is_entered: Vec<_> = (0..sizes.len()).filter(|&item| blame.is_entered(item)).collect();
            prop_assert_eq!(&is_entered, &starts);
            let all = reached(&references, &starts, None);
            prop_assert!(all.iter().all(|reached| *reached), "nothing is left out");
            let gone: Vec<Vec<bool>> = (0..sizes.len())
                .map(|item| reached(&references, &starts, Some(item)).iter().map(|left| !left).collect())
                .collect();
            for item in 0..sizes.len() {
                prop_assert_eq!(blame.retained(item), sum(&sizes, &gone[item]));
                prop_assert_eq!(closures[item], sum(&sizes, &reached(&references, &[item], None)));
                // The immediate dominator is the dominator of this item that all its other dominators dominate.
                let with: Vec<_> = (0..sizes.len()).filter(|&o| o != item && gone[o][item]).collect();
                let nearest = with.iter().copied().find(|&o| with.iter().all(|&p| p == o || gone[p][o]));
                prop_assert_eq!(blame.dominator(item), nearest);
            }
        }
    }

    #[test]
    fn deep_and_wide_graphs_are_handled() {
        // A chain of items whose first and whose last item both refer to as many further items. An algorithm
        // that climbs the chain again for each of them is slow, and a recursive one overflows the stack.
        let half = 100_000;
        let mut references: Vec<Vec<usize>> = (0..half).map(|item| vec![item + 1]).collect();
        references[half - 1] = (half..2 * half).collect();
        references[0].extend(half..2 * half);
        references.resize(2 * half, Vec::new());
        let blame = Blame::new(vec![1; 2 * half], &references);
        assert_eq!(blame.retained(0), 2 * half as u64);
        assert_eq!(blame.retained(1), half as u64 - 1);
        assert_eq!(blame.dominator(2 * half - 1), Some(0));
        assert_eq!(blame.closures(&[0, 1]), [2 * half as u64, 2 * half as u64 - 1]);

        // As many circles of several items as possible, and one circle of all items.
        let pairs: Vec<_> = (0..2 * half).map(|item| vec![item ^ 1]).collect();
        let blame = Blame::new(vec![1; 2 * half], &pairs);
        assert!((0..2 * half).all(|item| blame.retained(item) == 1 && blame.is_entered(item)));
        let circle: Vec<_> = (0..half).map(|item| vec![(item + 1) % half]).collect();
        let blame = Blame::new(vec![1; half], &circle);
        assert!((0..half).all(|item| blame.is_entered(item)));
    }

    #[test]
    fn sizes_saturate_at_u64_max() {
        let blame = Blame::new(vec![u64::MAX, u64::MAX], &[vec![1], vec![]]);
        assert_eq!((blame.retained(0), blame.closures(&[0])), (u64::MAX, vec![u64::MAX]));
    }
}
