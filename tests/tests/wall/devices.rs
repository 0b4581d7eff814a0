//! Devices that are not here: elements with the names, the pads and the properties of the real ones, which show who is
//! chosen, what the mixer is told, and what happens where a device does not open or fails. What the real ones make of
//! it, they do not show.

use std::{
    sync::{
        LazyLock, Once,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use gst::{glib, prelude::*, subclass::prelude::*};
use gst_video::{VideoFormat, VideoFrameExt, VideoFrameRef, VideoInfo};
use parking_lot::Mutex;

use super::{PATIENCE, nvr_launch_elements};

/// What stands before and behind a mixer: brings pictures of any memory to system memory, which these are in anyway.
mod passage {
    use super::*;

    /// Whether it fails from now on, as a device that was unplugged.
    pub static BROKEN: AtomicBool = AtomicBool::new(false);
    /// Parts of pictures that were asked for.
    pub static CROPS: Mutex<Vec<(u32, u32, u32, u32)>> = Mutex::new(Vec::new());

    const MEMORIES: [&str; 2] = ["memory:VAMemory", "memory:CUDAMemory"];

    #[derive(Debug)]
    pub struct Imp {
        sink: gst::Pad,
        src: gst::Pad,
    }

    glib::wrapper! {
        pub struct Passage(ObjectSubclass<Imp>) @extends gst::Element, gst::Object;
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Imp {
        const NAME: &'static str = "NvrTestPassage";
        type Type = Passage;
        type ParentType = gst::Element;

        fn with_class(class: &Self::Class) -> Self {
            let template = |name| class.pad_template(name).expect("a template");
            let sink = gst::Pad::builder_from_template(&template("sink"))
                .chain_function(|_, parent, buffer| {
                    let this = parent.and_then(|parent| parent.downcast_ref::<Passage>()).expect("a parent");
                    this.imp().pass(buffer)
                })
                .event_function(|pad, parent, event| {
                    let gst::EventView::Caps(caps) = event.view() else {
                        return gst::Pad::event_default(pad, parent, event);
                    };
                    let plain = gst::Caps::builder_full()
                        .structure(caps.caps().structure(0).expect("caps").to_owned())
                        .build();
                    let this = parent.and_then(|parent| parent.downcast_ref::<Passage>()).expect("a parent");
                    this.imp().src.push_event(gst::event::Caps::new(&plain))
                })
                .query_function(|pad, parent, query| {
                    let gst::QueryViewMut::Caps(caps) = query.view_mut() else {
                        return gst::Pad::query_default(pad, parent, query);
                    };
                    let this = parent.and_then(|parent| parent.downcast_ref::<Passage>()).expect("a parent");
                    let behind = this.imp().src.peer_query_caps(None);
                    let mut taken = behind.clone();
                    for memory in MEMORIES {
                        let mut other = behind.copy();
                        for structure in 0..behind.size() {
                            other.make_mut().set_features(structure, Some(gst::CapsFeatures::new([memory])));
                        }
                        taken.merge(other);
                    }
                    if let Some(filter) = caps.filter() {
                        taken = filter.intersect_with_mode(&taken, gst::CapsIntersectMode::First);
                    }
                    caps.set_result(&taken);
                    true
                })
                .build();
            Self { sink, src: gst::Pad::builder_from_template(&template("src")).build() }
        }
    }

    impl Imp {
        fn pass(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
            if BROKEN.load(Ordering::Relaxed) {
                gst::element_imp_error!(self, gst::ResourceError::Failed, ["the device is gone"]);
                return Err(gst::FlowError::Error);
            }
            if let Some(crop) = buffer.meta::<gst_video::VideoCropMeta>() {
                CROPS.lock().push(crop.rect());
            }
            self.src.push(buffer)
        }
    }

    impl ObjectImpl for Imp {
        fn constructed(&self) {
            self.parent_constructed();
            self.obj().add_pad(&self.sink).expect("a pad");
            self.obj().add_pad(&self.src).expect("a pad");
        }
    }

    impl GstObjectImpl for Imp {}

    impl ElementImpl for Imp {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "Passage",
                    "Filter/Video",
                    "Stands for a real one",
                    "nobody",
                )
            });
            Some(&METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                let plain = gst_video::VideoCapsBuilder::new().build();
                let mut any = plain.clone();
                for memory in MEMORIES {
                    any.make_mut().append(gst_video::VideoCapsBuilder::new().features([memory]).build());
                }
                let template = |name, direction, caps| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, caps)
                        .expect("a template")
                };
                vec![
                    template("sink", gst::PadDirection::Sink, &any),
                    template("src", gst::PadDirection::Src, &plain),
                ]
            });
            &TEMPLATES
        }
    }
}

/// A mixer whose device is not there.
mod absent {
    use super::*;

    #[derive(Debug, Default)]
    pub struct Imp;

    glib::wrapper! {
        pub struct Absent(ObjectSubclass<Imp>) @extends gst::Element, gst::Object;
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Imp {
        const NAME: &'static str = "NvrTestAbsentMixer";
        type Type = Absent;
        type ParentType = gst::Element;
    }

    impl ObjectImpl for Imp {}
    impl GstObjectImpl for Imp {}

    impl ElementImpl for Imp {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "Absent",
                    "Filter/Video",
                    "Stands for a real one",
                    "nobody",
                )
            });
            Some(&METADATA)
        }

        fn change_state(
            &self,
            transition: gst::StateChange,
        ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
            if transition == gst::StateChange::NullToReady {
                gst::element_imp_error!(self, gst::ResourceError::OpenReadWrite, ["no such device"]);
                return Err(gst::StateChangeError);
            }
            self.parent_change_state(transition)
        }
    }
}

/// False where this machine has the real elements: the others would not be found beside them.
fn register() -> bool {
    static REAL: LazyLock<bool> = LazyLock::new(|| {
        ["vacompositor", "vapostproc", "cudacompositor", "cudaupload"]
            .iter()
            .any(|name| gst::ElementFactory::find(name).is_some())
    });
    static REGISTERED: Once = Once::new();
    nvr_launch_elements();
    if *REAL {
        println!("SKIPPED: this machine has elements for VA-API or CUDA");
        return false;
    }
    REGISTERED.call_once(|| {
        let compositor = gst::ElementFactory::find("compositor").expect("gstreamer1.0-plugins-base");
        let compositor = compositor.load().expect("it loads").element_type();
        let passage = passage::Passage::static_type();
        for (name, kind) in [
            // GStreamer's own, whose pads have the same properties.
            ("vacompositor", compositor),
            ("vapostproc", passage),
            ("cudacompositor", absent::Absent::static_type()),
            ("cudaupload", passage),
            ("cudaconvertscale", passage),
            ("cudadownload", passage),
        ] {
            gst::Element::register(None, name, gst::Rank::NONE, kind).expect("a name");
        }
    });
    true
}

/// One wall at a time: they share the fakes.
static TURN: Mutex<()> = Mutex::new(());

/// A wall of 320×180 of two cameras whose caps say that their pictures are in `memory`.
struct Wall {
    pipeline: gst::Pipeline,
    compositor: gst::Element,
    out: gst_app::AppSink,
    cameras: Vec<gst_app::AppSrc>,
}

fn info() -> VideoInfo {
    VideoInfo::builder(VideoFormat::I420, 64, 64).fps(gst::Fraction::new(25, 1)).build().expect("an info")
}

impl Wall {
    fn new(memory: &str, properties: &str) -> anyhow::Result<Self> {
        let pipeline = gst::parse::launch(&format!(
            "nvrcompositor name=wall spacing=0 {properties} \
             ! video/x-raw,format=I420,width=320,height=180,framerate=25/1 \
             ! appsink name=out max-buffers=1 drop=true sync=false"
        ))?
        .downcast::<gst::Pipeline>()
        .expect("a pipeline");
        let wall = pipeline.by_name("wall").context("the wall")?;
        let out = pipeline.by_name("out").and_downcast::<gst_app::AppSink>().context("the output")?;
        let mut caps = info().to_caps()?;
        caps.make_mut().set_features(0, Some(gst::CapsFeatures::new([memory])));
        let mut cameras = Vec::new();
        for n in 0..2 {
            let source = gst_app::AppSrc::builder()
                .caps(&caps)
                .format(gst::Format::Time)
                .is_live(true)
                .do_timestamp(true)
                .build();
            pipeline.add(&source)?;
            source.link_pads(Some("src"), &wall, Some(&format!("sink_{n}")))?;
            cameras.push(source);
        }
        Ok(Self { pipeline, compositor: wall, out, cameras })
    }

    /// Shows pictures of two greys until the wall does.
    fn until(&self, what: &str, greys: [u8; 2]) -> anyhow::Result<gst::Sample> {
        let deadline = Instant::now() + Duration::from_secs(PATIENCE.seconds());
        loop {
            for (camera, grey) in self.cameras.iter().zip(greys) {
                let mut bytes = vec![128; info().size()];
                bytes[..64 * 64].fill(grey);
                camera.push_buffer(gst::Buffer::from_mut_slice(bytes))?;
            }
            let sample = self.out.try_pull_sample(PATIENCE);
            let sample = sample.with_context(|| format!("the wall stands still before: {what}"))?;
            let found = [luma(&sample, 80, 60), luma(&sample, 240, 60)];
            if found.iter().zip(greys).all(|(found, grey)| found.abs_diff(grey) <= 2) {
                return Ok(sample);
            }
            anyhow::ensure!(Instant::now() < deadline, "did not happen: {what}: {found:?}");
        }
    }

    fn backend(&self) -> String {
        self.compositor.property::<gst::Structure>("stats").get("backend").expect("the backend")
    }

    fn said(&self) -> Vec<String> {
        let kinds = [gst::MessageType::Error, gst::MessageType::Warning];
        let bus = self.pipeline.bus().expect("a bus");
        std::iter::from_fn(|| bus.pop_filtered(&kinds)).map(|message| format!("{message:?}")).collect()
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn luma(sample: &gst::Sample, x: usize, y: usize) -> u8 {
    let info = VideoInfo::from_caps(sample.caps().expect("caps")).expect("raw video");
    let buffer = sample.buffer().expect("a picture");
    let frame = VideoFrameRef::from_buffer_ref_readable(buffer, &info).expect("a readable picture");
    frame.plane_data(0).expect("luma")[y * frame.plane_stride()[0] as usize + x]
}

#[test]
fn pictures_in_va_memory_are_composed_by_vacompositor() -> anyhow::Result<()> {
    if !register() {
        return Ok(());
    }
    let _turn = TURN.lock();
    passage::CROPS.lock().clear();
    let wall = Wall::new("memory:VAMemory", "show-labels=true sink_0::fit=stretch sink_1::fit=crop")?;
    wall.pipeline.set_state(gst::State::Playing)?;
    let sample = wall.until("both pictures", [90, 200])?;
    assert_eq!(wall.backend(), "va");
    assert!(wall.said().is_empty(), "{:?}", wall.said());
    // 64×64 in a tile of 160×180: the middle.
    let crops = passage::CROPS.lock().clone();
    assert!(!crops.is_empty() && crops.iter().all(|crop| *crop == (4, 0, 56, 64)), "{crops:?}");
    // Labels are not transparent: vacompositor knows one opacity for a picture as a whole.
    let row: Vec<u8> = (0..60).map(|x| luma(&sample, x, 170)).collect();
    assert!(row.iter().any(|luma| *luma < 40), "a label in the corner: {row:?}");
    Ok(())
}

#[test]
fn a_device_that_is_not_there_is_replaced_by_the_processor_with_one_warning() -> anyhow::Result<()> {
    if !register() {
        return Ok(());
    }
    let _turn = TURN.lock();
    let wall = Wall::new("memory:CUDAMemory", "sink_0::fit=stretch sink_1::fit=stretch")?;
    wall.pipeline.set_state(gst::State::Playing)?;
    wall.until("both pictures", [90, 200])?;
    wall.until("others", [50, 130])?;
    assert_eq!(wall.backend(), "cpu");
    let said = wall.said();
    assert_eq!(said.len(), 1, "{said:?}");
    for part in
        ["no such device", "memory:CUDAMemory", "backend=cuda needs GStreamer 1.26", "the processor draws"]
    {
        assert!(said[0].contains(part), "{said:?}");
    }
    Ok(())
}

#[test]
fn a_device_that_fails_while_it_plays_is_replaced_by_the_processor() -> anyhow::Result<()> {
    if !register() {
        return Ok(());
    }
    let _turn = TURN.lock();
    let wall = Wall::new("memory:VAMemory", "sink_0::fit=stretch sink_1::fit=stretch")?;
    wall.pipeline.set_state(gst::State::Playing)?;
    wall.until("both pictures", [90, 200])?;
    assert_eq!(wall.backend(), "va");
    passage::BROKEN.store(true, Ordering::Relaxed);
    let after = wall.until("others", [50, 130]);
    passage::BROKEN.store(false, Ordering::Relaxed);
    after?;
    assert_eq!(wall.backend(), "cpu");
    let said = wall.said();
    assert!(said.len() == 1 && said[0].contains("the device is gone"), "{said:?}");
    Ok(())
}

#[test]
fn a_device_that_was_asked_for_and_is_not_there_is_an_error_that_says_what_is() -> anyhow::Result<()> {
    if !register() {
        return Ok(());
    }
    let _turn = TURN.lock();
    let wall = Wall::new("memory:CUDAMemory", "backend=cuda")?;
    assert!(wall.pipeline.set_state(gst::State::Playing).is_err());
    let said = wall.said();
    assert_eq!(said.len(), 1, "{said:?}");
    for part in ["backend=cuda was asked for", "no such device", "installed: cpu, ", "va"] {
        assert!(said[0].contains(part), "{said:?}");
    }
    Ok(())
}

#[test]
fn the_processor_alone_takes_system_memory_alone() -> anyhow::Result<()> {
    if !register() {
        return Ok(());
    }
    let taken = |backend: &str| -> anyhow::Result<gst::Caps> {
        let wall = gst::ElementFactory::make("nvrcompositor").build()?;
        wall.set_property_from_str("backend", backend);
        Ok(wall.request_pad_simple("sink_%u").context("a pad")?.query_caps(None))
    };
    let names = |caps: &gst::Caps, memory: &str| {
        caps.iter_with_features().any(|(_, features)| features.contains(memory))
    };
    let (cpu, va, auto) = (taken("cpu")?, taken("va")?, taken("auto")?);
    assert!(["memory:VAMemory", "memory:GLMemory"].iter().all(|memory| !names(&cpu, memory)), "{cpu}");
    assert!(names(&va, "memory:VAMemory") && !names(&va, "memory:CUDAMemory"), "{va}");
    assert!(names(&auto, "memory:VAMemory") && names(&auto, "memory:CUDAMemory"), "{auto}");
    let system = gst::CapsFeatures::new(["memory:SystemMemory"]);
    for caps in [cpu, va, auto] {
        assert!(caps.features(0).is_some_and(|first| first.is_equal(&system)), "{caps}");
    }
    Ok(())
}
