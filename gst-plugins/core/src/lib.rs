//! The pure part of the NVR: everything that can be said about frames, tensors, detections and events
//! without GStreamer, a network, a clock or a thread. `now` is always a parameter.
#![forbid(unsafe_code)]

pub mod access_unit;
pub mod alert;
pub mod backoff;
pub mod command;
pub mod decode;
pub mod detection;
pub mod draw;
pub mod event;
pub mod frame;
pub mod geometry;
pub mod interleaved;
pub mod layout;
pub mod lifecycle;
pub mod model;
pub mod motion;
pub mod nal;
pub mod onnx;
pub mod overlay;
pub mod preprocess;
pub mod rate;
pub mod retention;
pub mod rtp;
pub mod rtsp;
pub mod scale;
pub mod scene;
pub mod secret;
pub mod segment;
pub mod slots;
pub mod times;
pub mod topic;
pub mod track;
pub mod zones;
