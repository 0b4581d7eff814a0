//! RTP packets and RTCP sender reports (RFC 3550), as far as a receiver over TCP needs them. Every byte is hostile.

/// Seconds from 1900, where NTP begins to count, to 1970.
pub const NTP_TO_UNIX: u64 = 2_208_988_800;
const SENDER_REPORT: u8 = 200;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet<'a> {
    pub marker: bool,
    /// Payload type.
    pub kind: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub source: u32,
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// `None` where `data` is no RTP packet.
    pub fn parse(data: &'a [u8]) -> Option<Self> {
        let (header, mut payload) = data.split_at_checked(12)?;
        let flags = header[0];
        if flags >> 6 != 2 {
            return None;
        }
        payload = payload.get(4 * usize::from(flags & 0x0f)..)?;
        if flags & 0x10 != 0 {
            let [_, _, high, low, ..] = payload else { return None };
            payload = payload.get(4 + 4 * usize::from(u16::from_be_bytes([*high, *low]))..)?;
        }
        if flags & 0x20 != 0 {
            let padding = usize::from(*payload.last()?);
            payload = payload.get(..payload.len().checked_sub(padding)?)?;
        }
        Some(Self {
            marker: header[1] & 0x80 != 0,
            kind: header[1] & 0x7f,
            sequence: u16::from_be_bytes([header[2], header[3]]),
            timestamp: word(header, 4)?,
            source: word(header, 8)?,
            payload,
        })
    }
}

/// Which time of day an RTP timestamp stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Report {
    pub source: u32,
    /// Nanoseconds since 1970.
    pub unix_ns: u64,
    pub timestamp: u32,
}

/// The first sender report in a compound packet; `None` also where it says no time.
pub fn sender_report(mut rest: &[u8]) -> Option<Report> {
    while let [flags, kind, high, low, ..] = *rest {
        let length = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        let packet = rest.get(..length).filter(|_| flags >> 6 == 2)?;
        if kind == SENDER_REPORT {
            // RFC 3550, 6.4.1: a sender without a clock says 0. Seconds wrap in 2036: small ones are later.
            let (seconds, fraction) = (u64::from(word(packet, 8)?), u64::from(word(packet, 12)?));
            let era = if seconds & 1 << 31 == 0 { 1 << 32 } else { 0 };
            let unix = (seconds + era).checked_sub(NTP_TO_UNIX).filter(|_| seconds | fraction != 0)?;
            let unix_ns = unix * 1_000_000_000 + ((fraction * 1_000_000_000) >> 32);
            return Some(Report { source: word(packet, 4)?, unix_ns, timestamp: word(packet, 16)? });
        }
        rest = &rest[length..];
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Counts on where the 32 bits of a timestamp wrap around.
#[derive(Clone, Debug, Default)]
pub struct Unroll {
    last: Option<(u32, i64)>,
}

impl Unroll {
    /// Ticks since the first timestamp; they go back where the camera's do.
    pub fn ticks(&mut self, timestamp: u32) -> i64 {
        let ticks = self.last.map_or(0, |(last, ticks)| {
            let step = timestamp.wrapping_sub(last) as i32;
            ticks.saturating_add(step.into())
        });
        self.last = Some((timestamp, ticks));
        ticks
    }

    /// The ticks of a timestamp near the last one; `None` before that.
    pub fn near(&self, timestamp: u32) -> Option<i64> {
        let (last, ticks) = self.last?;
        Some(ticks.saturating_add((timestamp.wrapping_sub(last) as i32).into()))
    }
}

/// `ticks` of a clock of that rate as nanoseconds.
pub fn nanoseconds(ticks: i64, rate: u32) -> i64 {
    let wide = i128::from(ticks) * 1_000_000_000 / i128::from(rate.max(1));
    wide.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// What the numbers of a stream's packets say about the one that has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    Next,
    /// Something is missing before it, or another stream begins.
    Gap,
    /// It has been there already.
    Again,
}

#[derive(Clone, Debug, Default)]
pub struct Sequence {
    last: Option<(u32, u16)>,
}

impl Sequence {
    pub fn place(&mut self, packet: &Packet<'_>) -> Order {
        let before = self.last.replace((packet.source, packet.sequence));
        match before {
            None => Order::Next,
            Some((source, last)) if source == packet.source && packet.sequence == last => Order::Again,
            Some((source, last)) if source == packet.source && packet.sequence == last.wrapping_add(1) => {
                Order::Next
            }
            Some(_) => Order::Gap,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_are_left_out() {
        let plain = [0x80, 0xe0, 0, 7, 0, 0, 0, 9, 1, 2, 3, 4, 42];
        let expected =
            Packet { marker: true, kind: 96, sequence: 7, timestamp: 9, source: 0x0102_0304, payload: &[42] };
        assert_eq!(Packet::parse(&plain), Some(expected));
        // A contributing source, an extension of one word, two bytes of padding.
        let full = [0xb1, 0x60, 0, 7, 0, 0, 0, 9, 1, 2, 3, 4, 9, 9, 9, 9, 0, 0, 0, 1, 8, 8, 8, 8, 42, 0, 2];
        assert_eq!(Packet::parse(&full), Some(Packet { marker: false, ..expected }));
        for bad in [&plain[..11], &[0x40; 20], &full[..18], &[0xa0, 0x60, 0, 7, 0, 0, 0, 9, 1, 2, 3, 4, 9]] {
            assert_eq!(Packet::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sender_reports_are_found() {
        let seconds = (1_790_000_000 + NTP_TO_UNIX) as u32;
        let mut report = vec![0x80, 201, 0, 1, 0, 0, 0, 1, 0x80, 200, 0, 6, 0, 0, 0, 5];
        report.extend_from_slice(&seconds.to_be_bytes());
        report.extend_from_slice(&[0x80, 0, 0, 0, 0, 0, 1, 0]);
        report.extend_from_slice(&[0; 8]);
        let unix_ns = 1_790_000_000_500_000_000;
        assert_eq!(sender_report(&report), Some(Report { source: 5, unix_ns, timestamp: 256 }));
        assert_eq!(sender_report(&report[..40 - 12]), None, "cut short");
        report[16..24].fill(0);
        assert_eq!(sender_report(&report), None, "a camera without a clock");
        // Early in 2036 the seconds begin anew.
        report[16..24].copy_from_slice(&[0, 0, 0, 10, 0, 0, 0, 0]);
        let later = sender_report(&report).unwrap().unix_ns / 1_000_000_000;
        assert_eq!(later, (1 << 32) + 10 - NTP_TO_UNIX);
    }

    #[test]
    fn timestamps_wrap_and_go_back() {
        let mut unroll = Unroll::default();
        assert_eq!(unroll.near(5), None);
        let ticks: Vec<_> =
            [u32::MAX - 99, u32::MAX, 100, 50, 3600].into_iter().map(|t| unroll.ticks(t)).collect();
        assert_eq!(ticks, [0, 99, 200, 150, 3700]);
        assert_eq!(unroll.near(3500), Some(3600));
        assert_eq!((nanoseconds(90_000, 90_000), nanoseconds(-45, 90_000)), (1_000_000_000, -500_000));
        assert_eq!(nanoseconds(i64::MIN, 0), i64::MIN);
    }

    #[test]
    fn numbers_say_what_is_missing() {
        let mut sequence = Sequence::default();
        let packet = |source, number| Packet {
            marker: false,
            kind: 96,
            sequence: number,
            timestamp: 0,
            source,
            payload: &[],
        };
        for (source, number, expected) in [
            (1, 65_535, Order::Next),
            (1, 0, Order::Next),
            (1, 0, Order::Again),
            (1, 2, Order::Gap),
            (1, 1, Order::Gap),
            (2, 2, Order::Gap),
            (2, 3, Order::Next),
        ] {
            assert_eq!(sequence.place(&packet(source, number)), expected, "{source} {number}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(data in proptest::collection::vec(any::<u8>(), 0..80), report in any::<bool>()) {
            let mut data = data;
            if let [flags, kind, ..] = &mut data[..] {
                *flags = *flags & 0x3f | 0x80;
                if report {
                    *kind = SENDER_REPORT;
                }
            }
            if let Some(packet) = Packet::parse(&data) {
                prop_assert!(packet.payload.len() + 12 <= data.len());
            }
            sender_report(&data);
        }

        #[test]
        fn time_is_counted_whatever_comes(timestamps in proptest::collection::vec(any::<u32>(), 1..50)) {
            let mut unroll = Unroll::default();
            let first = timestamps[0];
            for timestamp in timestamps {
                let ticks = unroll.ticks(timestamp);
                prop_assert_eq!(ticks as u32, timestamp.wrapping_sub(first));
            }
        }
    }
}
