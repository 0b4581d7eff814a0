//! Events of the last seconds, by who sent them, and which of them belong to a frame.
//!
//! Capture times of two processes agree to the millisecond where they come from the camera's clock, and to some
//! milliseconds where they are arrival times; an event belongs to the frame whose capture time is nearest.

use std::collections::VecDeque;

use super::sighting::Sighting;

/// Events kept of each publisher: trails and late frames need no more.
const MAX_EVENTS: usize = 64;
/// Publishers kept; the one that was silent longest makes room. Topics are open to whoever the broker lets in.
const MAX_PUBLISHERS: usize = 16;

/// One model of one instance, and what it saw lately.
#[derive(Clone, Debug)]
pub struct Publisher {
    pub instance: String,
    pub model: String,
    /// By capture time.
    events: VecDeque<Entry>,
    /// Arrival of the last event.
    heard_ns: u64,
    /// Smoothed distance of two arrivals; 0 while unknown.
    interval_ns: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    serial: u64,
    arrived_ns: u64,
    sighting: Sighting,
}

/// An event that is to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Pick<'a> {
    pub publisher: &'a Publisher,
    index: usize,
}

impl<'a> Pick<'a> {
    /// Another number for every event: a picture of it can be kept for as long as this stays.
    pub fn serial(&self) -> u64 {
        self.publisher.events[self.index].serial
    }

    pub fn sighting(&self) -> &'a Sighting {
        &self.publisher.events[self.index].sighting
    }

    /// What the same publisher saw before, newest first.
    pub fn history(&self) -> impl Iterator<Item = &'a Sighting> {
        self.publisher.events.range(..self.index).rev().map(|entry| &entry.sighting)
    }
}

/// Which publishers are shown: lists of names separated by commas, in which `*` stands for anything; empty for all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    instances: Vec<String>,
    models: Vec<String>,
}

impl Filter {
    pub fn new(instances: &str, models: &str) -> Self {
        let list = |text: &str| {
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect()
        };
        Self { instances: list(instances), models: list(models) }
    }

    pub fn admits(&self, instance: &str, model: &str) -> bool {
        let any = |list: &[String], name| list.is_empty() || list.iter().any(|wanted| glob(wanted, name));
        any(&self.instances, instance) && any(&self.models, model)
    }
}

/// Whether `text` is `pattern`, in which `*` stands for any characters.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// Events of one camera. Times are nanoseconds: capture times since the Unix epoch, `now` of any steady clock.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    publishers: Vec<Publisher>,
    serial: u64,
}

impl Timeline {
    /// Takes an event in. One with the capture time of another of the same publisher replaces that one.
    pub fn add(&mut self, instance: &str, model: &str, sighting: Sighting, now_ns: u64) {
        self.serial += 1;
        let entry = Entry { serial: self.serial, arrived_ns: now_ns, sighting };
        let known = self.publishers.iter().position(|p| p.instance == instance && p.model == model);
        let at = known.unwrap_or_else(|| {
            if self.publishers.len() >= MAX_PUBLISHERS {
                let silent = self.publishers.iter().enumerate().min_by_key(|(_, p)| p.heard_ns);
                if let Some(n) = silent.map(|(n, _)| n) {
                    self.publishers.remove(n);
                }
            }
            self.publishers.push(Publisher {
                instance: instance.into(),
                model: model.into(),
                events: VecDeque::new(),
                heard_ns: now_ns,
                interval_ns: 0,
            });
            self.publishers.len() - 1
        });
        self.publishers[at].add(entry, now_ns);
    }

    /// Forgets what a publisher saw.
    pub fn forget(&mut self, instance: &str, model: &str) {
        self.publishers.retain(|p| p.instance != instance || p.model != model);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.publishers.clear();
    }

    /// Of every publisher that is admitted the newest event, where it is younger than `ttl`.
    pub fn latest(&self, filter: &Filter, now_ns: u64, ttl_ns: u64) -> Vec<Pick<'_>> {
        self.admitted(filter)
            .filter_map(|publisher| {
                let (index, entry) = publisher.events.iter().enumerate().max_by_key(|(_, e)| e.serial)?;
                let fresh = now_ns.saturating_sub(entry.arrived_ns) < ttl_ns;
                fresh.then_some(Pick { publisher, index })
            })
            .collect()
    }

    /// Of every publisher that is admitted the event that was made from the frame taken at `capture_ns`, else the last
    /// one before it that is younger than `ttl`. Capture times may differ by `tolerance`.
    pub fn at(&self, filter: &Filter, capture_ns: u64, tolerance_ns: u64, ttl_ns: u64) -> Vec<Pick<'_>> {
        self.admitted(filter)
            .filter_map(|publisher| {
                let limit = capture_ns.saturating_add(tolerance_ns);
                let after = publisher.events.partition_point(|e| e.sighting.capture_ns <= limit);
                let index = after.checked_sub(1)?;
                let age = capture_ns.saturating_sub(publisher.events[index].sighting.capture_ns);
                (age < ttl_ns).then_some(Pick { publisher, index })
            })
            .collect()
    }

    /// Whether waiting for more events about the frame taken at `capture_ns` is pointless: everyone who is expected
    /// to say something has spoken of it or of a later one. Who has been silent for several of its intervals is
    /// not expected.
    pub fn complete(&self, filter: &Filter, capture_ns: u64, tolerance_ns: u64, now_ns: u64) -> bool {
        self.admitted(filter).all(|publisher| {
            let newest = publisher.events.back().map_or(0, |e| e.sighting.capture_ns);
            let patience = (publisher.interval_ns * 4).clamp(500_000_000, 10_000_000_000);
            newest.saturating_add(tolerance_ns) >= capture_ns
                || now_ns.saturating_sub(publisher.heard_ns) > patience
        })
    }

    fn admitted<'a, 'f>(&'a self, filter: &'f Filter) -> impl Iterator<Item = &'a Publisher> + use<'a, 'f> {
        self.publishers.iter().filter(|p| filter.admits(&p.instance, &p.model))
    }
}

impl Publisher {
    fn add(&mut self, entry: Entry, now_ns: u64) {
        let since = now_ns.saturating_sub(self.heard_ns);
        self.interval_ns =
            if self.interval_ns == 0 { since } else { self.interval_ns - self.interval_ns / 4 + since / 4 };
        self.heard_ns = now_ns;
        let capture = entry.sighting.capture_ns;
        // A publisher whose clock was set back starts anew, or its old events would be the newest for ever.
        if self
            .events
            .back()
            .is_some_and(|last| capture.saturating_add(10_000_000_000) < last.sighting.capture_ns)
        {
            self.events.clear();
        }
        let at = self.events.partition_point(|e| e.sighting.capture_ns < capture);
        match self.events.get_mut(at) {
            Some(same) if same.sighting.capture_ns == capture => *same = entry,
            _ => self.events.insert(at, entry),
        }
        if self.events.len() > MAX_EVENTS {
            self.events.pop_front();
        }
    }
}
