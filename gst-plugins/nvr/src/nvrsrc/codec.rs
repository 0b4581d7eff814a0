//! Which elements turn a compressed stream into pictures on this machine.

use gst::{glib, prelude::*};

use super::Hwaccel;

/// Decoders of one codec, best first within a family.
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
    #[error("no decoder for {codec} is installed; for H.264 and H.265 install gstreamer1.0-libav")]
    Missing { codec: String },
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
    let Some(known) = KNOWN.iter().find(|codec| codec.caps == name) else {
        return generic(caps, &name);
    };
    let families: &[Hwaccel] = match hwaccel {
        Hwaccel::Auto if avoid_hardware => &[Hwaccel::None],
        Hwaccel::Auto => &[Hwaccel::Va, Hwaccel::Nvdec, Hwaccel::V4l2, Hwaccel::None],
        Hwaccel::None => &[Hwaccel::None],
        Hwaccel::Va => &[Hwaccel::Va],
        Hwaccel::Nvdec => &[Hwaccel::Nvdec],
        Hwaccel::V4l2 => &[Hwaccel::V4l2],
    };
    for family in families {
        let Some(factory) = exists(known.family(*family)) else { continue };
        let decoder = factory.create().build()?;
        let libav = factory.name().starts_with("avdec_");
        if libav {
            tune_libav(&decoder);
        }
        let hardware = HARDWARE.contains(family);
        // libav reads access units as they come; others want to know profile and size beforehand.
        let parser = if libav || name == "image/jpeg" {
            None
        } else {
            Some(gst::ElementFactory::make(known.parser).build()?)
        };
        return Ok(Chain { parser, decoder, hardware });
    }
    if HARDWARE.contains(&hwaccel) {
        return Err(absent(hwaccel, &name));
    }
    Err(CodecError::Missing { codec: name })
}

/// Any decoder that the registry has for a codec that cameras seldom speak.
fn generic(caps: &gst::Caps, name: &str) -> Result<Chain, CodecError> {
    let kind = gst::ElementFactoryType::DECODER | gst::ElementFactoryType::MEDIA_VIDEO;
    let factory =
        gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL).into_iter().find(|factory| {
            factory.can_sink_any_caps(caps) && !factory.has_type(gst::ElementFactoryType::HARDWARE)
        });
    let Some(factory) = factory else { return Err(CodecError::Missing { codec: name.to_owned() }) };
    let decoder = factory.create().build()?;
    if factory.name().starts_with("avdec_") {
        tune_libav(&decoder);
    }
    Ok(Chain { parser: None, decoder, hardware: false })
}

/// One thread per camera: frame threads hold pictures back and cost memory, and cameras are parallel enough.
/// Strict compliance would hold back as many pictures as the stream might reorder; what is damaged or was joined
/// in the middle is not a picture to look for people in. Pictures that libav decodes in place stay locked while others
/// refer to them, and whoever stamps one then copies it into new memory: copied into the pool's is cheaper.
fn tune_libav(decoder: &gst::Element) {
    for (property, value) in [
        ("max-threads", "1"),
        ("thread-type", "slice"),
        ("std-compliance", "normal"),
        ("output-corrupt", "false"),
        ("qos", "false"),
        ("direct-rendering", "false"),
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
