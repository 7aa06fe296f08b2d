//! What a program sees: the Python client through the proxy, next to a server that
//! answers the same bytes without looking, and next to the site.
//!
//! SGCACHE_TEST_PYTHON names a Python that has shotgun_api3.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::serve::ListenerExt;
use sgcache::api3::Auth;
use sgcache::proxy::{self, Door, Leader, Proxy};
use sgcache::shotgun;
use sgcache::state::State;
use sgcache::sync::Follower;
use tokio_util::sync::CancellationToken;

use super::Options;
use super::rig::{Parts, Room, Site, import, store, wait_until_live};

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let python =
        std::env::var("SGCACHE_TEST_PYTHON").context("SGCACHE_TEST_PYTHON is not set: eval \"$(tests/setup)\"")?;
    let site = Site::start(options.at_most(50_000), Duration::ZERO)?;
    let parts = Parts::of(&site.url).await?;
    let room = Room::own()?;
    let state = State::open(&room.path)?;
    let replica = parts.replica(&store(options, &room.path).await?, &state);
    let follower = Arc::new(Follower::start_up(replica.clone(), None).await?);
    import(&replica).await?;
    let stop = CancellationToken::new();
    let (following, end) = (Arc::clone(&follower), stop.clone());
    tokio::spawn(async move { following.run(end).await });
    wait_until_live(&replica).await?;
    let settings = proxy::Settings::default();
    let made = proxy::Parts {
        replica,
        schema: parts.schema.clone(),
        site: &shotgun::Settings::new(site.url.as_str(), Auth::script("sgcache", "sgcache-sim")),
        settings: settings.clone(),
        leader: Leader::Here(Arc::new(move || follower.poke())),
        audit: Some(&room.path),
    };
    let proxy = Proxy::new(made)?;
    let door = Door::open(([127, 0, 0, 1], 0).into(), &settings).await?;
    let url = format!("http://{}", door.address());
    tokio::spawn(door.serve(proxy.router(), stop.clone()));
    let end = stop.clone();
    tokio::spawn(async move { proxy.run(end).await });
    let canned = canned().await?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/measure_proxy.py");
    let arguments = [script.to_owned(), canned, url, site.url.clone()];
    let ran =
        tokio::task::spawn_blocking(move || std::process::Command::new(python).args(arguments).status()).await??;
    stop.cancel();
    if !ran.success() {
        bail!("the client failed");
    }
    Ok(())
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
