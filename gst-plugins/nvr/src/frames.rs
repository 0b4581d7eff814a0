//! Raw video frames as `nvr-core` sees them.

use gst_video::{
    VideoBufferPool, VideoColorMatrix, VideoColorRange, VideoFormat, VideoFrame, VideoFrameExt,
    VideoFrameRef, VideoInfo, VideoMeta,
};
use nvr_core::frame::{ColorMatrix, ColorRange, Frame, PixelFormat, Plane};

use crate::pixels::Pixels;

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

/// Whether planes and lines lie where the format alone says, so that whoever ignores `GstVideoMeta` reads the same.
pub fn is_packed(buffer: &gst::BufferRef, info: &VideoInfo) -> bool {
    buffer
        .meta::<VideoMeta>()
        .is_none_or(|meta| meta.stride() == info.stride() && meta.offset() == info.offset())
}

/// A copy with planes and lines where the format says. `None` for a buffer that is no such frame.
pub fn packed(buffer: &gst::BufferRef, info: &VideoInfo) -> Option<gst::Buffer> {
    let source = VideoFrameRef::from_buffer_ref_readable(buffer, info).ok()?;
    let mut frame = VideoFrame::from_buffer_writable(gst::Buffer::with_size(info.size()).ok()?, info).ok()?;
    source.copy(&mut frame.as_mut_video_frame_ref()).ok()?;
    let mut copy = frame.into_buffer();
    // Without the meta that says where things lay.
    buffer.copy_into(copy.get_mut()?, gst::BUFFER_COPY_METADATA, ..).ok()?;
    Some(copy)
}

/// Answers a decoder for system memory: it may lay its pictures out as it likes, and gets a pool for that, which makes it
/// decode in place. Libav's asks for both, or copies every picture. False where the memory is a device's.
pub fn offer_pool(query: &mut gst::query::Allocation) -> bool {
    let (caps, _) = query.get_owned();
    let Some(info) = caps
        .as_ref()
        .filter(|caps| caps.features(0).is_none_or(|features| features.contains("memory:SystemMemory")))
        .and_then(|caps| VideoInfo::from_caps(caps).ok())
    else {
        return false;
    };
    let Ok(size) = u32::try_from(info.size()) else { return false };
    if query.find_allocation_meta::<VideoMeta>().is_none() {
        query.add_allocation_meta::<VideoMeta>(None);
    }
    query.add_allocation_param(Some(&Pixels::default()), gst::AllocationParams::default());
    query.add_allocation_pool(Some(&VideoBufferPool::new()), size, 0, 0);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> VideoInfo {
        VideoInfo::builder(VideoFormat::I420, 30, 20).build().unwrap()
    }

    /// A frame with lines of 64 and 48 bytes and something between its planes, as decoders lay them out.
    fn padded(info: &VideoInfo) -> gst::Buffer {
        let mut buffer = gst::Buffer::with_size(64 * 64).unwrap();
        let pixels: Vec<_> = (0..64 * 64).map(|n| n as u8).collect();
        buffer.get_mut().unwrap().copy_from_slice(0, &pixels).unwrap();
        let writable = buffer.get_mut().unwrap();
        writable.set_pts(gst::ClockTime::from_seconds(7));
        VideoMeta::add_full(
            writable,
            gst_video::VideoFrameFlags::empty(),
            info.format(),
            info.width(),
            info.height(),
            &[0, 64 * 24, 64 * 24 + 48 * 16],
            &[64, 48, 48],
        )
        .unwrap();
        writable.set_flags(gst::BufferFlags::MARKER);
        buffer
    }

    fn lines(buffer: &gst::BufferRef, info: &VideoInfo) -> Vec<u8> {
        let frame = VideoFrameRef::from_buffer_ref_readable(buffer, info).unwrap();
        (0..3)
            .flat_map(|plane| {
                let (width, stride) = ([30, 15, 15][plane], frame.plane_stride()[plane] as usize);
                let data = frame.plane_data(plane as u32).unwrap();
                data.chunks(stride).take([20, 10, 10][plane]).flat_map(move |line| line[..width].to_vec())
            })
            .collect()
    }

    #[test]
    fn packing_moves_lines_and_planes_to_where_the_format_says() {
        gst::init().unwrap();
        let info = info();
        let buffer = padded(&info);
        assert!(!is_packed(&buffer, &info));
        let copy = packed(&buffer, &info).unwrap();
        assert!(is_packed(&copy, &info) && copy.meta::<VideoMeta>().is_none());
        assert_eq!(copy.size(), info.size());
        assert!(copy.pts() == buffer.pts() && lines(&copy, &info) == lines(&buffer, &info));
        let small = gst::Buffer::with_size(10).unwrap();
        assert!(is_packed(&small, &info) && packed(&small, &info).is_none());
    }
}
