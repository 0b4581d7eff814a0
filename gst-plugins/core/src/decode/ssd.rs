//! The TensorFlow detection API: boxes y1 x1 y2 x2, class ids from 1, scores, and how many of them count.

use super::{Boxes, DecodeError, outputs::Reader};

pub(super) fn decode(reader: &mut Reader<'_>, boxes: &mut Boxes<'_>) -> Result<(), DecodeError> {
    let counted = reader.spec.head.outputs.len() > 3;
    let ([corners, classes, scores], count) = if counted {
        let [corners, classes, scores, count] = reader.views([2, 1, 1, 0], false)?;
        ([corners, classes, scores], count.data.first().copied())
    } else {
        (reader.views([2, 1, 1], false)?, None)
    };
    let n = scores.data.len();
    if classes.data.len() != n || *corners.shape != [n, 4] {
        return Err(corners.unexpected(format!("table {n}×4, as there are {n} scores")));
    }
    if count.is_some_and(|count| !count.is_finite()) {
        return Err(DecodeError::NotFinite { name: "num_detections".into() });
    }
    let valid = count.map_or(n, |count| (count.max(0.0) as usize).min(n));
    let threshold = boxes.threshold();
    for ((row, &score), &class) in corners.data.chunks_exact(4).zip(scores.data).zip(classes.data).take(valid)
    {
        if score < threshold {
            continue;
        }
        if let Some(class_id) = boxes.class_of(classes.name, class)? {
            boxes.add(corners.name, score, class_id, [row[1], row[0], row[3], row[2]])?;
        }
    }
    Ok(())
}
