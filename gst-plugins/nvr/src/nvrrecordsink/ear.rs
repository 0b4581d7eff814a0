//! Detections of this camera that the broker tells of: they say when to record and what a segment shows.

use std::collections::BTreeMap;

use nvr_core::event::{DetectionEvent, parse_timestamp};
use nvr_core::topic;

use super::imp::CAT;
use crate::mqtt::{BrokerSettings, OptionsError, QoS, Signal, Subscription};

/// Events that wait to be read.
const QUEUE: usize = 256;
/// Classes of one segment that are kept apart; the names come from the network.
const CLASSES: usize = 64;

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

    /// Adds what has come to `sightings`. Whether anything was seen, and how many events that were.
    pub fn hear(&self, now_us: i64, sightings: &mut Sightings) -> u64 {
        let mut events = 0;
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
            events += 1;
            let at = parse_timestamp(&event.timestamp).map_or(now_us, |ns| (ns / 1000) as i64);
            for detection in event.detections {
                if sightings.len() >= CLASSES && !sightings.contains_key(&detection.class_name) {
                    continue;
                }
                let new = Seen { first_us: at, last_us: at, count: 0, confidence: 0.0 };
                let seen = sightings.entry(detection.class_name).or_insert(new);
                seen.first_us = seen.first_us.min(at);
                seen.last_us = seen.last_us.max(at);
                seen.count += 1;
                seen.confidence = seen.confidence.max(detection.confidence.clamp(0.0, 1.0));
            }
        }
        events
    }
}
