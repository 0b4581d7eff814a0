//! Puts the facts together.

use std::sync::Arc;

use super::{
    Activation, BoxUnit, COCO_80, ExtraInput, Form, HintError, MAX_SIDE, ModelError, ModelHints, ModelIo,
    ModelSpec, ModelType, TensorInfo, coco_90,
    family::{Found, Question},
};
use crate::preprocess::{ChannelOrder, ElementType, Fit, InputSpec, TensorLayout};

/// Input side where neither the file nor anybody else names one.
const DEFAULT_SIDE: usize = 640;
/// Dynamic sizes are rounded up to this: the coarsest grid of nearly every detector.
const SIDE_STEP: usize = 32;

const METADATA: &str = "ONNX metadata";

/// How a family's models are fed when nobody says otherwise.
struct Defaults {
    fit: Fit,
    order: ChannelOrder,
    pad: u8,
    mean: [f32; 3],
    std: [f32; 3],
}

impl Defaults {
    const fn new(fit: Fit, order: ChannelOrder, pad: u8, mean: [f32; 3], std: [f32; 3]) -> Self {
        Self { fit, order, pad, mean, std }
    }

    /// From the families' own published preprocessing (YOLOX `preproc`, Ultralytics `LetterBox`, RT-DETR and
    /// DEIM `Resize`, NanoDet's and FastestDet's demo programs, OpenCV's YuNet sample).
    fn of(model_type: ModelType) -> Self {
        const ZERO: [f32; 3] = [0.0; 3];
        const ONE: [f32; 3] = [1.0; 3];
        const BYTE: [f32; 3] = [255.0; 3];
        match model_type {
            ModelType::Yolox => Self::new(Fit::LetterboxTopLeft, ChannelOrder::Bgr, 114, ZERO, ONE),
            ModelType::Yolov5 | ModelType::Yolov8 | ModelType::Yolov10 | ModelType::Nms7 => {
                Self::new(Fit::LetterboxCentre, ChannelOrder::Rgb, 114, ZERO, BYTE)
            }
            ModelType::Detr => Self::new(Fit::Stretch, ChannelOrder::Rgb, 0, ZERO, BYTE),
            ModelType::Ssd => Self::new(Fit::Stretch, ChannelOrder::Rgb, 0, [127.5; 3], [127.5; 3]),
            ModelType::Nanodet => Self::new(
                Fit::LetterboxCentre,
                ChannelOrder::Bgr,
                0,
                [103.53, 116.28, 123.675],
                [57.375, 57.12, 58.395],
            ),
            ModelType::Fastestdet => Self::new(Fit::Stretch, ChannelOrder::Bgr, 0, ZERO, BYTE),
            ModelType::Yunet => Self::new(Fit::LetterboxTopLeft, ChannelOrder::Bgr, 0, ZERO, ONE),
        }
    }
}

/// The picture input as the file declares it.
struct Picture<'a> {
    info: &'a TensorInfo,
    element: ElementType,
    layout: TensorLayout,
    layout_from: String,
    gray: bool,
    batch: Option<usize>,
    width: usize,
    height: usize,
    size_from: String,
}

struct Resolver<'a> {
    io: &'a ModelIo,
    file: &'a str,
    layers: Vec<(&'a str, &'a ModelHints)>,
    conclusions: Vec<String>,
}

impl ModelSpec {
    /// Resolves a model from what its file declares and from `layers` of hints with their origins (such as
    /// `property model-type` or `yolox.toml`), strongest first. `file_name` is what errors name. The file's
    /// metadata are taken from `io`, after the layers.
    pub fn resolve(io: &ModelIo, layers: &[(&str, ModelHints)], file_name: &str) -> Result<Self, ModelError> {
        let metadata = ModelHints::from_metadata(&io.metadata);
        let mut all: Vec<(&str, &ModelHints)> =
            layers.iter().map(|(origin, hints)| (*origin, hints)).collect();
        all.push((METADATA, &metadata));
        Resolver { io, file: file_name, layers: all, conclusions: Vec::new() }.resolve()
    }
}

impl<'a> Resolver<'a> {
    /// The strongest value of one hint, and who said it.
    fn hint<T>(&self, pick: impl Fn(&'a ModelHints) -> Option<T>) -> Option<(T, &'a str)> {
        self.layers.iter().find_map(|(origin, hints)| Some((pick(hints)?, *origin)))
    }

    fn conclude(&mut self, what: impl std::fmt::Display, from: impl std::fmt::Display) {
        self.conclusions.push(format!("{what} ({from})"));
    }

    fn resolve(mut self) -> Result<ModelSpec, ModelError> {
        self.check_task()?;
        let picture = self.picture()?;
        let extra_inputs = self.extra_inputs(picture.info)?;
        let mut found = self.family(&picture, !extra_inputs.is_empty())?;
        let size = format!("input {} {}×{}", picture.info.name, picture.width, picture.height);
        self.conclude(size, &picture.size_from);
        self.head(&mut found);
        let labels = self.labels(&found)?;
        let input = self.input(&picture, found.model_type);
        let batch = self.batch(&picture, &found);
        Ok(ModelSpec {
            model_type: found.model_type,
            input_name: picture.info.name.clone(),
            input_element: picture.element,
            input,
            batch,
            extra_inputs,
            labels,
            head: found.head,
            conclusions: self.conclusions,
        })
    }

    fn check_task(&self) -> Result<(), ModelError> {
        match self.io.metadata.get("task").map(|task| task.trim()) {
            None | Some("" | "detect" | "detection" | "object-detection") => Ok(()),
            Some(task) => {
                let task: String = task.chars().filter(|c| !c.is_control()).take(40).collect();
                Err(ModelError::NotADetector {
                    file: self.file.into(),
                    looks_like: format!("a model for the task \"{task}\" (its metadata say so)"),
                })
            }
        }
    }

    fn bad_input(&self, input: &str, problem: impl Into<String>, expected: impl Into<String>) -> ModelError {
        ModelError::Input {
            file: self.file.into(),
            input: input.into(),
            problem: problem.into(),
            expected: expected.into(),
        }
    }

    fn picture(&self) -> Result<Picture<'a>, ModelError> {
        let expected = "a picture of 1×3×height×width or 1×height×width×3 (or 1 channel) as first input";
        let Some(first) = self.io.inputs.first() else {
            return Err(self.bad_input("(none)", "is missing", expected));
        };
        let Some(info) = self.io.inputs.iter().find(|input| input.shape.len() == 4) else {
            let audio = if first.shape.len() == 1 { ": this looks like an audio model" } else { "" };
            return Err(self.bad_input(&first.describe(), format!("is no picture{audio}"), expected));
        };
        let element = match info.element.as_str() {
            "float32" => ElementType::F32,
            "float16" => ElementType::F16,
            "uint8" => ElementType::U8,
            "int8" => ElementType::I8,
            other => {
                let problem = format!("takes {other}");
                return Err(self.bad_input(&info.describe(), problem, "float32, float16, uint8 or int8"));
            }
        };
        let &[batch, a, b, c] = info.shape.as_slice() else {
            return Err(self.bad_input(&info.describe(), "is no picture", expected));
        };
        let is_channels = |size: Option<usize>| matches!(size, Some(1 | 3));
        let shape_says = match (is_channels(a), is_channels(c)) {
            (true, false) => Some(TensorLayout::Nchw),
            (false, true) => Some(TensorLayout::Nhwc),
            (true, true) => Some(if a.is_some_and(|a| b.is_some_and(|b| a < b)) {
                TensorLayout::Nchw
            } else {
                TensorLayout::Nhwc
            }),
            (false, false) => None,
        };
        let hinted = self.hint(|hints| hints.layout);
        let (layout, layout_from) = match (hinted, shape_says) {
            (Some((layout, origin)), _) => (layout, origin.to_owned()),
            (None, Some(layout)) => (layout, "shape".to_owned()),
            (None, None) if a.is_none() && c.is_none() => {
                (TensorLayout::Nchw, "the usual one, the shape is open".into())
            }
            (None, None) => {
                return Err(self.bad_input(&info.describe(), "has neither 1 nor 3 channels", expected));
            }
        };
        let (channels, rows, columns) = match layout {
            TensorLayout::Nchw => (a, b, c),
            TensorLayout::Nhwc => (c, a, b),
        };
        if !matches!(channels, None | Some(1 | 3)) {
            return Err(self.bad_input(&info.describe(), "has neither 1 nor 3 channels", expected));
        }
        let (width, width_from) = self.side("width", columns, info, |hints| hints.width)?;
        let (height, height_from) = self.side("height", rows, info, |hints| hints.height)?;
        let size_from =
            if width_from == height_from { width_from } else { format!("{width_from}, {height_from}") };
        if batch == Some(0) {
            return Err(self.bad_input(&info.describe(), "has a batch of 0", expected));
        }
        Ok(Picture {
            info,
            element,
            layout,
            layout_from,
            gray: channels == Some(1),
            batch,
            width,
            height,
            size_from,
        })
    }

    /// One side of the input: the file's, else what somebody says, else 640. What is not fixed by the file is
    /// rounded up to a multiple of 32.
    fn side(
        &self,
        key: &str,
        declared: Option<usize>,
        info: &TensorInfo,
        pick: impl Fn(&'a ModelHints) -> Option<usize>,
    ) -> Result<(usize, String), ModelError> {
        let hinted = self.hint(pick);
        if let Some(side) = declared {
            if side == 0 || side > MAX_SIDE {
                let problem = format!("has a {key} of {side}");
                return Err(self.bad_input(&info.describe(), problem, format!("1 to {MAX_SIDE}")));
            }
            return match hinted {
                Some((wanted, origin)) if wanted != side && origin != METADATA => {
                    let error = HintError::Value {
                        key: key.into(),
                        got: wanted.to_string(),
                        expected: format!("{side}, which the model file fixes ({})", info.describe()),
                    };
                    Err(ModelError::Hint { file: format!("{}: {origin}", self.file), error })
                }
                _ => Ok((side, "model file".into())),
            };
        }
        let (side, origin) = hinted.unwrap_or((DEFAULT_SIDE, "default, the file leaves it open"));
        let rounded = side.clamp(1, MAX_SIDE).next_multiple_of(SIDE_STEP);
        let note = if rounded == side { String::new() } else { format!(", {side} rounded up") };
        Ok((rounded, format!("{origin}{note}")))
    }

    fn extra_inputs(&mut self, picture: &TensorInfo) -> Result<Vec<ExtraInput>, ModelError> {
        let mut extra = Vec::new();
        for input in self.io.inputs.iter().filter(|input| input.name != picture.name) {
            let is_size = matches!(input.shape.as_slice(), [_, Some(2)]) && input.element == "int64";
            let name = input.name.to_ascii_lowercase();
            if !(is_size && (name.contains("size") || name.contains("shape"))) {
                let problem = format!("({}) is not known how to fill", input.element);
                let expected =
                    "a picture, and at most an int64 N×2 of the frame's size (`orig_target_sizes`)";
                return Err(self.bad_input(&input.describe(), problem, expected));
            }
            self.conclude(
                format!("input {} gets the frame's width and height", input.name),
                "name and shape",
            );
            extra.push(ExtraInput::OriginalSize { name: input.name.clone(), width_first: true });
        }
        Ok(extra)
    }

    fn family(&mut self, picture: &Picture<'_>, takes_frame_size: bool) -> Result<Found, ModelError> {
        let question = Question {
            io: self.io,
            width: picture.width,
            height: picture.height,
            takes_frame_size,
            labels: self.hint(|hints| hints.labels.as_ref()).map(|(labels, _)| labels.len()),
        };
        let Some((wanted, origin)) = self.hint(|hints| hints.model_type) else {
            let found = question.recognise().map_err(|unknown| ModelError::NotADetector {
                file: self.file.into(),
                looks_like: unknown.looks_like,
            })?;
            self.conclude(format!("type {}", found.model_type.name()), &found.why);
            return Ok(found);
        };
        let found = question.confirm(wanted).ok_or_else(|| ModelError::WrongType {
            file: self.file.into(),
            origin: origin.into(),
            model_type: wanted,
            outputs: self.io.outputs.iter().take(12).map(TensorInfo::describe).collect::<Vec<_>>().join(", "),
            expected: expected_outputs(wanted),
        })?;
        self.conclude(format!("type {}", wanted.name()), origin);
        Ok(found)
    }

    /// What hints say of the outputs.
    fn head(&mut self, found: &mut Found) {
        if let Some((boxes, origin)) = self.hint(|hints| hints.boxes) {
            found.head.boxes = boxes;
            self.conclude(format!("boxes in {}", unit_name(boxes)), origin);
        } else {
            self.conclude(format!("boxes in {}", unit_name(found.head.boxes)), "layout");
        }
        if let Some((scores, origin)) = self.hint(|hints| hints.scores) {
            if found.head.form == Form::LogitsBoxes {
                // Softmax spends one column on "no object".
                let softmax = |a: Activation| usize::from(a == Activation::Softmax);
                let columns = found.head.classes.map(|c| c + softmax(found.head.scores));
                found.head.classes = columns.map(|c| c.saturating_sub(softmax(scores)));
            }
            found.head.scores = scores;
            self.conclude(format!("scores: {scores:?}").to_lowercase(), origin);
        }
        if let Some((offset, origin)) = self.hint(|hints| hints.label_offset) {
            found.head.label_offset = offset;
            self.conclude(format!("class ids start at {offset}"), origin);
        } else if found.model_type == ModelType::Ssd {
            // TensorFlow counts from 1; 0 is the background, which some label lists name.
            let first = self
                .hint(|hints| hints.labels.as_ref()?.first())
                .map(|(label, _)| label.to_ascii_lowercase());
            let background =
                ["background", "__background__", "unlabeled", "unlabelled", "none", "n/a", "???", "bg"];
            found.head.label_offset =
                i32::from(!first.is_some_and(|label| background.contains(&label.as_str())));
            self.conclude(format!("class ids start at {}", found.head.label_offset), "default of ssd");
        }
    }

    fn labels(&mut self, found: &Found) -> Result<Vec<Arc<str>>, ModelError> {
        let classes = found.head.classes;
        if let Some((labels, origin)) = self.hint(|hints| hints.labels.as_ref()) {
            if let Some(expected) = classes.filter(|classes| *classes != labels.len()) {
                return Err(ModelError::LabelCount {
                    file: self.file.into(),
                    origin: origin.into(),
                    got: labels.len(),
                    expected,
                });
            }
            self.conclude(format!("{} labels", labels.len()), origin);
            return Ok(labels.iter().map(|label| label.as_str().into()).collect());
        }
        let coco = || COCO_80.iter().map(|name| (*name).into()).collect();
        let (labels, what): (Vec<Arc<str>>, String) = match (found.model_type, classes) {
            (ModelType::Yunet, _) => (vec!["face".into()], "label face".into()),
            (ModelType::Ssd, _) | (_, Some(90 | 91)) => {
                let mut names = coco_90();
                if classes == Some(91) {
                    names.insert(0, "unused 0".into());
                }
                (names.into_iter().map(Into::into).collect(), "labels of COCO's 90 ids".into())
            }
            (_, None | Some(80)) => (coco(), "labels of COCO's 80 classes".into()),
            (_, Some(n)) => {
                ((0..n).map(|i| format!("class {i}").into()).collect(), format!("{n} labels by number"))
            }
        };
        self.conclude(what, "default, nobody names them");
        Ok(labels)
    }

    /// Whose preprocessing is the default. Layouts are shared: YOLOX is exported in several that other families
    /// also have, and fed in its own way in all of them. Only the file's name shows it then.
    fn feeding(&self, model_type: ModelType) -> ModelType {
        let shared = matches!(model_type, ModelType::Yolov5 | ModelType::Yolov10 | ModelType::Nms7);
        let named_yolox = std::path::Path::new(self.file)
            .file_name()
            .is_some_and(|name| name.to_string_lossy().to_ascii_lowercase().contains("yolox"));
        if shared && named_yolox { ModelType::Yolox } else { model_type }
    }

    fn input(&mut self, picture: &Picture<'_>, model_type: ModelType) -> InputSpec {
        let feeding = self.feeding(model_type);
        let defaults = Defaults::of(feeding);
        let family = if feeding == model_type {
            format!("default of {}", model_type.name())
        } else {
            format!("default of {}, from the file's name", feeding.name())
        };
        let (order, order_from) = match self.hint(|hints| hints.order) {
            _ if picture.gray => (ChannelOrder::Gray, "one channel".to_owned()),
            Some((ChannelOrder::Gray, _)) | None => (defaults.order, family.clone()),
            Some((order, origin)) => (order, origin.to_owned()),
        };
        let (fit, fit_from) = self.hint(|hints| hints.fit).unwrap_or((defaults.fit, &family));
        let (pad, _) = self.hint(|hints| hints.pad).unwrap_or((defaults.pad, &family));
        let (fit_text, pad_text) = match fit {
            Fit::Stretch => ("stretch", String::new()),
            Fit::LetterboxCentre => ("letterbox centred", format!(", padding {pad}")),
            Fit::LetterboxTopLeft => ("letterbox top left", format!(", padding {pad}")),
        };
        // Integer inputs are pixels: such models scale inside. The family's mean and deviation is for floats.
        let (default_mean, default_std) = match picture.element {
            ElementType::F32 | ElementType::F16 => (defaults.mean, defaults.std),
            ElementType::U8 => ([0.0; 3], [1.0; 3]),
            ElementType::I8 => ([128.0; 3], [1.0; 3]),
        };
        let (mean, mean_from) = self.hint(|hints| hints.mean).unwrap_or((default_mean, &family));
        let (std, std_from) = self.hint(|hints| hints.std).unwrap_or((default_std, &family));
        let scale_from =
            if mean_from == std_from { mean_from.to_owned() } else { format!("{mean_from}, {std_from}") };
        let (fit_from, scale_from) = (fit_from.to_owned(), scale_from);
        self.conclude(format!("{fit_text}{pad_text}"), fit_from);
        self.conclude(format!("channels {order:?}").to_lowercase(), order_from);
        self.conclude(format!("layout {:?}", picture.layout).to_lowercase(), &picture.layout_from);
        self.conclude(format!("mean {mean:?}, std {std:?} of pixels 0 to 255"), scale_from);
        InputSpec {
            width: picture.width,
            height: picture.height,
            order,
            layout: picture.layout,
            element: picture.element,
            fit,
            pad,
            mean,
            std,
        }
    }

    fn batch(&mut self, picture: &Picture<'_>, found: &Found) -> Option<usize> {
        // Outputs without a batch column or dimension hold one picture, whatever the input allows.
        let outputs = || self.io.outputs.iter().filter(|o| found.head.outputs.contains(&o.name));
        let fixed_output = match found.model_type {
            ModelType::Nms7 => None,
            ModelType::Nanodet | ModelType::Yunet if outputs().any(|o| o.shape.len() == 2) => Some(1),
            _ => outputs().find_map(|o| o.shape.first().copied().flatten().filter(|_| o.shape.len() >= 3)),
        };
        let batch = picture.batch.or(fixed_output.filter(|n| *n > 0));
        let text = batch.map_or_else(|| "dynamic batch".into(), |n| format!("batch {n}"));
        self.conclude(
            text,
            if picture.batch.is_some() || batch.is_none() { "input shape" } else { "output shape" },
        );
        batch
    }
}

fn unit_name(unit: BoxUnit) -> &'static str {
    match unit {
        BoxUnit::InputPixels => "input pixels",
        BoxUnit::Normalised => "parts of the input",
        BoxUnit::FramePixels => "frame pixels",
        BoxUnit::ByValue => "input pixels or parts of the input, by value",
    }
}

fn expected_outputs(model_type: ModelType) -> &'static str {
    match model_type {
        ModelType::Yolox | ModelType::Yolov5 => "1×N×(5 + classes) is expected",
        ModelType::Yolov8 => "1×(4 + classes)×N is expected",
        ModelType::Yolov10 => "1×N×6 is expected",
        ModelType::Nms7 => "N×7 is expected",
        ModelType::Detr => "labels, boxes and scores, or logits and boxes, or 1×N×(4 + classes) are expected",
        ModelType::Ssd => "boxes, classes, scores (and their number) are expected",
        ModelType::Nanodet => "three outputs N×classes and three N×4·bins for strides 8, 16, 32 are expected",
        ModelType::Fastestdet => "1×(5 + classes)×rows×columns is expected",
        ModelType::Yunet => {
            "nine or twelve outputs N×1, N×1, N×4 (and N×10) for strides 8, 16, 32 are expected"
        }
    }
}
