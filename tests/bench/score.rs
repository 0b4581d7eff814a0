//! Scores the public test models on the labelled pictures of the shared test data, our way and from I420 as a
//! camera gives it, beside what the Python reference reached (`tests/bench/reference.py score`).
//!
//! ```text
//! cargo run --release -p nvr-tests --bin nvr-score -- --write docs/ref/accuracy.md
//! ```

use std::{fmt::Write as _, path::PathBuf};

use anyhow::Context;
use clap::Parser;
use nvr_core::frame::PixelFormat;
use nvr_tests::{
    data,
    detector::runtime,
    score::{Labelled, Reference, score_model},
};

#[derive(Parser)]
#[command(about = "Average precision of the test models beside that of the Python reference")]
struct Args {
    /// Writes the table into this file too.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Only these models.
    models: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let reference = Reference::load()?;
    let runtime = runtime().context("no ONNX Runtime")?;
    let labelled = Labelled::load()?.context("no shared test data")?;
    let mut table = String::from(
        "| model | reference AP50 | ours AP50, RGB | ours AP50, I420 | reference AP | ours AP, RGB | ours AP, I420 |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for (model, expected) in &reference.models {
        if !args.models.is_empty() && !args.models.contains(model) {
            continue;
        }
        let path = data::shared(&format!("models/{model}.onnx")).context("no such model")?;
        let rgb = score_model(runtime, &path, &labelled, &reference, PixelFormat::Rgb)?;
        let i420 = score_model(runtime, &path, &labelled, &reference, PixelFormat::I420)?;
        let row = format!(
            "| {model} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} | {:.3} |",
            expected.ap50, rgb.ap50, i420.ap50, expected.ap, rgb.ap, i420.ap
        );
        println!("{row}");
        writeln!(table, "{row}")?;
    }
    if let Some(path) = args.write {
        std::fs::write(&path, page(&reference, &table)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn page(reference: &Reference, table: &str) -> String {
    format!(
        "# Accuracy\n\n\
         Average precision of public models on {} labelled pictures of COCO val2017, run by this project's own \
         preprocessing and decoding, beside the same models run by a plain Python program (OpenCV, NumPy, ONNX \
         Runtime). The pictures are too few for a COCO score; the table shows that nothing is lost on the way. A \
         test keeps AP50 within 0.01 of the reference.\n\n\
         AP50 is COCO's 101-point average precision at IoU 0.5, averaged over the classes that occur; AP is the \
         mean of that at IoU 0.50, 0.55, … 0.95. Boxes from a confidence of {} are counted, at most {} a picture. \
         I420 is the picture as a camera sends it, with chroma at half size; the reference sees the picture itself.\n\n\
         {table}\n\
         The models are those of the test data, which are not part of this repository. To measure again, with \
         `NVR_TEST_DATA` naming the folder that has them:\n\n\
         ```sh\n\
         python3 tests/bench/reference.py score\n\
         cargo run --release -p nvr-tests --bin nvr-score -- --write docs/ref/accuracy.md\n\
         ```\n",
        reference.pictures, reference.threshold, reference.max_detections
    )
}
