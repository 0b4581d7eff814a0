//! What the writer holds in memory: the time before something happens, and what cannot be written yet. A full disk
//! leaves the segment open, with what waits for it; what else waits does so from a keyframe on, to begin a file with.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::imp::Settings;
use super::inbox::Unit;
use super::tracks::Recorded;
use super::worker::Worker;

impl Worker {
    /// From here on the pictures are of another stream, or only of another rate.
    pub(super) fn turn_to(&mut self, stream: Option<Arc<Recorded>>, settings: &Settings) {
        let same = match (&stream, &self.video) {
            (Some(new), Some(old)) => new.is_like(old),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.finish(settings);
            self.give_up(settings);
        }
        self.video = stream;
    }

    /// Writes what waits in memory, from `from_ns` on.
    pub(super) fn pour(&mut self, from_ns: Option<i64>, settings: &Settings) {
        if let Some(from_ns) = from_ns {
            self.kept.trim(from_ns / 1000);
        }
        self.owes = false;
        let present = self.video.clone();
        let waiting: Vec<_> = self.kept.drain().collect();
        for (unit, stream) in waiting {
            self.turn_to(stream, settings);
            self.put(unit, settings);
        }
        self.turn_to(present, settings);
    }

    /// Keeps what was wanted until it can be written: behind the open segment where there is one.
    pub(super) fn wait(&mut self, unit: Unit, settings: &Settings) {
        let Some(segment) = &mut self.segment else {
            self.owe(unit, settings);
            return;
        };
        self.shared.counters.taken(&unit);
        segment.add(unit);
        if segment.waiting_bytes() as u64 > settings.buffer_bytes || segment.is_crowded() {
            self.give_up(settings);
        }
    }

    /// Keeps what was wanted, to begin a segment with.
    pub(super) fn owe(&mut self, unit: Unit, settings: &Settings) {
        self.owes = true;
        self.keep(unit, settings, i64::MAX);
    }

    pub(super) fn keep(&mut self, unit: Unit, settings: &Settings, span_us: i64) {
        let (time_us, bytes, key) = (unit.dts_ns / 1000, unit.buffer.size(), unit.key);
        let item = (unit, self.video.clone());
        let forgotten = self.kept.push(item, time_us, bytes, key, span_us, settings.buffer_bytes as usize);
        if self.failing.is_some() {
            self.shared.counters.lost.fetch_add(forgotten as u64, Ordering::Relaxed);
        }
    }

    /// Ends the open segment without what waits for it; that is to begin another one, from its first keyframe on.
    pub(super) fn give_up(&mut self, settings: &Settings) {
        let Some(mut segment) = self.segment.take() else { return };
        let units = segment.release();
        self.end(&segment);
        let present = self.video.replace(segment.video);
        for unit in units {
            self.shared.counters.returned(&unit);
            self.owe(unit, settings);
        }
        self.video = present;
    }
}
