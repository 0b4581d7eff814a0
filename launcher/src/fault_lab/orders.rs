//! What is wrong with a camera at a moment. Pure: `now` is a parameter.

use std::time::{Duration, Instant};

use super::{
    auth::Lock,
    fault::{Fault, Media, Order, Sdp, Secret},
};

/// Everything that was ordered for one camera and is not over.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    lasting: Vec<(Fault, Option<Instant>)>,
    /// How often each of these was ordered; who has seen a smaller number has it to do.
    pub cuts: u64,
    pub resets: u64,
    pub forgets: u64,
    pub wraps: u64,
    /// Sums of all jumps and steps, seconds.
    jump: f64,
    step: f64,
    lock: Option<Lock>,
}

/// The faults of one moment.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub stall: bool,
    pub off: bool,
    pub headers: bool,
    pub mute_video: bool,
    pub mute_audio: bool,
    pub delay: Duration,
    pub throttle: Option<u32>,
    /// Shares from 0 to 1.
    pub drop: f64,
    pub corrupt: f64,
    /// Seconds.
    pub jump: f64,
    pub step: f64,
    /// Parts per million.
    pub drift: f64,
    pub answer: Option<u16>,
    pub sdp: Option<Sdp>,
    pub lock: Option<Lock>,
}

impl Orders {
    pub fn apply(&mut self, order: &Order, now: Instant) {
        let fault = &order.fault;
        if fault.is_lasting() {
            let name = fault.name();
            self.lasting.retain(|(known, _)| known.name() != name);
            let until = order.lasts.and_then(|lasts| now.checked_add(lasts));
            self.lasting.push((fault.clone(), until));
            return;
        }
        match fault {
            Fault::Cut => self.cuts += 1,
            Fault::Reset => self.resets += 1,
            Fault::Forget => self.forgets += 1,
            Fault::Wrap => self.wraps += 1,
            Fault::Jump(by) => self.jump += by,
            Fault::Step(by) => self.step += by,
            Fault::Password(password) => {
                let lock = |password: &Secret| Lock { password: password.clone(), digest: false };
                self.lock = password.as_ref().map(lock);
                self.resets += 1;
            }
            Fault::Digest(password) => {
                self.lock = Some(Lock { password: password.clone(), digest: true });
                self.resets += 1;
            }
            Fault::Clear => {
                self.lasting.clear();
                self.lock = None;
            }
            // Done by the server; nothing of it is seen on the line.
            _ => {}
        }
    }

    pub fn at(&self, now: Instant) -> Faults {
        let mut faults =
            Faults { jump: self.jump, step: self.step, lock: self.lock.clone(), ..Faults::default() };
        for (fault, until) in &self.lasting {
            if until.is_some_and(|until| until <= now) {
                continue;
            }
            match fault {
                Fault::Stall => faults.stall = true,
                Fault::Off => faults.off = true,
                Fault::Headers => faults.headers = true,
                Fault::Mute(media) => {
                    faults.mute_video = *media != Some(Media::Audio);
                    faults.mute_audio = *media != Some(Media::Video);
                }
                Fault::Delay(by) => faults.delay = *by,
                Fault::Throttle(kbit) => faults.throttle = Some(*kbit),
                Fault::Drop(percent) => faults.drop = percent / 100.0,
                Fault::Corrupt(percent) => faults.corrupt = percent / 100.0,
                Fault::Drift(ppm) => faults.drift = *ppm,
                Fault::Answer(status) => faults.answer = Some(*status),
                Fault::Sdp(kind) => faults.sdp = Some(*kind),
                _ => {}
            }
        }
        faults
    }

    /// When the next fault ends by itself.
    pub fn next_end(&self, now: Instant) -> Option<Instant> {
        self.lasting.iter().filter_map(|(_, until)| *until).filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(texts: &[&str], now: Instant) -> Orders {
        let mut orders = Orders::default();
        for text in texts {
            orders.apply(&text.parse().unwrap(), now);
        }
        orders
    }

    #[test]
    fn faults_last_as_long_as_they_were_ordered_for() {
        let now = Instant::now();
        let later = |s| now + Duration::from_secs(s);
        let orders = orders(&["stall 10s", "drop 5", "delay 100ms 20s", "stall 3s"], now);
        assert!(orders.at(now).stall && orders.at(later(2)).stall);
        assert!(!orders.at(later(3)).stall, "the newer order of a kind replaces the older");
        assert_eq!(orders.at(later(1_000_000)).drop, 0.05);
        assert_eq!(orders.at(later(19)).delay, Duration::from_millis(100));
        assert_eq!(orders.next_end(now), Some(later(3)));
        assert_eq!(orders.next_end(later(3)), Some(later(20)));
        assert_eq!(orders.next_end(later(20)), None);
    }

    #[test]
    fn momentary_faults_are_counted_and_cleared_ones_are_over() {
        let now = Instant::now();
        let mut orders =
            orders(&["jump 5s", "jump -2s", "cut", "cut", "password x", "mute audio", "off"], now);
        let faults = orders.at(now);
        assert_eq!((faults.jump, orders.cuts, orders.resets), (3.0, 2, 1));
        assert!(faults.mute_audio && !faults.mute_video);
        assert!(faults.off && faults.lock.as_ref().is_some_and(|lock| !lock.digest));
        orders.apply(&"clear".parse().unwrap(), now);
        let faults = orders.at(now);
        assert!(!faults.off && faults.lock.is_none() && !faults.mute_audio);
        orders.apply(&"digest x".parse().unwrap(), now);
        assert!(orders.at(now).lock.is_some_and(|lock| lock.digest));
        assert_eq!(orders.resets, 2);
        assert_eq!(faults.jump, 3.0, "a clock that jumped stays where it is");
    }
}
