//! FastestDet (dog-qiuqiu): one grid, channels objectness, offset x, offset y, width, height, classes.

use super::{Boxes, DecodeError, outputs::Reader, simd};

const CLASSES: usize = 5;

pub(super) fn decode(reader: &mut Reader<'_>, boxes: &mut Boxes<'_>) -> Result<(), DecodeError> {
    let (width, height) = (reader.spec.input.width as f32, reader.spec.input.height as f32);
    let view = reader.view(3)?;
    let (channels, rows, columns) = match *view.shape {
        [channels, rows, columns] if channels > CLASSES && rows > 0 && columns > 0 => {
            (channels, rows, columns)
        }
        _ => return Err(view.unexpected("(5 + classes)×rows×columns grid")),
    };
    if !simd::all_finite(view.data) {
        return Err(DecodeError::NotFinite { name: view.name.into() });
    }
    let cells = rows * columns;
    let threshold = boxes.threshold();
    let mut block = [0.0; simd::BLOCK];
    for start in (0..cells).step_by(simd::BLOCK) {
        let best = &mut block[..simd::BLOCK.min(cells - start)];
        simd::column_max(&view.data[CLASSES * cells..], cells, start, best);
        for (offset, &class_score) in best.iter().enumerate() {
            let cell = start + offset;
            let at = |channel: usize| view.data[channel * cells + cell];
            // The published weighting. Both factors are probabilities.
            let score = at(0).max(0.0).powf(0.6) * class_score.max(0.0).powf(0.4);
            if score < threshold {
                continue;
            }
            let class_id = (CLASSES..channels).position(|channel| at(channel) == class_score).unwrap_or(0);
            let cx = ((cell % columns) as f32 + at(1).tanh()) / columns as f32 * width;
            let cy = ((cell / columns) as f32 + at(2).tanh()) / rows as f32 * height;
            let sigmoid = |v: f32| 1.0 / (1.0 + (-v).exp());
            boxes.add_centre(
                view.name,
                score,
                class_id,
                [cx, cy, sigmoid(at(3)) * width, sigmoid(at(4)) * height],
            )?;
        }
    }
    Ok(())
}
