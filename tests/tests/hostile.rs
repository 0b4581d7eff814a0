//! What a camera sends is not to be trusted: a damaged stream goes through decoder, detector and sink.
//!
//! `NVR_HOSTILE_PICTURES` sets how many pictures are damaged; 10,000 take about twenty seconds.

use gst::prelude::*;
use gst_app::{AppSink, AppSrc};

const WIDTH: i32 = 64;
const HEIGHT: i32 = 48;

/// Xorshift: the same damage in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }
}

fn wanted(default: usize) -> usize {
    std::env::var("NVR_HOSTILE_PICTURES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Everything that `launch` gives, which must end in an appsink named `out`.
fn encode(launch: &str) -> (gst::Caps, Vec<Vec<u8>>) {
    let pipeline = gst::parse::launch(launch).unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("out").unwrap().downcast::<AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let (mut caps, mut units) = (None, Vec::new());
    while let Ok(sample) = sink.pull_sample() {
        caps = sample.caps_owned();
        units.push(sample.buffer().unwrap().map_readable().unwrap().to_vec());
    }
    pipeline.set_state(gst::State::Null).unwrap();
    (caps.unwrap(), units)
}

/// Flips, removes and repeats bytes behind the first `keep`: those hold the size of the picture, and a decoder that is
/// told of a larger one is a matter of memory and not of this test.
fn damage(unit: &[u8], keep: usize, noise: &mut Noise) -> Vec<u8> {
    let mut bytes = unit.to_vec();
    for _ in 0..=noise.next(8) {
        let at = keep + noise.next(bytes.len().saturating_sub(keep));
        match noise.next(4) {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_within(keep..at.max(keep).min(bytes.len())),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << noise.next(8);
                }
            }
        }
        bytes.truncate(unit.len() * 4);
    }
    bytes
}

/// Sends `count` damaged units and then a good one, and counts the pictures that come out analysed. The good one has
/// to be among them.
fn survives(decoder: &str, launch: &str, keep: usize, count: usize) {
    gst::init().unwrap();
    gstnvr::plugin_register_static().unwrap();
    for factory in
        decoder.split('!').chain(launch.split('!')).filter_map(|part| part.split_whitespace().next())
    {
        if factory.starts_with("video/") {
            continue;
        }
        if gst::ElementFactory::find(factory).is_none() {
            eprintln!("skipped: {factory} is not installed");
            return;
        }
    }
    let (caps, good) = encode(launch);
    let pipeline = gst::parse::launch(&format!(
        "appsrc name=in format=time max-bytes=100000 block=true ! {decoder} ! nvrinfer name=infer model=demo threads=1 \
         ! nvrmqttsink name=sink broker=mqtt://127.0.0.1:1"
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let source = pipeline.by_name("in").unwrap().downcast::<AppSrc>().unwrap();
    source.set_caps(Some(&caps));
    let bus = pipeline.bus().unwrap();
    if pipeline.set_state(gst::State::Playing).is_err() {
        let error = bus.pop_filtered(&[gst::MessageType::Error]).expect("a reason");
        let gst::MessageView::Error(error) = error.view() else { unreachable!("filtered") };
        let text = error.error().to_string();
        assert!(text.contains("ONNX Runtime"), "{text}: {:?}", error.debug());
        eprintln!("skipped: {text}");
        let _ = pipeline.set_state(gst::State::Null);
        return;
    }
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let push = |bytes: Vec<u8>, n: usize| {
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(40) * n as u64);
        source.push_buffer(buffer).unwrap_or_else(|error| panic!("unit {n}: {error:?}, {:?}", bus.pop()));
    };
    for n in 0..count {
        push(damage(&good[n % good.len()], keep, &mut noise), n);
    }
    let analysed = || {
        let stats: gst::Structure = pipeline.by_name("infer").unwrap().property("stats");
        stats.get::<u64>("analysed").unwrap()
    };
    for (n, unit) in good.iter().enumerate() {
        push(unit.clone(), count + n);
    }
    source.end_of_stream().unwrap();
    let end = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(240),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    let end = end.expect("the pipeline hangs");
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    let seen = analysed();
    println!("{decoder}: {seen} pictures of {} units were analysed", count + good.len());
    assert!(seen >= good.len() as u64 / 2, "{seen}");
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_damaged_h264_stream_is_survived() {
    let launch = format!(
        "videotestsrc num-buffers=50 pattern=ball ! video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate=25/1 \
         ! x264enc tune=zerolatency key-int-max=10 ! video/x-h264,stream-format=byte-stream,alignment=au \
         ! appsink name=out sync=false"
    );
    survives("avdec_h264 max-threads=1 max-errors=-1", &launch, 60, wanted(600));
}
