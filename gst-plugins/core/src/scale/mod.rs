//! Scales planar YUV pictures into a part of another picture, in one pass and without a copy in between.
//!
//! Rows are blended first, columns second, two samples each way. Where a picture becomes less than half its size,
//! blocks of two by two, four by four and so on are averaged first, so that every sample counts and nothing
//! flickers. Positions are those of pixel centres. The colours keep their codes; [`Recolour`] changes them where the
//! two pictures mean different colours by the same code.

mod kernels;
mod plane;
mod recolour;
#[cfg(test)]
mod tests;

use crate::{
    frame::{Frame, FrameError, PixelFormat},
    layout::{Area, Placement},
    scene::{FrameMut, PlaneMut},
};
use plane::PlaneScaler;
pub use recolour::Recolour;

/// Why a picture cannot be scaled.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ScaleError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{from:?} cannot be scaled to {to:?} without conversion")]
    Format { from: PixelFormat, to: PixelFormat },
    #[error("the part {part:?} does not fit a picture of {width}x{height}")]
    Part { part: Area, width: usize, height: usize },
}

/// Scales pictures of one size and format to one place of another picture. Holds tables and rows, so that a frame
/// allocates nothing.
#[derive(Debug)]
pub struct Scaler {
    from: PixelFormat,
    to: PixelFormat,
    size: (usize, usize),
    placement: Placement,
    luma: PlaneScaler,
    /// One for interleaved chroma, two of the same for planes.
    chroma: Vec<PlaneScaler>,
    /// Chroma rows between an interleaved and a planar picture.
    rows: [Vec<u8>; 2],
}

/// Whether pictures of these formats are scaled here.
pub fn is_supported(from: PixelFormat, to: PixelFormat) -> bool {
    let yuv = |format| matches!(format, PixelFormat::Nv12 | PixelFormat::I420);
    yuv(from) && yuv(to)
}

impl Scaler {
    /// For pictures of `size` (width, height) in `from`, into pictures of `to`.
    ///
    /// # Errors
    /// Formats that are not planar YUV, and a source part that is not in the picture.
    pub fn new(
        from: PixelFormat,
        to: PixelFormat,
        size: (usize, usize),
        placement: Placement,
    ) -> Result<Self, ScaleError> {
        if !is_supported(from, to) {
            return Err(ScaleError::Format { from, to });
        }
        let (source, target) = (placement.source, placement.target);
        if source.is_empty()
            || target.is_empty()
            || source.right() as usize > size.0
            || source.bottom() as usize > size.1
            || [source.x, source.y, target.x, target.y].iter().any(|n| n % 2 != 0)
        {
            return Err(ScaleError::Part { part: source, width: size.0, height: size.1 });
        }
        let half =
            |area: Area| Area::new(area.x / 2, area.y / 2, area.width.div_ceil(2), area.height.div_ceil(2));
        let channels = if from == PixelFormat::Nv12 { 2 } else { 1 };
        let chroma =
            (0..3 - channels).map(|_| PlaneScaler::new(channels, half(source), half(target))).collect();
        Ok(Self {
            from,
            to,
            size,
            placement,
            luma: PlaneScaler::new(1, source, target),
            chroma,
            rows: [Vec::new(), Vec::new()],
        })
    }

    /// Whether this is the scaler for these pictures.
    pub fn fits(&self, from: PixelFormat, to: PixelFormat, size: (usize, usize), at: Placement) -> bool {
        self.from == from && self.to == to && self.size == size && self.placement == at
    }

    /// Draws `source` into its place in `target`.
    ///
    /// # Errors
    /// A picture that is not the one promised, or has too little memory.
    pub fn scale(&mut self, source: &Frame<'_>, target: &mut FrameMut<'_>) -> Result<(), ScaleError> {
        source.validate()?;
        target.validate()?;
        let (from, to) = (source.format, target.format);
        if from != self.from || to != self.to {
            return Err(ScaleError::Format { from, to });
        }
        let part = |part, width, height| Err(ScaleError::Part { part, width, height });
        if (source.width, source.height) != self.size {
            return part(self.placement.source, source.width, source.height);
        }
        let place = self.placement.target;
        if place.right() as usize > target.width || place.bottom() as usize > target.height {
            return part(place, target.width, target.height);
        }
        let [luma, first, second] = &mut target.planes;
        self.luma.begin();
        for y in 0..place.height as usize {
            self.luma.row(
                source.planes[0],
                y,
                row_of(luma, place.x as usize, place.y as usize + y, place.width as usize),
            );
        }
        let (x, y) = (place.x as usize / 2, place.y as usize / 2);
        let (width, height) = ((place.width as usize).div_ceil(2), (place.height as usize).div_ceil(2));
        let [u, v] = &mut self.rows;
        for scaler in &mut self.chroma {
            scaler.begin();
        }
        for row in 0..height {
            match (from, to, &mut self.chroma[..]) {
                (PixelFormat::Nv12, PixelFormat::Nv12, [both, ..]) => {
                    both.row(source.planes[1], row, row_of(first, 2 * x, y + row, 2 * width));
                }
                (PixelFormat::Nv12, _, [both, ..]) => {
                    u.resize(2 * width, 0);
                    both.row(source.planes[1], row, u);
                    kernels::split(u, row_of(first, x, y + row, width), row_of(second, x, y + row, width));
                }
                (_, PixelFormat::Nv12, [a, b, ..]) => {
                    u.resize(width, 0);
                    v.resize(width, 0);
                    a.row(source.planes[1], row, u);
                    b.row(source.planes[2], row, v);
                    kernels::join(u, v, row_of(first, 2 * x, y + row, 2 * width));
                }
                (_, _, [a, b, ..]) => {
                    a.row(source.planes[1], row, row_of(first, x, y + row, width));
                    b.row(source.planes[2], row, row_of(second, x, y + row, width));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Bytes of one row of a validated plane.
fn row_of<'a>(plane: &'a mut PlaneMut<'_>, x: usize, y: usize, length: usize) -> &'a mut [u8] {
    let start = y * plane.stride + x;
    &mut plane.data[start..start + length]
}

/// Fills a part of a picture with one colour, given as Y, Cb and Cr. Parts outside of the picture are left out.
///
/// # Errors
/// A format other than planar YUV, or too little memory.
pub fn fill(target: &mut FrameMut<'_>, area: Area, colour: [u8; 3]) -> Result<(), ScaleError> {
    target.validate()?;
    let format = target.format;
    if !is_supported(format, format) {
        return Err(ScaleError::Format { from: format, to: format });
    }
    let right = (area.right() as usize).min(target.width);
    let bottom = (area.bottom() as usize).min(target.height);
    let (left, top) = (area.x as usize, area.y as usize);
    if left >= right || top >= bottom {
        return Ok(());
    }
    let [luma, first, second] = &mut target.planes;
    for y in top..bottom {
        row_of(luma, left, y, right - left).fill(colour[0]);
    }
    let (left, right) = (left / 2, right.div_ceil(2));
    for y in top / 2..bottom.div_ceil(2) {
        if format == PixelFormat::Nv12 {
            for pair in row_of(first, 2 * left, y, 2 * (right - left)).chunks_exact_mut(2) {
                pair.copy_from_slice(&colour[1..]);
            }
        } else {
            row_of(first, left, y, right - left).fill(colour[1]);
            row_of(second, left, y, right - left).fill(colour[2]);
        }
    }
    Ok(())
}

/// Takes the colour out of a part of a picture and darkens it, so that it cannot be mistaken for the present.
///
/// # Errors
/// A format other than planar YUV, or too little memory.
pub fn grey(target: &mut FrameMut<'_>, area: Area) -> Result<(), ScaleError> {
    target.validate()?;
    let black: u16 = if target.range == crate::frame::ColorRange::Full { 0 } else { 16 };
    let right = (area.right() as usize).min(target.width);
    let bottom = (area.bottom() as usize).min(target.height);
    let format = target.format;
    if !is_supported(format, format) {
        return Err(ScaleError::Format { from: format, to: format });
    }
    let (left, top) = (area.x as usize, area.y as usize);
    if left >= right || top >= bottom {
        return Ok(());
    }
    let [luma, first, second] = &mut target.planes;
    for y in top..bottom {
        for value in row_of(luma, left, y, right - left) {
            *value = (black + u16::from(*value).saturating_sub(black) * 7 / 16) as u8;
        }
    }
    let (left, right) = (left / 2, right.div_ceil(2));
    for y in top / 2..bottom.div_ceil(2) {
        if format == PixelFormat::Nv12 {
            row_of(first, 2 * left, y, 2 * (right - left)).fill(128);
        } else {
            row_of(first, left, y, right - left).fill(128);
            row_of(second, left, y, right - left).fill(128);
        }
    }
    Ok(())
}
