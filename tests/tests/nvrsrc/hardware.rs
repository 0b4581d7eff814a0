//! Hardware decoders that fail while they run. VP8, so that no other test in this process meets the fake one.

use gst::{glib, prelude::*, subclass::prelude::*};
use nvr_launch::rtsp_server::{Camera, RtspServer};

use super::player::{Player, init};

/// Pictures until the fake device is lost.
const GOOD: i32 = 20;

glib::wrapper! {
    struct LostDevice(ObjectSubclass<LostDeviceImp>) @extends gst::Bin, gst::Element, gst::Object;
}

/// A decoder that says it is hardware, and fails after some pictures.
#[derive(Default)]
struct LostDeviceImp;

#[glib::object_subclass]
impl ObjectSubclass for LostDeviceImp {
    const NAME: &'static str = "NvrTestLostDevice";
    type Type = LostDevice;
    type ParentType = gst::Bin;
}

impl ObjectImpl for LostDeviceImp {
    fn constructed(&self) {
        self.parent_constructed();
        let bin = self.obj();
        let device = gst::ElementFactory::make("identity").property("error-after", GOOD).build().unwrap();
        let decoder = gst::ElementFactory::make("vp8dec").build().unwrap();
        bin.add_many([&decoder, &device]).unwrap();
        decoder.link(&device).unwrap();
        for (name, inner) in [("sink", &decoder), ("src", &device)] {
            let template = bin.pad_template(name).unwrap();
            let pad = gst::GhostPad::builder_from_template(&template).name(name);
            let pad = pad.with_target(&inner.static_pad(name).unwrap()).unwrap().build();
            bin.add_pad(&pad).unwrap();
        }
    }
}

impl GstObjectImpl for LostDeviceImp {}

impl ElementImpl for LostDeviceImp {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: std::sync::LazyLock<gst::subclass::ElementMetadata> =
            std::sync::LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "Lost device",
                    "Codec/Decoder/Video/Hardware",
                    "Fails after some pictures",
                    "the tests",
                )
            });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: std::sync::LazyLock<Vec<gst::PadTemplate>> = std::sync::LazyLock::new(|| {
            let template = |name, direction, media| {
                let caps = gst::Caps::new_empty_simple(media);
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).unwrap()
            };
            vec![
                template("sink", gst::PadDirection::Sink, "video/x-vp8"),
                template("src", gst::PadDirection::Src, "video/x-raw"),
            ]
        });
        &TEMPLATES
    }
}

impl BinImpl for LostDeviceImp {}

#[test]
fn a_hardware_decoder_that_fails_while_it_runs_is_replaced_by_software() {
    init();
    if ["vp8enc", "vp8dec", "rtpvp8pay"].iter().any(|name| gst::ElementFactory::find(name).is_none()) {
        eprintln!("skipped: vp8enc, vp8dec or rtpvp8pay (gstreamer1.0-plugins-good) is not installed");
        return;
    }
    let rank = gst::Rank::PRIMARY + 100;
    gst::Element::register(None, "nvrtestlostdevice", rank, LostDevice::static_type()).unwrap();
    let server = RtspServer::start().unwrap();
    let camera = "( videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=25/1 \
                  ! vp8enc deadline=1 keyframe-max-dist=10 ! rtpvp8pay name=pay0 pt=96 )";
    let uri = server.add_camera("0", &Camera::Launch(camera.into())).unwrap();

    let mut player = Player::play(&uri, |_| {});
    player.state("playing");
    assert!(player.heard("nvrtestlostdevice"), "{:?}", player.said);
    player.state("playing");
    assert!(player.heard("the hardware decoder failed") && player.heard("decoding in software"));
    assert_eq!((player.text("decoder").as_str(), player.stat("connections")), ("vp8dec", 2));
    for _ in 0..2 * GOOD {
        player.picture();
    }
    assert_eq!(player.stat("connections"), 2, "it stays with software");
    drop(player);

    // Nor is it tried where hardware is not wanted.
    let mut player = Player::play(&uri, |source| source.set_property_from_str("hwaccel", "none"));
    player.state("playing");
    assert_eq!(player.text("decoder"), "vp8dec");
}
