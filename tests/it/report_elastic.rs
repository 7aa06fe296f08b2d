//! Reports on their way into a real Elasticsearch, with faults between.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeZone, Utc};
use serde_json::{Value, json};
use sgcache::elastic::{Client, Settings};
use sgcache::metrics::Metrics;
use sgcache::report::{
    Action, CheckKind, Delivery, Document, ImportReport, LagSummary, Layout, Mismatch, MismatchClass, MismatchKind,
    Outbox, RunReport, RunStart, ShadowDifference, Sink, Status, StepReport, StepResult, Stream, SyncMinute, Trigger,
    TypeResult, Wording, import_document, sync_document,
};
use sgcache::state::State;

use crate::elastic_proxy::{Fault, Proxy};
use crate::servers::{TestIndices, elasticsearch};

const SUITE: &str = "report_elastic";
/// Nothing listens on the discard port.
const CLOSED: &str = "http://127.0.0.1:9";

/// An outbox of its own, and streams of its own on the server.
pub struct Case {
    pub url: &'static str,
    indices: TestIndices,
    outbox: Arc<Outbox>,
    metrics: Metrics,
    _folder: tempfile::TempDir,
}

impl Case {
    pub async fn start() -> Option<Self> {
        let url = elasticsearch(SUITE)?;
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::default();
        let outbox = open(folder.path(), &metrics).await;
        Some(Self { url, indices: TestIndices::new(url), outbox, metrics, _folder: folder })
    }

    pub fn delivery(&self, url: &str) -> Delivery {
        let mut settings = Settings::new([url]);
        settings.retry.first_pause = Duration::from_millis(1);
        settings.retry.longest_pause = Duration::from_millis(5);
        let client = Client::new(&settings).unwrap();
        Delivery::new(client, self.indices.prefix(), self.outbox.clone())
    }

    pub async fn report(&self, report: &RunReport) {
        self.report_to(report, None).await;
    }

    async fn report_to(&self, report: &RunReport, index: Option<&str>) {
        let sink = Sink::Elasticsearch(self.outbox.clone(), Wording::new("studio"));
        sink.deliver(report, index).await;
    }

    /// Returns what a search of a stream finds.
    pub async fn search(&self, stream: &str, body: Value) -> Value {
        let name = self.indices.name(stream);
        let client = reqwest::Client::new();
        let refresh = format!("{}/{name}/_refresh", self.url);
        client.post(refresh).send().await.unwrap().error_for_status().unwrap();
        let search = client.post(format!("{}/{name}/_search", self.url)).json(&body);
        search.send().await.unwrap().error_for_status().unwrap().json().await.unwrap()
    }

    /// Returns the mapped fields of a stream, and whether they can be summed or sorted by.
    pub async fn mappings(&self, stream: &str) -> BTreeMap<String, bool> {
        let url = format!("{}/{}/_field_caps?fields=*", self.url, self.indices.name(stream));
        let found: Value = reqwest::get(url).await.unwrap().error_for_status().unwrap().json().await.unwrap();
        let sums = |types: &Value| types.as_object().unwrap().values().all(|ty| ty["aggregatable"] == true);
        found["fields"].as_object().unwrap().iter().map(|(name, types)| (name.clone(), sums(types))).collect()
    }

    async fn count(&self, stream: &str) -> u64 {
        let found = self.search(stream, json!({"track_total_hits": true})).await;
        found["hits"]["total"]["value"].as_u64().unwrap()
    }
}

async fn open(folder: &Path, metrics: &Metrics) -> Arc<Outbox> {
    Arc::new(Outbox::new(State::open(folder).await.unwrap(), 1000, metrics.clone()))
}

/// A sampled validation that found one field different and repaired it.
pub fn report(run_id: &str) -> RunReport {
    let started_at = Utc.with_ymd_and_hms(2026, 11, 23, 2, 0, 0).unwrap();
    let mut shot = TypeResult { checked: 1000, differs: 1, repaired: 1, ..TypeResult::default() };
    shot.sum_up();
    let mut result = StepResult { kind: Some(CheckKind::Sample), ..StepResult::default() };
    result.by_type.insert("Shot".into(), shot);
    result.sum_up();
    result.mismatches = vec![Mismatch {
        entity_type: "Shot".into(),
        id: 1234,
        field: Some("sg_status_list".into()),
        kind: MismatchKind::Differs,
        class: Some(MismatchClass::LostEvent),
        cached: json!("ip"),
        shotgun: json!("fin"),
        updated_at: Some("2026-11-22T20:00:00Z".into()),
        updated_by: Some("Ada".into()),
        cache_rv: Some(7),
        action: Action::Repaired,
    }];
    let mut report = RunReport::begin(RunStart {
        run_id: run_id.into(),
        pipeline: "sampled-data".into(),
        trigger: Trigger::Cron,
        scheduled_for: Some(started_at),
        started_at,
        attempt: 1,
        params: Default::default(),
        instance: "host:1".into(),
        definition_hash: "h".into(),
    });
    let step = StepReport {
        id: "sample".into(),
        job: "validateData".into(),
        status: Status::Repaired,
        attempts: 1,
        duration_seconds: 8.0,
        reason: None,
        error: None,
        result,
    };
    report.finish(Utc.with_ymd_and_hms(2026, 11, 23, 2, 0, 8).unwrap(), vec![step]);
    report
}

#[tokio::test]
async fn a_difference_of_shadow_mode_is_found_among_the_mismatches() {
    let Some(case) = Case::start().await else { return };
    let argument = json!({"type": "Shot", "filters": {"logical_operator": "and", "conditions": []}});
    let (class, method) = ("order", "read");
    let seen =
        ShadowDifference { instance: "host:1", class, method, argument: &argument, site: "[1,2]", cache: "[2,1]" };
    case.outbox.put(&[seen.document(Utc::now(), &Wording::new("studio"))]).await.unwrap();
    case.delivery(case.url).drain().await.unwrap();
    let query = json!({"query": {"bool": {"filter": [
        {"term": {"sgcache.mismatch.kind": "shadow"}}, {"term": {"sgcache.mismatch.class": "order"}},
        {"term": {"sgcache.entity.type": "Shot"}}, {"term": {"sgcache.mismatch.cache_value": "[2,1]"}}]}}});
    let found = case.search("mismatch", query).await;
    assert_eq!(found["hits"]["hits"].as_array().map(Vec::len), Some(1), "{found}");
    let question = found["hits"]["hits"][0]["_source"]["sgcache"]["mismatch"]["question"].as_str();
    assert_eq!(question.and_then(|text| serde_json::from_str::<Value>(text).ok()), Some(argument));
}

#[tokio::test]
async fn a_run_becomes_documents_that_kibana_can_sum() {
    let Some(case) = Case::start().await else { return };
    case.report(&report("RUN1")).await;
    case.report(&report("RUN2")).await;
    let delivery = case.delivery(case.url);
    delivery.drain().await.unwrap();
    let has_streams = !std::env::var("SGCACHE_TEST_ELASTICSEARCH").unwrap().contains("search-7.");
    let layout = if has_streams { Layout::DataStream } else { Layout::Daily };
    assert_eq!(delivery.layout().await.unwrap(), layout);
    assert!(case.outbox.is_empty().await.unwrap());
    assert_eq!(case.metrics.value("sgcache_report_documents_total", &[]), Some(6.0));

    let runs = json!({"size": 1, "aggs": {
        "status": {"terms": {"field": "sgcache.run.status"}},
        "runs": {"cardinality": {"field": "sgcache.run.id"}},
        "checked": {"sum": {"field": "sgcache.counts.checked"}},
        "slowest": {"max": {"field": "event.duration"}}}});
    let found = case.search("runs", runs).await;
    let sums = &found["aggregations"];
    assert_eq!(sums["status"]["buckets"][0], json!({"key": "repaired", "doc_count": 2}));
    assert_eq!(sums["runs"]["value"], 2);
    assert_eq!((&sums["checked"]["value"], &sums["slowest"]["value"]), (&2e3.into(), &8e9.into()));
    let kept = &found["hits"]["hits"][0]["_source"]["sgcache"]["report"];
    assert_eq!((&kept["schema"], &kept["status"]), (&"sgcache.run/1".into(), &"repaired".into()));

    let by_class = json!({"query": {"term": {"sgcache.entity.ref": "Shot:1234"}}, "aggs": {
        "class": {"terms": {"field": "sgcache.mismatch.class"}},
        "day": {"date_histogram": {"field": "@timestamp", "calendar_interval": "day"}}}});
    let found = case.search("mismatch", by_class).await;
    assert_eq!(found["aggregations"]["class"]["buckets"][0]["key"], "lost_event");
    assert_eq!(found["aggregations"]["day"]["buckets"][0]["doc_count"], 2);
    assert_eq!(found["hits"]["hits"][0]["_source"]["sgcache"]["mismatch"]["cache_value"], "\"ip\"");

    let ratio = json!({"aggs": {"ratio": {"max": {"field": "sgcache.validation.ratio"}}}});
    let found = case.search("validation", ratio).await;
    assert_eq!(found["aggregations"]["ratio"]["value"], 0.001);
}

#[tokio::test]
async fn minutes_of_sync_and_imports_become_documents_that_kibana_can_sum() {
    let Some(case) = Case::start().await else { return };
    let (at, wording) = (Utc.with_ymd_and_hms(2026, 11, 23, 2, 0, 0).unwrap(), Wording::new("studio"));
    let minute = |events, p95| SyncMinute {
        polls: 30,
        events,
        rows: BTreeMap::from([("written", events), ("unchanged", 1)]),
        lag: Some(LagSummary { min: 300, avg: 900.5, p95, max: p95 + 1 }),
        poll_ms: Some(180.5),
        ..SyncMinute::default()
    };
    let import = |entity_type: &str, rebuild| ImportReport {
        entity_type: entity_type.into(),
        rebuild,
        resumed: false,
        entities: 1000,
        new_entities: 1000,
        pages: 2,
        page_size: 500,
        unmet: 0,
        lo_rv: 7,
        took: Duration::from_secs(2),
    };
    let mut documents: Vec<Document> =
        [minute(9, 2100), minute(3, 500)].iter().filter_map(|one| sync_document(one, at, "host:1", &wording)).collect();
    assert!(sync_document(&SyncMinute::default(), at, "host:1", &wording).is_none());
    documents.extend(
        [import("Shot", false), import("Version", true)].map(|one| import_document(&one, at, "host:1", &wording)),
    );
    case.outbox.put(&documents).await.unwrap();
    case.delivery(case.url).drain().await.unwrap();
    assert!(case.outbox.is_empty().await.unwrap());

    let sync = json!({"query": {"term": {"event.dataset": "sgcache.sync"}}, "aggs": {
        "events": {"sum": {"field": "sgcache.sync.events"}}, "reread": {"sum": {"field": "sgcache.sync.reread"}},
        "written": {"sum": {"field": "sgcache.sync.written"}}, "p95": {"max": {"field": "sgcache.sync.lag_ms.p95"}},
        "avg": {"avg": {"field": "sgcache.sync.lag_ms.avg"}}, "poll": {"avg": {"field": "sgcache.sync.poll_ms"}}}});
    let found = case.search("sync", sync).await;
    let value = |name: &str| found["aggregations"][name]["value"].as_f64().unwrap();
    let values = ["events", "reread", "written", "p95", "avg", "poll"].map(value);
    assert_eq!(values, [12.0, 14.0, 12.0, 2100.0, 900.5, 180.5]);

    let imports = json!({"query": {"term": {"event.action": "rebuild"}}, "aggs": {
        "type": {"terms": {"field": "sgcache.entity.type"}},
        "entities": {"sum": {"field": "sgcache.import.entities"}},
        "rate": {"max": {"field": "sgcache.import.rate_per_s"}}}});
    let found = case.search("import", imports).await;
    let sums = &found["aggregations"];
    assert_eq!(sums["type"]["buckets"], json!([{"key": "Version", "doc_count": 1}]));
    assert_eq!((&sums["entities"]["value"], &sums["rate"]["value"]), (&1e3.into(), &5e2.into()));
}

#[tokio::test]
async fn a_dead_server_loses_no_report() {
    let Some(case) = Case::start().await else { return };
    case.report(&report("RUN1")).await;
    let error = case.delivery(CLOSED).drain().await.unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:9"), "{error}");
    assert_eq!(case.outbox.len().await.unwrap(), 3);
    assert_eq!(case.metrics.value("sgcache_report_outbox_documents", &[]), Some(3.0));

    case.delivery(case.url).drain().await.unwrap();
    assert!(case.outbox.is_empty().await.unwrap());
    assert_eq!(case.count("runs").await, 1);
}

#[tokio::test]
async fn a_report_that_is_sent_again_is_there_once() {
    let Some(case) = Case::start().await else { return };
    let delivery = case.delivery(case.url);
    for _ in 0..2 {
        case.report(&report("RUN1")).await;
        delivery.drain().await.unwrap();
        assert!(case.outbox.is_empty().await.unwrap());
    }
    assert_eq!((case.count("runs").await, case.count("mismatch").await), (1, 1));
}

#[tokio::test]
async fn a_lost_answer_makes_no_second_document() {
    let Some(case) = Case::start().await else { return };
    let proxy = Proxy::before(case.url).await;
    proxy.plan("_bulk", 1, Fault::LoseReply);
    case.report(&report("RUN1")).await;
    case.delivery(&proxy.url).drain().await.unwrap();
    assert!(case.outbox.is_empty().await.unwrap());
    assert_eq!(case.count("runs").await, 1);
}

#[tokio::test]
async fn a_server_without_data_streams_gets_daily_indices_behind_the_same_name() {
    let Some(case) = Case::start().await else { return };
    let proxy = Proxy::before(case.url).await;
    proxy.plan("_index_template", 1, without_data_streams());
    case.report(&report("RUN1")).await;
    let delivery = case.delivery(&proxy.url);
    delivery.drain().await.unwrap();
    assert_eq!(delivery.layout().await.unwrap(), Layout::Daily);

    let found = case.search("runs", json!({"query": {"term": {"sgcache.run.status": "repaired"}}}));
    let hit = &found.await["hits"]["hits"][0];
    assert_eq!(hit["_index"], case.indices.name("runs-2026.11.23"));

    // The alias has taken the name, so a newer server stays with what is there.
    let again = case.delivery(case.url);
    assert_eq!(again.layout().await.unwrap(), Layout::Daily);
    case.report(&report("RUN2")).await;
    again.drain().await.unwrap();
    assert_eq!(case.count("runs").await, 2);
}

#[tokio::test]
async fn a_refused_document_does_not_hold_up_the_others() {
    let Some(case) = Case::start().await else { return };
    let at = Utc.with_ymd_and_hms(2026, 11, 23, 2, 0, 0).unwrap();
    let body = json!({"@timestamp": "never"});
    let bad = Document { stream: Stream::Runs, index: None, id: "BAD-0".into(), at, body };
    case.outbox.put(&[bad]).await.unwrap();
    case.report(&report("RUN1")).await;
    case.delivery(case.url).drain().await.unwrap();

    assert_eq!(case.count("runs").await, 1);
    assert!(case.outbox.is_empty().await.unwrap());
    let refused = case.outbox.refused().await.unwrap();
    assert_eq!(refused[0].id, "BAD-0");
    assert!(refused[0].reason.contains("400"), "{}", refused[0].reason);
    let dropped = case.metrics.value("sgcache_report_dropped_total", &[("reason", "refused")]);
    assert_eq!(dropped, Some(1.0));
}

#[tokio::test]
async fn the_background_delivery_starts_when_a_run_ends_and_stops_when_told() {
    let Some(case) = Case::start().await else { return };
    let delivery = Arc::new(case.delivery(case.url));
    let stop = tokio_util::sync::CancellationToken::new();
    let running = {
        let (delivery, stop) = (delivery.clone(), stop.clone());
        tokio::spawn(async move { delivery.run(stop, Duration::from_secs(60)).await })
    };
    case.report(&report("RUN1")).await;
    // Told to stop at once, it still delivers what waits.
    stop.cancel();
    running.await.unwrap();
    assert!(case.outbox.is_empty().await.unwrap());
    assert_eq!(case.count("runs").await, 1);
}

#[tokio::test]
async fn old_reports_are_removed_and_new_ones_still_arrive() {
    let Some(case) = Case::start().await else { return };
    let delivery = case.delivery(case.url);
    assert!(delivery.prune(Utc::now()).await.unwrap().is_empty(), "nothing was written yet");
    case.report(&report("RUN1")).await;
    delivery.drain().await.unwrap();

    let long_ago = Utc.with_ymd_and_hms(2020, 1, 1, 0, 0, 0).unwrap();
    assert!(delivery.prune(long_ago).await.unwrap().is_empty());
    assert_eq!(case.count("runs").await, 1);

    // Seen from years ahead, everything is old.
    let years_ahead = Utc.with_ymd_and_hms(2040, 1, 1, 0, 0, 0).unwrap();
    let removed = delivery.prune(years_ahead).await.unwrap();
    assert_eq!(removed.len(), 3, "{removed:?}");
    case.report(&report("RUN2")).await;
    delivery.drain().await.unwrap();
    assert_eq!(case.count("runs").await, 1);
}

/// Refuses the first index template, as a server without data streams does.
fn without_data_streams() -> Fault {
    Fault::Answer {
        status: 400,
        headers: vec![("content-type", "application/json")],
        body: r#"{"error":{"type":"x_content_parse_exception","reason":"unknown field [data_stream]"},"status":400}"#,
    }
}

#[tokio::test]
async fn a_pipeline_has_its_documents_in_indices_of_its_own_that_are_pruned_too() {
    for layout in [Layout::DataStream, Layout::Daily] {
        let Some(case) = Case::start().await else { return };
        let proxy = Proxy::before(case.url).await;
        if layout == Layout::Daily {
            proxy.plan("_index_template", 1, without_data_streams());
        }
        let delivery = case.delivery(&proxy.url);
        case.report(&report("RUN1")).await;
        case.report_to(&report("RUN2"), Some("nightly")).await;
        case.report_to(&report("RUN3"), Some("td_2")).await;
        delivery.drain().await.unwrap();
        let has_streams = !std::env::var("SGCACHE_TEST_ELASTICSEARCH").unwrap().contains("search-7.");
        assert!(delivery.layout().await.unwrap() == layout || !has_streams);
        assert!(case.outbox.is_empty().await.unwrap());
        let fields = case.mappings("runs").await;
        for stream in ["runs", "validation", "mismatch"] {
            for name in [stream.to_owned(), format!("{stream}-nightly"), format!("{stream}-td_2")] {
                assert_eq!(case.count(&name).await, 1, "{name}");
            }
        }
        assert_eq!(case.mappings("runs-nightly").await, fields, "the mapping is the same");

        // Another delivery, of a process that does not know these indices.
        let other = case.delivery(case.url);
        let long_ago = Utc.with_ymd_and_hms(2020, 1, 1, 0, 0, 0).unwrap();
        assert!(other.prune(long_ago).await.unwrap().is_empty());
        let years_ahead = Utc.with_ymd_and_hms(2040, 1, 1, 0, 0, 0).unwrap();
        let removed = other.prune(years_ahead).await.unwrap();
        assert_eq!(removed.len(), 9, "{removed:?}");
        case.report_to(&report("RUN4"), Some("nightly")).await;
        other.drain().await.unwrap();
        assert_eq!(case.count("runs-nightly").await, 1);
    }
}

#[tokio::test]
async fn indices_of_an_installation_with_a_longer_prefix_are_left_alone() {
    let Some(case) = Case::start().await else { return };
    case.report(&report("RUN1")).await;
    case.delivery(case.url).drain().await.unwrap();
    // Its streams look like indices `theirs` of ours.
    let prefix = format!("{}-theirs", case.indices.name("runs"));
    let theirs = Delivery::new(Client::new(&Settings::new([case.url])).unwrap(), prefix, case.outbox.clone());
    case.report_to(&report("RUN2"), Some("nightly")).await;
    theirs.drain().await.unwrap();
    let years_ahead = Utc.with_ymd_and_hms(2040, 1, 1, 0, 0, 0).unwrap();
    let removed = case.delivery(case.url).prune(years_ahead).await.unwrap();
    assert_eq!(removed.len(), 3, "{removed:?}");
    assert_eq!(case.count("runs-theirs-runs-nightly").await, 1);
}
