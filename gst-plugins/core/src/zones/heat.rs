//! Where objects are over a day: a picture of time spent.

use super::shape::Point;

const COLUMNS: usize = 160;
const ROWS: usize = 90;

/// Seconds that objects stood in each cell of a grid over the frame.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    cells: Vec<f32>,
}

impl Default for HeatMap {
    fn default() -> Self {
        Self { cells: vec![0.0; COLUMNS * ROWS] }
    }
}

impl HeatMap {
    /// Adds `seconds` where an object stands, and a little around it, since nobody stands on a point.
    pub fn add(&mut self, foot: Point, seconds: f32) {
        let at = |v: f64, n: usize| ((v * n as f64).max(0.0) as usize).min(n - 1);
        let (x, y) = (at(foot[0], COLUMNS), at(foot[1], ROWS));
        for ny in y.saturating_sub(1)..(y + 2).min(ROWS) {
            for nx in x.saturating_sub(1)..(x + 2).min(COLUMNS) {
                let near = if (nx, ny) == (x, y) { 1.0 } else { 0.5 };
                self.cells[ny * COLUMNS + nx] += seconds * near;
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.cells.iter().all(|v| *v == 0.0)
    }

    pub fn seconds(&self, column: usize, row: usize) -> f32 {
        self.cells.get(row * COLUMNS + column).copied().unwrap_or(0.0)
    }

    /// Adds what another map of the same place has.
    pub fn merge(&mut self, other: &Self) {
        for (own, more) in self.cells.iter_mut().zip(&other.cells) {
            *own += more;
        }
    }

    /// To keep it: little-endian single precision numbers, row by row.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.cells.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    /// What was kept; `None` where it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<4>();
        let cells: Vec<f32> = numbers.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let good = rest.is_empty() && cells.len() == COLUMNS * ROWS && cells.iter().all(|v| *v >= 0.0);
        good.then_some(Self { cells })
    }

    /// The size of a picture that has no frame to go over.
    pub const SIZE: (usize, usize) = (COLUMNS * 6, ROWS * 6);

    /// Paints the time over a picture of `width` columns in red, green and blue, which is dimmed to let it stand out: from
    /// violet over red and yellow to white, by the logarithm of the time, so that one who waits does not hide all who
    /// pass.
    pub fn paint(&self, width: usize, pixels: &mut [u8]) {
        let most = self.cells.iter().copied().fold(0.0, f32::max).max(1e-6).ln_1p();
        let height = pixels.len() / (3 * width.max(1));
        // Between the middles of two cells: the first one, and how far it is to the second.
        let between = |n: usize, of: usize, cells: usize| {
            let at = ((n as f32 + 0.5) / of as f32 * cells as f32 - 0.5).clamp(0.0, (cells - 1) as f32);
            let first = (at as usize).min(cells - 2);
            (first, at - first as f32)
        };
        let columns: Vec<_> = (0..width).map(|x| between(x, width, COLUMNS)).collect();
        for (y, line) in pixels.chunks_exact_mut(3 * width.max(1)).enumerate() {
            let (row, down) = between(y, height, ROWS);
            for (&(column, right), pixel) in columns.iter().zip(line.as_chunks_mut::<3>().0) {
                let mix = |a: f32, b: f32, share: f32| a + (b - a) * share;
                let across = |row| mix(self.seconds(column, row), self.seconds(column + 1, row), right);
                let heat = mix(across(row), across(row + 1), down).ln_1p() / most;
                let opaque = (heat * 4.0).min(0.8);
                let grey = pixel.iter().map(|&v| f32::from(v)).sum::<f32>() / 3.0;
                for (v, paint) in pixel.iter_mut().zip(colour(heat)) {
                    let dimmed = 0.6 * mix(f32::from(*v), grey, 0.5);
                    *v = mix(dimmed, paint, opaque) as u8;
                }
            }
        }
    }
}

/// From cold (0) to hot (1).
fn colour(heat: f32) -> [f32; 3] {
    const STOPS: [(f32, [f32; 3]); 5] = [
        (0.0, [60.0, 20.0, 140.0]),
        (0.35, [160.0, 30.0, 130.0]),
        (0.6, [235.0, 75.0, 45.0]),
        (0.85, [255.0, 195.0, 45.0]),
        (1.0, [255.0, 255.0, 225.0]),
    ];
    let next = STOPS.iter().position(|stop| stop.0 >= heat).unwrap_or(STOPS.len() - 1).max(1);
    let ((from, a), (to, b)) = (STOPS[next - 1], STOPS[next]);
    let share = ((heat - from) / (to - from)).clamp(0.0, 1.0);
    std::array::from_fn(|n| a[n] + (b[n] - a[n]) * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_where_it_was_spent() {
        let mut map = HeatMap::default();
        assert!(map.is_empty());
        for _ in 0..100 {
            map.add([0.5, 0.5], 0.2);
        }
        map.add([1.0, 1.0], 0.2);
        map.add([-3.0, f64::NAN], 0.2);
        assert!((map.seconds(80, 45) - 20.0).abs() < 1e-3);
        assert!((map.seconds(81, 45) - 10.0).abs() < 1e-3);
        assert!(map.seconds(159, 89) > 0.0 && map.seconds(0, 0) > 0.0);
        let mut twice = HeatMap::from_bytes(&map.to_bytes()).unwrap();
        assert_eq!(twice, map);
        twice.merge(&map);
        assert!((twice.seconds(80, 45) - 40.0).abs() < 1e-3);
        assert_eq!(HeatMap::from_bytes(&map.to_bytes()[1..]), None);
        assert_eq!(HeatMap::from_bytes(&vec![255; COLUMNS * ROWS * 4]), None);
        let (width, height) = HeatMap::SIZE;
        let mut picture = vec![100; width * height * 3];
        map.paint(width, &mut picture);
        let pixel = |x: usize, y: usize| &picture[(y * width + x) * 3..][..3];
        let (hot, near, cold) = (pixel(483, 273), pixel(489, 273), pixel(120, 120));
        assert!(hot.iter().all(|v| *v > 160), "{hot:?}");
        assert!(near.iter().zip(hot).all(|(near, hot)| near < hot), "{near:?}");
        assert_eq!(cold, [60, 60, 60], "the picture, dimmed");
        assert_ne!(pixel(width - 1, height - 1), cold);
        // Whatever the size.
        for width in [0, 1, 7] {
            map.paint(width, &mut [9; 100]);
        }
        HeatMap::default().paint(7, &mut [9; 100]);
    }
}
