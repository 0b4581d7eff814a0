//! How much more has to go while what was removed is not free yet: some file systems free late, and what a snapshot or
//! a reader holds is not freed at all.

use std::time::Duration;

/// How long what was removed is waited for.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long where it has not come for a few times.
const LONG: Duration = Duration::from_mins(10);
/// How often nothing may come of removing before that is slowed down.
const TRIES: u32 = 3;

/// What was removed from a volume and is still waited for. `now` is the time since any fixed moment.
#[derive(Clone, Debug, Default)]
pub struct Late {
    waiting: Vec<(u64, Duration)>,
    /// Free bytes at the last look.
    free: Option<u64>,
    /// How often nothing has come of removing.
    vain: u32,
}

impl Late {
    /// Bytes that have to be removed so that `wanted` are free, where `free` are.
    pub fn missing(&mut self, wanted: u64, free: u64, now: Duration) -> u64 {
        self.credit(free);
        let patience = if self.is_vain() { LONG } else { PATIENCE };
        let before = self.waiting.len();
        self.waiting.retain(|(_, since)| now.saturating_sub(*since) < patience);
        if self.waiting.len() < before {
            self.vain = self.vain.saturating_add(1);
        }
        let missing = wanted.saturating_sub(free);
        let missing = missing.saturating_sub(self.waiting.iter().map(|(bytes, _)| bytes).sum());
        match (self.is_vain(), self.waiting.is_empty()) {
            (false, _) => missing,
            // One, to see whether it helps again.
            (true, true) => missing.min(1),
            (true, false) => 0,
        }
    }

    /// That `bytes` were removed, and `free` are free since.
    pub fn removed(&mut self, bytes: u64, free: u64, now: Duration) {
        let before = self.free.replace(free).unwrap_or(free);
        let late = bytes.saturating_sub(free.saturating_sub(before));
        if late == 0 {
            self.vain = 0;
        } else {
            self.waiting.push((late, now));
        }
    }

    /// Whether removing does not help any more.
    pub fn is_vain(&self) -> bool {
        self.vain >= TRIES
    }

    /// What has become free since the last look is what was waited for.
    fn credit(&mut self, free: u64) {
        let mut come = free.saturating_sub(self.free.replace(free).unwrap_or(free));
        if come == 0 || self.waiting.is_empty() {
            return;
        }
        self.vain = 0;
        for (bytes, _) in &mut self.waiting {
            let part = come.min(*bytes);
            *bytes -= part;
            come -= part;
        }
        self.waiting.retain(|(bytes, _)| *bytes > 0);
    }
}
