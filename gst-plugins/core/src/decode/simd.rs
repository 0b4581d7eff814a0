//! The loops that see every number of an output, written so that the compiler turns them into vector code.

use pulp::Arch;

const LANES: usize = 8;

/// Index and value of the largest number; the first of equals. `(0, -inf)` of nothing. NaN is never the largest.
#[inline]
pub(super) fn arg_max(row: &[f32]) -> (usize, f32) {
    let best = max(row);
    (row.iter().position(|v| *v == best).unwrap_or(0), best)
}

/// The largest number, NaN left out.
#[inline]
pub(super) fn max(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = if *v > *lane { *v } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |best, v| if *v > best { *v } else { best })
}

/// Whether every number is finite.
#[inline]
pub(super) fn all_finite(row: &[f32]) -> bool {
    let mut lanes = [0.0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            // 0 for every finite number, NaN for any other.
            *lane += *v * 0.0;
        }
    }
    lanes.iter().all(|v| *v == 0.0) && rest.iter().all(|v| v.is_finite())
}

/// Columns that [`column_max`] takes at once; the two working rows then stay in the first-level cache.
pub(super) const BLOCK: usize = 512;

/// Largest number of each of `best.len()` ≤ [`BLOCK`] neighbouring columns from `start` on, over all rows of a
/// row-major table with `width` columns. False where any number is NaN or infinite.
pub(super) fn column_max(table: &[f32], width: usize, start: usize, best: &mut [f32]) -> bool {
    Arch::new().dispatch(|| column_max_inner(table, width, start, best))
}

#[inline(always)]
#[allow(clippy::inline_always, reason = "has to be compiled with the caller's vector instructions")]
fn column_max_inner(table: &[f32], width: usize, start: usize, best: &mut [f32]) -> bool {
    let mut poison = [0.0f32; BLOCK];
    let poison = &mut poison[..best.len()];
    best.fill(f32::NEG_INFINITY);
    for row in table.chunks_exact(width) {
        let row = &row[start..start + best.len()];
        for ((best, poison), v) in best.iter_mut().zip(poison.iter_mut()).zip(row) {
            *best = if *v > *best { *v } else { *best };
            *poison += *v * 0.0;
        }
    }
    poison.iter().all(|v| *v == 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arg_max_is_the_plain_one(row in prop::collection::vec(-10i8..10, 1..60)) {
            let row: Vec<f32> = row.into_iter().map(f32::from).collect();
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assert_eq!(arg_max(&row), (row.iter().position(|v| *v == best).unwrap(), best));
        }

        #[test]
        fn one_bad_number_is_found(len in 1usize..60, at in 0usize..60, which in 0usize..3) {
            let mut row = vec![1.5f32; len];
            prop_assert!(all_finite(&row));
            let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][which];
            row[at % len] = bad;
            prop_assert!(!all_finite(&row));
            let mut best = [0.0];
            prop_assert!(!column_max(&row, 1, 0, &mut best));
        }

        #[test]
        fn column_max_is_the_plain_one(rows in 1usize..9, width in 1usize..40, seed in any::<u64>()) {
            let table: Vec<f32> = (0..rows * width).map(|i| ((seed >> (i % 57)) & 255) as f32 - 99.0).collect();
            let start = width / 3;
            let mut best = vec![0.0; width - start];
            prop_assert!(column_max(&table, width, start, &mut best));
            for (column, best) in best.iter().enumerate() {
                let plain = (0..rows).map(|row| table[row * width + start + column]).fold(f32::NEG_INFINITY, f32::max);
                prop_assert_eq!(*best, plain);
            }
        }
    }

    #[test]
    fn nothing_and_nan() {
        assert_eq!(arg_max(&[]), (0, f32::NEG_INFINITY));
        assert_eq!(arg_max(&[f32::NAN, 2.0]), (1, 2.0));
        assert!(all_finite(&[]));
    }
}
