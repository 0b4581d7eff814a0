//! On labelled pictures every public model finds as much as the same model run by the Python reference.

use nvr_core::frame::PixelFormat;
use nvr_tests::{
    data,
    detector::runtime,
    score::{Labelled, Reference, score_model},
};

/// AP50 within one point, from the picture itself and from what a camera makes of it. The fast models only:
/// `tests/bench/score.rs` has the others, and writes docs/ref/accuracy.md.
#[test]
fn ap50_is_that_of_the_reference() {
    let Some(runtime) = runtime() else { return };
    let Some(labelled) = Labelled::load().unwrap() else { return };
    let reference = Reference::load().unwrap();
    assert_eq!(labelled.pictures.len(), reference.pictures);
    for (model, format) in [
        ("yolox_nano_416", PixelFormat::Nv12),
        ("nanodet_m_320", PixelFormat::Rgb),
        ("fastestdet_352", PixelFormat::Bgr),
        ("deimv2_atto_320", PixelFormat::I420),
    ] {
        let Some(path) = data::shared(&format!("models/{model}.onnx")) else { return };
        let got = score_model(runtime, &path, &labelled, &reference, format).unwrap();
        let expected = reference.models[model];
        println!("{model} {format:?}: AP50 {:.4}, reference {:.4}", got.ap50, expected.ap50);
        assert!(
            (got.ap50 - expected.ap50).abs() <= 0.01,
            "{model}: AP50 {:.4}, not {:.4}",
            got.ap50,
            expected.ap50
        );
    }
}
