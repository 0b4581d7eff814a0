//! Writes docs/ref/elements.md to standard output, from what the registered elements say of themselves.
//!
//! The page is checked by a test, so it cannot drift from the elements. What an element cannot say of itself, an
//! example and the prose before it, stands here.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use gst::{glib, prelude::*};

/// Factory, what to know before using it, and a pipeline for gst-launch-1.0.
const EXAMPLES: &[(&str, &str, &str)] = &[
    (
        "nvrsrc",
        "One camera, from its address to raw frames. It connects again for as long as it runs: downstream sees a live \
         stream that pauses, never an end and never a timestamp that goes back. Each frame carries its number and \
         its capture time: the camera's own clock where that is known and within 10 s of this machine's, else the \
         time of arrival. With `decode=auto` a camera whose keyframes come at least `max-fps` times a second is \
         decoded from keyframes alone. Addresses: `rtsp://`, `rtsps://`, `http://`, `https://`, `file://`, and \
         `testsrc://?seed=7&width=640&height=360` for an nvrtestsrc.",
        "gst-launch-1.0 nvrsrc uri=rtsp://camera.example/stream max-fps=5 ! nvrinfer model=yolox-nano \
         ! nvrmqttsink source-id=0",
    ),
    (
        "nvrtestsrc",
        "A camera for demos and tests: people, cars and dogs that move over textured ground, the same for the same \
         seed. Each frame carries what is on it as detections, exactly, and its number and capture time; the time is \
         also drawn along the top, as text and as a strip that programs read after encoding and scaling. The source \
         is live: on a machine that is too slow it leaves frames out, as a camera does. With `is-live=false` frames \
         come as fast as they are taken.",
        "gst-launch-1.0 nvrtestsrc seed=7 ground-truth=false num-buffers=300 ! video/x-raw,width=640,height=360,framerate=10/1 \
         ! nvrinfer model=demo ! nvrmqttsink source-id=0",
    ),
    (
        "nvrmotion",
        "Says of each frame whether anything moves in it, and where, from a small copy of the brightness: \
         `nvrinfer gate=motion` then looks at those frames only. See [motion and tracking](../guide/tracking.md).",
        "gst-launch-1.0 nvrtestsrc ground-truth=false ! nvrmotion masks='0,0 1,0 1,0.09 0,0.09' \
         ! nvrinfer model=demo gate=motion ! nvrmqttsink source-id=0",
    ),
    (
        "nvrinfer",
        "Object detection in place: the frame goes through untouched, detections travel on it as metadata. The \
         model's input is sampled straight from the decoded frame, so no videoconvert or videoscale belongs in \
         front of it. See [models](models.md) for which models it takes and how it learns about them.",
        "gst-launch-1.0 filesrc location=street.mp4 ! decodebin3 ! nvrinfer model=yolox-nano threshold=0.4 \
         classes=person,car ! nvrmqttsink source-id=0",
    ),
    (
        "nvrtrack",
        "Follows detected objects from frame to frame and gives each an id; reads and writes metadata only. See \
         [motion and tracking](../guide/tracking.md) and [how well it follows](tracking-accuracy.md).",
        "gst-launch-1.0 nvrtestsrc ground-truth=false ! nvrinfer model=demo max-fps=5 ! nvrtrack \
         ! nvrmqttsink source-id=0",
    ),
    (
        "nvrzones",
        "Makes events of tracked objects: when they appear and go, which zones they are in, which lines they cross, \
         and alerts. `zones` and `rules` are JSON, described in [zones, events and \
         alerts](../guide/zones-and-alerts.md).",
        "gst-launch-1.0 nvrtestsrc ! nvrtrack ! nvrzones publish=false ! fakesink",
    ),
    (
        "nvrmqttsink",
        "Publishes one event for each analysed frame, as in [protocol](protocol.md). It reads metadata and never pixels, \
         so it takes any caps. Detections of any element will do: DL Streamer's region-of-interest structures, or \
         GstAnalyticsRelationMeta where GStreamer has it; those that nvrinfer did not make have the `model_id` \
         `external`. It waits neither for a broker nor because of one; at the end of the stream it waits for its \
         queue, for 2 seconds at most. All elements of a process that name the same broker share a connection.",
        "gst-launch-1.0 rtspsrc location=rtsp://camera.example/stream ! rtph264depay ! h264parse ! avdec_h264 \
         ! nvrinfer model=yolox-nano ! nvrmqttsink source-id=0 broker=mqtt://localhost:1883",
    ),
    (
        "nvroverlay",
        "Boxes on video: those that nvrmqttsink publishes for a camera, in whatever process, those that the frames \
         carry, or both. With `sync=timestamp` an event is shown on the frame that it was made from, and video waits for \
         it for at most `max-wait`; with `sync=latest` nothing waits. Draws into the frames without converting them, or \
         attaches a GstVideoOverlayCompositionMeta where downstream takes one. See [boxes on \
         video](../guide/overlay.md).",
        "gst-launch-1.0 nvrsrc uri=rtsp://camera.example/stream ! nvroverlay source-id=0 \
         broker=mqtt://localhost:1883 sync=timestamp ! videoconvert ! autovideosink",
    ),
    (
        "nvrcompositor",
        "Many cameras in one picture, at a constant rate: it shows the newest picture of each and waits for none. \
         Tiles are scaled straight into the wall's picture, and what has not changed is not drawn again. Cameras come, \
         go, freeze and change size while it plays. See [the video wall](../guide/wall.md).",
        "gst-launch-1.0 nvrcompositor name=wall sink_0::label=Yard sink_1::label=Street \
         ! video/x-raw,width=1280,height=720,framerate=25/1 ! videoconvert ! autovideosink \
         nvrtestsrc scene=yard ! wall.sink_0 nvrtestsrc scene=street ! wall.sink_1",
    ),
    (
        "nvrrecordsink",
        "Records coded video, and AAC or Opus sound, without decoding: fragmented MP4 files that begin with a keyframe, \
         play while they are written and after a power cut, and lie under camera, day and hour in UTC. A catalogue in \
         SQLite lists them; limits of age, bytes and free space remove what it lists and nothing else. With \
         `mode=events` only what happens around detections that the broker tells of is kept. A disk that is full, \
         read-only, slow or gone holds nothing else up. See [recording](../guide/recording.md).",
        "gst-launch-1.0 -e nvrsrc uri=rtsp://camera.example/stream decode=none name=cam cam.encoded \
         ! nvrrecordsink name=rec location=recordings cam.audio ! rec.audio",
    ),
    (
        "nvrcontrol",
        "Takes [commands](commands.md) from MQTT and carries them out in the pipeline that it stands in, wherever \
         that is: pause, resume, rate, confidence, model, tracking, name. What needs new elements it offers to the \
         application by the signal `command`, whose answer becomes the answer to the command; `describe` asks the \
         application for its part of the status.",
        "gst-launch-1.0 nvrtestsrc is-live=true ! nvrinfer model=demo ! nvrmqttsink source-id=0 \
         nvrcontrol instance-id=own broker=mqtt://localhost:1883",
    ),
];

fn main() -> Result<()> {
    gst::init()?;
    gstnvr::plugin_register_static()?;

    let mut factories: Vec<_> = gst::Registry::get()
        .features_by_plugin("nvr")
        .into_iter()
        .filter_map(|feature| feature.downcast::<gst::ElementFactory>().ok())
        .collect();
    factories.sort_by_key(GstObjectExt::name);
    ensure!(!factories.is_empty(), "the plugin registered no element");

    let mut page = String::from(
        "<!-- Written by `make docs` from the elements themselves. Do not edit; edit the elements or\n     \
         tests/src/bin/element-docs.rs. -->\n\n# Elements\n\nPlugin `nvr`, file `libgstnvr.so`. All have rank \
         NONE: no automatic element picks them. Properties of their base classes are not repeated. *Set* says \
         until when a property can be changed: *any time* takes effect on the next buffer. What the elements post \
         on the bus and count in `stats` is explained in [messages](messages.md).\n\n| element | what it is |\n| --- | --- |\n",
    );
    for factory in &factories {
        writeln!(page, "| [{0}](#{0}) | {1} |", factory.name(), factory.longname())?;
    }
    for factory in &factories {
        element(&mut page, factory).with_context(|| format!("element {}", factory.name()))?;
    }
    print!("{page}");
    Ok(())
}

fn element(page: &mut String, factory: &gst::ElementFactory) -> Result<()> {
    let name = factory.name();
    let (_, notes, example) = EXAMPLES
        .iter()
        .find(|(element, ..)| *element == name)
        .context("no example; add one to tests/src/bin/element-docs.rs")?;
    let instance = factory.create().build()?;

    writeln!(page, "\n## {name}\n")?;
    writeln!(
        page,
        "**{}** ({}). {}\n\n{notes}\n",
        factory.longname(),
        factory.klass(),
        factory.description()
    )?;
    writeln!(
        page,
        "```sh\n{}\n```\n",
        example.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ! ", " \\\n  ! ")
    )?;

    writeln!(page, "| pad | direction | when | caps |\n| --- | --- | --- | --- |")?;
    let mut templates: Vec<_> = factory.static_pad_templates().into_iter().collect();
    templates.sort_by_key(gst::StaticPadTemplate::name_template);
    for template in templates {
        let direction = match template.direction() {
            gst::PadDirection::Sink => "sink",
            gst::PadDirection::Src => "source",
            gst::PadDirection::Unknown => "unknown",
        };
        let presence = match template.presence() {
            gst::PadPresence::Always => "always",
            gst::PadPresence::Sometimes => "sometimes",
            gst::PadPresence::Request => "on request",
        };
        let caps = caps(&template.caps());
        writeln!(page, "| `{}` | {direction} | {presence} | {caps} |", template.name_template())?;
    }

    let own = properties(&instance);
    if !own.is_empty() {
        writeln!(page, "\n| property | type and range | default | set | |\n| --- | --- | --- | --- | --- |")?;
    }
    for pspec in own {
        let (kind, default) = kind_and_default(&pspec);
        let blurb = pspec.blurb().unwrap_or_default();
        ensure!(!blurb.is_empty(), "property {} has no blurb", pspec.name());
        writeln!(
            page,
            "| `{}` | {kind} | {default} | {} | {} |",
            pspec.name(),
            mutability(&pspec),
            cell(blurb)
        )?;
    }

    let choices: Vec<_> = properties(&instance).iter().filter_map(choices).collect();
    if !choices.is_empty() {
        writeln!(page, "\n{}", choices.join("\n"))?;
    }
    Ok(())
}

/// What the element itself and its own parents in this plugin declare, by name.
fn properties(element: &gst::Element) -> Vec<glib::ParamSpec> {
    let mut own: Vec<_> = element
        .list_properties()
        .iter()
        .filter(|pspec| pspec.owner_type().name().contains("Nvr"))
        .cloned()
        .collect();
    own.sort_by_key(glib::ParamSpec::name);
    own
}

fn mutability(pspec: &glib::ParamSpec) -> &'static str {
    let flags = pspec.flags();
    if !flags.contains(glib::ParamFlags::WRITABLE) {
        "read only"
    } else if flags.contains(glib::ParamFlags::CONSTRUCT_ONLY) {
        "when made"
    } else if flags.contains(gst::PARAM_FLAG_MUTABLE_PLAYING) {
        "any time"
    } else if flags.contains(gst::PARAM_FLAG_MUTABLE_PAUSED) {
        "up to PAUSED"
    } else {
        "up to READY"
    }
}

/// Type with its range or values, and the default, both ready for a table cell.
fn kind_and_default(pspec: &glib::ParamSpec) -> (String, String) {
    macro_rules! number {
        ($name:literal, $kind:ty, $value:ty) => {
            if let Some(number) = pspec.downcast_ref::<$kind>() {
                let (low, high) = (number.minimum(), number.maximum());
                let range = match (low == <$value>::MIN, high == <$value>::MAX) {
                    (true, true) => String::new(),
                    (true, false) => format!(", up to {high}"),
                    (false, true) => format!(", from {low}"),
                    (false, false) => format!(", {low} to {high}"),
                };
                return (format!("{}{range}", $name), format!("`{}`", number.default_value()));
            }
        };
    }
    number!("int", glib::ParamSpecInt, i32);
    number!("uint", glib::ParamSpecUInt, u32);
    number!("int64", glib::ParamSpecInt64, i64);
    number!("uint64", glib::ParamSpecUInt64, u64);
    number!("float", glib::ParamSpecFloat, f32);
    number!("double", glib::ParamSpecDouble, f64);
    if let Some(boolean) = pspec.downcast_ref::<glib::ParamSpecBoolean>() {
        return ("boolean".into(), format!("`{}`", boolean.default_value()));
    }
    if let Some(string) = pspec.downcast_ref::<glib::ParamSpecString>() {
        let default = string.default_value().map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
        return ("string".into(), default);
    }
    if let Some(choice) = pspec.downcast_ref::<glib::ParamSpecEnum>() {
        let class = choice.enum_class();
        let values = class.values().iter().map(glib::EnumValue::nick).collect::<Vec<_>>().join(", ");
        let default = class.value(choice.default_value_as_i32()).map_or("", glib::EnumValue::nick).to_owned();
        return (format!("one of {values}"), format!("`{default}`"));
    }
    if let Some(flags) = pspec.downcast_ref::<glib::ParamSpecFlags>() {
        let class = flags.flags_class();
        let values = class.values().iter().map(glib::FlagsValue::nick).collect::<Vec<_>>().join(", ");
        let default = class.to_nick_string(flags.default_value_as_u32());
        return (format!("any of {values}"), format!("`{default}`"));
    }
    if let Some(fraction) = pspec.downcast_ref::<gst::ParamSpecFraction>() {
        let default = fraction.default_value();
        return ("fraction".into(), format!("`{}/{}`", default.numer(), default.denom()));
    }
    (short_type(pspec.value_type()).into(), "none".into())
}

/// A list item that says what each value of an enumeration means.
fn choices(pspec: &glib::ParamSpec) -> Option<String> {
    let class = pspec.downcast_ref::<glib::ParamSpecEnum>()?.enum_class();
    let values: Vec<_> =
        class.values().iter().map(|value| format!("  - `{}`: {}", value.nick(), value.name())).collect();
    Some(format!("- `{}`\n{}", pspec.name(), values.join("\n")))
}

fn short_type(kind: glib::Type) -> &'static str {
    match kind.name() {
        "gboolean" => "boolean",
        "gint" => "int",
        "guint" => "uint",
        "gint64" => "int64",
        "guint64" => "uint64",
        "gfloat" => "float",
        "gdouble" => "double",
        "gchararray" => "string",
        "GstStructure" => "structure",
        "GstValueArray" => "array",
        "GstValueList" => "list",
        other => other,
    }
}

/// One structure a line, without the type names that every video caps repeats.
fn caps(caps: &gst::Caps) -> String {
    if caps.is_any() {
        return "any".into();
    }
    let lines: Vec<_> = caps
        .iter_with_features()
        .map(|(structure, features)| {
            let mut one = gst::Caps::new_empty();
            one.make_mut().append_structure_full(structure.to_owned(), Some(features.to_owned()));
            let text = one.to_string().replace("(int)", "").replace("(string)", "").replace("(fraction)", "");
            format!("`{}`", text.trim_end_matches(';'))
        })
        .collect();
    cell(&lines.join("<br>"))
}

/// A `|` or a line end would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
