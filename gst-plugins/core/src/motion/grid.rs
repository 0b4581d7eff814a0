//! A frame as a grid of mean brightness, about a hundred cells high.

use crate::frame::{Frame, FrameError, PixelFormat};

/// Rows of cells that are aimed at.
const ROWS: usize = 100;
/// Rows of pixels that are read of each row of cells, of brightness planes and of colour formats, which take three times
/// as long: the rest adds nothing but memory traffic.
const SAMPLES: [usize; 2] = [4, 2];

/// Size of a grid, in cells and in pixels of a cell.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Layout {
    pub columns: usize,
    pub rows: usize,
    pub cell: usize,
}

impl Layout {
    /// For a frame of `width` × `height`; cells that would stick out are left away.
    pub fn of(width: usize, height: usize) -> Self {
        let cell = height.div_ceil(ROWS).max(1).min(width.max(1));
        Self { columns: width / cell, rows: height / cell, cell }
    }
}

/// Writes the mean brightness of each cell, in 8-bit steps, row by row. Of colour formats green stands for it.
pub fn sample(
    frame: &Frame<'_>,
    layout: Layout,
    sums: &mut Vec<u16>,
    out: &mut Vec<f32>,
) -> Result<(), FrameError> {
    frame.validate()?;
    let (offset, step) = match frame.format {
        PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Gray8 => (0, 1),
        PixelFormat::Rgb | PixelFormat::Bgr => (1, 3),
        PixelFormat::Rgbx | PixelFormat::Bgrx => (1, 4),
    };
    let Layout { columns, rows, cell } = layout;
    let plane = frame.planes[0];
    let samples = SAMPLES[usize::from(step > 1)].min(cell);
    let used = columns * cell;
    out.clear();
    for row in 0..rows {
        sums.clear();
        sums.resize(used, 0);
        for n in 0..samples {
            let y = row * cell + n * cell / samples;
            let line = &plane.data[y * plane.stride..][..frame.width * step];
            if step == 1 {
                for (sum, &v) in sums.iter_mut().zip(line) {
                    *sum += u16::from(v);
                }
            } else {
                for (sum, pixel) in sums.iter_mut().zip(line.chunks_exact(step)) {
                    *sum += u16::from(pixel[offset]);
                }
            }
        }
        let scale = 1.0 / (samples * cell) as f32;
        out.extend(
            sums.chunks_exact(cell)
                .map(|cell| cell.iter().map(|&v| u32::from(v)).sum::<u32>() as f32 * scale),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{ColorMatrix, ColorRange, Plane};

    fn frame(format: PixelFormat, width: usize, height: usize, data: &[u8], stride: usize) -> Frame<'_> {
        let planes = [Plane { data, stride }, Plane::default(), Plane::default()];
        Frame { format, width, height, planes, matrix: ColorMatrix::Bt601, range: ColorRange::Full }
    }

    #[test]
    fn layouts_are_about_a_hundred_rows_high() {
        for (size, expected) in [
            ((1280, 720), (160, 90, 8)),
            ((1920, 1080), (174, 98, 11)),
            ((640, 360), (160, 90, 4)),
            ((178, 100), (178, 100, 1)),
            ((16, 4000), (1, 250, 16)),
        ] {
            let Layout { columns, rows, cell } = Layout::of(size.0, size.1);
            assert_eq!((columns, rows, cell), expected, "{size:?}");
        }
    }

    #[test]
    fn every_format_gives_the_same_brightness() {
        let (width, height) = (40, 200);
        for (format, bytes, green) in [
            (PixelFormat::Gray8, 1, 0),
            (PixelFormat::Rgb, 3, 1),
            (PixelFormat::Bgr, 3, 1),
            (PixelFormat::Rgbx, 4, 1),
            (PixelFormat::Bgrx, 4, 1),
        ] {
            let stride = width * bytes + 5;
            let mut data = vec![0; stride * height];
            for y in 0..height {
                for x in 0..width {
                    data[y * stride + x * bytes + green] = (x / 2 * 3 + y / 2) as u8;
                }
            }
            let layout = Layout::of(width, height);
            let (mut sums, mut cells) = (Vec::new(), Vec::new());
            sample(&frame(format, width, height, &data, stride), layout, &mut sums, &mut cells).unwrap();
            assert_eq!(cells.len(), layout.columns * layout.rows);
            for (n, cell) in cells.iter().enumerate() {
                let (x, y) = (n % layout.columns, n / layout.columns);
                assert_eq!(*cell, (x * 3 + y) as f32, "{format:?} {x} {y}");
            }
        }
    }

    #[test]
    fn a_short_frame_is_an_error() {
        let data = vec![0; 100];
        let layout = Layout::of(40, 200);
        let short = frame(PixelFormat::Gray8, 40, 200, &data, 40);
        assert!(sample(&short, layout, &mut Vec::new(), &mut Vec::new()).is_err());
    }
}
