//! One connection to a camera: a pipeline of its own, so that none of its errors, states and ends is seen outside.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use gst::{glib, prelude::*};
use parking_lot::Mutex;

use super::{
    Hwaccel,
    address::{Address, Remote},
    codec,
    flow::{Flow, Timeline},
    imp::CAT,
    outlet,
    tap::Tap,
    worker::{Mailbox, Report},
};

/// What one connection is made from.
#[derive(Clone, Debug)]
pub struct Plan {
    pub address: Address,
    /// Milliseconds.
    pub latency: u32,
    pub protocols: gst_rtsp::RTSPLowerTrans,
    /// Seconds, 0 for none.
    pub timeout: u32,
    pub hwaccel: Hwaccel,
    pub avoid_hardware: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("{0}; is its plugin installed?")]
    Build(#[from] glib::BoolError),
    #[error("{path}: no such file")]
    NoFile { path: String },
    #[error("{key}={value} is not a setting of the test source")]
    Setting { key: String, value: String },
    #[error("the connection could not be started")]
    State(#[from] gst::StateChangeError),
}

/// A running connection.
pub struct Session {
    pipeline: gst::Pipeline,
    outlet: gst::Pad,
    shared: Arc<Shared>,
}

/// What the callbacks of one connection share.
struct Shared {
    flow: Arc<Flow>,
    timeline: Arc<Timeline>,
    mailbox: Arc<Mailbox>,
    id: u64,
    hwaccel: Hwaccel,
    avoid_hardware: bool,
    /// Held while elements are added and started, and while the end of the connection is declared, so that nothing
    /// is started in a pipeline that is being stopped. Nothing waits for the worker with this lock held.
    stopping: Mutex<bool>,
    linked: AtomicBool,
    decoder: Mutex<Option<(String, bool)>>,
}

impl Session {
    /// Builds the pipeline for `plan` and sets it going. `id` marks what it reports.
    pub fn start(
        plan: &Plan,
        flow: &Arc<Flow>,
        mailbox: &Arc<Mailbox>,
        id: u64,
    ) -> Result<Self, SessionError> {
        let pipeline = gst::Pipeline::new();
        let timeline = Arc::new(Timeline { pipeline: pipeline.downgrade(), element: flow.element.clone() });
        let outlet = outlet::sink_pad(flow, &timeline, mailbox, id);
        let shared = Arc::new(Shared {
            flow: flow.clone(),
            timeline,
            mailbox: mailbox.clone(),
            id,
            hwaccel: plan.hwaccel,
            avoid_hardware: plan.avoid_hardware,
            stopping: Mutex::new(false),
            linked: AtomicBool::new(false),
            decoder: Mutex::default(),
        });
        let session = Self { pipeline, outlet, shared };
        session.set_up(plan).inspect_err(|_| session.tear_down())?;
        Ok(session)
    }

    fn set_up(&self, plan: &Plan) -> Result<(), SessionError> {
        self.listen();
        self.outlet.set_active(true)?;
        let clock = self.shared.flow.element.upgrade().and_then(|element| element.clock());
        self.pipeline.use_clock(Some(&clock.unwrap_or_else(gst::SystemClock::obtain)));
        match &plan.address {
            Address::Rtsp(remote) => self.rtsp(plan, remote)?,
            Address::Http(remote) => self.http(plan, remote)?,
            Address::File(path) => {
                if !path.is_file() {
                    return Err(SessionError::NoFile { path: path.display().to_string() });
                }
                let source = gst::ElementFactory::make("filesrc").property("location", path).build()?;
                self.parse(&source)?;
            }
            Address::Test(settings) => self.test(settings)?,
        }
        self.pipeline.set_state(gst::State::Playing)?;
        Ok(())
    }

    /// Ends the connection; returns when all its threads have ended.
    pub fn stop(self) {
        self.tear_down();
    }

    fn tear_down(&self) {
        *self.shared.stopping.lock() = true;
        if let Some(bus) = self.pipeline.bus() {
            bus.set_flushing(true);
            bus.unset_sync_handler();
        }
        // Going to NULL does not fail for any element that this is made of, and nothing could be done about it.
        let _ = self.pipeline.set_state(gst::State::Null);
        let _ = self.outlet.set_active(false);
    }

    /// Factory name of the decoder in use.
    pub fn decoder(&self) -> Option<String> {
        self.shared.decoder.lock().as_ref().map(|(name, _)| name.clone())
    }

    /// Whether the decoder in use is hardware.
    pub fn hardware(&self) -> bool {
        self.shared.decoder.lock().as_ref().is_some_and(|(_, hardware)| *hardware)
    }

    /// How late pictures leave this connection.
    pub fn latency(&self) -> Option<gst::ClockTime> {
        let mut query = gst::query::Latency::new();
        self.outlet.peer_query(&mut query).then(|| query.result().1)
    }

    fn listen(&self) {
        let Some(bus) = self.pipeline.bus() else { return };
        let (mailbox, id) = (self.shared.mailbox.clone(), self.shared.id);
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Error(error) = message.view() {
                let class =
                    message.src().and_then(|src| src.downcast_ref::<gst::Element>()?.metadata("klass"));
                let decoder = class.is_some_and(|class| class.contains("Decoder"));
                gst::debug!(CAT, "connection failed: {} ({:?})", error.error(), error.debug());
                // What went wrong in particular stands in the last line of what is meant for people debugging.
                let detail = error.debug().and_then(|text| text.lines().last().map(str::to_owned));
                mailbox.report(id, Report::Error { error: error.error(), detail, decoder });
            }
            gst::BusSyncReply::Drop
        });
    }

    fn rtsp(&self, plan: &Plan, remote: &Remote) -> Result<(), SessionError> {
        let micros = u64::from(plan.timeout) * 1_000_000;
        let source = gst::ElementFactory::make("rtspsrc")
            .property("location", &remote.uri)
            .property("latency", plan.latency)
            .property("protocols", plan.protocols)
            .property("tcp-timeout", micros)
            .property("do-retransmission", false)
            .property("add-reference-timestamp-meta", true)
            .build()?;
        if let Some(user) = &remote.user {
            source.set_property("user-id", user);
            source.set_property("user-pw", remote.password.as_deref().unwrap_or_default());
        }
        // Only the first video stream is asked of the camera; what is not used need not be sent.
        let chosen = AtomicBool::new(false);
        source.connect("select-stream", false, move |values| {
            let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
            let video = caps.is_some_and(|caps| {
                caps.structure(0)
                    .is_some_and(|s| s.get::<&str>("media") == Ok("video") && depayloader(s).is_some())
            });
            Some((video && !chosen.swap(true, Ordering::Relaxed)).to_value())
        });
        source.connect("new-manager", false, |values| {
            let manager = values.get(1)?.get::<gst::Element>().ok()?;
            manager.connect("new-jitterbuffer", false, |values| {
                // Waiting for `latency` before the first packet would only delay the first picture.
                let buffer = values.get(1)?.get::<gst::Element>().ok()?;
                buffer.set_property("faststart-min-packets", 1_u32);
                None
            });
            None
        });
        self.connect_pads(&source, false);
        self.pipeline.add(&source)?;
        Ok(())
    }

    fn http(&self, plan: &Plan, remote: &Remote) -> Result<(), SessionError> {
        let source = gst::ElementFactory::make("souphttpsrc")
            .property("location", &remote.uri)
            .property("timeout", plan.timeout)
            .property("is-live", true)
            .property("do-timestamp", true)
            .property("keep-alive", true)
            .build()?;
        if let Some(user) = &remote.user {
            source.set_property("user-id", user);
            source.set_property("user-pw", remote.password.as_deref().unwrap_or_default());
        }
        self.parse(&source)
    }

    fn parse(&self, source: &gst::Element) -> Result<(), SessionError> {
        let parse = gst::ElementFactory::make("parsebin").build()?;
        self.connect_pads(&parse, true);
        self.pipeline.add_many([source, &parse])?;
        source.link(&parse)?;
        Ok(())
    }

    fn test(&self, settings: &[(String, String)]) -> Result<(), SessionError> {
        // A camera does not tell what it shows: the detections downstream are a model's alone, unless asked for.
        let source = gst::ElementFactory::make("nvrtestsrc").property("ground-truth", false).build()?;
        let mut caps = gst::Caps::new_empty_simple("video/x-raw");
        for (key, value) in settings {
            let wrong = || SessionError::Setting { key: key.clone(), value: value.clone() };
            let structure = caps.make_mut().structure_mut(0).ok_or_else(wrong)?;
            match key.as_str() {
                "width" | "height" => structure.set(key, value.parse::<i32>().map_err(|_| wrong())?),
                "framerate" => {
                    let (n, d) = value.split_once('/').unwrap_or((value, "1"));
                    let (n, d) =
                        (n.parse::<i32>().map_err(|_| wrong())?, d.parse::<i32>().map_err(|_| wrong())?);
                    if n <= 0 || d <= 0 {
                        return Err(wrong());
                    }
                    structure.set(key, gst::Fraction::new(n, d));
                }
                "name" | "parent" => return Err(wrong()),
                _ => {
                    let spec = source.find_property(key).ok_or_else(wrong)?;
                    let value = glib::Value::deserialize_with_pspec(value, &spec).map_err(|_| wrong())?;
                    source.set_property_from_value(key, &value);
                }
            }
        }
        let filter = gst::ElementFactory::make("capsfilter").property("caps", &caps).build()?;
        self.pipeline.add_many([&source, &filter])?;
        source.link(&filter)?;
        let pad = filter.static_pad("src").ok_or_else(|| glib::bool_error!("capsfilter without a pad"))?;
        pad.link_full(&self.outlet, gst::PadLinkCheck::empty())
            .map_err(|_| glib::bool_error!("the test source could not be linked"))?;
        Ok(())
    }

    fn connect_pads(&self, source: &gst::Element, paced: bool) {
        let weak = (Arc::downgrade(&self.shared), self.pipeline.downgrade(), self.outlet.downgrade());
        source.connect_pad_added(move |_, pad| {
            let (Some(shared), Some(pipeline), Some(outlet)) =
                (weak.0.upgrade(), weak.1.upgrade(), weak.2.upgrade())
            else {
                return;
            };
            if let Err(reason) = shared.attach(&pipeline, &outlet, pad, paced) {
                shared.mailbox.report(shared.id, Report::Unusable(reason));
            }
        });
        let shared = Arc::downgrade(&self.shared);
        source.connect_no_more_pads(move |_| {
            let Some(shared) = shared.upgrade() else { return };
            if !shared.linked.load(Ordering::Relaxed) {
                shared
                    .mailbox
                    .report(shared.id, Report::Unusable("no video in it that can be decoded".into()));
            }
        });
    }
}

/// The depayloader for an RTP stream.
fn depayloader(rtp: &gst::StructureRef) -> Option<gst::ElementFactory> {
    let known = match rtp.get::<&str>("encoding-name").ok()?.to_ascii_uppercase().as_str() {
        "H264" => Some("rtph264depay"),
        "H265" => Some("rtph265depay"),
        "JPEG" => Some("rtpjpegdepay"),
        _ => None,
    };
    if let Some(factory) = known.and_then(gst::ElementFactory::find) {
        return Some(factory);
    }
    let caps = gst::Caps::builder_full().structure(rtp.to_owned()).build();
    gst::ElementFactory::factories_with_type(gst::ElementFactoryType::DEPAYLOADER, gst::Rank::MARGINAL)
        .into_iter()
        .find(|factory| factory.can_sink_any_caps(&caps))
}

impl Shared {
    /// Builds what stands between `pad` and the outlet. Pads that carry no video stay unlinked.
    fn attach(
        &self,
        pipeline: &gst::Pipeline,
        outlet: &gst::Pad,
        pad: &gst::Pad,
        paced: bool,
    ) -> Result<(), String> {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let Some(structure) = caps.structure(0) else { return Ok(()) };
        let name = structure.name().as_str();
        let video = match name {
            "application/x-rtp" => structure.get::<&str>("media") == Ok("video"),
            _ => name.starts_with("video/") || name == "image/jpeg",
        };
        if !video || self.linked.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let chain = self.chain(&caps, structure, paced)?;

        let stopping = self.stopping.lock();
        if *stopping {
            return Ok(());
        }
        let failed = |error: glib::BoolError| format!("the decoder could not be set up: {error}");
        pipeline.add_many(&chain).map_err(failed)?;
        gst::Element::link_many(&chain).map_err(failed)?;
        let (Some(first), Some(last)) = (chain.first(), chain.last()) else { return Ok(()) };
        let (Some(input), Some(output)) = (first.static_pad("sink"), last.static_pad("src")) else {
            return Err(format!("{} cannot be used as a decoder", last.name()));
        };
        output.link(outlet).map_err(|error| format!("the decoder could not be linked: {error:?}"))?;
        for element in chain.iter().rev() {
            element.sync_state_with_parent().map_err(|error| format!("{}: {error}", element.name()))?;
        }
        pad.link(&input).map_err(|error| format!("{name} could not be linked to its decoder: {error:?}"))?;
        Ok(())
    }

    fn chain(
        &self,
        caps: &gst::Caps,
        structure: &gst::StructureRef,
        paced: bool,
    ) -> Result<Vec<gst::Element>, String> {
        let missing = |error: glib::BoolError| format!("{error}; is its plugin installed?");
        let make = |name: &str| gst::ElementFactory::make(name).build().map_err(missing);
        let mut chain = Vec::new();
        let mut coded = caps.clone();
        if structure.name() == "application/x-rtp" {
            let factory = depayloader(structure).ok_or("no depayloader for this stream is installed")?;
            let depay = factory.create().build().map_err(missing)?;
            coded = depay.static_pad("src").map_or_else(|| coded.clone(), |pad| pad.pad_template_caps());
            let name = coded.structure(0).map(|s| s.name().to_string()).unwrap_or_default();
            chain.push(depay);
            if name == "video/x-h264" || name == "video/x-h265" {
                // Whole access units, with parameter sets in the stream: what changes them needs no new caps.
                let filter = gst::Caps::builder(name.as_str())
                    .field("stream-format", "byte-stream")
                    .field("alignment", "au")
                    .build();
                chain.push(
                    gst::ElementFactory::make("capsfilter")
                        .property("caps", filter)
                        .build()
                        .map_err(missing)?,
                );
            }
        }
        let raw = coded.structure(0).is_some_and(|s| s.name() == "video/x-raw");
        if !raw {
            let codec::Chain { parser, decoder, hardware } =
                codec::chain(&coded, self.hwaccel, self.avoid_hardware).map_err(|error| error.to_string())?;
            let name = decoder.factory().map(|factory| factory.name().to_string()).unwrap_or_default();
            *self.decoder.lock() = Some((name, hardware));
            chain.extend(parser);
            chain.push(Tap::new(self.flow.clone(), self.timeline.clone()).upcast());
            chain.push(decoder);
            if !hardware {
                // Does nothing unless what follows cannot take what the camera sends, such as 10 bits or 4:2:2.
                chain.push(make("videoconvert")?);
            }
        }
        if paced {
            chain.push(make("clocksync")?);
        }
        if chain.is_empty() {
            chain.push(make("identity")?);
        }
        Ok(chain)
    }
}
