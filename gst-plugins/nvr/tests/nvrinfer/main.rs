//! Tests of `nvrinfer` with real, tiny models. Those that need ONNX Runtime say so where it is missing.

mod element;
mod models;
mod sharing;
mod swap;
mod util;
