//! From events to pixels, or to a composition that somebody downstream blends. Work is done once for each set of
//! events; frames in between repeat it.

use std::sync::Arc;

use gst_video::prelude::*;
use gst_video::{
    VideoFormat, VideoFrameFlags, VideoFrameRef, VideoInfo, VideoMeta, VideoOverlayComposition,
    VideoOverlayCompositionMeta, VideoOverlayFormatFlags, VideoOverlayRectangle,
};
use nvr_core::draw::{Canvas, Stamp, Target, Typeface};
use nvr_core::frame::{FrameMut, PlaneMut};
use nvr_core::overlay::{Pick, Piece, plan};

use super::settings::Look;
use crate::frames;

/// How a stream is drawn on.
#[derive(Clone, Debug)]
pub enum Canvases {
    /// Into the frames.
    Blend { info: VideoInfo, target: Target },
    /// On a meta of theirs.
    Attach { width: usize, height: usize },
}

impl Canvases {
    /// `None` where frames of this kind cannot be drawn into.
    pub fn blend(info: &VideoInfo) -> Option<Self> {
        let (format, _) = frames::layout(info.format())?;
        let (matrix, range) = frames::color(info);
        let (width, height) = (info.width() as usize, info.height() as usize);
        Some(Self::Blend { info: info.clone(), target: Target { format, width, height, matrix, range } })
    }

    fn size(&self) -> (usize, usize) {
        match self {
            Self::Blend { target, .. } => (target.width, target.height),
            Self::Attach { width, height } => (*width, *height),
        }
    }
}

/// Keeps what was drawn last.
pub struct Painter {
    canvases: Canvases,
    typeface: Typeface,
    /// Of the events that are drawn, in order.
    serials: Vec<u64>,
    look: Arc<Look>,
    stamp: Option<Stamp>,
    rectangles: Vec<VideoOverlayRectangle>,
}

impl Painter {
    pub fn new(canvases: Canvases) -> Self {
        Self {
            canvases,
            typeface: Typeface::new(),
            serials: Vec::new(),
            look: Arc::default(),
            stamp: None,
            rectangles: Vec::new(),
        }
    }

    /// Makes `picks` what is drawn from now on. Whether that took rasterising.
    pub fn show(&mut self, picks: &[Pick<'_>], look: &Arc<Look>) -> bool {
        let same =
            Arc::ptr_eq(&self.look, look) && picks.iter().map(Pick::serial).eq(self.serials.iter().copied());
        if same {
            return false;
        }
        self.look = look.clone();
        self.serials.clear();
        self.serials.extend(picks.iter().map(Pick::serial));
        if picks.is_empty() {
            self.rectangles.clear();
            if let Some(stamp) = &mut self.stamp {
                stamp.clear();
            }
            return false;
        }
        let pieces = plan(picks, &look.style, self.canvases.size(), &mut self.typeface);
        match &self.canvases {
            Canvases::Blend { target, .. } => {
                let stamp = self.stamp.get_or_insert_with(|| Stamp::new(*target));
                stamp.clear();
                for piece in &pieces {
                    piece.stamp(stamp);
                }
            }
            Canvases::Attach { .. } => self.rectangles = rectangles(&pieces),
        }
        true
    }

    /// Draws onto a frame. Whether anything was drawn; where not, the frame was not touched.
    pub fn draw(&self, buffer: &mut gst::Buffer) -> Result<bool, String> {
        match &self.canvases {
            Canvases::Blend { info, .. } => match self.stamp.as_ref().filter(|stamp| !stamp.is_empty()) {
                Some(stamp) => blend(stamp, buffer.make_mut(), info).map(|()| true),
                None => Ok(false),
            },
            Canvases::Attach { .. } if self.rectangles.is_empty() => Ok(false),
            Canvases::Attach { .. } => {
                attach(&self.rectangles, buffer.make_mut())?;
                Ok(true)
            }
        }
    }
}

fn blend(stamp: &Stamp, buffer: &mut gst::BufferRef, info: &VideoInfo) -> Result<(), String> {
    let Some((format, order)) = frames::layout(info.format()) else {
        return Err(format!("cannot draw into {:?}", info.format()));
    };
    let (matrix, range) = frames::color(info);
    let mut frame =
        VideoFrameRef::from_buffer_ref_writable(buffer, info).map_err(|error| error.to_string())?;
    let (width, height) = (info.width() as usize, info.height() as usize);
    let strides: [i32; 4] = std::array::from_fn(|n| frame.plane_stride().get(n).copied().unwrap_or(0));
    let mut data = frame.planes_data_mut().map(Some);
    let mut planes: [PlaneMut<'_>; 3] = Default::default();
    for (plane, &index) in planes.iter_mut().zip(order) {
        // A negative stride is a picture upside down, which no decoder gives.
        let stride = usize::try_from(strides[index]).map_err(|_| "the frame is upside down".to_string())?;
        *plane = PlaneMut { data: data[index].take().unwrap_or_default(), stride };
    }
    let mut frame = FrameMut { format, width, height, planes, matrix, range };
    stamp.blend(&mut frame).map_err(|error| error.to_string())
}

/// Adds rectangles to what others want to be composed.
fn attach(ours: &[VideoOverlayRectangle], buffer: &mut gst::BufferRef) -> Result<(), String> {
    let theirs: Vec<VideoOverlayRectangle> = buffer
        .meta::<VideoOverlayCompositionMeta>()
        .map(|meta| {
            (0..meta.overlay().n_rectangles()).filter_map(|n| meta.overlay().rectangle(n).ok()).collect()
        })
        .unwrap_or_default();
    let composition =
        VideoOverlayComposition::new(theirs.iter().chain(ours)).map_err(|error| error.to_string())?;
    if let Some(meta) = buffer.meta_mut::<VideoOverlayCompositionMeta>() {
        meta.remove().map_err(|error| error.to_string())?;
    }
    VideoOverlayCompositionMeta::add(buffer, &composition);
    Ok(())
}

/// Pieces as rectangles of a composition. Bars that lie side by side become one: a compositor works per rectangle.
fn rectangles(pieces: &[Piece]) -> Vec<VideoOverlayRectangle> {
    let mut rectangles = Vec::new();
    let mut at = 0;
    while at < pieces.len() {
        let (x, y, canvas, used) = match &pieces[at] {
            Piece::Print { x, y, print } => (*x, *y, print.canvas(), 1),
            Piece::Bars { .. } => bars(&pieces[at..]),
        };
        rectangles.extend(rectangle(x, y, &canvas));
        at += used;
    }
    rectangles
}

/// The first bars of `pieces`, as many as are worth one canvas, and how many those are.
fn bars(pieces: &[Piece]) -> (i32, i32, Canvas, usize) {
    let (mut left, mut top, mut right, mut bottom) = (i32::MAX, i32::MAX, i32::MIN, i32::MIN);
    let (mut used, mut covered) = (0, 0_i64);
    for piece in pieces {
        let Piece::Bars { x, y, height, row } = piece else { break };
        let (new_left, new_top) = (left.min(*x), top.min(*y));
        let (new_right, new_bottom) = (right.max(x + row.len() as i32), bottom.max(y + *height as i32));
        let area = i64::from(new_right - new_left) * i64::from(new_bottom - new_top);
        covered += row.len() as i64 * i64::from(*height);
        if used > 0 && area > covered * 3 / 2 {
            break;
        }
        (left, top, right, bottom) = (new_left, new_top, new_right, new_bottom);
        used += 1;
    }
    let mut canvas = Canvas::new((right - left).max(0) as u32, (bottom - top).max(0) as u32);
    for piece in &pieces[..used] {
        if let Piece::Bars { x, y, height, row } = piece {
            for (n, colour) in row.iter().enumerate() {
                canvas.fill((x - left + n as i32, y - top), (1, *height), *colour);
            }
        }
    }
    (left, top, canvas, used)
}

fn rectangle(x: i32, y: i32, canvas: &Canvas) -> Option<VideoOverlayRectangle> {
    let (width, height) = (canvas.width(), canvas.height());
    if width == 0 || height == 0 {
        return None;
    }
    // The byte order that compositions are in: ARGB of a 32-bit number.
    let (format, order) = if cfg!(target_endian = "little") {
        (VideoFormat::Bgra, [2, 1, 0, 3])
    } else {
        (VideoFormat::Argb, [3, 0, 1, 2])
    };
    let bytes: Vec<u8> = canvas.pixels().iter().flat_map(|pixel| order.map(|n| pixel[n])).collect();
    let mut buffer = gst::Buffer::from_slice(bytes);
    VideoMeta::add(buffer.get_mut()?, VideoFrameFlags::empty(), format, width, height).ok()?;
    Some(VideoOverlayRectangle::new_raw(
        &buffer,
        x,
        y,
        width,
        height,
        VideoOverlayFormatFlags::PREMULTIPLIED_ALPHA,
    ))
}
