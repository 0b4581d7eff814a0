//! Encodes the beginning of an export anew, so that the file holds nothing from before the wanted moment: players that
//! know no edit lists begin there too. What follows the next keyframe stays as the camera sent it.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
};

use gst::prelude::*;
use nvr_core::segment::{
    join::{Encoded, Opening, Plan},
    mp4,
};

use crate::cli::Failure;

/// How long an encoder may take for one group of pictures.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(120);

/// The elements that a codec needs.
struct Codec {
    caps: &'static str,
    form: &'static str,
    entry: [u8; 4],
    config: [u8; 4],
    /// As good as the original for the eye; every picture in the order of its time.
    encoder: &'static str,
    parser: &'static str,
    package: &'static str,
}

fn codec(entry: &[u8]) -> Option<Codec> {
    let kind: [u8; 4] = *entry.get(4..)?.first_chunk()?;
    let form = match &kind {
        b"avc1" => "avc",
        b"avc3" => "avc3",
        b"hvc1" => "hvc1",
        b"hev1" => "hev1",
        _ => return None,
    };
    Some(if form.starts_with("avc") {
        Codec {
            caps: "video/x-h264",
            form,
            entry: kind,
            config: *b"avcC",
            encoder: "x264enc pass=qual quantizer=18 bframes=0 speed-preset=fast",
            parser: "h264parse",
            package: "gstreamer1.0-plugins-ugly",
        }
    } else {
        Codec {
            caps: "video/x-h265",
            form,
            entry: kind,
            config: *b"hvcC",
            encoder: "x265enc option-string=crf=18:bframes=0 speed-preset=fast",
            parser: "h265parse",
            package: "gstreamer1.0-plugins-bad",
        }
    })
}

fn nanoseconds(ticks: i64, scale: u32) -> u64 {
    (i128::from(ticks.max(0)) * 1_000_000_000 / i128::from(scale.max(1))) as u64
}

/// Replaces the opening of `plan` where it is not shown as a whole. `files` are its parts; what is encoded is
/// written to one of its own, which is returned and becomes the part after them.
pub fn encode_anew<F: Read + Seek>(plan: &mut Plan, files: &mut [F]) -> Result<Option<File>, Failure> {
    let Some(opening) = plan.opening() else { return Ok(None) };
    gst::init().map_err(Failure::failed)?;
    let codec = codec(&opening.track.entry)
        .ok_or_else(|| Failure::failed("only H.264 and H.265 can be encoded anew; export without --exact"))?;
    let units = units(&opening, files).map_err(Failure::failed)?;
    let (config, pictures) = transcode(&opening, &codec, units)?;
    let mut file = tempfile::tempfile().map_err(Failure::failed)?;
    let mut encoded = Vec::with_capacity(pictures.len());
    for (pts, key, bytes) in &pictures {
        file.write_all(bytes).map_err(Failure::failed)?;
        encoded.push(Encoded { pts: *pts, size: bytes.len() as u32, key: *key });
    }
    let track = &opening.track;
    let entry = mp4::video_entry(&codec.entry, &codec.config, &config, track.width, track.height);
    plan.replace_opening(files.len(), entry, &encoded);
    Ok(Some(file))
}

/// The pictures of the opening as buffers, in the order in which they are decoded.
fn units<F: Read + Seek>(opening: &Opening, files: &mut [F]) -> io::Result<Vec<gst::Buffer>> {
    let scale = opening.track.timescale;
    let least = opening.pictures.iter().map(|picture| picture.pts.min(picture.dts)).min().unwrap_or_default();
    let mut units = Vec::with_capacity(opening.pictures.len());
    for (number, picture) in opening.pictures.iter().enumerate() {
        let piece = picture.piece;
        let file = files.get_mut(piece.part).ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; piece.size as usize];
        file.seek(SeekFrom::Start(piece.at))?;
        file.read_exact(&mut bytes)?;
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        let new = buffer.make_mut();
        new.set_pts(gst::ClockTime::from_nseconds(nanoseconds(picture.pts - least, scale)));
        new.set_dts(gst::ClockTime::from_nseconds(nanoseconds(picture.dts - least, scale)));
        if number > 0 {
            new.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        units.push(buffer);
    }
    Ok(units)
}

type Pictures = Vec<(i64, bool, Vec<u8>)>;

/// Decodes the opening and encodes what is shown of it: the codec's configuration, and each picture with its time.
fn transcode(
    opening: &Opening,
    codec: &Codec,
    units: Vec<gst::Buffer>,
) -> Result<(Vec<u8>, Pictures), Failure> {
    let track = &opening.track;
    let scale = track.timescale;
    let least = opening.pictures.iter().map(|picture| picture.pts.min(picture.dts)).min().unwrap_or_default();
    let Codec { caps, form, encoder, parser, package, .. } = codec;
    let pipeline = gst::parse::launch(&format!(
        "appsrc name=in format=time ! decodebin ! videoconvert ! identity name=shown ! {encoder} ! {parser} \
         ! {caps},stream-format={form},alignment=au ! appsink name=out sync=false"
    ))
    .map_err(|error| Failure::failed(format!("{error}; --exact needs {package}")))?;
    let pipeline =
        pipeline.downcast::<gst::Pipeline>().map_err(|_| Failure::failed("the encoder is no pipeline"))?;
    let missing = || Failure::failed("the encoder's pipeline is not whole");
    let source = pipeline.by_name("in").and_downcast::<gst_app::AppSrc>().ok_or_else(missing)?;
    let sink = pipeline.by_name("out").and_downcast::<gst_app::AppSink>().ok_or_else(missing)?;
    let shown = pipeline.by_name("shown").and_then(|e| e.static_pad("src")).ok_or_else(missing)?;
    let config = mp4::configuration(&track.entry).ok_or_else(missing)?.to_vec();
    source.set_caps(Some(
        &gst::Caps::builder(*caps)
            .field("stream-format", *form)
            .field("alignment", "au")
            .field("width", i32::from(track.width))
            .field("height", i32::from(track.height))
            .field("codec_data", gst::Buffer::from_mut_slice(config))
            .build(),
    ));
    // A microsecond is far less than a picture, and more than what scaling loses.
    let from = gst::ClockTime::from_nseconds(nanoseconds(opening.from - least, scale).saturating_sub(1000));
    shown.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let early = info.buffer().and_then(|buffer| buffer.pts()).is_some_and(|pts| pts < from);
        if early { gst::PadProbeReturn::Drop } else { gst::PadProbeReturn::Ok }
    });
    let result = (|| {
        pipeline.set_state(gst::State::Playing).map_err(|_| "the encoder does not start".to_owned())?;
        for unit in units {
            source.push_buffer(unit).map_err(|error| format!("the decoder takes nothing: {error:?}"))?;
        }
        source.end_of_stream().map_err(|error| format!("the decoder does not end: {error:?}"))?;
        collect(&sink)
    })();
    let said = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
    let _ = pipeline.set_state(gst::State::Null);
    let fail = |reason: String| {
        let said = match said.as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(error)) => error.error().to_string(),
            _ => reason,
        };
        Failure::failed(format!("the beginning could not be encoded anew: {said}; export without --exact"))
    };
    let (config, times) = result.map_err(fail)?;
    // Every picture has the time of the one that it was.
    let mut wanted: Vec<_> =
        opening.pictures.iter().map(|picture| picture.pts).filter(|pts| *pts >= opening.from).collect();
    wanted.sort_unstable();
    let near = |(pts, (time, ..)): (&i64, &(u64, bool, Vec<u8>))| {
        nanoseconds(pts - least, scale).abs_diff(*time) < 1_000_000
    };
    if wanted.len() != times.len() || !wanted.iter().zip(&times).all(near) {
        return Err(fail(format!("{} pictures became {}", wanted.len(), times.len())));
    }
    let pictures = wanted.into_iter().zip(times).map(|(pts, (_, key, bytes))| (pts, key, bytes)).collect();
    Ok((config, pictures))
}

/// All that an encoder gives: its configuration, and each picture with its running time.
#[allow(clippy::type_complexity, reason = "used once")]
fn collect(sink: &gst_app::AppSink) -> Result<(Vec<u8>, Vec<(u64, bool, Vec<u8>)>), String> {
    let (mut config, mut pictures) = (None, Vec::new());
    while let Some(sample) = sink.try_pull_sample(PATIENCE) {
        if config.is_none() {
            let caps = sample.caps().and_then(|caps| caps.structure(0));
            let data = caps.and_then(|s| s.get::<gst::Buffer>("codec_data").ok());
            config = data.and_then(|data| data.map_readable().ok().map(|map| map.to_vec()));
        }
        let buffer = sample.buffer().ok_or("the encoder gave no picture")?;
        let segment = sample.segment().and_then(|s| s.downcast_ref::<gst::ClockTime>());
        let time = segment.zip(buffer.pts()).and_then(|(segment, pts)| segment.to_running_time(pts));
        let time = time.ok_or("the encoder gave a picture without a time")?;
        let bytes = buffer.map_readable().map_err(|_| "a picture cannot be read")?.to_vec();
        pictures.push((time.nseconds(), !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT), bytes));
    }
    if !sink.is_eos() {
        return Err("the encoder does not come to its end".into());
    }
    Ok((config.ok_or("the encoder did not say what it encodes")?, pictures))
}
