//! Runs a graph: one pipeline, one branch per camera, one thread that looks after them.

mod branch;
mod change;
mod instance;
pub(crate) mod property;
mod pulse;
mod request;
mod status;
mod tiers;

use gst::prelude::*;

pub use change::{Applied, Edit, Inspection, Paused, Target};
pub use instance::{Instance, Outcome, StartError};
pub use request::Handle;
pub use status::{Snapshot, SourceStatus};

/// Parses a description that holds no values, as a bin named `name`.
pub(crate) fn parse(description: &str, name: &str) -> Result<gst::Bin, String> {
    let mut context = gst::ParseContext::new();
    let flags = gst::ParseFlags::FATAL_ERRORS | gst::ParseFlags::NO_SINGLE_ELEMENT_BINS;
    let element =
        gst::parse::bin_from_description_with_name_full(description, false, name, Some(&mut context), flags)
            .map_err(|error| explain(&error, &context))?;
    match element.downcast::<gst::Bin>() {
        Ok(bin) => Ok(bin),
        Err(element) => {
            let bin = gst::Bin::with_name(name);
            bin.add(&element).map_err(|error| error.to_string())?;
            Ok(bin)
        }
    }
}

/// Parses a description that holds no values, as a pipeline.
pub(crate) fn parse_pipeline(description: &str, name: &str) -> Result<gst::Pipeline, String> {
    let mut context = gst::ParseContext::new();
    let flags = gst::ParseFlags::FATAL_ERRORS | gst::ParseFlags::NO_SINGLE_ELEMENT_BINS;
    let element = gst::parse::launch_full(description, Some(&mut context), flags)
        .map_err(|error| explain(&error, &context))?;
    let pipeline = match element.downcast::<gst::Pipeline>() {
        Ok(pipeline) => pipeline,
        Err(element) => {
            let pipeline = gst::Pipeline::new();
            pipeline.add(&element).map_err(|error| error.to_string())?;
            pipeline
        }
    };
    pipeline.set_property("name", name);
    Ok(pipeline)
}

fn explain(error: &gst::glib::Error, context: &gst::ParseContext) -> String {
    let missing = context.missing_elements();
    if missing.is_empty() {
        error.message().to_owned()
    } else {
        let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
        format!("this machine has no element {}", names.join(", "))
    }
}
