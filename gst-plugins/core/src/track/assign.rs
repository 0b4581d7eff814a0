//! Who belongs to whom: the pairs of rows and columns with the largest total gain.
//!
//! Tracking gives sparse problems, in which most boxes overlap one or two tracks. They fall into small parts that have
//! nothing to do with one another, and each is solved exactly (Kuhn's method with potentials, O(n³) of the part).

/// A possible pair. `gain` must be finite; pairs that gain nothing are never chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    pub row: usize,
    pub column: usize,
    pub gain: f32,
}

/// Parts that would take more steps than this (a few milliseconds) are solved greedily, largest gain first: nothing a
/// camera sees is that crowded, and no input may hold up the stream.
const MAX_STEPS: usize = 2_000_000;

/// Working memory, kept between calls.
#[derive(Clone, Debug, Default)]
pub struct Assigner {
    parent: Vec<u32>,
    order: Vec<(u32, u32)>,
    rows: Vec<usize>,
    columns: Vec<usize>,
    matrix: Vec<f64>,
    kuhn: Kuhn,
}

impl Assigner {
    /// Appends to `chosen` the indices into `pairs` of the matching with the largest total gain: every row and every
    /// column at most once.
    pub fn solve(&mut self, rows: usize, columns: usize, pairs: &[Pair], chosen: &mut Vec<usize>) {
        self.parent.clear();
        self.parent.extend(0..(rows + columns) as u32);
        for pair in pairs.iter().filter(|pair| pair.gain > 0.0) {
            let (a, b) = (self.root(pair.row), self.root(rows + pair.column));
            self.parent[a.max(b) as usize] = a.min(b);
        }
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        for (n, pair) in pairs.iter().enumerate().filter(|(_, pair)| pair.gain > 0.0) {
            order.push((self.root(pair.row), n as u32));
        }
        order.sort_unstable();
        for part in order.chunk_by(|a, b| a.0 == b.0) {
            match part {
                [(_, only)] => chosen.push(*only as usize),
                part => self.solve_part(pairs, part, chosen),
            }
        }
        self.order = order;
    }

    fn root(&mut self, mut node: usize) -> u32 {
        while self.parent[node] as usize != node {
            self.parent[node] = self.parent[self.parent[node] as usize];
            node = self.parent[node] as usize;
        }
        node as u32
    }

    fn solve_part(&mut self, pairs: &[Pair], part: &[(u32, u32)], chosen: &mut Vec<usize>) {
        let own = || part.iter().map(|&(_, n)| n as usize);
        let fill = |list: &mut Vec<usize>, key: fn(&Pair) -> usize| {
            list.clear();
            list.extend(own().map(|n| key(&pairs[n])));
            list.sort_unstable();
            list.dedup();
        };
        fill(&mut self.rows, |pair| pair.row);
        fill(&mut self.columns, |pair| pair.column);
        // The method wants at least as many columns as rows.
        let turned = self.rows.len() > self.columns.len();
        let (short, long) = if turned { (&self.columns, &self.rows) } else { (&self.rows, &self.columns) };
        let width = long.len();
        if short.len() * short.len() * width > MAX_STEPS {
            greedy(pairs, own().collect(), chosen);
            return;
        }
        self.matrix.clear();
        self.matrix.resize(short.len() * width, 0.0);
        let place = |pair: &Pair| {
            let (s, l) = if turned { (pair.column, pair.row) } else { (pair.row, pair.column) };
            Some(short.binary_search(&s).ok()? * width + long.binary_search(&l).ok()?)
        };
        for n in own() {
            if let Some(at) = place(&pairs[n]) {
                self.matrix[at] = self.matrix[at].min(-f64::from(pairs[n].gain));
            }
        }
        let matched = self.kuhn.solve(&self.matrix, short.len(), width);
        for n in own() {
            if place(&pairs[n]).is_some_and(|at| {
                matched[at % width] == Some(at / width) && self.matrix[at] == -f64::from(pairs[n].gain)
            }) {
                chosen.push(n);
            }
        }
    }
}

fn greedy(pairs: &[Pair], mut own: Vec<usize>, chosen: &mut Vec<usize>) {
    own.sort_by(|&a, &b| pairs[b].gain.total_cmp(&pairs[a].gain));
    let mut rows = std::collections::HashSet::new();
    let mut columns = std::collections::HashSet::new();
    for n in own {
        let Pair { row, column, .. } = pairs[n];
        if !rows.contains(&row) && !columns.contains(&column) {
            rows.insert(row);
            columns.insert(column);
            chosen.push(n);
        }
    }
}

/// Kuhn's method: the least total cost of a matrix with no more rows than columns.
#[derive(Clone, Debug, Default)]
struct Kuhn {
    row_price: Vec<f64>,
    column_price: Vec<f64>,
    matched: Vec<Option<usize>>,
    way: Vec<usize>,
    slack: Vec<f64>,
    used: Vec<bool>,
}

impl Kuhn {
    /// The row that each column goes to; every row gets one.
    fn solve(&mut self, cost: &[f64], rows: usize, columns: usize) -> &[Option<usize>] {
        // Column `columns` is a helper that holds the row being placed.
        let reset = |list: &mut Vec<f64>, len| {
            list.clear();
            list.resize(len, 0.0);
        };
        reset(&mut self.row_price, rows);
        reset(&mut self.column_price, columns + 1);
        self.matched.clear();
        self.matched.resize(columns + 1, None);
        self.way.clear();
        self.way.resize(columns + 1, columns);
        for row in 0..rows {
            self.matched[columns] = Some(row);
            self.slack.clear();
            self.slack.resize(columns + 1, f64::INFINITY);
            self.used.clear();
            self.used.resize(columns + 1, false);
            let mut at = columns;
            while let Some(placed) = self.matched[at] {
                self.used[at] = true;
                let (mut least, mut next) = (f64::INFINITY, columns);
                for column in 0..columns {
                    if self.used[column] {
                        continue;
                    }
                    let reduced =
                        cost[placed * columns + column] - self.row_price[placed] - self.column_price[column];
                    if reduced < self.slack[column] {
                        self.slack[column] = reduced;
                        self.way[column] = at;
                    }
                    if self.slack[column] < least {
                        least = self.slack[column];
                        next = column;
                    }
                }
                for column in 0..=columns {
                    if self.used[column] {
                        if let Some(row) = self.matched[column] {
                            self.row_price[row] += least;
                        }
                        self.column_price[column] -= least;
                    } else {
                        self.slack[column] -= least;
                    }
                }
                at = next;
            }
            while at != columns {
                let before = self.way[at];
                self.matched[at] = self.matched[before];
                at = before;
            }
        }
        &self.matched[..columns]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn solve(rows: usize, columns: usize, pairs: &[Pair]) -> Vec<usize> {
        let mut chosen = Vec::new();
        Assigner::default().solve(rows, columns, pairs, &mut chosen);
        chosen
    }

    fn pairs(list: &[(usize, usize, f32)]) -> Vec<Pair> {
        list.iter().map(|&(row, column, gain)| Pair { row, column, gain }).collect()
    }

    fn best(pairs: &[Pair], rows: u32, columns: u32) -> f32 {
        let Some((first, rest)) = pairs.split_first() else { return 0.0 };
        let without = best(rest, rows, columns);
        let (row, column) = (1 << first.row, 1 << first.column);
        if first.gain > 0.0 && rows & row == 0 && columns & column == 0 {
            without.max(first.gain + best(rest, rows | row, columns | column))
        } else {
            without
        }
    }

    #[test]
    fn assignment_table() {
        for (list, expected) in [
            (&[][..], &[][..]),
            (&[(0, 0, 0.5)], &[0]),
            // Nothing is gained.
            (&[(0, 0, 0.0), (1, 1, -1.0)], &[]),
            // Greedy would take the 0.9 and be left with nothing for row 1.
            (&[(0, 0, 0.9), (0, 1, 0.8), (1, 0, 0.7)], &[1, 2]),
            (&[(0, 0, 0.9), (0, 1, 0.1), (1, 0, 0.2)], &[0]),
            // The same pair twice counts once.
            (&[(0, 0, 0.3), (0, 0, 0.6)], &[1]),
        ] {
            assert_eq!(solve(2, 2, &pairs(list)), expected, "{list:?}");
        }
    }

    #[test]
    fn a_crowd_beyond_measure_is_still_matched() {
        let n = 200;
        assert!(n * n * n > MAX_STEPS);
        let list: Vec<_> = (0..n)
            .flat_map(|row| {
                (0..n).map(move |column| Pair { row, column, gain: if row == column { 1.0 } else { 0.1 } })
            })
            .collect();
        let chosen = solve(n, n, &list);
        assert_eq!(chosen.len(), n);
        assert!(chosen.iter().all(|&c| list[c].row == list[c].column));
    }

    proptest! {
        #[test]
        fn total_gain_is_that_of_trying_everything(
            list in proptest::collection::vec((0usize..5, 0usize..5, -0.2f32..1.0), 0..13),
        ) {
            let list = pairs(&list);
            let chosen = solve(5, 5, &list);
            let (mut rows, mut columns) = ([false; 5], [false; 5]);
            for &n in &chosen {
                prop_assert!(!std::mem::replace(&mut rows[list[n].row], true));
                prop_assert!(!std::mem::replace(&mut columns[list[n].column], true));
            }
            let total: f32 = chosen.iter().map(|&n| list[n].gain).sum();
            prop_assert!((total - best(&list, 0, 0)).abs() < 1e-4, "{total}");
        }
    }
}
