//! Neighbouring cells that differ, as boxes.

/// A box of cells: left, top, right, bottom; right and bottom are outside.
pub type Cells = (usize, usize, usize, usize);

/// Working memory, kept between frames.
#[derive(Clone, Debug, Default)]
pub struct Finder {
    seen: Vec<bool>,
    stack: Vec<u32>,
    found: Vec<(usize, Cells)>,
}

impl Finder {
    /// The boxes of the last [`find`](Self::find), largest region first.
    pub fn boxes(&self) -> impl Iterator<Item = Cells> + '_ {
        self.found.iter().map(|(_, cells)| *cells)
    }

    /// Looks for regions of at least `least` cells with an `excess` of 1 or more, together with their neighbours, also
    /// one cell away, of at least `edge`. Boxes that touch become one, and so do those beyond `most`.
    pub fn find(&mut self, excess: &[f32], columns: usize, edge: f32, least: usize, most: usize) {
        self.found.clear();
        self.seen.clear();
        self.seen.resize(excess.len(), false);
        let rows = excess.len() / columns.max(1);
        for start in 0..rows * columns {
            if excess[start] < 1.0 || self.seen[start] {
                continue;
            }
            self.stack.clear();
            self.stack.push(start as u32);
            self.seen[start] = true;
            let (mut strong, mut cells) = (0, (columns, rows, 0, 0));
            while let Some(at) = self.stack.pop() {
                let at = at as usize;
                let (x, y) = (at % columns, at / columns);
                strong += usize::from(excess[at] >= 1.0);
                cells = union(cells, (x, y, x + 1, y + 1));
                // Two cells far, so that a thin gap does not split what belongs together.
                for ny in y.saturating_sub(2)..(y + 3).min(rows) {
                    for nx in x.saturating_sub(2)..(x + 3).min(columns) {
                        let n = ny * columns + nx;
                        let near = nx.abs_diff(x) < 2 && ny.abs_diff(y) < 2;
                        if !self.seen[n] && (excess[n] >= 1.0 || (near && excess[n] >= edge)) {
                            self.seen[n] = true;
                            self.stack.push(n as u32);
                        }
                    }
                }
            }
            if strong >= least {
                self.found.push((strong, cells));
            }
        }
        self.merge();
        self.found.sort_by_key(|(strong, _)| std::cmp::Reverse(*strong));
        if self.found.len() > most {
            let rest = self.found.split_off(most - 1);
            let all = rest.into_iter().reduce(|a, b| (a.0 + b.0, union(a.1, b.1)));
            self.found.extend(all);
        }
    }

    fn merge(&mut self) {
        let mut n = 0;
        while n < self.found.len() {
            let touching = (n + 1..self.found.len()).find(|&m| touch(self.found[n].1, self.found[m].1));
            if let Some(m) = touching {
                let (strong, cells) = self.found.swap_remove(m);
                self.found[n] = (self.found[n].0 + strong, union(self.found[n].1, cells));
                // The larger box may touch one that was passed over.
                n = 0;
            } else {
                n += 1;
            }
        }
    }
}

fn union(a: Cells, b: Cells) -> Cells {
    (a.0.min(b.0), a.1.min(b.1), a.2.max(b.2), a.3.max(b.3))
}

fn touch(a: Cells, b: Cells) -> bool {
    a.0 <= b.2 && b.0 <= a.2 && a.1 <= b.3 && b.1 <= a.3
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(picture: &[&str], least: usize) -> Vec<Cells> {
        let value = |c| match c {
            '#' => 2.0,
            '+' => 0.7,
            _ => 0.0,
        };
        let cells: Vec<f32> = picture.iter().flat_map(|row| row.chars().map(value)).collect();
        let mut finder = Finder::default();
        finder.find(&cells, picture[0].len(), 0.5, least, 3);
        finder.boxes().collect()
    }

    #[test]
    fn region_table() {
        assert_eq!(find(&["....", "...."], 1), []);
        assert_eq!(find(&[".#..", ".##."], 2), [(1, 0, 3, 2)]);
        assert_eq!(find(&[".#......", "......##"], 2), [(6, 1, 8, 2)], "one cell is too few");
        assert_eq!(find(&["##.##..."], 4), [(0, 0, 5, 1)], "a thin gap does not split");
        assert_eq!(
            find(&["##+....+"], 2),
            [(0, 0, 3, 1)],
            "a weak edge belongs to it, a weak cell is nothing"
        );
        assert_eq!(
            find(&["##...#.....##....#"], 1),
            [(0, 0, 2, 1), (11, 0, 13, 1), (5, 0, 18, 1)],
            "beyond the limit they are one"
        );
    }

    proptest! {
        /// Every strong cell of a region that is large enough lies in a box, and boxes do not touch.
        #[test]
        fn nothing_is_lost(cells in prop::collection::vec(prop::bool::weighted(0.15), 12 * 9)) {
            let excess: Vec<f32> = cells.iter().map(|&on| f32::from(u8::from(on)) * 1.5).collect();
            let mut finder = Finder::default();
            finder.find(&excess, 12, 0.5, 1, 1000);
            let boxes: Vec<Cells> = finder.boxes().collect();
            for (n, _) in cells.iter().enumerate().filter(|(_, on)| **on) {
                let (x, y) = (n % 12, n / 12);
                let holds = |b: &Cells| (b.0..b.2).contains(&x) && (b.1..b.3).contains(&y);
                prop_assert_eq!(boxes.iter().filter(|b| holds(b)).count(), 1);
            }
            for (n, a) in boxes.iter().enumerate() {
                prop_assert!(boxes[n + 1..].iter().all(|b| !touch(*a, *b)));
            }
        }
    }
}
