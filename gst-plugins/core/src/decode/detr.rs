//! The DETR family: RT-DETR, D-FINE, DEIM, RF-DETR. A fixed number of queries, no suppression.

use super::{Boxes, DecodeError, outputs::Reader, simd};
use crate::model::{Activation, Form};

pub(super) fn decode(reader: &mut Reader<'_>, boxes: &mut Boxes<'_>) -> Result<(), DecodeError> {
    match reader.spec.head.form {
        Form::LogitsBoxes => logits_boxes(reader, boxes),
        Form::Combined => combined(reader, boxes),
        Form::LabelsBoxesScores | Form::Plain => labels_boxes_scores(reader, boxes),
    }
}

fn labels_boxes_scores(reader: &mut Reader<'_>, boxes: &mut Boxes<'_>) -> Result<(), DecodeError> {
    let [labels, corners, scores] = reader.views([1, 2, 1], true)?;
    let n = scores.data.len();
    if labels.data.len() != n || *corners.shape != [n, 4] {
        return Err(corners.unexpected(format!("table {n}×4, as there are {n} scores")));
    }
    let threshold = boxes.threshold();
    let confident = || {
        let rows = corners.data.chunks_exact(4).zip(scores.data).zip(labels.data);
        rows.filter(|((_, score), _)| score.is_nan() || **score >= threshold)
    };
    let values = confident().flat_map(|((row, _), _)| row);
    boxes.settle_unit(values.fold(0.0, |largest, v| largest.max(v.abs())));
    for ((row, &score), &label) in confident() {
        if let Some(class_id) = boxes.class_of(labels.name, label)? {
            boxes.add(corners.name, score, class_id, [row[0], row[1], row[2], row[3]])?;
        }
    }
    Ok(())
}

/// Every query and class above the threshold is a box of its own, as in the published post-processing of
/// RT-DETR (sigmoid); with softmax only the best class of a query is (DETR).
fn logits_boxes(reader: &mut Reader<'_>, boxes: &mut Boxes<'_>) -> Result<(), DecodeError> {
    let activation = reader.spec.head.scores;
    let offset = reader.spec.head.label_offset;
    let [logits, corners] = reader.views([2, 2], false)?;
    let &[n, columns] = logits.shape else { return Err(logits.unexpected("table N×classes")) };
    if *corners.shape != [n, 4] || columns == 0 {
        return Err(corners.unexpected(format!("table {n}×4, as there are {n} rows of logits")));
    }
    let threshold = boxes.threshold();
    // The logit whose sigmoid is the threshold: all but a few scores then cost one comparison.
    let limit = match activation {
        Activation::Sigmoid => (threshold / (1.0 - threshold)).ln(),
        Activation::None | Activation::Softmax => threshold,
    };
    let index = |class_id: usize| usize::try_from(class_id as i64 - i64::from(offset)).ok();
    for (scores, row) in logits.data.chunks_exact(columns).zip(corners.data.chunks_exact(4)) {
        if !simd::all_finite(scores) {
            return Err(DecodeError::NotFinite { name: logits.name.into() });
        }
        let centre = [row[0], row[1], row[2], row[3]];
        if activation == Activation::Softmax {
            let (class_id, best) = simd::arg_max(&scores[..columns - 1]);
            let largest = simd::max(scores);
            let sum: f32 = scores.iter().map(|v| (v - largest).exp()).sum();
            let score = (best - largest).exp() / sum;
            if let Some(class_id) = index(class_id).filter(|_| score >= threshold) {
                boxes.add_centre(corners.name, score, class_id, centre)?;
            }
            continue;
        }
        if simd::max(scores) < limit {
            continue;
        }
        for (class_id, &value) in scores.iter().enumerate().filter(|(_, value)| **value >= limit) {
            let score = if activation == Activation::Sigmoid { 1.0 / (1.0 + (-value).exp()) } else { value };
            if let Some(class_id) = index(class_id) {
                boxes.add_centre(corners.name, score, class_id, centre)?;
            }
        }
    }
    Ok(())
}

/// Centre, size and class probabilities of each query side by side.
fn combined(reader: &mut Reader<'_>, boxes: &mut Boxes<'_>) -> Result<(), DecodeError> {
    let view = reader.view(2)?;
    let columns = match *view.shape {
        [_, columns] if columns > 4 => columns,
        _ => return Err(view.unexpected("table N×(4 + classes)")),
    };
    let threshold = boxes.threshold();
    if !simd::all_finite(view.data) {
        return Err(DecodeError::NotFinite { name: view.name.into() });
    }
    let confident = || view.data.chunks_exact(columns).filter(|row| simd::max(&row[4..]) >= threshold);
    boxes.settle_unit(confident().flat_map(|row| &row[..4]).fold(0.0, |largest, v| largest.max(v.abs())));
    for row in confident() {
        let (class_id, score) = simd::arg_max(&row[4..]);
        boxes.add_centre(view.name, score, class_id, [row[0], row[1], row[2], row[3]])?;
    }
    Ok(())
}
