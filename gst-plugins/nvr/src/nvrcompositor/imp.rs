//! SECTION:element-nvrcompositor
//!
//! A video wall. Each request pad is a camera; its newest picture is scaled straight into its tile. The wall is a
//! live source at the constant rate that downstream asks for (25 frames a second where it does not), whatever the
//! cameras do: it waits for none, and a camera's delay is not added to the wall's. Pictures whose time has not come
//! yet (files, recordings) wait in their pad.
//!
//! Cameras may come, go, stop sending and change size and format at any time. A camera that has been silent for
//! `offline-after` is shown as offline, with its last picture in grey, its name and since when.
//!
//! NV12 and I420 are scaled and drawn as they are, in one pass; other formats go through GStreamer's converter. The
//! wall is kept between frames and only tiles that changed are drawn again. Frames are in system memory.
//!
//! Detections on the cameras' pictures are carried over in pixels of the wall.
//!
//! With `navigation`, a click on a tile shows it large and a click on the large one all of them again; keys 1 to 9
//! choose a tile, 0 and Escape show all. Other keys are posted as element message `nvr-compositor-key` with field
//! `key`.
//!
//! ## Example pipeline
//!
//! ```bash
//! gst-launch-1.0 nvrcompositor name=wall clock=true sink_0::label=Yard sink_1::label=Street \
//!     ! video/x-raw,width=1280,height=720,framerate=25/1 ! videoconvert ! autovideosink \
//!     nvrtestsrc scene=yard ! wall.sink_0 nvrtestsrc scene=street ! wall.sink_1
//! ```
//!
//! Lock order: `state` (the streaming thread's own; nobody else waits for it while it plays) before a pad's `state`.
//! `settings`, `spots`, `wait` and `counters` are held alone and briefly.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{prelude::*, subclass::prelude::*};
use gst_video::{VideoFormat, VideoFrameRef, VideoInfo};
use nvr_core::{
    draw::{Stamp, Target, Typeface},
    layout::{Area, arrange},
    rate::RateMeter,
    scale,
};
use parking_lot::Mutex;

use super::{
    NvrCompositorPad,
    canvas::Canvases,
    navigation::{Action, Spot, decide},
    pad::Picture,
    settings::{self, MAX_SIDE, Settings},
    tile::{self, Look, Tile},
    view,
};
use crate::meta;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("nvrcompositor", gst::DebugColorFlags::empty(), Some("NVR video wall"))
});

const DEFAULT_FPS: gst::Fraction = gst::Fraction::new_raw(25, 1);
const FORMATS: [VideoFormat; 2] = [VideoFormat::I420, VideoFormat::Nv12];

/// What the stream is doing.
#[derive(Default)]
struct State {
    info: Option<VideoInfo>,
    /// Running number of the next frame since `origin`.
    next: u64,
    origin: gst::ClockTime,
    canvases: Canvases,
    tiles: BTreeMap<u64, Tile>,
    /// Areas and background that were drawn last, and their generation.
    arrangement: (Vec<(u64, Area)>, u32),
    generation: u64,
    version: u64,
    typeface: Typeface,
    clock: Option<(String, Area, Stamp)>,
}

#[derive(Default)]
struct Counters {
    frames: u64,
    skipped: u64,
    drawn: u64,
    busy_ns: u64,
    meter: RateMeter,
    last: u64,
}

#[derive(Default)]
pub struct NvrCompositor {
    settings: Mutex<Settings>,
    state: Mutex<State>,
    counters: Mutex<Counters>,
    /// Where the tiles are, in their order.
    spots: Mutex<Vec<Spot>>,
    /// The wait for the next frame's time, to be cut short on the way down.
    wait: Mutex<Option<gst::SingleShotClockId>>,
    /// Whether the clock's time means anything: a clock may be there before the base time is.
    playing: AtomicBool,
    ending: AtomicBool,
}

impl std::fmt::Debug for NvrCompositor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NvrCompositor").field("settings", &*self.settings.lock()).finish_non_exhaustive()
    }
}

#[glib::object_subclass]
impl ObjectSubclass for NvrCompositor {
    const NAME: &'static str = "GstNvrCompositor";
    type Type = super::NvrCompositor;
    type ParentType = gst_base::Aggregator;
    type Interfaces = (gst::ChildProxy,);
}

impl ObjectImpl for NvrCompositor {
    fn properties() -> &'static [glib::ParamSpec] {
        settings::properties()
    }

    fn constructed(&self) {
        self.parent_constructed();
        // The wall goes on without any camera.
        self.obj().set_force_live(true);
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !self.settings.lock().set(value, pspec) {
            gst::error!(CAT, imp = self, "property {} cannot be set", pspec.name());
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            return self.stats().to_value();
        }
        self.settings.lock().get(pspec).unwrap_or_else(|| pspec.default_value().clone())
    }
}

impl GstObjectImpl for NvrCompositor {}

impl ChildProxyImpl for NvrCompositor {
    fn children_count(&self) -> u32 {
        self.obj().num_sink_pads().into()
    }

    fn child_by_name(&self, name: &str) -> Option<glib::Object> {
        self.obj().sink_pads().into_iter().find(|pad| pad.name() == name).map(Cast::upcast)
    }

    fn child_by_index(&self, index: u32) -> Option<glib::Object> {
        self.obj().sink_pads().into_iter().nth(index as usize).map(Cast::upcast)
    }
}

impl ElementImpl for NvrCompositor {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "NVR video wall",
                "Filter/Editor/Video/Compositor",
                "Shows many cameras at a constant rate, whatever they do, with labels and offline tiles",
                env!("CARGO_PKG_REPOSITORY"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let sides = 2..=MAX_SIDE as i32;
            let src = gst_video::VideoCapsBuilder::new()
                .format_list(FORMATS)
                .width_range(sides.clone())
                .height_range(sides)
                .framerate_range(gst::Fraction::new(1, 60)..=gst::Fraction::new(240, 1))
                .build();
            let sink = gst_video::VideoCapsBuilder::new().build();
            let src = gst::PadTemplate::with_gtype(
                "src",
                gst::PadDirection::Src,
                gst::PadPresence::Always,
                &src,
                gst_base::AggregatorPad::static_type(),
            );
            let sink = gst::PadTemplate::with_gtype(
                "sink_%u",
                gst::PadDirection::Sink,
                gst::PadPresence::Request,
                &sink,
                NvrCompositorPad::static_type(),
            );
            [src, sink].into_iter().flatten().collect()
        });
        &TEMPLATES
    }

    fn request_new_pad(
        &self,
        templ: &gst::PadTemplate,
        name: Option<&str>,
        caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let pad = self.parent_request_new_pad(templ, name, caps)?;
        // What a camera's own way takes is not the wall's delay: the wall shows what has come.
        pad.add_probe(gst::PadProbeType::QUERY_UPSTREAM, |_, info| {
            if let Some(gst::QueryViewMut::Latency(query)) = info.query_mut().map(|query| query.view_mut()) {
                query.set(true, gst::ClockTime::ZERO, gst::ClockTime::NONE);
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeReturn::Ok
        });
        self.obj().child_added(&pad, &pad.name());
        gst::debug!(CAT, imp = self, "{} is here", pad.name());
        Some(pad)
    }

    fn release_pad(&self, pad: &gst::Pad) {
        self.obj().child_removed(pad, &pad.name());
        gst::debug!(CAT, imp = self, "{} goes", pad.name());
        self.parent_release_pad(pad);
    }

    fn send_event(&self, event: gst::Event) -> bool {
        // The wall never ends by itself while a camera may come back; whoever wants it to says so here.
        if event.type_() == gst::EventType::Eos {
            self.ending.store(true, Ordering::Release);
            return true;
        }
        self.parent_send_event(event)
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if matches!(transition, gst::StateChange::PausedToReady | gst::StateChange::PlayingToPaused)
            && let Some(id) = self.wait.lock().take()
        {
            id.unschedule();
        }
        match transition {
            gst::StateChange::PausedToPlaying => self.playing.store(true, Ordering::Release),
            gst::StateChange::PlayingToPaused => self.playing.store(false, Ordering::Release),
            _ => {}
        }
        self.parent_change_state(transition)
    }
}

impl AggregatorImpl for NvrCompositor {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        *self.state.lock() = State::default();
        *self.counters.lock() = Counters::default();
        self.ending.store(false, Ordering::Release);
        self.obj().update_segment(&gst::FormattedSegment::<gst::ClockTime>::new());
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *self.state.lock() = State::default();
        self.spots.lock().clear();
        for pad in self.pads() {
            let mut state = pad.imp().state.lock();
            state.info = None;
            state.picture = None;
            state.heard = None;
            state.offline = false;
        }
        Ok(())
    }

    fn next_time(&self) -> Option<gst::ClockTime> {
        let state = self.state.lock();
        Some(state.time(state.next))
    }

    fn fixate_src_caps(&self, mut caps: gst::Caps) -> gst::Caps {
        let pads = self.pads();
        let (width, height) = self.settings.lock().size(pads.len());
        // The colours of most of the cameras, so that they need not be changed.
        let colorimetry = pads
            .iter()
            .find_map(|pad| pad.imp().state.lock().info.as_ref().map(|info| info.colorimetry().to_string()));
        caps.truncate();
        if let Some(s) = caps.make_mut().structure_mut(0) {
            s.fixate_field_nearest_int("width", i32::try_from(width).unwrap_or(i32::MAX));
            s.fixate_field_nearest_int("height", i32::try_from(height).unwrap_or(i32::MAX));
            s.fixate_field_nearest_fraction("framerate", DEFAULT_FPS);
            if s.has_field("pixel-aspect-ratio") {
                s.fixate_field_nearest_fraction("pixel-aspect-ratio", gst::Fraction::new(1, 1));
            } else {
                s.set("pixel-aspect-ratio", gst::Fraction::new(1, 1));
            }
            if let Some(colorimetry) = colorimetry.filter(|_| !s.has_field("colorimetry")) {
                s.set("colorimetry", colorimetry);
            }
        }
        self.parent_fixate_src_caps(caps)
    }

    fn negotiated_src_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = VideoInfo::from_caps(caps)
            .map_err(|_| gst::loggable_error!(CAT, "caps {caps} do not describe raw video"))?;
        gst::debug!(CAT, imp = self, "the wall is {caps}");
        {
            let mut state = self.state.lock();
            // Time goes on where the rate changes.
            let next = state.time(state.next);
            *state = State { origin: next, info: Some(info), version: state.version, ..State::default() };
        }
        self.parent_negotiated_src_caps(caps)
    }

    fn propose_allocation(
        &self,
        pad: &gst_base::AggregatorPad,
        decide: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        self.parent_propose_allocation(pad, decide, query)
    }

    fn sink_event(&self, pad: &gst_base::AggregatorPad, event: gst::Event) -> bool {
        let Some(own) = pad.downcast_ref::<NvrCompositorPad>() else { return false };
        if let gst::EventView::Caps(caps) = event.view() {
            let info = VideoInfo::from_caps(caps.caps()).ok();
            let known = info.is_some();
            if known {
                gst::debug!(CAT, imp = self, "{} sends {}", pad.name(), caps.caps());
            } else {
                gst::warning!(CAT, imp = self, "{} sends what is no raw video: {}", pad.name(), caps.caps());
            }
            own.imp().state.lock().info = info;
            return known;
        }
        self.parent_sink_event(pad, event)
    }

    fn src_event(&self, event: gst::Event) -> bool {
        if let gst::EventView::Navigation(_) = event.view() {
            return event.structure().is_some_and(|structure| self.navigate(structure));
        }
        self.parent_src_event(event)
    }

    fn aggregate(&self, timeout: bool) -> Result<gst::FlowSuccess, gst::FlowError> {
        // Every pad has a picture: that is no reason to be early.
        if !timeout && !self.wait_for_next() {
            return Err(gst_base::AGGREGATOR_FLOW_NEED_DATA);
        }
        let pads = self.pads();
        if self.ending.load(Ordering::Acquire)
            || (!pads.is_empty() && pads.iter().all(AggregatorPadExt::is_eos))
        {
            gst::debug!(CAT, imp = self, "the end");
            return Err(gst::FlowError::Eos);
        }
        let begin = Instant::now();
        let settings = *self.settings.lock();
        let Some((buffer, drawn, skipped)) = self.compose(&settings, &pads)? else {
            return Err(gst_base::AGGREGATOR_FLOW_NEED_DATA);
        };
        let pts = buffer.pts().unwrap_or_default();
        {
            let mut counters = self.counters.lock();
            counters.frames += 1;
            counters.drawn += drawn;
            counters.skipped += skipped;
            counters.busy_ns += begin.elapsed().as_nanos() as u64;
            counters.last = pts.nseconds();
            counters.meter.add(pts.nseconds());
        }
        self.obj().set_position(pts + buffer.duration().unwrap_or_default());
        self.obj().finish_buffer(buffer)
    }
}

impl State {
    /// Running time of a frame.
    fn time(&self, number: u64) -> gst::ClockTime {
        let fps = self.info.as_ref().map_or(DEFAULT_FPS, VideoInfo::fps);
        let (n, d) = (fps.numer().max(1) as u64, fps.denom().max(1) as u64);
        let since = number.mul_div_floor(d * gst::ClockTime::SECOND.nseconds(), n).unwrap_or(u64::MAX / 2);
        self.origin + gst::ClockTime::from_nseconds(since)
    }

    /// The newest frame whose time is not after `now`.
    fn due(&self, now: gst::ClockTime) -> u64 {
        let fps = self.info.as_ref().map_or(DEFAULT_FPS, VideoInfo::fps);
        let (n, d) = (fps.numer().max(1) as u64, fps.denom().max(1) as u64);
        let since = now.saturating_sub(self.origin).nseconds();
        since.mul_div_floor(n, d * gst::ClockTime::SECOND.nseconds()).unwrap_or(0)
    }
}

impl NvrCompositor {
    /// The cameras in the order of their tiles.
    fn pads(&self) -> Vec<NvrCompositorPad> {
        let mut pads: Vec<NvrCompositorPad> =
            self.obj().sink_pads().into_iter().filter_map(|pad| pad.downcast().ok()).collect();
        pads.sort_by_cached_key(|pad| {
            let imp = pad.imp();
            (imp.source_id(&imp.settings()), imp.uid)
        });
        pads
    }

    /// Waits until the next frame is due. False on the way down.
    fn wait_for_next(&self) -> bool {
        let obj = self.obj();
        if !self.playing.load(Ordering::Acquire) {
            return true;
        }
        let (Some(clock), Some(base)) = (obj.clock(), obj.base_time()) else { return true };
        let time = {
            let state = self.state.lock();
            state.time(state.next)
        };
        let id = clock.new_single_shot_id(base + time);
        *self.wait.lock() = Some(id.clone());
        let (result, _) = id.wait();
        *self.wait.lock() = None;
        result != Err(gst::ClockError::Unscheduled)
    }

    /// Takes what has come, and draws what that changes. `None` before the format is known.
    fn compose(
        &self,
        settings: &Settings,
        pads: &[NvrCompositorPad],
    ) -> Result<Option<(gst::Buffer, u64, u64)>, gst::FlowError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(info) = state.info.clone() else { return Ok(None) };
        let now = self.obj().current_running_time().filter(|_| self.playing.load(Ordering::Acquire));
        // Frames whose time has passed altogether are left out.
        let due = now.map_or(state.next, |now| state.due(now)).max(state.next);
        let skipped = due - state.next;
        state.next = due + 1;
        let (pts, end) = (state.time(due), state.time(due + 1));

        let pictures: Vec<Option<Picture>> = pads.iter().map(|pad| Self::take(pad, pts, end)).collect();
        let looks = self.looks(settings, pads, &pictures, &info, pts);
        let arrangement: Vec<(u64, Area)> =
            pads.iter().zip(&looks).map(|(pad, look)| (pad.imp().uid, look.area)).collect();
        if state.generation == 0 || state.arrangement != (arrangement.clone(), settings.background) {
            state.generation += 1;
            let spots = pads.iter().zip(&looks).map(|(pad, look)| {
                let imp = pad.imp();
                Spot { source_id: imp.source_id(&imp.settings()), area: look.area }
            });
            *self.spots.lock() = spots.collect();
            state.tiles.retain(|uid, _| arrangement.iter().any(|(known, _)| known == uid));
            state.arrangement = (arrangement, settings.background);
        }
        for ((pad, look), picture) in pads.iter().zip(looks).zip(&pictures) {
            let tile = state.tiles.entry(pad.imp().uid).or_default();
            if tile.update(look, picture.as_ref(), state.version + 1) {
                state.version += 1;
            }
        }
        let drawn = self.draw(state, settings, pads, &pictures, &info);
        let detections: Vec<_> = pads
            .iter()
            .filter_map(|pad| state.tiles.get(&pad.imp().uid))
            .flat_map(|tile| tile.detections.iter().cloned())
            .collect();
        drop(guard);
        let (mut buffer, drawn) = drawn.map_err(|error| {
            gst::element_imp_error!(
                self,
                gst::ResourceError::NoSpaceLeft,
                ["The wall cannot be drawn: {error}"]
            );
            gst::FlowError::Error
        })?;
        let frame = buffer.make_mut();
        frame.set_pts(pts);
        frame.set_duration(end - pts);
        frame.set_offset(due);
        if !detections.is_empty() {
            meta::add_detections(frame, info.width(), info.height(), &detections);
        }
        Ok(Some((buffer, drawn, skipped)))
    }

    /// Takes from a pad what has come and whose time has come. Gives the picture to be shown.
    fn take(pad: &NvrCompositorPad, now: gst::ClockTime, end: gst::ClockTime) -> Option<Picture> {
        let segment = pad.segment().downcast::<gst::ClockTime>().ok();
        let mut taken = 0_u64;
        let mut newest = None;
        while let Some(buffer) = pad.peek_buffer() {
            let time =
                buffer.pts().zip(segment.as_ref()).and_then(|(pts, segment)| segment.to_running_time(pts));
            if time.is_some_and(|time| time >= end) {
                break;
            }
            pad.drop_buffer();
            if !buffer.flags().contains(gst::BufferFlags::GAP) {
                taken += 1;
                newest = Some(buffer);
            }
        }
        let mut state = pad.imp().state.lock();
        let first = *state.heard.get_or_insert(now);
        if let (Some(buffer), Some(info)) = (newest, state.info.clone()) {
            let number = state.picture.as_ref().map_or(0, |picture| picture.number) + 1;
            state.picture = Some(Picture { buffer, info, number });
            state.heard = Some(now.max(first));
            state.counters.shown += 1;
            state.counters.late += taken - 1;
            state.meter.add(now.nseconds());
        } else {
            state.counters.missing += 1;
        }
        state.picture.clone()
    }

    /// What every tile is to look like.
    fn looks(
        &self,
        settings: &Settings,
        pads: &[NvrCompositorPad],
        pictures: &[Option<Picture>],
        info: &VideoInfo,
        now: gst::ClockTime,
    ) -> Vec<Look> {
        let pad_settings: Vec<_> = pads.iter().map(|pad| pad.imp().settings()).collect();
        let ids: Vec<u32> = pads.iter().zip(&pad_settings).map(|(pad, s)| pad.imp().source_id(s)).collect();
        let focus = ids.iter().position(|id| i64::from(*id) == i64::from(settings.focus)).unwrap_or(0);
        let positions: Vec<_> = pad_settings.iter().map(super::pad::Settings::position).collect();
        let areas = arrange(&settings.wall(info.width(), info.height(), focus), &positions);
        let limit = gst::ClockTime::from_mseconds(settings.offline_after.into());
        pads.iter()
            .zip(pad_settings)
            .zip(areas)
            .zip(pictures)
            .zip(ids)
            .map(|((((pad, own), area), picture), id)| {
                let mut state = pad.imp().state.lock();
                let silence = now.saturating_sub(state.heard.unwrap_or(now));
                let offline = !limit.is_zero() && silence > limit;
                if offline && !state.offline {
                    state.counters.outages += 1;
                    // Said once: a time of day that is computed anew would waver.
                    state.silent_since = ago(silence);
                    gst::info!(CAT, imp = self, "camera {id} is offline");
                }
                state.offline = offline;
                let notice = match picture {
                    Some(_) if offline => Some(format!("offline since {}", state.silent_since)),
                    None if offline => Some(format!("no picture since {}", state.silent_since)),
                    None => Some("connecting".to_owned()),
                    Some(_) => None,
                };
                drop(state);
                let name =
                    own.label.filter(|label| !label.is_empty()).unwrap_or_else(|| format!("camera {id}"));
                let size = picture
                    .as_ref()
                    .map(|picture| (picture.number, picture.info.width(), picture.info.height()));
                Look { area, fit: own.fit, picture: size, name, show_label: settings.show_labels, notice }
            })
            .collect()
    }

    /// Brings a canvas up to date. Gives a buffer with its memory, and how many tiles had to be drawn.
    fn draw(
        &self,
        state: &mut State,
        settings: &Settings,
        pads: &[NvrCompositorPad],
        pictures: &[Option<Picture>],
        info: &VideoInfo,
    ) -> Result<(gst::Buffer, u64), String> {
        let State { canvases, tiles, typeface, clock, generation, .. } = state;
        let canvas = canvases.take(info).map_err(|error| error.to_string())?;
        let buffer = canvas.buffer.get_mut().ok_or("a picture is in use")?;
        let mut wall = VideoFrameRef::from_buffer_ref_writable(buffer, info)
            .map_err(|_| "the memory of a picture cannot be written")?;
        let target = {
            let frame = view::write(&mut wall).ok_or("the format of the wall is unknown")?;
            Target::of(&frame.as_frame())
        };
        let ground = background(settings.background, &target);
        let whole = canvas.layout != *generation;
        if whole {
            let mut frame = view::write(&mut wall).ok_or("the format of the wall is unknown")?;
            scale::fill(&mut frame, Area::new(0, 0, info.width(), info.height()), ground)
                .map_err(|error| error.to_string())?;
            canvas.layout = *generation;
            canvas.tiles.clear();
            canvas.clock.clear();
        }
        let text = if settings.clock { local_time("%Y-%m-%d  %H:%M:%S") } else { String::new() };
        if text.is_empty() {
            *clock = None;
        } else if clock.as_ref().is_none_or(|(known, _, stamp)| *known != text || *stamp.target() != target) {
            let (area, stamp) = tile::clock(target, &text, settings.spacing & !1, typeface);
            *clock = Some((text.clone(), area, stamp));
        }
        let is_current = |tile: &Tile, uid: u64| canvas.tiles.get(&uid) == Some(&tile.version);
        // A clock that changes uncovers what is under it; a tile that is drawn covers the clock.
        let clock_area = clock.as_ref().map(|(_, area, _)| *area);
        let under_clock = |tile: &Tile| clock_area.is_some_and(|area| area.intersects(&tile.look.area));
        let clock_gone = canvas.clock != text && text.is_empty();
        let redraw_clock = whole
            || canvas.clock != text
            || pads.iter().any(|pad| {
                let uid = pad.imp().uid;
                tiles.get(&uid).is_some_and(|tile| under_clock(tile) && !is_current(tile, uid))
            });
        if let Some(area) = clock_area.filter(|_| redraw_clock && !whole) {
            let mut frame = view::write(&mut wall).ok_or("the format of the wall is unknown")?;
            scale::fill(&mut frame, area, ground).map_err(|error| error.to_string())?;
        }
        let mut drawn = 0;
        for (pad, picture) in pads.iter().zip(pictures) {
            let uid = pad.imp().uid;
            let Some(tile) = tiles.get_mut(&uid) else { continue };
            let uncovered = redraw_clock && under_clock(tile);
            if canvas.tiles.get(&uid) == Some(&tile.version) && !uncovered && !clock_gone {
                continue;
            }
            drawn += 1;
            // Bars stay as they are while the picture keeps its place.
            let place = tile.shown();
            let bars = uncovered || clock_gone || canvas.places.get(&uid) != Some(&place) || whole;
            if let Err(error) = tile.draw(picture.as_ref(), &mut wall, bars, typeface) {
                gst::debug!(CAT, imp = self, "{}: {error}", pad.name());
            }
            canvas.tiles.insert(uid, tile.version);
            canvas.places.insert(uid, place);
        }
        if let Some((_, _, stamp)) = clock.as_ref().filter(|_| redraw_clock) {
            let mut frame = view::write(&mut wall).ok_or("the format of the wall is unknown")?;
            stamp.blend(&mut frame).map_err(|error| error.to_string())?;
        }
        canvas.clock = text;
        drop(wall);
        let shared =
            canvas.buffer.copy_region(gst::BufferCopyFlags::MEMORY, ..).map_err(|error| error.to_string())?;
        Ok((shared, drawn))
    }

    /// Carries out what an event of the window means.
    fn navigate(&self, event: &gst::StructureRef) -> bool {
        let settings = *self.settings.lock();
        if !settings.navigation {
            return false;
        }
        let spots = self.spots.lock().clone();
        let obj = self.obj();
        match decide(event, &settings, &spots) {
            None => return false,
            Some(Action::Show(layout, focus)) => {
                obj.set_property("focus", focus);
                obj.set_property("layout", layout);
            }
            Some(Action::Key(key)) => {
                let structure = gst::Structure::builder("nvr-compositor-key").field("key", key).build();
                let message = gst::message::Element::builder(structure).src(&*obj).build();
                // Without a bus nobody wants to know.
                let _ = obj.post_message(message);
            }
        }
        true
    }

    fn stats(&self) -> gst::Structure {
        let pads: Vec<gst::Structure> = self.pads().iter().map(|pad| pad.imp().stats()).collect();
        let mut counters = self.counters.lock();
        let last = counters.last;
        gst::Structure::builder("nvr-compositor-stats")
            .field("frames", counters.frames)
            .field("skipped", counters.skipped)
            .field("fps", counters.meter.rate(last).unwrap_or_default())
            .field("tiles-drawn", counters.drawn)
            .field("compose-time", counters.busy_ns / counters.frames.max(1))
            .field("pads", gst::Array::new(pads.iter().map(ToSendValue::to_send_value)))
            .build()
    }
}

/// The background in the wall's codes.
fn background(argb: u32, target: &Target) -> [u8; 3] {
    let (red, blue) = target.matrix.weights();
    let [_, r, g, b] = argb.to_be_bytes().map(f32::from);
    let y = red * r + (1.0 - red - blue) * g + blue * b;
    let (cb, cr) = ((b - y) / (2.0 * (1.0 - blue)), (r - y) / (2.0 * (1.0 - red)));
    let (luma, chroma, black) = match target.range {
        nvr_core::frame::ColorRange::Full => (1.0, 1.0, 0.0),
        nvr_core::frame::ColorRange::Limited => (219.0 / 255.0, 224.0 / 255.0, 16.0),
    };
    [black + y * luma, 128.0 + cb * chroma, 128.0 + cr * chroma].map(|code| code.round() as u8)
}

fn local_time(format: &str) -> String {
    glib::DateTime::now_local().and_then(|now| now.format(format)).map_or_else(|_| String::new(), Into::into)
}

/// The time of day that was `silence` ago; with the date where that was another day.
fn ago(silence: gst::ClockTime) -> String {
    let then = glib::DateTime::now_local().and_then(|now| {
        let then = now.add_seconds(-(silence.nseconds() as f64 / 1e9))?;
        let same_day = now.ymd() == then.ymd();
        then.format(if same_day { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" })
    });
    then.map_or_else(|_| format!("{} s", silence.seconds()), Into::into)
}
