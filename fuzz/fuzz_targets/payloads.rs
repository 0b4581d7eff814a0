//! What anybody with access to the broker may send: commands, states, events, and topics to compare with filters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nvr_core::{
    command::{self, Incoming, Status},
    event::DetectionEvent,
    overlay::{Filter, Sighting, Timeline},
    topic,
};

fuzz_target!(|bytes: &[u8]| {
    if let Incoming::Message(message) = command::read(bytes, "recorder-1") {
        // Both go into answers.
        assert!(message.name.len() <= 1024);
        assert!(message.request_id.is_none_or(|id| id.len() <= bytes.len()));
    }
    Status::parse(bytes);
    if let Ok(event) = DetectionEvent::from_bytes(bytes)
        && let Ok(sighting) = Sighting::from_event(&event)
    {
        // As the overlay keeps it.
        let mut timeline = Timeline::default();
        timeline.add(&event.instance_id, &event.model_id, sighting, 1);
        timeline.latest(&Filter::new("", ""), 2, 1_000_000_000);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let (name, filter) = text.split_once('\n').unwrap_or((text, "nvr/+/#"));
        topic::matches(name, filter);
        let _ = (topic::check_filter(filter), topic::check_prefix(name), topic::check_instance_id(name));
    }
});
