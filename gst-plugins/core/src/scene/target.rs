//! Colours, and the still picture that every frame starts from.

use crate::frame::{ColorMatrix, ColorRange, PixelFormat};
pub use crate::frame::{FrameMut, PlaneMut};

/// Red, green and blue, 0 to 255 each (sRGB).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Colour(pub [f32; 3]);

impl Colour {
    pub const fn rgb(r: u8, g: u8, b: u8) -> Self {
        Self([r as f32, g as f32, b as f32])
    }

    pub fn scaled(self, gain: f32) -> Self {
        Self(self.0.map(|c| (c * gain).clamp(0.0, 255.0)))
    }

    pub fn mix(self, other: Self, t: f32) -> Self {
        Self(std::array::from_fn(|n| self.0[n] + (other.0[n] - self.0[n]) * t))
    }

    pub fn bytes(self) -> [u8; 3] {
        self.0.map(|c| (c + 0.5) as u8)
    }

    /// Y', Cb, Cr codes after ITU-R BT.601, BT.709 or BT.2020.
    pub fn codes(self, matrix: ColorMatrix, range: ColorRange) -> [u8; 3] {
        let (kr, kb) = matrix.weights();
        let [r, g, b] = self.0;
        let y = kr * r + (1.0 - kr - kb) * g + kb * b;
        let (cb, cr) = ((b - y) / (2.0 * (1.0 - kb)), (r - y) / (2.0 * (1.0 - kr)));
        let (y, cb, cr) = match range {
            ColorRange::Full => (y, cb, cr),
            ColorRange::Limited => (16.0 + y * (219.0 / 255.0), cb * (224.0 / 255.0), cr * (224.0 / 255.0)),
        };
        [(y + 0.5) as u8, (cb + 128.5) as u8, (cr + 128.5) as u8]
    }
}

/// A still picture in the format of the frames that it is copied into.
#[derive(Debug)]
pub(super) struct Still {
    pub format: PixelFormat,
    pub matrix: ColorMatrix,
    pub range: ColorRange,
    planes: [Vec<u8>; 3],
}

impl Still {
    /// From `rgb`, three bytes per pixel without padding.
    pub fn from_rgb(
        rgb: &[u8],
        (width, height): (usize, usize),
        format: PixelFormat,
        matrix: ColorMatrix,
        range: ColorRange,
    ) -> Self {
        let colour = |x: usize, y: usize| {
            let at = (y * width + x) * 3;
            Colour::rgb(rgb[at], rgb[at + 1], rgb[at + 2])
        };
        let pixels = rgb.chunks_exact(3);
        let mut planes: [Vec<u8>; 3] = Default::default();
        match format {
            PixelFormat::Rgb => planes[0] = rgb.to_vec(),
            PixelFormat::Bgr => planes[0] = pixels.flat_map(|p| [p[2], p[1], p[0]]).collect(),
            PixelFormat::Rgbx => planes[0] = pixels.flat_map(|p| [p[0], p[1], p[2], 255]).collect(),
            PixelFormat::Bgrx => planes[0] = pixels.flat_map(|p| [p[2], p[1], p[0], 255]).collect(),
            PixelFormat::Gray8 => {
                let grey =
                    |p: &[u8]| Colour::rgb(p[0], p[1], p[2]).codes(ColorMatrix::Bt601, ColorRange::Full)[0];
                planes[0] = pixels.map(grey).collect();
            }
            PixelFormat::Nv12 | PixelFormat::I420 => {
                planes[0] = pixels.map(|p| Colour::rgb(p[0], p[1], p[2]).codes(matrix, range)[0]).collect();
                for y in (0..height).step_by(2) {
                    for x in (0..width).step_by(2) {
                        let (x1, y1) = ((x + 1).min(width - 1), (y + 1).min(height - 1));
                        let upper = colour(x, y).mix(colour(x1, y), 0.5);
                        let lower = colour(x, y1).mix(colour(x1, y1), 0.5);
                        let [_, u, v] = upper.mix(lower, 0.5).codes(matrix, range);
                        if format == PixelFormat::Nv12 {
                            planes[1].extend([u, v]);
                        } else {
                            planes[1].push(u);
                            planes[2].push(v);
                        }
                    }
                }
            }
        }
        Self { format, matrix, range, planes }
    }

    /// Fills `frame`, which has this picture's size and format.
    pub fn copy_to(&self, frame: &mut FrameMut<'_>) {
        for n in 0..self.format.planes() {
            let (row, rows) = frame.as_frame().plane_size(n);
            let plane = &mut frame.planes[n];
            if plane.stride == row {
                plane.data[..row * rows].copy_from_slice(&self.planes[n]);
                continue;
            }
            for (y, from) in self.planes[n].chunks_exact(row).enumerate() {
                plane.data[y * plane.stride..][..row].copy_from_slice(from);
            }
        }
    }
}
