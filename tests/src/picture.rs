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

    /// The picture in another format, each row followed by `padding` bytes of rubbish. Planar formats are BT.601,
    /// 16 to 235, by the integer formulas that `tests/bench/reference.py` also has.
    pub fn to(&self, format: PixelFormat, padding: usize) -> RawPicture {
        let pixels = |bytes: fn(&mut Vec<u8>, &[u8])| {
            let mut plane = Rows::new(padding);
            for row in self.rgb.chunks_exact(self.width * 3) {
                plane.push(|out| row.chunks_exact(3).for_each(|pixel| bytes(out, pixel)));
            }
            plane.finish()
        };
        let planes = match format {
            PixelFormat::Rgb => vec![pixels(Vec::extend_from_slice)],
            PixelFormat::Bgr => vec![pixels(|out, p| out.extend_from_slice(&[p[2], p[1], p[0]]))],
            PixelFormat::Rgbx => vec![pixels(|out, p| out.extend_from_slice(&[p[0], p[1], p[2], 77]))],
            PixelFormat::Bgrx => vec![pixels(|out, p| out.extend_from_slice(&[p[2], p[1], p[0], 77]))],
            PixelFormat::Gray8 => vec![pixels(|out, p| out.push(luma(p)))],
            PixelFormat::Nv12 => {
                let mut chroma = Rows::new(padding);
                self.chroma(|row| chroma.push(|out| row.iter().for_each(|uv| out.extend_from_slice(uv))));
                vec![pixels(|out, p| out.push(luma(p))), chroma.finish()]
            }
            PixelFormat::I420 => {
                let (mut u, mut v) = (Rows::new(padding), Rows::new(padding));
                self.chroma(|row| {
                    u.push(|out| row.iter().for_each(|uv| out.push(uv[0])));
                    v.push(|out| row.iter().for_each(|uv| out.push(uv[1])));
                });
                vec![pixels(|out, p| out.push(luma(p))), u.finish(), v.finish()]
            }
        };
        RawPicture { format, width: self.width, height: self.height, planes }
    }

    /// Rows of U and V, each from the mean of the two by two pixels that it covers.
    fn chroma(&self, mut take: impl FnMut(&[[u8; 2]])) {
        let mut line = Vec::new();
        for rows in self.rgb.chunks(self.width * 6) {
            line.clear();
            for column in (0..self.width).step_by(2) {
                let (mut sum, mut count) = ([0i32; 3], 0);
                for row in rows.chunks_exact(self.width * 3) {
                    for pixel in row[column * 3..].chunks_exact(3).take(2) {
                        for (sum, value) in sum.iter_mut().zip(pixel) {
                            *sum += i32::from(*value);
                        }
                        count += 1;
                    }
                }
                let [r, g, b] = sum.map(|sum| (sum + count / 2) / count);
                let u = ((-38 * r - 74 * g + 112 * b + 128) >> 8) + 128;
                let v = ((112 * r - 94 * g - 18 * b + 128) >> 8) + 128;
                line.push([u as u8, v as u8]);
            }
            take(&line);
        }
    }
}

fn luma(rgb: &[u8]) -> u8 {
    let [r, g, b] = [0, 1, 2].map(|c| i32::from(rgb[c]));
    (((66 * r + 129 * g + 25 * b + 128) >> 8) + 16) as u8
}

/// A plane with rubbish between its rows, none after the last.
struct Rows {
    data: Vec<u8>,
    padding: usize,
    stride: usize,
}

impl Rows {
    fn new(padding: usize) -> Self {
        Self { data: Vec::new(), padding, stride: 0 }
    }

    fn push(&mut self, row: impl FnOnce(&mut Vec<u8>)) {
        let start = self.data.len();
        row(&mut self.data);
        self.data.resize(self.data.len() + self.padding, 0xa5);
        self.stride = self.data.len() - start;
    }

    fn finish(mut self) -> (Vec<u8>, usize) {
        self.data.truncate(self.data.len() - self.padding);
        (self.data, self.stride)
    }
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
