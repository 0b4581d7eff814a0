//! YOLOX, and YOLOv5 and v7, which share the row: centre, size, objectness, class probabilities.
//!
//! YOLOX (Ge et al. 2021, arXiv:2107.08430) predicts per cell of grids with strides 8, 16, 32 an offset of the
//! centre in cells and the logarithm of the size in cells; its exporter can also write pixels
//! (`--decode_in_inference`), with the same shape. YOLOv5 and v7 always write pixels.

use super::{
    Boxes, DecodeError,
    outputs::{Reader, View},
    simd,
};
use crate::model::strides_for;

const OBJECTNESS: usize = 4;
const CLASSES: usize = 5;
/// e^12 cells are wider than any frame; larger exponents only overflow.
const MAX_LOG_SIZE: f32 = 12.0;

pub(super) fn decode(reader: &mut Reader<'_>, boxes: &mut Boxes<'_>) -> Result<(), DecodeError> {
    let (width, height) = (reader.spec.input.width, reader.spec.input.height);
    let view = reader.view(2)?;
    let (n, columns) = rows(&view)?;
    let Some(strides) = strides_for(width, height, n) else {
        return Err(view.unexpected(format!("row for each cell of the grids of a {width}×{height} input")));
    };
    if is_decoded(&view, columns, width, height) {
        return pixels(&view, columns, boxes);
    }
    let mut rows = view.data.chunks_exact(columns);
    for &stride in strides {
        let (grid_width, grid_height) = (width.div_ceil(stride), height.div_ceil(stride));
        let size = stride as f32;
        for y in 0..grid_height {
            for (x, row) in (0..grid_width).zip(&mut rows) {
                let Some((score, class_id)) = confident(&view, row, boxes.threshold())? else { continue };
                let (w, h) = (row[2].min(MAX_LOG_SIZE).exp() * size, row[3].min(MAX_LOG_SIZE).exp() * size);
                let centre = [(row[0] + x as f32) * size, (row[1] + y as f32) * size, w, h];
                boxes.add_centre(view.name, score, class_id, centre)?;
            }
        }
    }
    Ok(())
}

pub(super) fn decode_yolov5(reader: &mut Reader<'_>, boxes: &mut Boxes<'_>) -> Result<(), DecodeError> {
    let view = reader.view(2)?;
    let (_, columns) = rows(&view)?;
    pixels(&view, columns, boxes)
}

fn pixels(view: &View<'_>, columns: usize, boxes: &mut Boxes<'_>) -> Result<(), DecodeError> {
    for row in view.data.chunks_exact(columns) {
        if let Some((score, class_id)) = confident(view, row, boxes.threshold())? {
            boxes.add_centre(view.name, score, class_id, [row[0], row[1], row[2], row[3]])?;
        }
    }
    Ok(())
}

fn rows(view: &View<'_>) -> Result<(usize, usize), DecodeError> {
    match *view.shape {
        [n, columns] if columns > CLASSES => Ok((n, columns)),
        _ => Err(view.unexpected("table N×(5 + classes)")),
    }
}

/// Score and class of a row, `None` below the threshold. Most rows end at the first comparison.
#[inline]
fn confident(view: &View<'_>, row: &[f32], threshold: f32) -> Result<Option<(f32, usize)>, DecodeError> {
    let objectness = row[OBJECTNESS];
    if objectness < threshold {
        return Ok(None);
    }
    // NaN comes here too.
    if !simd::all_finite(row) {
        return Err(DecodeError::NotFinite { name: view.name.into() });
    }
    let (class_id, best) = simd::arg_max(&row[CLASSES..]);
    let score = objectness * best;
    Ok((score >= threshold).then_some((score, class_id)))
}

/// Whether the rows hold pixels: the last cell is the one at the bottom right, whose centre is either a few
/// cells (an offset) or nearly the input's width and height.
fn is_decoded(view: &View<'_>, columns: usize, width: usize, height: usize) -> bool {
    let last = view.data.chunks_exact(columns).next_back();
    last.is_some_and(|row| row[0] + row[1] > (width + height) as f32 / 2.0)
}
