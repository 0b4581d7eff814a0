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

    /// A picture in red, green and blue: width, height, bytes. Black over blue and red to white, by the logarithm of
    /// the time, so that one who waits does not hide all who pass.
    pub fn picture(&self) -> (usize, usize, Vec<u8>) {
        let most = self.cells.iter().copied().fold(0.0, f32::max).max(1e-6).ln_1p();
        let bytes = self.cells.iter().flat_map(|v| {
            let heat = v.ln_1p() / most;
            let ramp = |from: f32, to: f32| (((heat - from) / (to - from)).clamp(0.0, 1.0) * 255.0) as u8;
            let blue = if heat < 0.5 { ramp(0.0, 0.33) } else { 255 - ramp(0.5, 0.66).max(ramp(0.9, 0.9)) };
            [ramp(0.33, 0.66), ramp(0.66, 1.0), blue.max(ramp(0.9, 1.0))]
        });
        (COLUMNS, ROWS, bytes.collect())
    }
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
        let (width, height, picture) = map.picture();
        assert_eq!(picture.len(), width * height * 3);
        let pixel = |x: usize, y: usize| &picture[(y * width + x) * 3..][..3];
        assert_eq!(pixel(80, 45), [255, 255, 255]);
        assert_eq!(pixel(20, 20), [0, 0, 0]);
        assert!(pixel(159, 89).iter().any(|v| *v > 0));
    }
}
