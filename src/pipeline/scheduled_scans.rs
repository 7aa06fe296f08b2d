//! Which scans a set of pipelines does on a schedule.

use std::sync::Arc;

use serde_json::Value;

use super::{Arguments, Pipeline, ScanMode, Step};
use crate::sync::ScheduledScans;

/// Returns the scans that these pipelines take over from the follower: those of all types,
/// by enabled pipelines with a schedule. Arguments that are expressions have no value
/// before a run, and take nothing over.
pub fn scheduled_scans(pipelines: &[Arc<Pipeline>]) -> ScheduledScans {
    let mut scans = ScheduledScans::default();
    let scheduled = pipelines.iter().filter(|pipeline| pipeline.enabled && pipeline.schedule().is_some());
    for mode in scheduled.flat_map(|pipeline| &pipeline.steps).filter_map(scan_of_all_types) {
        match mode {
            ScanMode::Fast => scans.fast = true,
            ScanMode::Light => scans.light = true,
            ScanMode::Retired => scans.retired = true,
            ScanMode::Full => scans.full = true,
            ScanMode::Columns => scans.columns = true,
        }
    }
    scans
}

fn scan_of_all_types(step: &Step) -> Option<ScanMode> {
    let Arguments::Written(arguments) = &step.arguments else { return None };
    let of_all = arguments.get("types").is_none_or(|types| types.as_array().is_some_and(Vec::is_empty));
    if step.job != "scan" || !of_all {
        return None;
    }
    match arguments.get("mode") {
        None => Some(ScanMode::default()),
        Some(Value::String(mode)) => serde_json::from_value(Value::String(mode.clone())).ok(),
        Some(_) => None,
    }
}
