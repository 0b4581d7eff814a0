//! Pictures as frames of every pixel format.

use std::path::Path;

use anyhow::{Context, ensure};
use nvr_core::frame::{ColorMatrix, ColorRange, Frame, PixelFormat, Plane};

/// An RGB picture without padding.
#[derive(Clone, Debug)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// Three bytes a pixel.
    pub rgb: Vec<u8>,
}

impl Picture {
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let file = std::fs::read(path).with_context(|| path.display().to_string())?;
        let mut decoder = zune_jpeg::JpegDecoder::new(std::io::Cursor::new(file));
        let rgb = decoder.decode().with_context(|| path.display().to_string())?;
        let (width, height) = decoder.dimensions().context("no size")?;
        ensure!(rgb.len() == width * height * 3, "{}: not a colour picture", path.display());
        Ok(Self { width, height, rgb })
    }

    /// Without the last row or column where their number is even.
    #[must_use]
    pub fn odd(&self) -> Self {
        let (width, height) = (self.width - 1 + self.width % 2, self.height - 1 + self.height % 2);
        let rows = self.rgb.chunks_exact(self.width * 3).take(height);
        Self { width, height, rgb: rows.flat_map(|row| &row[..width * 3]).copied().collect() }
    }

    fn pixel(&self, x: usize, y: usize) -> [i32; 3] {
        let at = (y * self.width + x) * 3;
        [0, 1, 2].map(|c| i32::from(self.rgb[at + c]))
    }

    /// The picture in another format, each row followed by `padding` bytes of rubbish. Planar formats are BT.601,
    /// 16 to 235, by the integer formulas that `tests/bench/reference.py` also has.
    pub fn to(&self, format: PixelFormat, padding: usize) -> RawPicture {
        let (width, height) = (self.width, self.height);
        let planes = match format {
            PixelFormat::Rgb => vec![self.packed(padding, |[r, g, b]| vec![r, g, b])],
            PixelFormat::Bgr => vec![self.packed(padding, |[r, g, b]| vec![b, g, r])],
            PixelFormat::Rgbx => vec![self.packed(padding, |[r, g, b]| vec![r, g, b, 77])],
            PixelFormat::Bgrx => vec![self.packed(padding, |[r, g, b]| vec![b, g, r, 77])],
            PixelFormat::Gray8 => vec![self.packed(padding, |rgb| vec![luma(rgb)])],
            PixelFormat::Nv12 => {
                let chroma = self.chroma().map(|row| row.flatten().collect());
                vec![self.packed(padding, |rgb| vec![luma(rgb)]), padded(chroma, padding)]
            }
            PixelFormat::I420 => {
                let plane =
                    |i: usize| padded(self.chroma().map(|row| row.map(|uv| uv[i]).collect()), padding);
                vec![self.packed(padding, |rgb| vec![luma(rgb)]), plane(0), plane(1)]
            }
        };
        RawPicture { format, width, height, planes }
    }

    fn packed(&self, padding: usize, bytes: impl Fn([i32; 3]) -> Vec<i32>) -> (Vec<u8>, usize) {
        let row = |y| (0..self.width).flat_map(|x| bytes(self.pixel(x, y))).map(|v| v as u8).collect();
        padded((0..self.height).map(row), padding)
    }

    /// Rows of U and V, each from the mean of the two by two pixels that it covers.
    fn chroma(&self) -> impl Iterator<Item = impl Iterator<Item = [u8; 2]>> {
        (0..self.height.div_ceil(2)).map(move |row| {
            (0..self.width.div_ceil(2)).map(move |column| {
                let mut sum = [0; 3];
                let mut count = 0;
                for y in (2 * row..2 * row + 2).filter(|y| *y < self.height) {
                    for x in (2 * column..2 * column + 2).filter(|x| *x < self.width) {
                        let pixel = self.pixel(x, y);
                        sum = [0, 1, 2].map(|c| sum[c] + pixel[c]);
                        count += 1;
                    }
                }
                let [r, g, b] = sum.map(|sum| (sum + count / 2) / count);
                let u = ((-38 * r - 74 * g + 112 * b + 128) >> 8) + 128;
                let v = ((112 * r - 94 * g - 18 * b + 128) >> 8) + 128;
                [u as u8, v as u8]
            })
        })
    }
}

fn luma([r, g, b]: [i32; 3]) -> i32 {
    ((66 * r + 129 * g + 25 * b + 128) >> 8) + 16
}

/// Rows with rubbish between them (none after the last), and their distance.
fn padded(rows: impl Iterator<Item = Vec<u8>>, padding: usize) -> (Vec<u8>, usize) {
    let rows: Vec<_> = rows.collect();
    let stride = rows.first().map_or(0, Vec::len) + padding;
    (rows.join(&vec![0xa5; padding][..]), stride)
}

/// Memory of one frame.
#[derive(Clone, Debug)]
pub struct RawPicture {
    pub format: PixelFormat,
    pub width: usize,
    pub height: usize,
    /// Bytes and stride of each plane.
    pub planes: Vec<(Vec<u8>, usize)>,
}

impl RawPicture {
    pub fn frame(&self) -> Frame<'_> {
        let mut planes = [Plane::default(); 3];
        for (plane, (data, stride)) in planes.iter_mut().zip(&self.planes) {
            *plane = Plane { data, stride: *stride };
        }
        Frame {
            format: self.format,
            width: self.width,
            height: self.height,
            planes,
            matrix: ColorMatrix::Bt601,
            range: ColorRange::Limited,
        }
    }
}
