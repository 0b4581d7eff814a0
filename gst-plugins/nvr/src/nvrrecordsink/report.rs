//! What the recorder says of itself: state for the status, messages, and warnings that are told once.

use gst::glib;
use gst::prelude::*;
use nvr_core::segment::trigger::{Demand, Reason};

use super::NvrRecordSink;
use super::clips::Clip;
use super::file::SegmentFile;
use super::tiers::TierReport;

/// What a recorder is doing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Doing {
    #[default]
    Idle,
    Recording,
    /// The disk does not take anything.
    Failing,
}

impl Doing {
    /// As messages and status spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Recording => "recording",
            Self::Failing => "failing",
        }
    }
}

/// What a recorder is doing, and since when.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    pub doing: Doing,
    pub reason: Option<Reason>,
    /// Capture time from which on there is no pause, microseconds since 1970.
    pub since_us: Option<i64>,
    /// What was asked for.
    pub demand: Option<Demand>,
    pub error: Option<String>,
}

/// Where messages go.
#[derive(Debug)]
pub struct Voice(pub glib::WeakRef<NvrRecordSink>);

impl Voice {
    fn post(&self, structure: gst::Structure) {
        if let Some(element) = self.0.upgrade() {
            // Fails only where no bus listens.
            let _ = element.post_message(gst::message::Element::builder(structure).src(&element).build());
        }
    }

    pub fn warn(&self, text: &str) {
        if let Some(element) = self.0.upgrade() {
            gst::element_warning!(element, gst::ResourceError::Write, ("{text}"));
        }
    }

    /// The stream has ended and everything is in files.
    pub fn end(&self, seqnum: gst::Seqnum) {
        if let Some(element) = self.0.upgrade() {
            let eos = gst::message::Eos::builder().src(&element).seqnum(seqnum).build();
            let _ = element.post_message(eos);
        }
    }

    pub fn state(&self, report: &Report, source_id: u32) {
        let why = report.error.as_deref().or(report.reason.map(Reason::name)).unwrap_or_default();
        let mut structure = gst::Structure::builder("nvr-record-state")
            .field("source-id", source_id)
            .field("state", report.doing.name())
            .field("reason", why)
            .field("on-demand", report.demand.is_some());
        if let Some(since_us) = report.since_us {
            structure = structure.field("since", since_us.max(0) as u64);
        }
        self.post(structure.build());
    }

    /// A tier is missing, or back.
    pub fn tier(&self, report: &TierReport, source_id: u32) {
        self.post(
            gst::Structure::builder("nvr-tier-state")
                .field("source-id", source_id)
                .field("tier", report.tier)
                .field("location", report.location.as_str())
                .field("state", report.state())
                .field("reason", report.error.as_deref().unwrap_or_default())
                .build(),
        );
    }

    pub fn segment(&self, segment: &SegmentFile, source_id: u32) {
        let reason = segment.cause.reason.map_or("", Reason::name);
        self.post(
            gst::Structure::builder("nvr-segment")
                .field("source-id", source_id)
                .field("path", segment.path.display().to_string())
                .field("start", segment.start_us as u64)
                .field("end", segment.end_us() as u64)
                .field("bytes", segment.bytes)
                .field("frames", segment.frames)
                .field("keyframes", segment.keyframes)
                .field("events", segment.events)
                .field("reason", reason)
                .build(),
        );
    }

    pub fn clip(&self, name: &str, outcome: &Result<Clip, String>, source_id: u32) {
        let structure = gst::Structure::builder("nvr-clip").field("source-id", source_id).field("name", name);
        self.post(match outcome {
            Ok(clip) => structure
                .field("path", clip.path.display().to_string())
                .field("start", clip.start_us.max(0) as u64)
                .field("end", clip.end_us.max(0) as u64)
                .field("bytes", clip.bytes)
                .field("missing", clip.missing)
                .build(),
            Err(error) => structure.field("error", error.as_str()).build(),
        });
    }
}
