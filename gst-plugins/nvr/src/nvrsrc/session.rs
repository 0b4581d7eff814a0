//! One connection to a camera: a pipeline of its own, so that none of its errors, states and ends is seen outside.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use gst::{glib, prelude::*};
use parking_lot::Mutex;

use super::{
    Hwaccel, TlsValidation,
    address::Address,
    branch,
    codec::{self, Keys},
    flow::{Flow, Timeline},
    imp::CAT,
    lane::Kind,
    light, outlet,
    sources::depayloader,
    tap::Tap,
    worker::{Mailbox, Report},
};

/// How long closing a connection takes at most where nothing hangs, on a busy machine.
const STOP: Duration = Duration::from_secs(5);

/// Connections of one camera that may hang at a time; the next one waits for one of them.
const LEFT: usize = 2;

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
    /// Whether there is to be a decoder at all.
    pub decode: bool,
    /// Whether to receive with little work where that is possible.
    pub light: bool,
    /// Whether the camera is asked for audio.
    pub audio: bool,
    pub tls_validation: TlsValidation,
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
    pub pipeline: gst::Pipeline,
    pub outlet: gst::Pad,
    pub shared: Arc<Shared>,
    light: Mutex<Option<light::Connection>>,
}

/// What the callbacks of one connection share.
#[derive(Debug)]
pub struct Shared {
    pub flow: Arc<Flow>,
    pub pipeline: glib::WeakRef<gst::Pipeline>,
    pub timeline: Arc<Timeline>,
    pub mailbox: Arc<Mailbox>,
    pub id: u64,
    hwaccel: Hwaccel,
    avoid_hardware: bool,
    decode: bool,
    pub light: bool,
    /// Held while elements are added and started, and while the end of the connection is declared, so that nothing
    /// is started in a pipeline that is being stopped. Nothing waits for the worker with this lock held.
    pub stopping: Mutex<bool>,
    linked: [AtomicBool; 2],
    /// A certificate of the camera did not pass.
    pub untrusted: AtomicBool,
    found: Mutex<Found>,
    /// Why video that was offered was not taken.
    untaken: Mutex<Option<String>>,
}

/// What was found at the camera, and what is made of it.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Factory name of the decoder, and whether it is hardware.
    pub decoder: Option<(String, bool)>,
    /// Media types.
    pub codec: Option<String>,
    pub audio: Option<String>,
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
        let timeline = Arc::new(Timeline::new(&pipeline, flow));
        let outlet = outlet::sink_pad(flow, &timeline, mailbox, id);
        let shared = Arc::new(Shared {
            flow: flow.clone(),
            pipeline: pipeline.downgrade(),
            timeline,
            mailbox: mailbox.clone(),
            id,
            hwaccel: plan.hwaccel,
            avoid_hardware: plan.avoid_hardware,
            decode: plan.decode,
            light: plan.light,
            stopping: Mutex::new(false),
            linked: Default::default(),
            untrusted: AtomicBool::new(false),
            found: Mutex::default(),
            untaken: Mutex::default(),
        });
        let session = Self { pipeline, outlet, shared, light: Mutex::default() };
        session.set_up(plan).inspect_err(|_| session.tear_down())?;
        Ok(session)
    }

    fn set_up(&self, plan: &Plan) -> Result<(), SessionError> {
        self.listen();
        self.outlet.set_active(true)?;
        let clock = self.shared.flow.element.upgrade().and_then(|element| element.clock());
        self.pipeline.use_clock(Some(&clock.unwrap_or_else(gst::SystemClock::obtain)));
        match &plan.address {
            // Its pads are no elements': the pipeline has to run before anything comes.
            Address::Rtsp(_) if plan.light => {}
            Address::Rtsp(remote) => self.rtsp(plan, remote)?,
            Address::Http(remote) => self.http(plan, remote)?,
            Address::File(path) => self.file(path)?,
            Address::Test(settings) => self.test(settings)?,
        }
        self.pipeline.set_state(gst::State::Playing)?;
        if let Address::Rtsp(remote) = &plan.address
            && plan.light
        {
            let light = light::Connection::start(&self.shared, remote, plan, &self.outlet)
                .map_err(|error| glib::bool_error!("there is no thread to connect with: {error}"))?;
            *self.light.lock() = Some(light);
        }
        Ok(())
    }

    /// Ends the connection, and all its threads. One that hangs, a decoder in its driver for one, is left behind where
    /// `left` has room for it: it goes on ending in the background, and false is returned.
    pub fn stop(self, left: &Arc<()>) -> bool {
        let session = Arc::new(self);
        let (end, ended) = mpsc::channel::<()>();
        let (torn, mark) = (session.clone(), left.clone());
        let spawned = thread::Builder::new().name("nvrsrc-stop".into()).spawn(move || {
            torn.tear_down();
            drop((torn, mark, end));
        });
        if spawned.is_err() {
            session.tear_down();
            return true;
        }
        // Nothing is ever sent: the other end is dropped.
        while ended.recv_timeout(STOP) == Err(mpsc::RecvTimeoutError::Timeout) {
            // What follows the element may hold a picture for hours, and has a right to.
            let held = session.shared.flow.pushing.load(Ordering::Relaxed);
            if !held && Arc::strong_count(left) <= LEFT + 1 {
                return false;
            }
        }
        true
    }

    fn tear_down(&self) {
        *self.shared.stopping.lock() = true;
        if let Some(bus) = self.pipeline.bus() {
            bus.set_flushing(true);
            bus.unset_sync_handler();
        }
        let light = self.light.lock().take();
        if let Some(light) = light {
            light.stop();
        }
        // Going to NULL does not fail for any element that this is made of, and nothing could be done about it.
        let _ = self.pipeline.set_state(gst::State::Null);
        let _ = self.outlet.set_active(false);
    }

    /// Does what has to be done now and then; the reason where the connection cannot go on.
    pub fn tend(&self) -> Result<(), Report> {
        self.light.lock().as_ref().map_or(Ok(()), light::Connection::tend)
    }

    /// What was found at the camera so far.
    pub fn found(&self) -> Found {
        self.shared.found.lock().clone()
    }

    /// How late pictures leave this connection.
    pub fn latency(&self) -> Option<gst::ClockTime> {
        let mut query = gst::query::Latency::new();
        (self.outlet.is_linked() && self.outlet.peer_query(&mut query)).then(|| query.result().1)
    }

    fn listen(&self) {
        let Some(bus) = self.pipeline.bus() else { return };
        let shared = Arc::downgrade(&self.shared);
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Error(error) = message.view()
                && let Some(shared) = shared.upgrade()
            {
                let source = message.src().and_then(|src| src.downcast_ref::<gst::Element>());
                // What went wrong in particular stands in the last line of what is meant for people debugging.
                let detail = error.debug().and_then(|text| text.lines().last().map(str::to_owned));
                if source.is_some_and(|source| source.name().starts_with(branch::PREFIX)) {
                    gst::warning!(CAT, "{}: {}", error.error(), detail.unwrap_or_default());
                    return gst::BusSyncReply::Drop;
                }
                let decoder = source.is_some_and(of_decoder);
                let error = error.error();
                // `rtspsrc` knows only that nothing was selected.
                let untaken = shared.untaken.lock().clone();
                if let Some(reason) = untaken.filter(|_| error.matches(gst::StreamError::CodecNotFound)) {
                    shared.mailbox.report(shared.id, Report::Unusable(reason));
                    return gst::BusSyncReply::Drop;
                }
                let certificate = shared.refused_certificate(&error, detail.as_deref());
                shared.mailbox.report(shared.id, Report::Error { error, detail, decoder, certificate });
            }
            gst::BusSyncReply::Drop
        });
    }
}

impl Shared {
    /// A stream of the source is there.
    pub fn added(self: &Arc<Self>, outlet: &gst::Pad, pad: &gst::Pad, paced: bool) {
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let Some(structure) = caps.structure(0) else { return };
        let name = structure.name().as_str();
        let kind = match (name, structure.get::<&str>("media").unwrap_or_default()) {
            ("application/x-rtp", "video") => Kind::Encoded,
            ("application/x-rtp", "audio") => Kind::Audio,
            (name, _) if name.starts_with("video/") || name == "image/jpeg" => Kind::Encoded,
            (name, _) if name.starts_with("audio/") => Kind::Audio,
            _ => return,
        };
        // Further streams, and what is neither, stay unlinked.
        if self.linked[kind as usize].swap(true, Ordering::Relaxed) {
            return;
        }
        let result = match kind {
            Kind::Encoded => self
                .video_chain(&caps, paced)
                .and_then(|(chain, decoded)| self.attach(pad, &chain, decoded.then_some(outlet))),
            Kind::Audio => self.audio_chain(&caps, paced).and_then(|chain| self.attach(pad, &chain, None)),
        };
        match result {
            Ok(()) => {}
            Err(reason) if kind == Kind::Encoded => {
                self.mailbox.report(self.id, Report::Unusable(reason));
            }
            Err(reason) => gst::warning!(CAT, "no audio: {reason}"),
        }
    }

    /// The source has shown all its streams.
    pub fn no_more_pads(&self) {
        if !self.linked[Kind::Encoded as usize].load(Ordering::Relaxed) {
            let reason = self.untaken.lock().clone();
            let reason = reason.unwrap_or_else(|| "no video in it that can be decoded".into());
            self.mailbox.report(self.id, Report::Unusable(reason));
        }
    }

    /// The camera offers video that nothing here can take out of RTP.
    pub fn cannot_take(&self, encoding: &str) {
        self.untaken.lock().get_or_insert_with(|| codec::no_depayloader(encoding));
    }

    /// Puts `chain` behind `pad`, and `outlet` behind that.
    fn attach(
        &self,
        pad: &gst::Pad,
        chain: &[gst::Element],
        outlet: Option<&gst::Pad>,
    ) -> Result<(), String> {
        let stopping = self.stopping.lock();
        let Some(pipeline) = self.pipeline.upgrade().filter(|_| !*stopping) else { return Ok(()) };
        let failed = |error: glib::BoolError| format!("the decoder could not be set up: {error}");
        pipeline.add_many(chain).map_err(failed)?;
        gst::Element::link_many(chain).map_err(failed)?;
        let (Some(first), Some(last)) = (chain.first(), chain.last()) else { return Ok(()) };
        let (Some(input), Some(output)) = (first.static_pad("sink"), last.static_pad("src")) else {
            return Err(format!("{} cannot be used as a decoder", last.name()));
        };
        if let Some(outlet) = outlet {
            output.link(outlet).map_err(|error| format!("the decoder could not be linked: {error:?}"))?;
        }
        for element in chain.iter().rev() {
            element.sync_state_with_parent().map_err(|error| format!("{}: {error}", element.name()))?;
        }
        let name = first.name();
        pad.link(&input).map_err(|error| format!("{name} could not be linked: {error:?}"))?;
        Ok(())
    }

    /// What stands between a video stream and the outlet, and whether pictures come out of it.
    fn video_chain(
        self: &Arc<Self>,
        caps: &gst::Caps,
        paced: bool,
    ) -> Result<(Vec<gst::Element>, bool), String> {
        let (mut chain, coded) = transport(caps, paced)?;
        let name = coded.structure(0).map(|s| s.name().to_string()).unwrap_or_default();
        self.found.lock().codec = Some(name.clone());
        if name == "video/x-raw" {
            if chain.is_empty() {
                chain.push(make("identity")?);
            }
            return Ok((chain, true));
        }
        let rtp = caps.structure(0).is_some_and(|s| s.name() == "application/x-rtp");
        let mut keys = Keys::Told;
        if rtp && (name == "video/x-h264" || name == "video/x-h265") {
            // Whole access units, with parameter sets in the stream: what changes them needs no new caps.
            let filter = gst::Caps::builder(name.as_str())
                .field("stream-format", "byte-stream")
                .field("alignment", "au")
                .build();
            let element = make("capsfilter")?;
            element.set_property("caps", filter);
            chain.push(element);
        } else if rtp {
            keys = codec::keys(&coded);
        }
        let unmarked = matches!(keys, Keys::Unknown);
        if let Keys::By(parser) = keys {
            chain.push(parser);
        }
        let tap = Tap::new(self, Kind::Encoded, unmarked);
        if !self.decode {
            chain.push(tap.upcast());
            return Ok((chain, false));
        }
        let codec::Chain { parser, decoder, hardware } =
            codec::chain(&coded, self.hwaccel, self.avoid_hardware).map_err(|error| error.to_string())?;
        let name = decoder.factory().map(|factory| factory.name().to_string()).unwrap_or_default();
        self.found.lock().decoder = Some((name, hardware));
        if self.light {
            // The thread that receives all cameras decodes none.
            let queue = tap.queue().map_err(|error| format!("{error}; is its plugin installed?"))?;
            chain.extend([tap.upcast(), queue]);
        } else {
            chain.push(tap.upcast());
        }
        chain.extend(parser);
        chain.push(decoder);
        if !hardware {
            // Does nothing unless what follows cannot take what the camera sends, such as 10 bits or 4:2:2.
            chain.push(make("videoconvert")?);
        }
        Ok((chain, true))
    }

    fn audio_chain(self: &Arc<Self>, caps: &gst::Caps, paced: bool) -> Result<Vec<gst::Element>, String> {
        let (mut chain, coded) = transport(caps, paced)?;
        self.found.lock().audio =
            coded.iter().map(|s| s.name().to_string()).find(|name| name.starts_with("audio/"));
        self.mailbox.report(self.id, Report::Found);
        chain.push(Tap::new(self, Kind::Audio, false).upcast());
        Ok(chain)
    }
}

/// Whether `element` is a decoder or a part of one.
fn of_decoder(element: &gst::Element) -> bool {
    let mut element = Some(element.clone());
    while let Some(each) = element {
        if each.metadata("klass").is_some_and(|class| class.contains("Decoder")) {
            return true;
        }
        element = each.parent().and_downcast();
    }
    false
}

fn make(name: &str) -> Result<gst::Element, String> {
    gst::ElementFactory::make(name).build().map_err(|error| format!("{error}; is its plugin installed?"))
}

/// What takes a stream out of its transport: the depayloader of RTP, the clock that keeps the pace of a file. With
/// the caps of what comes out.
fn transport(caps: &gst::Caps, paced: bool) -> Result<(Vec<gst::Element>, gst::Caps), String> {
    let mut chain = Vec::new();
    let mut coded = caps.clone();
    if let Some(rtp) = caps.structure(0).filter(|s| s.name() == "application/x-rtp") {
        let factory = depayloader(rtp).ok_or("no depayloader for this stream is installed")?;
        let depay = factory.create().build().map_err(|error| format!("{error}; is its plugin installed?"))?;
        coded = depay.static_pad("src").map_or(coded, |pad| pad.pad_template_caps());
        chain.push(depay);
    }
    if paced {
        chain.push(make("clocksync")?);
    }
    Ok((chain, coded))
}
