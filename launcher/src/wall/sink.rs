//! SECTION:element-nvrrtspsink
//!
//! Serves encoded H.264 to any number of RTSP clients at `rtsp://{address}/wall`. Part of `nvr-launch` only: it
//! brings the server into the graph file, where outputs belong.

use std::sync::LazyLock;

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_app::AppSink;
use parking_lot::Mutex;

use super::rtsp::{Served, serve};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("nvrrtspsink", gst::DebugColorFlags::empty(), Some("NVR RTSP output"))
});

const DEFAULT_ADDRESS: &str = "127.0.0.1:8556";

#[derive(Debug)]
struct Settings {
    address: String,
}

#[derive(Debug)]
pub struct RtspSink {
    settings: Mutex<Settings>,
    served: Mutex<Option<Served>>,
    sink: AppSink,
}

#[glib::object_subclass]
impl ObjectSubclass for RtspSink {
    const NAME: &'static str = "GstNvrRtspSink";
    type Type = super::NvrRtspSink;
    type ParentType = gst::Bin;

    fn new() -> Self {
        let caps = gst::Caps::builder("video/x-h264")
            .field("stream-format", "byte-stream")
            .field("alignment", "au")
            .build();
        // The wall's pictures leave at their time; a server has no use for waiting again.
        let sink =
            AppSink::builder().caps(&caps).sync(false).async_(false).max_buffers(50).drop(true).build();
        Self {
            settings: Mutex::new(Settings { address: DEFAULT_ADDRESS.into() }),
            served: Mutex::default(),
            sink,
        }
    }
}

impl ObjectImpl for RtspSink {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            vec![
                glib::ParamSpecString::builder("address")
                    .nick("Address")
                    .blurb(
                        "Host and port to listen on; 0.0.0.0 lets other machines in, port 0 takes a free one",
                    )
                    .default_value(DEFAULT_ADDRESS)
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("uri")
                    .nick("URI")
                    .blurb("Where the stream is found while the server runs")
                    .read_only()
                    .build(),
            ]
        });
        PROPERTIES.as_ref()
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_suppressed_flags(gst::ElementFlags::SOURCE);
        obj.set_element_flags(gst::ElementFlags::SINK);
        let template = obj.pad_template("sink");
        // A fresh bin with one element: neither can fail.
        if obj.add(&self.sink).is_ok()
            && let (Some(target), Some(template)) = (self.sink.static_pad("sink"), template)
            && let Ok(ghost) = gst::GhostPad::from_template_with_target(&template, &target)
        {
            let _ = obj.add_pad(&ghost);
        }
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if pspec.name() == "address" {
            let address: Option<String> = value.get().expect("the type is checked by GObject");
            self.settings.lock().address = address.unwrap_or_else(|| DEFAULT_ADDRESS.into());
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "address" => self.settings.lock().address.to_value(),
            "uri" => self.served.lock().as_ref().map(|served| served.uri().to_owned()).to_value(),
            _ => pspec.default_value().clone(),
        }
    }
}

impl GstObjectImpl for RtspSink {}
impl BinImpl for RtspSink {}

impl ElementImpl for RtspSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "NVR RTSP output",
                "Sink/Network",
                "Serves encoded video to RTSP clients",
                env!("CARGO_PKG_REPOSITORY"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = gst::Caps::builder("video/x-h264")
                .field("stream-format", "byte-stream")
                .field("alignment", "au")
                .build();
            gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &caps)
                .into_iter()
                .collect()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::NullToReady {
            let address = self.settings.lock().address.clone();
            match serve(&self.sink, &address) {
                Ok(served) => {
                    tracing::info!(
                        event = "output.rtsp",
                        uri = served.uri(),
                        "the wall is at {}",
                        served.uri()
                    );
                    gst::info!(CAT, imp = self, "serving at {}", served.uri());
                    *self.served.lock() = Some(served);
                }
                Err(error) => {
                    gst::element_imp_error!(self, gst::ResourceError::OpenWrite, ["{error:#}"]);
                    return Err(gst::StateChangeError);
                }
            }
        }
        let result = self.parent_change_state(transition);
        if transition == gst::StateChange::ReadyToNull {
            let served = self.served.lock().take();
            drop(served);
        }
        result
    }
}
