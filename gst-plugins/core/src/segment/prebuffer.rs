//! What is kept in memory while nothing is recorded: the last seconds, from a keyframe on, within a limit of bytes.

use std::collections::VecDeque;

/// A unit that waits, with what decides about it.
#[derive(Clone, Debug)]
struct Entry<T> {
    unit: T,
    time_us: i64,
    bytes: usize,
    /// A keyframe of the video: the buffer may begin here.
    key: bool,
}

/// Units of the last `span`, oldest first. The oldest one is a keyframe.
#[derive(Clone, Debug)]
pub struct PreBuffer<T> {
    entries: VecDeque<Entry<T>>,
    bytes: usize,
}

impl<T> Default for PreBuffer<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), bytes: 0 }
    }
}

impl<T> PreBuffer<T> {
    /// Adds a unit and forgets what is no longer needed to go back by `span_us`. What does not fit into `max_bytes`
    /// goes too, whole groups of pictures at a time, the oldest first. Returns how many units that cost.
    pub fn push(
        &mut self,
        unit: T,
        time_us: i64,
        bytes: usize,
        key: bool,
        span_us: i64,
        max_bytes: usize,
    ) -> usize {
        if self.entries.is_empty() && !key {
            return 1;
        }
        let before = self.entries.len() + 1;
        self.entries.push_back(Entry { unit, time_us, bytes, key });
        self.bytes += bytes;
        while let Some(next) = self.next_key() {
            let covered = self.entries[next].time_us <= time_us.saturating_sub(span_us);
            if !covered && self.bytes <= max_bytes {
                break;
            }
            self.forget(next);
        }
        // A single group that is too large is of no use: without its beginning it cannot be decoded.
        if self.bytes > max_bytes {
            self.forget(self.entries.len());
        }
        before - self.entries.len()
    }

    /// Forgets what is not needed to begin at `from_us`: everything before the last keyframe that is not later.
    pub fn trim(&mut self, from_us: i64) {
        while let Some(next) = self.next_key().filter(|next| self.entries[*next].time_us <= from_us) {
            self.forget(next);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn clear(&mut self) {
        self.forget(self.entries.len());
    }

    /// Everything that waits, oldest first.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.bytes = 0;
        self.entries.drain(..).map(|entry| entry.unit)
    }

    /// Where the second group of pictures begins.
    fn next_key(&self) -> Option<usize> {
        self.entries.iter().skip(1).position(|entry| entry.key).map(|at| at + 1)
    }

    fn forget(&mut self, count: usize) {
        self.bytes -= self.entries.drain(..count).map(|entry| entry.bytes).sum::<usize>();
    }
}
