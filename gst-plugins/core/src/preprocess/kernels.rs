//! The loops over one row. Each is written so that the compiler vectorises it for whatever instruction set the
//! caller was dispatched to: slices of one proven length, no branches, no early exit.
//!
//! Rows between the two blends hold pixel codes in 1/64, 0 to 16320. A pair is two neighbouring samples in one
//! word, the left one in the low half.
#![allow(clippy::inline_always, reason = "a kernel must be compiled inside the dispatched function")]

use half::{f16, slice::HalfFloatSliceExt};

use super::plan::{Columns, YuvMatrix};

/// One code in the rows' unit.
const UNIT: f32 = 64.0;

#[inline(always)]
fn blend(a: u8, b: u8, weight: i16) -> i16 {
    let (a, b) = (i16::from(a), i16::from(b));
    // The high half of a 16-bit product: one instruction for many lanes.
    let part = ((((b - a) << 7) as i32 * weight as i32) >> 16) as i16;
    (a << 6) + part
}

/// Blends two rows of `N` interleaved channels, keeping the first `M`, and repeats the last sample once.
#[inline(always)]
pub(super) fn vertical<const N: usize, const M: usize>(
    upper: &[u8],
    lower: &[u8],
    weight: i16,
    out: [&mut Vec<i16>; M],
) {
    let length = upper.len() / N;
    let (upper, lower) = (&upper[..length * N], &lower[..length * N]);
    let mut rows = out.map(|row| {
        row.resize(length + 1, 0);
        &mut row[..]
    });
    if N == 1 {
        for ((out, &a), &b) in rows[0].iter_mut().zip(upper).zip(lower) {
            *out = blend(a, b, weight);
        }
    } else {
        for (channel, row) in rows.iter_mut().enumerate() {
            let pixels = upper.chunks_exact(N).zip(lower.chunks_exact(N));
            for (out, (a, b)) in row.iter_mut().zip(pixels) {
                *out = blend(a[channel], b[channel], weight);
            }
        }
    }
    for row in rows {
        row[length] = row[length - 1];
    }
}

/// Collects the two neighbours of every output position.
#[inline(always)]
pub(super) fn gather(row: &[i16], columns: &Columns, out: &mut [u32]) {
    let pair = |a: i16, b: i16| u32::from(a as u16) | u32::from(b as u16) << 16;
    if columns.identity {
        for (out, &sample) in out.iter_mut().zip(row) {
            *out = pair(sample, sample);
        }
        return;
    }
    for (out, &first) in out.iter_mut().zip(&columns.first) {
        let first = first as usize;
        let two = &row[first..first + 2];
        *out = pair(two[0], two[1]);
    }
}

#[inline(always)]
fn horizontal(pair: u32, weight: f32) -> f32 {
    let (a, b) = ((pair & 0xffff) as i32 as f32, (pair >> 16) as i32 as f32);
    a + (b - a) * weight
}

/// 1.5 × 2²³. Added to |v| < 2²² it leaves no room for a fraction, so the sum is rounded (to nearest, ties to
/// even) and its low bits are the integer. Cheaper on every target than `round_ties_even` and saturating casts.
const MAGIC: f32 = 12_582_912.0;

/// Limits without the NaN rules of `f32::clamp`, which cost instructions; NaN does not get here.
#[inline(always)]
fn limit(v: f32, low: f32, high: f32) -> f32 {
    let v = if v > low { v } else { low };
    if v < high { v } else { high }
}

/// A code, 0 to 255.
#[inline(always)]
fn code(v: f32) -> f32 {
    (limit(v, 0.0, 255.0) + MAGIC) - MAGIC
}

/// One channel: code = blended sample × `scale` + `offset`.
#[inline(always)]
pub(super) fn single(pairs: &[u32], weight: &[f32], scale: f32, offset: f32, out: &mut [f32]) {
    let scale = scale / UNIT;
    for ((out, &pair), &weight) in out.iter_mut().zip(pairs).zip(weight) {
        *out = code(horizontal(pair, weight) * scale + offset);
    }
}

/// Luma and chroma to red, green, blue.
#[inline(always)]
pub(super) fn yuv(
    pairs: &[Vec<u32>; 3],
    luma_weight: &[f32],
    chroma_weight: &[f32],
    matrix: &YuvMatrix,
    out: &mut [Vec<f32>; 3],
) {
    let [red, green, blue] = out;
    let n = red.len();
    let (green, blue) = (&mut green[..n], &mut blue[..n]);
    let (y, u, v) = (&pairs[0][..n], &pairs[1][..n], &pairs[2][..n]);
    let (wy, wc) = (&luma_weight[..n], &chroma_weight[..n]);
    let scaled = |[u, v, offset]: [f32; 3]| [u / UNIT, v / UNIT, offset];
    let (r, g, b) = (scaled(matrix.red), scaled(matrix.green), scaled(matrix.blue));
    let luma = matrix.luma / UNIT;
    for i in 0..n {
        let y = horizontal(y[i], wy[i]) * luma;
        let (u, v) = (horizontal(u[i], wc[i]), horizontal(v[i], wc[i]));
        red[i] = code(y + v * r[1] + r[2]);
        green[i] = code(y + u * g[0] + v * g[1] + g[2]);
        blue[i] = code(y + u * b[0] + b[2]);
    }
}

/// Luma of red, green and blue codes (BT.601, as OpenCV's `BGR2GRAY`), into the first row.
#[inline(always)]
pub(super) fn grey(rows: &mut [Vec<f32>; 3]) {
    let [red, green, blue] = rows;
    for ((r, &g), &b) in red.iter_mut().zip(&*green).zip(&*blue) {
        *r = code(*r * 0.299 + g * 0.587 + b * 0.114);
    }
}

/// Pixel code to tensor value: `code * scale + offset`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Normal {
    pub scale: f32,
    pub offset: f32,
}

#[inline(always)]
pub(super) fn normalise(codes: &[f32], normal: Normal, out: &mut [f32]) {
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = code * normal.scale + normal.offset;
    }
}

/// As [`normalise`], three rows side by side.
#[inline(always)]
pub(super) fn normalise_interleaved(rows: [&[f32]; 3], normal: [Normal; 3], out: &mut [f32]) {
    let pixels = rows[0].iter().zip(rows[1]).zip(rows[2]);
    for (out, ((&a, &b), &c)) in out.chunks_exact_mut(3).zip(pixels) {
        out[0] = a * normal[0].scale + normal[0].offset;
        out[1] = b * normal[1].scale + normal[1].offset;
        out[2] = c * normal[2].scale + normal[2].offset;
    }
}

/// A tensor's element type.
pub(super) trait Element: Copy {
    /// Converts a row; integers are rounded and saturate.
    fn convert(from: &[f32], to: &mut [Self]);

    /// Normalises a row of codes and converts it, by way of `line`.
    #[inline(always)]
    fn normalise(codes: &[f32], normal: Normal, line: &mut Vec<f32>, to: &mut [Self]) {
        line.resize(to.len(), 0.0);
        normalise(codes, normal, line);
        Self::convert(line, to);
    }
}

impl Element for f32 {
    #[inline(always)]
    fn convert(from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }

    #[inline(always)]
    fn normalise(codes: &[f32], normal: Normal, _: &mut Vec<f32>, to: &mut [Self]) {
        normalise(codes, normal, to);
    }
}

impl Element for f16 {
    #[inline(always)]
    fn convert(from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }
}

impl Element for u8 {
    #[inline(always)]
    fn convert(from: &[f32], to: &mut [Self]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = (limit(from, 0.0, 255.0) + MAGIC).to_bits() as u8;
        }
    }
}

impl Element for i8 {
    #[inline(always)]
    fn convert(from: &[f32], to: &mut [Self]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = (limit(from, -128.0, 127.0) + MAGIC).to_bits() as i8;
        }
    }
}
