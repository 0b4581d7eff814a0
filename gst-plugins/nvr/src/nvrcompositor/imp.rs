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
//! wall is kept between frames and only tiles that changed are drawn again.
//!
//! Pictures that live in a graphics card's memory are composed there, by GStreamer's mixer for that memory: GLMemory by
//! `glvideomixerelement`, VAMemory by `vacompositor`, CUDAMemory by `cudacompositor`. `backend=auto` goes by the caps
//! of the cameras, and is back with the processor, with one warning, where the mixer is missing or fails. The wall is
//! the same; it stays in that memory where what follows names it in its caps, and comes to system memory else.
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
//! `settings`, `spots`, `wait`, those of `devices` and `counters` are held alone and briefly.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{prelude::*, subclass::prelude::*};
use gst_video::{VideoFormat, VideoInfo};
use nvr_core::{
    draw::{Stamp, Typeface},
    layout::{Area, Backend, arrange},
    rate::RateMeter,
};
use parking_lot::Mutex;

use super::{
    NvrCompositorPad,
    canvas::Canvases,
    device::{self, Device},
    devices::Devices,
    navigation::{Action, Spot, decide},
    pad::Picture,
    paint,
    scene::{Scene, View},
    settings::{self, Settings},
    tile::{Look, Tile},
};
use crate::meta;

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("nvrcompositor", gst::DebugColorFlags::empty(), Some("NVR video wall"))
});

const DEFAULT_FPS: gst::Fraction = gst::Fraction::new_raw(25, 1);

/// What the stream is doing.
#[derive(Default)]
pub(super) struct State {
    /// Caps of the wall, and what they say.
    wall: Option<(gst::Caps, VideoInfo)>,
    /// Running number of the next frame since `origin`.
    next: u64,
    origin: gst::ClockTime,
    pub canvases: Canvases,
    pub tiles: BTreeMap<u64, Tile>,
    /// Areas and background that were drawn last, and their generation.
    arrangement: (Vec<(u64, Area)>, u32),
    pub generation: u64,
    version: u64,
    pub typeface: Typeface,
    pub clock: Option<(String, Area, Stamp)>,
    /// The wall as layers, where a device composes it.
    scene: Scene,
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
    devices: Devices,
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
            let mut src = device::plain();
            let mut sink = gst_video::VideoCapsBuilder::new().build();
            for device in &device::DEVICES {
                src.make_mut().append(device.output());
                sink.make_mut().append(device.any_input());
            }
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
        let asked = self.settings.lock().backend;
        self.devices
            .start(asked)
            .map_err(|text| gst::error_msg!(gst::ResourceError::NotFound, ["{text}"]))?;
        *self.state.lock() = State::default();
        *self.counters.lock() = Counters::default();
        self.ending.store(false, Ordering::Release);
        self.obj().update_segment(&gst::FormattedSegment::<gst::ClockTime>::new());
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        self.devices.close();
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

    fn update_src_caps(&self, caps: &gst::Caps) -> Result<gst::Caps, gst::FlowError> {
        if let Some(device) = self.devices.current() {
            // What takes anything gets what anybody can read.
            let named = self.obj().src_pad().peer_query_caps(None);
            let own = caps.intersect(&device.output());
            if device.is_named_in(&named) && !own.is_empty() {
                return Ok(own);
            }
        }
        let plain = caps.intersect(&device::plain());
        if plain.is_empty() {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                [
                    "What follows takes no wall in system memory, and backend={} has no other: {caps}",
                    self.devices.name()
                ]
            );
            return Err(gst::FlowError::NotNegotiated);
        }
        Ok(plain)
    }

    fn fixate_src_caps(&self, mut caps: gst::Caps) -> gst::Caps {
        let pads = self.pads();
        let (width, height) = self.settings.lock().size(pads.len());
        // The colours of most of the cameras, so that they need not be changed.
        let colorimetry = pads
            .iter()
            .find_map(|pad| pad.imp().state.lock().info.clone().filter(VideoInfo::is_yuv))
            .map(|info| info.colorimetry().to_string());
        caps.truncate();
        let rgb = device::memory(&caps) == Backend::Gl;
        if let Some(s) = caps.make_mut().structure_mut(0) {
            s.fixate_field_nearest_int("width", i32::try_from(width).unwrap_or(i32::MAX));
            s.fixate_field_nearest_int("height", i32::try_from(height).unwrap_or(i32::MAX));
            s.fixate_field_nearest_fraction("framerate", DEFAULT_FPS);
            if s.has_field("pixel-aspect-ratio") {
                s.fixate_field_nearest_fraction("pixel-aspect-ratio", gst::Fraction::new(1, 1));
            } else {
                s.set("pixel-aspect-ratio", gst::Fraction::new(1, 1));
            }
            if let Some(colorimetry) = colorimetry.filter(|_| !rgb && !s.has_field("colorimetry")) {
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
            let wall = Some((caps.clone(), info));
            *state = State { origin: next, wall, version: state.version, ..State::default() };
        }
        self.devices.close();
        self.parent_negotiated_src_caps(caps)
    }

    fn propose_allocation(
        &self,
        pad: &gst_base::AggregatorPad,
        decide: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        if query.get().0.is_some_and(device::is_composed) {
            query.add_allocation_meta::<gst_video::VideoOverlayCompositionMeta>(None);
        }
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
            let mut state = own.imp().state.lock();
            state.info = info;
            state.caps = Some(caps.caps_owned());
            return known;
        }
        self.parent_sink_event(pad, event)
    }

    fn sink_query(&self, pad: &gst_base::AggregatorPad, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Caps(caps) => {
                let asked = self.settings.lock().backend;
                let mut taken = self.devices.accepted(asked);
                if let Some(filter) = caps.filter() {
                    taken = filter.intersect_with_mode(&taken, gst::CapsIntersectMode::First);
                }
                caps.set_result(&taken);
                true
            }
            gst::QueryViewMut::Context(context) => self.share(context) || self.parent_sink_query(pad, query),
            _ => self.parent_sink_query(pad, query),
        }
    }

    fn src_query(&self, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Context(context) => self.share(context) || self.parent_src_query(query),
            _ => self.parent_src_query(query),
        }
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
        let memory =
            |pad: &NvrCompositorPad| pad.imp().state.lock().caps.as_ref().map(|caps| device::memory(caps));
        let memories: Vec<Backend> = pads.iter().filter_map(memory).collect();
        if self.devices.choose(settings.backend, &memories) {
            gst::info!(CAT, imp = self, "drawn by {}", self.devices.name());
            // The wall may live in another memory from now on.
            self.obj().src_pad().mark_reconfigure();
            return Err(gst_base::AGGREGATOR_FLOW_NEED_DATA);
        }
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
        let fps = self.wall.as_ref().map_or(DEFAULT_FPS, |(_, info)| info.fps());
        let (n, d) = (fps.numer().max(1) as u64, fps.denom().max(1) as u64);
        let since = number.mul_div_floor(d * gst::ClockTime::SECOND.nseconds(), n).unwrap_or(u64::MAX / 2);
        self.origin + gst::ClockTime::from_nseconds(since)
    }

    /// The newest frame whose time is not after `now`.
    fn due(&self, now: gst::ClockTime) -> u64 {
        let fps = self.wall.as_ref().map_or(DEFAULT_FPS, |(_, info)| info.fps());
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

    /// Has a device compose the wall. Gives the picture, and how many layers had something new.
    fn compose_on(
        &self,
        device: &'static Device,
        settings: &Settings,
        pads: &[NvrCompositorPad],
        pictures: &[Option<Picture>],
        (caps, info): (&gst::Caps, &VideoInfo),
    ) -> Result<(gst::Buffer, u64), String> {
        let cameras: Vec<_> = pads.iter().map(|pad| pad.imp().uid).zip(pictures.iter().cloned()).collect();
        let plain = VideoInfo::builder(VideoFormat::I420, info.width(), info.height())
            .fps(info.fps())
            .build()
            .map_err(|error| error.to_string())?;
        let layers = {
            let mut state = self.state.lock();
            let State { scene, tiles, typeface, generation, .. } = &mut *state;
            let view = View {
                settings,
                generation: *generation,
                cameras: &cameras,
                info: &plain,
                blends: device.blends,
            };
            scene.layers(&view, tiles, typeface)?
        };
        self.devices.compose(device, &self.obj(), &layers, caps)
    }

    /// A device has failed: with `auto` the processor goes on.
    fn give_up(&self, device: &Device, settings: &Settings, reason: &str) -> Result<(), gst::FlowError> {
        if settings.backend.fixed().is_some() {
            gst::element_imp_error!(self, gst::ResourceError::Failed, ["{}", device.complaint(reason)]);
            return Err(gst::FlowError::Error);
        }
        gst::element_imp_warning!(self, gst::ResourceError::Failed, ["{}", device.farewell(reason)]);
        self.devices.give_up(device);
        Ok(())
    }

    /// Gives a neighbour what devices share, such as a display.
    fn share(&self, query: &mut gst::query::Context) -> bool {
        let Some(context) = self.obj().context(query.context_type()) else { return false };
        query.set_context(&context);
        true
    }

    /// Takes what has come, and draws what that changes. `None` before the format is known.
    fn compose(
        &self,
        settings: &Settings,
        pads: &[NvrCompositorPad],
    ) -> Result<Option<(gst::Buffer, u64, u64)>, gst::FlowError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some((caps, info)) = state.wall.clone() else { return Ok(None) };
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
        let detections: Vec<_> = pads
            .iter()
            .filter_map(|pad| state.tiles.get(&pad.imp().uid))
            .flat_map(|tile| tile.detections.iter().cloned())
            .collect();
        drop(guard);
        let drawn = match self.devices.current() {
            Some(device) => match self.compose_on(device, settings, pads, &pictures, (&caps, &info)) {
                Err(reason) => {
                    self.give_up(device, settings, &reason)?;
                    // The processor has no wall but in system memory.
                    if device.is_named_in(&caps) {
                        self.obj().src_pad().mark_reconfigure();
                        return Ok(None);
                    }
                    paint::draw(&mut self.state.lock(), settings, pads, &pictures, &info)
                }
                composed => composed,
            },
            None => paint::draw(&mut self.state.lock(), settings, pads, &pictures, &info),
        };
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
        if let (Some(buffer), Some(info), Some(caps)) = (newest, state.info.clone(), state.caps.clone()) {
            let number = state.picture.as_ref().map_or(0, |picture| picture.number) + 1;
            state.picture = Some(Picture { buffer, info, caps, number });
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
            .field("backend", self.devices.name())
            .field("compose-time", counters.busy_ns / counters.frames.max(1))
            .field("pads", gst::Array::new(pads.iter().map(ToSendValue::to_send_value)))
            .build()
    }
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
