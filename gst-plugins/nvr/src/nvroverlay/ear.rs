//! Events from the broker, as they are shown.

use nvr_core::event::DetectionEvent;
use nvr_core::overlay::{Sighting, Timeline};
use nvr_core::topic;

use super::imp::CAT;
use super::settings::Settings;
use crate::mqtt::{OptionsError, QoS, Signal, Subscription, SubscriptionStats};

/// Events that wait to be read: more than come while a frame is delayed.
const QUEUE: usize = 256;
/// Events read for one frame. What is beyond waits for the next one, so that no flood holds up the video.
const AT_ONCE: usize = 32;

/// A subscription to one camera's events, and what became of them.
#[derive(Debug, Default)]
pub struct Ear {
    subscription: Option<Subscription>,
    filter: Option<String>,
    pub events: u64,
    pub malformed: u64,
}

impl Ear {
    /// Listens to what the settings ask for, from now on.
    pub fn tune(
        &mut self,
        settings: &Settings,
        observer: impl Fn(Signal) + Send + Sync + 'static,
    ) -> Result<(), OptionsError> {
        let wanted = settings
            .source
            .mqtt()
            .then(|| topic::detections(settings.broker.topic_prefix(), settings.source_id));
        if self.filter == wanted {
            return Ok(());
        }
        let filters: Vec<_> = wanted.iter().map(|filter| (filter.as_str(), QoS::AtMostOnce)).collect();
        if let Some(subscription) = &self.subscription {
            subscription.set_filters(&filters)?;
        } else if wanted.is_some() {
            let options = settings.broker.resolve()?;
            self.subscription = Some(Subscription::open(&options, &filters, QUEUE, observer)?);
        }
        self.filter = wanted;
        Ok(())
    }

    /// Reads what has come. Whether everything was read.
    pub fn hear(&mut self, timeline: &mut Timeline, now_ns: u64) -> bool {
        let Some(subscription) = &self.subscription else { return true };
        for _ in 0..AT_ONCE {
            let Some(delivery) = subscription.try_recv() else { return true };
            // What was meant for the topic of before.
            if self.filter.as_deref() != Some(delivery.topic()) {
                continue;
            }
            let event = DetectionEvent::from_bytes(delivery.payload()).map_err(|error| error.to_string());
            let sighting = event.and_then(|event| {
                let sighting = Sighting::from_event(&event).map_err(|error| error.to_string())?;
                Ok((event, sighting))
            });
            match sighting {
                Ok((event, sighting)) => {
                    self.events += 1;
                    timeline.add(&event.instance_id, &event.model_id, sighting, now_ns);
                }
                Err(error) => {
                    self.malformed += 1;
                    gst::debug!(CAT, "{}: {error}", delivery.topic());
                }
            }
        }
        false
    }

    pub fn stats(&self) -> SubscriptionStats {
        self.subscription.as_ref().map(Subscription::stats).unwrap_or_default()
    }

    /// Stops listening, and gives what is left to be dropped without a lock: the connection may take leave.
    pub fn close(&mut self) -> Option<Subscription> {
        self.filter = None;
        self.subscription.take()
    }
}
