//! Hardware decoders that pass for sound and then fail in the middle of the stream. A process of its own: the decoder
//! that is registered here would be every other test's as well.

use std::{
    sync::{
        Condvar, LazyLock, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use nvr_launch::fault_lab::{Lab, Spec};

/// Generous: the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);
/// Pictures until the device fails: a second of them.
const GOOD: u32 = 25;

/// How the device of the fake fails.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// It is lost, with an error.
    Error,
    /// Nothing comes out of it any more.
    Stall,
    /// What comes out of it is damaged.
    Garbage,
    /// It refuses what goes in, without a word.
    Refusal,
    /// A call into its driver does not return.
    Hang,
}

const FAILURES: [Failure; 5] =
    [Failure::Error, Failure::Stall, Failure::Garbage, Failure::Refusal, Failure::Hang];

/// Calls into the driver return again.
static RETURNS: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// Which of them the next device has.
static NEXT: AtomicU32 = AtomicU32::new(0);

glib::wrapper! {
    struct Fake(ObjectSubclass<FakeImp>) @extends gst::Bin, gst::Element, gst::Object;
}

/// A software decoder that says it is hardware, and fails after some pictures.
#[derive(Default)]
struct FakeImp;

#[glib::object_subclass]
impl ObjectSubclass for FakeImp {
    const NAME: &'static str = "NvrTestFailingDevice";
    type Type = Fake;
    type ParentType = gst::Bin;
}

impl ObjectImpl for FakeImp {
    fn constructed(&self) {
        self.parent_constructed();
        let bin = self.obj();
        let failure = FAILURES[NEXT.load(Ordering::Relaxed) as usize % FAILURES.len()];
        let decoder = gst::ElementFactory::make("avdec_h264").property("max-threads", 1).build().unwrap();
        let device = gst::ElementFactory::make("identity").build().unwrap();
        if matches!(failure, Failure::Error) {
            device.set_property("error-after", GOOD as i32);
        }
        bin.add_many([&decoder, &device]).unwrap();
        decoder.link(&device).unwrap();
        for (name, inner) in [("sink", &decoder), ("src", &device)] {
            let template = bin.pad_template(name).unwrap();
            let pad = gst::GhostPad::builder_from_template(&template).name(name);
            let pad = pad.with_target(&inner.static_pad(name).unwrap()).unwrap().build();
            bin.add_pad(&pad).unwrap();
        }
        let count = AtomicU32::new(0);
        let broken = move || count.fetch_add(1, Ordering::Relaxed) >= GOOD;
        let (pad, buffer) = (|name| bin.static_pad(name).unwrap(), gst::PadProbeType::BUFFER);
        match failure {
            Failure::Error => {}
            Failure::Stall => {
                pad("src").add_probe(buffer, move |_, _| {
                    if broken() { gst::PadProbeReturn::Drop } else { gst::PadProbeReturn::Ok }
                });
            }
            Failure::Garbage => {
                pad("src").add_probe(buffer, move |_, info| {
                    if broken()
                        && let Some(buffer) = info.buffer_mut()
                    {
                        buffer.make_mut().set_flags(gst::BufferFlags::CORRUPTED);
                    }
                    gst::PadProbeReturn::Ok
                });
            }
            Failure::Hang => {
                pad("src").add_probe(buffer, move |_, _| {
                    if broken() {
                        let (returns, told) = &RETURNS;
                        let _held = told.wait_while(returns.lock().unwrap(), |returns| !*returns).unwrap();
                    }
                    gst::PadProbeReturn::Ok
                });
            }
            Failure::Refusal => {
                pad("sink").add_probe(buffer, move |_, info| {
                    if !broken() {
                        return gst::PadProbeReturn::Ok;
                    }
                    info.data = None;
                    info.flow_res = Err(gst::FlowError::Error);
                    gst::PadProbeReturn::Handled
                });
            }
        }
    }
}

impl GstObjectImpl for FakeImp {}

impl ElementImpl for FakeImp {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Failing device",
                "Codec/Decoder/Video/Hardware",
                "Fails after some pictures",
                "the tests",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let template = |name, direction, media| {
                let caps = gst::Caps::new_empty_simple(media);
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).unwrap()
            };
            vec![
                template("sink", gst::PadDirection::Sink, "video/x-h264"),
                template("src", gst::PadDirection::Src, "video/x-raw"),
            ]
        });
        &TEMPLATES
    }
}

impl BinImpl for FakeImp {}

/// `nvrsrc ! fakesink`, what it said and what came out of it.
struct Watch {
    pipeline: gst::Pipeline,
    source: gst::Element,
    pictures: std::sync::mpsc::Receiver<gst::ClockTime>,
    warnings: Vec<String>,
}

impl Watch {
    fn play(uri: &str) -> Self {
        let source = gst::ElementFactory::make("nvrsrc").property("uri", uri).property("timeout", 2_u32);
        let source = source.build().unwrap();
        let sink = gst::ElementFactory::make("fakesink").property("sync", false).build().unwrap();
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([&source, &sink]).unwrap();
        source.link(&sink).unwrap();
        let (sender, pictures) = std::sync::mpsc::channel();
        source.static_pad("video").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(time) = info.buffer().and_then(|buffer| buffer.pts()) {
                let _ = sender.send(time);
            }
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline, source, pictures, warnings: Vec::new() }
    }

    /// Waits until it plays with this decoder.
    fn plays_with(&mut self, decoder: &str) {
        let bus = self.pipeline.bus().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = bus.timed_pop(gst::ClockTime::try_from(left).unwrap());
            let message = message.unwrap_or_else(|| panic!("{decoder}: {:?}", self.warnings));
            match message.view() {
                gst::MessageView::Error(error) => panic!("{error:?}"),
                gst::MessageView::Eos(_) => panic!("the stream ended"),
                gst::MessageView::Warning(warning) => self.warnings.push(format!("{warning:?}")),
                _ => {}
            }
            let state = message.structure().filter(|s| s.name() == "nvr-source-state");
            if state.is_some_and(|s| s.get::<&str>("decoder") == Ok(decoder)) {
                return;
            }
        }
    }

    fn stat(&self, name: &str) -> u64 {
        self.source.property::<gst::Structure>("stats").get(name).unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

#[test]
fn hardware_that_fails_while_it_runs_is_replaced_by_software() {
    gst::init().unwrap();
    gstnvr::plugin_register_static().unwrap();
    if gst::ElementFactory::find("avdec_h264").is_none() {
        eprintln!("skipped: avdec_h264 (gstreamer1.0-libav) is not installed");
        return;
    }
    // Above all hardware that this machine may really have.
    let rank = gst::Rank::PRIMARY + 1000;
    gst::Element::register(None, "nvrtestfailingdevice", rank, Fake::static_type()).unwrap();
    let lab = Lab::start().unwrap();
    let spec: Spec = "h264,320x180,fps=25,gop=10,bitrate=300".parse().unwrap();
    let uri = match lab.add_spec(0, &spec) {
        Ok(uri) => uri,
        Err(error) => {
            eprintln!("skipped: {error:#}");
            return;
        }
    };
    for (number, failure) in FAILURES.iter().enumerate() {
        NEXT.store(number as u32, Ordering::Relaxed);
        let mut watch = Watch::play(&uri);
        watch.plays_with("nvrtestfailingdevice");
        watch.plays_with("avdec_h264");
        let told = |words| watch.warnings.iter().filter(|text: &&String| text.contains(words)).count();
        let hangs = usize::from(matches!(failure, Failure::Hang));
        assert_eq!(told("decoding in software"), 1, "{failure:?}: {:?}", watch.warnings);
        assert_eq!(told("hangs; it is left behind"), hangs, "{failure:?}: {:?}", watch.warnings);
        assert_eq!(watch.warnings.len(), 1 + hangs, "{failure:?}: {:?}", watch.warnings);
        assert_eq!(watch.stat("connections"), 2, "{failure:?}");

        // One stream, from before and after the failure, and it goes on.
        let mut times: Vec<_> = watch.pictures.try_iter().collect();
        assert!(times.len() + 1 >= GOOD as usize, "{failure:?}: {} pictures", times.len());
        // What was left behind goes on, and nothing comes of it.
        if hangs > 0 {
            *RETURNS.0.lock().unwrap() = true;
            RETURNS.1.notify_all();
        }
        while times.len() < 4 * GOOD as usize {
            times.push(watch.pictures.recv_timeout(PATIENCE).expect("a picture"));
        }
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{failure:?}: {times:?}");
        assert_eq!(watch.stat("connections"), 2, "{failure:?}: it stays with software");
    }

    // Hardware that was asked for in particular is not replaced; that there is none is said at once.
    let names = ["v4l2slh264dec", "v4l2h264dec", "v4l2slh265dec", "v4l2h265dec", "v4l2jpegdec"];
    if names.iter().all(|name| gst::ElementFactory::find(name).is_none()) {
        let source = gst::ElementFactory::make("nvrsrc").property("uri", &uri).build().unwrap();
        source.set_property_from_str("hwaccel", "v4l2");
        let bus = gst::Bus::new();
        source.set_bus(Some(&bus));
        assert!(source.set_state(gst::State::Playing).is_err());
        let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
        let text = format!("{message:?}");
        assert!(text.contains("hwaccel=v4l2 was asked for") && text.contains("none (software)"), "{text}");
        source.set_state(gst::State::Null).unwrap();
    }
}
