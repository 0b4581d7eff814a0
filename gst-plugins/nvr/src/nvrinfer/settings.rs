//! What the user asked for: properties, their ranges and defaults.

use std::{sync::LazyLock, time::Duration};

use gst::{glib, prelude::*};
use nvr_core::{decode::DecodeParams, model::ModelType};

/// Where inference runs.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNvrInferDevice")]
pub enum Device {
    #[default]
    #[enum_value(name = "The best that works: CUDA, OpenVINO, CPU", nick = "auto")]
    Auto,
    #[enum_value(name = "The processor, one thread per inference", nick = "cpu")]
    Cpu,
    #[enum_value(name = "NVIDIA GPU with CUDA", nick = "cuda")]
    Cuda,
    #[enum_value(
        name = "NVIDIA GPU with TensorRT (builds an engine for minutes at the first start)",
        nick = "tensorrt"
    )]
    Tensorrt,
    #[enum_value(name = "Intel CPU, GPU or NPU with OpenVINO", nick = "openvino")]
    Openvino,
}

impl Device {
    /// The property's nick.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Tensorrt => "tensorrt",
            Self::Openvino => "openvino",
        }
    }
}

/// How a frame and its result meet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNvrInferMode")]
pub enum Mode {
    #[default]
    #[enum_value(name = "An analysed frame waits for its own result and carries it", nick = "sync")]
    Sync,
    #[enum_value(name = "Frames pass at once; the newest result goes with the next frame", nick = "async")]
    Async,
}

/// Which frames are worth looking at.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNvrInferGate")]
pub enum Gate {
    #[default]
    #[enum_value(name = "All", nick = "none")]
    None,
    #[enum_value(name = "Those that nvrmotion marked as moving", nick = "motion")]
    Motion,
}

/// Layout of the model's outputs, as a property.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, glib::Enum)]
#[repr(i32)]
#[enum_type(name = "GstNvrInferModelType")]
pub enum ModelTypeChoice {
    #[default]
    #[enum_value(
        name = "From the files beside the model, its metadata and its outputs' shapes",
        nick = "auto"
    )]
    Auto,
    #[enum_value(name = "YOLOX", nick = "yolox")]
    Yolox,
    #[enum_value(name = "YOLOv5, YOLOv7", nick = "yolov5")]
    Yolov5,
    #[enum_value(name = "YOLOv8, YOLOv9, YOLO11, YOLO12", nick = "yolov8")]
    Yolov8,
    #[enum_value(name = "End to end, N x 6: YOLOv10, YOLO26", nick = "yolov10")]
    Yolov10,
    #[enum_value(name = "End to end, N x 7: YOLOv7 with NMS", nick = "nms7")]
    Nms7,
    #[enum_value(name = "RT-DETR, D-FINE, DEIM, DETR", nick = "detr")]
    Detr,
    #[enum_value(name = "SSD with NMS inside, as the TensorFlow detection API exports it", nick = "ssd")]
    Ssd,
    #[enum_value(name = "NanoDet", nick = "nanodet")]
    Nanodet,
    #[enum_value(name = "FastestDet", nick = "fastestdet")]
    Fastestdet,
    #[enum_value(name = "YuNet faces", nick = "yunet")]
    Yunet,
}

impl ModelTypeChoice {
    pub fn model_type(self) -> Option<ModelType> {
        Some(match self {
            Self::Auto => return None,
            Self::Yolox => ModelType::Yolox,
            Self::Yolov5 => ModelType::Yolov5,
            Self::Yolov8 => ModelType::Yolov8,
            Self::Yolov10 => ModelType::Yolov10,
            Self::Nms7 => ModelType::Nms7,
            Self::Detr => ModelType::Detr,
            Self::Ssd => ModelType::Ssd,
            Self::Nanodet => ModelType::Nanodet,
            Self::Fastestdet => ModelType::Fastestdet,
            Self::Yunet => ModelType::Yunet,
        })
    }
}

/// Values of the properties. A buffer takes a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub model: Option<String>,
    pub model_type: ModelTypeChoice,
    pub labels_file: Option<String>,
    pub threshold: f32,
    pub iou_threshold: f32,
    pub max_detections: u32,
    pub classes: Option<String>,
    pub device: Device,
    pub threads: u32,
    pub model_instance_id: Option<String>,
    pub batch_size: u32,
    pub batch_timeout: u32,
    pub inference_interval: u32,
    pub max_fps: f64,
    pub mode: Mode,
    pub gate: Gate,
    pub gate_interval: f64,
    pub enabled: bool,
    pub runtime_library: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: None,
            model_type: ModelTypeChoice::default(),
            labels_file: None,
            threshold: 0.5,
            iou_threshold: 0.45,
            max_detections: 300,
            classes: None,
            device: Device::default(),
            threads: 0,
            model_instance_id: None,
            batch_size: 1,
            batch_timeout: 5,
            inference_interval: 1,
            max_fps: 0.0,
            mode: Mode::default(),
            gate: Gate::default(),
            gate_interval: 10.0,
            enabled: true,
            runtime_library: None,
        }
    }
}

impl Settings {
    pub fn batch_timeout(&self) -> Duration {
        Duration::from_millis(self.batch_timeout.into())
    }

    /// The part that reading a model's outputs needs, and the names in `classes` that are none of its labels.
    pub fn decode_params(&self, labels: &[std::sync::Arc<str>]) -> (DecodeParams, Vec<String>) {
        let wanted: Vec<_> = self
            .classes
            .iter()
            .flat_map(|classes| classes.split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect();
        let same = |label: &str, name: &str| label.eq_ignore_ascii_case(name);
        let keep = |label: &std::sync::Arc<str>| wanted.iter().any(|name| same(label, name));
        let unknown = wanted.iter().filter(|name| !labels.iter().any(|label| same(label, name)));
        let params = DecodeParams {
            threshold: self.threshold,
            iou_threshold: self.iou_threshold,
            max_detections: self.max_detections as usize,
            classes: (!wanted.is_empty()).then(|| labels.iter().map(keep).collect()),
        };
        (params, unknown.map(|&name| name.to_owned()).collect())
    }

    /// Sets a property; `true` where it is one that reading the outputs depends on.
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        fn get<'v, T: glib::value::FromValue<'v>>(value: &'v glib::Value) -> T {
            value.get::<T>().unwrap_or_else(|_| unreachable!("GObject has checked the type"))
        }
        let text = |value| get::<Option<String>>(value).filter(|text| !text.is_empty());
        match name {
            "model" => self.model = text(value),
            "model-type" => self.model_type = get(value),
            "labels-file" => self.labels_file = text(value),
            "threshold" => self.threshold = get(value),
            "iou-threshold" => self.iou_threshold = get(value),
            "max-detections" => self.max_detections = get(value),
            "classes" => self.classes = text(value),
            "device" => self.device = get(value),
            "threads" => self.threads = get(value),
            "model-instance-id" => self.model_instance_id = text(value),
            "batch-size" => self.batch_size = get(value),
            "batch-timeout" => self.batch_timeout = get(value),
            "inference-interval" => self.inference_interval = get(value),
            "max-fps" => self.max_fps = get(value),
            "mode" => self.mode = get(value),
            "gate" => self.gate = get(value),
            "gate-interval" => self.gate_interval = get(value),
            "enabled" => self.enabled = get(value),
            "runtime-library" => self.runtime_library = text(value),
            name => unreachable!("no property {name}"),
        }
    }

    pub fn get(&self, name: &str) -> glib::Value {
        match name {
            "model" => self.model.to_value(),
            "model-type" => self.model_type.to_value(),
            "labels-file" => self.labels_file.to_value(),
            "threshold" => self.threshold.to_value(),
            "iou-threshold" => self.iou_threshold.to_value(),
            "max-detections" => self.max_detections.to_value(),
            "classes" => self.classes.to_value(),
            "device" => self.device.to_value(),
            "threads" => self.threads.to_value(),
            "model-instance-id" => self.model_instance_id.to_value(),
            "batch-size" => self.batch_size.to_value(),
            "batch-timeout" => self.batch_timeout.to_value(),
            "inference-interval" => self.inference_interval.to_value(),
            "max-fps" => self.max_fps.to_value(),
            "mode" => self.mode.to_value(),
            "gate" => self.gate.to_value(),
            "gate-interval" => self.gate_interval.to_value(),
            "enabled" => self.enabled.to_value(),
            "runtime-library" => self.runtime_library.to_value(),
            name => unreachable!("no property {name}"),
        }
    }
}

/// The element's properties.
pub static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let defaults = Settings::default();
    vec![
        glib::ParamSpecString::builder("model")
            .nick("Model")
            .blurb(
                "Path of an .onnx file, or the name of a built-in model or of one in the models folder. While \
                 playing, the new model is loaded beside the old one and takes over between two frames; if it \
                 cannot be loaded, the old one stays and the property reads as before",
            )
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("model-type", defaults.model_type)
            .nick("Model type")
            .blurb("Layout of the model's outputs")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("labels-file")
            .nick("Labels file")
            .blurb("Text file with the names of the model's classes, one a line, in the order of their ids")
            .mutable_ready()
            .build(),
        glib::ParamSpecFloat::builder("threshold")
            .nick("Threshold")
            .blurb("Lowest confidence of a detection")
            .minimum(0.0)
            .maximum(1.0)
            .default_value(defaults.threshold)
            .mutable_playing()
            .build(),
        glib::ParamSpecFloat::builder("iou-threshold")
            .nick("IoU threshold")
            .blurb("Boxes of one class that overlap more than this (intersection over union) are one object")
            .minimum(0.0)
            .maximum(1.0)
            .default_value(defaults.iou_threshold)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("max-detections")
            .nick("Most detections")
            .blurb("Most detections per frame; the most confident are kept")
            .minimum(1)
            .maximum(10_000)
            .default_value(defaults.max_detections)
            .mutable_playing()
            .build(),
        glib::ParamSpecString::builder("classes")
            .nick("Classes")
            .blurb("Names of the classes to keep, separated by commas; unset or empty keeps all")
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("device", defaults.device)
            .nick("Device")
            .blurb("Where inference runs. One that is asked for and not there is an error")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("threads")
            .nick("Threads")
            .blurb("Inferences at the same time, each on one thread; 0 = one per core, at most 8")
            .maximum(256)
            .default_value(defaults.threads)
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("model-instance-id")
            .nick("Model instance id")
            .blurb(
                "Elements of one process with the same id, model and device share one loaded model. Unset counts as \
                 an id too: give different ones to keep elements apart",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("batch-size")
            .nick("Batch size")
            .blurb("Most frames of different cameras in one inference, where the model leaves it open")
            .minimum(1)
            .maximum(64)
            .default_value(defaults.batch_size)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("batch-timeout")
            .nick("Batch timeout")
            .blurb("How long a frame waits for others to fill its batch, in milliseconds")
            .maximum(10_000)
            .default_value(defaults.batch_timeout)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("inference-interval")
            .nick("Inference interval")
            .blurb("Look at every n-th frame; 1 = every frame")
            .minimum(1)
            .default_value(defaults.inference_interval)
            .mutable_playing()
            .build(),
        glib::ParamSpecDouble::builder("max-fps")
            .nick("Most frames per second")
            .blurb("Look at no more than this many frames per second; 0 = no limit")
            .minimum(0.0)
            .maximum(1000.0)
            .default_value(defaults.max_fps)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("mode", defaults.mode)
            .nick("Mode")
            .blurb("Whether frames wait for their results")
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("gate", defaults.gate)
            .nick("Gate")
            .blurb("Which frames are looked at")
            .mutable_playing()
            .build(),
        glib::ParamSpecDouble::builder("gate-interval")
            .nick("Gate interval")
            .blurb("With a gate, look at least this often in seconds, also where nothing moves; 0 = never")
            .minimum(0.0)
            .maximum(86_400.0)
            .default_value(defaults.gate_interval)
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("enabled")
            .nick("Enabled")
            .blurb("Whether frames are looked at; the model stays loaded")
            .default_value(defaults.enabled)
            .mutable_playing()
            .build(),
        glib::ParamSpecString::builder("runtime-library")
            .nick("Runtime library")
            .blurb(
                "Path of libonnxruntime.so; unset: ORT_DYLIB_PATH, then lib/libonnxruntime.so in the data folders, \
                 then the system's. One per process",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("Counters since the start, and facts about the model; see the element's documentation")
            .read_only()
            .build(),
    ]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_names_in_any_case() {
        let labels: Vec<std::sync::Arc<str>> = ["person", "Dog", "cell phone"].map(Into::into).to_vec();
        for (classes, keep, unknown) in [
            (None, None, vec![]),
            (Some(" , "), None, vec![]),
            (Some("person"), Some(vec![true, false, false]), vec![]),
            (Some("Cell Phone, dog"), Some(vec![false, true, true]), vec![]),
            (Some("cow,dog"), Some(vec![false, true, false]), vec!["cow".to_owned()]),
            (Some("cow"), Some(vec![false, false, false]), vec!["cow".to_owned()]),
        ] {
            let settings = Settings { classes: classes.map(Into::into), ..Default::default() };
            let (params, got) = settings.decode_params(&labels);
            assert_eq!((params.classes, got), (keep, unknown), "{classes:?}");
        }
    }

    #[test]
    fn every_model_type_has_the_name_that_files_use() {
        let class = glib::EnumClass::new::<ModelTypeChoice>();
        for (name, model_type) in ModelType::all() {
            let value = class.to_value_by_nick(name).unwrap_or_else(|| panic!("no choice {name}"));
            assert_eq!(value.get::<ModelTypeChoice>().unwrap().model_type(), Some(model_type));
        }
        assert_eq!(class.values().len(), ModelType::all().count() + 1);
    }
}
