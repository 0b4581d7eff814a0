//! From an address to media: what is asked of a camera until it plays, and what its description says.

use std::time::Duration;

use gst::glib;
use gst_sdp::{SDPMediaRef, SDPMessage};
use nvr_core::{access_unit::Assembler, interleaved, nal::Codec, rtsp};
use url::Url;

use super::{
    Trouble,
    camera::{Form, Track},
    talk::{Stop, Talk},
};
use crate::nvrsrc::{address::Remote, sources::depayloader};

const PORT: u16 = 554;

/// What a camera has agreed to.
pub struct Agreed {
    pub tracks: Vec<Track>,
    /// Whether it knows GET_PARAMETER, which is the usual way to say that one is still there.
    pub parameters: bool,
    /// Seconds for which it remembers a session of which it hears nothing.
    pub timeout: u32,
}

/// What is to be asked of a camera.
struct Wanted<'a> {
    media: &'a SDPMediaRef,
    caps: gst::Caps,
    kind: u8,
    rate: u32,
    form: Form,
    video: bool,
}

pub fn connect(remote: &Remote, patience: Duration, stop: &Stop) -> Result<Talk, Trouble> {
    let odd = |text: &str| text.chars().any(|letter| letter.is_control() || letter == ' ');
    let control =
        |text: &Option<String>| text.as_ref().is_some_and(|text| text.chars().any(char::is_control));
    if odd(&remote.uri) || control(&remote.user) || control(&remote.password) {
        return Err(Trouble::Beyond("spaces or control characters in the address".into()));
    }
    let url = Url::parse(&remote.uri).map_err(|error| Trouble::Beyond(error.to_string()))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let user = remote.user.clone().map(|user| (user, remote.password.clone().unwrap_or_default()));
    Talk::connect(&host, url.port().unwrap_or(PORT), user, patience, stop)
}

/// Asks for the description, agrees on channels, and has the streams sent. `uri` becomes the address of them all.
pub fn begin(talk: &mut Talk, uri: &mut String, audio: bool, stop: &Stop) -> Result<Agreed, Trouble> {
    // What it can do is good to know; a camera that does not say so need not.
    let parameters = match talk.ask("OPTIONS", uri, &[], stop) {
        Ok(answer) => answer.public.is_some_and(|methods| methods.contains("GET_PARAMETER")),
        Err(Trouble::Status(..)) => false,
        Err(trouble) => return Err(trouble),
    };
    let described = talk.ask("DESCRIBE", uri, &[("Accept", "application/sdp")], stop)?;
    let sdp = SDPMessage::parse_buffer(&described.body)
        .map_err(|_| Trouble::Lost("the camera's description of its streams cannot be read".into()))?;
    let base =
        described.base.filter(|base| is_clean(base) && base.contains("://")).unwrap_or_else(|| uri.clone());
    let wanted = choose(&sdp, audio)?;
    let (mut tracks, mut timeout) = (Vec::<Track>::new(), None);
    for wish in wanted {
        let control = resolve(&base, wish.media.attribute_val("control"))?;
        let first = 2 * tracks.len() as u8;
        let transport = format!("RTP/AVP/TCP;unicast;interleaved={first}-{}", first + 1);
        let answer = match talk.ask("SETUP", &control, &[("Transport", &transport)], stop) {
            // Sound that is not to be had costs no picture.
            Err(Trouble::Status(..)) if !wish.video => continue,
            // The stream was announced, so its address is meant in another way. `rtspsrc` tries more than this one.
            Err(Trouble::Status(404, text)) => return Err(Trouble::Beyond(text)),
            answer => answer?,
        };
        if let Some((name, seconds)) = answer.session.as_deref().and_then(rtsp::session) {
            talk.session.get_or_insert_with(|| name.to_owned());
            timeout = timeout.or(Some(seconds));
        }
        let agreed = match answer.transport.as_deref() {
            Some(transport) => rtsp::channels(transport)
                .ok_or_else(|| Trouble::Beyond("the camera does not send over the connection".into()))?,
            None => (first, first + 1),
        };
        if tracks.iter().any(|track| [track.channel, track.reports].contains(&agreed.0)) {
            return Err(Trouble::Lost("the camera gives one channel to two streams".into()));
        }
        tracks.push(Track::new(agreed, wish.kind, wish.rate, wish.caps, wish.form));
    }
    *uri = resolve(&base, sdp.attribute_val("control"))?;
    // A live camera says so, and takes the beginning for a place to go back to.
    let live = sdp.medias().map(|media| media.attribute_val("range")).chain([sdp.attribute_val("range")]);
    let live = live.flatten().any(|range| range.starts_with("npt=now"));
    talk.ask("PLAY", uri, &[("Range", if live { "npt=now-" } else { "npt=0.000-" })], stop)?;
    Ok(Agreed { tracks, parameters, timeout: timeout.unwrap_or(rtsp::SESSION) })
}

fn is_clean(text: &str) -> bool {
    !text.chars().any(|letter| letter.is_control() || letter == ' ')
}

/// The address that a `control` attribute gives a stream.
fn resolve(base: &str, control: Option<&str>) -> Result<String, Trouble> {
    let control = control.filter(|control| !control.is_empty() && *control != "*");
    let Some(control) = control else { return Ok(base.to_owned()) };
    if !is_clean(control) {
        return Err(Trouble::Lost("the camera gives a stream an address that is none".into()));
    }
    if control.to_ascii_lowercase().starts_with("rtsp:") {
        return Ok(control.to_owned());
    }
    if !base.to_ascii_lowercase().starts_with("rtsp:") {
        return Err(Trouble::Lost("the camera gives its streams an address that is none".into()));
    }
    // As servers mean it, which is not always what resolving a relative address would give: behind the whole base, also
    // where that ends with no slash, or in a query.
    Ok(format!("{}/{}", base.trim_end_matches('/'), control.trim_start_matches('/')))
}

/// The first video that can be taken, and the first sound where that is wanted, as with `rtspsrc`.
fn choose(sdp: &SDPMessage, audio: bool) -> Result<Vec<Wanted<'_>>, Trouble> {
    let mut wanted = Vec::new();
    for kind in ["video", "audio"] {
        if kind == "audio" && !audio {
            continue;
        }
        let streams = sdp.medias().filter(|media| media.media() == Some(kind));
        let mut found = streams.filter_map(|media| stream(media).map(|(caps, number)| (media, caps, number)));
        let Some((media, caps, number)) = found.next() else { continue };
        let Some(structure) = caps.structure(0) else { continue };
        if !media.proto().is_some_and(|proto| proto.starts_with("RTP/AVP")) {
            return Err(Trouble::Beyond("media that are encrypted or not RTP".into()));
        }
        let rate = structure.get::<i32>("clock-rate").ok().and_then(|rate| u32::try_from(rate).ok());
        let rate = rate
            .filter(|rate| *rate > 0)
            .ok_or_else(|| Trouble::Beyond("a stream without a clock".into()))?;
        let video = kind == "video";
        let units = if video { units(structure) } else { None };
        let (caps, form) = units.unwrap_or_else(|| (caps.clone(), Form::Packets));
        wanted.push(Wanted { media, caps, kind: number, rate, form, video });
    }
    if wanted.first().is_none_or(|wish| !wish.video) {
        return Err(Trouble::Beyond("no video in it that can be taken out of RTP here".into()));
    }
    Ok(wanted)
}

/// Caps and payload type of a stream that something here can take out of RTP.
fn stream(media: &SDPMediaRef) -> Option<(gst::Caps, u8)> {
    let number = media.format(0)?.parse::<u8>().ok().filter(|number| *number < 128)?;
    let mut caps = media.caps_from_media(number.into())?;
    caps.make_mut().structure_mut(0)?.set_name("application/x-rtp");
    depayloader(caps.structure(0)?)?;
    Some((caps, number))
}

/// H.264 and H.265 are put together here; the rest is left to depayloaders.
fn units(rtp: &gst::StructureRef) -> Option<(gst::Caps, Form)> {
    let encoding = rtp.get::<&str>("encoding-name").unwrap_or_default().to_ascii_uppercase();
    let (codec, name, fields) = match encoding.as_str() {
        "H264" => (Codec::H264, "video/x-h264", &["sprop-parameter-sets"][..]),
        "H265" => (Codec::H265, "video/x-h265", &["sprop-vps", "sprop-sps", "sprop-pps"][..]),
        _ => return None,
    };
    let number = |field: &str| rtp.get::<&str>(field).ok().and_then(|text| text.parse::<u32>().ok());
    // Packets in an order of their own.
    if number("packetization-mode") == Some(2) || number("sprop-max-don-diff").is_some_and(|most| most > 0) {
        return None;
    }
    let sets: Vec<Vec<u8>> = fields
        .iter()
        .filter_map(|field| rtp.get::<&str>(*field).ok())
        .flat_map(|list| list.split(','))
        .filter(|set| set.len() <= interleaved::MESSAGE && !set.trim().is_empty())
        .map(|set| glib::base64_decode(set.trim()))
        .collect();
    let caps =
        gst::Caps::builder(name).field("stream-format", "byte-stream").field("alignment", "au").build();
    Some((caps, Form::Units(Assembler::new(codec, sets.iter().map(Vec::as_slice)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_streams() {
        gst::init().unwrap();
        for (base, control, expected) in [
            ("rtsp://cam/live", None, Some("rtsp://cam/live")),
            ("rtsp://cam/live/", Some("*"), Some("rtsp://cam/live/")),
            ("rtsp://cam:8554/live", Some("track1"), Some("rtsp://cam:8554/live/track1")),
            ("rtsp://cam/live/", Some("trackID=1"), Some("rtsp://cam/live/trackID=1")),
            ("rtsp://cam/live", Some("rtsp://cam/live/track1"), Some("rtsp://cam/live/track1")),
            ("rtsp://cam/live?profile=1", Some("track1"), Some("rtsp://cam/live?profile=1/track1")),
            ("rtsp://cam/live?profile=1/", Some("track1"), Some("rtsp://cam/live?profile=1/track1")),
            ("rtsp://cam/live", Some("/track1"), Some("rtsp://cam/live/track1")),
            ("rtsp://cam/live", Some("a b"), None),
            ("http://cam/live", Some("a"), None),
        ] {
            assert_eq!(resolve(base, control).ok().as_deref(), expected, "{base} {control:?}");
        }
    }

    fn chosen(media: &str, audio: bool) -> Result<Vec<(u8, u32, bool)>, String> {
        gst::init().unwrap();
        let sdp = format!("v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=s\r\nt=0 0\r\n{media}");
        let sdp = SDPMessage::parse_buffer(sdp.as_bytes()).unwrap();
        match choose(&sdp, audio) {
            Ok(wanted) => Ok(wanted.iter().map(|wish| (wish.kind, wish.rate, wish.video)).collect()),
            Err(Trouble::Beyond(reason)) => Err(reason),
            Err(trouble) => panic!("{trouble:?}"),
        }
    }

    #[test]
    fn streams_are_chosen() {
        const H264: &str = "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n";
        const H265: &str = "m=video 0 RTP/AVP 98\r\na=rtpmap:98 H265/90000\r\n";
        const PCMA: &str = "m=audio 0 RTP/AVP 8\r\n";
        const ODD: &str = "m=audio 0 RTP/AVP 97\r\na=rtpmap:97 X-Whistle/8000\r\n";
        let (video, audio) = ((96, 90_000, true), (8, 8000, false));
        for (media, with, expected) in [
            (vec![H264, H265, PCMA], false, Ok(vec![video])),
            (vec![PCMA, H264], true, Ok(vec![video, audio])),
            (vec![H265], true, Ok(vec![(98, 90_000, true)])),
            (vec![H264, ODD, PCMA], true, Ok(vec![video, audio])),
            (vec![H264, ODD], true, Ok(vec![video])),
            (vec![PCMA], true, Err("no video")),
            (vec!["m=video 0 RTP/AVP 26\r\n"], true, Ok(vec![(26, 90_000, true)])),
            (vec!["m=video 0 RTP/SAVP 96\r\na=rtpmap:96 H264/90000\r\n"], true, Err("encrypted")),
            (vec![H264, "a=fmtp:96 packetization-mode=2\r\n"], true, Ok(vec![video])),
            (vec!["m=video 0 RTP/AVP 400\r\n"], true, Err("no video")),
        ] {
            match (chosen(&media.concat(), with), expected) {
                (Err(reason), Err(part)) => assert!(reason.contains(part), "{media:?}: {reason}"),
                (found, expected) => assert_eq!(found, expected.map_err(str::to_owned), "{media:?}"),
            }
        }
    }
}
