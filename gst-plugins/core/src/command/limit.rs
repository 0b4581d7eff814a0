//! How many commands per second are carried out.

/// A token bucket. Times are nanoseconds of any clock that does not go backwards.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Tokens per second; 0 = no limit.
    rate: f64,
    burst: f64,
    tokens: f64,
    last_ns: u64,
}

impl Bucket {
    /// Full at first. `burst` is how many may come at once.
    pub fn new(rate: f64, burst: f64, now_ns: u64) -> Self {
        Self { rate, burst, tokens: burst, last_ns: now_ns }
    }

    /// Takes a token where there is one.
    pub fn take(&mut self, now_ns: u64) -> bool {
        if self.rate <= 0.0 {
            return true;
        }
        let elapsed = now_ns.saturating_sub(self.last_ns) as f64 / 1e9;
        self.last_ns = self.last_ns.max(now_ns);
        self.tokens = (self.tokens + elapsed * self.rate).min(self.burst);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }
}
