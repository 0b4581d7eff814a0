//! Timestamps as a camera may send them: pairs of eight bytes, said and waited.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nvr_core::times::{Anchor, DecodeTimes};

fuzz_target!(|bytes: &[u8]| {
    let (mut anchor, mut times, mut now, mut last) = (Anchor::default(), DecodeTimes::default(), 0_u64, None);
    for pair in bytes.chunks_exact(12) {
        let said = u64::from_le_bytes(pair[..8].try_into().expect("eight bytes"));
        let waited = u32::from_le_bytes(pair[8..].try_into().expect("four bytes"));
        now += u64::from(waited) * 16;
        let placed = anchor.place(said, now);
        let (pts, dts) = times.next(placed.time, now);
        assert!(dts <= pts && last < Some(dts));
        last = Some(dts);
    }
});
