//! Pictures lie where the decoder has put them, and stay what they are while it goes on.

use std::path::Path;

use gst::prelude::*;
use gst_app::AppSink;
use gst_video::{VideoFrameExt, VideoFrameRef, VideoInfo, VideoMeta};

use crate::player::{Player, SOON, clip};

/// What is seen, without what lies between and around the lines.
pub fn pixels(sample: &gst::Sample) -> Vec<u8> {
    let info = VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
    let frame = VideoFrameRef::from_buffer_ref_readable(sample.buffer().unwrap(), &info).unwrap();
    let mut seen = Vec::new();
    for component in 0..3 {
        let (width, height) = (info.comp_width(component) as usize, info.comp_height(component) as usize);
        let width = width * info.comp_pstride(component) as usize;
        let stride = frame.plane_stride()[component as usize] as usize;
        let data = frame.plane_data(u32::from(component)).unwrap();
        (0..height).for_each(|y| seen.extend_from_slice(&data[y * stride..][..width]));
    }
    seen
}

fn all(sink: &AppSink) -> Vec<gst::Sample> {
    std::iter::from_fn(|| sink.try_pull_sample(SOON)).collect()
}

/// The pictures of a clip, as GStreamer's decoder gives them by itself.
pub fn reference(clip: &Path) -> Vec<Vec<u8>> {
    let line = format!(
        "filesrc location={} ! qtdemux ! h264parse ! avdec_h264 direct-rendering=false ! appsink name=sink sync=false",
        clip.display()
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let sink = pipeline.by_name("sink").unwrap().downcast::<AppSink>().unwrap();
    let pictures = all(&sink).iter().map(pixels).collect();
    pipeline.set_state(gst::State::Null).unwrap();
    pictures
}

#[test]
fn pictures_that_are_kept_are_not_written_over_and_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    // 180 lines are coded as 192. Every picture but the last is one that another refers to.
    let Some(file) = clip(folder.path(), 50, 25, 0) else { return };
    let expected = reference(&file);
    assert_eq!(expected.len(), 50);

    for anywhere in [true, false] {
        let player = Player::new(&format!("file://{}", file.display()), |_| {});
        if anywhere {
            let pad = player.sink.static_pad("sink").unwrap();
            pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| match info.query_mut() {
                Some(query) => match query.view_mut() {
                    gst::QueryViewMut::Allocation(query) => {
                        query.add_allocation_meta::<VideoMeta>(None);
                        gst::PadProbeReturn::Handled
                    }
                    _ => gst::PadProbeReturn::Ok,
                },
                None => gst::PadProbeReturn::Ok,
            });
        }
        player.pipeline.set_state(gst::State::Playing).unwrap();
        let samples = all(&player.sink);
        assert_eq!(samples.len(), 50, "{anywhere}");
        for (n, (sample, expected)) in samples.iter().zip(&expected).enumerate() {
            let buffer = sample.buffer().unwrap();
            assert!(pixels(sample) == *expected, "picture {n}, {anywhere}");
            // What a decoder still refers to, nobody may write to: it is the decoder's own memory. The first is decoded
            // before anybody is asked for memory.
            let read_only = buffer.peek_memory(0).flags().contains(gst::MemoryFlags::READONLY);
            assert!([0, 49].contains(&n) || read_only == anywhere, "picture {n}, {anywhere}");
            assert!(anywhere || buffer.meta::<VideoMeta>().is_none(), "picture {n}");
        }
    }
}
