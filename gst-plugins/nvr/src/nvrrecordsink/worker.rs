//! The thread that writes one camera's recordings. It alone touches the disk; what fails there is said once, tried
//! again, and concerns nobody else. Meanwhile the newest media wait in memory, as much as `buffer-bytes` allows.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use gst::glib;
use nvr_core::backoff::Backoff;
use nvr_core::detection::Clock;
use nvr_core::retention::Policy;
use nvr_core::segment::mp4::Medium;
use nvr_core::segment::prebuffer::PreBuffer;
use nvr_core::segment::trigger::{Demand, Reason, Trigger};
use parking_lot::Mutex;

use super::catalog::{self, Cause, Entry, Guard, Keeper, Limits, Order};
use super::clips::{self, Cutter};
use super::ear::{Ear, Seen, Sightings};
use super::file::SegmentFile;
use super::imp::{CAT, Settings};
use super::inbox::{Inbox, Item, Unit};
use super::notice::Notice;
use super::report::{Doing, Report, Voice};
use super::tiers::{self, Tally};
use super::tracks::{self, Recorded};
use super::volume::{Volume, VolumeError};
use super::{Mode, NvrRecordSink};

/// How often the thread looks by itself. It is woken when there is something to write.
const TICK: Duration = Duration::from_millis(600);
/// After this long there may be room on a disk that was full.
const ROOM: Duration = Duration::from_millis(100);
/// Without new media for this long, what waits is written.
const IDLE: Duration = Duration::from_millis(700);
/// A larger jump of the timestamps ends a segment.
const JUMP_NS: i64 = 10_000_000_000;
/// How late detections may come and still find in memory what they are about.
const LATE_NS: i64 = 3_000_000_000;
/// Stands for a recording on demand among what was seen.
const ON_DEMAND: &str = "on_demand";

#[derive(Debug, Default)]
pub struct Counters {
    pub received: AtomicU64,
    pub written: AtomicU64,
    pub lost: AtomicU64,
    pub bytes: AtomicU64,
    pub segments: AtomicU64,
    pub errors: AtomicU64,
    pub events: AtomicU64,
    pub looked_at: AtomicU64,
    pub clips: AtomicU64,
    pub recording: AtomicBool,
    pub buffered: AtomicU64,
}

impl Counters {
    /// A unit is in a file, or about to be.
    pub(super) fn taken(&self, unit: &Unit) {
        self.written.fetch_add(u64::from(unit.medium == Medium::Video), Ordering::Relaxed);
        self.bytes.fetch_add(unit.buffer.size() as u64, Ordering::Relaxed);
    }

    /// It is not after all.
    pub(super) fn returned(&self, unit: &Unit) {
        self.written.fetch_sub(u64::from(unit.medium == Medium::Video), Ordering::Relaxed);
        self.bytes.fetch_sub(unit.buffer.size() as u64, Ordering::Relaxed);
    }
}

/// What others ask of a recorder.
#[derive(Debug, Default)]
pub struct Asked {
    pub demand: Option<Demand>,
    /// Not seen by the thread yet.
    pub clips: Vec<clips::Order>,
    /// All that are not finished.
    pub open_clips: usize,
}

/// What the element and its thread have in common.
///
/// Lock order: none is taken while another is held.
#[derive(Debug, Default)]
pub struct Shared {
    pub settings: Mutex<Settings>,
    pub inbox: Inbox,
    pub counters: Counters,
    pub tally: Arc<Tally>,
    pub asked: Mutex<Asked>,
    pub report: Mutex<Report>,
    /// Whether pictures of the own graph may come.
    pub has_frames: AtomicBool,
}

impl Shared {
    /// Whether the broker is asked what was seen.
    pub fn listens(&self, settings: &Settings) -> bool {
        settings.listen || (settings.mode == Mode::Events && !self.has_frames.load(Ordering::Relaxed))
    }
}

/// Microseconds since 1970.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// Nanoseconds of a clock that does not go backwards, the same for every recorder of the process.
pub fn steady_ns() -> u64 {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    ORIGIN.elapsed().as_nanos() as u64
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

impl Trouble {
    fn full(&self) -> bool {
        match self {
            Self::Io { error, .. } | Self::Volume(VolumeError::Io { error, .. }) => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Volume(_) => false,
        }
    }

    fn advice(&self) -> &'static str {
        if self.full() {
            "the oldest recordings are removed; set max-bytes or min-free to keep room"
        } else {
            "it is tried again until it succeeds"
        }
    }
}

pub struct Worker {
    pub(super) shared: Arc<Shared>,
    voice: Arc<Voice>,
    volume: Option<Volume>,
    guard: Option<Guard>,
    limits: Arc<Mutex<Limits>>,
    ear: Option<Ear>,
    pub(super) video: Option<Arc<Recorded>>,
    audio: Option<Recorded>,
    pub(super) segment: Option<SegmentFile>,
    /// The next keyframe of the video begins a segment.
    cut: bool,
    /// Each unit with the stream that it is of.
    pub(super) kept: PreBuffer<(Unit, Option<Arc<Recorded>>)>,
    backoff: Backoff,
    /// While writing fails: when to try again.
    pub(super) failing: Option<Instant>,
    trigger: Trigger,
    demand: Option<Demand>,
    /// The newest picture when that began: running time, and capture time in microseconds since 1970.
    demand_ns: i64,
    demand_us: i64,
    cutter: Cutter,
    /// Why it is recorded now.
    cause: Cause,
    /// What was wanted is only in memory: writing failed.
    pub(super) owes: bool,
    sightings: Sightings,
    events: u64,
    /// The newest picture: running time, capture time in microseconds since 1970, and when it came.
    last_ns: i64,
    last_us: Option<i64>,
    last_media: Instant,
    /// Where the present recording begins.
    since_us: Option<i64>,
    trouble: Option<String>,
    warned_unwatched: bool,
    deaf: bool,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, element: glib::WeakRef<NvrRecordSink>) -> Self {
        let voice = Arc::new(Voice(element));
        let cutter = Cutter::new(shared.clone(), voice.clone());
        Self {
            shared,
            voice,
            volume: None,
            guard: None,
            limits: Arc::default(),
            ear: None,
            video: None,
            audio: None,
            segment: None,
            cut: false,
            kept: PreBuffer::default(),
            backoff: Backoff::limited(Duration::from_secs(5)),
            failing: None,
            trigger: Trigger::default(),
            demand: None,
            demand_ns: 0,
            demand_us: 0,
            cutter,
            cause: Cause::default(),
            owes: false,
            sightings: Sightings::new(),
            events: 0,
            last_ns: 0,
            last_us: None,
            last_media: Instant::now(),
            since_us: None,
            trouble: None,
            warned_unwatched: false,
            deaf: false,
        }
    }

    pub fn run(mut self) {
        // Leftovers of the last run are taken care of before there is anything new, where the disk is there.
        let settings = self.shared.settings.lock().clone();
        if let Err(trouble) = self.mount(&settings) {
            self.fail(&trouble, &settings);
        }
        loop {
            let due_ns = self.segment.as_ref().filter(|_| !self.must_wait()).and_then(SegmentFile::due_ns);
            let Some(batch) = self.shared.inbox.take(TICK, due_ns) else { break };
            let settings = self.shared.settings.lock().clone();
            self.follow(&settings);
            self.listen(&settings);
            for notice in batch.notices {
                self.notice(&notice, &settings);
            }
            self.heed(&settings);
            self.work(batch.items, &settings);
            self.save_due(&settings, false);
            self.tell(&settings);
        }
        let settings = self.shared.settings.lock().clone();
        // The last attempt.
        self.failing = self.failing.map(|_| Instant::now());
        self.finish(&settings);
        self.give_up(&settings);
        if self.owes {
            let lost = self.kept.drain().count() as u64;
            self.shared.counters.lost.fetch_add(lost, Ordering::Relaxed);
        }
        self.heed(&settings);
        self.save_due(&settings, true);
        self.cutter.end();
    }

    fn work(&mut self, items: VecDeque<Item>, settings: &Settings) {
        for item in items {
            match item {
                Item::Caps(medium, caps) => self.caps(medium, &caps, settings),
                Item::Unit(unit) => self.unit(unit, settings),
                Item::End(seqnum) => {
                    self.finish(settings);
                    self.voice.end(seqnum);
                }
            }
        }
        let silent = self.last_media.elapsed() > IDLE;
        if (silent || settings.mode == Mode::Off) && self.segment.is_some() && self.reason(settings).is_none()
        {
            self.finish(settings);
        }
        if silent && !self.must_wait() {
            self.write(None, settings);
        }
        let counters = &self.shared.counters;
        counters.recording.store(self.segment.is_some(), Ordering::Relaxed);
        counters.buffered.store(self.kept.bytes() as u64, Ordering::Relaxed);
    }

    /// Settings that may change at any time.
    fn follow(&mut self, settings: &Settings) {
        let age = |seconds: u64| (seconds > 0).then(|| seconds.min(1 << 40) as i64 * 1_000_000);
        *self.limits.lock() = Limits {
            policy: Policy {
                max_age_us: age(settings.max_age),
                events_max_age_us: age(settings.events_max_age),
                max_bytes: (settings.max_bytes > 0).then_some(settings.max_bytes),
            },
            min_free: settings.min_free,
            tiers: settings.tiers.clone(),
            tally: self.shared.tally.clone(),
        };
    }

    /// Hears what the broker says was seen.
    fn listen(&mut self, settings: &Settings) {
        if !self.shared.listens(settings) {
            if let Some(ear) = self.ear.take() {
                ear.leave();
            }
        } else if self.ear.is_none() && !self.deaf {
            let observer = Arc::downgrade(&self.shared);
            let opened = Ear::open(&settings.broker, settings.source_id, move |_| {
                // An event has to reach a recorder that has nothing else to do.
                if let Some(shared) = observer.upgrade() {
                    shared.inbox.wake();
                }
            });
            match opened {
                Ok(ear) => self.ear = Some(ear),
                Err(error) => {
                    self.deaf = true;
                    let id = settings.source_id;
                    self.voice
                        .warn(&format!("the recorder of camera {id} cannot listen to the broker: {error}"));
                }
            }
        }
        let Some(heard) = self.ear.as_ref().and_then(|ear| ear.hear(now_us(), &mut self.sightings)) else {
            return;
        };
        self.shared.counters.events.fetch_add(heard.events, Ordering::Relaxed);
        self.events += heard.events;
        for at_us in [heard.first_us, heard.last_us] {
            self.trigger.seen(self.running_ns(at_us), post_ns(settings));
        }
        self.note_sightings();
    }

    /// A picture of the own graph has been looked at.
    fn notice(&mut self, notice: &Notice, settings: &Settings) {
        self.trigger.looked(notice.at_ns, notice.moved, post_ns(settings));
        if !notice.detections.is_empty() {
            self.shared.counters.events.fetch_add(1, Ordering::Relaxed);
            self.events += 1;
            notice.add_to(&mut self.sightings, now_us());
            self.trigger.seen(notice.at_ns, post_ns(settings));
            self.note_sightings();
        }
    }

    /// The running time of a capture time, which other clocks may have given.
    fn running_ns(&self, at_us: i64) -> i64 {
        let ago_us = self.last_us.map_or(0, |last| last.saturating_sub(at_us));
        self.last_ns - ago_us.saturating_mul(1000).clamp(0, JUMP_NS)
    }

    /// Takes over what others ask for.
    fn heed(&mut self, settings: &Settings) {
        let (demand, clips) = {
            let mut asked = self.shared.asked.lock();
            if asked.demand.as_ref().is_some_and(|demand| demand.is_over(steady_ns())) {
                asked.demand = None;
            }
            (asked.demand.clone(), std::mem::take(&mut asked.clips))
        };
        if self.demand != demand {
            if self.demand.is_none() {
                self.demand_ns = self.last_ns;
                self.demand_us = self.last_us.unwrap_or_else(now_us);
            }
            self.demand = demand;
        }
        for order in clips {
            self.accept(order, settings);
        }
    }

    fn accept(&mut self, order: clips::Order, settings: &Settings) {
        let silent = self.last_media.elapsed();
        let now_us = match self.last_us {
            Some(last) if silent < clips::GRACE => last + silent.as_micros() as i64,
            _ => now_us(),
        };
        let Some((name, from_us)) = self.cutter.accept(order, now_us, settings.source_id) else { return };
        // What is only in memory goes into a file of its own, where it is found when the clip is made.
        if self.segment.is_none() && !self.must_wait() && !self.kept.is_empty() {
            self.cause = Cause { reason: Some(Reason::OnDemand), label: Some(name) };
            let ago_us = self.last_us.map_or(0, |last| last.saturating_sub(from_us));
            self.pour(Some(self.last_ns - ago_us.saturating_mul(1000)), settings);
        }
    }

    /// Makes the clips whose end is on the disk, or that have waited for long enough; all of them at the end.
    fn save_due(&mut self, settings: &Settings, all: bool) {
        let written_us = match &self.segment {
            Some(segment) => segment.written_us(),
            None if self.failing.is_some() => i64::MIN,
            None => self.last_us.unwrap_or(i64::MIN),
        };
        let volume =
            self.volume.as_ref().ok_or_else(|| self.trouble.as_deref().unwrap_or("there is no disk"));
        self.cutter.save_due(written_us, all, volume, settings.source_id);
    }

    /// Hands what was seen to the segment that is being written.
    fn note_sightings(&mut self) {
        let Some(segment) = &mut self.segment else { return };
        segment.events += std::mem::take(&mut self.events);
        for (class, seen) in std::mem::take(&mut self.sightings) {
            let none = Seen { count: 0, ..seen };
            segment.sightings.entry(class).or_insert(none).merge(&seen);
        }
    }

    fn caps(&mut self, medium: Medium, caps: &gst::Caps, settings: &Settings) {
        match medium {
            Medium::Video => {
                let new = tracks::video(caps);
                if new.is_none() {
                    self.voice.warn(&format!(
                        "such video cannot be recorded: {caps}; put h264parse or h265parse before"
                    ));
                }
                self.turn_to(new.map(Arc::new), settings);
            }
            Medium::Audio => {
                let new = tracks::audio(caps);
                if new.is_none() {
                    let name = caps.structure(0).map(|s| s.name().to_string()).unwrap_or_default();
                    self.voice.warn(&format!(
                        "MP4 holds no {name}; the video is recorded without sound: set the camera to AAC or Opus"
                    ));
                }
                self.cut |= new != self.audio;
                self.audio = new;
            }
        }
    }

    /// Why what comes now is recorded; `None` where it is not.
    fn reason(&self, settings: &Settings) -> Option<Reason> {
        self.trigger
            .reason(settings.mode.when(), self.demand.is_some(), self.last_ns)
            .or_else(|| self.cutter.wants(self.last_us).then_some(Reason::OnDemand))
    }

    /// From where on what is in memory belongs to the recording, in running time.
    fn begins_ns(&self, reason: Reason, settings: &Settings) -> Option<i64> {
        let pre_ns = i64::from(settings.pre_buffer) * 1_000_000_000;
        match reason {
            _ if self.owes => None,
            // What a clip wants was written when it was asked for.
            Reason::OnDemand => self.demand.as_ref().map(|_| self.demand_ns - pre_ns),
            Reason::Continuous => None,
            Reason::Motion | Reason::Events => self.trigger.from_ns(reason).map(|from| from - pre_ns),
        }
    }

    fn must_wait(&self) -> bool {
        self.failing.is_some_and(|until| Instant::now() < until)
    }

    fn unit(&mut self, unit: Unit, settings: &Settings) {
        self.last_media = Instant::now();
        if unit.medium == Medium::Video {
            self.last_ns = unit.pts_ns;
            self.last_us = Some((unit.capture.unix_ns / 1000) as i64);
            self.trigger.media(unit.pts_ns);
            if self.video.is_none() {
                return;
            }
        } else if self.audio.is_none() {
            return;
        }
        let Some(reason) = self.reason(settings) else {
            // Up to the next keyframe: what follows can be kept from there on, and nothing lies between.
            if self.segment.is_some() && !unit.key && settings.mode != Mode::Off {
                self.put(unit, settings);
                return;
            }
            if self.owes && !self.must_wait() {
                self.pour(None, settings);
            }
            self.finish(settings);
            self.give_up(settings);
            if settings.mode == Mode::Off {
                self.kept.clear();
            } else {
                let span_us = i64::from(settings.pre_buffer) * 1_000_000 + LATE_NS / 1000;
                self.keep(unit, settings, if self.owes { i64::MAX } else { span_us });
            }
            return;
        };
        self.explain(reason, settings);
        if self.must_wait() {
            self.put(unit, settings);
            return;
        }
        if self.segment.is_none() && !self.kept.is_empty() {
            self.pour(self.begins_ns(reason, settings), settings);
        }
        self.put(unit, settings);
    }

    /// Notes why it is recorded. What was asked for stands before what happened by itself.
    fn explain(&mut self, reason: Reason, settings: &Settings) {
        if reason == Reason::Motion && !self.warned_unwatched && self.trigger.is_unwatched() {
            self.warned_unwatched = true;
            let id = settings.source_id;
            self.voice.warn(&format!(
                "nobody looks for motion in the pictures of camera {id}, so everything is recorded; lead them through \
                 nvrmotion to the pad frames of the recorder"
            ));
        }
        let label = match &self.demand {
            _ if reason != Reason::OnDemand => None,
            Some(demand) => demand.label.as_deref(),
            None => self.cutter.first(),
        };
        if self.cause.reason == Some(reason) && self.cause.label.as_deref() == label {
            return;
        }
        self.cause = Cause { reason: Some(reason), label: label.map(str::to_owned) };
        let Some(segment) = &mut self.segment else { return };
        let known = segment.cause.reason;
        let better = known != self.cause.reason && known != Some(Reason::OnDemand);
        let renamed = reason == Reason::OnDemand && segment.cause != self.cause;
        if better || renamed {
            segment.cause = self.cause.clone();
            if reason == Reason::OnDemand {
                segment.asked_us.get_or_insert((self.demand_us, self.demand_us));
            }
            self.note_open(settings.source_id);
        }
    }

    pub(super) fn put(&mut self, unit: Unit, settings: &Settings) {
        if let Some(segment) = &self.segment {
            let long = segment.age_ns(unit.dts_ns) >= settings.segment_duration as i64 * 1_000_000_000;
            let torn = !segment.follows(&unit, JUMP_NS) || (unit.gap && unit.medium == Medium::Video);
            let cut = torn || (unit.key && self.cut);
            if cut || (unit.key && long) {
                self.finish(settings);
            }
            // Where a disk is full, a segment may go on for longer than it should, but not with another stream.
            if cut {
                self.give_up(settings);
            }
        }
        if self.must_wait() {
            self.wait(unit, settings);
            return;
        }
        if self.segment.is_none() {
            if !unit.key {
                if unit.medium == Medium::Video {
                    self.shared.counters.lost.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
            if let Err(trouble) = self.begin(&unit, settings) {
                self.fail(&trouble, settings);
                self.owe(unit, settings);
                return;
            }
        }
        let Some(segment) = &mut self.segment else { return };
        if let Some((_, to_us)) =
            segment.asked_us.as_mut().filter(|_| self.cause.reason == Some(Reason::OnDemand))
        {
            *to_us = (*to_us).max((unit.capture.unix_ns / 1000) as i64);
        }
        if segment.is_due(&unit) {
            self.write((unit.medium == Medium::Video).then_some(unit.dts_ns), settings);
        }
        self.wait(unit, settings);
    }

    /// Writes what waits for the segment. `next_ns`: when the next picture is decoded, where that is known.
    fn write(&mut self, next_ns: Option<i64>, settings: &Settings) {
        let Some(segment) = &mut self.segment else { return };
        match segment.flush(next_ns) {
            Ok(()) => self.succeed(),
            Err(error) => {
                let path = segment.path.clone();
                self.fail(&Trouble::Io { path, error }, settings);
            }
        }
    }

    fn succeed(&mut self) {
        if self.failing.take().is_some() {
            self.backoff.reset();
            self.trouble = None;
        }
    }

    fn mount(&mut self, settings: &Settings) -> Result<Volume, Trouble> {
        if let Some(volume) = &self.volume {
            volume.check()?;
            return Ok(volume.clone());
        }
        let volume = Volume::open(&settings.location, settings.volume_id.as_deref())?;
        let catalogue = settings.catalog.clone().unwrap_or_else(|| settings.location.join(catalog::FILE));
        self.follow(settings);
        self.guard = Some(Keeper::of(&catalogue).attach(&volume, settings.source_id, &self.limits));
        self.volume = Some(volume.clone());
        Ok(volume)
    }

    fn begin(&mut self, unit: &Unit, settings: &Settings) -> Result<(), Trouble> {
        let volume = self.mount(settings)?;
        let Some(video) = &self.video else { return Ok(()) };
        let fragment_ns = i64::from(settings.fragment_duration) * 1_000_000;
        let audio = self.audio.as_ref();
        let made = SegmentFile::create(
            &volume.root,
            settings.source_id,
            unit,
            video,
            audio,
            fragment_ns,
            settings.sync,
        );
        let mut segment = made.map_err(|error| Trouble::Io { path: volume.root.clone(), error })?;
        gst::debug!(CAT, "camera {}: {}", settings.source_id, segment.path.display());
        self.cut = false;
        segment.cause = self.cause.clone();
        if self.cause.reason == Some(Reason::OnDemand) {
            segment.asked_us = Some((segment.start_us, segment.start_us));
        }
        self.since_us.get_or_insert(segment.start_us);
        self.segment = Some(segment);
        self.note_sightings();
        self.note_open(settings.source_id);
        self.succeed();
        self.shared.counters.segments.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Ends the segment that is being written, where its end can be.
    pub(super) fn finish(&mut self, settings: &Settings) {
        if self.must_wait() {
            return;
        }
        self.write(None, settings);
        if self.failing.is_none()
            && let Some(segment) = self.segment.take()
        {
            self.end(&segment);
        }
    }

    pub(super) fn end(&self, segment: &SegmentFile) {
        let source_id = self.shared.settings.lock().source_id;
        if segment.frames == 0
            && let Some(volume) = &self.volume
        {
            segment.discard(&volume.root);
        }
        self.note(segment, true, source_id);
        self.voice.segment(segment, source_id);
    }

    fn note_open(&self, source_id: u32) {
        if let Some(segment) = &self.segment {
            self.note(segment, false, source_id);
        }
    }

    fn note(&self, segment: &SegmentFile, ended: bool, source_id: u32) {
        let (Some(volume), Some(guard)) = (&self.volume, &self.guard) else { return };
        // Each note of what was seen is entered, so there is one, at the end.
        let mut sightings = if ended { segment.sightings.clone() } else { Sightings::new() };
        if let Some((first_us, last_us)) = segment.asked_us.filter(|_| ended) {
            let asked = Seen { first_us, last_us: last_us.max(first_us), count: 1, confidence: 1.0 };
            sightings.insert(ON_DEMAND.into(), asked);
        }
        let entry = Entry {
            volume: volume.clone(),
            source_id,
            path: segment.path.clone(),
            start_us: segment.start_us,
            end_us: ended.then(|| segment.end_us()),
            clock: if segment.clock == Clock::Ntp { "ntp" } else { "arrival" },
            bytes: segment.bytes,
            frames: segment.frames,
            codec: segment.video.codec.to_owned(),
            audio: segment.audio.as_ref().map(|audio| audio.codec.to_owned()),
            width: u32::from(segment.video.track.width),
            height: u32::from(segment.video.track.height),
            // Retention keeps what was asked for as it keeps events.
            event_count: segment.events + u64::from(segment.asked_us.is_some()),
            checksum: ended.then(|| segment.checksum.text()),
            tier: tiers::HOT,
            sightings,
            cause: segment.cause.clone(),
        };
        guard.keeper.send(Order::Note(Box::new(entry)));
    }

    /// Writing failed. What was written stays, and the rest is tried again: in the same file where the disk is full, so
    /// that nothing is missing once there is room; in another one elsewhere, since the file may be gone for good.
    fn fail(&mut self, trouble: &Trouble, settings: &Settings) {
        self.shared.counters.errors.fetch_add(1, Ordering::Relaxed);
        if trouble.full()
            && let (Some(volume), Some(guard)) = (&self.volume, &self.guard)
        {
            guard.keeper.send(Order::Room(volume.clone()));
        }
        let first = self.failing.is_none();
        // Room is made at once.
        let delay = if first && trouble.full() { ROOM } else { self.backoff.next_delay(0.0) };
        self.failing = Some(Instant::now() + delay);
        if !trouble.full() {
            self.give_up(settings);
        }
        self.trouble = Some(trouble.to_string());
        let source_id = self.shared.settings.lock().source_id;
        if first {
            self.voice.warn(&format!("camera {source_id} is not recorded: {trouble}; {}", trouble.advice()));
        } else {
            gst::info!(CAT, "camera {source_id} is still not recorded: {trouble}");
        }
    }

    /// Says what has changed since the last time.
    fn tell(&mut self, settings: &Settings) {
        let doing = match (&self.failing, &self.segment) {
            (Some(_), _) => Doing::Failing,
            (None, Some(_)) => Doing::Recording,
            (None, None) => Doing::Idle,
        };
        if doing != Doing::Recording {
            self.since_us = None;
        }
        let report = Report {
            doing,
            reason: self.cause.reason.filter(|_| doing == Doing::Recording),
            since_us: self.since_us,
            demand: self.demand.clone(),
            error: self.trouble.clone().filter(|_| doing == Doing::Failing),
        };
        let changed = {
            let mut known = self.shared.report.lock();
            // Each attempt may fail in words of its own; the first says what is wrong.
            let same =
                known.doing == Doing::Failing && doing == Doing::Failing && known.demand == report.demand;
            let changed = !same && *known != report;
            if changed {
                *known = report.clone();
            }
            changed
        };
        if changed {
            self.voice.state(&report, settings.source_id);
        }
    }
}

fn post_ns(settings: &Settings) -> i64 {
    i64::from(settings.post_buffer) * 1_000_000_000
}
