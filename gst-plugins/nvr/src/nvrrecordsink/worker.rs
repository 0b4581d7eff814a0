//! The thread that writes one camera's recordings. It alone touches the disk; what fails there is said once, tried
//! again, and concerns nobody else. Meanwhile the newest media wait in memory, as much as `buffer-bytes` allows.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use gst::glib;
use gst::prelude::*;
use nvr_core::backoff::Backoff;
use nvr_core::detection::Clock;
use nvr_core::retention::Policy;
use nvr_core::segment::mp4::Medium;
use nvr_core::segment::prebuffer::PreBuffer;
use parking_lot::Mutex;

use super::catalog::{self, Entry, Guard, Keeper, Limits, Order};
use super::ear::{Ear, Seen, Sightings};
use super::file::SegmentFile;
use super::imp::{CAT, Settings};
use super::inbox::{Inbox, Item, Unit};
use super::tiers::{self, Tally};
use super::tracks::{self, Recorded};
use super::volume::{Volume, VolumeError};
use super::{Mode, NvrRecordSink};

/// How often the thread looks by itself.
const TICK: Duration = Duration::from_millis(250);
/// Without new media for this long, what waits is written.
const IDLE: Duration = Duration::from_millis(700);
/// A larger jump of the timestamps ends a segment.
const JUMP_NS: i64 = 10_000_000_000;

#[derive(Debug, Default)]
pub struct Counters {
    pub received: AtomicU64,
    pub written: AtomicU64,
    pub lost: AtomicU64,
    pub bytes: AtomicU64,
    pub segments: AtomicU64,
    pub errors: AtomicU64,
    pub events: AtomicU64,
    pub recording: AtomicBool,
    pub buffered: AtomicU64,
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
}

/// Microseconds since 1970.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
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
    shared: Arc<Shared>,
    element: glib::WeakRef<NvrRecordSink>,
    volume: Option<Volume>,
    guard: Option<Guard>,
    limits: Arc<Mutex<Limits>>,
    ear: Option<Ear>,
    video: Option<Recorded>,
    audio: Option<Recorded>,
    segment: Option<SegmentFile>,
    /// The next keyframe of the video begins a segment.
    cut: bool,
    kept: PreBuffer<Unit>,
    backoff: Backoff,
    /// While writing fails: when to try again.
    failing: Option<Instant>,
    /// Detections keep the recording going until then, in running time.
    until_ns: i64,
    sightings: Sightings,
    events: u64,
    last_ns: i64,
    last_media: Instant,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, element: glib::WeakRef<NvrRecordSink>, ear: Option<Ear>) -> Self {
        Self {
            shared,
            element,
            volume: None,
            guard: None,
            limits: Arc::default(),
            ear,
            video: None,
            audio: None,
            segment: None,
            cut: false,
            kept: PreBuffer::default(),
            backoff: Backoff::limited(Duration::from_secs(5)),
            failing: None,
            until_ns: i64::MIN,
            sightings: Sightings::new(),
            events: 0,
            last_ns: 0,
            last_media: Instant::now(),
        }
    }

    pub fn run(mut self) {
        // Leftovers of the last run are taken care of before there is anything new, where the disk is there.
        let settings = self.shared.settings.lock().clone();
        if let Err(trouble) = self.mount(&settings) {
            self.fail(&trouble);
        }
        while let Some(items) = self.shared.inbox.take(TICK) {
            let settings = self.shared.settings.lock().clone();
            self.follow(&settings);
            self.listen(&settings);
            self.work(items, &settings);
        }
        self.finish();
    }

    fn work(&mut self, items: VecDeque<Item>, settings: &Settings) {
        for item in items {
            match item {
                Item::Caps(medium, caps) => self.caps(medium, &caps),
                Item::Unit(unit) => self.unit(unit, settings),
                Item::End(seqnum) => {
                    self.finish();
                    if let Some(element) = self.element.upgrade() {
                        let eos = gst::message::Eos::builder().src(&element).seqnum(seqnum).build();
                        let _ = element.post_message(eos);
                    }
                }
            }
        }
        if self.last_media.elapsed() > IDLE
            && let Some(segment) = &mut self.segment
            && let Err(error) = segment.flush(None)
        {
            let path = segment.path.clone();
            self.fail(&Trouble::Io { path, error });
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

    fn listen(&mut self, settings: &Settings) {
        let Some(ear) = &self.ear else { return };
        let heard = ear.hear(now_us(), &mut self.sightings);
        if heard == 0 {
            return;
        }
        self.shared.counters.events.fetch_add(heard, Ordering::Relaxed);
        self.until_ns = self.last_ns.saturating_add(settings.post_buffer as i64 * 1_000_000_000);
        self.events += heard;
        if self.segment.is_some() {
            self.note_sightings();
        }
    }

    /// Hands what was seen to the segment that is being written.
    fn note_sightings(&mut self) {
        let Some(segment) = &mut self.segment else { return };
        segment.events += std::mem::take(&mut self.events);
        for (class, seen) in std::mem::take(&mut self.sightings) {
            let none = Seen { count: 0, ..seen };
            let known = segment.sightings.entry(class).or_insert(none);
            known.first_us = known.first_us.min(seen.first_us);
            known.last_us = known.last_us.max(seen.last_us);
            known.count += seen.count;
            known.confidence = known.confidence.max(seen.confidence);
        }
    }

    fn caps(&mut self, medium: Medium, caps: &gst::Caps) {
        match medium {
            Medium::Video => {
                let new = tracks::video(caps);
                if new.is_none() {
                    self.warn(&format!(
                        "such video cannot be recorded: {caps}; put h264parse or h265parse before"
                    ));
                }
                if new != self.video {
                    self.finish();
                    // What was kept belongs to the old stream.
                    self.kept.clear();
                    self.video = new;
                }
            }
            Medium::Audio => {
                let new = tracks::audio(caps);
                if new.is_none() {
                    let name = caps.structure(0).map(|s| s.name().to_string()).unwrap_or_default();
                    self.warn(&format!(
                        "MP4 holds no {name}; the video is recorded without sound: set the camera to AAC or Opus"
                    ));
                }
                self.cut |= new != self.audio;
                self.audio = new;
            }
        }
    }

    fn unit(&mut self, unit: Unit, settings: &Settings) {
        self.last_media = Instant::now();
        if unit.medium == Medium::Video {
            self.last_ns = unit.pts_ns;
            if self.video.is_none() {
                return;
            }
        } else if self.audio.is_none() {
            return;
        }
        let wanted = match settings.mode {
            Mode::Continuous => true,
            Mode::Events => unit.pts_ns < self.until_ns,
            Mode::Off => false,
        };
        if !wanted {
            self.finish();
            if settings.mode == Mode::Off {
                self.kept.clear();
            } else {
                self.keep(unit, settings, settings.pre_buffer as i64 * 1_000_000);
            }
            return;
        }
        if self.failing.is_some_and(|until| Instant::now() < until) {
            self.keep(unit, settings, i64::MAX);
            return;
        }
        if self.segment.is_none() && !self.kept.is_empty() {
            let waiting: Vec<_> = self.kept.drain().collect();
            for unit in waiting {
                self.put(unit, settings);
            }
        }
        self.put(unit, settings);
    }

    fn keep(&mut self, unit: Unit, settings: &Settings, span_us: i64) {
        if unit.gap {
            self.kept.clear();
        }
        let (time_us, bytes, key) = (unit.dts_ns / 1000, unit.buffer.size(), unit.key);
        let forgotten = self.kept.push(unit, time_us, bytes, key, span_us, settings.buffer_bytes as usize);
        if self.failing.is_some() {
            self.shared.counters.lost.fetch_add(forgotten as u64, Ordering::Relaxed);
        }
    }

    fn put(&mut self, unit: Unit, settings: &Settings) {
        if self.failing.is_some_and(|until| Instant::now() < until) {
            self.keep(unit, settings, i64::MAX);
            return;
        }
        if let Some(segment) = &self.segment {
            let long = segment.age_ns(unit.dts_ns) >= settings.segment_duration as i64 * 1_000_000_000;
            let torn = !segment.follows(&unit, JUMP_NS) || (unit.gap && unit.medium == Medium::Video);
            if torn || (unit.key && (long || self.cut)) {
                self.finish();
            }
        }
        if self.segment.is_none() {
            if !unit.key {
                if unit.medium == Medium::Video {
                    self.shared.counters.lost.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
            if let Err(trouble) = self.begin(&unit, settings) {
                self.fail(&trouble);
                self.keep(unit, settings, i64::MAX);
                return;
            }
        }
        let Some(segment) = &mut self.segment else { return };
        let written = unit.buffer.size() as u64;
        let (path, video) = (segment.path.clone(), unit.medium == Medium::Video);
        match segment.push(unit) {
            Ok(()) => {
                if video {
                    self.shared.counters.written.fetch_add(1, Ordering::Relaxed);
                }
                self.shared.counters.bytes.fetch_add(written, Ordering::Relaxed);
            }
            Err(error) => self.fail(&Trouble::Io { path, error }),
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
        let segment = made.map_err(|error| Trouble::Io { path: volume.root.clone(), error })?;
        gst::debug!(CAT, "camera {}: {}", settings.source_id, segment.path.display());
        self.cut = false;
        self.note(&segment, None, settings.source_id);
        self.segment = Some(segment);
        self.note_sightings();
        if self.failing.take().is_some() {
            self.backoff.reset();
            self.say("recording", "", settings.source_id);
        } else if self.shared.counters.segments.load(Ordering::Relaxed) == 0 {
            self.say("recording", "", settings.source_id);
        }
        self.shared.counters.segments.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Ends the segment that is being written.
    fn finish(&mut self) {
        let Some(mut segment) = self.segment.take() else { return };
        let result = segment.flush(None);
        self.end(&segment);
        if let Err(error) = result {
            self.fail(&Trouble::Io { path: segment.path, error });
        }
    }

    fn end(&self, segment: &SegmentFile) {
        let source_id = self.shared.settings.lock().source_id;
        if segment.frames == 0
            && let Some(volume) = &self.volume
        {
            segment.discard(&volume.root);
        }
        self.note(segment, Some(segment.end_us()), source_id);
        let Some(element) = self.element.upgrade() else { return };
        let structure = gst::Structure::builder("nvr-segment")
            .field("source-id", source_id)
            .field("path", segment.path.display().to_string())
            .field("start", segment.start_us as u64)
            .field("end", segment.end_us() as u64)
            .field("bytes", segment.bytes)
            .field("frames", segment.frames)
            .field("keyframes", segment.keyframes)
            .field("events", segment.events)
            .build();
        let _ = element.post_message(gst::message::Element::builder(structure).src(&element).build());
    }

    fn note(&self, segment: &SegmentFile, end_us: Option<i64>, source_id: u32) {
        let (Some(volume), Some(guard)) = (&self.volume, &self.guard) else { return };
        let entry = Entry {
            volume: volume.clone(),
            source_id,
            path: segment.path.clone(),
            start_us: segment.start_us,
            end_us,
            clock: if segment.clock == Clock::Ntp { "ntp" } else { "arrival" },
            bytes: segment.bytes,
            frames: segment.frames,
            codec: segment.video.codec.to_owned(),
            audio: segment.audio.as_ref().map(|audio| audio.codec.to_owned()),
            width: u32::from(segment.video.track.width),
            height: u32::from(segment.video.track.height),
            event_count: segment.events,
            checksum: end_us.map(|_| segment.checksum.text()),
            tier: tiers::HOT,
            sightings: segment.sightings.clone(),
        };
        guard.keeper.send(Order::Note(Box::new(entry)));
    }

    /// Writing failed. What was written stays; the rest is tried again.
    fn fail(&mut self, trouble: &Trouble) {
        self.shared.counters.errors.fetch_add(1, Ordering::Relaxed);
        if let Some(segment) = self.segment.take() {
            self.end(&segment);
        }
        if trouble.full()
            && let (Some(volume), Some(guard)) = (&self.volume, &self.guard)
        {
            guard.keeper.send(Order::Room(volume.clone()));
        }
        let first = self.failing.is_none();
        self.failing = Some(Instant::now() + self.backoff.next_delay(0.0));
        let source_id = self.shared.settings.lock().source_id;
        if first {
            self.warn(&format!("camera {source_id} is not recorded: {trouble}; {}", trouble.advice()));
            self.say("failing", &trouble.to_string(), source_id);
        } else {
            gst::info!(CAT, "camera {source_id} is still not recorded: {trouble}");
        }
    }

    fn warn(&self, text: &str) {
        if let Some(element) = self.element.upgrade() {
            gst::element_warning!(element, gst::ResourceError::Write, ["{text}"]);
        }
    }

    fn say(&self, state: &str, reason: &str, source_id: u32) {
        let Some(element) = self.element.upgrade() else { return };
        let structure = gst::Structure::builder("nvr-record-state")
            .field("source-id", source_id)
            .field("state", state)
            .field("reason", reason)
            .build();
        let _ = element.post_message(gst::message::Element::builder(structure).src(&element).build());
    }
}
