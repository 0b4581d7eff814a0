//! Detections of this camera that the broker tells of: they say when to record and what a segment shows.

use std::collections::BTreeMap;
use std::thread;

use nvr_core::event::{DetectionEvent, parse_timestamp};
use nvr_core::topic;

use super::imp::CAT;
use crate::mqtt::{BrokerSettings, OptionsError, QoS, Signal, Subscription};

/// Events that wait to be read.
const QUEUE: usize = 256;
/// Classes of one segment that are kept apart; the names come from the network.
const CLASSES: usize = 64;
/// Older events were kept somewhere while the broker was away: nothing of that is still in memory.
const STALE_US: i64 = 60_000_000;

/// What was seen of one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    pub first_us: i64,
    pub last_us: i64,
    pub count: u64,
    pub confidence: f64,
}

/// What was seen, by class.
pub type Sightings = BTreeMap<String, Seen>;

impl Seen {
    /// Adds one object to `sightings`.
    pub fn add(sightings: &mut Sightings, class: &str, at_us: i64, confidence: f64) {
        if sightings.len() >= CLASSES && !sightings.contains_key(class) {
            return;
        }
        let confidence = confidence.clamp(0.0, 1.0);
        let one = Self { first_us: at_us, last_us: at_us, count: 1, confidence };
        match sightings.get_mut(class) {
            Some(seen) => seen.merge(&one),
            None => drop(sightings.insert(class.to_owned(), one)),
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.first_us = self.first_us.min(other.first_us);
        self.last_us = self.last_us.max(other.last_us);
        self.count += other.count;
        self.confidence = self.confidence.max(other.confidence);
    }
}

/// Events that have come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Heard {
    pub events: u64,
    /// Capture times of the earliest and of the latest, microseconds since 1970.
    pub first_us: i64,
    pub last_us: i64,
}

#[derive(Debug)]
pub struct Ear {
    subscription: Subscription,
    topic: String,
}

impl Ear {
    pub fn open(
        broker: &BrokerSettings,
        source_id: u32,
        observer: impl Fn(Signal) + Send + Sync + 'static,
    ) -> Result<Self, OptionsError> {
        let topic = topic::detections(broker.topic_prefix(), source_id);
        let options = broker.resolve()?;
        let subscription = Subscription::open(&options, &[(&topic, QoS::AtMostOnce)], QUEUE, observer)?;
        Ok(Self { subscription, topic })
    }

    /// Stops listening. Where nobody else needs the connection, saying good-bye to the broker takes a while, so a
    /// thread of its own does.
    pub fn leave(self) {
        let leaving = thread::Builder::new().name("nvr-leave".into());
        // Without a thread the caller has just done it.
        let _ = leaving.spawn(move || drop(self));
    }

    /// Adds what has come to `sightings`; `None` where nothing was seen.
    pub fn hear(&self, now_us: i64, sightings: &mut Sightings) -> Option<Heard> {
        let mut heard: Option<Heard> = None;
        for _ in 0..QUEUE {
            let Some(delivery) = self.subscription.try_recv() else { break };
            if delivery.topic() != self.topic {
                continue;
            }
            let event = match DetectionEvent::from_bytes(delivery.payload()) {
                Ok(event) => event,
                Err(error) => {
                    gst::debug!(CAT, "{}: {error}", self.topic);
                    continue;
                }
            };
            if event.detections.is_empty() {
                continue;
            }
            let at_us = parse_timestamp(&event.timestamp).map_or(now_us, |ns| (ns / 1000) as i64);
            if at_us < now_us - STALE_US {
                gst::debug!(CAT, "{}: an event of {} comes too late", self.topic, event.timestamp);
                continue;
            }
            let known = heard.get_or_insert(Heard { events: 0, first_us: at_us, last_us: at_us });
            known.events += 1;
            known.first_us = known.first_us.min(at_us);
            known.last_us = known.last_us.max(at_us);
            for detection in event.detections {
                Seen::add(sightings, &detection.class_name, at_us, detection.confidence);
            }
        }
        heard
    }
}
