//! The proof: every camera's frame with the boxes of its event, in one PNG file.

use std::{io::Write, path::Path};

use gst_video::prelude::*;

use super::{
    canvas::{Canvas, Colour},
    report::Tile,
};
use crate::process;

const TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(10);
const GAP: usize = 4;
const GROUND: Colour = [24, 24, 28];

/// Writes a grid of tiles.
pub(super) fn write(path: &Path, tiles: &[&Tile], width: u32, height: u32) -> Result<(), String> {
    let (wide, high) = (width as usize, height as usize);
    let columns = tiles.len().isqrt() + usize::from(tiles.len().isqrt().pow(2) < tiles.len());
    let rows = tiles.len().div_ceil(columns);
    let mut canvas = Canvas::new(columns * (wide + GAP) - GAP, rows * (high + GAP) - GAP, GROUND);
    for (index, tile) in tiles.iter().enumerate() {
        let place = (index % columns * (wide + GAP), index / columns * (high + GAP));
        let tile = draw(tile, width, height)?;
        canvas.place(place.0, place.1, wide, wide * 3, &tile.pixels);
    }
    let png = encode(&canvas)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let text = |error: std::io::Error| error.to_string();
    let mut file = process::readable_temporary(folder).map_err(text)?;
    file.write_all(&png).map_err(text)?;
    file.persist(path).map(drop).map_err(|error| text(error.error))
}

/// One frame with its boxes.
fn draw((event, frame): &Tile, width: u32, height: u32) -> Result<Canvas, String> {
    let caps = gst_video::VideoCapsBuilder::new()
        .format(gst_video::VideoFormat::Rgb)
        .width(width as i32)
        .height(height as i32)
        .build();
    let rgb = gst_video::convert_sample(frame, &caps, Some(TIMEOUT))
        .map_err(|error| format!("a frame cannot be converted: {error}"))?;
    let buffer = rgb.buffer_owned().ok_or("a converted frame is empty")?;
    let info = rgb
        .caps()
        .and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok())
        .ok_or("a converted frame has no format")?;
    let mapped =
        gst_video::VideoFrame::from_buffer_readable(buffer, &info).map_err(|_| "a frame cannot be read")?;
    let stride = usize::try_from(mapped.plane_stride()[0]).map_err(|_| "a frame is upside down")?;
    let mut canvas = Canvas::new(width as usize, height as usize, GROUND);
    canvas.place(0, 0, width as usize, stride, mapped.plane_data(0).map_err(|error| error.to_string())?);
    let scale_x = f64::from(width) / f64::from(event.frame_width.max(1));
    let scale_y = f64::from(height) / f64::from(event.frame_height.max(1));
    for detection in &event.detections {
        let bbox = &detection.bbox;
        let colour = colour_of(&detection.class_name);
        let [x, y] = [bbox.x * scale_x, bbox.y * scale_y].map(|value| value.round() as i64);
        let [w, h] = [bbox.width * scale_x, bbox.height * scale_y].map(|value| value.round() as i64);
        canvas.outline(x, y, w, h, colour);
        canvas.label(x, y - 18, &format!("{} {:.2}", detection.class_name, detection.confidence), colour);
    }
    let time = event.timestamp.get(11..23).unwrap_or_default();
    canvas.label(
        0,
        i64::from(height),
        &format!("camera {}  frame {}  {time}", event.source_id, event.frame_id),
        GROUND,
    );
    Ok(canvas)
}

/// A colour of its own for every class, the same in every picture.
fn colour_of(class: &str) -> Colour {
    const COLOURS: [Colour; 8] = [
        [255, 200, 0],
        [0, 220, 120],
        [80, 180, 255],
        [255, 110, 180],
        [255, 140, 60],
        [190, 140, 255],
        [0, 220, 220],
        [240, 90, 80],
    ];
    let hash = class.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
    COLOURS[hash as usize % COLOURS.len()]
}

fn encode(canvas: &Canvas) -> Result<Vec<u8>, String> {
    let info =
        gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, canvas.width as u32, canvas.height as u32)
            .fps(gst::Fraction::new(1, 1))
            .build()
            .map_err(|error| error.to_string())?;
    let caps = info.to_caps().map_err(|error| error.to_string())?;
    // GStreamer's rows are padded to four bytes.
    let stride = info.stride()[0] as usize;
    let mut bytes = vec![0; info.size()];
    for (target, source) in bytes.chunks_mut(stride).zip(canvas.pixels.chunks(canvas.width * 3)) {
        target[..source.len()].copy_from_slice(source);
    }
    let sample = gst::Sample::builder().buffer(&gst::Buffer::from_mut_slice(bytes)).caps(&caps).build();
    let caps = gst::Caps::builder("image/png").build();
    let png = gst_video::convert_sample(&sample, &caps, Some(TIMEOUT))
        .map_err(|error| format!("no PNG (pngenc is in gstreamer1.0-plugins-good): {error}"))?;
    let map = png.buffer().and_then(|buffer| buffer.map_readable().ok()).ok_or("the PNG is empty")?;
    Ok(map.to_vec())
}
