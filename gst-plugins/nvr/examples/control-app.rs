//! A small application behind `nvrcontrol`: drawn cameras that come and go by command.
//!
//! ```sh
//! cargo run -p gst-plugin-nvr --example control-app -- mqtt://localhost:1883 own
//! nvr-launch ctl add-stream 3
//! nvr-launch ctl pause
//! nvr-launch ctl stop
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use gst::{glib, prelude::*};

/// What runs: one bin for each camera.
#[derive(Default)]
struct Cameras(BTreeMap<u64, gst::Element>);

impl Cameras {
    fn add(&mut self, pipeline: &gst::Pipeline, broker: &str, id: u64) -> Result<(), String> {
        if self.0.contains_key(&id) {
            return Err(format!("camera {id} exists already"));
        }
        // `id` is a number; anything else from a command would be set as a property, never put into this text.
        let line = "nvrtestsrc name=src is-live=true ! video/x-raw,width=320,height=240,framerate=5/1 ! nvrmqttsink name=sink";
        let bin = gst::parse::bin_from_description(line, false).map_err(|error| error.to_string())?;
        let sink = bin.by_name("sink").ok_or("no sink")?;
        sink.set_property("source-id", u32::try_from(id).map_err(|error| error.to_string())?);
        sink.set_property("broker", broker);
        pipeline.add(&bin).map_err(|error| error.to_string())?;
        if let Err(error) = bin.sync_state_with_parent() {
            let _ = bin.set_state(gst::State::Null);
            let _ = pipeline.remove(&bin);
            return Err(error.to_string());
        }
        self.0.insert(id, bin.upcast());
        Ok(())
    }

    fn remove(&mut self, pipeline: &gst::Pipeline, id: u64) -> Result<(), String> {
        let bin = self.0.remove(&id).ok_or_else(|| format!("there is no camera {id}"))?;
        let _ = bin.set_state(gst::State::Null);
        pipeline.remove(&bin).map_err(|error| error.to_string())
    }

    fn describe(&self) -> String {
        let streams: Vec<_> = self
            .0
            .keys()
            .map(
                |id| serde_json::json!({"source_id": id, "name": format!("Camera {id}"), "state": "playing"}),
            )
            .collect();
        serde_json::json!({ "streams": streams }).to_string()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let broker = args.next().unwrap_or_else(|| "mqtt://localhost:1883".into());
    let name = args.next().unwrap_or_else(|| "own".into());
    gst::init()?;
    gstnvr::plugin_register_static()?;

    let pipeline = gst::Pipeline::new();
    let control = gst::ElementFactory::make("nvrcontrol")
        .property("broker", &broker)
        .property("instance-id", &name)
        .property("kind", "example")
        .build()?;
    pipeline.add(&control)?;
    let main_loop = glib::MainLoop::new(None, false);
    let cameras = Arc::new(Mutex::new(Cameras::default()));

    // NULL: none of our business, the element does it itself. "{}": done. {"error": …}: failed, and why.
    control.connect("command", false, {
        let (cameras, pipeline, main_loop) = (cameras.clone(), pipeline.downgrade(), main_loop.clone());
        move |values| {
            let command: &str = values.get(1)?.get().ok()?;
            let params: &str = values.get(2)?.get().ok()?;
            let params: serde_json::Value = serde_json::from_str(params).ok()?;
            let pipeline = pipeline.upgrade()?;
            let mut cameras = cameras.lock().ok()?;
            let id = params["source_id"].as_u64().unwrap_or_default();
            let outcome = match command {
                "add_stream" => cameras.add(&pipeline, &broker, id),
                "remove_stream" => cameras.remove(&pipeline, id),
                "stop" => {
                    main_loop.quit();
                    Ok(())
                }
                _ => return Some(None::<String>.to_value()),
            };
            let answer = match outcome {
                Ok(()) => "{}".to_owned(),
                Err(error) => serde_json::json!({ "error": error }).to_string(),
            };
            Some(Some(answer).to_value())
        }
    });
    control.connect("describe", false, move |_| {
        let text = cameras.lock().ok().map(|cameras| cameras.describe());
        Some(text.to_value())
    });

    let bus = pipeline.bus().ok_or("a pipeline has a bus")?;
    let failed = Arc::new(Mutex::new(None));
    let _watch = bus.add_watch({
        let (main_loop, failed) = (main_loop.clone(), failed.clone());
        move |_, message| {
            if let gst::MessageView::Error(error) = message.view() {
                if let Ok(mut failed) = failed.lock() {
                    *failed = Some(error.error().to_string());
                }
                main_loop.quit();
            }
            glib::ControlFlow::Continue
        }
    })?;
    pipeline.set_state(gst::State::Playing)?;
    main_loop.run();
    pipeline.set_state(gst::State::Null)?;
    let failed = failed.lock().map_err(|error| error.to_string())?.take();
    failed.map_or(Ok(()), |error| Err(error.into()))
}
