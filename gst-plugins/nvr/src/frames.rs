//! Raw video frames as `nvr-core` sees them.

use gst_video::{VideoColorMatrix, VideoColorRange, VideoFormat, VideoFrameExt, VideoFrameRef, VideoInfo};
use nvr_core::frame::{ColorMatrix, ColorRange, Frame, PixelFormat, Plane};

/// Formats that can be looked at.
pub const FORMATS: [VideoFormat; 10] = [
    VideoFormat::Nv12,
    VideoFormat::I420,
    VideoFormat::Yv12,
    VideoFormat::Rgb,
    VideoFormat::Bgr,
    VideoFormat::Rgba,
    VideoFormat::Rgbx,
    VideoFormat::Bgra,
    VideoFormat::Bgrx,
    VideoFormat::Gray8,
];

/// The format, and which of GStreamer's planes is which of ours.
pub fn layout(format: VideoFormat) -> Option<(PixelFormat, &'static [usize])> {
    Some(match format {
        VideoFormat::Nv12 => (PixelFormat::Nv12, &[0, 1]),
        VideoFormat::I420 => (PixelFormat::I420, &[0, 1, 2]),
        // I420 with the chroma planes exchanged.
        VideoFormat::Yv12 => (PixelFormat::I420, &[0, 2, 1]),
        VideoFormat::Rgb => (PixelFormat::Rgb, &[0]),
        VideoFormat::Bgr => (PixelFormat::Bgr, &[0]),
        VideoFormat::Rgba | VideoFormat::Rgbx => (PixelFormat::Rgbx, &[0]),
        VideoFormat::Bgra | VideoFormat::Bgrx => (PixelFormat::Bgrx, &[0]),
        VideoFormat::Gray8 => (PixelFormat::Gray8, &[0]),
        _ => return None,
    })
}

pub fn color(info: &VideoInfo) -> (ColorMatrix, ColorRange) {
    let colorimetry = info.colorimetry();
    let matrix = match colorimetry.matrix() {
        VideoColorMatrix::Bt709 => ColorMatrix::Bt709,
        VideoColorMatrix::Bt2020 => ColorMatrix::Bt2020,
        _ => ColorMatrix::Bt601,
    };
    let range = match colorimetry.range() {
        VideoColorRange::Range0_255 => ColorRange::Full,
        _ => ColorRange::Limited,
    };
    (matrix, range)
}

/// A mapped frame as the preprocessor takes it, without a copy. Strides and offsets are those of the buffer's
/// `GstVideoMeta` where it has one. `None` where the memory is not laid out forwards.
pub fn view<'a>(frame: &'a VideoFrameRef<&gst::BufferRef>) -> Option<Frame<'a>> {
    let info = frame.info();
    let (format, order) = layout(info.format())?;
    let mut planes = [Plane::default(); 3];
    for (plane, &index) in planes.iter_mut().zip(order) {
        let stride = usize::try_from(*frame.plane_stride().get(index)?).ok()?;
        let data = frame.plane_data(index as u32).ok()?;
        *plane = Plane { data, stride };
    }
    let (matrix, range) = color(info);
    Some(Frame {
        format,
        width: info.width() as usize,
        height: info.height() as usize,
        planes,
        matrix,
        range,
    })
}
