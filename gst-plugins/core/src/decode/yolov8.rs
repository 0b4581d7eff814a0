//! YOLOv8, 9, 11, 12: (4 + C)×N, one row each for centre x, centre y, width, height and every class.

use super::{Boxes, DecodeError, outputs::Reader, simd};
use crate::model::strides_for;

const CLASSES: usize = 4;

pub(super) fn decode(reader: &mut Reader<'_>, boxes: &mut Boxes<'_>) -> Result<(), DecodeError> {
    let (width, height) = (reader.spec.input.width, reader.spec.input.height);
    let classes = reader.spec.head.classes;
    let view = reader.view(2)?;
    let &[a, b] = view.shape else { return Err(view.unexpected("(4 + classes)×N table")) };
    let is_cells = |n: usize| strides_for(width, height, n).is_some();
    let has_attributes = |n: usize| n > CLASSES && classes.is_none_or(|classes| classes + CLASSES == n);
    match (has_attributes(a), has_attributes(b)) {
        (true, false) => by_rows(&view, b, boxes),
        (true, true) if is_cells(b) || !is_cells(a) => by_rows(&view, b, boxes),
        (_, true) => by_columns(&view, b, boxes),
        (false, false) => {
            let expected = classes.map_or_else(|| "4 + classes".into(), |n| (n + CLASSES).to_string());
            Err(view.unexpected(format!("{expected}×N table")))
        }
    }
}

/// Every attribute a row: classes are compared for a block of neighbouring cells at once.
fn by_rows(view: &super::outputs::View<'_>, n: usize, boxes: &mut Boxes<'_>) -> Result<(), DecodeError> {
    if n == 0 {
        return Ok(());
    }
    let threshold = boxes.threshold();
    let scores = &view.data[CLASSES * n..];
    let mut block = [0.0; simd::BLOCK];
    for start in (0..n).step_by(simd::BLOCK) {
        let best = &mut block[..simd::BLOCK.min(n - start)];
        if !simd::column_max(scores, n, start, best) {
            return Err(DecodeError::NotFinite { name: view.name.into() });
        }
        for (offset, &score) in best.iter().enumerate() {
            if score < threshold {
                continue;
            }
            let cell = start + offset;
            let class_id = scores.chunks_exact(n).position(|row| row[cell] == score).unwrap_or(0);
            let at = |row: usize| view.data[row * n + cell];
            boxes.add_centre(view.name, score, class_id, [at(0), at(1), at(2), at(3)])?;
        }
    }
    Ok(())
}

/// Every cell a row, as transposed exports have it.
fn by_columns(
    view: &super::outputs::View<'_>,
    columns: usize,
    boxes: &mut Boxes<'_>,
) -> Result<(), DecodeError> {
    for row in view.data.chunks_exact(columns) {
        let (class_id, score) = simd::arg_max(&row[CLASSES..]);
        if !simd::all_finite(row) {
            return Err(DecodeError::NotFinite { name: view.name.into() });
        }
        if score >= boxes.threshold() {
            boxes.add_centre(view.name, score, class_id, [row[0], row[1], row[2], row[3]])?;
        }
    }
    Ok(())
}
