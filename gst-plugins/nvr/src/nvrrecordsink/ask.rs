//! What others ask of a recorder: recordings on demand, clips, and what it is doing. Nobody waits for the disk.

use gst::prelude::*;
use gst::subclass::prelude::*;
use nvr_core::segment::trigger::Demand;

use super::clips::{self, Done, Promise};
use super::imp::NvrRecordSink;
use super::report::{Doing, Report};
use super::tiers::TierReport;
use super::worker::{now_us, steady_ns};

impl NvrRecordSink {
    fn source_id(&self) -> u32 {
        self.obj().property("source-id")
    }

    pub fn start_recording(&self, label: Option<String>, seconds: Option<f64>) -> Result<Demand, String> {
        let source_id = self.source_id();
        let shared = self.running().ok_or_else(|| not_running(source_id))?;
        let Report { doing, error, .. } = shared.report.lock().clone();
        if doing == Doing::Failing {
            let why = error.unwrap_or_default();
            return Err(format!("camera {source_id} cannot be recorded now: {why}"));
        }
        let demand = Demand::new(label, seconds, now_us(), steady_ns());
        shared.asked.lock().demand = Some(demand.clone());
        shared.inbox.wake();
        Ok(demand)
    }

    /// Sets what is asked for; gives what was before.
    pub fn demand(&self, demand: Option<Demand>) -> Option<Demand> {
        let shared = self.running()?;
        let before = std::mem::replace(&mut shared.asked.lock().demand, demand);
        shared.inbox.wake();
        before
    }

    pub fn save_clip(&self, name: Option<String>, before: f64, after: f64, done: Done) {
        let source_id = self.source_id();
        let promise = Promise::new(done);
        let Some(shared) = self.running() else { return promise.keep(Err(not_running(source_id))) };
        let order = clips::Order { name, before, after, promise };
        let refused = {
            let mut asked = shared.asked.lock();
            if asked.open_clips < clips::MOST {
                asked.open_clips += 1;
                asked.clips.push(order);
                None
            } else {
                Some(order)
            }
        };
        match refused {
            None => shared.inbox.wake(),
            Some(order) => order
                .promise
                .keep(Err(format!("{} clips of camera {source_id} are being made already", clips::MOST))),
        }
    }

    pub fn report(&self) -> Report {
        let Some(shared) = self.running() else { return Report::default() };
        let demand = shared.asked.lock().demand.clone();
        Report { demand, ..shared.report.lock().clone() }
    }

    pub fn tiers(&self) -> Vec<TierReport> {
        self.running().map(|shared| shared.tally.tiers()).unwrap_or_default()
    }
}

fn not_running(source_id: u32) -> String {
    format!("the recorder of camera {source_id} does not run")
}
