//! YuNet faces (Wu et al. 2023, doi:10.1007/s11633-023-1423-y): per cell two scores whose geometric mean counts,
//! and a box as offset and logarithm of the size in cells.

use super::{
    Boxes, DecodeError,
    outputs::{Reader, View},
};
use crate::model::cells;

const STRIDES: [usize; 3] = [8, 16, 32];
/// As for YOLOX: larger exponents only overflow.
const MAX_LOG_SIZE: f32 = 12.0;

pub(super) fn decode(reader: &mut Reader<'_>, boxes: &mut Boxes<'_>) -> Result<(), DecodeError> {
    let (width, height) = (reader.spec.input.width, reader.spec.input.height);
    // Six score columns in whatever order, then three box tables.
    let views: [View<'_>; 9] = reader.views([2; 9], true)?;
    let (scores, tables) = views.split_at(6);
    let threshold = boxes.threshold();
    for stride in STRIDES {
        let n = cells(width, height, &[stride]);
        let missing = || DecodeError::Missing { expected: format!("has {n} rows for stride {stride}") };
        let mut pair = scores.iter().filter(|view| *view.shape == [n, 1]);
        let (first, second) = (pair.next().ok_or_else(missing)?, pair.next().ok_or_else(missing)?);
        let table = tables.iter().find(|view| *view.shape == [n, 4]).ok_or_else(missing)?;
        let size = stride as f32;
        let columns = width.div_ceil(stride);
        for (cell, ((&a, &b), row)) in
            first.data.iter().zip(second.data).zip(table.data.chunks_exact(4)).enumerate()
        {
            if !(a * b).is_finite() {
                return Err(DecodeError::NotFinite { name: first.name.into() });
            }
            let score = (a.clamp(0.0, 1.0) * b.clamp(0.0, 1.0)).sqrt();
            if score < threshold {
                continue;
            }
            let cx = ((cell % columns) as f32 + row[0]) * size;
            let cy = ((cell / columns) as f32 + row[1]) * size;
            let (w, h) = (row[2].min(MAX_LOG_SIZE).exp() * size, row[3].min(MAX_LOG_SIZE).exp() * size);
            boxes.add_centre(table.name, score, 0, [cx, cy, w, h])?;
        }
    }
    Ok(())
}
