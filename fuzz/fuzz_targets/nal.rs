//! Access units as a camera may send them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nvr_core::nal::{self, Codec};

fuzz_target!(|unit: &[u8]| {
    for codec in [Codec::H264, Codec::H265] {
        nal::first_slice(codec, unit);
        if let Some(sets) = nal::parameter_sets(codec, unit) {
            assert_eq!(nal::first_slice(codec, &sets), None);
            assert_eq!(nal::parameter_sets(codec, &sets).as_ref(), Some(&sets));
        }
    }
});
