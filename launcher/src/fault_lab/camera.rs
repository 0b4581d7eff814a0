//! The cameras of the lab: what they encode, and how that is written.

use std::{fmt, str::FromStr};

use super::fault::ParseError;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Codec {
    #[default]
    H264,
    H265,
    Mjpeg,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Audio {
    #[default]
    None,
    Aac,
    /// G.711 A-law.
    Pcma,
    /// G.711 µ-law.
    Pcmu,
    Opus,
}

/// A camera that draws the built-in scene and encodes it as real ones do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Spec {
    pub codec: Codec,
    pub width: u32,
    pub height: u32,
    pub fps: u32,
    /// Frames from one keyframe to the next.
    pub gop: u32,
    pub b_frames: u32,
    pub audio: Audio,
    /// kbit/s.
    pub bitrate: u32,
    /// Decides what is seen.
    pub seed: u64,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            codec: Codec::H264,
            width: 640,
            height: 360,
            fps: 15,
            gop: 30,
            b_frames: 0,
            audio: Audio::None,
            bitrate: 1000,
            seed: 0,
        }
    }
}

/// How a camera is written, for `--help`.
pub const USAGE: &str = "h264|h265|mjpeg, WIDTHxHEIGHT, fps=N, gop=FRAMES, b-frames=N, bitrate=KBIT, audio=aac|pcma|pcmu|opus|none, seed=N";

const CODECS: [(&str, Codec); 3] = [("h264", Codec::H264), ("h265", Codec::H265), ("mjpeg", Codec::Mjpeg)];
const AUDIO: [(&str, Audio); 5] = [
    ("none", Audio::None),
    ("aac", Audio::Aac),
    ("pcma", Audio::Pcma),
    ("pcmu", Audio::Pcmu),
    ("opus", Audio::Opus),
];

impl FromStr for Spec {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut spec = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || ParseError(format!("{part:?} says nothing about a camera; it is made of {USAGE}"));
            let number = |value: &str, min: u32, max: u32| {
                let number = value.parse().ok().filter(|number| (min..=max).contains(number));
                number.ok_or_else(|| ParseError(format!("{part:?} is out of range, which is {min} to {max}")))
            };
            if let Some((_, codec)) = CODECS.iter().find(|(name, _)| *name == part) {
                spec.codec = *codec;
            } else if let Some((key, value)) = part.split_once('=') {
                match key {
                    "fps" => spec.fps = number(value, 1, 120)?,
                    "gop" => spec.gop = number(value, 1, 10_000)?,
                    "b-frames" => spec.b_frames = number(value, 0, 4)?,
                    "bitrate" => spec.bitrate = number(value, 16, 100_000)?,
                    "seed" => spec.seed = value.parse().map_err(|_| wrong())?,
                    "audio" => {
                        spec.audio = AUDIO.iter().find(|(name, _)| *name == value).ok_or_else(wrong)?.1;
                    }
                    _ => return Err(wrong()),
                }
            } else if let Some((width, height)) = part.split_once('x') {
                (spec.width, spec.height) = (number(width, 32, 4096)?, number(height, 32, 4096)?);
                if spec.width % 2 + spec.height % 2 > 0 {
                    return Err(ParseError(format!("{part:?} is no even size")));
                }
            } else {
                return Err(wrong());
            }
        }
        Ok(spec)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codec = CODECS.iter().find(|(_, codec)| *codec == self.codec).map_or("", |(name, _)| name);
        let audio = AUDIO.iter().find(|(_, audio)| *audio == self.audio).map_or("", |(name, _)| name);
        let Self { width, height, fps, gop, b_frames, bitrate, seed, .. } = self;
        write!(
            f,
            "{codec},{width}x{height},fps={fps},gop={gop},b-frames={b_frames},bitrate={bitrate},audio={audio},seed={seed}"
        )
    }
}

/// Name of the element whose caps decide on the size of the picture.
pub const SIZE: &str = "size";

impl Spec {
    /// A launch line for the RTSP server.
    ///
    /// # Errors
    /// An encoder that is not installed.
    pub fn launch(&self) -> Result<String, String> {
        let Self { width, height, fps, gop, b_frames, bitrate, seed, .. } = self;
        // Without B-frames pictures leave at once, as they do from a camera.
        let tune = if *b_frames == 0 { "tune=zerolatency" } else { "" };
        let video = match self.codec {
            Codec::H264 => format!(
                "{} {tune} speed-preset=ultrafast threads=1 key-int-max={gop} bframes={b_frames} b-adapt=false \
                 bitrate={bitrate} option-string=scenecut=0 ! rtph264pay name=pay0 pt=96 config-interval=-1",
                encoder("x264enc", "gstreamer1.0-plugins-ugly")?
            ),
            Codec::H265 => format!(
                "{} {tune} speed-preset=ultrafast key-int-max={gop} bitrate={bitrate} \
                 option-string=bframes={b_frames}:scenecut=0:pools=1:frame-threads=1:log-level=1 \
                 ! h265parse ! rtph265pay name=pay0 pt=96 config-interval=-1",
                encoder("x265enc", "gstreamer1.0-plugins-bad")?
            ),
            Codec::Mjpeg => {
                format!("{} ! rtpjpegpay name=pay0 pt=26", encoder("jpegenc", "gstreamer1.0-plugins-good")?)
            }
        };
        let audio = match self.audio {
            Audio::None => None,
            Audio::Aac => {
                Some((encoder("avenc_aac", "gstreamer1.0-libav")?, "aacparse ! rtpmp4gpay", 44_100, 97))
            }
            Audio::Pcma => Some((encoder("alawenc", "gstreamer1.0-plugins-good")?, "rtppcmapay", 8000, 8)),
            Audio::Pcmu => Some((encoder("mulawenc", "gstreamer1.0-plugins-good")?, "rtppcmupay", 8000, 0)),
            Audio::Opus => Some((encoder("opusenc", "gstreamer1.0-plugins-base")?, "rtpopuspay", 48_000, 97)),
        };
        let audio = audio.map_or_else(String::new, |(encoder, payloader, rate, kind)| {
            format!(
                " audiotestsrc is-live=true wave=ticks ! audioconvert ! audioresample ! audio/x-raw,rate={rate},channels=1 \
                 ! {encoder} ! {payloader} name=pay1 pt={kind}"
            )
        });
        Ok(format!(
            "( nvrtestsrc seed={seed} ground-truth=false ! video/x-raw,width={width},height={height},framerate={fps}/1 \
             ! videoscale ! capsfilter name={SIZE} \
             ! queue max-size-buffers=2 max-size-bytes=0 max-size-time=0 ! {video}{audio} )"
        ))
    }
}

fn encoder(name: &'static str, package: &str) -> Result<&'static str, String> {
    let found = gst::ElementFactory::find(name).map(|_| name);
    found.ok_or_else(|| format!("{name} is needed for this camera; it is in the package {package}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cameras_as_they_are_written() {
        assert_eq!("".parse(), Ok(Spec::default()));
        let spec: Spec =
            "h265, 1280x720,fps=25,gop=250,b-frames=2,audio=opus,seed=7,bitrate=2000".parse().unwrap();
        let expected = Spec {
            codec: Codec::H265,
            width: 1280,
            height: 720,
            fps: 25,
            gop: 250,
            b_frames: 2,
            audio: Audio::Opus,
            bitrate: 2000,
            seed: 7,
        };
        assert_eq!(spec, expected);
        assert_eq!(spec.to_string().parse(), Ok(expected));
        for (text, part) in [
            ("h266", "it is made of h264|h265|mjpeg"),
            ("fps=0", "1 to 120"),
            ("641x360", "no even size"),
            ("audio=mp3", "audio=aac"),
            ("gop=x", "out of range"),
        ] {
            let error = text.parse::<Spec>().unwrap_err().0;
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}", parts in prop::collection::vec("[a-z-]{2,8}=?[0-9x]{0,6}", 0..5)) {
            let _ = text.parse::<Spec>();
            let _ = parts.join(",").parse::<Spec>();
        }
    }
}
