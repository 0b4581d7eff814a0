//! The wall as the processor draws it, in system memory.

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_video::{VideoFrameRef, VideoInfo};
use nvr_core::{
    draw::{Stamp, Target},
    layout::Area,
    scale,
};

use super::{
    NvrCompositorPad,
    imp::{CAT, State},
    pad::Picture,
    settings::Settings,
    tile::{self, Tile},
    view,
};

/// Brings a canvas up to date. Gives a buffer with its memory, and how many tiles had to be drawn.
pub(super) fn draw(
    state: &mut State,
    settings: &Settings,
    pads: &[NvrCompositorPad],
    pictures: &[Option<Picture>],
    info: &VideoInfo,
) -> Result<(gst::Buffer, u64), String> {
    let State { canvases, tiles, typeface, clock, generation, .. } = state;
    let canvas = canvases.take(info).map_err(|error| error.to_string())?;
    let buffer = canvas.buffer.get_mut().ok_or("a picture is in use")?;
    let mut wall = VideoFrameRef::from_buffer_ref_writable(buffer, info)
        .map_err(|_| "the memory of a picture cannot be written")?;
    let target = {
        let frame = view::write(&mut wall).ok_or("the format of the wall is unknown")?;
        Target::of(&frame.as_frame())
    };
    let ground = background(settings.background, &target);
    let whole = canvas.layout != *generation;
    if whole {
        let mut frame = view::write(&mut wall).ok_or("the format of the wall is unknown")?;
        scale::fill(&mut frame, Area::new(0, 0, info.width(), info.height()), ground)
            .map_err(|error| error.to_string())?;
        canvas.layout = *generation;
        canvas.tiles.clear();
        canvas.clock.clear();
    }
    let text = clock_text(settings);
    if text.is_empty() {
        *clock = None;
    } else if clock.as_ref().is_none_or(|(known, _, stamp)| *known != text || *stamp.target() != target) {
        let size = (info.width(), info.height());
        let (area, print) = tile::clock(size, &text, settings.spacing & !1, typeface);
        let mut stamp = Stamp::new(target);
        stamp.print(&print, area.x as i32, area.y as i32);
        *clock = Some((text.clone(), area, stamp));
    }
    let is_current = |tile: &Tile, uid: u64| canvas.tiles.get(&uid) == Some(&tile.version);
    // A clock that changes uncovers what is under it; a tile that is drawn covers the clock.
    let clock_area = clock.as_ref().map(|(_, area, _)| *area);
    let under_clock = |tile: &Tile| clock_area.is_some_and(|area| area.intersects(&tile.look.area));
    let clock_gone = canvas.clock != text && text.is_empty();
    let redraw_clock = whole
        || canvas.clock != text
        || pads.iter().any(|pad| {
            let uid = pad.imp().uid;
            tiles.get(&uid).is_some_and(|tile| under_clock(tile) && !is_current(tile, uid))
        });
    if let Some(area) = clock_area.filter(|_| redraw_clock && !whole) {
        let mut frame = view::write(&mut wall).ok_or("the format of the wall is unknown")?;
        scale::fill(&mut frame, area, ground).map_err(|error| error.to_string())?;
    }
    let mut drawn = 0;
    for (pad, picture) in pads.iter().zip(pictures) {
        let uid = pad.imp().uid;
        let Some(tile) = tiles.get_mut(&uid) else { continue };
        let uncovered = redraw_clock && under_clock(tile);
        if canvas.tiles.get(&uid) == Some(&tile.version) && !uncovered && !clock_gone {
            continue;
        }
        drawn += 1;
        // Bars stay as they are while the picture keeps its place.
        let place = tile.shown();
        let bars = uncovered || clock_gone || canvas.places.get(&uid) != Some(&place) || whole;
        if let Err(error) = tile.draw(picture.as_ref(), &mut wall, bars, typeface) {
            gst::debug!(CAT, obj = pad, "{}: {error}", pad.name());
        }
        canvas.tiles.insert(uid, tile.version);
        canvas.places.insert(uid, place);
    }
    if let Some((_, _, stamp)) = clock.as_ref().filter(|_| redraw_clock) {
        let mut frame = view::write(&mut wall).ok_or("the format of the wall is unknown")?;
        stamp.blend(&mut frame).map_err(|error| error.to_string())?;
    }
    canvas.clock = text;
    drop(wall);
    let shared =
        canvas.buffer.copy_region(gst::BufferCopyFlags::MEMORY, ..).map_err(|error| error.to_string())?;
    Ok((shared, drawn))
}

/// The background in the wall's codes.
pub(super) fn background(argb: u32, target: &Target) -> [u8; 3] {
    let (red, blue) = target.matrix.weights();
    let [_, r, g, b] = argb.to_be_bytes().map(f32::from);
    let y = red * r + (1.0 - red - blue) * g + blue * b;
    let (cb, cr) = ((b - y) / (2.0 * (1.0 - blue)), (r - y) / (2.0 * (1.0 - red)));
    let (luma, chroma, black) = match target.range {
        nvr_core::frame::ColorRange::Full => (1.0, 1.0, 0.0),
        nvr_core::frame::ColorRange::Limited => (219.0 / 255.0, 224.0 / 255.0, 16.0),
    };
    [black + y * luma, 128.0 + cb * chroma, 128.0 + cr * chroma].map(|code| code.round() as u8)
}

/// What the clock says; nothing where there is none.
pub(super) fn clock_text(settings: &Settings) -> String {
    if !settings.clock {
        return String::new();
    }
    let now = glib::DateTime::now_local().and_then(|now| now.format("%Y-%m-%d  %H:%M:%S"));
    now.map_or_else(|_| String::new(), Into::into)
}
