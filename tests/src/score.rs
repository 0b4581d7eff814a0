//! Average precision, as COCO counts it: 101 recall points, interpolated precision, mean over the classes that
//! occur (Lin et al. 2014, arXiv:1405.0312, and pycocotools without crowds and size ranges).

use std::{collections::BTreeMap, path::Path};

use anyhow::Context;
use nvr_core::{
    decode::{DecodeParams, RawDetection},
    frame::PixelFormat,
    geometry::Rect,
    model::{ModelHints, ModelType},
};
use ort::environment::Environment;
use serde_json::Value;

use crate::{data, detector::Detector, picture::Picture};

/// What the Python reference reached, and with which settings.
#[derive(Clone, Debug)]
pub struct Reference {
    pub threshold: f32,
    pub max_detections: usize,
    pub pictures: usize,
    pub models: BTreeMap<String, Score>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    pub ap: f64,
    pub ap50: f64,
}

impl Reference {
    pub fn load() -> anyhow::Result<Self> {
        let path = data::own("reference/accuracy.json");
        let json: Value =
            serde_json::from_slice(&std::fs::read(&path).with_context(|| path.display().to_string())?)?;
        let number = |value: &Value| value.as_f64().with_context(|| format!("{}: a number", path.display()));
        let mut models = BTreeMap::new();
        for (name, score) in json["models"].as_object().context("models")? {
            models.insert(name.clone(), Score { ap: number(&score["ap"])?, ap50: number(&score["ap50"])? });
        }
        Ok(Self {
            threshold: number(&json["threshold"])? as f32,
            max_detections: number(&json["max_detections"])? as usize,
            pictures: number(&json["pictures"])? as usize,
            models,
        })
    }
}

/// The labelled pictures.
#[derive(Clone, Debug)]
pub struct Labelled {
    pub pictures: Vec<(Picture, Vec<Truth>)>,
}

impl Labelled {
    /// `None` where the shared test data are missing.
    pub fn load() -> anyhow::Result<Option<Self>> {
        let Some(root) = data::shared("images/coco") else { return Ok(None) };
        let json: Value = serde_json::from_slice(&std::fs::read(root.join("instances.json"))?)?;
        let mut truth: BTreeMap<u64, Vec<Truth>> = BTreeMap::new();
        for label in json["annotations"].as_array().context("annotations")? {
            let bbox = label["bbox"].as_array().context("bbox")?;
            let at = |i: usize| bbox.get(i).and_then(Value::as_f64).context("four numbers").map(|v| v as f32);
            let rect = Rect::new(at(0)?, at(1)?, at(2)?, at(3)?);
            let class_id = label["category_id"].as_u64().context("category_id")? as u32;
            let image = label["image_id"].as_u64().context("image_id")?;
            truth.entry(image).or_default().push(Truth { class_id, rect });
        }
        let mut pictures = Vec::new();
        for image in json["images"].as_array().context("images")? {
            let id = image["id"].as_u64().context("id")?;
            let file = image["file_name"].as_str().context("file_name")?;
            let picture = Picture::load(&root.join("images").join(file))?;
            pictures.push((picture, truth.remove(&id).unwrap_or_default()));
        }
        Ok(Some(Self { pictures }))
    }
}

/// Runs a model on every labelled picture.
pub fn score_model(
    runtime: &Environment,
    path: &Path,
    labelled: &Labelled,
    reference: &Reference,
    format: PixelFormat,
) -> anyhow::Result<Score> {
    let mut detector = Detector::open(runtime, path, ModelHints::default())?;
    let params = DecodeParams {
        threshold: reference.threshold,
        // As the reference: NanoDet's authors use 0.6, everybody else about this.
        iou_threshold: if detector.spec.model_type == ModelType::Nanodet { 0.6 } else { 0.45 },
        max_detections: reference.max_detections,
        classes: None,
    };
    let mut scored = Vec::new();
    for (picture, truth) in &labelled.pictures {
        let raw = picture.to(format, 0);
        scored.push(Scored { truth: truth.clone(), found: detector.detect(&raw.frame(), &params)? });
    }
    let (ap, ap50) = ap_and_ap50(&scored);
    Ok(Score { ap, ap50 })
}

/// One labelled object.
#[derive(Clone, Copy, Debug)]
pub struct Truth {
    pub class_id: u32,
    pub rect: Rect,
}

/// A picture's labels and what was found in it, best first.
#[derive(Clone, Debug, Default)]
pub struct Scored {
    pub truth: Vec<Truth>,
    pub found: Vec<RawDetection>,
}

/// Mean over classes at one IoU; 0 to 1.
pub fn average_precision(pictures: &[Scored], iou: f32) -> f64 {
    let mut totals: BTreeMap<u32, usize> = BTreeMap::new();
    for truth in pictures.iter().flat_map(|picture| &picture.truth) {
        *totals.entry(truth.class_id).or_default() += 1;
    }
    let sum: f64 = totals.iter().map(|(&class_id, &total)| of_class(pictures, class_id, total, iou)).sum();
    if totals.is_empty() { 0.0 } else { sum / totals.len() as f64 }
}

/// Mean over IoU 0.5, 0.55, … 0.95, and at 0.5 alone.
pub fn ap_and_ap50(pictures: &[Scored]) -> (f64, f64) {
    let all: Vec<f64> = (0..10).map(|i| average_precision(pictures, 0.5 + 0.05 * i as f32)).collect();
    (all.iter().sum::<f64>() / 10.0, all[0])
}

fn of_class(pictures: &[Scored], class_id: u32, total: usize, iou: f32) -> f64 {
    let mut ranked: Vec<(f32, usize, Rect)> = Vec::new();
    for (at, picture) in pictures.iter().enumerate() {
        let of_class = picture.found.iter().filter(|found| found.class_id == class_id);
        ranked.extend(of_class.map(|found| (found.confidence, at, found.rect)));
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));

    let mut taken: Vec<Vec<bool>> = pictures.iter().map(|picture| vec![false; picture.truth.len()]).collect();
    let (mut hits, mut curve) = (0usize, Vec::with_capacity(ranked.len()));
    for (rank, (_, at, rect)) in ranked.iter().enumerate() {
        let free = pictures[*at]
            .truth
            .iter()
            .enumerate()
            .filter(|(i, truth)| truth.class_id == class_id && !taken[*at][*i]);
        let best = free.map(|(i, truth)| (truth.rect.iou(rect), i)).max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((overlap, i)) = best
            && overlap >= iou
        {
            taken[*at][i] = true;
            hits += 1;
        }
        curve.push((hits as f64 / total as f64, hits as f64 / (rank + 1) as f64));
    }
    // Precision at a recall is the best at that recall or any larger one.
    for i in (1..curve.len()).rev() {
        curve[i - 1].1 = curve[i - 1].1.max(curve[i].1);
    }
    let at = |recall: f64| {
        curve.iter().find(|(r, _)| *r >= recall - 1e-9).map_or(0.0, |(_, precision)| *precision)
    };
    (0..=100).map(|i| at(f64::from(i) / 100.0)).sum::<f64>() / 101.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(x: f32) -> Truth {
        Truth { class_id: 0, rect: Rect::new(x, 0.0, 10.0, 10.0) }
    }

    fn found(confidence: f32, x: f32) -> RawDetection {
        RawDetection { class_id: 0, confidence, rect: Rect::new(x, 0.0, 10.0, 10.0) }
    }

    #[test]
    fn hand_counted() {
        let both = vec![truth(0.0), truth(100.0)];
        for (name, detections, expected) in [
            ("all found", vec![found(0.9, 0.0), found(0.8, 100.0)], 1.0),
            ("nothing found", vec![], 0.0),
            // Recall 0 to 0.5 at precision 1: 51 of 101 points.
            ("one found", vec![found(0.9, 0.0)], 51.0 / 101.0),
            // The second detection of the same object is false, and stands before the other object.
            (
                "one twice",
                vec![found(0.9, 0.0), found(0.8, 1.0), found(0.7, 100.0)],
                (51.0 + 50.0 * 2.0 / 3.0) / 101.0,
            ),
        ] {
            let got = average_precision(&[Scored { truth: both.clone(), found: detections }], 0.5);
            assert!((got - expected).abs() < 1e-9, "{name}: {got}, not {expected}");
        }
    }

    #[test]
    fn classes_without_labels_do_not_count() {
        let mut stray = found(0.9, 0.0);
        stray.class_id = 7;
        let picture = Scored { truth: vec![truth(0.0)], found: vec![stray, found(0.5, 0.0)] };
        assert!((average_precision(&[picture], 0.5) - 1.0).abs() < 1e-9);
    }
}
