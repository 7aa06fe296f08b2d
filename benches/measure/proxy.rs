//! What a program sees: the Python client through the proxy, next to a server that
//! answers the same bytes without looking, and next to the site. Then what the
//! proxy bears: requests per second, and memory of many connections.
//!
//! SGCACHE_TEST_PYTHON names a Python that has shotgun_api3.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::serve::ListenerExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Options;
use super::rig::{Cost, Site};
use super::served::Served;

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let python =
        std::env::var("SGCACHE_TEST_PYTHON").context("SGCACHE_TEST_PYTHON is not set: eval \"$(tests/setup)\"")?;
    let site = Site::start(options.at_most(50_000), Duration::ZERO)?;
    let served = Served::start(options, &site).await?;
    let url = served.url.clone();
    let canned = canned().await?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/measure_proxy.py");
    let arguments = [script.to_owned(), canned.clone(), url.clone(), site.url.clone()];
    let ran =
        tokio::task::spawn_blocking(move || std::process::Command::new(python).args(arguments).status()).await??;
    if !ran.success() {
        bail!("the client failed");
    }
    load(&canned, &url).await
}

/// What `find_one` sends.
const FIND_ONE: &str = r#"{"method_name": "read", "params": [{"script_name": "sgcache", "script_key": "sgcache-sim"},
    {"type": "Shot", "return_fields": ["code", "sg_status_list", "project"], "return_only": "active",
    "filters": {"logical_operator": "and", "conditions": [{"path": "id", "relation": "is", "values": [100]}]},
    "paging": {"entities_per_page": 1, "current_page": 1}, "api_return_image_urls": true,
    "return_paging_info_without_counts": true}]}"#;
const CALLERS: usize = 16;
const SLICES: u32 = 10;
const SLICE: Duration = Duration::from_secs(1);
const CONNECTIONS: usize = 4_000;

async fn load(canned: &str, proxy: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::new();
    let answer = client.post(format!("{proxy}/api3/json")).body(FIND_ONE).send().await?;
    anyhow::ensure!(
        answer.headers().get("x-sgcache").is_some_and(|said| said.as_bytes().starts_with(b"hit")),
        "no hit"
    );
    client.post(format!("{canned}/put")).body(answer.bytes().await?).send().await?;
    // In turn, so that a busy moment of the machine hits both.
    let (mut floor, mut seen) = (0.0, 0.0);
    for _ in 0..SLICES {
        floor += per_second(canned).await? / f64::from(SLICES);
        seen += per_second(proxy).await? / f64::from(SLICES);
    }
    println!(
        "find_one by {CALLERS} callers: {seen:.0} requests/s, canned {floor:.0}: {:.0} % of it",
        100.0 * seen / floor
    );
    let before = Cost::own().own_mb;
    let open = connections(proxy).await?;
    let after = Cost::own().own_mb;
    println!("{} connections that have asked once: {} MB more, both ends in one process", open.len(), after - before);
    Ok(())
}

/// Calls a server from several connections at once for a while.
async fn per_second(url: &str) -> anyhow::Result<f64> {
    let (client, begun) = (reqwest::Client::new(), Instant::now());
    let caller = || {
        let (client, url) = (client.clone(), format!("{url}/api3/json"));
        async move {
            let mut calls = 0_u32;
            while begun.elapsed() < SLICE {
                client.post(&url).body(FIND_ONE).send().await?.bytes().await?;
                calls += 1;
            }
            Ok::<_, reqwest::Error>(calls)
        }
    };
    let calls = futures::future::try_join_all((0..CALLERS).map(|_| tokio::spawn(caller()))).await?;
    let calls: u32 = calls.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().sum();
    Ok(f64::from(calls) / begun.elapsed().as_secs_f64())
}

/// Opens connections, each with one call that was answered.
async fn connections(url: &str) -> anyhow::Result<Vec<TcpStream>> {
    let address = url.trim_start_matches("http://");
    let length = FIND_ONE.len();
    let request = format!("POST /api3/json HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n{FIND_ONE}");
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut beginning = [0; 512];
        anyhow::ensure!(stream.read(&mut beginning).await? > 0, "a connection was closed");
        open.push(stream);
    }
    Ok(open)
}

/// Starts a server that answers every call with the last body that was put into it.
async fn canned() -> anyhow::Result<String> {
    let body = Arc::new(tokio::sync::RwLock::new(Bytes::new()));
    let (kept, given) = (Arc::clone(&body), body);
    let router = Router::new()
        .route(
            "/put",
            axum::routing::post(move |bytes: Bytes| {
                let kept = Arc::clone(&kept);
                async move { *kept.write().await = bytes }
            }),
        )
        .fallback(move |_: Bytes| {
            let given = Arc::clone(&given);
            async move { ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], given.read().await.clone()) }
        });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    // A connection that refuses the option is slower, not wrong.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}
