//! A view of one raw video frame in memory.

/// The pixel formats that are read without conversion. Names as in GStreamer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub enum PixelFormat {
    /// Luma plane, then interleaved U V at half size.
    Nv12,
    /// Luma, U and V planes, chroma at half size.
    I420,
    Rgb,
    Bgr,
    /// Four bytes, the last is alpha or padding and is not looked at.
    Rgbx,
    Bgrx,
    Gray8,
}

impl PixelFormat {
    pub const fn planes(self) -> usize {
        match self {
            Self::Nv12 => 2,
            Self::I420 => 3,
            _ => 1,
        }
    }
}

/// Y'CbCr to R'G'B' coefficients.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
pub enum ColorMatrix {
    #[default]
    Bt601,
    Bt709,
    Bt2020,
}

impl ColorMatrix {
    /// Weights of red and blue in luma, after ITU-R BT.601, BT.709 and BT.2020.
    pub const fn weights(self) -> (f32, f32) {
        match self {
            Self::Bt601 => (0.299, 0.114),
            Self::Bt709 => (0.2126, 0.0722),
            Self::Bt2020 => (0.2627, 0.0593),
        }
    }
}

/// Which codes mean black and white.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash)]
pub enum ColorRange {
    /// 16 to 235.
    #[default]
    Limited,
    /// 0 to 255.
    Full,
}

/// One plane: bytes and the distance of two rows in bytes. The last row may be shorter than `stride`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plane<'a> {
    pub data: &'a [u8],
    pub stride: usize,
}

/// One frame. Chroma planes of an odd-sized frame are rounded up.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub format: PixelFormat,
    pub width: usize,
    pub height: usize,
    pub planes: [Plane<'a>; 3],
    pub matrix: ColorMatrix,
    pub range: ColorRange,
}

/// One plane that can be written: bytes and the distance of two rows in bytes.
#[derive(Debug, Default)]
pub struct PlaneMut<'a> {
    pub data: &'a mut [u8],
    pub stride: usize,
}

/// A frame that can be written; the writable twin of [`Frame`].
#[derive(Debug)]
pub struct FrameMut<'a> {
    pub format: PixelFormat,
    pub width: usize,
    pub height: usize,
    pub planes: [PlaneMut<'a>; 3],
    pub matrix: ColorMatrix,
    pub range: ColorRange,
}

impl FrameMut<'_> {
    /// The same frame, for reading.
    pub fn as_frame(&self) -> Frame<'_> {
        let plane = |n: usize| Plane { data: &*self.planes[n].data, stride: self.planes[n].stride };
        Frame {
            format: self.format,
            width: self.width,
            height: self.height,
            planes: [plane(0), plane(1), plane(2)],
            matrix: self.matrix,
            range: self.range,
        }
    }

    /// Checks that every plane holds what the size promises.
    pub fn validate(&self) -> Result<(), FrameError> {
        self.as_frame().validate()
    }
}

/// The longest side that is accepted, in pixels: twice what any camera or codec in use gives.
pub const MAX_SIDE: usize = 32768;

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {width}x{height} has no pixels")]
    Empty { width: usize, height: usize },
    #[error("a frame of {width}x{height} is larger than {MAX_SIDE} pixels on a side")]
    TooLarge { width: usize, height: usize },
    #[error(
        "plane {plane} of a {width}x{height} {format:?} frame needs {need} bytes with stride {stride}, got {got}"
    )]
    Short {
        format: PixelFormat,
        width: usize,
        height: usize,
        plane: usize,
        stride: usize,
        need: usize,
        got: usize,
    },
}

impl Frame<'_> {
    /// Bytes per row and rows of a plane, without padding. Sizes must be at most [`MAX_SIDE`].
    pub fn plane_size(&self, plane: usize) -> (usize, usize) {
        let (w, h) = (self.width, self.height);
        match (self.format, plane) {
            (PixelFormat::Nv12, 1) => (w.div_ceil(2) * 2, h.div_ceil(2)),
            (PixelFormat::I420, 1 | 2) => (w.div_ceil(2), h.div_ceil(2)),
            (PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Gray8, _) => (w, h),
            (PixelFormat::Rgb | PixelFormat::Bgr, _) => (w * 3, h),
            (PixelFormat::Rgbx | PixelFormat::Bgrx, _) => (w * 4, h),
        }
    }

    /// Checks that every plane holds what the size promises.
    pub fn validate(&self) -> Result<(), FrameError> {
        let (width, height, format) = (self.width, self.height, self.format);
        if width == 0 || height == 0 {
            return Err(FrameError::Empty { width, height });
        }
        if width > MAX_SIDE || height > MAX_SIDE {
            return Err(FrameError::TooLarge { width, height });
        }
        for plane in 0..format.planes() {
            let (row, rows) = self.plane_size(plane);
            let stride = self.planes[plane].stride;
            // A hostile stride must not wrap around to a small need.
            let need = stride.saturating_mul(rows - 1).saturating_add(row);
            let got = self.planes[plane].data.len();
            if stride < row || got < need {
                return Err(FrameError::Short { format, width, height, plane, stride, need, got });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(format: PixelFormat, width: usize, height: usize, planes: [(&[u8], usize); 3]) -> Frame<'_> {
        Frame {
            format,
            width,
            height,
            planes: planes.map(|(data, stride)| Plane { data, stride }),
            matrix: ColorMatrix::default(),
            range: ColorRange::default(),
        }
    }

    #[test]
    fn the_last_row_may_be_short_of_its_stride() {
        let (y, uv) = ([0; 8 * 4 + 5], [0; 8 * 2 + 6]);
        let planes = [(&y[..], 8), (&uv[..], 8), (&[][..], 0)];
        assert_eq!(frame(PixelFormat::Nv12, 5, 5, planes).validate(), Ok(()));
        let planes = [(&y[..], 8), (&uv[..21], 8), (&[][..], 0)];
        let error = frame(PixelFormat::Nv12, 5, 5, planes).validate().unwrap_err();
        assert_eq!(
            error.to_string(),
            "plane 1 of a 5x5 Nv12 frame needs 22 bytes with stride 8, got 21",
            "odd sizes round chroma up"
        );
    }

    #[test]
    fn hostile_sizes_and_strides_are_errors() {
        let bytes = [0u8; 64];
        let none = (&[][..], 0);
        for (width, height, stride) in [
            (0, 4, 16),
            (4, 0, 16),
            (4, 4, 11),
            (4, 4, usize::MAX),
            (usize::MAX, 4, 16),
            (4, usize::MAX, 16),
            (5, 5, 15),
        ] {
            let planes = [(&bytes[..], stride), none, none];
            assert!(
                frame(PixelFormat::Rgb, width, height, planes).validate().is_err(),
                "{width}x{height} {stride}"
            );
        }
    }
}
