//! Looks into H.264 and H.265 access units with start codes (ITU-T H.264 and H.265, annex B): as little as choosing
//! what to decode, and beginning in the middle of a stream, needs. Every byte is hostile, and a unit may be cut short.

/// NAL units that are looked at before the first slice; a unit with more of them is not worth the search.
const HEADERS: usize = 16;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Codec {
    H264,
    H265,
}

/// What the header of a picture's first slice says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slice {
    /// No other picture of the same or a lower layer is decoded from this one.
    pub disposable: bool,
    /// Temporal layer; 0 where the codec does not say.
    pub layer: u8,
    /// An IDR picture: nothing from here on is decoded from what came before.
    pub idr: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Slice(Slice),
    /// VPS, SPS or PPS.
    Parameters,
    Other,
}

impl Codec {
    fn kind(self, nal: &[u8]) -> Option<Kind> {
        match self {
            // H.264, 7.3.1: forbidden_zero_bit, nal_ref_idc (2), nal_unit_type (5). A nal_ref_idc of 0 in one slice
            // means 0 in all slices of the picture (7.4.1).
            Self::H264 => {
                let header = *nal.first()?;
                Some(match header & 0x1f {
                    1 => Kind::Slice(Slice { disposable: header & 0x60 == 0, layer: 0, idr: false }),
                    kind @ 2..=5 => Kind::Slice(Slice { disposable: false, layer: 0, idr: kind == 5 }),
                    7 | 8 => Kind::Parameters,
                    _ => Kind::Other,
                })
            }
            // H.265, 7.3.1.2: forbidden_zero_bit, nal_unit_type (6), nuh_layer_id (6), nuh_temporal_id_plus1 (3).
            // Even types up to 14 are sub-layer non-reference pictures, 19 and 20 are IDR pictures (table 7-1).
            Self::H265 => {
                let [first, second, ..] = nal else { return None };
                let kind = first >> 1 & 0x3f;
                Some(match kind {
                    0..=31 => Kind::Slice(Slice {
                        disposable: kind <= 14 && kind % 2 == 0,
                        layer: (second & 7).saturating_sub(1),
                        idr: kind == 19 || kind == 20,
                    }),
                    32..=34 => Kind::Parameters,
                    _ => Kind::Other,
                })
            }
        }
    }
}

/// What follows each start code, up to the next one.
struct Nals<'a> {
    rest: &'a [u8],
}

impl<'a> Nals<'a> {
    fn of(unit: &'a [u8]) -> Self {
        let start = start_code(unit).map_or(unit.len(), |at| at + 3);
        Self { rest: &unit[start..] }
    }
}

impl<'a> Iterator for Nals<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let (nal, rest) = match start_code(self.rest) {
            Some(at) => (&self.rest[..at], &self.rest[at + 3..]),
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        Some(nal)
    }
}

fn start_code(bytes: &[u8]) -> Option<usize> {
    bytes.windows(3).position(|w| w == [0, 0, 1])
}

/// The first slice of `unit`; `None` where none is in sight.
pub fn first_slice(codec: Codec, unit: &[u8]) -> Option<Slice> {
    // Up to the header of the first slice and no further: the slice itself is most of the unit.
    let mut rest = unit;
    for _ in 0..HEADERS {
        rest = &rest[start_code(rest)? + 3..];
        if let Kind::Slice(slice) = codec.kind(rest)? {
            return Some(slice);
        }
    }
    None
}

/// The parameter sets before the first slice of `unit`, each with a start code; `None` where there are none.
pub fn parameter_sets(codec: Codec, unit: &[u8]) -> Option<Vec<u8>> {
    let mut sets = Vec::new();
    for nal in Nals::of(unit).take(HEADERS) {
        match codec.kind(nal) {
            Some(Kind::Parameters) => {
                sets.extend_from_slice(&[0, 0, 0, 1]);
                // A zero before the next start code belongs to that one.
                let end = nal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                sets.extend_from_slice(&nal[..end]);
            }
            Some(Kind::Slice(_)) => break,
            _ => {}
        }
    }
    (!sets.is_empty()).then_some(sets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn h264_pictures_that_no_other_refers_to() {
        for (unit, disposable) in [
            (&[0, 0, 0, 1, 0x01, 0x9a][..], Some(true)),
            (&[0, 0, 0, 1, 0x09, 0x10, 0, 0, 1, 0x06, 5, 0x80, 0, 0, 1, 0x01], Some(true)),
            (&[0, 0, 1, 0x41, 0x9a], Some(false)),
            (&[0, 0, 1, 0x65, 0x88], Some(false)),
            (&[0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 1, 0, 0, 1, 0x25], Some(false)),
            (&[0, 0, 1], None),
            (&[], None),
            (&[1, 2, 3, 4], None),
        ] {
            let found = first_slice(Codec::H264, unit).map(|slice| slice.disposable);
            assert_eq!(found, disposable, "{unit:?}");
        }
    }

    #[test]
    fn h265_pictures_that_no_other_refers_to() {
        for (unit, expected) in [
            // TRAIL_N, TRAIL_R, RASL_N of layer 1, IDR_W_RADL after a VPS, CRA.
            (&[0, 0, 1, 0x00, 0x01][..], Some((true, 0))),
            (&[0, 0, 1, 0x02, 0x01], Some((false, 0))),
            (&[0, 0, 1, 0x10, 0x02], Some((true, 1))),
            (&[0, 0, 1, 0x40, 0x01, 9, 0, 0, 1, 0x26, 0x01], Some((false, 0))),
            (&[0, 0, 1, 0x2a, 0x00], Some((false, 0))),
            (&[0, 0, 1, 0x02], None),
        ] {
            let found = first_slice(Codec::H265, unit).map(|slice| (slice.disposable, slice.layer));
            assert_eq!(found, expected, "{unit:?}");
        }
    }

    #[test]
    fn parameter_sets_are_found_before_the_slice() {
        let unit = [
            0, 0, 0, 1, 9, 16, 0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 3, 0, 0, 1, 0x65, 0x68, 0, 0, 1,
            0x67,
        ];
        assert_eq!(
            parameter_sets(Codec::H264, &unit),
            Some(vec![0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 3])
        );
        assert_eq!(parameter_sets(Codec::H264, &[0, 0, 1, 0x65, 1]), None);
        let unit = [0, 0, 1, 0x40, 1, 0, 0, 1, 0x42, 1, 0, 0, 1, 0x44, 1, 0, 0, 1, 0x26, 1];
        assert_eq!(
            parameter_sets(Codec::H265, &unit),
            Some(vec![0, 0, 0, 1, 0x40, 1, 0, 0, 0, 1, 0x42, 1, 0, 0, 0, 1, 0x44, 1])
        );
    }

    #[test]
    fn pictures_that_begin_anew() {
        for (codec, unit, idr) in [
            (Codec::H264, &[0, 0, 1, 0x65, 0x88][..], true),
            (Codec::H264, &[0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 1, 0, 0, 1, 0x25], true),
            // A keyframe of an open group of pictures, or of a gradual refresh.
            (Codec::H264, &[0, 0, 1, 0x67, 1, 0, 0, 1, 0x06, 6, 0, 0, 1, 0x61, 0x88], false),
            (Codec::H265, &[0, 0, 1, 0x26, 0x01], true),
            (Codec::H265, &[0, 0, 1, 0x28, 0x01], true),
            (Codec::H265, &[0, 0, 1, 0x2a, 0x01], false),
            (Codec::H265, &[0, 0, 1, 0x02, 0x01], false),
        ] {
            assert_eq!(first_slice(codec, unit).map(|slice| slice.idr), Some(idr), "{codec:?} {unit:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            unit in proptest::collection::vec(prop_oneof![3 => Just(0u8), 2 => Just(1u8), 5 => any::<u8>()], 0..300),
            h265 in any::<bool>(),
        ) {
            let codec = if h265 { Codec::H265 } else { Codec::H264 };
            first_slice(codec, &unit);
            if let Some(sets) = parameter_sets(codec, &unit) {
                prop_assert!(sets.len() <= unit.len() + 2 * HEADERS);
                prop_assert_eq!(first_slice(codec, &sets), None);
                let again = parameter_sets(codec, &sets);
                prop_assert_eq!(again, Some(sets));
            }
        }
    }
}
