//! Mapped frames as the drawing code takes them.

use gst_video::{VideoColorMatrix, VideoColorRange, VideoFormat, VideoFrameExt, VideoFrameRef, VideoInfo};
use nvr_core::frame::{ColorMatrix, ColorRange, Frame, FrameMut, PixelFormat, Plane, PlaneMut};

pub(super) fn pixel_format(format: VideoFormat) -> Option<PixelFormat> {
    match format {
        VideoFormat::Nv12 => Some(PixelFormat::Nv12),
        VideoFormat::I420 => Some(PixelFormat::I420),
        _ => None,
    }
}

/// What the codes of a picture mean.
pub(super) fn colours(info: &VideoInfo) -> (ColorMatrix, ColorRange) {
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

/// `None` where the format is not planar YUV or the memory is not laid out forwards.
pub(super) fn read<'a>(frame: &'a VideoFrameRef<&gst::BufferRef>) -> Option<Frame<'a>> {
    let info = frame.info();
    let format = pixel_format(info.format())?;
    let mut planes = [Plane::default(); 3];
    for (index, plane) in planes.iter_mut().enumerate().take(format.planes()) {
        let stride = usize::try_from(*frame.plane_stride().get(index)?).ok()?;
        *plane = Plane { data: frame.plane_data(index as u32).ok()?, stride };
    }
    let (matrix, range) = colours(info);
    Some(Frame {
        format,
        width: info.width() as usize,
        height: info.height() as usize,
        planes,
        matrix,
        range,
    })
}

/// As [`read`], for drawing.
pub(super) fn write<'a>(frame: &'a mut VideoFrameRef<&mut gst::BufferRef>) -> Option<FrameMut<'a>> {
    let info = frame.info();
    let format = pixel_format(info.format())?;
    let (width, height) = (info.width() as usize, info.height() as usize);
    let (matrix, range) = colours(info);
    let mut strides = [0; 3];
    for (stride, value) in strides.iter_mut().zip(frame.plane_stride()) {
        *stride = usize::try_from(*value).ok()?;
    }
    let [first, second, third, _] = frame.planes_data_mut();
    let planes = [
        PlaneMut { data: first, stride: strides[0] },
        PlaneMut { data: second, stride: strides[1] },
        PlaneMut { data: third, stride: strides[2] },
    ];
    Some(FrameMut { format, width, height, planes, matrix, range })
}
