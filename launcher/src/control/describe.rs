//! The launcher's part of the status: parameters with their present values, and the cameras.

use serde_json::{Map, Value as Json, json};

use crate::{
    graph::{Kind, Param, Value},
    runtime::Inspection,
};

/// `parameters` and `streams` as `nvrcontrol` takes them. No secret is among them.
pub fn describe(inspection: &Inspection) -> Json {
    let plan = &inspection.plan;
    let parameters: Map<String, Json> = plan
        .graph
        .params
        .iter()
        .filter(|param| param.kind != Kind::Fragment && !param.is_secret())
        .filter_map(|param| {
            // Where the default depends on the camera, there is no value for all.
            let value = plan.get(None, &param.name).ok()??;
            Some((param.name.clone(), show(param, &value)))
        })
        .collect();
    let streams: Vec<Json> = plan
        .cameras
        .iter()
        .map(|camera| {
            let source = inspection.snapshot.sources.iter().find(|source| source.source_id == camera.id);
            let uri = plan
                .graph
                .param("uri")
                .and_then(|param| Some(show(param, &plan.get(Some(camera), "uri").ok()??)));
            json!({
                "source_id": camera.id,
                "name": camera.name,
                "state": source.map_or("starting", |source| source.state.as_str()),
                "uri": uri,
                "reconnects": source.map_or(0, |source| source.reconnects),
                "error": source.and_then(|source| source.error.as_deref()),
                "paused": inspection.paused.contains(camera.id),
            })
        })
        .collect();
    json!({ "parameters": parameters, "streams": streams })
}

fn show(param: &Param, value: &Value) -> Json {
    match value {
        Value::Text(_) => param.show(value).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Bool(on) => (*on).into(),
    }
}
