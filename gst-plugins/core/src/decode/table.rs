//! Ready-made tables, one row a box: end-to-end YOLOs (N×6) and exports with suppression inside (N×7).

use super::{Boxes, DecodeError, outputs::Reader};

/// x1 y1 x2 y2 score class.
pub(super) fn decode_yolov10(reader: &mut Reader<'_>, boxes: &mut Boxes<'_>) -> Result<(), DecodeError> {
    let view = reader.view(2)?;
    if !matches!(view.shape, [_, 6]) {
        return Err(view.unexpected("N×6 table"));
    }
    let threshold = boxes.threshold();
    let confident = || view.data.chunks_exact(6).filter(|row| row[4].is_nan() || row[4] >= threshold);
    boxes.settle_unit(confident().flat_map(|row| &row[..4]).fold(0.0, |largest, v| largest.max(v.abs())));
    for row in confident() {
        if let Some(class_id) = boxes.class_of(view.name, row[5])? {
            boxes.add(view.name, row[4], class_id, [row[0], row[1], row[2], row[3]])?;
        }
    }
    Ok(())
}

/// picture x1 y1 x2 y2 class score, all pictures of the batch in one table.
pub(super) fn decode_nms7(reader: &mut Reader<'_>, boxes: &mut Boxes<'_>) -> Result<(), DecodeError> {
    let view = reader.whole()?;
    if !matches!(view.shape, [_, 7]) {
        return Err(view.unexpected("N×7 table"));
    }
    let (index, threshold) = (boxes.picture.index as f32, boxes.threshold());
    for row in view.data.chunks_exact(7) {
        if !row[0].is_finite() {
            return Err(DecodeError::NotFinite { name: view.name.into() });
        }
        if row[0] != index || row[6] < threshold {
            continue;
        }
        if let Some(class_id) = boxes.class_of(view.name, row[5])? {
            boxes.add(view.name, row[6], class_id, [row[1], row[2], row[3], row[4]])?;
        }
    }
    Ok(())
}
