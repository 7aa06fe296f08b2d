//! The ops listener over a real connection.

use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sgcache::metrics::{Labels, Metrics};
use sgcache::report::{RunReport, RunStart, Status, Trigger};
use sgcache::server::{
    Bound, Control, Operation, Ops, OpsAccess, OpsToken, Refusal, RefusalKind, StatusSnapshot, TypeState, TypeStatus,
};
use sgcache::supervisor::{Loop, LoopState, Supervisor, beat};
use tokio_util::sync::CancellationToken;

use crate::waiting::until;

/// A listener on a free port that ends with the test.
struct Listener {
    url: String,
    control: Control,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Listener {
    async fn start(make: impl FnOnce(Control) -> Ops) -> Self {
        let bound = Bound::open("listen.ops", "127.0.0.1:0").await.unwrap();
        let control = Control::new(bound.address());
        let url = format!("http://{}", bound.address());
        let stop = CancellationToken::new();
        let router = make(control.clone()).router();
        let until = stop.clone();
        let served = tokio::spawn(async move { bound.serve(router, &Metrics::default(), until).await });
        Self { url, control, stop, served }
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        let answer = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn json(&self, path: &str) -> (StatusCode, Value) {
        let (code, text) = self.get(path).await;
        (code, serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}")))
    }

    async fn trigger(&self, name: &str, token: &str, body: &'static str) -> (StatusCode, Value) {
        let url = format!("{}/api/v1/pipelines/{name}/trigger", self.url);
        let request = reqwest::Client::new().post(url).bearer_auth(token).body(body);
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }
}

#[tokio::test]
async fn a_foreign_host_name_is_refused() {
    let listener = Listener::start(|control| ops(control, TypeState::Live)).await;
    let asked = |host: &'static str| {
        let request = reqwest::Client::new().get(format!("{}/api/v1/status", listener.url)).header("host", host);
        async move { request.send().await.unwrap().status() }
    };
    assert_eq!(asked("evil.example").await, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(asked("localhost.evil.example:9187").await, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(asked("localhost:9187").await, StatusCode::OK);
    assert_eq!(asked("127.0.0.1").await, StatusCode::OK);
}

#[tokio::test]
async fn a_token_is_asked_of_everything_but_livez() {
    let access = OpsAccess { token: Some(OpsToken("open-sesame".into())), ..OpsAccess::default() };
    let listener = Listener::start(|control| ops(control, TypeState::Live).with_access(access)).await;
    assert_eq!(listener.get("/livez").await.0, StatusCode::OK);
    let client = reqwest::Client::new();
    for path in ["/", "/page/page.js", "/metrics", "/readyz", "/api/v1/status", "/api/v1/runs"] {
        assert_eq!(listener.get(path).await.0, StatusCode::UNAUTHORIZED, "{path}");
        let url = format!("{}{path}", listener.url);
        let wrong = client.get(&url).bearer_auth("open-sesam").send().await.unwrap();
        assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(client.get(&url).bearer_auth("open-sesame").send().await.unwrap().status(), StatusCode::OK);
        let browser = client.get(&url).basic_auth("anyone", Some("open-sesame")).send().await.unwrap();
        assert_eq!(browser.status(), StatusCode::OK, "{path}");
    }
}

fn now() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 23, 10, 0, 0).unwrap()
}

fn status(state: TypeState) -> StatusSnapshot {
    let mut status = StatusSnapshot::empty(now());
    status.site = "https://studio.example".into();
    status.store.up = true;
    status.sync.last_poll_at = Some(now());
    status.types = vec![TypeStatus { entity_type: "Shot".into(), state, rows: 18, ..TypeStatus::default() }];
    status
}

fn ops(control: Control, state: TypeState) -> Ops {
    let metrics = Metrics::new(&Labels::new(["Shot"]));
    Ops::new(metrics, control, move || std::future::ready(status(state)))
}

fn finished(pipeline: &str) -> RunReport {
    let mut run = RunReport::begin(RunStart {
        run_id: format!("RUN-{pipeline}"),
        pipeline: pipeline.into(),
        trigger: Trigger::Cron,
        scheduled_for: None,
        started_at: now(),
        attempt: 1,
        params: Default::default(),
        instance: "host:1".into(),
        definition_hash: String::new(),
    });
    run.finish(now(), vec![]);
    run
}

#[tokio::test]
async fn metrics_are_served_in_the_text_format() {
    let listener = Listener::start(|control| ops(control, TypeState::Live)).await;
    let answer = reqwest::get(format!("{}/metrics", listener.url)).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4");
    let text = answer.text().await.unwrap();
    assert!(text.contains("# TYPE sgcache_sync_polls_total counter\n"), "{text}");
    assert!(text.contains("sgcache_sync_polls_total 0\n"));
}

#[tokio::test]
async fn it_is_ready_once_every_type_is_live() {
    let listener = Listener::start(|control| ops(control, TypeState::Live)).await;
    let health = json!({"level": "ok", "code": "ok", "title": "Healthy. The one type follows the site."});
    assert_eq!(
        listener.json("/readyz").await,
        (StatusCode::OK, json!({"ready": true, "reasons": [], "warnings": [], "health": health}))
    );
    let listener = Listener::start(|control| ops(control, TypeState::Importing)).await;
    let reason = json!({"code": "type_not_live", "subject": "Shot", "message": "importing"});
    let health = json!({"level": "busy", "code": "importing", "title": "Importing: 0 of 1 types are complete."});
    assert_eq!(
        listener.json("/readyz").await,
        (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({"ready": false, "reasons": [reason], "warnings": [], "health": health})
        )
    );
}

#[tokio::test]
async fn it_is_alive_while_every_loop_gives_signs_of_life() {
    let supervisor = Supervisor::new(Metrics::default(), CancellationToken::new());
    let shared = supervisor.clone();
    let listener = Listener::start(|control| ops(control, TypeState::New).with_supervisor(shared)).await;
    let beating = supervisor.spawn(Loop::Scheduler, || async {
        beat(Duration::from_secs(600)).await;
        std::future::pending().await
    });
    until(async || !supervisor.status().is_empty()).await;
    let (code, body) = listener.json("/livez").await;
    assert_eq!((code, &body["live"]), (StatusCode::OK, &json!(true)));
    assert_eq!((&body["loops"][0]["name"], &body["loops"][0]["state"]), (&json!("scheduler"), &json!("running")));

    let silent = supervisor.spawn(Loop::Fetch, || async {
        beat(Duration::ZERO).await;
        std::future::pending().await
    });
    until(async || supervisor.status().iter().any(|one| one.state != LoopState::Running)).await;
    let (code, body) = listener.json("/livez").await;
    assert_eq!((code, &body["live"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(false)));
    assert_eq!((&body["loops"][0]["name"], &body["loops"][0]["state"]), (&json!("fetch"), &json!("stuck")));
    beating.abort();
    silent.abort();
}

#[tokio::test]
async fn the_status_says_whether_it_is_ready_and_why_not() {
    let listener = Listener::start(|control| ops(control, TypeState::Importing)).await;
    let (code, body) = listener.json("/api/v1/status").await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(body["schema"], "sgcache.status/2");
    assert_eq!((&body["ready"], &body["types"][0]["rows"]), (&json!(false), &json!(18)));
    assert_eq!(body["reasons"][0]["subject"], "Shot");
    let snapshot: StatusSnapshot = serde_json::from_value(body).unwrap();
    assert_eq!(snapshot.types[0].state, TypeState::Importing);
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let listener = Listener::start(|control| ops(control, TypeState::Live)).await;
    let (code, page) = listener.get("/").await;
    assert_eq!(code, StatusCode::OK);
    let named = ["src=\"", "href=\""].into_iter().flat_map(|attribute| page.split(attribute).skip(1));
    let named: Vec<&str> =
        named.filter_map(|rest| rest.split('"').next()).filter(|name| !name.starts_with('#')).collect();
    assert!(named.len() > 3, "{named:?}");
    for name in named {
        assert!(name.starts_with("page/"), "{name} is from elsewhere");
        let (code, text) = listener.get(&format!("/{name}")).await;
        assert_eq!(code, StatusCode::OK, "{name}");
        for outside in ["@import", "url(", "http://", "https://"] {
            let allowed =
                text.matches("https://github.com/leeoniya/uPlot").count() * usize::from(outside == "https://");
            assert_eq!(text.matches(outside).count(), allowed, "{outside} in {name}");
        }
    }
    assert_eq!(listener.get("/page/nothing.js").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn runs_are_found_by_pipeline_status_and_id() {
    let make = |control| {
        ops(control, TypeState::Live).with_runs(|query| async move {
            let runs = [finished("sync"), finished("nightly")];
            let wanted = |run: &RunReport| {
                query.pipeline.as_ref().is_none_or(|name| *name == run.pipeline)
                    && query.status.is_none_or(|status| status == run.status)
                    && query.run_id.as_ref().is_none_or(|id| *id == run.run_id)
            };
            runs.into_iter().filter(wanted).collect()
        })
    };
    let listener = Listener::start(make).await;
    let count = |body: &Value| body["runs"].as_array().map_or(0, Vec::len);
    assert_eq!(count(&listener.json("/api/v1/runs").await.1), 2);
    assert_eq!(count(&listener.json("/api/v1/runs?pipeline=sync&status=skipped").await.1), 1);
    assert_eq!(count(&listener.json("/api/v1/runs?status=drift").await.1), 0);
    let (code, run) = listener.json("/api/v1/runs/RUN-nightly").await;
    assert_eq!((code, &run["status"]), (StatusCode::OK, &json!(Status::Skipped)));

    let (code, body) = listener.json("/api/v1/runs/RUN-none").await;
    assert_eq!((code, &body["error"]["class"]), (StatusCode::NOT_FOUND, &json!("unknown_run")));
    let (code, body) = listener.json("/api/v1/runs?state=ok").await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(body["error"]["message"].as_str().unwrap().contains("state"), "{body}");
}

#[tokio::test]
async fn a_pipeline_is_started_only_for_who_has_the_token() {
    let make = |control| {
        ops(control, TypeState::Live).with_operations(|operation| async move {
            let Operation::Trigger(request) = operation else { panic!("{operation:?}") };
            match request.pipeline.as_str() {
                "nightly" => Ok(json!({"run_id": format!("RUN {}", request.params.len())})),
                "sync" => Err(Refusal::new(RefusalKind::CannotStart, "`sync` runs all the time")),
                name => Err(Refusal::new(RefusalKind::UnknownPipeline, format!("there is no pipeline `{name}`"))),
            }
        })
    };
    let listener = Listener::start(make).await;
    let token = listener.control.token.clone();

    let (code, body) = listener.trigger("nightly", "guess", "").await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    assert!(!body.to_string().contains(&token));

    let started = listener.trigger("nightly", &token, r#"{"params": {"limit": 5}}"#).await;
    assert_eq!(started, (StatusCode::ACCEPTED, json!({"run_id": "RUN 1"})));
    assert_eq!(listener.trigger("nightly", &token, "").await.0, StatusCode::ACCEPTED);

    assert_eq!(listener.trigger("sync", &token, "").await.0, StatusCode::CONFLICT);
    let (code, body) = listener.trigger("nightli", &token, "").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert_eq!(body["error"]["message"], "there is no pipeline `nightli`");
    assert_eq!(listener.trigger("nightly", &token, "{").await.0, StatusCode::BAD_REQUEST);
}

/// Every route that changes something, and the one that shows what was received.
const GUARDED: &[&str] = &[
    "POST /api/v1/pipelines/nightly/trigger",
    "POST /api/v1/pipelines/nightly/pause",
    "POST /api/v1/pipelines/nightly/resume",
    "POST /api/v1/runs/RUN/cancel",
    "POST /api/v1/runs/RUN/retry",
    "POST /api/v1/reload",
    "POST /api/v1/explain",
    "GET /api/v1/dead-letters/1",
    "POST /api/v1/dead-letters/retry",
    "POST /api/v1/dead-letters/drop",
    "POST /api/v1/breakers/Shot/confirm",
    "POST /api/v1/breakers/Shot/reset",
];

#[tokio::test]
async fn what_changes_something_wants_the_token_from_no_page_of_another_site() {
    let make = |control| ops(control, TypeState::Live).with_operations(|_| std::future::ready(Ok(json!({}))));
    let listener = Listener::start(make).await;
    let (client, token) = (reqwest::Client::new(), listener.control.token.clone());
    let own = listener.url.clone();
    for route in GUARDED {
        let (method, path) = route.split_once(' ').unwrap();
        let ask = |shown: &str, headers: &[(&'static str, &str)]| {
            let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
            let request = client.request(method, format!("{}{path}", listener.url)).header("authorization", shown);
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            async move { request.body(r#"{"reason": "x"}"#).send().await.unwrap().status().as_u16() }
        };
        let bearer = format!("Bearer {token}");
        assert_eq!(ask("", &[]).await, 401, "{route}");
        assert_eq!(ask("Bearer guess", &[]).await, 401, "{route}");
        assert_eq!(ask(&format!("Basic {token}"), &[]).await, 401, "{route}");
        assert_eq!(ask("", &[("cookie", &format!("token={token}"))]).await, 401, "{route}");
        for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
            assert_eq!(ask(&bearer, &[("origin", origin)]).await, 403, "{route} from {origin}");
        }
        assert_eq!(ask(&bearer, &[("host", "evil.example")]).await, 421, "{route}");
        let answered = ask(&bearer, &[("origin", &own)]).await;
        assert!(matches!(answered, 200 | 202 | 400), "{route}: {answered}");
    }
}

#[tokio::test]
async fn a_path_that_is_not_there_says_which_are() {
    let listener = Listener::start(|control| ops(control, TypeState::Live)).await;
    let (code, body) = listener.json("/health").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert!(body["error"]["message"].as_str().unwrap().contains("/readyz"));
}

#[tokio::test]
async fn a_taken_address_is_named_with_its_configuration_key() {
    let first = Bound::open("listen.ops", "127.0.0.1:0").await.unwrap();
    let address = first.address().to_string();
    let error = Bound::open("listen.ops", &address).await.unwrap_err().to_string();
    let start = format!("`listen.ops`: cannot listen on {address}: another process");
    assert!(error.starts_with(&start), "{error}");

    let error = Bound::open("listen.ops", "9187").await.unwrap_err().to_string();
    assert!(error.contains("expected HOST:PORT"), "{error}");
}

#[tokio::test]
async fn it_ends_when_it_is_told_to() {
    let listener = Listener::start(|control| ops(control, TypeState::Live)).await;
    assert_eq!(listener.get("/livez").await.0, StatusCode::OK);
    listener.stop.cancel();
    listener.served.await.unwrap();
    assert!(reqwest::get(format!("{}/livez", listener.url)).await.is_err());
}
