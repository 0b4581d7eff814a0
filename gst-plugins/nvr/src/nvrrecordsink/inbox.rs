//! What waits between the streams and the thread that writes. Streams never wait; where the disk is too slow, the
//! oldest group of pictures goes.

use std::collections::VecDeque;
use std::time::Duration;

use nvr_core::detection::CaptureTime;
use nvr_core::segment::mp4::Medium;
use parking_lot::{Condvar, Mutex};

use super::notice::Notice;

/// The writer is woken when a fragment is complete, and when this much waits. Otherwise it sleeps, so that a frame costs
/// no system call.
const WAKE_BYTES: usize = 1 << 20;
/// Pictures that somebody looked at and that wait. Where the disk is that slow, the oldest are forgotten.
const NOTICES: usize = 256;

#[derive(Clone, Debug)]
pub struct Unit {
    pub buffer: gst::Buffer,
    pub medium: Medium,
    /// Running time.
    pub pts_ns: i64,
    pub dts_ns: i64,
    pub capture: CaptureTime,
    /// A keyframe of the video.
    pub key: bool,
    /// Something before this is missing.
    pub gap: bool,
}

#[derive(Clone, Debug)]
pub enum Item {
    Unit(Unit),
    Caps(Medium, gst::Caps),
    /// The end of the stream, and the number of the event that says so.
    End(gst::Seqnum),
}

/// What the writer takes at once.
#[derive(Debug, Default)]
pub struct Batch {
    pub items: VecDeque<Item>,
    pub notices: VecDeque<Notice>,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    notices: VecDeque<Notice>,
    bytes: usize,
    dropped: u64,
    gap: bool,
    /// When the newest picture that waits is decoded.
    newest_ns: Option<i64>,
    /// The writer wants to see a picture of this time or a later one at once.
    due_ns: Option<i64>,
    wake: bool,
    closed: bool,
}

/// Lock order: there is one lock, and nothing is called under it.
#[derive(Debug, Default)]
pub struct Inbox {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Inbox {
    pub fn put(&self, mut item: Item, limit: usize) {
        let mut dropped = Vec::new();
        let wake = {
            let mut queue = self.queue.lock();
            let queue = &mut *queue;
            if queue.closed {
                return;
            }
            if let Item::Unit(unit) = &mut item {
                unit.gap |= std::mem::take(&mut queue.gap);
                queue.bytes += unit.buffer.size();
                if unit.medium == Medium::Video {
                    queue.newest_ns = Some(unit.dts_ns);
                }
            }
            queue.items.push_back(item);
            if queue.bytes > limit {
                queue.drop_group(&mut dropped);
            }
            (queue.bytes >= WAKE_BYTES || queue.is_due()) && !std::mem::replace(&mut queue.wake, true)
        };
        if wake {
            self.changed.notify_one();
        }
    }

    /// A picture of the own graph has been looked at. The writer sees it with the next media.
    pub fn notice(&self, notice: Notice) {
        let mut queue = self.queue.lock();
        if queue.closed {
            return;
        }
        if queue.notices.len() >= NOTICES {
            queue.notices.pop_front();
        }
        queue.notices.push_back(notice);
    }

    /// Everything that waits, after at most `tick`, or once there is a picture that is decoded at `due_ns` or later;
    /// `None` once the inbox is closed and empty.
    pub fn take(&self, tick: Duration, due_ns: Option<i64>) -> Option<Batch> {
        let mut queue = self.queue.lock();
        queue.due_ns = due_ns;
        if !queue.closed && !queue.wake && !queue.is_due() {
            self.changed.wait_for(&mut queue, tick);
        }
        queue.wake = false;
        queue.newest_ns = None;
        queue.bytes = 0;
        let items = std::mem::take(&mut queue.items);
        let notices = std::mem::take(&mut queue.notices);
        if items.is_empty() && queue.closed { None } else { Some(Batch { items, notices }) }
    }

    /// Has the writer look now.
    pub fn wake(&self) {
        self.queue.lock().wake = true;
        self.changed.notify_one();
    }

    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.changed.notify_one();
    }

    pub fn dropped(&self) -> u64 {
        self.queue.lock().dropped
    }
}

impl Queue {
    fn is_due(&self) -> bool {
        self.due_ns.zip(self.newest_ns).is_some_and(|(due, newest)| newest >= due)
    }

    /// Takes out the oldest units up to the next keyframe; caps stay.
    fn drop_group(&mut self, dropped: &mut Vec<Item>) {
        let key = |item: &Item| matches!(item, Item::Unit(unit) if unit.key);
        let first = self.items.iter().position(|item| matches!(item, Item::Unit(_))).unwrap_or(0);
        let end = self.items.iter().skip(first + 1).position(key);
        let end = end.map_or(self.items.len(), |at| first + 1 + at);
        let rest = self.items.split_off(end);
        let (caps, units): (Vec<_>, Vec<_>) =
            self.items.drain(..).partition(|item| !matches!(item, Item::Unit(_)));
        self.dropped += units.len() as u64;
        self.items.extend(caps);
        self.items.extend(rest);
        for item in &units {
            if let Item::Unit(unit) = item {
                self.bytes -= unit.buffer.size();
            }
        }
        dropped.extend(units);
        if let Some(Item::Unit(unit)) = self.items.iter_mut().find(|item| matches!(item, Item::Unit(_))) {
            unit.gap = true;
        } else {
            self.gap = true;
        }
    }
}
