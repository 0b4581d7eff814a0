//! How well a tracker follows: MOTChallenge files, and the usual measures over them.
//!
//! MOTA and switches are those of CLEAR MOT (Bernardin and Stiefelhagen 2008): frame by frame, who was matched
//! stays matched as long as the boxes overlap by half, the rest is matched with the largest overlap. IDF1 (Ristani et
//! al. 2016) matches whole tracks with whole objects once.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    path::Path,
};

use anyhow::{Context, ensure};
use nvr_core::{
    detection::Detection,
    geometry::Rect,
    track::{Algorithm, Assigner, Pair, Params, Tracker},
};

/// Least overlap of a box and the object it stands for.
const OVERLAP: f32 = 0.5;

/// Who is where in one frame.
pub type Boxes = Vec<(u64, Rect)>;

/// Frames by their number.
pub type Frames = BTreeMap<u32, Boxes>;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MotScore {
    pub mota: f64,
    pub idf1: f64,
    pub switches: usize,
    pub false_positives: usize,
    pub misses: usize,
}

/// Scores `found` against `truth`.
pub fn score(truth: &Frames, found: &Frames) -> MotScore {
    let none = Vec::new();
    let mut assigner = Assigner::default();
    let (mut switches, mut misses, mut false_positives) = (0, 0, 0);
    let mut last: HashMap<u64, u64> = HashMap::new();
    let mut now: HashMap<u64, u64> = HashMap::new();
    let mut together: HashMap<(u64, u64), u32> = HashMap::new();
    let mut numbers: Vec<u32> = truth.keys().chain(found.keys()).copied().collect();
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers {
        let gt = truth.get(&number).unwrap_or(&none);
        let tracks = found.get(&number).unwrap_or(&none);
        let mut pairs = Vec::new();
        for (row, (object, a)) in gt.iter().enumerate() {
            for (column, (track, b)) in tracks.iter().enumerate() {
                let overlap = a.iou(b);
                if overlap < OVERLAP {
                    continue;
                }
                *together.entry((*object, *track)).or_default() += 1;
                // The number of pairs counts first, then the overlap; whom it was before, before all.
                let stays = now.get(object) == Some(track);
                pairs.push(Pair { row, column, gain: if stays { 1e4 } else { 10.0 + overlap } });
            }
        }
        let mut chosen = Vec::new();
        assigner.solve(gt.len(), tracks.len(), &pairs, &mut chosen);
        now.clear();
        for &n in &chosen {
            let (object, track) = (gt[pairs[n].row].0, tracks[pairs[n].column].0);
            switches += usize::from(last.insert(object, track).is_some_and(|before| before != track));
            now.insert(object, track);
        }
        misses += gt.len() - chosen.len();
        false_positives += tracks.len() - chosen.len();
    }
    let total: usize = truth.values().map(Vec::len).sum();
    let said: usize = found.values().map(Vec::len).sum();
    let agreed = agreed_frames(&together);
    MotScore {
        mota: 1.0 - (false_positives + misses + switches) as f64 / total.max(1) as f64,
        idf1: 2.0 * agreed / (total + said).max(1) as f64,
        switches,
        false_positives,
        misses,
    }
}

/// Frames in which objects and tracks overlap, each object with one track for good.
fn agreed_frames(together: &HashMap<(u64, u64), u32>) -> f64 {
    let index = |key: fn(&(u64, u64)) -> u64| {
        let mut ids: Vec<u64> = together.keys().map(key).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let (objects, tracks) = (index(|k| k.0), index(|k| k.1));
    let at = |ids: &[u64], id: u64| ids.binary_search(&id).expect("every id is in its list");
    let pairs: Vec<Pair> = together
        .iter()
        .map(|(&(object, track), &count)| Pair {
            row: at(&objects, object),
            column: at(&tracks, track),
            gain: count as f32,
        })
        .collect();
    let mut chosen = Vec::new();
    Assigner::default().solve(objects.len(), tracks.len(), &pairs, &mut chosen);
    chosen.iter().map(|&n| f64::from(pairs[n].gain)).sum()
}

/// One labelled sequence of the shared test data.
#[derive(Clone, Debug)]
pub struct Sequence {
    pub truth: Frames,
    /// What a detector saw, best first as it came.
    pub detections: BTreeMap<u32, Vec<Detection>>,
}

impl Sequence {
    /// From a folder with `gt/gt.txt` and `det/det.txt`.
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        let mut truth = Frames::new();
        for row in rows(&folder.join("gt/gt.txt"))? {
            // Column 7 is 0 for what does not count.
            if row.score != 0.0 {
                truth.entry(row.frame).or_default().push((row.id, row.rect));
            }
        }
        let mut detections: BTreeMap<u32, Vec<Detection>> = BTreeMap::new();
        for row in rows(&folder.join("det/det.txt"))? {
            detections.entry(row.frame).or_default().push(Detection {
                class_name: "person".into(),
                class_id: Some(0),
                confidence: row.score,
                rect: row.rect,
                tracker_id: None,
            });
        }
        Ok(Self { truth, detections })
    }

    /// What the tracker makes of the detections at so many frames a second.
    pub fn track(&self, fps: f64, params: &Params) -> Frames {
        let last = self.truth.keys().chain(self.detections.keys()).max().copied().unwrap_or(0);
        let (mut tracker, mut next_id, none) = (Tracker::default(), 0, Vec::new());
        (1..=last)
            .map(|frame| {
                let seen = self.detections.get(&frame).unwrap_or(&none);
                let now_ns = (f64::from(frame) / fps * 1e9) as u64;
                let ids = tracker
                    .update(now_ns, seen, params, || {
                        next_id += 1;
                        next_id
                    })
                    .to_vec();
                let boxes = match params.algorithm {
                    Algorithm::ByteTrack => tracker.boxes().collect(),
                    // Without a filter the boxes are the detector's.
                    Algorithm::Iou => {
                        seen.iter().zip(ids).filter_map(|(d, id)| Some((id?, d.rect))).collect()
                    }
                };
                (frame, boxes)
            })
            .collect()
    }
}

/// A result in MOTChallenge format.
pub fn load_frames(path: &Path) -> anyhow::Result<Frames> {
    let mut frames = Frames::new();
    for row in rows(path)? {
        frames.entry(row.frame).or_default().push((row.id, row.rect));
    }
    Ok(frames)
}

struct Row {
    frame: u32,
    id: u64,
    rect: Rect,
    score: f32,
}

fn rows(path: &Path) -> anyhow::Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let row = |line: &str| -> anyhow::Result<Row> {
        let v: Vec<f32> = line.split(',').take(7).map(|v| v.trim().parse()).collect::<Result<_, _>>()?;
        ensure!(v.len() == 7, "seven columns are needed");
        let rect = Rect::new(v[2], v[3], v[4], v[5]);
        Ok(Row { frame: v[0] as u32, id: v[1].max(0.0) as u64, rect, score: v[6] })
    };
    text.lines()
        .enumerate()
        .map(|(n, line)| row(line).with_context(|| format!("{}:{}", path.display(), n + 1)))
        .collect()
}

/// What the reference reached: sequence, frames a second, scores as published and with our thresholds.
fn reference(path: &Path) -> anyhow::Result<Vec<(String, f64, [MotScore; 2])>> {
    let json: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&std::fs::read(path).with_context(|| path.display().to_string())?)?;
    json.into_iter()
        .map(|(name, value)| {
            let score = |value: &serde_json::Value| -> anyhow::Result<MotScore> {
                let number = |key: &str| value[key].as_f64().with_context(|| format!("{name}: {key}"));
                Ok(MotScore {
                    mota: number("mota")?,
                    idf1: number("idf1")?,
                    switches: number("switches")? as usize,
                    false_positives: number("false")? as usize,
                    misses: number("missed")? as usize,
                })
            };
            let scores = [score(&value)?, score(&value["same_thresholds"])?];
            let fps = value["fps"].as_f64().with_context(|| format!("{name}: fps"))?;
            Ok((name, fps, scores))
        })
        .collect()
}

/// Thresholds for the detections of these sequences, whose scores are high (half of them above 0.95).
pub fn params(algorithm: Algorithm) -> Params {
    Params { algorithm, high: 0.65, new: 0.85, ..Params::default() }
}

/// One line of the table of docs/ref/tracking-accuracy.md.
#[derive(Clone, Debug)]
pub struct Line {
    pub sequence: String,
    pub fps: f64,
    /// With the settings that the paper's authors publish, and with the thresholds of [`params`].
    pub reference: [MotScore; 2],
    pub ours: MotScore,
    pub iou: MotScore,
}

/// Tracks and scores every sequence that the reference has.
pub fn compare(root: &Path, reference: &Path) -> anyhow::Result<Vec<Line>> {
    self::reference(reference)?
        .into_iter()
        .map(|(sequence, fps, reference)| {
            let data = Sequence::load(&root.join(&sequence))?;
            let ours = |algorithm| score(&data.truth, &data.track(fps, &params(algorithm)));
            let (bytetrack, iou) = (ours(Algorithm::ByteTrack), ours(Algorithm::Iou));
            Ok(Line { sequence, fps, reference, ours: bytetrack, iou })
        })
        .collect()
}

/// The table as Markdown.
pub fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "| sequence | fps | reference | reference, our thresholds | `bytetrack` | `iou` |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for line in lines {
        let cell = |s: &MotScore| format!("{:.3} / {:.3} / {}", s.mota, s.idf1, s.switches);
        let [published, same] = &line.reference;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            line.sequence,
            line.fps,
            cell(published),
            cell(same),
            cell(&line.ours),
            cell(&line.iou)
        );
    }
    text
}
