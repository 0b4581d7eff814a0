//! What the headers of RTSP (RFC 2326) and of its log-ins (RFC 7617, RFC 7616) say. Everything comes from a camera and
//! is hostile.

/// How long a session lasts that says nothing of it (RFC 2326, 12.37), seconds.
pub const SESSION: u32 = 60;
/// Longer names of sessions are no camera's.
const NAME: usize = 256;

/// What a camera asks for that refuses a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Challenge {
    Basic,
    Digest {
        realm: String,
        nonce: String,
        opaque: Option<String>,
        /// The password was right, the nonce too old.
        stale: bool,
    },
}

impl Challenge {
    /// The best that can be answered out of all `WWW-Authenticate` headers of an answer.
    pub fn best<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let known: Vec<_> = headers.filter_map(Self::parse).collect();
        known.iter().find(|one| matches!(one, Self::Digest { .. })).or(known.first()).cloned()
    }

    fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.split_once(char::is_whitespace).unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("Basic") {
            return Some(Self::Basic);
        }
        let fields = parameters(rest);
        let get = |name: &str| {
            let found = fields.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        let md5 = get("algorithm").is_none_or(|algorithm| algorithm.eq_ignore_ascii_case("MD5"));
        if !scheme.eq_ignore_ascii_case("Digest") || !md5 {
            return None;
        }
        let stale = get("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true"));
        Some(Self::Digest { realm: get("realm")?, nonce: get("nonce")?, opaque: get("opaque"), stale })
    }
}

/// `name=value` and `name="value"`, with commas between them.
fn parameters(text: &str) -> Vec<(String, String)> {
    let (mut fields, mut rest) = (Vec::new(), text);
    while let Some((name, tail)) = rest.split_once('=') {
        let name = name.trim_matches(|c: char| c == ',' || c.is_whitespace()).to_owned();
        let mut value = String::new();
        let tail = tail.trim_start();
        if let Some(quoted) = tail.strip_prefix('"') {
            let mut letters = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((at, letter)) = letters.next() {
                match letter {
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
                    letter => value.push(letter),
                }
            }
            rest = &quoted[end..];
        } else {
            let end = tail.find(',').unwrap_or(tail.len());
            value.push_str(tail[..end].trim());
            rest = &tail[end..];
        }
        value.retain(|letter| !letter.is_control());
        fields.push((name, value));
    }
    fields
}

/// `text` between quotation marks, as headers have it.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars().filter(|letter| !letter.is_control()) {
        if matches!(letter, '"' | '\\') {
            out.push('\\');
        }
        out.push(letter);
    }
    out.push('"');
    out
}

/// Name and seconds of a session, from its header. `None` for a name that is none.
pub fn session(header: &str) -> Option<(&str, u32)> {
    let mut parts = header.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty() && name.len() <= NAME)?;
    let timeout = parts.find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case("timeout").then_some(value.trim().parse().ok()?)
    });
    Some((name, timeout.unwrap_or(SESSION)))
}

/// The channels of packets and of reports that a `Transport` header agrees to.
pub fn channels(transport: &str) -> Option<(u8, u8)> {
    let value = transport.split(';').find_map(|part| part.trim().strip_prefix("interleaved="))?;
    let (first, second) = value.split_once('-').unwrap_or((value, ""));
    let first = first.trim().parse::<u8>().ok()?;
    Some((first, second.trim().parse().unwrap_or(first.wrapping_add(1))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_of_cameras() {
        let digest = |stale| Challenge::Digest {
            realm: "IP \"Camera\"(1)".into(),
            nonce: "a,b=c".into(),
            opaque: None,
            stale,
        };
        for (headers, expected) in [
            (vec![r#"Basic realm="cam""#], Some(Challenge::Basic)),
            (vec![r#"Digest realm="IP \"Camera\"(1)", nonce="a,b=c", stale="FALSE""#], Some(digest(false))),
            (
                vec![r#"digest nonce="a,b=c" , realm="IP \"Camera\"(1)",stale=true, algorithm=MD5"#],
                Some(digest(true)),
            ),
            (
                vec![
                    r#"Basic realm="cam""#,
                    r#"Digest realm="x", nonce="y", algorithm=SHA-256"#,
                    r#"Digest realm="x", nonce="y", opaque="z", qop="auth""#,
                ],
                Some(Challenge::Digest {
                    realm: "x".into(),
                    nonce: "y".into(),
                    opaque: Some("z".into()),
                    stale: false,
                }),
            ),
            (vec![r#"Digest realm="x""#, "Bearer", "", "="], None),
        ] {
            assert_eq!(Challenge::best(headers.iter().copied()), expected, "{headers:?}");
        }
        assert_eq!(quoted("a\"b\\c\r\nd"), "\"a\\\"b\\\\cd\"");
    }

    #[test]
    fn sessions_and_channels() {
        assert_eq!(session("12345678;timeout=30"), Some(("12345678", 30)));
        assert_eq!(session(" ab ; Timeout = 7 "), Some(("ab", 7)));
        assert_eq!(session("ab;timeout=soon"), Some(("ab", SESSION)));
        assert_eq!(session("ab;timeout=99999999999"), Some(("ab", SESSION)));
        assert_eq!((session(";timeout=3"), session(&"x".repeat(NAME + 1))), (None, None));
        for (header, expected) in [
            ("RTP/AVP/TCP;unicast;interleaved=2-3;ssrc=1", Some((2, 3))),
            ("RTP/AVP/TCP; interleaved=254-255", Some((254, 255))),
            ("RTP/AVP/TCP;interleaved=4", Some((4, 5))),
            ("RTP/AVP/TCP;interleaved=255", Some((255, 0))),
            ("RTP/AVP/TCP;interleaved=256-257", None),
            ("RTP/AVP;unicast;client_port=1-2", None),
        ] {
            assert_eq!(channels(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,80}", header in r#"(Digest |Basic )?([a-z]{1,6}=("?[^"]{0,5}"?),? ?){0,6}"#) {
            Challenge::best([text.as_str(), header.as_str()].into_iter());
            session(&text);
            channels(&text);
            let quoted = quoted(&text);
            prop_assert!(!quoted.contains(['\r', '\n']));
            let read = parameters(&format!("x={quoted}"));
            let shown: String = text.chars().filter(|letter| !letter.is_control()).collect();
            prop_assert_eq!(&read[0].1, &shown);
        }
    }
}
