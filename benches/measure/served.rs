//! A proxy over a replica that follows a site, all in this process.

use std::sync::Arc;

use sgcache::api3::Auth;
use sgcache::proxy::{self, ApiListener, Leader, Proxy};
use sgcache::shotgun;
use sgcache::state::State;
use sgcache::supervisor::Supervisor;
use sgcache::sync::Follower;
use tokio_util::sync::CancellationToken;

use super::Options;
use super::rig::{Parts, Room, Site, import, store, wait_until_live};

/// Stopped when dropped.
pub struct Served {
    pub url: String,
    stop: CancellationToken,
    _room: Room,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Served {
    /// Imports the site and returns once every type is live.
    pub async fn start(options: &Options, site: &Site) -> anyhow::Result<Self> {
        let parts = Parts::of(&site.url).await?;
        let room = Room::own()?;
        let state = State::open(&room.path).await?;
        let replica = parts.replica(&store(options, &room.path).await?, &state);
        let follower = Arc::new(Follower::start_up(replica.clone(), None).await?);
        import(&replica).await?;
        let stop = CancellationToken::new();
        let (following, end) = (Arc::clone(&follower), stop.clone());
        let supervisor = Supervisor::new(parts.metrics.clone(), stop.clone());
        tokio::spawn(async move { following.run(&supervisor, end).await });
        wait_until_live(&replica).await?;
        let settings = proxy::Settings::default();
        let made = proxy::Parts {
            replica,
            schema: parts.schema.clone(),
            site: &shotgun::Settings::new(site.url.as_str(), Auth::script("sgcache", "sgcache-sim")),
            settings: settings.clone(),
            leader: Leader::Here(Arc::new(move || follower.wake())),
            access_log: Some(&room.path),
            ledger: Default::default(),
            differences: None,
        };
        let proxy = Proxy::new(made).await?;
        let listener = ApiListener::bind(([127, 0, 0, 1], 0).into(), &settings).await?;
        let url = format!("http://{}", listener.address());
        let (router, metrics, end) = (proxy.router(), parts.metrics.clone(), stop.clone());
        tokio::spawn(async move { listener.serve(router, &metrics, end).await });
        let end = stop.clone();
        tokio::spawn(async move { proxy.run(end).await });
        Ok(Self { url, stop, _room: room })
    }
}
