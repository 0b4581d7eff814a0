//! The thread that sends every recorded file of a server, each at its own pace.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_app::AppSrc;
use parking_lot::{Condvar, Mutex};

use super::{SendHook, clip::Clip};

/// One file on its way to the clients of one path.
pub(super) struct Feed {
    source: AppSrc,
    clip: Arc<Clip>,
    mount: Arc<str>,
    next: u64,
    /// Open until the media plays.
    origin: Option<Origin>,
    paused: Arc<AtomicBool>,
}

/// When a unit was due: here, and in the media's running time.
#[derive(Clone, Copy)]
struct Origin {
    unit: u64,
    here: Instant,
    there: gst::ClockTime,
}

/// Everything that the pacing thread sends.
pub(super) struct Feeds {
    state: Mutex<(Vec<Feed>, bool)>,
    wake: Condvar,
    on_send: Option<SendHook>,
}

/// An access unit that is to be sent now.
struct Due {
    source: AppSrc,
    unit: gst::Buffer,
    mount: Arc<str>,
    number: u64,
}

impl Feeds {
    /// How often a media that does not play yet is looked at.
    const RETRY: Duration = Duration::from_millis(5);
    const IDLE: Duration = Duration::from_hours(1);

    pub fn new(on_send: Option<SendHook>) -> Self {
        Self { state: Mutex::default(), wake: Condvar::new(), on_send }
    }

    pub fn add(&self, feed: Feed) {
        self.state.lock().0.push(feed);
        self.wake.notify_one();
    }

    pub fn remove(&self, source: &AppSrc) {
        self.state.lock().0.retain(|feed| feed.source != *source);
    }

    pub fn stop(&self) {
        self.state.lock().1 = true;
        self.wake.notify_one();
    }

    pub fn run(&self) {
        let mut due: Vec<Due> = Vec::new();
        loop {
            {
                let mut state = self.state.lock();
                loop {
                    if state.1 {
                        return;
                    }
                    let now = Instant::now();
                    let next = state.0.iter_mut().map(|feed| feed.collect(now, &mut due)).min();
                    if !due.is_empty() {
                        break;
                    }
                    self.wake.wait_for(&mut state, next.unwrap_or(Self::IDLE));
                }
            }
            for Due { source, unit, mount, number } in due.drain(..) {
                // Before it goes, so that nobody can have the frame earlier than the hook knew of it.
                if let Some(SendHook(hook)) = &self.on_send {
                    hook(&mount, number);
                }
                // Flushing means that the last client has left; the feed goes when the media says so.
                let _ = source.push_buffer(unit);
            }
        }
    }
}

impl Feed {
    /// A media that was paused has lost time; more than this and its frames would be sent too late or too early.
    const DRIFT: gst::ClockTime = gst::ClockTime::from_mseconds(500);

    pub fn new(source: AppSrc, clip: Arc<Clip>, mount: Arc<str>, paused: Arc<AtomicBool>) -> Self {
        Self { source, clip, mount, next: 0, origin: None, paused }
    }

    /// Takes what is due; returns how long until something is.
    fn collect(&mut self, now: Instant, due: &mut Vec<Due>) -> Duration {
        // Before it plays, a media may have a clock and no base time, and thus a running time of days.
        let running =
            self.source.current_running_time().filter(|_| self.source.current_state() == gst::State::Playing);
        let Some(running) = running else {
            self.origin = None;
            return Feeds::RETRY;
        };
        let origin = self.origin.filter(|origin| {
            let expected = origin.there + gst::ClockTime::try_from(now - origin.here).unwrap_or_default();
            running.absdiff(expected) < Self::DRIFT
        });
        let origin = origin.unwrap_or(Origin { unit: self.next, here: now, there: running });
        self.origin = Some(origin);
        let interval = self.clip.interval;
        let at = |n: u64| origin.here + Duration::from(interval * (n - origin.unit));
        if self.paused.load(Ordering::Relaxed) {
            // The camera's clock goes on while it sends nothing.
            while at(self.next) <= now {
                self.next += 1;
            }
        }
        while at(self.next) <= now {
            if let Some(mut unit) = self.clip.unit(self.next) {
                let buffer = unit.make_mut();
                let before = interval * origin.unit;
                buffer.set_pts(buffer.pts().map(|pts| (pts + origin.there).saturating_sub(before)));
                due.push(Due {
                    source: self.source.clone(),
                    unit,
                    mount: self.mount.clone(),
                    number: self.next,
                });
            }
            self.next += 1;
        }
        at(self.next).saturating_duration_since(now)
    }
}
