//! Looks into ONNX files, and gives ONNX Runtime a graph that does the same with less work where it does not see
//! that itself.
//!
//! A model is read as what it is, a protobuf message, and copied field by field: what is not understood stays as it
//! was. Every byte is hostile. Whatever is unusual leaves the model alone: it runs as it stands, only slower.

mod focus;
mod graph;
mod proto;
#[cfg(test)]
mod tests;
mod wire;

pub use focus::fold_focus;
