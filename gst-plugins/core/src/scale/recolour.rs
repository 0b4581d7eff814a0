//! From one meaning of Y'CbCr codes to another: other coefficients, other range.

use crate::{
    frame::{ColorMatrix, ColorRange, PixelFormat},
    layout::Area,
    scene::FrameMut,
};

/// Fixed-point unit of the factors.
const SHIFT: i32 = 12;

/// A change of codes. All of it is linear: it is nine factors and an offset, applied in place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Recolour {
    /// Rows of Y, Cb and Cr; columns likewise.
    factors: [[i32; 3]; 3],
    black_from: i32,
    black_to: i32,
}

type Meaning = (ColorMatrix, ColorRange);

fn coefficients(matrix: ColorMatrix) -> (f64, f64) {
    match matrix {
        ColorMatrix::Bt601 => (0.299, 0.114),
        ColorMatrix::Bt709 => (0.2126, 0.0722),
        ColorMatrix::Bt2020 => (0.2627, 0.0593),
    }
}

/// Codes per unit of luma and of chroma, and the code of black.
fn scale(range: ColorRange) -> (f64, f64, i32) {
    match range {
        ColorRange::Full => (255.0, 255.0, 0),
        ColorRange::Limited => (219.0, 224.0, 16),
    }
}

impl Recolour {
    /// `None` where the codes mean the same.
    pub fn between(from: Meaning, to: Meaning) -> Option<Self> {
        if from == to {
            return None;
        }
        let (kr, kb) = coefficients(from.0);
        let kg = 1.0 - kr - kb;
        // R, G, B of one unit of Y, Cb and Cr.
        let rgb = [
            [1.0, 0.0, 2.0 * (1.0 - kr)],
            [1.0, -2.0 * (1.0 - kb) * kb / kg, -2.0 * (1.0 - kr) * kr / kg],
            [1.0, 2.0 * (1.0 - kb), 0.0],
        ];
        let (kr, kb) = coefficients(to.0);
        let kg = 1.0 - kr - kb;
        let y = [kr, kg, kb];
        let unit = |n: usize| std::array::from_fn::<f64, 3, _>(|m| f64::from(u8::from(m == n)));
        let cb: [f64; 3] = std::array::from_fn(|n| (unit(2)[n] - y[n]) / (2.0 * (1.0 - kb)));
        let cr: [f64; 3] = std::array::from_fn(|n| (unit(0)[n] - y[n]) / (2.0 * (1.0 - kr)));
        let ((luma_from, chroma_from, black_from), (luma_to, chroma_to, black_to)) =
            (scale(from.1), scale(to.1));
        let factors = [(y, luma_to), (cb, chroma_to), (cr, chroma_to)].map(|(row, to)| {
            std::array::from_fn(|column| {
                let from = if column == 0 { luma_from } else { chroma_from };
                let product: f64 = (0..3).map(|n| row[n] * rgb[n][column]).sum();
                (product * to / from * f64::from(1 << SHIFT)).round() as i32
            })
        });
        Some(Self { factors, black_from, black_to })
    }

    fn apply(&self, [y, cb, cr]: [u8; 3]) -> [u8; 3] {
        let input = [i32::from(y) - self.black_from, i32::from(cb) - 128, i32::from(cr) - 128];
        let offset = [self.black_to, 128, 128];
        std::array::from_fn(|n| {
            let sum: i32 = (0..3).map(|m| self.factors[n][m] * input[m]).sum();
            (((sum + (1 << (SHIFT - 1))) >> SHIFT) + offset[n]).clamp(0, 255) as u8
        })
    }

    /// A colour given as Y, Cb and Cr.
    #[must_use]
    pub fn colour(&self, codes: [u8; 3]) -> [u8; 3] {
        self.apply(codes)
    }

    /// Changes a part of an NV12 or I420 picture; the part's corner and size are even.
    pub fn run(&self, target: &mut FrameMut<'_>, area: Area) {
        if target.validate().is_err() || area.is_empty() {
            return;
        }
        let right = (area.right() as usize).min(target.width) & !1;
        let bottom = (area.bottom() as usize).min(target.height) & !1;
        let (left, top) = (area.x as usize & !1, area.y as usize & !1);
        if left >= right || top >= bottom {
            return;
        }
        let format = target.format;
        let [luma, first, second] = &mut target.planes;
        for y in (top..bottom).step_by(2) {
            let start = y * luma.stride + left;
            let (upper, lower) = luma.data[start..].split_at_mut(luma.stride);
            let (upper, lower) = (&mut upper[..right - left], &mut lower[..right - left]);
            let chroma_row = y / 2;
            let (length, at) = ((right - left) / 2, left / 2);
            match format {
                PixelFormat::Nv12 => {
                    let start = chroma_row * first.stride + 2 * at;
                    let pairs = &mut first.data[start..start + 2 * length];
                    for ((a, b), pair) in upper
                        .chunks_exact_mut(2)
                        .zip(lower.chunks_exact_mut(2))
                        .zip(pairs.chunks_exact_mut(2))
                    {
                        let [u, v] = self.block(a, b, pair[0], pair[1]);
                        pair[0] = u;
                        pair[1] = v;
                    }
                }
                PixelFormat::I420 => {
                    let us = &mut first.data[chroma_row * first.stride + at..][..length];
                    let vs = &mut second.data[chroma_row * second.stride + at..][..length];
                    for (((a, b), u), v) in
                        upper.chunks_exact_mut(2).zip(lower.chunks_exact_mut(2)).zip(us).zip(vs)
                    {
                        [*u, *v] = self.block(a, b, *u, *v);
                    }
                }
                _ => return,
            }
        }
    }

    /// Four luma samples and their common chroma.
    #[inline]
    fn block(&self, a: &mut [u8], b: &mut [u8], u: u8, v: u8) -> [u8; 2] {
        let (cb, cr) = (i32::from(u) - 128, i32::from(v) - 128);
        let [fy, fu, fv] = &self.factors;
        let half = 1 << (SHIFT - 1);
        let base = fy[1] * cb + fy[2] * cr + half + (self.black_to << SHIFT) - fy[0] * self.black_from;
        for value in a.iter_mut().chain(b) {
            *value = ((fy[0] * i32::from(*value) + base) >> SHIFT).clamp(0, 255) as u8;
        }
        // Grey stays grey whatever the coefficients: chroma does not depend on luma.
        let chroma =
            |row: &[i32; 3]| (((row[1] * cb + row[2] * cr + half) >> SHIFT) + 128).clamp(0, 255) as u8;
        [chroma(fu), chroma(fv)]
    }
}
