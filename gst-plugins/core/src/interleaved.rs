//! What comes over an RTSP connection that plays: packets between messages (RFC 2326, 10.12). Every byte is hostile,
//! and nothing makes a caller keep more than [`LIMIT`] of them.

/// The longest packet, with its four bytes in front.
const PACKET: usize = 4 + 65_535;
/// The longest head of a message, and the longest body of one that comes between packets. Cameras answer keep-alives
/// in a tenth of it.
pub const MESSAGE: usize = 16 << 10;
/// So many bytes always hold a whole item, or are refused.
pub const LIMIT: usize = PACKET + 2 * MESSAGE;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Item<'a> {
    Packet { channel: u8, data: &'a [u8] },
    Message(Message<'a>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    #[error("what came is neither media nor RTSP")]
    Neither,
    #[error("a message of RTSP is too long")]
    TooLong,
}

/// A message of RTSP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message<'a> {
    head: &'a [u8],
    pub body: &'a [u8],
}

/// The first item of `input` and how many bytes it takes; `None` while it is incomplete. A message may have a body of
/// `body` bytes, [`MESSAGE`] for what comes between packets.
pub fn next(input: &[u8], body: usize) -> Result<Option<(Item<'_>, usize)>, Malformed> {
    // Some cameras end their messages with more empty lines than one.
    let blank = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    if blank > MESSAGE {
        return Err(Malformed::TooLong);
    }
    let rest = &input[blank..];
    match rest {
        [b'$', channel, high, low, data @ ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let packet =
                data.get(..length).map(|data| (Item::Packet { channel: *channel, data }, blank + 4 + length));
            Ok(packet)
        }
        [] | [b'$', ..] => Ok(None),
        // "RTSP/1.0", or a method.
        [first, ..] if first.is_ascii_uppercase() => message(rest, blank, body),
        _ => Err(Malformed::Neither),
    }
}

fn message(input: &[u8], blank: usize, limit: usize) -> Result<Option<(Item<'_>, usize)>, Malformed> {
    let searched = &input[..input.len().min(MESSAGE)];
    let Some(head) = searched.windows(4).position(|four| four == b"\r\n\r\n") else {
        let complete = input.len() >= MESSAGE;
        return if complete { Err(Malformed::TooLong) } else { Ok(None) };
    };
    let mut message = Message { head: &input[..head], body: &[] };
    let body = match message.header("Content-Length") {
        Some(length) => length.parse::<usize>().map_err(|_| Malformed::Neither)?,
        None => 0,
    };
    if body > limit {
        return Err(Malformed::TooLong);
    }
    let Some(body) = input[head + 4..].get(..body) else { return Ok(None) };
    message.body = body;
    Ok(Some((Item::Message(message), blank + head + 4 + body.len())))
}

impl<'a> Message<'a> {
    fn lines(&self) -> impl Iterator<Item = &'a str> {
        let lines = self.head.split(|byte| *byte == b'\n');
        // What is no text says nothing.
        lines.map(|line| std::str::from_utf8(line).unwrap_or_default().trim())
    }

    /// The status of an answer and what it calls it; `None` for a request.
    pub fn status(&self) -> Option<(u16, &'a str)> {
        let (_, status) = self.lines().next()?.strip_prefix("RTSP/")?.split_once(' ')?;
        let (number, name) = status.trim().split_once(' ').unwrap_or((status.trim(), ""));
        Some((number.parse().ok()?, name))
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers(name).next()
    }

    /// All headers of that name.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.lines().skip(1).filter_map(move |line| {
            let (found, value) = line.split_once(':')?;
            found.trim().eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packets_and_messages_follow_each_other() {
        let input =
            b"$\x00\x00\x03abcRTSP/1.0 454 Session Not Found\r\ncseq:  7\r\nContent-Length: 2\r\n\r\nhi\r\n\
            $\x01\x00\x00OPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\n$\x02\x00";
        let (mut at, mut found) = (0, Vec::new());
        while let Some((item, taken)) = next(&input[at..], MESSAGE).unwrap() {
            at += taken;
            found.push(item);
        }
        assert_eq!(&input[at..], b"$\x02\x00", "the last one is incomplete");
        assert_eq!(found[0], Item::Packet { channel: 0, data: b"abc" });
        assert_eq!(found[2], Item::Packet { channel: 1, data: b"" });
        let [_, Item::Message(answer), _, Item::Message(request)] = found[..] else { panic!("{found:?}") };
        assert_eq!((answer.status(), answer.header("CSeq")), (Some((454, "Session Not Found")), Some("7")));
        assert_eq!((request.status(), request.header("CSEQ")), (None, Some("9")));
        assert_eq!((answer.header("Session"), answer.body), (None, &b"hi"[..]));
    }

    #[test]
    fn what_would_grow_without_end_is_refused() {
        let long = "X: y\r\n".repeat(MESSAGE);
        for (input, expected) in [
            (format!("RTSP/1.0 200 OK\r\n{long}"), Malformed::TooLong),
            (format!("RTSP/1.0 200 OK\r\nX: {}", "y".repeat(MESSAGE)), Malformed::TooLong),
            ("RTSP/1.0 200 OK\r\nContent-Length: 99999999\r\n\r\n".into(), Malformed::TooLong),
            ("RTSP/1.0 200 OK\r\nContent-Length: -1\r\n\r\n".into(), Malformed::Neither),
            ("RTSP/1.0 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n".into(), Malformed::Neither),
            ("\r\n".repeat(MESSAGE), Malformed::TooLong),
            ("\0$".into(), Malformed::Neither),
        ] {
            assert_eq!(next(input.as_bytes(), MESSAGE), Err(expected), "{}", &input[..input.len().min(60)]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            input in proptest::collection::vec(prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                Just(b"$\x00\x00\x05".to_vec()),
                Just(b"RTSP/1.0 200 OK\r\n".to_vec()),
                Just(b"Content-Length: 9\r\n\r\n".to_vec()),
                Just(b"\r\n\r\n".to_vec()),
            ], 0..30),
        ) {
            let input = input.concat();
            let mut rest = &input[..];
            while let Ok(Some((_, taken))) = next(rest, MESSAGE) {
                prop_assert!(taken > 0 && taken <= rest.len());
                rest = &rest[taken..];
            }
        }

        #[test]
        fn so_many_bytes_hold_an_item_or_are_refused(start in proptest::collection::vec(any::<u8>(), 0..30)) {
            let mut input = start;
            input.resize(LIMIT, b'A');
            prop_assert!(!matches!(next(&input, MESSAGE), Ok(None)));
        }
    }
}
