//! Turns a run report into the documents that Kibana reads.
//!
//! One document per run, one per entity type and validation, one per mismatch.
//! Names follow the Elastic Common Schema where it has one; everything else
//! stands below `sgcache`. A run that worked and found drift has the outcome
//! `success`: the drift stands in `sgcache.run.status`.
//!
//! Values of differing fields are written as JSON text, so that two fields
//! called `code` with different data types never fight over a mapping.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::result::{CheckKind, Mismatch, TypeResult};
use super::run::{RunReport, StepReport};

/// Where a document goes; the name of its stream is `{prefix}-{name}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// One document per run.
    Runs,
    /// One per entity type and validation.
    Validation,
    /// One per mismatch.
    Mismatch,
    /// One per minute in which the read proxy was asked.
    Proxy,
    /// One per minute: how the process is.
    Heartbeat,
    /// One per minute in which the process polled the event log: what came and what became of it.
    Sync,
    /// One per import or rebuild of a type.
    Import,
}

impl Stream {
    /// Every stream.
    pub const ALL: [Stream; 7] = [
        Stream::Runs,
        Stream::Validation,
        Stream::Mismatch,
        Stream::Proxy,
        Stream::Heartbeat,
        Stream::Sync,
        Stream::Import,
    ];

    /// Returns the word in the name of the stream.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Runs => "runs",
            Stream::Validation => "validation",
            Stream::Mismatch => "mismatch",
            Stream::Proxy => "proxy",
            Stream::Heartbeat => "heartbeat",
            Stream::Sync => "sync",
            Stream::Import => "import",
        }
    }

    /// Returns the stream of a word.
    pub fn parse(word: &str) -> Option<Self> {
        Stream::ALL.into_iter().find(|stream| stream.as_str() == word)
    }
}

/// One document on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Where it goes.
    pub stream: Stream,
    /// The pipeline's own index of that stream; `None` is the one that all share.
    pub index: Option<String>,
    /// Its id: the same report makes the same ids, so that sending it twice changes nothing.
    pub id: String,
    /// When it is about.
    pub at: DateTime<Utc>,
    /// The document.
    pub body: Value,
}

/// Tells whether a text can name the index of a pipeline, below `{prefix}-{stream}-`.
///
/// The names of streams and indices are built from it. So it has no `-`, which would make
/// the patterns of two indices overlap (the server refuses such templates); it does not
/// begin like a day, which is what daily indices end in; and it is no stream itself, which
/// would be the name of another installation whose prefix is longer.
pub fn is_index_name(text: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.len() <= MAX_INDEX_NAME
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(is_allowed)
        && Stream::parse(text).is_none()
}

/// Letters of the name of an index; the server allows 255 bytes for all of it.
const MAX_INDEX_NAME: usize = 60;

/// What documents say besides the report.
#[derive(Debug, Clone)]
pub struct Wording {
    /// Name of the site, without credentials.
    pub site: String,
    /// Whether the differing values may be written down.
    pub values: bool,
}

impl Wording {
    /// Returns the wording for a site, with values.
    pub fn new(site: impl Into<String>) -> Self {
        Self { site: site.into(), values: true }
    }
}

/// Returns the documents of a finished run, for the index that its pipeline names.
pub fn documents(report: &RunReport, wording: &Wording, index: Option<&str>) -> Vec<Document> {
    let at = report.finished_at.unwrap_or(report.started_at);
    let document = |stream, seq: usize, mut body: Value| {
        wrap(&mut body, wording, at, &report.version, &report.instance);
        body["sgcache"]["pipeline"] = report.pipeline.as_str().into();
        body["sgcache"]["run"]["id"] = report.run_id.as_str().into();
        let index = index.map(str::to_owned);
        Document { stream, index, id: format!("{}-{seq}", report.run_id), at, body }
    };
    let mut all = vec![document(Stream::Runs, 0, run_body(report, wording))];
    for (seq, (step, kind, ty, result)) in validations(report).enumerate() {
        all.push(document(Stream::Validation, seq, validation_body(step, kind, ty, result)));
    }
    for (seq, (step, mismatch)) in report.mismatches().enumerate() {
        all.push(document(Stream::Mismatch, seq, mismatch_body(step, mismatch, wording)));
    }
    all
}

type Validated<'a> = (&'a StepReport, CheckKind, &'a String, &'a TypeResult);

fn validations(report: &RunReport) -> impl Iterator<Item = Validated<'_>> {
    let compared = report.steps.iter().filter_map(|step| Some((step, step.result.kind?)));
    compared.flat_map(|(step, kind)| step.result.by_type.iter().map(move |(ty, result)| (step, kind, ty, result)))
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Adds what every document says.
pub(super) fn wrap(body: &mut Value, wording: &Wording, at: DateTime<Utc>, version: &str, instance: &str) {
    body["@timestamp"] = time(at).into();
    body["ecs"] = json!({"version": "8.11.0"});
    body["event"]["module"] = "sgcache".into();
    body["event"]["category"] = json!(["process"]);
    body["service"] = json!({"name": "sgcache", "version": version, "id": instance});
    body["sgcache"]["site"] = wording.site.as_str().into();
}

fn run_body(report: &RunReport, wording: &Wording) -> Value {
    let total = |of: fn(&StepReport) -> u64| report.steps.iter().map(of).sum::<u64>();
    let nanoseconds = (report.duration_seconds() * 1e9) as u64;
    let error = report.steps.iter().find_map(|step| step.error.as_ref());
    let mut body = json!({
        "event": {
            "kind": "event", "dataset": "sgcache.run", "type": ["end"],
            "action": report.pipeline, "outcome": outcome(report),
            "start": time(report.started_at), "end": report.finished_at.map(time),
            "duration": nanoseconds, "reason": report.reason,
        },
        "sgcache": {
            "run": {
                "status": report.status, "attempt": report.attempt, "trigger": report.trigger,
                "scheduled_at": report.scheduled_for.map(time), "delay_ms": delay_ms(report),
                "config_hash": report.definition_hash,
            },
            "steps": report.steps.iter().map(step_body).collect::<Vec<_>>(),
            "counts": {
                "checked": total(|step| step.result.checked),
                "mismatched": total(|step| step.result.drift),
                "repaired": total(|step| step.result.repaired),
                "failed": total(|step| step.result.unresolved),
                "written": total(|step| step.result.written),
            },
            "source": {"requests": report.requests},
            "report": record(report, wording),
        },
    });
    if let Some(error) = error {
        body["error"] = json!({"type": error.class, "message": error.message});
    }
    body
}

fn outcome(report: &RunReport) -> &'static str {
    match report.status {
        status if status.worked() => "success",
        status if status.failed() => "failure",
        _ => "unknown",
    }
}

fn delay_ms(report: &RunReport) -> Option<i64> {
    report.scheduled_for.map(|planned| (report.started_at - planned).num_milliseconds())
}

fn step_body(step: &StepReport) -> Value {
    json!({
        "id": step.id, "job": step.job, "status": step.status, "attempts": step.attempts,
        "duration_ms": (step.duration_seconds * 1000.0) as u64,
    })
}

/// The whole record, not indexed; its mismatches are documents of their own.
fn record(report: &RunReport, wording: &Wording) -> Value {
    let mut record = serde_json::to_value(report).unwrap_or_default();
    for step in record["steps"].as_array_mut().into_iter().flatten() {
        if let Some(result) = step["result"].as_object_mut() {
            result.remove("mismatches");
        }
    }
    if !wording.values {
        record["params"] = Value::Object(Map::new());
    }
    record
}

fn validation_body(step: &StepReport, kind: CheckKind, ty: &str, result: &TypeResult) -> Value {
    let difference = result.cache_count.zip(result.site_count).map(|(cache, site)| cache as i64 - site as i64);
    json!({
        "event": {
            "kind": "state", "dataset": "sgcache.validation", "type": ["info"],
            "action": step.job, "outcome": "success",
        },
        "sgcache": {
            "task": step.id,
            "entity": {"type": ty},
            "validation": {
                "kind": kind, "verdict": result.verdict,
                "source_count": result.site_count, "cache_count": result.cache_count,
                "difference": difference, "checked": result.checked,
                "mismatched": result.drift, "missing": result.missing,
                "extra": result.extra, "differs": result.differs,
                "names": result.names,
                "repaired": result.repaired, "transient": result.transient,
                "touched": result.touched, "unverifiable": result.unverifiable,
                "ratio": result.drift_ratio,
                "stale_ratio_upper95": result.stale_ratio_upper95,
            },
        },
    })
}

fn mismatch_body(step: &StepReport, one: &Mismatch, wording: &Wording) -> Value {
    let value = |value: &Value| wording.values.then(|| value.to_string());
    json!({
        "event": {
            "kind": "event", "dataset": "sgcache.mismatch", "type": ["info"],
            "action": step.job, "outcome": "success",
        },
        "sgcache": {
            "task": step.id,
            "entity": {
                "type": one.entity_type, "id": one.id,
                "ref": format!("{}:{}", one.entity_type, one.id),
            },
            "mismatch": {
                "kind": one.kind, "class": one.class, "field": one.field,
                "source_value": value(&one.shotgun), "cache_value": value(&one.cached),
                "source_updated_at": one.updated_at, "source_updated_by": one.updated_by,
                "cache_rv": one.cache_rv, "action": one.action,
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, TimeZone};

    use super::super::result::{Action, MismatchClass, MismatchKind, StepResult};
    use super::super::run::{RunStart, Status, StepError, Trigger};
    use super::*;

    fn report(status: Status, error: Option<StepError>) -> RunReport {
        let started_at = Utc.with_ymd_and_hms(2026, 11, 23, 2, 0, 0).unwrap();
        let mut result = StepResult { kind: Some(CheckKind::Full), ..StepResult::default() };
        for ty in ["Asset", "Shot"] {
            result.by_type.insert(ty.into(), TypeResult { checked: 5, ..TypeResult::default() });
        }
        result.mismatches = vec![Mismatch {
            entity_type: "Shot".into(),
            id: 7,
            field: Some("description".into()),
            kind: MismatchKind::Differs,
            class: Some(MismatchClass::Silent),
            cached: json!("the old secret"),
            shotgun: json!("the new secret"),
            updated_at: None,
            updated_by: None,
            cache_rv: None,
            action: Action::Reported,
        }];
        let mut report = RunReport::begin(RunStart {
            run_id: "RUN".into(),
            pipeline: "nightly".into(),
            trigger: Trigger::Cron,
            scheduled_for: Some(started_at - TimeDelta::milliseconds(12)),
            started_at,
            attempt: 1,
            params: Default::default(),
            instance: "host:1".into(),
            definition_hash: String::new(),
        });
        let step = StepReport {
            id: "data".into(),
            job: "validateData".into(),
            status,
            attempts: 1,
            duration_seconds: 8.0,
            reason: None,
            error,
            result,
        };
        report.finish(started_at + TimeDelta::seconds(8), vec![step]);
        report
    }

    #[test]
    fn a_run_makes_one_document_for_itself_each_type_and_each_mismatch() {
        let report = report(Status::Drift, None);
        let made = documents(&report, &Wording::new("studio"), None);
        let names: Vec<_> = made.iter().map(|one| (one.stream.as_str(), one.id.as_str())).collect();
        let expected = [("runs", "RUN-0"), ("validation", "RUN-0"), ("validation", "RUN-1"), ("mismatch", "RUN-0")];
        assert_eq!(names, expected);
        assert_eq!(made, documents(&report, &Wording::new("studio"), None));
        for one in &made {
            assert_eq!(one.body["@timestamp"], "2026-11-23T02:00:08.000Z");
            assert_eq!(one.body["sgcache"]["run"]["id"], "RUN");
        }
    }

    #[test]
    fn the_name_of_an_index_never_meets_that_of_another_one() {
        for good in ["nightly", "n", "td_2"] {
            assert!(is_index_name(good), "{good}");
        }
        let long = "a".repeat(MAX_INDEX_NAME + 1);
        for bad in ["", "2026", "_a", "a-b", "Nightly", "a.b", "a/b", "*", "runs", "heartbeat", long.as_str()] {
            assert!(!is_index_name(bad), "{bad}");
        }
    }

    #[test]
    fn drift_is_a_success_and_an_error_is_not() {
        let body = |report: &RunReport| documents(report, &Wording::new("studio"), None).remove(0).body;
        let drifted = body(&report(Status::Drift, None));
        assert_eq!(drifted["event"]["outcome"], "success");
        assert_eq!(drifted["sgcache"]["run"]["status"], "drift");
        assert_eq!(drifted["sgcache"]["run"]["delay_ms"], 12);
        assert_eq!(drifted["event"]["duration"], 8_000_000_000_u64);

        let error = StepError { class: "upstream".into(), message: "timed out".into() };
        let broken = body(&report(Status::Error, Some(error)));
        assert_eq!(broken["event"]["outcome"], "failure");
        assert_eq!(broken["error"], json!({"type": "upstream", "message": "timed out"}));
    }

    #[test]
    fn values_stay_at_home_when_they_are_told_to() {
        let report = report(Status::Drift, None);
        let written = |values| {
            let made = documents(&report, &Wording { site: "studio".into(), values }, None);
            made.iter().map(|one| one.body.to_string()).collect::<String>()
        };
        assert!(written(true).contains("the old secret"));
        assert!(!written(false).contains("secret"));
    }
}
