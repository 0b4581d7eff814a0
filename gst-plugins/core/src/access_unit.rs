//! Puts access units of H.264 (RFC 6184) and H.265 (RFC 7798) together from RTP packets, with start codes. Every byte
//! is hostile, and a unit is bounded.

use std::collections::VecDeque;

use crate::{nal::Codec, rtp::Packet};

/// More than any camera's largest keyframe.
pub const LIMIT: usize = 16 << 20;
const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// What a new unit has room for at least, so that small ones are not moved while they grow.
const ROOM: usize = 4096;

/// A picture with what belongs to it, in the order of coming.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Unit {
    pub data: Vec<u8>,
    pub timestamp: u32,
    /// Decoding can begin here, as the headers of its parts say.
    pub keyframe: bool,
    /// Something is missing, in it or right before it.
    pub damaged: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("a picture of more than 16 MB")]
    TooLarge,
}

/// What a part of a unit is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    /// A slice; `first` of its picture.
    Slice { first: bool, key: bool },
    /// What stands before the slices of a picture; `sets`: the picture that follows can be decoded from here.
    Front { sets: bool },
    /// Another slice of a scalable stream, or what may stand anywhere.
    Other,
}

#[derive(Debug)]
pub struct Assembler {
    codec: Codec,
    unit: Unit,
    /// A picture has begun in it.
    picture: bool,
    /// Where something begins after a slice that may belong to the next picture, and whether that can be decoded from
    /// there. Some cameras repeat their parameter sets before every slice.
    front: Option<(usize, bool)>,
    /// Where the part begins whose fragments are coming.
    fragment: Option<usize>,
    /// Something was lost since the last whole unit.
    lost: bool,
    /// The camera marks the end of slices, not of pictures.
    marks_slices: bool,
    /// Timestamp of the last unit that ended by its mark.
    marked: Option<u32>,
    /// Parameter sets from elsewhere, for the first keyframe if it has none.
    sets: Vec<u8>,
    ready: VecDeque<Unit>,
}

impl Assembler {
    /// `sets` are parameter sets that the camera described beforehand.
    pub fn new<'a>(codec: Codec, sets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut before = Vec::new();
        for set in sets.into_iter().filter(|set| !set.is_empty()) {
            before.extend_from_slice(&START_CODE);
            before.extend_from_slice(set);
        }
        Self {
            codec,
            unit: Unit::default(),
            picture: false,
            front: None,
            fragment: None,
            lost: false,
            marks_slices: false,
            marked: None,
            sets: before,
            ready: VecDeque::new(),
        }
    }

    /// Packets are missing before the next one.
    pub fn lost(&mut self) {
        self.drop_fragment();
        self.lost = true;
    }

    /// The next whole unit, once for each.
    pub fn unit(&mut self) -> Option<Unit> {
        self.ready.pop_front()
    }

    pub fn push(&mut self, packet: &Packet<'_>) -> Result<(), Refusal> {
        if packet.timestamp != self.unit.timestamp {
            self.finish();
            self.unit.timestamp = packet.timestamp;
        }
        match self.codec {
            Codec::H264 => self.h264(packet.payload)?,
            Codec::H265 => self.h265(packet.payload)?,
        }
        if packet.marker && self.picture && !self.marks_slices {
            self.marked = Some(packet.timestamp);
            self.finish();
        }
        Ok(())
    }

    fn h264(&mut self, payload: &[u8]) -> Result<(), Refusal> {
        let [header, rest @ ..] = payload else { return Ok(()) };
        match header & 0x1f {
            1..=23 => self.whole(payload),
            24 => self.aggregate(rest),
            28 => {
                let [kind, data @ ..] = rest else { return Ok(()) };
                self.fragment(*kind, &[header & 0xe0 | kind & 0x1f], data)
            }
            // Those of the interleaved order, which nobody agreed on, and what is damaged.
            _ => {
                self.lost();
                Ok(())
            }
        }
    }

    fn h265(&mut self, payload: &[u8]) -> Result<(), Refusal> {
        let [first, second, rest @ ..] = payload else { return Ok(()) };
        match first >> 1 & 0x3f {
            0..=47 => self.whole(payload),
            48 => self.aggregate(rest),
            49 => {
                let [kind, data @ ..] = rest else { return Ok(()) };
                self.fragment(*kind, &[first & 0x81 | (kind & 0x3f) << 1, *second], data)
            }
            _ => {
                self.lost();
                Ok(())
            }
        }
    }

    fn whole(&mut self, nal: &[u8]) -> Result<(), Refusal> {
        self.drop_fragment();
        self.begin(nal)?;
        self.add(nal)
    }

    /// Several parts, each after its length. One that is cut short is left out.
    fn aggregate(&mut self, mut rest: &[u8]) -> Result<(), Refusal> {
        while let [high, low, tail @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some((nal, next)) = tail.split_at_checked(length) else {
                self.lost = true;
                break;
            };
            if !nal.is_empty() {
                self.whole(nal)?;
            }
            rest = next;
        }
        Ok(())
    }

    /// `kind` has the marks of the first and of the last fragment.
    fn fragment(&mut self, kind: u8, header: &[u8], data: &[u8]) -> Result<(), Refusal> {
        if kind & 0x80 != 0 {
            self.drop_fragment();
            let mut start = [0; 3];
            let length = header.len();
            start[..length].copy_from_slice(header);
            // The first byte behind the header says whether a picture begins.
            let seen = data.first().map_or(length, |byte| {
                start[length] = *byte;
                length + 1
            });
            self.begin(&start[..seen])?;
            // Where the part's start code was put.
            self.fragment = self.unit.data.len().checked_sub(START_CODE.len());
            self.add(header)?;
        } else if self.fragment.is_none() {
            // Its beginning was lost.
            self.lost = true;
            return Ok(());
        }
        self.add(data)?;
        if kind & 0x40 != 0 {
            self.fragment = None;
        }
        Ok(())
    }

    /// A part of which only a piece has come is worth nothing.
    fn drop_fragment(&mut self) {
        if let Some(start) = self.fragment.take() {
            self.unit.data.truncate(start);
            self.unit.damaged = true;
        }
    }

    /// Notes which part begins, ends the unit before it where that was whole, and writes a start code.
    fn begin(&mut self, nal: &[u8]) -> Result<(), Refusal> {
        match part(self.codec, nal) {
            Part::Slice { first, key } => {
                if first && self.picture {
                    self.split();
                }
                // Within a picture, parsers would take it for the beginning of another one.
                if let Some((at, _)) = self.front.take() {
                    self.unit.data.truncate(at);
                }
                let begun = self.picture || first || self.lost || self.unit.damaged;
                if !begun && self.marked == Some(self.unit.timestamp) {
                    // The mark came before the end of the picture.
                    self.marks_slices = true;
                    self.unit.damaged = true;
                }
                self.picture = true;
                self.unit.keyframe |= key;
            }
            Part::Front { sets } => {
                if self.picture {
                    let (at, before) = self.front.unwrap_or((self.unit.data.len(), false));
                    self.front = Some((at, before | sets));
                } else {
                    self.unit.keyframe |= sets;
                }
                if sets {
                    self.sets.clear();
                }
            }
            Part::Other => {}
        }
        if self.unit.data.capacity() == 0 {
            self.unit.data.reserve(ROOM);
        }
        self.add(&START_CODE)
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if self.unit.data.len() + bytes.len() > LIMIT {
            return Err(Refusal::TooLarge);
        }
        self.unit.data.extend_from_slice(bytes);
        Ok(())
    }

    /// Ends the unit where its picture ends; what came after that begins the next one.
    fn split(&mut self) {
        let (at, sets) = self.front.take().unwrap_or((self.unit.data.len(), false));
        let next = self.unit.data.split_off(at.min(self.unit.data.len()));
        self.finish();
        self.unit.data.extend_from_slice(&next);
        self.unit.keyframe = sets;
    }

    /// Ends the unit; what has no picture waits for one, for some cameras give parameter sets a time of their own.
    fn finish(&mut self) {
        self.drop_fragment();
        if !self.picture {
            return;
        }
        self.picture = false;
        self.front = None;
        let timestamp = self.unit.timestamp;
        let room = self.unit.data.len();
        let mut unit = std::mem::replace(&mut self.unit, Unit { timestamp, ..Unit::default() });
        unit.damaged |= std::mem::take(&mut self.lost);
        if unit.keyframe && !self.sets.is_empty() {
            let mut data = std::mem::take(&mut self.sets);
            data.extend_from_slice(&unit.data);
            unit.data = data;
        }
        // The next one is about as large, unless this was a keyframe.
        if !unit.keyframe {
            self.unit.data.reserve(room + room / 4);
        }
        if !unit.data.is_empty() {
            self.ready.push_back(unit);
        }
    }
}

fn part(codec: Codec, nal: &[u8]) -> Part {
    let first_bit = |at: usize| nal.get(at).is_none_or(|byte| byte & 0x80 != 0);
    match (codec, nal) {
        // ITU-T H.264, 7.4.1.2.3 and table 7-1. A slice begins with first_mb_in_slice, of which 0 is one bit.
        (Codec::H264, [header, ..]) => match header & 0x1f {
            1 | 2 => Part::Slice { first: first_bit(1), key: false },
            5 => Part::Slice { first: first_bit(1), key: true },
            7 => Part::Front { sets: true },
            6 | 8 | 9 | 14..=18 => Part::Front { sets: false },
            _ => Part::Other,
        },
        // ITU-T H.265, 7.4.2.4.4 and table 7-1. A slice begins with first_slice_segment_in_pic_flag.
        (Codec::H265, [first, second, ..]) => {
            if (first & 1) << 5 | second >> 3 != 0 {
                return Part::Other;
            }
            match first >> 1 & 0x3f {
                kind @ 0..=31 => Part::Slice { first: first_bit(2), key: (16..=23).contains(&kind) },
                33 => Part::Front { sets: true },
                32 | 34 | 35 | 39 | 41..=44 | 48..=55 => Part::Front { sets: false },
                _ => Part::Other,
            }
        }
        _ => Part::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(timestamp: u32, marker: bool, payload: &[u8]) -> Packet<'_> {
        Packet { marker, kind: 96, sequence: 0, timestamp, source: 0, payload }
    }

    fn units(codec: Codec, packets: &[Packet<'_>]) -> Vec<Unit> {
        let mut assembler = Assembler::new(codec, []);
        for packet in packets {
            assembler.push(packet).unwrap();
        }
        std::iter::from_fn(|| assembler.unit()).collect()
    }

    fn whole(timestamp: u32, keyframe: bool, nals: &[&[u8]]) -> Unit {
        let data = nals.iter().flat_map(|nal| START_CODE.iter().chain(*nal)).copied().collect();
        Unit { data, timestamp, keyframe, damaged: false }
    }

    #[test]
    fn h264_single_aggregated_and_fragmented() {
        let found = units(
            Codec::H264,
            &[
                packet(0, false, &[0x78, 0, 2, 0x67, 1, 0, 2, 0x68, 2]),
                packet(0, false, &[0x7c, 0x85, 0x88, 3]),
                packet(0, false, &[0x7c, 0x05, 4, 5]),
                packet(0, true, &[0x7c, 0x45, 6]),
                packet(9, false, &[0x41, 0x9a, 7]),
                packet(9, true, &[0x41, 0x1a, 8]),
                packet(18, false, &[0x09, 0x10]),
                packet(18, true, &[0x01, 0x9a]),
            ],
        );
        assert_eq!(
            found,
            [
                whole(0, true, &[&[0x67, 1], &[0x68, 2], &[0x65, 0x88, 3, 4, 5, 6]]),
                whole(9, false, &[&[0x41, 0x9a, 7], &[0x41, 0x1a, 8]]),
                whole(18, false, &[&[0x09, 0x10], &[0x01, 0x9a]]),
            ]
        );
    }

    #[test]
    fn h265_single_aggregated_and_fragmented() {
        let found = units(
            Codec::H265,
            &[
                packet(0, false, &[0x60, 1, 0, 3, 0x40, 1, 9, 0, 3, 0x42, 1, 9, 0, 3, 0x44, 1, 9]),
                packet(0, false, &[0x62, 1, 0x93, 0x80, 3]),
                packet(0, true, &[0x62, 1, 0x53, 4]),
                packet(9, true, &[0x02, 1, 0x80]),
            ],
        );
        assert_eq!(
            found,
            [
                whole(0, true, &[&[0x40, 1, 9], &[0x42, 1, 9], &[0x44, 1, 9], &[0x26, 1, 0x80, 3, 4]]),
                whole(9, false, &[&[0x02, 1, 0x80]]),
            ]
        );
    }

    #[test]
    fn a_unit_ends_with_its_mark_its_time_or_the_next_picture() {
        let slice = |first: bool| if first { [0x41, 0x80] } else { [0x41, 0x40] };
        for (what, packets, expected) in [
            (
                "no marks at all",
                vec![(0, false, true), (0, false, false), (9, false, true), (18, false, true)],
                2,
            ),
            ("two pictures with one time", vec![(0, true, true), (0, true, true), (9, true, true)], 3),
            ("no marks and one time", vec![(0, false, true), (0, false, true), (9, false, true)], 2),
        ] {
            let payloads: Vec<_> = packets.iter().map(|(_, _, first)| slice(*first)).collect();
            let packets: Vec<_> =
                packets.iter().zip(&payloads).map(|((t, m, _), p)| packet(*t, *m, p)).collect();
            assert_eq!(units(Codec::H264, &packets).len(), expected, "{what}");
        }
    }

    /// As GStreamer's payloader does that was told to send them with every IDR unit.
    #[test]
    fn parameter_sets_before_every_slice_do_not_part_a_picture() {
        let found = units(
            Codec::H264,
            &[
                packet(0, false, &[0x67, 1]),
                packet(0, false, &[0x68, 1]),
                packet(0, false, &[0x65, 0x88]),
                packet(0, false, &[0x67, 1]),
                packet(0, false, &[0x68, 1]),
                packet(0, true, &[0x65, 0x08]),
                packet(9, true, &[0x41, 0x88]),
                // Two pictures without marks and with one time, the second with its front.
                packet(18, false, &[0x41, 0x88]),
                packet(18, false, &[0x67, 2]),
                packet(18, false, &[0x65, 0x88]),
                packet(27, true, &[0x41, 0x88]),
            ],
        );
        let set: [&[u8]; 2] = [&[0x67, 1], &[0x68, 1]];
        assert_eq!(
            found,
            [
                whole(0, true, &[set[0], set[1], &[0x65, 0x88], &[0x65, 0x08]]),
                whole(9, false, &[&[0x41, 0x88]]),
                whole(18, false, &[&[0x41, 0x88]]),
                whole(18, true, &[&[0x67, 2], &[0x65, 0x88]]),
                whole(27, false, &[&[0x41, 0x88]]),
            ]
        );
    }

    #[test]
    fn a_camera_that_marks_every_slice_costs_one_picture() {
        let (first, next) = ([0x41, 0x80], [0x41, 0x40]);
        let packets: Vec<_> =
            (0..5).flat_map(|n| [packet(n, true, &first), packet(n, true, &next)]).collect();
        let found = units(Codec::H264, &packets);
        let facts: Vec<_> = found.iter().map(|u| (u.timestamp, u.data.len(), u.damaged)).collect();
        assert_eq!(facts, [(0, 6, false), (0, 6, true), (1, 12, false), (2, 12, false), (3, 12, false)]);
    }

    #[test]
    fn parameter_sets_with_a_time_of_their_own_belong_to_the_next_picture() {
        let found = units(
            Codec::H264,
            &[packet(1, true, &[0x67, 1]), packet(2, true, &[0x68, 1]), packet(9, true, &[0x65, 0x80])],
        );
        assert_eq!(found, [whole(9, true, &[&[0x67, 1], &[0x68, 1], &[0x65, 0x80]])]);
    }

    #[test]
    fn described_parameter_sets_come_with_the_first_keyframe_that_has_none() {
        let sets: [&[u8]; 3] = [&[0x67, 1], &[], &[0x68, 2]];
        let mut assembler = Assembler::new(Codec::H264, sets);
        for (timestamp, nal) in [(0, [0x41, 0x80]), (1, [0x65, 0x80]), (2, [0x65, 0x80])] {
            assembler.push(&packet(timestamp, true, &nal)).unwrap();
        }
        let found: Vec<_> = std::iter::from_fn(|| assembler.unit()).collect();
        assert_eq!(
            found,
            [
                whole(0, false, &[&[0x41, 0x80]]),
                whole(1, true, &[&[0x67, 1], &[0x68, 2], &[0x65, 0x80]]),
                whole(2, true, &[&[0x65, 0x80]]),
            ]
        );
        // What the camera sends itself counts more.
        let mut assembler = Assembler::new(Codec::H264, sets);
        assembler.push(&packet(0, false, &[0x67, 9])).unwrap();
        assembler.push(&packet(0, true, &[0x65, 0x80])).unwrap();
        assert_eq!(assembler.unit(), Some(whole(0, true, &[&[0x67, 9], &[0x65, 0x80]])));
    }

    #[test]
    fn a_part_of_which_a_piece_is_missing_is_left_out() {
        let mut assembler = Assembler::new(Codec::H264, []);
        assembler.push(&packet(0, false, &[0x41, 0x80, 1])).unwrap();
        assembler.push(&packet(0, false, &[0x5c, 0x81, 0x40, 2])).unwrap();
        assembler.lost();
        assembler.push(&packet(0, true, &[0x5c, 0x41, 3])).unwrap();
        assembler.push(&packet(9, true, &[0x41, 0x80, 4])).unwrap();
        let found: Vec<_> = std::iter::from_fn(|| assembler.unit()).collect();
        let cut = Unit { damaged: true, ..whole(0, false, &[&[0x41, 0x80, 1]]) };
        assert_eq!(found, [cut, whole(9, false, &[&[0x41, 0x80, 4]])]);
    }

    #[test]
    fn a_unit_without_end_is_refused() {
        let mut assembler = Assembler::new(Codec::H264, []);
        let mut payload = vec![0; 60_000];
        (payload[0], payload[1]) = (0x5c, 0x81);
        assembler.push(&packet(0, false, &payload)).unwrap();
        payload[1] = 0x01;
        let mut pushed = 0;
        let refusal = loop {
            match assembler.push(&packet(0, false, &payload)) {
                Ok(()) => pushed += payload.len(),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refusal, Refusal::TooLarge);
        assert!(pushed < LIMIT + payload.len());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            payloads in proptest::collection::vec(
                (0u32..3, any::<bool>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..40),
            h265 in any::<bool>(),
        ) {
            let codec = if h265 { Codec::H265 } else { Codec::H264 };
            let mut assembler = Assembler::new(codec, []);
            let mut came = 0;
            for (timestamp, marker, lost, payload) in &payloads {
                if *lost {
                    assembler.lost();
                }
                came += 8 * payload.len();
                if assembler.push(&packet(*timestamp, *marker, payload)).is_err() {
                    break;
                }
            }
            while let Some(unit) = assembler.unit() {
                prop_assert!(unit.data.starts_with(&START_CODE));
                prop_assert!(unit.data.len() <= came);
                came -= unit.data.len();
            }
        }

        /// However a picture is cut into fragments, it is put together again.
        #[test]
        fn fragments_are_joined(body in proptest::collection::vec(any::<u8>(), 1..300), cut in 1usize..50) {
            let mut nal = vec![0x65];
            nal.extend_from_slice(&body);
            let chunks: Vec<_> = body.chunks(cut).collect();
            let last = chunks.len() - 1;
            let mut assembler = Assembler::new(Codec::H264, []);
            for (n, chunk) in chunks.iter().enumerate() {
                let marks = u8::from(n == 0) << 7 | u8::from(n == last) << 6;
                let mut payload = vec![0x7c, marks | 5];
                payload.extend_from_slice(chunk);
                assembler.push(&packet(0, n == last, &payload)).unwrap();
            }
            prop_assert_eq!(assembler.unit(), Some(whole(0, true, &[&nal])));
        }
    }
}
