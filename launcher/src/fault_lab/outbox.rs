//! Bytes on their way to one socket, each with the time at which it may be written.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

/// What may wait before nothing more is read from the other side.
const LIMIT: usize = 8 << 20;

/// Delays and throttles what passes through; keeps the order whatever the delays.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<(Instant, Vec<u8>)>,
    /// Of the first in the queue.
    written: usize,
    waiting: usize,
    last: Option<Instant>,
}

impl Outbox {
    /// `throttle` in kbit/s.
    pub fn push(&mut self, now: Instant, delay: Duration, throttle: Option<u32>, bytes: Vec<u8>) {
        let mut due = now + delay;
        if let Some(last) = self.last {
            due = due.max(last);
        }
        if let Some(kbit) = throttle {
            due += Duration::from_secs_f64(bytes.len() as f64 * 8.0 / (f64::from(kbit.max(1)) * 1000.0));
        }
        self.last = Some(due);
        self.waiting += bytes.len();
        self.queue.push_back((due, bytes));
    }

    pub fn has_room(&self) -> bool {
        self.waiting < LIMIT
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// When the next bytes may be written.
    pub fn next_due(&self) -> Option<Instant> {
        self.queue.front().map(|(due, _)| *due)
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.next_due().is_some_and(|due| due <= now)
    }

    /// Writes what may be written, until the socket takes no more.
    pub fn write(
        &mut self,
        now: Instant,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        while let Some((due, bytes)) = self.queue.front() {
            if *due > now {
                break;
            }
            match write(&bytes[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    if self.written >= bytes.len() {
                        self.waiting -= bytes.len();
                        self.written = 0;
                        self.queue.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_throttles_and_keeps_the_order() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut outbox = Outbox::default();
        outbox.push(start, Duration::from_millis(100), None, vec![1; 10]);
        // The delay has ended, and still nothing overtakes.
        outbox.push(at(10), Duration::ZERO, None, vec![2; 10]);
        outbox.push(at(10), Duration::ZERO, Some(8), vec![3; 50]);
        assert_eq!(outbox.next_due(), Some(at(100)));
        assert!(!outbox.is_due(at(99)) && outbox.is_due(at(100)));
        let mut out = Vec::new();
        let mut room = 15;
        let mut write = |bytes: &[u8]| {
            let count = bytes.len().min(room);
            room -= count;
            out.extend_from_slice(&bytes[..count]);
            if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
        };
        outbox.write(at(100), &mut write).unwrap();
        assert!(!outbox.is_empty());
        assert_eq!(out, [vec![1; 10], vec![2; 5]].concat());
        let mut rest = 0;
        outbox
            .write(at(149), |bytes| {
                rest += bytes.len();
                Ok(bytes.len())
            })
            .unwrap();
        assert_eq!(rest, 5);
        // 50 bytes at 8 kbit/s take 50 ms.
        outbox
            .write(at(150), |bytes| {
                rest += bytes.len();
                Ok(bytes.len())
            })
            .unwrap();
        assert_eq!(rest, 55);
        assert!(outbox.is_empty() && outbox.has_room());
    }
}
