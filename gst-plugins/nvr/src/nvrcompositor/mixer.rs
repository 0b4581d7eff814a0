//! One of GStreamer's mixers, fed and emptied by hand: for each picture of the wall it is given one picture of each
//! layer, and composes them at once. It sees no clock and waits for nobody, so that the wall's own rules stay in force.
//!
//! What a layer showed last is kept as it came out of what brings it into the device's memory, and given again while
//! nothing is new.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    time::Duration,
};

use gst::{glib, prelude::*};
use gst_video::{VideoConverter, VideoConverterConfig, VideoFormat, VideoFrameRef, VideoInfo};
use nvr_core::layout::Placement;
use parking_lot::Mutex;

use super::device::{self, Crop, Device};

/// How long a device may take for one picture. Opening it is part of the first.
const PATIENCE: Duration = Duration::from_secs(10);
/// The mixer's own time: a frame for each picture of the wall, whatever the wall's rate is.
const RATE: gst::Fraction = gst::Fraction::new_raw(25, 1);
const FRAME: gst::ClockTime = gst::ClockTime::from_mseconds(40);

/// What a layer is. Later ones lie above.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Key {
    Ground,
    Tile(u64),
    Label(u64),
    Clock,
}

impl Key {
    fn height(self) -> u32 {
        match self {
            Self::Ground => 0,
            Self::Tile(_) => 1,
            Self::Label(_) => 2,
            Self::Clock => 3,
        }
    }
}

/// A picture and where it is to be seen.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub key: Key,
    pub buffer: gst::Buffer,
    pub caps: gst::Caps,
    pub info: VideoInfo,
    /// Changes with the picture.
    pub version: u64,
    pub placement: Placement,
}

#[derive(Debug)]
pub(super) struct Mixer {
    device: &'static Device,
    bin: gst::Bin,
    /// GStreamer's.
    element: gst::Element,
    /// Takes what the mixer gives.
    drain: gst::Pad,
    feeds: BTreeMap<Key, Feed>,
    /// Layers that the device does not take, and what they were.
    refused: BTreeMap<Key, gst::Caps>,
    results: mpsc::Receiver<Result<gst::Buffer, String>>,
    frames: u64,
    contexts: Contexts,
}

/// Asks for what elements of one device share, such as a display, in the name of the wall.
#[derive(Clone, Debug)]
struct Contexts(glib::WeakRef<super::NvrCompositor>);

/// The way of one layer into the mixer.
#[derive(Debug)]
struct Feed {
    /// Gives pictures to the first element.
    source: gst::Pad,
    elements: Vec<gst::Element>,
    /// Where they leave the last one.
    tail: gst::Pad,
    /// The mixer's.
    input: gst::Pad,
    caps: Option<gst::Caps>,
    adapter: Option<Adapter>,
    /// Version and picture that went in last, as it came out of the elements.
    shown: Option<u64>,
    ready: Arc<Mutex<Option<gst::Buffer>>>,
    placed: Option<(Placement, u32, u32)>,
}

/// The way of pictures that the device does not take: the processor reads and converts them.
#[derive(Debug)]
struct Adapter {
    from: VideoInfo,
    to: VideoInfo,
    inner: VideoConverter,
}

impl Mixer {
    /// Opens the device, for walls with these caps.
    ///
    /// # Errors
    /// What is missing, or what the elements say.
    pub fn open(
        device: &'static Device,
        owner: &super::NvrCompositor,
        wall: &gst::Caps,
    ) -> Result<Self, String> {
        device.check()?;
        let text = |error: glib::BoolError| error.to_string();
        let make = |name: &str| gst::ElementFactory::make(name).build().map_err(text);
        let (bin, mixer) = (gst::Bin::new(), make(device.mixer)?);
        let in_device = device.is_named_in(wall);
        let back = if in_device { &[][..] } else { device.back };
        let mut chain = vec![mixer.clone()];
        for name in back {
            chain.push(make(name)?);
        }
        bin.add_many(&chain).map_err(text)?;
        gst::Element::link_many(&chain).map_err(text)?;

        let (sender, results) = mpsc::channel();
        let contexts = Contexts(owner.downgrade());
        let bus = gst::Bus::new();
        bus.set_sync_handler({
            let (contexts, sender, chain) = (contexts.clone(), sender.clone(), chain.clone());
            move |_, message| {
                match message.view() {
                    gst::MessageView::NeedContext(need) => contexts.need(need.context_type(), message.src()),
                    gst::MessageView::HaveContext(have) => contexts.have(&have.context()),
                    // What one layer's elements say is that layer's failure alone: its push fails.
                    gst::MessageView::Error(error)
                        if message.src().is_some_and(|src| {
                            chain.iter().any(|element| src == element || src.has_as_ancestor(element))
                        }) =>
                    {
                        // Nobody waits any more.
                        let _ = sender.send(Err(device::words(error)));
                    }
                    _ => {}
                }
                gst::BusSyncReply::Drop
            }
        });
        bin.set_bus(Some(&bus));

        let mut given = wall.clone();
        given.make_mut().set("framerate", RATE);
        let drain = drain(given, contexts.clone(), sender);
        let end =
            chain.last().and_then(|last| last.static_pad("src")).ok_or("the mixer has no source pad")?;
        end.link(&drain).map_err(|error| error.to_string())?;
        drain.set_active(true).map_err(text)?;
        let this = Self {
            device,
            bin,
            element: mixer,
            drain,
            feeds: BTreeMap::new(),
            refused: BTreeMap::new(),
            results,
            frames: 0,
            contexts,
        };
        this.bin.set_state(gst::State::Playing).map_err(|_| this.said("the device could not be opened"))?;
        Ok(this)
    }

    /// Composes the layers. Gives the picture, and how many layers had something new. Layers that the device does not
    /// take are left out.
    ///
    /// # Errors
    /// The device has failed: nothing comes from it any more.
    pub fn compose(&mut self, layers: &[Layer]) -> Result<(gst::Buffer, u64), String> {
        // A mixer whose pad changes its caps takes the picture and waits for another one: a new pad it does not.
        let here = |key: &Key, feed: &Feed| {
            let is_it = |layer: &Layer| {
                layer.key == *key && feed.caps.as_ref().is_none_or(|caps| *caps == layer.caps)
            };
            layers.iter().any(is_it)
        };
        let gone: Vec<Key> =
            self.feeds.iter().filter(|(key, feed)| !here(key, feed)).map(|(key, _)| *key).collect();
        for key in gone {
            self.remove(key);
        }
        self.refused.retain(|key, caps| layers.iter().any(|layer| layer.key == *key && layer.caps == *caps));
        let layers: Vec<_> = layers.iter().filter(|layer| !self.refused.contains_key(&layer.key)).collect();
        // All of them before the first picture: the mixer composes once each has one.
        for layer in &layers {
            if !self.feeds.contains_key(&layer.key) {
                let feed = self.add(layer.key, device::is_composed(&layer.caps))?;
                self.feeds.insert(layer.key, feed);
            }
        }
        let time = FRAME * self.frames;
        self.frames += 1;
        let mut fresh = 0;
        for layer in layers {
            let Some(feed) = self.feeds.get_mut(&layer.key) else { continue };
            feed.place(layer, self.device.crop);
            match feed.push(layer, time, self.device.crop) {
                Ok(new) => fresh += u64::from(new),
                Err(reason) if layer.key == Key::Ground => return Err(self.said(&reason)),
                Err(reason) => {
                    gst::warning!(
                        super::imp::CAT,
                        "{:?} cannot be shown by {}: {reason}",
                        layer.key,
                        self.device.name
                    );
                    self.refused.insert(layer.key, layer.caps.clone());
                    self.remove(layer.key);
                }
            }
        }
        match self.results.recv_timeout(PATIENCE) {
            Ok(Ok(buffer)) => Ok((buffer, fresh)),
            Ok(Err(reason)) => Err(reason),
            Err(_) => Err(format!("nothing came from {} for {} s", self.device.mixer, PATIENCE.as_secs())),
        }
    }

    fn add(&self, key: Key, composed: bool) -> Result<Feed, String> {
        let text = |error: glib::BoolError| error.to_string();
        let mut elements = Vec::new();
        let overlay = self.device.overlay.filter(|_| composed);
        for name in self.device.front.iter().copied().chain(overlay) {
            elements.push(gst::ElementFactory::make(name).build().map_err(text)?);
        }
        self.bin.add_many(&elements).map_err(text)?;
        gst::Element::link_many(&elements).map_err(text)?;
        let first = elements.first().and_then(|first| first.static_pad("sink"));
        let tail = elements.last().and_then(|last| last.static_pad("src"));
        let (first, tail) = first.zip(tail).ok_or("an element has no pads")?;
        let input = self.element.request_pad_simple("sink_%u").ok_or("the mixer gives no pad")?;
        input.set_property("zorder", key.height());
        tail.link(&input).map_err(|error| error.to_string())?;
        let ready = Arc::new(Mutex::new(None));
        tail.add_probe(gst::PadProbeType::BUFFER, {
            let ready = ready.clone();
            move |_, info| {
                *ready.lock() = info.buffer().cloned();
                gst::PadProbeReturn::Ok
            }
        });
        for element in elements.iter().rev() {
            element.sync_state_with_parent().map_err(text)?;
        }
        let source = source(self.contexts.clone());
        source.set_active(true).map_err(text)?;
        source.link(&first).map_err(|error| error.to_string())?;
        source.push_event(gst::event::StreamStart::builder("layer").build());
        Ok(Feed {
            source,
            elements,
            tail,
            input,
            caps: None,
            adapter: None,
            shown: None,
            ready,
            placed: None,
        })
    }

    fn remove(&mut self, key: Key) {
        let Some(feed) = self.feeds.remove(&key) else { return };
        // It is on its way out: what does not work any more does not matter.
        let _ = feed.source.set_active(false);
        self.element.release_request_pad(&feed.input);
        for element in &feed.elements {
            let _ = element.set_state(gst::State::Null);
        }
        let _ = self.bin.remove_many(&feed.elements);
    }

    /// What the elements said of a failure; `else_` where they said nothing.
    fn said(&self, else_: &str) -> String {
        self.results.try_iter().find_map(Result::err).unwrap_or_else(|| else_.to_owned())
    }
}

impl Drop for Mixer {
    fn drop(&mut self) {
        if let Some(bus) = self.bin.bus() {
            bus.set_flushing(true);
        }
        let _ = self.bin.set_state(gst::State::Null);
        let _ = self.drain.set_active(false);
    }
}

impl Feed {
    /// Tells the mixer where the layer is to be seen.
    fn place(&mut self, layer: &Layer, crop: Crop) {
        let placed = (layer.placement, layer.info.width(), layer.info.height());
        if self.placed == Some(placed) {
            return;
        }
        let number = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        let Placement { source, target } = layer.placement;
        self.input.set_property("xpos", number(target.x));
        self.input.set_property("ypos", number(target.y));
        self.input.set_property("width", number(target.width));
        self.input.set_property("height", number(target.height));
        match crop {
            Crop::Properties => {
                self.input.set_property("crop-left", number(source.x));
                self.input.set_property("crop-top", number(source.y));
                self.input.set_property("crop-right", number(placed.1.saturating_sub(source.right())));
                self.input.set_property("crop-bottom", number(placed.2.saturating_sub(source.bottom())));
            }
            // The part is on the picture, which has to go in again.
            Crop::Meta => self.shown = None,
        }
        self.placed = Some(placed);
    }

    /// Gives the mixer the layer's picture. Whether it is a new one.
    fn push(&mut self, layer: &Layer, time: gst::ClockTime, crop: Crop) -> Result<bool, String> {
        let flow = |result: Result<gst::FlowSuccess, gst::FlowError>| {
            result.map_err(|error| format!("{} pictures: {error}", layer.info.format()))
        };
        let same = self.shown == Some(layer.version);
        // The picture passes the probe again: nobody may hold the lock then.
        let ready = if same { self.ready.lock().take() } else { None };
        if let Some(mut buffer) = ready {
            at(buffer.make_mut(), time);
            return flow(self.tail.push(buffer)).map(|_| false);
        }
        if self.caps.is_none() {
            self.negotiate(layer)?;
        }
        let mut buffer = match &mut self.adapter {
            Some(adapter) => adapter.convert(&layer.buffer)?,
            None => layer.buffer.clone(),
        };
        let frame = buffer.make_mut();
        at(frame, time);
        let whole = (0, 0, layer.info.width(), layer.info.height());
        let part = layer.placement.source;
        let part = (part.x, part.y, part.width, part.height);
        if crop == Crop::Meta && part != whole {
            if let Some(meta) = frame.meta_mut::<gst_video::VideoCropMeta>() {
                meta.remove().map_err(|error| error.to_string())?;
            }
            gst_video::VideoCropMeta::add(frame, part);
        }
        flow(self.source.push(buffer))?;
        self.shown = Some(layer.version);
        Ok(true)
    }

    /// Tells the elements what comes, or how to make of it what they take.
    fn negotiate(&mut self, layer: &Layer) -> Result<(), String> {
        let mut caps = layer.caps.clone();
        {
            // Where a picture is shown, and when, has been decided: pixels are square and every picture is whole.
            let caps = caps.make_mut();
            caps.set("pixel-aspect-ratio", gst::Fraction::new(1, 1));
            caps.set("framerate", RATE);
            caps.set("interlace-mode", "progressive");
        }
        if self.source.peer_query_caps(Some(&caps)).is_empty() {
            let adapter = Adapter::new(&layer.info)?;
            caps = adapter.to.to_caps().map_err(|error| error.to_string())?;
            self.adapter = Some(adapter);
        }
        if !self.source.push_event(gst::event::Caps::new(&caps)) {
            return Err(format!("{caps} is not taken"));
        }
        self.source.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        self.caps = Some(layer.caps.clone());
        Ok(())
    }
}

impl Adapter {
    fn new(from: &VideoInfo) -> Result<Self, String> {
        let wrong = |_| format!("{} pictures cannot be converted", from.format());
        let colours = from.colorimetry();
        let (width, height) = (from.width(), from.height());
        // The converter insists on one frame rate and knows no memory but the system's.
        let plain = VideoInfo::builder(from.format(), width, height)
            .fps(RATE)
            .colorimetry(&colours)
            .chroma_site(from.chroma_site())
            .build()
            .map_err(wrong)?;
        let to = VideoInfo::builder(VideoFormat::I420, width, height).fps(RATE).build().map_err(wrong)?;
        let inner = VideoConverter::new(&plain, &to, Some(VideoConverterConfig::new())).map_err(wrong)?;
        Ok(Self { from: plain, to, inner })
    }

    fn convert(&mut self, picture: &gst::Buffer) -> Result<gst::Buffer, String> {
        let unread = |_| "its pictures cannot be read".to_owned();
        let mapped = VideoFrameRef::from_buffer_ref_readable(picture, &self.from).map_err(unread)?;
        let mut buffer = gst::Buffer::with_size(self.to.size()).map_err(|error| error.to_string())?;
        {
            let buffer = buffer.make_mut();
            let mut target = VideoFrameRef::from_buffer_ref_writable(buffer, &self.to).map_err(unread)?;
            self.inner.frame_ref(&mapped, &mut target);
        }
        Ok(buffer)
    }
}

impl Contexts {
    /// Gives a context of the wall's to the one that asks, if need be after asking the wall's pipeline.
    fn need(&self, kind: &str, asking: Option<&gst::Object>) {
        let (Some(owner), Some(asking)) = (self.0.upgrade(), asking) else { return };
        if owner.context(kind).is_none() {
            let message = gst::message::NeedContext::builder(kind).src(&owner).build();
            // Without a bus there is nobody to ask: the element makes its own.
            let _ = owner.post_message(message);
        }
        if let (Some(context), Some(asking)) = (owner.context(kind), asking.downcast_ref::<gst::Element>()) {
            asking.set_context(&context);
        }
    }

    /// Tells the wall's pipeline of a context that was made here.
    fn have(&self, context: &gst::Context) {
        let Some(owner) = self.0.upgrade() else { return };
        owner.set_context(context);
        let message = gst::message::HaveContext::builder(context.clone()).src(&owner).build();
        let _ = owner.post_message(message);
    }

    /// Answers for those that stand before and behind the wall. False where none of them knows.
    fn query(&self, query: &mut gst::QueryRef) -> bool {
        let Some(owner) = self.0.upgrade() else { return false };
        owner.pads().into_iter().any(|pad| pad.peer_query(query))
    }
}

/// A pad that gives pictures to a layer's elements.
fn source(contexts: Contexts) -> gst::Pad {
    gst::Pad::builder(gst::PadDirection::Src)
        .query_function(move |pad, parent, query| match query.view_mut() {
            gst::QueryViewMut::Latency(latency) => {
                latency.set(false, gst::ClockTime::ZERO, gst::ClockTime::NONE);
                true
            }
            gst::QueryViewMut::Context(_) => contexts.query(query),
            _ => gst::Pad::query_default(pad, parent, query),
        })
        .build()
}

/// A pad that takes pictures of the wall and nothing else.
fn drain(wall: gst::Caps, contexts: Contexts, sender: mpsc::Sender<Result<gst::Buffer, String>>) -> gst::Pad {
    gst::Pad::builder(gst::PadDirection::Sink)
        .chain_function(move |_, _, buffer| {
            sender.send(Ok(buffer)).map(|()| gst::FlowSuccess::Ok).map_err(|_| gst::FlowError::Flushing)
        })
        .event_function(|_, _, _| true)
        .query_function(move |pad, parent, query| match query.view_mut() {
            gst::QueryViewMut::Caps(caps) => {
                let taken = caps.filter_owned().map_or_else(
                    || wall.clone(),
                    |filter| filter.intersect_with_mode(&wall, gst::CapsIntersectMode::First),
                );
                caps.set_result(&taken);
                true
            }
            gst::QueryViewMut::AcceptCaps(caps) => {
                let taken = caps.caps().can_intersect(&wall);
                caps.set_result(taken);
                true
            }
            // The elements know best what memory suits them.
            gst::QueryViewMut::Allocation(_) => false,
            gst::QueryViewMut::Context(_) => contexts.query(query),
            _ => gst::Pad::query_default(pad, parent, query),
        })
        .build()
}

/// Puts a picture at a place in the mixer's time.
fn at(buffer: &mut gst::BufferRef, time: gst::ClockTime) {
    buffer.set_pts(time);
    buffer.set_dts(gst::ClockTime::NONE);
    buffer.set_duration(FRAME);
}
