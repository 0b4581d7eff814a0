//! One camera's pad: what was asked for, and what came.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::subclass::prelude::*;
use gst_video::VideoInfo;
use nvr_core::{layout::Position, rate::RateMeter};
use parking_lot::Mutex;

use super::NvrCompositorFit;

/// What the user asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// -1: the number of the pad.
    pub source_id: i32,
    pub label: Option<String>,
    pub row: i32,
    pub column: i32,
    pub row_span: u32,
    pub column_span: u32,
    pub fit: NvrCompositorFit,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            source_id: -1,
            label: None,
            row: -1,
            column: -1,
            row_span: 1,
            column_span: 1,
            fit: NvrCompositorFit::default(),
        }
    }
}

impl Settings {
    pub fn position(&self) -> Position {
        Position {
            row: u32::try_from(self.row).ok(),
            column: u32::try_from(self.column).ok(),
            row_span: self.row_span,
            column_span: self.column_span,
        }
    }
}

/// The newest picture of a camera.
#[derive(Clone, Debug)]
pub struct Picture {
    pub buffer: gst::Buffer,
    pub info: VideoInfo,
    pub caps: gst::Caps,
    /// Counts the pictures of the pad.
    pub number: u64,
}

/// What came.
#[derive(Debug, Default)]
pub struct State {
    pub info: Option<VideoInfo>,
    pub caps: Option<gst::Caps>,
    pub picture: Option<Picture>,
    /// Running time of the wall when the last picture came, or when the pad did.
    pub heard: Option<gst::ClockTime>,
    pub offline: bool,
    /// The time of day since when, once it is offline.
    pub silent_since: String,
    pub meter: RateMeter,
    pub counters: Counters,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Pictures that were shown.
    pub shown: u64,
    /// Pictures that were overtaken by a newer one before the wall was drawn.
    pub late: u64,
    /// Pictures of the wall for which the camera had nothing new.
    pub missing: u64,
    /// Times that the camera went silent.
    pub outages: u64,
}

#[derive(Debug)]
pub struct Pad {
    settings: Mutex<Settings>,
    pub state: Mutex<State>,
    /// Tells pads of the same name apart that follow each other.
    pub uid: u64,
}

#[glib::object_subclass]
impl ObjectSubclass for Pad {
    const NAME: &'static str = "GstNvrCompositorPad";
    type Type = NvrCompositorPad;
    type ParentType = gst_base::AggregatorPad;

    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            settings: Mutex::default(),
            state: Mutex::default(),
            uid: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl Pad {
    pub fn settings(&self) -> Settings {
        self.settings.lock().clone()
    }

    /// The id that was given, or the number in the pad's name.
    pub fn source_id(&self, settings: &Settings) -> u32 {
        u32::try_from(settings.source_id).unwrap_or_else(|_| {
            let name = self.obj().name();
            name.rsplit('_').next().and_then(|number| number.parse().ok()).unwrap_or(0)
        })
    }

    pub fn stats(&self) -> gst::Structure {
        let source_id = self.source_id(&self.settings());
        let mut state = self.state.lock();
        let now = state.heard.unwrap_or_default();
        let fps = if state.offline { 0.0 } else { state.meter.rate(now.nseconds()).unwrap_or_default() };
        let Counters { shown, late, missing, outages } = state.counters;
        gst::Structure::builder("nvr-compositor-pad-stats")
            .field("pad", self.obj().name().as_str())
            .field("source-id", source_id)
            .field("fps", fps)
            .field("offline", state.offline)
            .field("shown", shown)
            .field("late", late)
            .field("missing", missing)
            .field("outages", outages)
            .build()
    }
}

impl ObjectImpl for Pad {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let default = Settings::default();
            let cell = |name: &str, nick: &str, blurb: &str| {
                glib::ParamSpecInt::builder(name)
                    .nick(nick)
                    .blurb(blurb)
                    .minimum(-1)
                    .maximum(63)
                    .default_value(-1)
                    .mutable_playing()
                    .build()
            };
            let span = |name: &str, nick: &str, blurb: &str| {
                glib::ParamSpecUInt::builder(name)
                    .nick(nick)
                    .blurb(blurb)
                    .minimum(1)
                    .maximum(64)
                    .default_value(1)
                    .mutable_playing()
                    .build()
            };
            vec![
                glib::ParamSpecInt::builder("source-id")
                    .nick("Source id")
                    .blurb(
                        "Id of the camera, which also decides the order of the tiles; -1 = number of the pad",
                    )
                    .minimum(-1)
                    .default_value(default.source_id)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecString::builder("label")
                    .nick("Label")
                    .blurb("What the tile says; \"camera\" and its id where not given")
                    .mutable_playing()
                    .build(),
                cell(
                    "row",
                    "Row",
                    "First row of the tile, from 0, with layout=custom; -1 = where there is room",
                ),
                cell(
                    "column",
                    "Column",
                    "First column of the tile, from 0, with layout=custom; -1 = where there is room",
                ),
                span("row-span", "Row span", "Rows that the tile takes with layout=custom"),
                span("column-span", "Column span", "Columns that the tile takes with layout=custom"),
                glib::ParamSpecEnum::builder_with_default("fit", default.fit)
                    .nick("Fit")
                    .blurb("How a picture of another shape than its tile is shown")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
                    .nick("Statistics")
                    .blurb("What came from this camera")
                    .read_only()
                    .build(),
            ]
        });
        PROPERTIES.as_ref()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        const CHECKED: &str = "the type is checked by GObject";
        let mut settings = self.settings.lock();
        match pspec.name() {
            "source-id" => settings.source_id = value.get().expect(CHECKED),
            "label" => settings.label = value.get().expect(CHECKED),
            "row" => settings.row = value.get().expect(CHECKED),
            "column" => settings.column = value.get().expect(CHECKED),
            "row-span" => settings.row_span = value.get().expect(CHECKED),
            "column-span" => settings.column_span = value.get().expect(CHECKED),
            "fit" => settings.fit = value.get().expect(CHECKED),
            _ => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            return self.stats().to_value();
        }
        let settings = self.settings.lock();
        match pspec.name() {
            "source-id" => settings.source_id.to_value(),
            "label" => settings.label.to_value(),
            "row" => settings.row.to_value(),
            "column" => settings.column.to_value(),
            "row-span" => settings.row_span.to_value(),
            "column-span" => settings.column_span.to_value(),
            "fit" => settings.fit.to_value(),
            _ => pspec.default_value().clone(),
        }
    }
}

impl GstObjectImpl for Pad {}
impl PadImpl for Pad {}
impl AggregatorPadImpl for Pad {}

glib::wrapper! {
    pub struct NvrCompositorPad(ObjectSubclass<Pad>)
        @extends gst_base::AggregatorPad, gst::Pad, gst::Object;
}
