//! REST writes through the proxy whose callers do not wait for the answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response};
use serde_json::json;
use sgcache::proxy::Settings;
use sgcache::sim::{Sim, SimSettings, Site};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::proxy_rig::{HTTP, Rig};
use crate::proxy_writes::{configs, filled};
use crate::waiting::until;

/// A site with REST: a `PUT` renames Shot 1 and is answered when the test says so.
struct RestSite {
    site: Arc<Site>,
    json_api: String,
    made: Semaphore,
    answers: Semaphore,
}

impl RestSite {
    async fn answer(State(rest): State<Arc<Self>>, request: Request) -> Response<Body> {
        if request.method() == Method::PUT {
            rest.site.update("Shot", 1, json!({"code": "renamed"})).expect("an update");
            rest.made.add_permits(1);
            rest.answers.acquire().await.expect("never closed").forget();
            return Response::new(Body::from("{}"));
        }
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
        let url = format!("{}{}", rest.json_api, head.uri.path());
        let answer = HTTP.request(head.method, url).body(body).send().await.expect("an answer");
        Response::new(Body::from(answer.bytes().await.expect("a body")))
    }
}

/// Starts a proxy before such a site; the loop that follows it has ended.
async fn rig() -> (Rig, Arc<RestSite>) {
    let site = filled();
    let sim = Sim::serve(Arc::clone(&site), &SimSettings::default()).await.expect("a site");
    let (made, answers) = (Semaphore::new(0), Semaphore::new(0));
    let rest = Arc::new(RestSite { site, json_api: sim.url(), made, answers });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let router = Router::new().fallback(RestSite::answer).with_state(Arc::clone(&rest));
    tokio::spawn(async move { axum::serve(listener, router).await.expect("a server") });
    let settings = Settings { max_age: Duration::from_secs(86_400), ..Settings::default() };
    let mut rig = Rig::begin_before(sim, address, configs(), settings).await;
    rig.live().await;
    rig.stop_following().await;
    (rig, rest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_caller_hangs_up_is_noted_all_the_same() {
    let (rig, rest) = rig().await;
    let shot = async || {
        let (how, found) = rig.find("Shot", json!([["id", "is", 1]]), &["code"]).await;
        (how, found[0]["code"].clone())
    };
    let old = ("hit".to_owned(), json!("s1"));
    assert_eq!(shot().await, old);
    let put = HTTP.put(format!("{}/api/v1/entity/shots/1", rig.url)).body(r#"{"code": "renamed"}"#);
    let caller = tokio::spawn(put.send());
    rest.made.acquire().await.expect("never closed").forget();
    // The site has made it, and its caller will not learn that.
    caller.abort();
    assert!(caller.await.expect_err("an end without an answer").is_cancelled());
    rest.answers.add_permits(1);
    until(async || shot().await != old).await;
}
