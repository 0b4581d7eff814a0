//! Runs NVR graphs: graph files and site files, their parameters, the supervision of camera branches, and the
//! command line `nvr-launch`.

pub mod broker;
pub mod check;
pub mod cli;
pub mod control;
pub mod ctl;
pub mod demo;
pub mod diagnostics;
pub mod fault_lab;
mod files;
pub mod graph;
pub mod live;
pub mod logging;
pub mod models;
pub mod orchestrate;
mod output;
pub mod process;
mod recordings;
pub mod redact;
pub mod rtsp_server;
pub mod runtime;
pub mod site;
pub mod template;
pub mod values;
pub mod wall;
