//! What a file's track is for a stream's caps.

use nvr_core::segment::mp4::{Medium, Track, VIDEO_TIMESCALE, aac_entry, opus_entry, video_entry};

pub const VIDEO: u32 = 1;
pub const AUDIO: u32 = 2;

/// What is recorded of one stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recorded {
    pub track: Track,
    /// Name for people and the catalogue.
    pub codec: &'static str,
    /// How long a unit lasts where nothing says.
    pub usual_ns: i64,
}

impl Recorded {
    /// Whether units of the two can be in one file.
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.track, self.codec) == (&other.track, other.codec)
    }
}

fn config(s: &gst::StructureRef) -> Option<Vec<u8>> {
    let buffer = s.get::<gst::Buffer>("codec_data").ok()?;
    let map = buffer.map_readable().ok()?;
    Some(map.to_vec())
}

/// The video track for `caps`; `None` where they lack what a file needs.
pub fn video(caps: &gst::Caps) -> Option<Recorded> {
    let s = caps.structure(0)?;
    let size = |name| s.get::<i32>(name).ok().and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
    let (width, height) = (size("width"), size("height"));
    let (format, config_box, codec) = match (s.name().as_str(), s.get::<&str>("stream-format").ok()?) {
        ("video/x-h264", "avc") => (b"avc1", b"avcC", "h264"),
        ("video/x-h264", "avc3") => (b"avc3", b"avcC", "h264"),
        ("video/x-h265", "hvc1") => (b"hvc1", b"hvcC", "h265"),
        ("video/x-h265", "hev1") => (b"hev1", b"hvcC", "h265"),
        _ => return None,
    };
    let entry = video_entry(format, config_box, &config(s)?, width, height);
    let fps = s.get::<gst::Fraction>("framerate").ok().filter(|fps| fps.numer() > 0 && fps.denom() > 0);
    let usual_ns =
        fps.map_or(40_000_000, |fps| 1_000_000_000 * i64::from(fps.denom()) / i64::from(fps.numer()));
    let track = Track { id: VIDEO, medium: Medium::Video, timescale: VIDEO_TIMESCALE, width, height, entry };
    Some(Recorded { track, codec, usual_ns: usual_ns.min(1_000_000_000) })
}

/// The audio track for `caps`; `None` where MP4 does not hold such audio.
pub fn audio(caps: &gst::Caps) -> Option<Recorded> {
    let s = caps.structure(0)?;
    let number = |name| s.get::<i32>(name).ok().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    let channels = number("channels").unwrap_or(1).min(8) as u16;
    let (timescale, entry, codec, frame) = match s.name().as_str() {
        "audio/mpeg" if s.get("mpegversion") == Ok(4) && s.get("stream-format") == Ok("raw") => {
            let rate = number("rate")?;
            (rate, aac_entry(&config(s)?, channels, rate), "aac", 1024)
        }
        "audio/x-opus" if channels <= 2 => {
            let entry = opus_entry(channels as u8, 0, number("rate").unwrap_or(48_000));
            (48_000, entry, "opus", 960)
        }
        _ => return None,
    };
    let track = Track { id: AUDIO, medium: Medium::Audio, timescale, width: 0, height: 0, entry };
    Some(Recorded { track, codec, usual_ns: 1_000_000_000 * frame / i64::from(timescale) })
}
