//! Recording on demand: what commands ask of the `nvrrecordsink` elements of the pipeline.
//!
//! What was asked for is kept here too. A branch that is built anew has a new recorder, which is told again.

use std::collections::BTreeMap;

use gst::prelude::*;
use nvr_core::{
    command::{OnDemand, Recording, Tier},
    event::timestamp,
    segment::trigger::{Demand, Reason},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::surroundings::Found;
use crate::nvrrecordsink::{Clip, Doing, NvrRecordSink, now_us, steady_ns};

/// What was asked for, by camera.
pub type Demands = Mutex<BTreeMap<u32, Demand>>;

fn time(us: i64) -> String {
    timestamp(us.max(0) as u64 * 1000).to_string()
}

fn on_demand(demand: &Demand) -> OnDemand {
    OnDemand { since: time(demand.since_us), until: demand.until_us.map(time), label: demand.label.clone() }
}

fn recorder(found: &Found) -> Option<NvrRecordSink> {
    found.element.clone().downcast().ok()
}

/// The recorders of one camera, or of all, by camera.
fn recorders(found: &[Found], source_id: Option<u32>) -> Result<Vec<(u32, NvrRecordSink)>, String> {
    let list: Vec<_> = found
        .iter()
        .filter(|item| source_id.is_none() || item.source_id == source_id)
        .filter_map(|item| Some((item.source_id?, recorder(item)?)))
        .collect();
    match source_id {
        _ if !list.is_empty() => Ok(list),
        Some(id) if found.iter().any(|item| item.source_id == source_id) => {
            Err(format!("camera {id} has no recorder here: there is no nvrrecordsink in its branch"))
        }
        Some(id) => Err(format!("there is no camera {id}")),
        None => Err("no nvrrecordsink is in this pipeline".into()),
    }
}

fn result(entries: Vec<(u32, OnDemand)>) -> Value {
    let entry = |(id, demand): (u32, OnDemand)| {
        let mut value = json!(demand);
        value["source_id"] = id.into();
        value
    };
    json!({ "recordings": entries.into_iter().map(entry).collect::<Vec<_>>() })
}

/// Records one camera, or all of them, on demand; all or none.
pub fn start(
    found: &[Found],
    demands: &Demands,
    source_id: Option<u32>,
    label: Option<&str>,
    seconds: Option<f64>,
) -> Result<Value, String> {
    let mut started = Vec::new();
    for (id, recorder) in recorders(found, source_id)? {
        let before = recorder.report().demand;
        match recorder.start_recording(label.map(str::to_owned), seconds) {
            Ok(demand) => started.push((id, recorder, before, demand)),
            Err(error) => {
                for (_, recorder, before, _) in started {
                    match before {
                        Some(before) => recorder.continue_recording(&before),
                        None => drop(recorder.stop_recording()),
                    }
                }
                return Err(error);
            }
        }
    }
    let entries = started.iter().map(|(id, .., demand)| (*id, on_demand(demand))).collect();
    demands.lock().extend(started.into_iter().map(|(id, .., demand)| (id, demand)));
    Ok(result(entries))
}

/// Ends what was asked for; who was not asked has nothing to end.
pub fn stop(found: &[Found], demands: &Demands, source_id: Option<u32>) -> Result<Value, String> {
    // First, and also of a camera that is not there for the moment: it would be told again when it is back.
    let mut forgotten = {
        let mut demands = demands.lock();
        match source_id {
            Some(id) => demands.remove(&id).map(|demand| (id, demand)).into_iter().collect(),
            None => std::mem::take(&mut *demands),
        }
    };
    let now = steady_ns();
    forgotten.retain(|_, demand| !demand.is_over(now));
    let list = match recorders(found, source_id) {
        Err(_) if !forgotten.is_empty() => Vec::new(),
        list => list?,
    };
    let mut stopped = BTreeMap::new();
    for (id, recorder) in list {
        forgotten.remove(&id);
        if let Some(demand) = recorder.stop_recording() {
            stopped.insert(id, demand);
        }
    }
    stopped.extend(forgotten);
    let until = time(now_us());
    let ended =
        |(id, demand): (u32, Demand)| (id, OnDemand { until: Some(until.clone()), ..on_demand(&demand) });
    Ok(result(stopped.into_iter().map(ended).collect()))
}

/// Saves a clip; `done` is told later.
pub fn save_clip(
    found: &[Found],
    source_id: u32,
    name: Option<String>,
    (before, after): (f64, f64),
    done: impl FnOnce(Result<Value, String>) + Send + 'static,
) -> Result<(), String> {
    let list = recorders(found, Some(source_id))?;
    let (_, recorder) = list.first().ok_or("no recorder")?;
    recorder.save_clip(
        name,
        before,
        after,
        Box::new(move |outcome| done(outcome.map(|clip| describe_clip(source_id, &clip)))),
    );
    Ok(())
}

fn describe_clip(source_id: u32, clip: &Clip) -> Value {
    json!({ "clip": {
        "source_id": source_id,
        "path": clip.path.display().to_string(),
        "start": time(clip.start_us),
        "end": time(clip.end_us),
        "bytes": clip.bytes,
        "missing": clip.missing,
    }})
}

/// Tells recorders that are new what their camera's was asked for, and forgets what is over.
pub fn remind(found: &[Found], demands: &Demands) {
    let now = steady_ns();
    let open: Vec<_> = {
        let mut demands = demands.lock();
        demands.retain(|_, demand| !demand.is_over(now));
        demands.iter().map(|(id, demand)| (*id, demand.clone())).collect()
    };
    for (id, demand) in open {
        let list = found.iter().filter(|item| item.source_id == Some(id)).filter_map(recorder);
        for recorder in list.filter(|recorder| recorder.report().demand.is_none()) {
            recorder.continue_recording(&demand);
        }
    }
}

/// What a recorder does, for the status.
pub fn describe(found: &Found) -> Option<Recording> {
    let recorder = recorder(found)?;
    let report = recorder.report();
    let tiers = recorder.tiers().into_iter().map(|report| Tier {
        tier: report.tier.into(),
        state: report.state().into(),
        error: report.error,
    });
    Some(Recording {
        state: report.doing.name().into(),
        reason: report.reason.map(|reason| Reason::name(reason).into()),
        since: report.since_us.filter(|_| report.doing == Doing::Recording).map(time),
        on_demand: report.demand.as_ref().map(on_demand),
        error: report.error,
        tiers: tiers.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_that_is_away_does_not_record_on_when_it_is_back() {
        let demand = |seconds| Demand::new(Some("gate".into()), seconds, now_us(), steady_ns());
        let demands = Demands::default();
        demands.lock().extend([(3, demand(None)), (4, demand(Some(60.0))), (5, demand(Some(0.0)))]);
        let value = stop(&[], &demands, Some(3)).unwrap();
        assert_eq!(
            (&value["recordings"][0]["source_id"], &value["recordings"][1]),
            (&json!(3), &Value::Null)
        );
        assert!(stop(&[], &demands, Some(3)).unwrap_err().contains("no camera 3"));
        assert_eq!(demands.lock().len(), 2);

        let value = stop(&[], &demands, None).unwrap();
        assert_eq!(value["recordings"].as_array().map(Vec::len), Some(1), "one was over: {value}");
        assert_eq!(value["recordings"][0]["source_id"], json!(4));
        assert!(demands.lock().is_empty());
        assert!(stop(&[], &demands, None).is_err());
    }
}
