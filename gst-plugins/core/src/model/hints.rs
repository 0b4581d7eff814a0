//! What files beside a model say of it: `<model>.toml`, GStreamer's `<model>.modelinfo`, ONNX metadata.

use std::collections::BTreeMap;

use super::{Activation, BoxUnit, ModelHints, ModelType, labels};
use crate::preprocess::{ChannelOrder, Fit, TensorLayout};

/// Largest input side that is accepted, in pixels.
pub const MAX_SIDE: usize = 8192;

/// A line of a file beside a model that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HintError {
    #[error("not readable as {format}: {error}")]
    Syntax { format: &'static str, error: String },
    #[error("`{key}` is {got}, expected {expected}")]
    Value { key: String, got: String, expected: String },
    #[error("unknown key `{key}`; known keys are {known}")]
    UnknownKey { key: String, known: String },
}

/// Keys that describe the file for people and tools and do not change how the model is run.
const INFORMATIVE: [&str; 12] = [
    "name",
    "title",
    "description",
    "version",
    "author",
    "license",
    "licence",
    "origin",
    "url",
    "sha256",
    "size",
    "input",
];

const KNOWN: [&str; 13] = [
    "type",
    "labels",
    "width",
    "height",
    "fit",
    "order",
    "pad",
    "mean",
    "std",
    "layout",
    "boxes",
    "scores",
    "label-offset",
];

const MODEL_TYPES: [(&str, ModelType); 10] = [
    ("yolox", ModelType::Yolox),
    ("yolov5", ModelType::Yolov5),
    ("yolov8", ModelType::Yolov8),
    ("yolov10", ModelType::Yolov10),
    ("nms7", ModelType::Nms7),
    ("detr", ModelType::Detr),
    ("ssd", ModelType::Ssd),
    ("nanodet", ModelType::Nanodet),
    ("fastestdet", ModelType::Fastestdet),
    ("yunet", ModelType::Yunet),
];

impl ModelType {
    /// The name used for the property `model-type`, the key `type` and in messages.
    pub fn name(self) -> &'static str {
        MODEL_TYPES.iter().find(|(_, value)| *value == self).map_or("", |(name, _)| name)
    }

    /// Every name with its type.
    pub fn all() -> impl Iterator<Item = (&'static str, Self)> {
        MODEL_TYPES.into_iter()
    }
}

impl std::str::FromStr for ModelType {
    type Err = HintError;

    /// Reads a name; those of models with the same layout are accepted too (`yolov7`, `yolo11`, `rt-detr`, …).
    fn from_str(text: &str) -> Result<Self, HintError> {
        let name = text.trim().to_ascii_lowercase();
        if let Some((_, value)) = MODEL_TYPES.iter().find(|(known, _)| *known == name) {
            return Ok(*value);
        }
        Ok(match name.as_str() {
            "yolov7" => Self::Yolov5,
            "yolov9" | "yolov11" | "yolo11" | "yolov12" | "yolo12" => Self::Yolov8,
            "yolo26" | "yolov26" => Self::Yolov10,
            "rtdetr" | "rt-detr" | "dfine" | "d-fine" | "deim" | "deimv2" | "rf-detr" => Self::Detr,
            _ => return Err(value("type", &format!("{text:?}"), &one_of(&MODEL_TYPES))),
        })
    }
}

fn value(key: &str, got: &str, expected: &str) -> HintError {
    HintError::Value { key: key.into(), got: got.chars().take(80).collect(), expected: expected.into() }
}

fn one_of<T>(choices: &[(&str, T)]) -> String {
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    format!("one of {}", names.join(", "))
}

impl ModelHints {
    /// Reads a `<model>.toml`. Every key is optional:
    ///
    /// | key | value | meaning |
    /// | --- | --- | --- |
    /// | `type` | `yolox`, `yolov5`, `yolov8`, `yolov10`, `nms7`, `detr`, `ssd`, `nanodet`, `fastestdet`, `yunet` | layout of the outputs; sets the defaults of the keys below |
    /// | `labels` | list of names, or `"coco-80"`, `"coco-90"` | class names in the order of the model's ids |
    /// | `width`, `height` | 1 to 8192 | input size in pixels; needed only where the file leaves it open |
    /// | `fit` | `stretch`, `letterbox`, `letterbox-top-left` | how a frame is fitted into the input |
    /// | `order` | `rgb`, `bgr`, `gray` | channel order |
    /// | `layout` | `nchw`, `nhwc` | needed only where the shape leaves it open |
    /// | `pad` | 0 to 255 | pixel value of the letterbox's padding |
    /// | `mean`, `std` | one number or three, in units of pixels 0 to 255 | `value = (pixel - mean) / std`, in channel order |
    /// | `boxes` | `pixels`, `normalised`, `frame` | unit of the boxes: input pixels, 0 to 1 of the input, or frame pixels |
    /// | `scores` | `probability`, `sigmoid`, `softmax` | what has to be applied to the class scores |
    /// | `label-offset` | -1000 to 1000 | what to subtract from the model's class ids to count from 0 |
    ///
    /// `name`, `title`, `description`, `version`, `author`, `license`, `licence`, `origin`, `url`, `sha256`,
    /// `size` and `input` may stand there for people and are not looked at. Any other key is an error.
    pub fn from_toml(text: &str) -> Result<Self, HintError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| HintError::Syntax {
            format: "TOML",
            error: error.message().into(),
        })?;
        let mut hints = Self::default();
        for (key, got) in &table {
            match key.as_str() {
                "type" => hints.model_type = Some(text_of(key, got)?.parse()?),
                "labels" => hints.labels = Some(labels_of(got)?),
                "width" => hints.width = Some(integer(key, got, 1, MAX_SIDE as i64)? as usize),
                "height" => hints.height = Some(integer(key, got, 1, MAX_SIDE as i64)? as usize),
                "fit" => {
                    let choices = [
                        ("stretch", Fit::Stretch),
                        ("letterbox", Fit::LetterboxCentre),
                        ("letterbox-top-left", Fit::LetterboxTopLeft),
                    ];
                    hints.fit = Some(choice(key, got, &choices)?);
                }
                "order" => {
                    let choices = [
                        ("rgb", ChannelOrder::Rgb),
                        ("bgr", ChannelOrder::Bgr),
                        ("gray", ChannelOrder::Gray),
                    ];
                    hints.order = Some(choice(key, got, &choices)?);
                }
                "layout" => {
                    let choices = [("nchw", TensorLayout::Nchw), ("nhwc", TensorLayout::Nhwc)];
                    hints.layout = Some(choice(key, got, &choices)?);
                }
                "pad" => hints.pad = Some(integer(key, got, 0, 255)? as u8),
                "mean" => hints.mean = Some(numbers(key, got, false)?),
                "std" => hints.std = Some(numbers(key, got, true)?),
                "boxes" => {
                    let choices = [
                        ("pixels", BoxUnit::InputPixels),
                        ("normalised", BoxUnit::Normalised),
                        ("frame", BoxUnit::FramePixels),
                    ];
                    hints.boxes = Some(choice(key, got, &choices)?);
                }
                "scores" => {
                    let choices = [
                        ("probability", Activation::None),
                        ("sigmoid", Activation::Sigmoid),
                        ("softmax", Activation::Softmax),
                    ];
                    hints.scores = Some(choice(key, got, &choices)?);
                }
                "label-offset" => hints.label_offset = Some(integer(key, got, -1000, 1000)? as i32),
                key if INFORMATIVE.contains(&key) => {}
                key => {
                    return Err(HintError::UnknownKey { key: key.into(), known: KNOWN.join(", ") });
                }
            }
        }
        Ok(hints)
    }

    /// Reads GStreamer's `<model>.modelinfo` (format 1.0, GStreamer 1.28 `GstAnalyticsModelInfo`): `ranges` of
    /// the picture input become mean and standard deviation, `group-id` names the family where it is one of
    /// GStreamer's own (`yolo-v8-out`, `ssd-mobilenet-v1-variant-1-out`). All else is in the ONNX file already.
    pub fn from_modelinfo(text: &str) -> Result<Self, HintError> {
        let mut hints = Self::default();
        let mut section = "";
        let mut version = None;
        let mut tensors: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            let syntax = |error: &str| HintError::Syntax {
                format: "modelinfo",
                error: format!("line {}: {error}", number + 1),
            };
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[') {
                section = name.strip_suffix(']').ok_or_else(|| syntax("a section name ends with ']'"))?;
                continue;
            }
            let (key, value) = line.split_once('=').ok_or_else(|| syntax("`key=value` is expected"))?;
            let (key, value) = (key.trim(), value.trim());
            match (section, key) {
                ("", _) => return Err(syntax("a `[section]` is expected first")),
                ("modelinfo", "version") => version = Some(value),
                ("modelinfo", "group-id") => hints.model_type = family_of_group(value),
                ("modelinfo", _) => {}
                (tensor, _) => {
                    tensors.entry(tensor).or_default().insert(key, value);
                }
            }
        }
        match version {
            Some(v) if v.split('.').next() == Some("1") => {}
            got => return Err(value("version", got.unwrap_or("missing"), "1.0 in a section [modelinfo]")),
        }
        for tensor in tensors.values() {
            let is_input = tensor.get("dir") == Some(&"input");
            if let Some(text) = tensor.get("ranges").filter(|_| is_input) {
                let (mean, std) = ranges(text)?;
                (hints.mean, hints.std) = (Some(mean), Some(std));
                break;
            }
        }
        Ok(hints)
    }

    /// Reads the metadata inside the ONNX file as Ultralytics writes it: `names`, `imgsz` (height, width).
    /// A value that does not parse is left out: other tools use these keys for other things.
    pub fn from_metadata(metadata: &BTreeMap<String, String>) -> Self {
        let size: Option<Vec<usize>> = metadata.get("imgsz").and_then(|text| {
            let inner = text.trim().trim_matches(['[', ']', '(', ')']);
            inner.split(',').map(|n| n.trim().parse().ok().filter(|n| (1..=MAX_SIDE).contains(n))).collect()
        });
        let (height, width) = match size.as_deref() {
            Some([side]) => (Some(*side), Some(*side)),
            Some([height, width]) => (Some(*height), Some(*width)),
            _ => (None, None),
        };
        Self {
            labels: metadata.get("names").and_then(|text| labels::parse_python_names(text)),
            width,
            height,
            ..Self::default()
        }
    }
}

fn family_of_group(group: &str) -> Option<ModelType> {
    match group {
        "yolo-v8-out" => Some(ModelType::Yolov8),
        group if group.starts_with("ssd-mobilenet") => Some(ModelType::Ssd),
        _ => None,
    }
}

/// `min,max` pairs divided by `;`: pixel 0 maps to `min`, 255 to `max`.
fn ranges(text: &str) -> Result<([f32; 3], [f32; 3]), HintError> {
    let bad =
        || value("ranges", text, "`min,max` for all channels or `min,max;min,max;min,max`, min below max");
    let pairs: Vec<(f32, f32)> = text
        .trim_end_matches(';')
        .split(';')
        .map(|pair| {
            let (min, max) = pair.split_once(',')?;
            let (min, max): (f32, f32) = (min.trim().parse().ok()?, max.trim().parse().ok()?);
            (min.is_finite() && max.is_finite() && min < max).then_some((min, max))
        })
        .collect::<Option<_>>()
        .ok_or_else(bad)?;
    let of = |channel: usize| match pairs.as_slice() {
        [one] => Ok(*one),
        [_, _, _] => Ok(pairs[channel]),
        _ => Err(bad()),
    };
    let (mut mean, mut std) = ([0.0; 3], [1.0; 3]);
    for channel in 0..3 {
        let (min, max) = of(channel)?;
        std[channel] = 255.0 / (max - min);
        mean[channel] = 0.0 - min * std[channel];
    }
    Ok((mean, std))
}

fn describe(got: &toml::Value) -> String {
    format!("{got}").chars().take(80).collect()
}

fn text_of<'a>(key: &str, got: &'a toml::Value) -> Result<&'a str, HintError> {
    got.as_str().ok_or_else(|| value(key, &describe(got), "a text in quotes"))
}

fn choice<T: Copy>(key: &str, got: &toml::Value, choices: &[(&str, T)]) -> Result<T, HintError> {
    let found = got.as_str().and_then(|text| choices.iter().find(|(name, _)| *name == text));
    found.map(|(_, value)| *value).ok_or_else(|| value(key, &describe(got), &one_of(choices)))
}

fn integer(key: &str, got: &toml::Value, min: i64, max: i64) -> Result<i64, HintError> {
    got.as_integer()
        .filter(|n| (min..=max).contains(n))
        .ok_or_else(|| value(key, &describe(got), &format!("a whole number from {min} to {max}")))
}

fn numbers(key: &str, got: &toml::Value, positive: bool) -> Result<[f32; 3], HintError> {
    let number = |v: &toml::Value| {
        let n = v.as_float().or_else(|| v.as_integer().map(|n| n as f64))? as f32;
        (n.is_finite() && (!positive || n > 0.0)).then_some(n)
    };
    let parsed = match got {
        toml::Value::Array(list) if list.len() == 3 => list.iter().map(number).collect::<Option<Vec<_>>>(),
        single => number(single).map(|n| vec![n; 3]),
    };
    let expected =
        if positive { "one number above 0 or a list of three" } else { "one number or a list of three" };
    parsed.and_then(|list| list.try_into().ok()).ok_or_else(|| value(key, &describe(got), expected))
}

fn labels_of(got: &toml::Value) -> Result<Vec<String>, HintError> {
    let expected = "a list of texts, or \"coco-80\", or \"coco-90\"";
    match got {
        toml::Value::String(name) if name == "coco-80" => {
            Ok(labels::COCO_80.iter().map(ToString::to_string).collect())
        }
        toml::Value::String(name) if name == "coco-90" => Ok(labels::coco_90()),
        toml::Value::Array(list) if !list.is_empty() && list.len() <= labels::MAX_LABELS => list
            .iter()
            .map(|label| {
                label
                    .as_str()
                    .filter(|label| !label.is_empty() && !label.chars().any(char::is_control))
                    .map(str::to_owned)
                    .ok_or_else(|| value("labels", &describe(label), expected))
            })
            .collect(),
        got => Err(value("labels", &describe(got), expected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn toml_says_everything() {
        let hints = ModelHints::from_toml(
            r#"
            type = "rt-detr"
            labels = ["person", "car"]
            width = 320
            height = 192
            fit = "letterbox-top-left"
            order = "bgr"
            layout = "nhwc"
            pad = 114
            mean = [103.53, 116.28, 123.675]
            std = 57
            boxes = "normalised"
            scores = "sigmoid"
            label-offset = 1
            licence = "Apache-2.0"
            "#,
        )
        .unwrap();
        assert_eq!(
            hints,
            ModelHints {
                model_type: Some(ModelType::Detr),
                labels: Some(vec!["person".into(), "car".into()]),
                width: Some(320),
                height: Some(192),
                fit: Some(Fit::LetterboxTopLeft),
                order: Some(ChannelOrder::Bgr),
                layout: Some(TensorLayout::Nhwc),
                pad: Some(114),
                mean: Some([103.53, 116.28, 123.675]),
                std: Some([57.0; 3]),
                boxes: Some(BoxUnit::Normalised),
                scores: Some(Activation::Sigmoid),
                label_offset: Some(1),
            }
        );
    }

    #[test]
    fn a_bad_toml_names_the_key_and_what_was_expected() {
        for (text, key, expected) in [
            ("type = \"yolo99\"", "`type`", "yolox"),
            ("type = 5", "`type`", "text"),
            ("width = 0", "`width`", "from 1 to 8192"),
            ("width = \"640\"", "`width`", "whole number"),
            ("fit = \"crop\"", "`fit`", "letterbox-top-left"),
            ("std = 0", "`std`", "above 0"),
            ("std = [1, 2]", "`std`", "list of three"),
            ("mean = nan", "`mean`", "number"),
            ("labels = [1]", "`labels`", "texts"),
            ("labels = []", "`labels`", "texts"),
            ("pad = 256", "`pad`", "255"),
            ("colour = \"bgr\"", "`colour`", "order"),
            ("type = ", "TOML", ""),
        ] {
            let error = ModelHints::from_toml(text).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn modelinfo_of_gstreamer() {
        let text = "[modelinfo]\nversion=1.0\ngroup-id=yolo-v8-out\n\n# picture\n[images]\nid=images\ntype=float32\n\
                    dims=1,3,640,640\ndir=input\nranges=0.0,1.0;-1.0,1.0;0.0,255.0\n\n[output0]\ndir=output\n\
                    dims-order=col-major\n";
        let hints = ModelHints::from_modelinfo(text).unwrap();
        assert_eq!(hints.model_type, Some(ModelType::Yolov8));
        assert_eq!(hints.mean, Some([0.0, 127.5, 0.0]));
        assert_eq!(hints.std, Some([255.0, 127.5, 1.0]));

        let ssd = "[modelinfo]\nversion=1.0\ngroup-id=ssd-mobilenet-v1-variant-1-out\n[image_tensor:0]\ndir=input\nranges=0.0,255.0\n";
        let hints = ModelHints::from_modelinfo(ssd).unwrap();
        assert_eq!(
            (hints.model_type, hints.mean, hints.std),
            (Some(ModelType::Ssd), Some([0.0; 3]), Some([1.0; 3]))
        );
    }

    #[test]
    fn a_bad_modelinfo_says_where() {
        for (text, expected) in [
            ("[images]\ndir=input\n", "version"),
            ("[modelinfo]\nversion=2.0\n", "1.0"),
            ("version=1.0\n", "line 1"),
            ("[modelinfo]\nversion=1.0\n[a\n", "line 3"),
            ("[modelinfo]\nversion=1.0\n[a]\nnothing\n", "line 4"),
            ("[modelinfo]\nversion=1.0\n[a]\ndir=input\nranges=1,0\n", "min below max"),
            ("[modelinfo]\nversion=1.0\n[a]\ndir=input\nranges=0,1;0,1\n", "min,max"),
        ] {
            let error = ModelHints::from_modelinfo(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn metadata_of_ultralytics() {
        let metadata =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let hints = ModelHints::from_metadata(&metadata(&[
            ("names", "{0: 'cat', 1: 'dog'}"),
            ("imgsz", "[480, 640]"),
        ]));
        assert_eq!((hints.width, hints.height), (Some(640), Some(480)));
        assert_eq!(hints.labels.as_deref(), Some(&["cat".to_owned(), "dog".to_owned()][..]));
        let odd = ModelHints::from_metadata(&metadata(&[("names", "who knows"), ("imgsz", "[1,2,3,-4]")]));
        assert_eq!(odd, ModelHints::default());
    }

    #[test]
    fn type_names_are_read_back() {
        for (name, model_type) in ModelType::all() {
            assert_eq!(name.parse::<ModelType>().unwrap(), model_type);
            assert_eq!(model_type.name(), name);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "(\\PC|\n){0,300}") {
            let _ = ModelHints::from_toml(&text);
            let _ = ModelHints::from_modelinfo(&text);
            let _ = ModelHints::from_metadata(&[("names".to_owned(), text.clone()), ("imgsz".to_owned(), text)].into());
        }
    }
}
