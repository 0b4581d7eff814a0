//! Model files as anybody may have written them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nvr_core::onnx::fold_focus;

fuzz_target!(|model: &[u8]| {
    if let Some(folded) = fold_focus(model) {
        // The weights keep their size; a few attributes come with it.
        assert!(folded.len() <= model.len() + 1024);
        fold_focus(&folded);
    }
});
