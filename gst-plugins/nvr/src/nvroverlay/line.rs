//! Where frames wait for their events: a queue that lets each frame go when its event is there or its time is up.
//!
//! Where nothing waits and nothing has to, frames do not come here: they are pushed by the thread that brings them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Frames that wait at most, whatever the delay and the rate are.
const MAX_FRAMES: usize = 512;

/// Something on its way downstream.
#[derive(Debug)]
pub enum Item {
    Frame(Frame),
    Event(gst::Event),
}

#[derive(Debug)]
pub struct Frame {
    pub buffer: gst::Buffer,
    /// Nanoseconds since the Unix epoch.
    pub capture_ns: u64,
    /// When waiting ends.
    pub deadline: Instant,
}

/// What came of bringing something.
#[derive(Debug)]
pub enum Entry {
    /// Nothing is ahead of it: it is to be pushed by whoever brought it.
    Direct(Item),
    /// It waits; the thread that takes items has to run.
    Waits { start: bool },
}

#[derive(Debug)]
struct Inner {
    items: VecDeque<Item>,
    /// An item has been taken and not been pushed yet.
    busy: bool,
    flushing: bool,
    /// The thread that takes items has been started.
    started: bool,
    /// An event has come since the head was looked at.
    news: bool,
    /// Of the last push.
    flow: Result<gst::FlowSuccess, gst::FlowError>,
}

#[derive(Debug)]
pub struct Line {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            inner: Mutex::new(Inner {
                items: VecDeque::new(),
                busy: false,
                flushing: true,
                started: false,
                news: false,
                flow: Ok(gst::FlowSuccess::Ok),
            }),
            changed: Condvar::new(),
        }
    }
}

impl Line {
    /// Brings something. A frame with a delay waits, and so does everything behind one that waits. Where `capacity`
    /// items wait, this waits for the first to go.
    pub fn enter(&self, item: Item, delay: Duration, capacity: usize) -> Result<Entry, gst::FlowError> {
        let capacity = capacity.clamp(2, MAX_FRAMES);
        let mut inner = self.inner.lock();
        loop {
            if inner.flushing {
                return Err(gst::FlowError::Flushing);
            }
            inner.flow?;
            if inner.items.is_empty() && !inner.busy && delay.is_zero() {
                return Ok(Entry::Direct(item));
            }
            if inner.items.len() < capacity {
                break;
            }
            self.changed.wait(&mut inner);
        }
        inner.items.push_back(item);
        let start = !std::mem::replace(&mut inner.started, true);
        drop(inner);
        self.changed.notify_all();
        Ok(Entry::Waits { start })
    }

    /// Waits for the next item that may go, and whether its time was up before it was ready. `None` when flushing.
    /// `ready` is asked about a capture time, without a lock, whenever an event has come.
    pub fn next(&self, mut ready: impl FnMut(u64) -> bool) -> Option<(Item, bool)> {
        let mut inner = self.inner.lock();
        loop {
            if inner.flushing {
                return None;
            }
            let (capture_ns, deadline) = match inner.items.front() {
                None => {
                    self.changed.wait(&mut inner);
                    continue;
                }
                Some(Item::Event(_)) => return inner.take().map(|item| (item, false)),
                Some(Item::Frame(frame)) => (frame.capture_ns, frame.deadline),
            };
            inner.news = false;
            drop(inner);
            let is_ready = ready(capture_ns);
            inner = self.inner.lock();
            let late = !is_ready && Instant::now() >= deadline;
            if is_ready || late {
                // Only this thread takes items, and a flush has emptied the queue.
                match inner.take() {
                    Some(item) => return Some((item, late)),
                    None => continue,
                }
            }
            if !inner.news && !inner.flushing {
                self.changed.wait_until(&mut inner, deadline);
            }
        }
    }

    /// The item that was taken has been pushed.
    pub fn done(&self, flow: Result<gst::FlowSuccess, gst::FlowError>) {
        let mut inner = self.inner.lock();
        inner.busy = false;
        if !inner.flushing {
            inner.flow = flow;
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// An event has come: whoever waits looks again.
    pub fn news(&self) {
        self.inner.lock().news = true;
        self.changed.notify_all();
    }

    /// Lets nothing in and wakes everyone, or begins anew. The thread has to be started again in either case.
    pub fn flush(&self, flushing: bool) {
        let items = {
            let mut inner = self.inner.lock();
            inner.flushing = flushing;
            inner.started = false;
            inner.flow = Ok(gst::FlowSuccess::Ok);
            std::mem::take(&mut inner.items)
        };
        self.changed.notify_all();
        drop(items);
    }

    /// Waits until everything has gone, which takes the delay at most. Whether it has: where downstream takes nothing
    /// more, it never will.
    pub fn empty(&self) -> bool {
        let mut inner = self.inner.lock();
        while !inner.flushing && (inner.busy || !inner.items.is_empty()) {
            if inner.flow.is_err() {
                return false;
            }
            self.changed.wait(&mut inner);
        }
        !inner.flushing
    }

    /// Frames that wait.
    pub fn waiting(&self) -> usize {
        self.inner.lock().items.iter().filter(|item| matches!(item, Item::Frame(_))).count()
    }
}

impl Inner {
    fn take(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.busy = true;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc::channel};

    use super::*;

    #[test]
    fn what_waits_for_the_frames_ahead_does_not_wait_for_those_that_downstream_refuses() {
        gst::init().unwrap();
        let line = Arc::new(Line::default());
        line.flush(false);
        for _ in 0..2 {
            let frame = Frame { buffer: gst::Buffer::new(), capture_ns: 0, deadline: Instant::now() };
            line.enter(Item::Frame(frame), Duration::from_secs(1), 10).unwrap();
        }
        assert!(line.next(|_| true).is_some());
        let (done, answer) = channel();
        let waiting = line.clone();
        std::thread::spawn(move || done.send(waiting.empty()));
        assert!(answer.recv_timeout(Duration::from_millis(50)).is_err(), "one is on its way");
        line.done(Err(gst::FlowError::Error));
        assert_eq!(answer.recv_timeout(Duration::from_secs(20)), Ok(false));

        line.flush(true);
        line.flush(false);
        assert!(line.empty());
    }
}
