//! What the result of each job holds: what conditions may ask about.

use serde_json::{Map, Value, json};

use super::context::visible;
use super::{EntityCatalog, JobSpec};
use crate::report::{StepResult, TypeResult};
use crate::state::DeadKind;
use crate::yaml::to_json;

/// What every job reports.
const EVERY: &[&str] = &["requests", "duration_seconds", "by_type", "outputs"];
const COUNTS: &[&str] =
    &["kind", "checked", "missing", "extra", "drift", "drift_ratio", "repaired", "unresolved", "touched", "truncated"];
const DATA: &[&str] = &["differs", "names", "unverifiable", "stale_ratio_upper95"];
const REPAIR: &[&str] = &["repaired", "unresolved"];
const SCAN: &[&str] = &["checked", "missing", "extra", "differs", "drift", "drift_ratio"];
const WRITTEN: &[&str] = &["written"];
/// What is reported of a type beside the totals of the job.
const OF_TYPE: &[&str] = &["verdict", "problem", "transient", "site_count", "cache_count", "duration_seconds"];

/// Returns the result of a job that found nothing, with the fields that it sets and
/// no others. Types are those of its arguments, or all that are configured.
pub(super) fn sample_result(job: &str, spec: Option<&JobSpec>, entities: Option<&EntityCatalog>) -> Value {
    let own: Vec<&str> = match job {
        "validateCounts" => COUNTS.to_vec(),
        "validateData" => [COUNTS, DATA].concat(),
        "repair" => REPAIR.to_vec(),
        "sync" | "import" | "rebuild" | "export" => WRITTEN.to_vec(),
        "scan" => SCAN.to_vec(),
        "deadLetters" => REPAIR.to_vec(),
        _ => Vec::new(),
    };
    let mut result = only(visible(&StepResult::default()), &[EVERY, &own].concat());
    if own.contains(&"kind") {
        result.insert("kind".to_owned(), Value::from(if job == "validateCounts" { "count" } else { "sample" }));
    }
    let of_type = only(to_json(&TypeResult::default()), &[&own, OF_TYPE].concat());
    let types = types_of(spec, entities).into_iter();
    result.insert("by_type".to_owned(), types.map(|ty| (ty, Value::Object(of_type.clone()))).collect());
    match job {
        "purge" => drop(result.insert("outputs".to_owned(), json!({ "purged": 0 }))),
        "pruneReports" => drop(result.insert("outputs".to_owned(), json!({ "pruned": 0, "pruned_logs": 0 }))),
        "scan" => drop(result.insert("outputs".to_owned(), json!({ "damaged": 0, "imported_again": [] }))),
        "export" => drop(result.insert("outputs".to_owned(), json!({ "files": [] }))),
        "deadLetters" => {
            let counts = DeadKind::ALL.map(|kind| (kind.as_str().to_owned(), Value::from(0)));
            let refetched = [("refetched".to_owned(), Value::from(0))];
            result.insert("outputs".to_owned(), counts.into_iter().chain(refetched).collect());
        }
        "generateEntityConfigs" => {
            let types = types_of(spec, entities).into_iter();
            result.insert("outputs".to_owned(), types.map(|ty| (ty, Value::from("unchanged"))).collect());
        }
        _ => {}
    }
    Value::Object(result)
}

fn only(value: Value, keys: &[&str]) -> Map<String, Value> {
    match value {
        Value::Object(map) => map.into_iter().filter(|(key, _)| keys.contains(&key.as_str())).collect(),
        _ => Map::new(),
    }
}

fn types_of(spec: Option<&JobSpec>, entities: Option<&EntityCatalog>) -> Vec<String> {
    let named = match spec {
        Some(JobSpec::Import(args)) => args.types.as_slice(),
        Some(JobSpec::Rebuild(args)) => &args.types,
        Some(JobSpec::ValidateCounts(args)) => &args.types,
        Some(JobSpec::ValidateData(args)) => &args.types,
        Some(JobSpec::GenerateEntityConfigs(args)) => &args.types,
        Some(JobSpec::Scan(args)) => &args.types,
        Some(JobSpec::Export(args)) => &args.types,
        _ => &[],
    };
    if !named.is_empty() {
        return named.to_vec();
    }
    entities.map(|entities| entities.types().map(str::to_owned).collect()).unwrap_or_default()
}
