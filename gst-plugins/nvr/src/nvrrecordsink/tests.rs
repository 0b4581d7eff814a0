//! When it records, and what is asked of it. The pictures are bytes that nobody decodes; their times are given.

use std::fs;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use nvr_core::detection::{CaptureTime, Clock, Detection, FrameFacts};
use nvr_core::geometry::Rect;

use super::catalog::{FILE, Oldest, Recording, Store};
use super::volume::IDENTITY;
use super::{Clip, Doing, NvrRecordSink};
use crate::{init, meta};

const TIMEOUT: Duration = Duration::from_mins(1);
/// Capture time of running time 0, in microseconds.
const BASE: i64 = 1_763_709_138_000_000;
const SOURCE: u32 = 3;

/// A recorder, and pads to feed it with ten pictures a second, a keyframe each second.
struct Rig {
    sink: NvrRecordSink,
    bus: gst::Bus,
    video: gst::Pad,
    frames: gst::Pad,
    folder: tempfile::TempDir,
    next: u64,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.sink.set_state(gst::State::Null);
    }
}

fn source(name: &str, to: &gst::Pad) -> gst::Pad {
    let pad = gst::Pad::builder(gst::PadDirection::Src).name(name).build();
    pad.set_active(true).unwrap();
    pad.link(to).unwrap();
    pad
}

fn begin(pad: &gst::Pad, caps: &gst::Caps) {
    assert!(pad.push_event(gst::event::StreamStart::new("test")));
    assert!(pad.push_event(gst::event::Caps::new(caps)));
    assert!(pad.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
}

/// Coded video of a width and a rate.
fn units(width: i32, fps: i32) -> gst::Caps {
    gst::Caps::builder("video/x-h264")
        .field("stream-format", "avc")
        .field("alignment", "au")
        .field("codec_data", gst::Buffer::from_slice([1, 66, 0, 10]))
        .field("width", width)
        .field("height", 360)
        .field("framerate", gst::Fraction::new(fps, 1))
        .build()
}

impl Rig {
    fn new(properties: &[(&str, &str)]) -> Self {
        init();
        let folder = tempfile::tempdir().unwrap();
        let sink = gst::ElementFactory::make("nvrrecordsink")
            .property("location", folder.path().to_str().unwrap())
            .property("source-id", SOURCE)
            .property("pre-buffer", 2_u32)
            .property("post-buffer", 1_u32)
            .property("min-free", 0_u64)
            .build()
            .unwrap()
            .downcast::<NvrRecordSink>()
            .unwrap();
        for (name, value) in properties {
            sink.set_property_from_str(name, value);
        }
        let bus = gst::Bus::new();
        sink.set_bus(Some(&bus));
        let video = source("video", &sink.static_pad("video").unwrap());
        let frames = source("frames", &sink.request_pad_simple("frames").unwrap());
        sink.set_state(gst::State::Playing).unwrap();
        begin(&video, &units(640, 10));
        begin(&frames, &gst::Caps::builder("video/x-raw").field("format", "NV12").build());
        Self { sink, bus, video, frames, folder, next: 0 }
    }

    fn buffer(tenths: u64, size: usize) -> gst::Buffer {
        let mut buffer = gst::Buffer::with_size(size).unwrap();
        let buffer_ref = buffer.make_mut();
        let time = gst::ClockTime::from_mseconds(tenths * 100);
        buffer_ref.set_pts(time);
        buffer_ref.set_dts(time);
        buffer_ref.set_duration(gst::ClockTime::from_mseconds(100));
        let capture = CaptureTime { unix_ns: BASE as u64 * 1000 + tenths * 100_000_000, clock: Clock::Ntp };
        meta::set_facts(buffer_ref, &FrameFacts { capture: Some(capture), ..FrameFacts::default() });
        buffer
    }

    /// Records up to, and without, this time.
    fn until(&mut self, seconds: f64) {
        while (self.next as f64) < seconds * 10.0 {
            let mut buffer = Self::buffer(self.next, 100);
            if !self.next.is_multiple_of(10) {
                buffer.make_mut().set_flags(gst::BufferFlags::DELTA_UNIT);
            }
            self.video.push(buffer).unwrap();
            self.next += 1;
        }
    }

    /// A picture of this time that was looked at.
    fn look(&self, seconds: f64, moved: Option<bool>, classes: &[&str]) {
        let mut buffer = Self::buffer((seconds * 10.0) as u64, 16);
        let buffer_ref = buffer.make_mut();
        if let Some(moved) = moved {
            meta::mark_motion(buffer_ref, moved);
        }
        let detections: Vec<_> = classes
            .iter()
            .map(|class| Detection {
                class_name: (*class).into(),
                class_id: None,
                confidence: 0.75,
                rect: Rect { x: 1.0, y: 1.0, width: 5.0, height: 5.0 },
                tracker_id: None,
            })
            .collect();
        if !detections.is_empty() {
            meta::add_detections(buffer_ref, 640, 360, &detections);
        }
        self.frames.push(buffer).unwrap();
    }

    fn stat(&self, name: &str) -> u64 {
        self.sink.property::<gst::Structure>("stats").get(name).unwrap()
    }

    /// Waits until a counter has a value: the thread has come that far.
    fn wait_for(&self, name: &str, value: u64) {
        let deadline = Instant::now() + TIMEOUT;
        while self.stat(name) != value {
            assert!(
                Instant::now() < deadline,
                "{name} {value}: {:?}",
                self.sink.property::<gst::Structure>("stats")
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn message(&self, what: &str, wanted: impl Fn(&gst::StructureRef) -> bool) -> gst::Structure {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            let Some(message) = self.bus.timed_pop(gst::ClockTime::from_mseconds(200)) else { continue };
            if let gst::MessageView::Warning(warning) = message.view() {
                let text = warning.error().message().to_owned();
                let structure = gst::Structure::builder("warning").field("text", text).build();
                if wanted(&structure) {
                    return structure;
                }
            } else if let Some(structure) = message.structure().filter(|structure| wanted(structure)) {
                return structure.to_owned();
            }
        }
        panic!("{what}: not within {TIMEOUT:?}; {:?}", self.sink.property::<gst::Structure>("stats"));
    }

    fn segment(&self) -> gst::Structure {
        self.message("a finished segment", |s| s.name() == "nvr-segment")
    }

    fn state(&self, state: &str) -> gst::Structure {
        self.message(state, |s| s.name() == "nvr-record-state" && s.get("state") == Ok(state))
    }

    /// Asks for a clip; its answer comes through what is returned.
    fn clip(&self, name: Option<&str>, before: f64, after: f64) -> mpsc::Receiver<Result<Clip, String>> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let done = Box::new(move |outcome| sender.send(outcome).unwrap());
        self.sink.save_clip(name.map(str::to_owned), before, after, done);
        receiver
    }

    fn rows(self) -> Vec<Recording> {
        self.sink.set_state(gst::State::Null).unwrap();
        Store::existing(&self.folder.path().join(FILE)).unwrap().page(0, 100).unwrap()
    }
}

fn seconds(structure: &gst::Structure, field: &str) -> f64 {
    (structure.get::<u64>(field).unwrap() as i64 - BASE) as f64 / 1e6
}

/// Ten seconds of which nothing is recorded: seven are in memory, the two wanted and what late notices need.
fn idle(properties: &[(&str, &str)]) -> Rig {
    let mut rig = Rig::new(properties);
    rig.until(10.0);
    rig.wait_for("buffered", 6000);
    assert_eq!(rig.stat("segments"), 0);
    rig
}

#[test]
fn motion_is_recorded_with_what_came_before_and_after() {
    let mut rig = idle(&[("mode", "motion")]);
    rig.look(9.5, Some(false), &["person"]);
    rig.wait_for("looked-at", 1);
    rig.look(9.8, Some(true), &[]);
    rig.until(15.0);
    let segment = rig.segment();
    // From the keyframe before two seconds before the motion to the one after a second after the newest of then.
    assert_eq!((seconds(&segment, "start"), segment.get("frames")), (7.0, Ok(40_u64)), "{segment}");
    assert_eq!(segment.get("reason"), Ok("motion"));
    let row = &rig.rows()[0];
    assert_eq!((row.reason.as_deref(), row.event_count), (Some("motion"), 1), "what was seen is noted too");
}

#[test]
fn detections_of_the_own_graph_need_no_broker() {
    let mut rig = idle(&[("mode", "events")]);
    rig.look(9.7, Some(true), &[]);
    rig.look(9.8, None, &["person", "person", "car"]);
    rig.until(15.0);
    let segment = rig.segment();
    assert_eq!((seconds(&segment, "start"), segment.get("frames")), (7.0, Ok(40_u64)), "{segment}");
    assert_eq!((segment.get("reason"), segment.get("events")), (Ok("events"), Ok(1_u64)));
    let folder = rig.folder.path().to_owned();
    rig.sink.set_state(gst::State::Null).unwrap();
    let seen = Store::existing(&folder.join(FILE)).unwrap().events(SOURCE, 0, i64::MAX).unwrap();
    let seen: Vec<_> = seen.iter().map(|e| (e.class_name.as_str(), e.count, e.first_us - BASE)).collect();
    assert_eq!(seen, [("car", 1, 9_800_000), ("person", 2, 9_800_000)]);
}

#[test]
fn where_nobody_looks_for_motion_everything_is_recorded() {
    let mut rig = idle(&[("mode", "motion")]);
    rig.until(40.0);
    let warning = rig.message("a warning", |s| s.name() == "warning");
    assert!(warning.get::<&str>("text").unwrap().contains("camera 3"), "{warning}");
    rig.look(39.0, Some(false), &[]);
    rig.until(41.0);
    assert_eq!(rig.segment().get("reason"), Ok("motion"));
    // A picture without a mark: somebody forgot the nvrmotion.
    rig.look(41.0, None, &[]);
    rig.until(42.0);
    assert_eq!(rig.state("recording").get("reason"), Ok("motion"));
}

#[test]
fn the_mode_changes_with_the_next_picture() {
    let mut rig = Rig::new(&[("mode", "continuous")]);
    rig.until(3.0);
    rig.wait_for("written", 30);
    assert_eq!(rig.state("recording").get("reason"), Ok("continuous"));
    rig.sink.set_property_from_str("mode", "off");
    assert_eq!(rig.segment().get("frames"), Ok(30_u64));
    rig.state("idle");
    rig.sink.set_property_from_str("mode", "motion");
    rig.until(10.0);
    rig.wait_for("buffered", 6000);
    rig.look(9.0, Some(true), &[]);
    rig.until(10.5);
    assert_eq!(rig.state("recording").get("reason"), Ok("motion"));
    rig.sink.set_property_from_str("mode", "continuous");
    rig.until(14.0);
    rig.wait_for("received", 140);
    let rows = rig.rows();
    let reasons: Vec<_> = rows.iter().map(|row| row.reason.as_deref().unwrap()).collect();
    assert_eq!(reasons[0], "continuous", "{rows:?}");
    assert!(reasons.len() == 2 && rows.iter().all(|row| row.end_us.is_some()), "{rows:?}");
}

#[test]
fn what_is_asked_for_is_recorded_whatever_the_mode() {
    let mut rig = idle(&[("mode", "events")]);
    let demand = rig.sink.start_recording(Some("gate open".into()), None).unwrap();
    assert_eq!(rig.sink.report().demand.as_ref(), Some(&demand));
    rig.until(12.0);
    // From the keyframe before two seconds before: 7 s.
    rig.wait_for("written", 50);
    let state = rig.state("recording");
    assert_eq!((state.get("reason"), state.get("on-demand")), (Ok("on_demand"), Ok(true)), "{state}");
    assert_eq!(seconds(&state, "since"), 7.0);
    let report = rig.sink.report();
    assert_eq!((report.doing, report.since_us), (Doing::Recording, Some(BASE + 7_000_000)));
    assert_eq!(rig.sink.stop_recording(), Some(demand));
    assert_eq!(rig.sink.stop_recording(), None);
    let segment = rig.segment();
    assert_eq!(segment.get("frames"), Ok(50_u64), "{segment}");
    rig.state("idle");
    rig.until(15.0);
    let path = rig.folder.path().join(FILE);
    rig.sink.set_state(gst::State::Null).unwrap();
    let store = Store::existing(&path).unwrap();
    let rows = store.page(0, 9).unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((rows[0].reason.as_deref(), rows[0].label.as_deref()), (Some("on_demand"), Some("gate open")));
    // Kept like a recording with events, and shown among them.
    let plain = Oldest { volume: Some(&rows[0].volume), source_id: Some(SOURCE), plain: true };
    assert!(store.oldest(&plain, 9).unwrap().is_empty());
    let seen = store.events(SOURCE, 0, i64::MAX).unwrap();
    assert_eq!((seen.len(), seen[0].class_name.as_str()), (1, "on_demand"), "{seen:?}");
    assert_eq!((seen[0].first_us - BASE, seen[0].last_us - BASE), (7_000_000, 11_900_000));
}

/// A second event right after the first misses nothing, and has nothing twice.
#[test]
fn what_ends_and_begins_again_is_whole() {
    let mut rig = idle(&[("mode", "events")]);
    for second in [10.0, 13.0, 16.0] {
        rig.look(second, None, &["person"]);
        rig.until(second + 2.7);
        rig.segment();
        rig.until(second + 3.0);
    }
    rig.look(19.0, None, &["person"]);
    rig.until(19.5);
    rig.state("recording");
    let rows = rig.rows();
    assert_eq!(rows.len(), 4, "{rows:?}");
    assert_eq!(rows.iter().map(|row| row.frames).sum::<u64>(), 115, "8 s to 19.5 s: {rows:?}");
    for pair in rows.windows(2) {
        assert_eq!(pair[0].end_us, Some(pair[1].start_us), "{rows:?}");
    }
}

#[test]
fn a_segment_that_is_open_already_is_asked_for_from_then_on() {
    let mut rig = Rig::new(&[("mode", "continuous"), ("segment-duration", "60")]);
    rig.until(10.0);
    rig.wait_for("written", 100);
    rig.sink.start_recording(None, Some(3600.0)).unwrap();
    rig.until(12.0);
    rig.wait_for("written", 120);
    rig.sink.stop_recording().unwrap();
    rig.message("continuous again", |s| {
        s.name() == "nvr-record-state"
            && s.get("on-demand") == Ok(false)
            && s.get("reason") == Ok("continuous")
    });
    rig.until(15.0);
    let path = rig.folder.path().join(FILE);
    rig.sink.set_state(gst::State::Null).unwrap();
    let store = Store::existing(&path).unwrap();
    let rows = store.page(0, 9).unwrap();
    assert_eq!((rows.len(), rows[0].frames, rows[0].event_count), (1, 150, 1), "{rows:?}");
    assert_eq!(rows[0].reason.as_deref(), Some("on_demand"));
    let seen = store.events(SOURCE, 0, i64::MAX).unwrap();
    assert_eq!((seen[0].first_us - BASE, seen[0].last_us - BASE), (9_900_000, 11_900_000), "{seen:?}");
}

#[test]
fn a_recording_that_was_asked_for_ends_by_itself() {
    let mut rig = Rig::new(&[("mode", "off")]);
    rig.until(2.0);
    rig.wait_for("received", 20);
    rig.sink.start_recording(None, Some(1.0)).unwrap();
    rig.until(5.0);
    rig.state("recording");
    // No more pictures come, and it ends all the same.
    assert_eq!(rig.segment().get("reason"), Ok("on_demand"));
    rig.state("idle");
    assert_eq!(rig.sink.report().demand, None);
}

#[test]
fn a_clip_reaches_from_memory_into_the_future() {
    let mut rig = idle(&[("mode", "events")]);
    let answer = rig.clip(Some("gate"), 2.0, 1.0);
    let twice = rig.clip(Some("gate"), 1.0, 0.0);
    assert!(twice.recv_timeout(TIMEOUT).unwrap().unwrap_err().contains("is being made already"));
    rig.state("recording");
    rig.until(20.0);
    let clip = answer.recv_timeout(TIMEOUT).unwrap().unwrap();
    assert_eq!(clip.path.to_str(), Some("clips/3/gate.mp4"));
    // Now is when it was asked for: a little after the newest picture.
    let (from, to) = ((clip.start_us - BASE) as f64 / 1e6, (clip.end_us - BASE) as f64 / 1e6);
    assert!((7.9..9.0).contains(&from) && (to - from - 3.0).abs() < 0.15, "{from} to {to}");
    assert_eq!(fs::metadata(rig.folder.path().join(&clip.path)).unwrap().len(), clip.bytes);
    let message = rig.message("the clip", |s| s.name() == "nvr-clip" && s.has_field("path"));
    assert_eq!((message.get("name"), message.get("bytes")), (Ok("gate"), Ok(clip.bytes)), "{message}");
    let again = rig.clip(Some("gate"), 1.0, 0.0);
    rig.until(22.0);
    assert!(again.recv_timeout(TIMEOUT).unwrap().unwrap_err().contains("already; choose another name"));
    assert_eq!((rig.stat("clips"), rig.sink.report().demand.clone()), (1, None));
    let row = &rig.rows()[0];
    assert_eq!((row.reason.as_deref(), row.label.as_deref()), (Some("on_demand"), Some("gate")));
}

#[test]
fn a_clip_is_joined_from_segments_while_recording_goes_on() {
    let mut rig = Rig::new(&[("segment-duration", "2")]);
    rig.until(10.0);
    rig.wait_for("written", 100);
    let answers: Vec<_> = (0..8).map(|_| rig.clip(None, 5.0, 0.0)).collect();
    rig.until(15.0);
    let mut made = 0;
    for answer in answers {
        match answer.recv_timeout(TIMEOUT).unwrap() {
            Ok(clip) => {
                let seconds = (clip.end_us - clip.start_us) as f64 / 1e6;
                assert!((seconds - 5.0).abs() < 0.15, "{clip:?}");
                made += 1;
            }
            // Two were asked for in one millisecond.
            Err(error) => assert!(error.contains("already"), "{error}"),
        }
    }
    assert!(made >= 1);
    rig.wait_for("received", 150);
    let rows = rig.rows();
    assert_eq!(rows.iter().map(|row| row.frames).sum::<u64>(), 150);
    assert!(rows.iter().all(|row| row.reason.as_deref() == Some("continuous") && row.event_count == 0));
}

#[test]
fn who_asks_too_much_or_too_late_is_told() {
    let mut rig = Rig::new(&[]);
    rig.until(3.0);
    rig.wait_for("written", 30);
    let waiting: Vec<_> = (0..8).map(|at| rig.clip(Some(&format!("clip-{at}")), 2.0, 600.0)).collect();
    let refused = rig.clip(Some("one-more"), 2.0, 0.0).recv_timeout(TIMEOUT).unwrap().unwrap_err();
    assert!(refused.contains("8 clips of camera 3"), "{refused}");
    // The end comes first: they hold what was recorded.
    rig.sink.set_state(gst::State::Null).unwrap();
    for answer in waiting {
        let clip = answer.recv_timeout(TIMEOUT).unwrap().unwrap();
        assert_eq!(clip.end_us, BASE + 3_000_000, "{clip:?}");
    }
    assert!(rig.clip(None, 1.0, 1.0).recv_timeout(TIMEOUT).unwrap().unwrap_err().contains("does not run"));
    assert!(rig.sink.start_recording(None, None).unwrap_err().contains("recorder of camera 3 does not run"));
    assert_eq!(rig.sink.stop_recording(), None);
}

#[test]
fn a_disk_that_fails_is_no_place_to_record_to() {
    let rig = Rig::new(&[("volume-id", "another")]);
    rig.state("failing");
    let error = rig.sink.start_recording(None, None).unwrap_err();
    assert!(error.starts_with("camera 3 cannot be recorded now: ") && error.contains("mounted"), "{error}");
    assert_eq!(rig.sink.report().doing, Doing::Failing);
}

/// A camera that reconnects and changes its picture while the disk is away loses nothing that fits into memory.
#[test]
fn what_waits_for_the_disk_is_kept_whatever_the_camera_does() {
    let mut rig = Rig::new(&[("volume-id", "another")]);
    rig.state("failing");
    rig.until(2.0);
    rig.video.push_event(gst::event::FlushStart::new());
    rig.video.push_event(gst::event::FlushStop::new(false));
    begin(&rig.video, &units(640, 10));
    rig.until(4.0);
    assert!(rig.video.push_event(gst::event::Caps::new(&units(1280, 10))));
    rig.until(6.0);
    fs::write(rig.folder.path().join(IDENTITY), "another\n").unwrap();
    rig.until(6.1);
    // The next attempt comes with the next picture after the pause.
    let deadline = Instant::now() + TIMEOUT;
    while rig.stat("segments") == 0 {
        assert!(Instant::now() < deadline, "{:?}", rig.sink.property::<gst::Structure>("stats"));
        let next = rig.next as f64 / 10.0;
        rig.until(next + 0.1);
        std::thread::sleep(Duration::from_millis(20));
    }
    let pictures = rig.next;
    assert_eq!(rig.stat("lost"), 0);
    let rows = rig.rows();
    assert_eq!(rows.iter().map(|row| row.width).collect::<Vec<_>>(), [640, 640, 1280]);
    assert_eq!(rows.iter().map(|row| row.frames).sum::<u64>(), pictures, "{rows:?}");
}

/// A camera that finds out how fast it is goes on in the same file.
#[test]
fn another_rate_is_no_other_stream() {
    let mut rig = Rig::new(&[("mode", "continuous"), ("segment-duration", "60")]);
    rig.until(1.5);
    assert!(rig.video.push_event(gst::event::Caps::new(&units(640, 5))));
    rig.until(3.0);
    let rows = rig.rows();
    assert_eq!((rows.len(), rows[0].frames), (1, 30), "{rows:?}");
}

/// Sound of a camera whose pictures have stopped is written as it comes.
#[test]
fn sound_without_pictures_does_not_wait_for_them() {
    let mut rig = Rig::new(&[("mode", "continuous"), ("segment-duration", "600")]);
    let audio = source("audio", &rig.sink.request_pad_simple("audio").unwrap());
    let caps = gst::Caps::builder("audio/x-opus").field("channels", 1).field("rate", 48_000).build();
    begin(&audio, &caps);
    rig.until(1.0);
    rig.wait_for("written", 10);
    for tenth in 10..200 {
        audio.push(Rig::buffer(tenth, 1000)).unwrap();
    }
    let path = rig.folder.path().join(nvr_core::segment::name::path(SOURCE, BASE, 0));
    let deadline = Instant::now() + TIMEOUT;
    // All but the last two fragments.
    while fs::metadata(&path).map_or(0, |file| file.len()) < 178 * 1000 {
        assert!(Instant::now() < deadline, "{:?}", fs::metadata(&path));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(rig.rows().len(), 1);
}

#[test]
fn a_tier_with_an_address_that_is_none_is_an_error_at_the_start() {
    init();
    let folder = tempfile::tempdir().unwrap();
    for (property, location) in
        [("cold-location", "s3:nonsense"), ("warm-location", "s3:https://store.example")]
    {
        let sink = gst::ElementFactory::make("nvrrecordsink")
            .property("location", folder.path().to_str().unwrap())
            .property(property, location)
            .build()
            .unwrap();
        let bus = gst::Bus::new();
        sink.set_bus(Some(&bus));
        assert!(sink.set_state(gst::State::Paused).is_err());
        let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
        let gst::MessageView::Error(error) = message.view() else { unreachable!() };
        let text = error.debug().unwrap_or_default();
        assert!(text.contains(property) && text.contains("s3:https://host"), "{text}");
        sink.set_state(gst::State::Null).unwrap();
    }
}
