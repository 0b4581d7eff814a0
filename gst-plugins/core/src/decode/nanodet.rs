//! NanoDet (RangiLyu): per cell class probabilities and, for each side of the box, a distribution over distances
//! in cells whose mean is the distance (Generalized Focal Loss, Li et al. 2020, arXiv:2006.04388).

use super::{Boxes, DecodeError, outputs::Reader, simd};
use crate::model::cells;

const STRIDES: [usize; 3] = [8, 16, 32];

pub(super) fn decode(reader: &mut Reader<'_>, boxes: &mut Boxes<'_>) -> Result<(), DecodeError> {
    let (width, height) = (reader.spec.input.width, reader.spec.input.height);
    let views = reader.views([2; 6], true)?;
    let threshold = boxes.threshold();
    for (level, stride) in STRIDES.into_iter().enumerate() {
        let (scores, distances) = (&views[level], &views[level + 3]);
        let n = cells(width, height, &[stride]);
        let (&[score_rows, classes], &[distance_rows, sides]) = (scores.shape, distances.shape) else {
            return Err(scores.unexpected("table N×classes"));
        };
        if score_rows != n || classes == 0 {
            return Err(scores.unexpected(format!("table {n}×classes for stride {stride}")));
        }
        if distance_rows != n || sides == 0 || sides % 4 != 0 {
            return Err(distances.unexpected(format!("table {n}×4·bins for stride {stride}")));
        }
        let size = stride as f32;
        let columns = width.div_ceil(stride);
        for (cell, row) in scores.data.chunks_exact(classes).enumerate() {
            let best = simd::max(row);
            if best < threshold && best > f32::NEG_INFINITY {
                continue;
            }
            if !simd::all_finite(row) {
                return Err(DecodeError::NotFinite { name: scores.name.into() });
            }
            let (class_id, score) = simd::arg_max(row);
            let bins = sides / 4;
            let spread = &distances.data[cell * sides..][..sides];
            let mut side = [0.0f32; 4];
            for (side, bins) in side.iter_mut().zip(spread.chunks_exact(bins)) {
                *side = mean_bin(bins) * size;
            }
            let x = (cell % columns) as f32 * size + (size - 1.0) / 2.0;
            let y = (cell / columns) as f32 * size + (size - 1.0) / 2.0;
            boxes.add(
                distances.name,
                score,
                class_id,
                [x - side[0], y - side[1], x + side[2], y + side[3]],
            )?;
        }
    }
    Ok(())
}

/// Mean of the bin numbers, weighted by the softmax of `logits`.
fn mean_bin(logits: &[f32]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for (bin, logit) in logits.iter().enumerate() {
        let weight = (logit - largest).exp();
        sum += weight;
        weighted += weight * bin as f32;
    }
    weighted / sum
}
