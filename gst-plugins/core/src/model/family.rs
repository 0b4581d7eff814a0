//! Which family a model belongs to, from the names, number and shapes of its outputs.

use super::{Activation, BoxUnit, Form, Head, MAX_LABELS, ModelIo, ModelType, TensorInfo};

/// Strides of the grids that one-stage detectors predict on, as far as such models are published.
const STRIDES: [&[usize]; 5] = [&[8, 16, 32], &[8, 16, 32, 64], &[16, 32], &[4, 8, 16, 32], &[32]];

/// Cells of all grids together. A grid has `ceil(side / stride)` cells a side, as padded convolutions leave.
pub(crate) fn cells(width: usize, height: usize, strides: &[usize]) -> usize {
    strides.iter().map(|s| width.div_ceil(*s) * height.div_ceil(*s)).sum()
}

/// The strides with which a `width` × `height` input has `n` cells in all.
pub(crate) fn strides_for(width: usize, height: usize, n: usize) -> Option<&'static [usize]> {
    STRIDES.into_iter().find(|strides| cells(width, height, strides) == n)
}

/// What was recognised, and from what.
pub(super) struct Found {
    pub model_type: ModelType,
    pub head: Head,
    pub why: String,
}

/// What the file looks like where it is no known detector.
pub(super) struct Unknown {
    pub looks_like: String,
}

/// Everything the recognition looks at.
pub(super) struct Question<'a> {
    pub io: &'a ModelIo,
    pub width: usize,
    pub height: usize,
    /// Whether the frame's own size is an input of the model; its boxes are then in frame pixels.
    pub takes_frame_size: bool,
    /// Number of labels, where somebody named them.
    pub labels: Option<usize>,
}

type Shape<'a> = &'a [Option<usize>];

impl Question<'_> {
    /// The family that the outputs show.
    pub fn recognise(&self) -> Result<Found, Unknown> {
        let order = [
            ModelType::Yunet,
            ModelType::Ssd,
            ModelType::Nanodet,
            ModelType::Detr,
            ModelType::Fastestdet,
            ModelType::Yolox,
            ModelType::Yolov5,
            ModelType::Yolov8,
            ModelType::Yolov10,
            ModelType::Nms7,
        ];
        order
            .into_iter()
            .find_map(|model_type| self.find(model_type, true))
            .ok_or_else(|| Unknown { looks_like: self.looks_like() })
    }

    /// The outputs of a family that somebody named. Shapes have to fit, but need not prove the family.
    pub fn confirm(&self, model_type: ModelType) -> Option<Found> {
        self.find(model_type, true).or_else(|| self.find(model_type, false))
    }

    fn find(&self, model_type: ModelType, strict: bool) -> Option<Found> {
        let (head, why) = match model_type {
            ModelType::Yunet => self.yunet(),
            ModelType::Ssd => self.ssd(strict),
            ModelType::Nanodet => self.nanodet(),
            ModelType::Detr => self.detr(strict),
            ModelType::Fastestdet => self.single(|_, shape| self.fastestdet(shape, strict)),
            ModelType::Yolox => self.single(|_, shape| self.cells_by_attributes(shape, 1, strict)),
            ModelType::Yolov5 => self.single(|_, shape| self.cells_by_attributes(shape, 3, strict)),
            ModelType::Yolov8 => self.single(|_, shape| self.yolov8(shape, strict)),
            ModelType::Yolov10 => self.single(|_, shape| Self::yolov10(shape)),
            ModelType::Nms7 => self.single(|_, shape| Self::nms7(shape, strict)),
        }?;
        let plausible = head.classes.is_none_or(|classes| (1..=MAX_LABELS).contains(&classes));
        plausible.then_some(Found { model_type, head, why })
    }

    /// The first output that one of the single-output layouts fits.
    fn single(
        &self,
        fits: impl Fn(&TensorInfo, Shape<'_>) -> Option<(Option<usize>, BoxUnit)>,
    ) -> Option<(Head, String)> {
        self.io.outputs.iter().find_map(|output| {
            let (classes, boxes) = fits(output, &output.shape)?;
            Some((head(&[output], Form::Plain, classes, boxes), output.describe()))
        })
    }

    /// 1×N×(5+C), N cells times `anchors`.
    fn cells_by_attributes(
        &self,
        shape: Shape<'_>,
        anchors: usize,
        strict: bool,
    ) -> Option<(Option<usize>, BoxUnit)> {
        let &[_, n, Some(attributes)] = shape else { return None };
        let fits = match n {
            Some(n) if strict => {
                n % anchors == 0 && strides_for(self.width, self.height, n / anchors).is_some()
            }
            Some(_) => true,
            // Dynamic: Ultralytics' YOLOv5 exports are; 6 columns alone are the end-to-end layout.
            None => !strict || (anchors == 3 && attributes > 6),
        };
        let combined = self.labels.is_some_and(|labels| labels + 4 == attributes && labels + 5 != attributes);
        (fits && !(strict && combined)).then_some((Some(attributes.checked_sub(5)?), BoxUnit::InputPixels))
    }

    /// 1×(4+C)×N, or transposed 1×N×(4+C) where somebody says so.
    fn yolov8(&self, shape: Shape<'_>, strict: bool) -> Option<(Option<usize>, BoxUnit)> {
        let &[_, a, b] = shape else { return None };
        let is_cells = |n: Option<usize>| n.is_none_or(|n| strides_for(self.width, self.height, n).is_some());
        let attributes = match (a, b) {
            (Some(a), b) if a >= 5 && is_cells(b) => a,
            (a, Some(b)) if !strict && b >= 5 && is_cells(a) => b,
            (Some(a), Some(b)) if !strict && a.min(b) >= 5 => a.min(b),
            _ => return None,
        };
        // A mask prototype (1×32×H×W) beside it makes it a segmentation model.
        let masks =
            self.io.outputs.iter().any(|output| output.shape.len() == 4 && output.shape[1] == Some(32));
        (!(strict && masks)).then_some((Some(attributes - 4), BoxUnit::InputPixels))
    }

    fn yolov10(shape: Shape<'_>) -> Option<(Option<usize>, BoxUnit)> {
        let &[_, _, Some(6)] = shape else { return None };
        Some((None, BoxUnit::ByValue))
    }

    /// N×7. One fixed row is a classifier of seven classes.
    fn nms7(shape: Shape<'_>, strict: bool) -> Option<(Option<usize>, BoxUnit)> {
        let &[rows, Some(7)] = shape else { return None };
        (!strict || rows != Some(1)).then_some((None, BoxUnit::InputPixels))
    }

    /// 1×(5+C)×H×W on a single grid of stride 16.
    fn fastestdet(&self, shape: Shape<'_>, strict: bool) -> Option<(Option<usize>, BoxUnit)> {
        let &[_, Some(channels), rows, columns] = shape else { return None };
        let grid = (Some(self.height.div_ceil(16)), Some(self.width.div_ceil(16)));
        let fits = (rows, columns) == grid && self.io.outputs.len() == 1;
        (fits || !strict).then_some((Some(channels.checked_sub(5)?), BoxUnit::InputPixels))
    }

    /// Twelve tensors (nine without landmarks): per stride two scores, box, key points.
    fn yunet(&self) -> Option<(Head, String)> {
        let of = |columns: usize| {
            self.io
                .outputs
                .iter()
                .filter(move |o| o.shape.len() >= 2 && o.shape.last() == Some(&Some(columns)))
        };
        let (scores, boxes): (Vec<_>, Vec<_>) = (of(1).collect(), of(4).collect());
        let fits = scores.len() == 6 && boxes.len() == 3 && matches!(self.io.outputs.len(), 9 | 12);
        fits.then(|| {
            let outputs: Vec<_> = scores.into_iter().chain(boxes).collect();
            let why =
                format!("{} outputs: scores, boxes, key points for strides 8, 16, 32", self.io.outputs.len());
            (head(&outputs, Form::Plain, Some(1), BoxUnit::InputPixels), why)
        })
    }

    fn ssd(&self, strict: bool) -> Option<(Head, String)> {
        let named = |part: &str| self.io.outputs.iter().find(|o| o.name.to_ascii_lowercase().contains(part));
        let boxes_at = |o: &&TensorInfo| o.shape.len() >= 2 && matches!(o.shape.last(), Some(Some(4) | None));
        let (boxes, classes, scores, count) = match (
            named("detection_boxes").filter(boxes_at),
            named("detection_classes"),
            named("detection_scores"),
        ) {
            (Some(boxes), Some(classes), Some(scores)) => (boxes, classes, scores, named("num_detections")),
            // TensorFlow Lite's order, where the names say nothing.
            _ if !strict => match self.io.outputs.as_slice() {
                [boxes, classes, scores, rest @ ..] if boxes_at(&boxes) => {
                    (boxes, classes, scores, rest.first())
                }
                _ => return None,
            },
            _ => return None,
        };
        let outputs: Vec<_> = [boxes, classes, scores].into_iter().chain(count).collect();
        let why = format!("outputs {}, {}, {}", boxes.name, classes.name, scores.name);
        Some((head(&outputs, Form::Plain, None, BoxUnit::Normalised), why))
    }

    /// Three score tensors N×C and three distance tensors N×4·bins, on grids of stride 8, 16, 32.
    fn nanodet(&self) -> Option<(Head, String)> {
        if self.io.outputs.len() != 6 {
            return None;
        }
        let mut found: Vec<(usize, usize, &TensorInfo)> = Vec::new();
        for output in &self.io.outputs {
            let &[.., Some(n), Some(columns)] = output.shape.as_slice() else { return None };
            found.push((columns, n, output));
        }
        let widths: Vec<usize> = {
            let mut widths: Vec<_> = found.iter().map(|(columns, ..)| *columns).collect();
            widths.sort_unstable();
            widths.dedup();
            widths
        };
        let &[a, b] = widths.as_slice() else { return None };
        let is_distance = |columns: usize| columns.is_multiple_of(4) && (8..=128).contains(&columns);
        // Both could be distances: the labels decide, else the usual 8 bins.
        let (classes, distances) = match (is_distance(a), is_distance(b)) {
            (true, false) => (b, a),
            (true, true) if self.labels == Some(a) => (a, b),
            (true, true) if self.labels == Some(b) || a == 32 => (b, a),
            (_, true) => (a, b),
            (false, false) => return None,
        };
        let mut outputs = Vec::new();
        for columns in [classes, distances] {
            for stride in [8, 16, 32] {
                let n = cells(self.width, self.height, &[stride]);
                outputs.push(found.iter().find(|(c, m, _)| (*c, *m) == (columns, n))?.2);
            }
        }
        let why = format!("six outputs of {classes} scores and 4×{} distances", distances / 4);
        Some((head(&outputs, Form::Plain, Some(classes), BoxUnit::InputPixels), why))
    }

    fn detr(&self, strict: bool) -> Option<(Head, String)> {
        let unit = if self.takes_frame_size { BoxUnit::FramePixels } else { BoxUnit::ByValue };
        let named = |parts: &[&str]| {
            self.io
                .outputs
                .iter()
                .find(|o| parts.iter().any(|part| o.name.to_ascii_lowercase().contains(part)))
        };
        let is_float = |o: &TensorInfo| o.element.starts_with("float");
        let ends_in_4 =
            |o: &&TensorInfo| matches!(o.shape.last(), Some(Some(4) | None)) && o.shape.len() >= 2;
        let boxes = named(&["boxes", "dets"]).filter(ends_in_4);
        if let (Some(boxes), Some(labels), Some(scores)) = (boxes, named(&["labels"]), named(&["scores"]))
            && !is_float(labels)
        {
            let why = format!("outputs {}, {}, {}", labels.name, boxes.name, scores.name);
            return Some((head(&[labels, boxes, scores], Form::LabelsBoxesScores, None, unit), why));
        }
        if let (Some(boxes), Some(logits)) = (boxes, named(&["logits", "labels"]))
            && is_float(logits)
            && let &[_, queries, Some(classes)] = logits.shape.as_slice()
            && boxes.shape.len() == 3
            && (queries.is_none() || boxes.shape[1].is_none() || queries == boxes.shape[1])
        {
            let softmax = classes == 92;
            let mut head = head(
                &[logits, boxes],
                Form::LogitsBoxes,
                Some(classes - usize::from(softmax)),
                BoxUnit::Normalised,
            );
            head.scores = if softmax { Activation::Softmax } else { Activation::Sigmoid };
            return Some((head, format!("outputs {} and {}", logits.describe(), boxes.describe())));
        }
        // Ultralytics' RT-DETR: centre, size and class probabilities of each query side by side.
        let combined = |output: &TensorInfo| match output.shape.as_slice() {
            &[_, Some(queries), Some(columns)] if columns >= 5 => {
                let known = self.labels.is_some_and(|labels| labels + 4 == columns) && queries <= 1000;
                (known || !strict).then_some(columns - 4)
            }
            _ => None,
        };
        let (output, classes) = self.io.outputs.iter().find_map(|o| Some((o, combined(o)?)))?;
        // Three-scale grids have the same shape only by accident; the grid's count wins then.
        let is_grid = output.shape[1].is_some_and(|n| strides_for(self.width, self.height, n).is_some());
        (!(strict && is_grid))
            .then(|| (head(&[output], Form::Combined, Some(classes), BoxUnit::ByValue), output.describe()))
    }

    /// Names what the outputs look like, for the one message that a person reads.
    fn looks_like(&self) -> String {
        let outputs = &self.io.outputs;
        let shapes = outputs.iter().take(4).map(TensorInfo::describe).collect::<Vec<_>>().join(", ");
        let more = if outputs.len() > 4 { format!(" and {} more", outputs.len() - 4) } else { String::new() };
        let kind = match outputs.as_slice() {
            [] => "a model without outputs".to_owned(),
            [one] if one.shape.len() == 2 => {
                let n = one.shape[1].map_or_else(|| "some".into(), |n| n.to_string());
                format!("a classification or embedding model with {n} numbers per picture")
            }
            outputs if outputs.iter().any(|o| o.shape.len() == 4 && o.shape[1] == Some(32)) => {
                "an instance segmentation model".to_owned()
            }
            [one] if one.shape.len() == 4 => "a model that gives a picture or a mask".to_owned(),
            outputs if outputs.iter().all(|o| o.shape.len() == 5) => {
                "raw YOLO heads without the decoding part (export the model with it)".to_owned()
            }
            _ => "no known detector".to_owned(),
        };
        format!("{kind} (outputs {shapes}{more})")
    }
}

fn head(outputs: &[&TensorInfo], form: Form, classes: Option<usize>, boxes: BoxUnit) -> Head {
    Head {
        outputs: outputs.iter().map(|output| output.name.clone()).collect(),
        form,
        classes,
        boxes,
        scores: Activation::None,
        label_offset: 0,
    }
}
