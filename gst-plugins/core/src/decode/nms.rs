//! Greedy non-maximum suppression within each class.

use crate::geometry::Rect;

/// A box above the threshold, in frame pixels, not yet clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub score: f32,
    pub class_id: u32,
    pub rect: Rect,
}

/// Sorts `candidates` best first and puts the indices of at most `max` of them into `kept`: those that no better
/// one of the same class overlaps by more than `overlap` (intersection over union). Equal scores stay in the
/// model's order, so the result does not depend on the run.
pub(super) fn select(candidates: &mut [Candidate], kept: &mut Vec<usize>, overlap: Option<f32>, max: usize) {
    kept.clear();
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    for (index, candidate) in candidates.iter().enumerate() {
        if kept.len() >= max {
            break;
        }
        let covered = overlap.is_some_and(|limit| {
            kept.iter().any(|&better| {
                let better = &candidates[better];
                better.class_id == candidate.class_id && better.rect.iou(&candidate.rect) > limit
            })
        });
        if !covered {
            kept.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(score: f32, class_id: u32, x: f32) -> Candidate {
        Candidate { score, class_id, rect: Rect::new(x, 0.0, 10.0, 10.0) }
    }

    #[test]
    fn the_better_box_of_a_class_stays() {
        // IoU of boxes 1 apart is 9/11, 5 apart 1/3.
        let mut list =
            [candidate(0.5, 0, 1.0), candidate(0.9, 0, 0.0), candidate(0.6, 1, 0.0), candidate(0.7, 0, 6.0)];
        let mut kept = Vec::new();
        select(&mut list, &mut kept, Some(0.45), 10);
        let scores: Vec<f32> = kept.iter().map(|&i| list[i].score).collect();
        assert_eq!(scores, [0.9, 0.7, 0.6]);
        select(&mut list, &mut kept, None, 10);
        assert_eq!(kept.len(), 4);
        select(&mut list, &mut kept, Some(0.45), 1);
        assert_eq!(kept.len(), 1);
        select(&mut list, &mut kept, Some(0.45), 0);
        assert!(kept.is_empty());
    }

    proptest! {
        #[test]
        fn no_two_kept_boxes_of_a_class_overlap(
            list in prop::collection::vec((0.0f32..1.0, 0u32..3, 0f32..40., 0f32..40., 1f32..20., 1f32..20.), 0..80),
            limit in 0.0f32..1.0,
        ) {
            let mut list: Vec<_> = list.into_iter()
                .map(|(score, class_id, x, y, w, h)| Candidate { score, class_id, rect: Rect::new(x, y, w, h) })
                .collect();
            let mut kept = Vec::new();
            select(&mut list, &mut kept, Some(limit), 1000);
            for (at, &a) in kept.iter().enumerate() {
                for &b in &kept[..at] {
                    prop_assert!(list[a].class_id != list[b].class_id || list[a].rect.iou(&list[b].rect) <= limit);
                    prop_assert!(list[b].score >= list[a].score);
                }
            }
            // Whatever was left out is covered by something kept.
            for index in (0..list.len()).filter(|index| !kept.contains(index)) {
                prop_assert!(kept.iter().any(|&k| list[k].class_id == list[index].class_id
                    && list[k].rect.iou(&list[index].rect) > limit));
            }
        }
    }
}
