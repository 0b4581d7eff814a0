//! The best view of an object: a cut-out of the frame while it may still be wanted, and a JPEG of it.

use std::collections::{HashMap, HashSet};

use gst_video::{VideoConverter, VideoConverterConfig, VideoFormat, VideoFrameRef, VideoInfo};
use nvr_core::geometry::Rect;

/// Cut-outs that are kept at a time.
const MAX_KEPT: usize = 64;
/// What is shown around an object, in its own sizes.
const MARGIN: f32 = 0.25;
/// Longest side of a picture, pixels.
const LONGEST: u32 = 800;
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// A part of a frame, on its own.
#[derive(Clone, Debug)]
pub struct View(gst::Sample);

/// Best views that have not been published, and whose have been.
#[derive(Debug, Default)]
pub struct Views {
    kept: HashMap<u64, View>,
    published: HashSet<u64>,
}

impl Views {
    /// Whether a view of this track can be kept.
    pub fn has_room(&self, track: u64) -> bool {
        self.kept.len() < MAX_KEPT || self.kept.contains_key(&track)
    }

    pub fn keep(&mut self, track: u64, view: View) {
        if self.has_room(track) {
            self.kept.insert(track, view);
        }
    }

    /// The view that goes with an event, and whether any has gone with this one or an earlier one.
    pub fn take(&mut self, track: u64) -> (Option<View>, bool) {
        let view = self.kept.remove(&track);
        if view.is_some() {
            self.published.insert(track);
        }
        (view, self.published.contains(&track))
    }

    /// Forgets tracks that are gone.
    pub fn forget(&mut self, tracks: &[u64]) {
        for track in tracks {
            self.kept.remove(track);
            self.published.remove(track);
        }
    }
}

impl View {
    /// What surrounds `rect`; `None` where there is nothing to see.
    pub fn cut(buffer: &gst::BufferRef, info: &VideoInfo, rect: &Rect) -> Result<Option<Self>, String> {
        let wide = Rect::new(
            rect.x - MARGIN * rect.width,
            rect.y - MARGIN * rect.height,
            rect.width * (1.0 + 2.0 * MARGIN),
            rect.height * (1.0 + 2.0 * MARGIN),
        )
        .clipped(info.width() as f32, info.height() as f32);
        Self::part(buffer, info, &wide)
    }

    /// All that the camera shows.
    pub fn whole(buffer: &gst::BufferRef, info: &VideoInfo) -> Result<Option<Self>, String> {
        Self::part(buffer, info, &Rect::new(0.0, 0.0, info.width() as f32, info.height() as f32))
    }

    fn part(buffer: &gst::BufferRef, info: &VideoInfo, wide: &Rect) -> Result<Option<Self>, String> {
        // Even corners suit every chroma format.
        let even = |v: f32| (v as u32) & !1;
        let (x, y) = (even(wide.x), even(wide.y));
        let (w, h) = (even(wide.right()).saturating_sub(x), even(wide.bottom()).saturating_sub(y));
        if w < 8 || h < 8 {
            return Ok(None);
        }
        let shrink = (LONGEST as f32 / w.max(h) as f32).min(1.0);
        let size = |v: u32| even(v as f32 * shrink).max(2);
        let small = VideoInfo::builder(VideoFormat::I420, size(w), size(h))
            .fps(info.fps())
            .build()
            .map_err(|error| error.to_string())?;
        let mut config = VideoConverterConfig::new();
        config.set_src_x(x as i32);
        config.set_src_y(y as i32);
        config.set_src_width(Some(w as i32));
        config.set_src_height(Some(h as i32));
        let converter = VideoConverter::new(info, &small, Some(config)).map_err(|error| error.to_string())?;
        let frame = VideoFrameRef::from_buffer_ref_readable(buffer, info)
            .map_err(|_| format!("a {}x{} frame cannot be read", info.width(), info.height()))?;
        let mut cut = gst::Buffer::with_size(small.size()).map_err(|error| error.to_string())?;
        if let Some(cut) = cut.get_mut() {
            let mut to = VideoFrameRef::from_buffer_ref_writable(cut, &small)
                .map_err(|_| "a best view cannot be written".to_owned())?;
            converter.frame_ref(&frame, &mut to);
        }
        let caps = small.to_caps().map_err(|error| error.to_string())?;
        Ok(Some(Self(gst::Sample::builder().buffer(&cut).caps(&caps).build())))
    }

    /// Width, a multiple of four, and pixels in red, green and blue without padding. For a worker.
    pub fn rgb(&self) -> Result<(usize, Vec<u8>), String> {
        let info = self.0.caps().and_then(|caps| VideoInfo::from_caps(caps).ok());
        let info = info.ok_or("a view has no size")?;
        let (width, height) = (info.width() & !3, info.height());
        let caps = gst_video::VideoCapsBuilder::new()
            .format(VideoFormat::Rgb)
            .width(width as i32)
            .height(height as i32)
            .pixel_aspect_ratio(gst::Fraction::new(1, 1))
            .build();
        let sample = gst_video::convert_sample(&self.0, &caps, Some(PATIENCE))
            .map_err(|error| format!("a view cannot be converted: {error}"))?;
        let buffer = sample.buffer().ok_or("a view became nothing")?;
        let rgb = buffer.map_readable().map_err(|error| error.to_string())?.to_vec();
        let good = width > 0 && rgb.len() == (3 * width * height) as usize;
        good.then_some((width as usize, rgb)).ok_or_else(|| "a view has another size than it says".into())
    }

    /// Takes milliseconds; for a worker.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        let caps = gst::Caps::builder("image/jpeg").build();
        let jpeg = gst_video::convert_sample(&self.0, &caps, Some(PATIENCE))
            .map_err(|error| format!("a best view cannot be written as JPEG: {error}"))?;
        let buffer = jpeg.buffer_owned().ok_or("a best view became nothing")?;
        Ok(buffer.map_readable().map_err(|error| error.to_string())?.to_vec())
    }
}
