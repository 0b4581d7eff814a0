//! What can be done to a camera, and how that is written. Pure.

use std::{fmt, str::FromStr, time::Duration};

/// One misbehaviour.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Connections stay open and new ones are accepted, and nothing passes in either direction.
    Stall,
    /// RTSP is answered, and no media comes; with a kind only that kind is missing.
    Mute(Option<Media>),
    /// Connections are reset, and so is every new one.
    Off,
    /// Connections are closed in order (FIN).
    Cut,
    /// Connections are reset (RST).
    Reset,
    /// Everything from the camera arrives later.
    Delay(Duration),
    /// The line carries no more than this from the camera, kbit/s.
    Throttle(u32),
    /// This share of the RTP packets is lost, percent.
    Drop(f64),
    /// In this share of the RTP packets one byte of the payload is wrong, percent.
    Corrupt(f64),
    /// The clock that RTP timestamps are made from jumps, seconds.
    Jump(f64),
    /// RTP timestamps wrap around two seconds from now.
    Wrap,
    /// The time of day in sender reports jumps, seconds.
    Step(f64),
    /// The camera's clock runs too fast, or too slow where negative; parts per million.
    Drift(f64),
    /// `DESCRIBE`, `SETUP` and `PLAY` are answered with this status.
    Answer(u16),
    /// The camera forgets its sessions: no media, and 454 to whatever names one.
    Forget,
    /// `DESCRIBE` is answered with a description that is wrong in this way.
    Sdp(Sdp),
    /// `DESCRIBE` is answered with headers that never end.
    Headers,
    /// Connections are reset, and from now on this password is asked for; `None` asks for none.
    Password(Option<Secret>),
    /// The same, by Digest authentication, which shows nobody the password.
    Digest(Secret),
    /// The camera's picture takes another size; its stream goes on with new parameter sets.
    Resize(u32, u32),
    /// Every fault of the camera ends.
    Clear,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Media {
    Video,
    Audio,
}

/// How a session description is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sdp {
    Empty,
    /// Bytes that are no text.
    Garbage,
    /// The first half of the right one.
    Truncated,
    /// A megabyte of attributes.
    Huge,
    /// Parameter sets that are none, and numbers out of range.
    Parameters,
}

/// A password, which no log shows.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A fault and how long it lasts; without an end until it is cleared. Some are over at once and last no time.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub fault: Fault,
    pub lasts: Option<Duration>,
}

/// How a fault is written and what it does, for help and documentation.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    /// What follows the name, without the duration.
    pub argument: &'static str,
    /// Takes a duration.
    pub lasts: bool,
    pub help: &'static str,
}

impl Kind {
    /// `drop PERCENT [FOR]`
    pub fn usage(&self) -> String {
        let mut usage = self.name.to_owned();
        for part in [self.argument, if self.lasts { "[FOR]" } else { "" }] {
            if !part.is_empty() {
                usage = format!("{usage} {part}");
            }
        }
        usage
    }
}

const fn kind(name: &'static str, argument: &'static str, lasts: bool, help: &'static str) -> Kind {
    Kind { name, argument, lasts, help }
}

/// Every fault, in the order of the help.
pub const KINDS: [Kind; 21] = [
    kind(
        "stall",
        "",
        true,
        "nothing passes while connections stay open; new ones are accepted and never answered",
    ),
    kind("mute", "[video|audio]", true, "RTSP is answered, but no media comes"),
    kind(
        "off",
        "",
        true,
        "connections are reset, and so is every new one: the camera restarts or is unplugged",
    ),
    kind("cut", "", false, "connections are closed in order (FIN)"),
    kind("reset", "", false, "connections are reset (RST)"),
    kind("delay", "TIME", true, "everything from the camera arrives later"),
    kind("throttle", "KBIT", true, "the line carries no more than KBIT kbit/s"),
    kind("drop", "PERCENT", true, "that share of the RTP packets is lost"),
    kind("corrupt", "PERCENT", true, "that share of the RTP packets has a wrong byte"),
    kind("jump", "TIME", false, "RTP timestamps jump, forwards or (-90s) backwards"),
    kind("wrap", "", false, "RTP timestamps wrap around two seconds from now"),
    kind("step", "TIME", false, "the camera's time of day jumps, as after a change of its clock"),
    kind("drift", "PPM", true, "the camera's clock runs fast, or (-200) slow, by parts per million"),
    kind("answer", "STATUS", true, "DESCRIBE, SETUP and PLAY are answered with 401, 404, 453, 503 …"),
    kind("forget", "", false, "the camera forgets its sessions: no media, and 454 to whoever names one"),
    kind(
        "sdp",
        "KIND",
        true,
        "DESCRIBE brings a wrong description: empty, garbage, truncated, huge, parameters",
    ),
    kind("headers", "", true, "DESCRIBE brings headers that never end"),
    kind(
        "password",
        "[PASSWORD]",
        false,
        "connections are reset; user viewer and this password are asked for, or none",
    ),
    kind("digest", "PASSWORD", false, "the same with Digest authentication, in place of Basic"),
    kind("resize", "WIDTHxHEIGHT", false, "the picture takes another size within the stream"),
    kind("clear", "", false, "every fault of the camera ends"),
];

impl Fault {
    /// Whether the fault is a state with an end, and not over at once.
    pub fn is_lasting(&self) -> bool {
        self.kind().lasts
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Stall => "stall",
            Self::Mute(_) => "mute",
            Self::Off => "off",
            Self::Cut => "cut",
            Self::Reset => "reset",
            Self::Delay(_) => "delay",
            Self::Throttle(_) => "throttle",
            Self::Drop(_) => "drop",
            Self::Corrupt(_) => "corrupt",
            Self::Jump(_) => "jump",
            Self::Wrap => "wrap",
            Self::Step(_) => "step",
            Self::Drift(_) => "drift",
            Self::Answer(_) => "answer",
            Self::Forget => "forget",
            Self::Sdp(_) => "sdp",
            Self::Headers => "headers",
            Self::Password(_) => "password",
            Self::Digest(_) => "digest",
            Self::Resize(..) => "resize",
            Self::Clear => "clear",
        }
    }

    fn kind(&self) -> &'static Kind {
        let name = self.name();
        KINDS.iter().find(|kind| kind.name == name).unwrap_or(&KINDS[0])
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Mute(Some(Media::Video)) => f.write_str(" video"),
            Self::Mute(Some(Media::Audio)) => f.write_str(" audio"),
            Self::Delay(by) => write!(f, " {}", Time(by.as_secs_f64())),
            Self::Jump(by) | Self::Step(by) => write!(f, " {}", Time(*by)),
            Self::Throttle(kbit) => write!(f, " {kbit}"),
            Self::Drop(percent) | Self::Corrupt(percent) => write!(f, " {percent}"),
            Self::Drift(ppm) => write!(f, " {ppm}"),
            Self::Answer(status) => write!(f, " {status}"),
            Self::Sdp(kind) => {
                write!(f, " {}", SDP_KINDS.iter().find(|(_, k)| k == kind).map_or("", |(n, _)| n))
            }
            Self::Password(Some(_)) | Self::Digest(_) => f.write_str(" ***"),
            Self::Resize(width, height) => write!(f, " {width}x{height}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.fault)?;
        self.lasts.map_or(Ok(()), |lasts| write!(f, " {}", Time(lasts.as_secs_f64())))
    }
}

const SDP_KINDS: [(&str, Sdp); 5] = [
    ("empty", Sdp::Empty),
    ("garbage", Sdp::Garbage),
    ("truncated", Sdp::Truncated),
    ("huge", Sdp::Huge),
    ("parameters", Sdp::Parameters),
];

/// Why a fault, a time or a line is not one.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

fn wrong<T>(text: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError(text.into()))
}

impl FromStr for Order {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut words = text.split_whitespace();
        let Some(name) = words.next() else { return wrong("no fault is named") };
        let Some(kind) = KINDS.iter().find(|kind| kind.name.eq_ignore_ascii_case(name)) else {
            let hint = crate::diagnostics::hint(name, KINDS.map(|kind| kind.name));
            return wrong(format!("{name:?} is no fault{hint}; see --help"));
        };
        let mut words = words.peekable();
        let mut argument = None;
        if kind.argument.starts_with('[') {
            // A duration may stand where the argument is left out.
            let optional = |word: &&str| kind.name == "password" || parse_time(word).is_err();
            argument = words.next_if(optional);
        } else if !kind.argument.is_empty() {
            argument = words.next();
            if argument.is_none() {
                return wrong(format!("{name} needs {}: {}", kind.argument, kind.usage()));
            }
        }
        let fault = fault(kind, argument)?;
        let mut lasts = None;
        if kind.lasts
            && let Some(word) = words.next()
        {
            lasts = Some(duration(word)?);
        }
        match words.next() {
            Some(word) => wrong(format!("{word:?} is too much; it is written {}", kind.usage())),
            None => Ok(Self { fault, lasts }),
        }
    }
}

fn fault(kind: &Kind, argument: Option<&str>) -> Result<Fault, ParseError> {
    let text = argument.unwrap_or_default();
    let expected = |what: &str| ParseError(format!("{} takes {what}, not {text:?}", kind.name));
    let number = |min: f64, max: f64, what: &str| {
        let text = text.trim_end_matches('%');
        let number = text.parse::<f64>().ok().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| expected(what))
    };
    Ok(match kind.name {
        "stall" => Fault::Stall,
        "mute" => Fault::Mute(match argument {
            None => None,
            Some("video") => Some(Media::Video),
            Some("audio") => Some(Media::Audio),
            Some(_) => return Err(expected("video or audio")),
        }),
        "off" => Fault::Off,
        "cut" => Fault::Cut,
        "reset" => Fault::Reset,
        "delay" => Fault::Delay(duration(text)?),
        "throttle" => Fault::Throttle(number(1.0, 1e6, "kbit/s from 1 to 1000000")? as u32),
        "drop" => Fault::Drop(number(0.0, 100.0, "a number from 0 to 100")?),
        "corrupt" => Fault::Corrupt(number(0.0, 100.0, "a number from 0 to 100")?),
        "jump" => Fault::Jump(parse_time(text)?),
        "wrap" => Fault::Wrap,
        "step" => Fault::Step(parse_time(text)?),
        "drift" => Fault::Drift(number(-1e5, 1e5, "parts per million from -100000 to 100000")?),
        "answer" => Fault::Answer(number(300.0, 599.0, "an RTSP status from 300 to 599")? as u16),
        "forget" => Fault::Forget,
        "sdp" => {
            let found = SDP_KINDS.iter().find(|(name, _)| *name == text);
            let names = || expected(&SDP_KINDS.map(|(name, _)| name).join(", "));
            Fault::Sdp(found.ok_or_else(names)?.1)
        }
        "headers" => Fault::Headers,
        "password" => Fault::Password(argument.map(|text| Secret(text.to_owned()))),
        "digest" => Fault::Digest(Secret(text.to_owned())),
        "resize" => {
            let size = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
            let fits = |side: u32| (16..=8192).contains(&side) && side.is_multiple_of(2);
            let size = size.filter(|(w, h)| fits(*w) && fits(*h));
            let (width, height) = size.ok_or_else(|| expected("an even size such as 640x360"))?;
            Fault::Resize(width, height)
        }
        _ => Fault::Clear,
    })
}

/// Longest time that can be written, seconds.
const LONGEST: f64 = 366.0 * 86400.0;

/// Seconds of a text such as `500ms`, `-1.5s`, `10m`, `2h`.
pub fn parse_time(text: &str) -> Result<f64, ParseError> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return wrong(format!("{text:?} is no time; it is written 500ms, 30s, 10m or 2h")),
    };
    match digits.parse::<f64>() {
        Ok(number) if (number * unit).abs() <= LONGEST => Ok(number * unit),
        _ => wrong(format!("{text:?} is no time of at most a year; it is written 500ms, 30s, 10m or 2h")),
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, ParseError> {
    Duration::try_from_secs_f64(parse_time(text)?).map_err(|_| ParseError(format!("{text:?} is negative")))
}

/// Seconds as they are written in a schedule.
pub(super) struct Time(pub f64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(text: &str) -> Result<Order, String> {
        text.parse::<Order>().map_err(|error| error.0)
    }

    #[test]
    fn faults_as_they_are_written() {
        let secs = |s| Some(Duration::from_secs(s));
        for (text, fault, lasts) in [
            ("stall", Fault::Stall, None),
            ("STALL 30s", Fault::Stall, secs(30)),
            ("mute", Fault::Mute(None), None),
            ("mute 5s", Fault::Mute(None), secs(5)),
            ("mute audio", Fault::Mute(Some(Media::Audio)), None),
            ("mute video 1m", Fault::Mute(Some(Media::Video)), secs(60)),
            ("off 1h", Fault::Off, secs(3600)),
            ("cut", Fault::Cut, None),
            ("delay 250ms 2m", Fault::Delay(Duration::from_millis(250)), secs(120)),
            ("throttle 64 10s", Fault::Throttle(64), secs(10)),
            ("drop 2.5%", Fault::Drop(2.5), None),
            ("corrupt 100 1s", Fault::Corrupt(100.0), secs(1)),
            ("jump -90s", Fault::Jump(-90.0), None),
            ("step 1h", Fault::Step(3600.0), None),
            ("drift -200", Fault::Drift(-200.0), None),
            ("answer 453 20s", Fault::Answer(453), secs(20)),
            ("sdp garbage", Fault::Sdp(Sdp::Garbage), None),
            ("password sesame", Fault::Password(Some(Secret("sesame".into()))), None),
            ("password 5s", Fault::Password(Some(Secret("5s".into()))), None),
            ("password", Fault::Password(None), None),
            ("digest sesame", Fault::Digest(Secret("sesame".into())), None),
            ("resize 640x360", Fault::Resize(640, 360), None),
            ("clear", Fault::Clear, None),
        ] {
            assert_eq!(order(text), Ok(Order { fault, lasts }), "{text}");
        }
    }

    #[test]
    fn what_is_no_fault_says_what_is_one() {
        for (text, part) in [
            ("", "no fault"),
            ("stal", "did you mean \"stall\"?"),
            ("stall soon", "\"soon\" is no time"),
            ("stall -3s", "negative"),
            ("stall 3s 4s", "too much"),
            ("cut 3s", "it is written cut"),
            ("drop", "drop needs PERCENT: drop PERCENT [FOR]"),
            ("drop 101", "from 0 to 100"),
            ("drop nan", "from 0 to 100"),
            ("answer 200", "from 300 to 599"),
            ("sdp strange", "empty, garbage, truncated, huge, parameters"),
            ("resize 641x360", "an even size"),
            ("resize 640", "an even size"),
            ("digest", "digest needs PASSWORD"),
            ("jump 1e300h", "at most a year"),
            ("mute sound", "video or audio"),
        ] {
            let message = order(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn every_kind_is_complete() {
        for kind in &KINDS {
            assert!(!kind.help.is_empty());
            let argument = match kind.argument {
                "TIME" => "2s",
                "KBIT" | "PERCENT" | "PPM" => "7",
                "STATUS" => "404",
                "KIND" => "huge",
                "WIDTHxHEIGHT" => "64x64",
                "PASSWORD" => "sesame",
                _ => "",
            };
            let order = order(&format!("{} {argument}", kind.name)).unwrap();
            assert_eq!((order.fault.name(), order.fault.is_lasting()), (kind.name, kind.lasts));
        }
        assert_eq!(order("password x").unwrap().to_string(), "password ***");
        for text in ["password hush", "digest hush"] {
            let order = order(text).unwrap();
            assert!(!format!("{order:?} {order}").contains("hush"));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}", name in 0..KINDS.len(), rest in "[-0-9a-zµ.% ]{0,20}") {
            let _ = order(&text);
            let _ = order(&format!("{} {rest}", KINDS[name].name));
        }

        #[test]
        fn what_is_shown_is_what_was_written(name in 0..KINDS.len(), number in 300_u32..599, lasts in 0_u64..100_000) {
            let kind = KINDS[name];
            let argument = match kind.argument {
                "TIME" => format!("{number}ms"),
                "PERCENT" => format!("{}", f64::from(number) / 10.0),
                "KIND" => "sdp truncated".split(' ').nth(1).unwrap().to_owned(),
                "WIDTHxHEIGHT" => format!("{}x{}", number * 2, number * 2 + 2),
                // What is shown of any.
                "PASSWORD" => "***".to_owned(),
                argument if argument.starts_with('[') => String::new(),
                "" => String::new(),
                _ => number.to_string(),
            };
            let lasts = if kind.lasts { format!("{lasts}ms") } else { String::new() };
            let first = order(&format!("{} {argument} {lasts}", kind.name)).unwrap();
            let again = order(&first.to_string()).unwrap();
            prop_assert_eq!(again.fault, first.fault);
            let (a, b) = (again.lasts.unwrap_or_default(), first.lasts.unwrap_or_default());
            prop_assert!(a.abs_diff(b) < Duration::from_micros(1));
        }
    }
}
