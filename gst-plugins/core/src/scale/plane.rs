//! One plane of one or two channels.

use super::kernels::{self, Columns};
use crate::{frame::Plane, layout::Area};

/// Two neighbouring rows and how much of the second is taken, in 1/256.
#[derive(Clone, Copy, Debug)]
struct RowPair {
    first: u32,
    weight: u16,
}

/// Scales a part of a plane to a number of columns and rows.
#[derive(Debug)]
pub(super) struct PlaneScaler {
    channels: usize,
    source: Area,
    /// Blocks of `1 << level` samples each way become one first.
    level: u32,
    rows: Vec<RowPair>,
    /// `None` where every column stays as it is.
    columns: Option<Columns>,
    /// The two averaged rows that were used last, and what averaging needs.
    averaged: [(usize, Vec<u8>); 2],
    work: Vec<[Vec<u8>; 2]>,
    /// A blended row, with room for the kernels to look past its end.
    line: Vec<u8>,
}

const NONE: usize = usize::MAX;

impl PlaneScaler {
    pub fn new(channels: usize, source: Area, target: Area) -> Self {
        let ratio = |from: u32, to: u32| (from / to.max(1)).max(1).ilog2();
        let level = ratio(source.width, target.width).max(ratio(source.height, target.height));
        let reduced = |length: u32| (length as usize).div_ceil(1 << level);
        let rows = positions(reduced(source.height), target.height as usize)
            .map(|(first, weight)| RowPair { first: first as u32, weight: (weight * 256.0).round() as u16 })
            .collect();
        let width = reduced(source.width);
        let columns = (width != target.width as usize)
            .then(|| Columns::new(channels, positions(width, target.width as usize)));
        let line = vec![0; width * channels + channels + kernels::SLACK];
        Self {
            channels,
            source,
            level,
            rows,
            columns,
            averaged: [(NONE, Vec::new()), (NONE, Vec::new())],
            work: vec![[Vec::new(), Vec::new()]; (level as usize).saturating_sub(1)],
            line,
        }
    }

    /// Forgets the rows of the last picture.
    pub fn begin(&mut self) {
        for (row, _) in &mut self.averaged {
            *row = NONE;
        }
    }

    /// Computes row `y` of the target. `out` has exactly its bytes.
    pub fn row(&mut self, plane: Plane<'_>, y: usize, out: &mut [u8]) {
        let RowPair { first, weight } = self.rows[y];
        let (upper, lower) = (first as usize, first as usize + usize::from(weight > 0));
        if self.level > 0 {
            for row in [upper, lower] {
                // Row n lives in slot n % 2: neighbours never displace each other.
                let (known, bytes) = &mut self.averaged[row % 2];
                if *known != row {
                    average(plane, self.source, self.channels, row, &mut self.work, bytes);
                    *known = row;
                }
            }
        }
        let row_of = |row: usize| -> &[u8] {
            if self.level > 0 {
                &self.averaged[row % 2].1
            } else {
                source_row(plane, self.source, self.channels, row)
            }
        };
        let (a, b) = (row_of(upper), row_of(lower));
        let Some(columns) = &self.columns else {
            kernels::blend(a, b, weight, out);
            return;
        };
        if weight == 0 {
            self.line[..a.len()].copy_from_slice(a);
        } else {
            kernels::blend(a, b, weight, &mut self.line[..a.len()]);
        }
        // The last sample is its own right neighbour.
        self.line.copy_within(a.len() - self.channels..a.len(), a.len());
        columns.run(&self.line, out);
    }
}

/// For every target position, the source sample at its left and the share of the next one. Centres meet centres.
fn positions(from: usize, to: usize) -> impl Iterator<Item = (usize, f64)> {
    let step = from as f64 / to as f64;
    (0..to).map(move |n| {
        let at = ((n as f64 + 0.5) * step - 0.5).clamp(0.0, (from - 1) as f64);
        let first = at.floor();
        // What rounds to the next sample is that sample: a weight is always below one.
        let share = at - first;
        if share * 256.0 >= 255.5 { (first as usize + 1, 0.0) } else { (first as usize, share) }
    })
}

fn source_row(plane: Plane<'_>, source: Area, channels: usize, row: usize) -> &[u8] {
    let start = (source.y as usize + row) * plane.stride + source.x as usize * channels;
    &plane.data[start..start + source.width as usize * channels]
}

/// Row `row` of the plane after averaging two by two, once more for each entry of `work`; rows past the end count as
/// the last.
fn average(
    plane: Plane<'_>,
    source: Area,
    channels: usize,
    row: usize,
    work: &mut [[Vec<u8>; 2]],
    out: &mut Vec<u8>,
) {
    let last = source.height as usize - 1;
    let Some(([upper, lower], work)) = work.split_first_mut() else {
        let row_of = |row: usize| source_row(plane, source, channels, row.min(last));
        kernels::halve(channels, row_of(2 * row), row_of(2 * row + 1), out);
        return;
    };
    average(plane, source, channels, 2 * row, work, upper);
    average(plane, source, channels, 2 * row + 1, work, lower);
    kernels::halve(channels, upper, lower, out);
}
