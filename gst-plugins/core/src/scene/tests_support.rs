//! A frame that owns its memory, with padded rows.

use super::target::{FrameMut, PlaneMut};
use crate::frame::{ColorMatrix, ColorRange, Frame, PixelFormat, Plane};

#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    pub format: PixelFormat,
    pub width: usize,
    pub height: usize,
    pub planes: [Vec<u8>; 3],
    pub strides: [usize; 3],
}

impl Picture {
    pub const PADDING: u8 = 0x5a;

    pub fn new(format: PixelFormat, width: usize, height: usize, padding: usize) -> Self {
        let empty = Frame {
            format,
            width,
            height,
            planes: [Plane::default(); 3],
            matrix: ColorMatrix::default(),
            range: ColorRange::default(),
        };
        let mut picture = Self { format, width, height, planes: Default::default(), strides: [0; 3] };
        for plane in 0..format.planes() {
            let (row, rows) = empty.plane_size(plane);
            picture.strides[plane] = row + padding;
            picture.planes[plane] = vec![Self::PADDING; (row + padding) * rows];
        }
        picture
    }

    pub fn frame(&self) -> Frame<'_> {
        Frame {
            format: self.format,
            width: self.width,
            height: self.height,
            planes: std::array::from_fn(|n| Plane { data: &self.planes[n], stride: self.strides[n] }),
            matrix: ColorMatrix::default(),
            range: ColorRange::default(),
        }
    }

    pub fn frame_mut(&mut self) -> FrameMut<'_> {
        let [first, second, third] = &mut self.planes;
        let [a, b, c] = self.strides;
        FrameMut {
            format: self.format,
            width: self.width,
            height: self.height,
            planes: [
                PlaneMut { data: first, stride: a },
                PlaneMut { data: second, stride: b },
                PlaneMut { data: third, stride: c },
            ],
            matrix: ColorMatrix::default(),
            range: ColorRange::default(),
        }
    }

    /// The luma, scaled by taking the nearest pixel.
    pub fn nearest(&self, width: usize, height: usize) -> Self {
        let mut small = Self::new(PixelFormat::Gray8, width, height, 0);
        for y in 0..height {
            for x in 0..width {
                let from = (y * self.height / height) * self.strides[0] + x * self.width / width;
                small.planes[0][y * width + x] = self.planes[0][from];
            }
        }
        small
    }
}
