//! Which elements turn a compressed stream into pictures on this machine.

use gst::{glib, prelude::*};

use super::{Hwaccel, imp::CAT};

/// Decoders of one codec that are known to do, best first within a family.
struct Known {
    caps: &'static str,
    va: &'static [&'static str],
    nvdec: &'static [&'static str],
    v4l2: &'static [&'static str],
    software: &'static [&'static str],
    parser: &'static str,
}

const KNOWN: [Known; 3] = [
    Known {
        caps: "video/x-h264",
        va: &["vah264dec", "vah264lpdec", "vaapih264dec"],
        nvdec: &["nvh264dec", "nvh264sldec"],
        v4l2: &["v4l2slh264dec", "v4l2h264dec"],
        software: &["avdec_h264", "openh264dec"],
        parser: "h264parse",
    },
    Known {
        caps: "video/x-h265",
        va: &["vah265dec", "vah265lpdec", "vaapih265dec"],
        nvdec: &["nvh265dec", "nvh265sldec"],
        v4l2: &["v4l2slh265dec", "v4l2h265dec"],
        software: &["avdec_h265", "libde265dec"],
        parser: "h265parse",
    },
    Known {
        caps: "image/jpeg",
        va: &["vajpegdec", "vaapijpegdec"],
        nvdec: &["nvjpegdec"],
        v4l2: &["v4l2jpegdec"],
        software: &["jpegdec", "avdec_mjpeg"],
        parser: "jpegparse",
    },
];

impl Known {
    fn family(&self, hwaccel: Hwaccel) -> &'static [&'static str] {
        match hwaccel {
            Hwaccel::Va => self.va,
            Hwaccel::Nvdec => self.nvdec,
            Hwaccel::V4l2 => self.v4l2,
            Hwaccel::None | Hwaccel::Auto => self.software,
        }
    }
}

const HARDWARE: [Hwaccel; 3] = [Hwaccel::Va, Hwaccel::Nvdec, Hwaccel::V4l2];

/// The elements that decode one stream.
#[derive(Debug)]
pub struct Chain {
    /// What has to stand before the decoder.
    pub parser: Option<gst::Element>,
    pub decoder: gst::Element,
    pub hardware: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error(
        "hwaccel={asked} was asked for, and no such decoder for {codec} is installed or usable here; present: {present}"
    )]
    Hardware { asked: String, codec: String, present: String },
    #[error("the camera sends {codec}, and no decoder for that is installed here: {needed}")]
    Missing { codec: String, needed: &'static str },
    #[error(transparent)]
    Build(#[from] glib::BoolError),
}

/// Fails where no decoder at all of the wanted kind exists, so that this is said at the start.
pub fn check(hwaccel: Hwaccel) -> Result<(), CodecError> {
    let wanted =
        !HARDWARE.contains(&hwaccel) || KNOWN.iter().any(|codec| exists(codec.family(hwaccel)).is_some());
    if wanted { Ok(()) } else { Err(absent(hwaccel, "H.264, H.265 or JPEG")) }
}

/// Chooses and makes the decoder for `caps`. `avoid_hardware`: it failed before, and `hwaccel` is `auto`.
pub fn chain(caps: &gst::Caps, hwaccel: Hwaccel, avoid_hardware: bool) -> Result<Chain, CodecError> {
    let name = caps.structure(0).map(|s| s.name().to_string()).unwrap_or_default();
    let known = KNOWN.iter().find(|codec| codec.caps == name);
    let parser = |factory: &gst::ElementFactory| match known {
        // libav reads access units as they come; others want to know profile and size beforehand.
        Some(known) if !factory.name().starts_with("avdec_") && name != "image/jpeg" => {
            gst::ElementFactory::make(known.parser).build().map(Some)
        }
        _ => Ok(None),
    };
    let hardware = match hwaccel {
        Hwaccel::Auto if avoid_hardware => Vec::new(),
        Hwaccel::None => Vec::new(),
        _ => candidates(known, caps, hwaccel),
    };
    for factory in hardware {
        match usable(&factory, caps) {
            Ok(decoder) => return Ok(Chain { parser: parser(&factory)?, decoder, hardware: true }),
            Err(reason) => gst::info!(CAT, "{} is not used: {reason}", factory.name()),
        }
    }
    if HARDWARE.contains(&hwaccel) {
        return Err(absent(hwaccel, &name));
    }
    let factory = match known {
        Some(known) => exists(known.software),
        // Any decoder that the registry has for a codec that cameras seldom speak.
        None => decoders(caps).into_iter().find(|f| !f.has_type(gst::ElementFactoryType::HARDWARE)),
    };
    let factory = factory.ok_or_else(|| missing(&name))?;
    let decoder = factory.create().build()?;
    tune(&decoder);
    Ok(Chain { parser: parser(&factory)?, decoder, hardware: false })
}

fn missing(media_type: &str) -> CodecError {
    let needed = match media_type {
        "image/jpeg" | "video/x-vp8" | "video/x-vp9" => "install gstreamer1.0-plugins-good",
        "video/x-av1" => "install gstreamer1.0-plugins-bad (av1dec, dav1ddec)",
        _ => "install gstreamer1.0-libav, which has most of them, or set the camera to H.264 or H.265",
    };
    let codec = if media_type.is_empty() { "video of an unknown kind" } else { media_type };
    CodecError::Missing { codec: codec.to_owned(), needed }
}

/// How it is known which of a stream's units are keyframes.
#[derive(Debug)]
pub enum Keys {
    /// The depayloader says so.
    Told,
    /// This parser does.
    By(gst::Element),
    /// Nobody does: any unit may need those before it.
    Unknown,
}

/// Who marks the keyframes of what a depayloader gives.
pub fn keys(coded: &gst::Caps) -> Keys {
    const TOLD: [&str; 6] =
        ["video/x-h264", "video/x-h265", "image/jpeg", "image/x-jpc", "video/x-vp8", "video/x-vp9"];
    if coded.structure(0).is_some_and(|structure| TOLD.contains(&structure.name().as_str())) {
        return Keys::Told;
    }
    let kind = gst::ElementFactoryType::PARSER | gst::ElementFactoryType::MEDIA_VIDEO;
    gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL)
        .into_iter()
        .filter(|factory| factory.can_sink_any_caps(coded) && !coded.is_any())
        .find_map(|factory| factory.create().build().ok())
        .map_or(Keys::Unknown, Keys::By)
}

/// Why video that RTP calls `encoding` cannot be taken, in words for the user.
pub fn no_depayloader(encoding: &str) -> String {
    let plain: String = encoding.chars().filter(char::is_ascii_graphic).take(32).collect();
    let needed = match plain.to_ascii_uppercase().as_str() {
        "AV1" => "install gst-plugins-rs, which has rtpav1depay",
        _ => "gstreamer1.0-plugins-good and gstreamer1.0-plugins-bad have most of them",
    };
    format!(
        "the camera's video is {plain}, and no depayloader for that is installed here: {needed}; or set the camera to \
         H.264 or H.265"
    )
}

/// Hardware decoders to try, best first. With `auto`, rank decides, as everywhere in GStreamer: those without one are
/// tried last, and others than the known ones are taken where they have one.
fn candidates(known: Option<&Known>, caps: &gst::Caps, hwaccel: Hwaccel) -> Vec<gst::ElementFactory> {
    let families: &[Hwaccel] = if hwaccel == Hwaccel::Auto { &HARDWARE } else { &[hwaccel] };
    let names = known.into_iter().flat_map(|known| families.iter().flat_map(|family| known.family(*family)));
    let mut found: Vec<_> = names.filter_map(|name| gst::ElementFactory::find(name)).collect();
    if hwaccel == Hwaccel::Auto {
        for factory in decoders(caps) {
            if factory.has_type(gst::ElementFactoryType::HARDWARE) && !found.contains(&factory) {
                found.push(factory);
            }
        }
        found.sort_by_key(|factory| std::cmp::Reverse(factory.rank()));
    }
    found
}

/// Ranked decoders for `caps`, best first. Those that take some of such streams only, such as those with an alpha
/// channel, come after those that take them all.
fn decoders(caps: &gst::Caps) -> Vec<gst::ElementFactory> {
    let kind = gst::ElementFactoryType::DECODER | gst::ElementFactoryType::MEDIA_VIDEO;
    let mut found: Vec<_> = gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL)
        .into_iter()
        .filter(|factory| factory.can_sink_any_caps(caps))
        .collect();
    found.sort_by_key(|factory| std::cmp::Reverse((factory.can_sink_all_caps(caps), factory.rank())));
    found
}

/// The decoder, once its device is open and takes such a stream. That a driver is installed says neither.
fn usable(factory: &gst::ElementFactory, caps: &gst::Caps) -> Result<gst::Element, String> {
    let decoder = factory.create().build().map_err(|error| error.to_string())?;
    // What it says of its failure belongs to nobody: there is another one.
    let bus = gst::Bus::new();
    decoder.set_bus(Some(&bus));
    let ready = decoder.set_state(gst::State::Ready);
    let takes = decoder.static_pad("sink").is_some_and(|pad| pad.query_caps(None).can_intersect(caps));
    let verdict = match ready {
        Err(_) => {
            let said = bus.pop_filtered(&[gst::MessageType::Error]);
            let reason = said.as_ref().and_then(|message| match message.view() {
                gst::MessageView::Error(error) => Some(error.error().to_string()),
                _ => None,
            });
            Err(reason.unwrap_or_else(|| "its device could not be opened".into()))
        }
        Ok(_) if !takes => Err(format!("it does not take {caps}")),
        Ok(_) => Ok(()),
    };
    decoder.set_bus(None);
    if let Err(reason) = verdict {
        let _ = decoder.set_state(gst::State::Null);
        return Err(reason);
    }
    Ok(decoder)
}

/// One thread per camera: frame threads hold pictures back and cost memory, and cameras are parallel enough.
/// Strict compliance would hold back as many pictures as the stream might reorder; what is damaged or was joined
/// in the middle is not a picture to look for people in. No number of damaged pictures is a reason to give up: the
/// watchdog of the decoder is.
fn tune(decoder: &gst::Element) {
    for (property, value) in [
        ("max-threads", "1"),
        // What libvpx calls it.
        ("threads", "1"),
        ("thread-type", "slice"),
        ("std-compliance", "normal"),
        ("output-corrupt", "false"),
        ("qos", "false"),
        ("max-errors", "-1"),
    ] {
        if decoder.find_property(property).is_some() {
            decoder.set_property_from_str(property, value);
        }
    }
}

fn exists(names: &[&str]) -> Option<gst::ElementFactory> {
    names.iter().find_map(|name| gst::ElementFactory::find(name))
}

fn absent(asked: Hwaccel, codec: &str) -> CodecError {
    let nick = |value: Hwaccel| {
        glib::EnumValue::from_value(&value.to_value()).map_or_else(String::new, |(_, v)| v.nick().to_owned())
    };
    let mut present: Vec<_> = HARDWARE
        .into_iter()
        .filter(|family| KNOWN.iter().any(|codec| exists(codec.family(*family)).is_some()))
        .map(nick)
        .collect();
    present.push("none (software)".into());
    CodecError::Hardware { asked: nick(asked), codec: codec.to_owned(), present: present.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::sync::{LazyLock, Once};

    use gst::subclass::prelude::*;

    use super::*;

    /// A decoder whose device is there or not, with the name of a real one.
    macro_rules! fake {
        ($module:ident, $name:literal, $device:literal) => {
            mod $module {
                use super::*;

                #[derive(Debug, Default)]
                pub struct Fake;

                glib::wrapper! {
                    pub struct Decoder(ObjectSubclass<Fake>) @extends gst::Element, gst::Object;
                }

                #[glib::object_subclass]
                impl ObjectSubclass for Fake {
                    const NAME: &'static str = $name;
                    type Type = Decoder;
                    type ParentType = gst::Element;
                }

                impl ObjectImpl for Fake {
                    fn constructed(&self) {
                        self.parent_constructed();
                        for template in self.obj().pad_template_list() {
                            self.obj().add_pad(&gst::Pad::from_template(&template)).unwrap();
                        }
                    }
                }

                impl GstObjectImpl for Fake {}

                impl ElementImpl for Fake {
                    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
                        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                            gst::subclass::ElementMetadata::new(
                                "Fake decoder",
                                "Codec/Decoder/Video/Hardware",
                                "Stands for a real one",
                                "nobody",
                            )
                        });
                        Some(&METADATA)
                    }

                    fn pad_templates() -> &'static [gst::PadTemplate] {
                        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                            [
                                ("sink", gst::PadDirection::Sink, "video/x-h264"),
                                ("src", gst::PadDirection::Src, "video/x-raw"),
                            ]
                            .map(|(name, direction, caps)| {
                                let caps = gst::Caps::new_empty_simple(caps);
                                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps)
                                    .unwrap()
                            })
                            .into()
                        });
                        &TEMPLATES
                    }

                    fn change_state(
                        &self,
                        transition: gst::StateChange,
                    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
                        if transition == gst::StateChange::NullToReady && !$device {
                            gst::element_imp_error!(
                                self,
                                gst::ResourceError::OpenReadWrite,
                                ["no such device"]
                            );
                            return Err(gst::StateChangeError);
                        }
                        self.parent_change_state(transition)
                    }
                }
            }
        };
    }

    fake!(absent_device, "NvrTestAbsentDecoder", false);
    fake!(present_device, "NvrTestPresentDecoder", true);
    fake!(foreign_device, "NvrTestForeignDecoder", true);

    /// Real hardware of this machine would be a decoder more: the fakes have the highest ranks.
    fn init() {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(|| {
            gst::init().unwrap();
            for (name, rank, kind) in [
                ("vah264dec", 300, absent_device::Decoder::static_type()),
                ("foreignh264dec", 299, foreign_device::Decoder::static_type()),
                ("nvh264dec", 298, present_device::Decoder::static_type()),
            ] {
                let rank = gst::Rank::PRIMARY + rank;
                gst::Element::register(None, name, rank, kind).unwrap();
            }
        });
    }

    fn h264() -> gst::Caps {
        gst::Caps::builder("video/x-h264")
            .field("stream-format", "byte-stream")
            .field("alignment", "au")
            .build()
    }

    fn chosen(hwaccel: Hwaccel, avoid: bool) -> Option<(String, bool, bool)> {
        let chain = chain(&h264(), hwaccel, avoid).unwrap();
        let factory = chain.decoder.factory()?;
        let _ = chain.decoder.set_state(gst::State::Null);
        Some((factory.name().into(), chain.hardware, chain.parser.is_some()))
    }

    #[test]
    fn the_best_hardware_whose_device_is_there_is_taken() {
        init();
        assert_eq!(chosen(Hwaccel::Auto, false), Some(("foreignh264dec".into(), true, true)));
        assert_eq!(chosen(Hwaccel::Nvdec, false), Some(("nvh264dec".into(), true, true)));
    }

    #[test]
    fn hardware_that_failed_is_avoided_with_auto_alone() {
        init();
        for hwaccel in [Hwaccel::None, Hwaccel::Auto] {
            match chain(&h264(), hwaccel, true) {
                Ok(chain) => assert!(!chain.hardware),
                Err(error) => assert!(matches!(error, CodecError::Missing { .. }), "{error}"),
            }
        }
        assert_eq!(chosen(Hwaccel::Nvdec, true).map(|(name, ..)| name), Some("nvh264dec".into()));
    }

    #[test]
    fn keyframes_are_marked_by_the_depayloader_or_a_parser_or_by_nobody() {
        init();
        let caps = |text: &str| text.parse::<gst::Caps>().unwrap();
        assert!(matches!(keys(&caps("video/x-vp9")), Keys::Told));
        assert!(matches!(keys(&caps("video/x-nobody-knows")), Keys::Unknown));
        assert!(matches!(keys(&gst::Caps::new_any()), Keys::Unknown));
        if gst::ElementFactory::find("mpeg4videoparse").is_none() {
            eprintln!("skipped in part: mpeg4videoparse (gstreamer1.0-plugins-bad) is not installed");
            return;
        }
        let Keys::By(parser) = keys(&caps("video/mpeg, mpegversion=4, systemstream=false")) else { panic!() };
        assert_eq!(parser.factory().unwrap().name(), "mpeg4videoparse");
    }

    #[test]
    fn what_cannot_be_taken_is_named() {
        let text = missing("video/x-av1").to_string();
        assert!(text.contains("video/x-av1") && text.contains("plugins-bad"), "{text}");
        assert!(missing("").to_string().contains("unknown kind"));
        let text = no_depayloader("AV1\r\n\u{7f}");
        assert!(text.contains("video is AV1,") && text.contains("rtpav1depay"), "{text}");
        assert!(no_depayloader(&"x".repeat(10_000)).len() < 300);
    }

    #[test]
    fn what_was_asked_for_and_cannot_be_had_is_an_error_that_says_what_can() {
        init();
        let text = chain(&h264(), Hwaccel::Va, false).unwrap_err().to_string();
        assert!(text.contains("hwaccel=va") && text.contains("nvdec") && text.contains("software"), "{text}");
        assert!(check(Hwaccel::Nvdec).is_ok());
    }
}
