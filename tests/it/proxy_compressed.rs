//! A site that compresses its answers for those who can read it, as real ones do: what the
//! proxy has to read itself it asks for uncompressed, all else goes through as it is.

use std::io::Write;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::program::Place;
use crate::proxy_rig::{call, find, said};
use crate::waiting::Wait;

/// Asks the simulated site and compresses its answer.
async fn forward(State(site): State<String>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let accepts = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let sent = reqwest::Client::new().post(format!("http://{site}{uri}")).body(body);
    let Ok(answer) = sent.header("content-type", "application/json").send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (status, bytes) = (answer.status(), answer.bytes().await.unwrap_or_default());
    if !accepts.contains("gzip") {
        return (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response();
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&bytes).expect("memory");
    let packed = encoder.finish().expect("memory");
    (status, [(header::CONTENT_TYPE, "application/json"), (header::CONTENT_ENCODING, "gzip")], packed).into_response()
}

/// Reads as a client that accepts compressed answers, as soon as the type is live.
async fn read(url: &str, argument: &Value) -> (String, Value) {
    let auth = json!({"script_name": "sgcache", "script_key": "sgcache-sim"});
    let wait = Wait::begin();
    loop {
        let (headers, answer) = call(url, auth.clone(), "read", argument.clone()).await;
        let did = said(&headers);
        if did != "not_live" {
            return (did, answer["results"]["entities"].clone());
        }
        wait.again(|| did).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_proxy_learns_from_is_asked_for_uncompressed() {
    let place = Place::new();
    let _site = place.sim(900, 0.0);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let packing = listener.local_addr().expect("an address").to_string();
    place.edit("config.yaml", &place.site, &packing);
    let router = Router::new().fallback(forward).with_state(place.site.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let _daemon = place.daemon();
    let (direct, proxy) = (format!("http://{packing}"), format!("http://{}", place.api));

    // The first answer proves the credential.
    let shots = find("Shot", json!([["id", "less_than", 6]]), &["code"]);
    assert_eq!(read(&proxy, &shots).await.0, "unverified");
    let (did, found) = read(&proxy, &shots).await;
    assert_eq!((did.as_str(), &found), ("hit", &read(&direct, &shots).await.1));

    // An answer with a signed address is learned from, too.
    let (_, versions) = read(&direct, &find("Version", json!([]), &["image"])).await;
    let has_image = |row: &&Value| row["image"].as_str().is_some_and(|url| url.contains("X-Amz-Expires"));
    let id = versions.as_array().into_iter().flatten().find(has_image).expect("a Version with an image")["id"].clone();
    let version = find("Version", json!([["id", "is", id]]), &["code", "image"]);
    assert_eq!(read(&proxy, &version).await.0, "signed_url");
    assert_eq!(read(&proxy, &version).await.0, "hit");
}
