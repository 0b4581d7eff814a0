//! RTSP over TCP taken apart: messages, and packets between them (RFC 2326, 10.12). Pure.

/// Longest message that is understood; cameras send some kilobytes.
const HEAD_LIMIT: usize = 64 << 10;
const BODY_LIMIT: usize = 4 << 20;

/// One piece of a connection's stream. Written one after the other they are the stream again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Item {
    /// A request or an answer with its body.
    Message(Vec<u8>),
    /// An interleaved packet with its four bytes of framing.
    Packet(Vec<u8>),
    /// What is neither; everything after it is passed on as it is.
    Raw(Vec<u8>),
}

impl Item {
    pub fn bytes(&self) -> &[u8] {
        let (Self::Message(bytes) | Self::Packet(bytes) | Self::Raw(bytes)) = self;
        bytes
    }

    pub fn into_bytes(self) -> Vec<u8> {
        let (Self::Message(bytes) | Self::Packet(bytes) | Self::Raw(bytes)) = self;
        bytes
    }
}

/// Collects bytes until they are an item.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    /// How much of the buffer has been searched for the end of a message's head.
    searched: usize,
    lost: bool,
}

impl Framer {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole item.
    pub fn next_item(&mut self) -> Option<Item> {
        if self.buffer.is_empty() {
            return None;
        }
        if !self.lost {
            match self.measure() {
                Measure::Packet(length) => return Some(Item::Packet(self.take(length))),
                Measure::Message(length) => return Some(Item::Message(self.take(length))),
                Measure::More => return None,
                Measure::Lost => self.lost = true,
            }
        }
        Some(Item::Raw(std::mem::take(&mut self.buffer)))
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        self.searched = 0;
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    fn measure(&mut self) -> Measure {
        let buffer = &self.buffer;
        if buffer[0] == b'$' {
            let Some(length) = buffer.get(2..4).map(|b| usize::from(u16::from_be_bytes([b[0], b[1]])) + 4)
            else {
                return Measure::More;
            };
            return if buffer.len() < length { Measure::More } else { Measure::Packet(length) };
        }
        // The blank line may have begun in what was searched before.
        let from = self.searched.saturating_sub(3);
        let found = buffer[from..].windows(4).position(|window| window == b"\r\n\r\n");
        let Some(head) = found.map(|at| from + at + 4) else {
            self.searched = buffer.len();
            return if buffer.len() > HEAD_LIMIT { Measure::Lost } else { Measure::More };
        };
        // So that it is found at once when more of the body is there.
        self.searched = head - 1;
        match content_length(&buffer[..head]) {
            Some(body) if body <= BODY_LIMIT && head <= HEAD_LIMIT => {
                if buffer.len() < head + body {
                    Measure::More
                } else {
                    Measure::Message(head + body)
                }
            }
            _ => Measure::Lost,
        }
    }
}

enum Measure {
    Packet(usize),
    Message(usize),
    More,
    Lost,
}

/// Length of the body that a head announces; `None` where it is not a number.
fn content_length(head: &[u8]) -> Option<usize> {
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        if line[..colon].trim_ascii().eq_ignore_ascii_case(b"content-length") {
            return std::str::from_utf8(&line[colon + 1..]).ok()?.trim().parse().ok();
        }
    }
    Some(0)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    fn items(chunks: &[&[u8]]) -> Vec<Item> {
        let mut framer = Framer::default();
        let mut items = Vec::new();
        for chunk in chunks {
            framer.push(chunk);
            items.extend(std::iter::from_fn(|| framer.next_item()));
        }
        items
    }

    #[test]
    fn messages_and_packets_between_them() {
        let describe = b"RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-length:  5 \r\n\r\nv=0\r\n";
        let packet = b"$\x01\x00\x03\r\n\r";
        let play = b"RTSP/1.0 200 OK\r\nCSeq: 3\r\n\r\n";
        let stream = [&describe[..], packet, play, b"$\x00\x00\x00"].concat();
        let expected = vec![
            Item::Message(describe.to_vec()),
            Item::Packet(packet.to_vec()),
            Item::Message(play.to_vec()),
            Item::Packet(b"$\0\0\0".to_vec()),
        ];
        assert_eq!(items(&[&stream]), expected);
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(items(&single), expected);
    }

    #[test]
    fn what_is_not_rtsp_is_passed_on() {
        for stream in [
            &b"OPTIONS * RTSP/1.0\r\nContent-Length: minus one\r\n\r\nrest"[..],
            b"OPTIONS * RTSP/1.0\r\nContent-Length: 99999999999\r\n\r\nrest",
        ] {
            assert_eq!(
                items(&[stream, b"$more"]),
                [Item::Raw(stream.to_vec()), Item::Raw(b"$more".to_vec())]
            );
        }
        let endless = vec![b'x'; HEAD_LIMIT + 1];
        assert_eq!(items(&[&endless]), [Item::Raw(endless)]);
    }

    fn item() -> impl Strategy<Value = Item> {
        let message = (
            prop::collection::vec("[A-Za-z-]{1,8}: [ -~]{0,20}", 0..5),
            prop::collection::vec(any::<u8>(), 0..60),
        )
            .prop_map(|(headers, body)| {
                let mut text = String::from("RTSP/1.0 200 OK\r\n");
                for header in headers.iter().filter(|h| !h.to_ascii_lowercase().starts_with("content-length"))
                {
                    text += header;
                    text += "\r\n";
                }
                let _ = write!(text, "CONTENT-LENGTH: {}\r\n\r\n", body.len());
                Item::Message([text.into_bytes(), body].concat())
            });
        let packet = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(channel, data)| {
            let length = (data.len() as u16).to_be_bytes();
            Item::Packet([&[b'$', channel, length[0], length[1]], &data[..]].concat())
        });
        prop_oneof![message, packet]
    }

    proptest! {
        #[test]
        fn items_come_out_as_they_went_in(sent in prop::collection::vec(item(), 0..12), cuts in prop::collection::vec(1_usize..200, 0..40)) {
            let stream: Vec<u8> = sent.iter().flat_map(|item| item.bytes().to_vec()).collect();
            let (mut chunks, mut rest) = (Vec::new(), &stream[..]);
            for cut in cuts {
                let (chunk, tail) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk);
                rest = tail;
            }
            chunks.push(rest);
            prop_assert_eq!(items(&chunks), sent);
        }

        #[test]
        fn nothing_is_lost_of_any_stream(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..20)) {
            let mut framer = Framer::default();
            let mut out = Vec::new();
            for chunk in &chunks {
                framer.push(chunk);
                while let Some(item) = framer.next_item() {
                    out.extend(item.into_bytes());
                }
            }
            out.extend(framer.buffer);
            prop_assert_eq!(out, chunks.concat());
        }
    }
}
