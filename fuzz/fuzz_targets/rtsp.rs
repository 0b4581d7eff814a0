//! What a camera sends over a connection that plays, byte by byte as it comes: items, packets, access units.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nvr_core::{
    access_unit::Assembler,
    interleaved::{self, Item},
    nal::Codec,
    rtp::{self, Packet},
    rtsp::{self, Challenge},
};

fuzz_target!(|input: &[u8]| {
    let mut assemblers = [Codec::H264, Codec::H265].map(|codec| Assembler::new(codec, []));
    let mut rest = input;
    while let Ok(Some((item, taken))) = interleaved::next(rest, interleaved::MESSAGE) {
        assert!(taken > 0 && taken <= rest.len());
        rest = &rest[taken..];
        match item {
            Item::Message(message) => {
                Challenge::best(message.headers("WWW-Authenticate"));
                message.header("Session").map(rtsp::session);
                message.header("Transport").map(rtsp::channels);
            }
            Item::Packet { channel, data } => {
                rtp::sender_report(data);
                let assembler = &mut assemblers[usize::from(channel % 2)];
                if let Some(packet) = Packet::parse(data) {
                    let _ = assembler.push(&packet);
                }
                while let Some(unit) = assembler.unit() {
                    assert!(unit.data.len() <= 8 * input.len());
                }
            }
        }
    }
    assert!(rest.len() < interleaved::LIMIT || interleaved::next(rest, interleaved::MESSAGE).is_err());
});
