//! What the wall looks like, next to pictures that a person has looked at: by structural similarity, so that another
//! rounding is no failure. With `NVR_WRITE_GOLDEN=1` the pictures are written anew; look at them before they are kept.

mod devices;
mod gl;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use gst::prelude::*;
use nvr_core::{
    frame::{ColorMatrix, ColorRange, FrameMut, PixelFormat, PlaneMut},
    scene::{Moment, Scene, SceneConfig, SceneKind},
};
use nvr_tests::{
    data,
    mosquitto::{Access, Mosquitto},
    picture::Picture,
};

/// More than the slowest machine needs; reached only where something is broken.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(60);
/// Below this, a person sees that something is different.
const ALIKE: f64 = 0.97;

/// One camera: its scene's seed, its size, and the properties of its pad.
struct Camera {
    seed: u64,
    size: (usize, usize),
    format: PixelFormat,
    pad: &'static str,
}

fn camera(seed: u64, size: (usize, usize), format: PixelFormat, pad: &'static str) -> Camera {
    Camera { seed, size, format, pad }
}

/// A still picture of a scene.
fn still(camera: &Camera) -> anyhow::Result<gst::Buffer> {
    let (width, height) = camera.size;
    let config = SceneConfig {
        width,
        height,
        objects: 4,
        kind: SceneKind::ALL[camera.seed as usize % SceneKind::ALL.len()],
        seed: camera.seed,
        night: false,
        noise: 0.0,
    };
    let mut scene = Scene::new(&config);
    let (matrix, range) = (ColorMatrix::Bt601, ColorRange::Limited);
    scene.prepare(camera.format, matrix, range);
    let mut bytes = vec![0_u8; width * height * 3 / 2];
    let (luma, chroma) = bytes.split_at_mut(width * height);
    let (first, second) = chroma.split_at_mut(if camera.format == PixelFormat::Nv12 {
        width * height / 2
    } else {
        width * height / 4
    });
    let stride = if camera.format == PixelFormat::Nv12 { width } else { width / 2 };
    let mut frame = FrameMut {
        format: camera.format,
        width,
        height,
        planes: [
            PlaneMut { data: luma, stride: width },
            PlaneMut { data: first, stride },
            PlaneMut { data: second, stride },
        ],
        matrix,
        range,
    };
    let moment = Moment { scene_ns: 3_000_000_000, unix_ms: Some(1_795_229_276_123) };
    scene.render(moment, &mut frame)?;
    Ok(gst::Buffer::from_mut_slice(bytes))
}

/// The wall once it shows every camera that has a picture, as RGB.
fn wall(size: (u32, u32), properties: &str, cameras: &[Camera], silent: usize) -> anyhow::Result<Picture> {
    nvr_launch_elements();
    let pads: String = (0..cameras.len() + silent)
        .map(|n| {
            cameras.get(n).map_or(String::new(), |camera| camera.pad.replace("::", &format!("sink_{n}::")))
                + " "
        })
        .collect();
    let description = format!(
        "nvrcompositor name=wall {properties} {pads} \
         ! video/x-raw,format=I420,width={},height={},framerate=25/1,colorimetry=bt601 \
         ! appsink name=out max-buffers=1 drop=true sync=false",
        size.0, size.1
    );
    let pipeline = gst::parse::launch(&description)?.downcast::<gst::Pipeline>().expect("a pipeline");
    let compositor = pipeline.by_name("wall").context("the wall")?;
    let mut sources = Vec::new();
    for (n, camera) in cameras.iter().enumerate() {
        let format = if camera.format == PixelFormat::Nv12 { "NV12" } else { "I420" };
        let caps = format!(
            "video/x-raw,format={format},width={},height={},framerate=25/1,colorimetry=bt601",
            camera.size.0, camera.size.1
        );
        let source = gst_app::AppSrc::builder()
            .caps(&caps.parse::<gst::Caps>()?)
            .format(gst::Format::Time)
            .is_live(true)
            .do_timestamp(true)
            .build();
        pipeline.add(&source)?;
        source.link_pads(Some("src"), &compositor, Some(&format!("sink_{n}")))?;
        sources.push(source);
    }
    for n in cameras.len()..cameras.len() + silent {
        compositor.request_pad_simple(&format!("sink_{n}")).context("a pad")?;
    }
    pipeline.set_state(gst::State::Playing)?;
    for (source, camera) in sources.iter().zip(cameras) {
        source.push_buffer(still(camera)?)?;
    }
    let out = pipeline.by_name("out").and_downcast::<gst_app::AppSink>().context("the output")?;
    // A picture is counted before the wall with it is drawn, and one wall may lie in the sink already.
    let mut since_all_shown = 0;
    let sample = loop {
        let sample = out.try_pull_sample(PATIENCE).context("the wall stands still")?;
        let shown = |pad: &gst::Pad| {
            let stats: gst::Structure = pad.property("stats");
            stats.get::<u64>("shown").is_ok_and(|shown| shown > 0)
        };
        if since_all_shown == 3 {
            break sample;
        }
        if compositor.sink_pads().iter().filter(|pad| shown(pad)).count() == cameras.len() {
            since_all_shown += 1;
        }
    };
    pipeline.set_state(gst::State::Null)?;
    let rgb = gst_video::convert_sample(
        &sample,
        &gst::Caps::builder("video/x-raw").field("format", "RGB").build(),
        Some(PATIENCE),
    )?;
    let (width, height) = (size.0 as usize, size.1 as usize);
    let map = rgb.buffer().context("a picture")?.map_readable()?;
    let stride = (width * 3).next_multiple_of(4);
    let rows = map.chunks(stride).take(height).flat_map(|row| &row[..width * 3]).copied();
    Ok(Picture { width, height, rgb: rows.collect() })
}

fn nvr_launch_elements() {
    assert_eq!(
        nvr_launch::cli::main(["nvr-launch", "check", "wall"].map(Into::into)),
        std::process::ExitCode::SUCCESS
    );
}

fn luma(picture: &Picture) -> Vec<f64> {
    let rgb = picture.rgb.chunks_exact(3);
    rgb.map(|p| 0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2])).collect()
}

/// Mean structural similarity of the luma over blocks of eight by eight (Wang et al. 2004).
fn ssim(a: &Picture, b: &Picture) -> f64 {
    const BLOCK: usize = 8;
    assert_eq!((a.width, a.height), (b.width, b.height));
    let (luma_a, luma_b) = (luma(a), luma(b));
    let (mut sum, mut count) = (0.0, 0.0);
    for top in (0..a.height - BLOCK).step_by(BLOCK / 2) {
        for left in (0..a.width - BLOCK).step_by(BLOCK / 2) {
            let n = (BLOCK * BLOCK) as f64;
            let (mut sa, mut sb, mut saa, mut sbb, mut sab) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for y in top..top + BLOCK {
                for x in left..left + BLOCK {
                    let (p, q) = (luma_a[y * a.width + x], luma_b[y * a.width + x]);
                    sa += p;
                    sb += q;
                    saa += p * p;
                    sbb += q * q;
                    sab += p * q;
                }
            }
            let (ma, mb) = (sa / n, sb / n);
            let (va, vb, cov) = (saa / n - ma * ma, sbb / n - mb * mb, sab / n - ma * mb);
            let (c1, c2) = (6.5025, 58.5225);
            sum += (2.0 * ma * mb + c1) * (2.0 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2));
            count += 1.0;
        }
    }
    sum / count
}

fn golden(name: &str) -> PathBuf {
    data::own("wall").join(format!("{name}.jpg"))
}

/// Writes a picture as JPEG.
fn write(picture: &Picture, path: &std::path::Path) -> anyhow::Result<()> {
    let caps =
        format!("video/x-raw,format=RGB,width={},height={},framerate=1/1", picture.width, picture.height);
    let stride = (picture.width * 3).next_multiple_of(4);
    let mut bytes = Vec::with_capacity(stride * picture.height);
    for row in picture.rgb.chunks_exact(picture.width * 3) {
        bytes.extend_from_slice(row);
        bytes.resize(bytes.len().next_multiple_of(stride), 0);
    }
    let pipeline = gst::parse::launch(&format!(
        "appsrc name=in format=time caps={caps} ! videoconvert ! video/x-raw,format=I420,colorimetry=1:4:0:0 \
         ! jpegenc quality=90 ! filesink location={}",
        path.display()
    ))?;
    let source =
        pipeline.downcast_ref::<gst::Bin>().and_then(|bin| bin.by_name("in")).context("the source")?;
    let source = source.downcast::<gst_app::AppSrc>().expect("an appsrc");
    pipeline.set_state(gst::State::Playing)?;
    source.push_buffer(gst::Buffer::from_mut_slice(bytes))?;
    source.end_of_stream()?;
    let bus = pipeline.bus().context("a bus")?;
    let done = bus.timed_pop_filtered(PATIENCE, &[gst::MessageType::Eos, gst::MessageType::Error]);
    pipeline.set_state(gst::State::Null)?;
    anyhow::ensure!(done.is_some_and(|message| message.type_() == gst::MessageType::Eos), "not written");
    Ok(())
}

fn check(name: &str, picture: &Picture) -> anyhow::Result<()> {
    let path = golden(name);
    if std::env::var_os("NVR_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        write(picture, &path)?;
        println!("written: {}", path.display());
        return Ok(());
    }
    let wanted = Picture::load(&path)?;
    let found = ssim(picture, &wanted);
    if found < ALIKE {
        let other = std::env::temp_dir().join(format!("wall-{name}.jpg"));
        write(picture, &other)?;
        anyhow::bail!("{name}: similarity {found:.3} to {}; it is now {}", path.display(), other.display());
    }
    Ok(())
}

const I420: PixelFormat = PixelFormat::I420;
const NV12: PixelFormat = PixelFormat::Nv12;

#[test]
fn a_grid_with_labels_and_a_camera_that_connects() -> anyhow::Result<()> {
    let cameras = [
        camera(1, (640, 360), I420, "::label=\"Street, north side\""),
        camera(2, (1280, 720), NV12, "::label=Room"),
        camera(
            3,
            (640, 480),
            I420,
            "::label=\"Yard behind the house with a very long name that does not fit\"",
        ),
    ];
    check("grid", &wall((960, 540), "", &cameras, 1)?)
}

#[test]
fn one_large_and_others_around_it() -> anyhow::Result<()> {
    let cameras: Vec<_> =
        (1..7).map(|seed| camera(seed, (640, 360), if seed % 2 == 0 { NV12 } else { I420 }, "")).collect();
    check("focus", &wall((960, 540), "layout=focus focus=2", &cameras, 0)?)
}

#[test]
fn a_custom_layout_in_portrait_with_every_fit() -> anyhow::Result<()> {
    let cameras = [
        camera(1, (640, 360), I420, "::fit=crop ::column=0 ::row=0 ::column-span=2 ::row-span=2"),
        camera(2, (360, 640), I420, "::fit=letterbox ::column=0 ::row=2"),
        camera(3, (640, 360), NV12, "::fit=stretch ::column=1 ::row=2"),
    ];
    check("custom", &wall((480, 720), "layout=custom columns=2", &cameras, 0)?)
}

/// The broker is killed while boxes come, and is back later: pictures go on all the while, and so do boxes then.
#[test]
fn a_wall_goes_on_without_its_broker() -> anyhow::Result<()> {
    let Some(mut broker) = Mosquitto::start(Access::Open) else { return Ok(()) };
    nvr_launch_elements();
    let url = broker.url();
    let pipeline = gst::parse::launch(&format!(
        "nvrtestsrc objects=4 ! video/x-raw,width=320,height=180,framerate=25/1 ! tee name=camera \
         camera. ! queue ! nvrmqttsink broker={url} source-id=3 \
         camera. ! queue ! nvroverlay name=boxes broker={url} source-id=3 \
            ! nvrcompositor name=wall sink_0::source-id=3 \
            ! video/x-raw,width=320,height=180,framerate=25/1 ! appsink name=out max-buffers=1 drop=true sync=false"
    ))?
    .downcast::<gst::Pipeline>()
    .expect("a pipeline");
    let element = |name: &str| pipeline.by_name(name).with_context(|| format!("{name} is missing"));
    let (boxes, wall) = (element("boxes")?, element("wall")?);
    let tile = wall.static_pad("sink_0").context("the tile")?;
    let out = element("out")?.downcast::<gst_app::AppSink>().expect("an appsink");
    let number = |object: &gst::glib::Object, field: &str| -> u64 {
        object.property::<gst::Structure>("stats").get(field).unwrap_or(0)
    };
    let (events, shown) = (|| number(boxes.upcast_ref(), "events"), || number(tile.upcast_ref(), "shown"));
    let connected = || boxes.property::<gst::Structure>("stats").get::<bool>("connected") == Ok(true);
    // Looks at the wall until something is true. Nothing waits longer than for the next picture.
    let until = |what: &str, done: &dyn Fn() -> bool| -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(PATIENCE.seconds());
        while !done() {
            anyhow::ensure!(Instant::now() < deadline, "{what} did not happen");
            out.try_pull_sample(PATIENCE).with_context(|| format!("the wall stands still before {what}"))?;
        }
        Ok(())
    };
    pipeline.set_state(gst::State::Playing)?;
    until("the first boxes", &|| events() > 5)?;
    broker.kill();
    until("the loss of the broker", &|| !connected())?;
    let (silent, before) = (events(), shown());
    until("a hundred pictures without a broker", &|| shown() >= before + 100)?;
    let offline = tile.property::<gst::Structure>("stats").get::<bool>("offline");
    assert_eq!(offline, Ok(false), "the camera is there");
    broker.restart();
    until("boxes again", &|| events() > silent + 5)?;
    pipeline.set_state(gst::State::Null)?;
    Ok(())
}

#[test]
fn similarity_tells_pictures_apart() {
    let flat = |value: u8| Picture { width: 64, height: 64, rgb: vec![value; 64 * 64 * 3] };
    let mut dots = flat(100);
    dots.rgb.iter_mut().step_by(5).for_each(|byte| *byte = 180);
    assert!(ssim(&dots, &dots) > 0.999);
    assert!(ssim(&dots, &flat(116)) < 0.5);
    assert!(ssim(&flat(40), &flat(200)) < 0.5);
}
