//! Timestamps of RTP and RTCP packets, as a camera with a bad clock would write them (RFC 3550). Pure.

/// Bytes of framing before an interleaved packet.
const FRAMING: usize = 4;
const SENDER_REPORT: u8 = 200;

/// The parts of an interleaved RTP packet; `None` where it is none.
#[derive(Debug)]
pub struct Packet<'a>(&'a mut [u8]);

impl<'a> Packet<'a> {
    /// `framed` begins with the four bytes of interleaving.
    pub fn new(framed: &'a mut [u8]) -> Option<Self> {
        let rtp = framed.get_mut(FRAMING..)?;
        (rtp.len() >= 12 && rtp[0] >> 6 == 2).then_some(Self(rtp))
    }

    pub fn payload_kind(&self) -> u8 {
        self.0[1] & 0x7f
    }

    pub fn timestamp(&self) -> u32 {
        word(self.0, 4)
    }

    pub fn set_timestamp(&mut self, timestamp: u32) {
        self.0[4..8].copy_from_slice(&timestamp.to_be_bytes());
    }

    /// Turns every bit of one byte of the payload; `at` from 0 to 1 says which. Nothing where there is no payload.
    pub fn damage(&mut self, at: f64) {
        let header = 12 + 4 * usize::from(self.0[0] & 0x0f);
        if let Some(payload) = self.0.get_mut(header..).filter(|payload| !payload.is_empty()) {
            let index = ((at * payload.len() as f64) as usize).min(payload.len() - 1);
            payload[index] ^= 0xff;
        }
    }
}

/// Changes NTP time (32.32 fixed point) and RTP time of every sender report in an interleaved RTCP packet.
pub fn edit_reports(framed: &mut [u8], mut edit: impl FnMut(&mut u64, &mut u32)) {
    let Some(mut rest) = framed.get_mut(FRAMING..) else { return };
    while rest.len() >= 4 {
        let length = 4 * (usize::from(u16::from_be_bytes([rest[2], rest[3]])) + 1);
        if rest[0] >> 6 != 2 || rest.len() < length {
            return;
        }
        let (packet, tail) = rest.split_at_mut(length);
        if packet[1] == SENDER_REPORT && packet.len() >= 20 {
            let mut ntp = u64::from(word(packet, 8)) << 32 | u64::from(word(packet, 12));
            let mut rtp = word(packet, 16);
            edit(&mut ntp, &mut rtp);
            packet[8..16].copy_from_slice(&ntp.to_be_bytes());
            packet[16..20].copy_from_slice(&rtp.to_be_bytes());
        }
        rest = tail;
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A camera's media clock as it should be turned into the one that it is to have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Ticks added for good.
    offset: u32,
    /// The jump that is in the offset, seconds.
    jumped: f64,
    /// The last original timestamp, and ticks since the drift began.
    last: Option<u32>,
    elapsed: i64,
    drift: f64,
    /// What earlier drifts have added to the time of day, seconds.
    drifted: f64,
}

/// Before the end of the timestamps, when a wrap is asked for.
const WRAP_AHEAD_S: u32 = 2;

impl Clock {
    /// The timestamp that stands for `original`. `jump` is the sum of all jumps in seconds, `drift` parts per million,
    /// `rate` ticks per second.
    pub fn timestamp(&mut self, original: u32, rate: u32, jump: f64, drift: f64) -> u32 {
        let by = self.last.map_or(0, |last| original.wrapping_sub(last) as i32);
        self.last = Some(original);
        self.elapsed += i64::from(by);
        if drift != self.drift {
            // What has drifted so far stays.
            let ticks = self.drift_ticks();
            self.drifted += ticks / f64::from(rate.max(1));
            self.offset = self.offset.wrapping_add(ticks as i64 as u32);
            (self.drift, self.elapsed) = (drift, 0);
        }
        if jump != self.jumped {
            let ticks = (jump - self.jumped) * f64::from(rate);
            self.offset = self.offset.wrapping_add(ticks as i64 as u32);
            self.jumped = jump;
        }
        original.wrapping_add(self.offset).wrapping_add(self.drift_ticks() as i64 as u32)
    }

    /// Has the timestamps wrap around two seconds after `original`.
    pub fn wrap_soon(&mut self, original: u32, rate: u32) {
        let shown = original.wrapping_add(self.drift_ticks() as i64 as u32);
        self.offset = 0_u32.wrapping_sub(rate.saturating_mul(WRAP_AHEAD_S)).wrapping_sub(shown);
    }

    /// A sender report's times, to which the same happens as to the packets around it. `step` in seconds.
    pub fn report(&self, ntp: &mut u64, rtp: &mut u32, rate: u32, step: f64) {
        let ahead = self.last.map_or(0, |last| rtp.wrapping_sub(last) as i32);
        let ticks = (self.elapsed + i64::from(ahead)) as f64 * self.drift / 1e6;
        *rtp = rtp.wrapping_add(self.offset).wrapping_add(ticks as i64 as u32);
        let seconds = step + self.drifted + ticks / f64::from(rate.max(1));
        *ntp = ntp.wrapping_add((seconds * 4_294_967_296.0) as i64 as u64);
    }

    fn drift_ticks(&self) -> f64 {
        self.elapsed as f64 * self.drift / 1e6
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: u32 = 90_000;

    fn framed(kind: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![b'$', 0, 0, 0, 0x80, kind, 0, 1];
        bytes.extend(timestamp.to_be_bytes());
        bytes.extend([0, 0, 0, 9]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn reads_and_changes_packets() {
        let mut bytes = framed(0xe0, 7, &[1, 2, 3]);
        let mut packet = Packet::new(&mut bytes).unwrap();
        assert_eq!((packet.payload_kind(), packet.timestamp()), (96, 7));
        packet.set_timestamp(8);
        packet.damage(0.5);
        assert_eq!(bytes, framed(0xe0, 8, &[1, 0xfd, 3]));
        for nothing in [&mut [][..], &mut [0; 9], &mut [0; 40]] {
            assert!(Packet::new(nothing).is_none());
        }
    }

    #[test]
    fn sender_reports_are_found_in_compound_packets() {
        let mut bytes = vec![b'$', 1, 0, 0, 0x80, 200, 0, 6, 0, 0, 0, 9];
        bytes.extend((5_u64 << 32).to_be_bytes());
        bytes.extend(100_u32.to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend([0x81, 202, 0, 1, 0, 0, 0, 9]);
        let mut clock = Clock::default();
        clock.timestamp(100, RATE, 2.0, 0.0);
        edit_reports(&mut bytes, |ntp, rtp| clock.report(ntp, rtp, RATE, 3600.0));
        assert_eq!(word(&bytes, 12), 3605);
        assert_eq!(word(&bytes, 20), 100 + 2 * RATE);
    }

    #[test]
    fn jump_wrap_and_drift() {
        let mut clock = Clock::default();
        assert_eq!(clock.timestamp(1000, RATE, 0.0, 0.0), 1000);
        assert_eq!(clock.timestamp(2000, RATE, -90.0, 0.0), 2000_u32.wrapping_sub(90 * RATE));
        assert_eq!(clock.timestamp(3000, RATE, 0.0, 0.0), 3000);
        clock.wrap_soon(3000, RATE);
        assert_eq!(clock.timestamp(3000, RATE, 0.0, 0.0), 0_u32.wrapping_sub(2 * RATE));
        assert_eq!(clock.timestamp(3000 + 2 * RATE, RATE, 0.0, 0.0), 0);

        let mut clock = Clock::default();
        clock.timestamp(0, RATE, 0.0, 1000.0);
        assert_eq!(clock.timestamp(100 * RATE, RATE, 0.0, 1000.0), 100 * RATE + RATE / 10);
        let (mut ntp, mut rtp) = (0, 101 * RATE);
        clock.report(&mut ntp, &mut rtp, RATE, 0.0);
        assert_eq!(rtp, 101 * RATE + RATE * 101 / 1000);
        assert!((ntp as f64 / 4_294_967_296.0 - 0.101).abs() < 1e-6);
        // It stays where it drifted to.
        assert_eq!(clock.timestamp(100 * RATE + 5, RATE, 0.0, 0.0), 100 * RATE + RATE / 10 + 5);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(mut bytes in prop::collection::vec(any::<u8>(), 0..120), at in 0.0..1.0_f64) {
            edit_reports(&mut bytes, |ntp, rtp| { *ntp = ntp.wrapping_add(1); *rtp = rtp.wrapping_add(1); });
            if let Some(mut packet) = Packet::new(&mut bytes) {
                packet.damage(at);
                let timestamp = packet.timestamp();
                packet.set_timestamp(timestamp);
            }
        }

        #[test]
        fn a_clock_without_faults_changes_nothing(start in any::<u32>(), steps in prop::collection::vec(0_u32..100_000, 1..50)) {
            let (mut clock, mut now) = (Clock::default(), start);
            for step in steps {
                now = now.wrapping_add(step);
                prop_assert_eq!(clock.timestamp(now, RATE, 0.0, 0.0), now);
            }
        }

        #[test]
        fn drift_is_steady_over_a_wrap(start in any::<u32>(), ppm in -5000.0..5000.0_f64) {
            let (mut clock, mut now) = (Clock::default(), start);
            let mut last = clock.timestamp(now, RATE, 0.0, ppm);
            for _ in 0..200 {
                now = now.wrapping_add(3600);
                let shown = clock.timestamp(now, RATE, 0.0, ppm);
                let step = f64::from(shown.wrapping_sub(last));
                prop_assert!((step - 3600.0 * (1.0 + ppm / 1e6)).abs() <= 1.5, "{step}");
                last = shown;
            }
        }
    }
}
