//! Which host leads, where several of them share one cluster: the lease as the
//! configuration describes it, and what a daemon does that may not lead yet.

use chrono::Utc;

use super::Failure;
use super::instance::host;
use crate::config::{Config, ElasticsearchSettings, StoreSettings};
use crate::elastic;
use crate::server::WaitingStatus;
use crate::state::State;
use crate::sync::{ClusterChannel, ClusterLease, Leadership, LeaseHolder, NotLeader, Replica};

/// One request about the lease may take this share of its length: a holder that gets no
/// answer has time to ask another node.
const REQUESTS: u32 = 5;

/// Returns the channel of a store.
///
/// # Errors
///
/// When the settings cannot work.
pub fn channel(settings: &ElasticsearchSettings) -> Result<ClusterChannel, Failure> {
    channel_with(&settings.transport(), &settings.prefix)
}

fn channel_with(transport: &elastic::Settings, prefix: &str) -> Result<ClusterChannel, Failure> {
    let client = elastic::Client::new(transport).map_err(|error| Failure::config(format!("store: {error}")))?;
    Ok(ClusterChannel::new(client, prefix))
}

/// Returns the lease of the configured store; `None` for a store that is not shared.
///
/// # Errors
///
/// When the settings cannot work, or the state cannot be written.
pub async fn lease(config: &Config, state: &State) -> Result<Option<ClusterLease>, Failure> {
    let StoreSettings::Elasticsearch(settings) = &config.store else { return Ok(None) };
    let mut transport = settings.transport();
    transport.timeouts.other = transport.timeouts.other.min(settings.lease / REQUESTS);
    let place = std::fs::canonicalize(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    let me = LeaseHolder {
        host: host(),
        pid: std::process::id(),
        data_dir: place.display().to_string(),
        member: state.member_name().await?,
        since: Utc::now(),
    };
    Ok(Some(ClusterLease::new(channel_with(&transport, &settings.prefix)?, me, settings.lease)))
}

/// Returns the replica of a process that may write: only while it holds the lease, where
/// the store is shared.
pub fn sharing(replica: Replica, lease: Option<&ClusterLease>) -> Replica {
    match lease {
        Some(lease) => replica.sharing(lease.clone()),
        None => replica,
    }
}

/// Waits until a leader is seen at work that has other entity configs than this daemon had
/// when it started. Two hosts that lead in turn with different ones would import types in
/// turn. What changes later is only shown: it may be on its way to the other host, too.
pub async fn refusal(lease: Option<ClusterLease>) -> Failure {
    if let Some(lease) = lease {
        loop {
            match lease.leadership() {
                Leadership::Here => break,
                Leadership::Elsewhere(why) if !why.is_alive => {}
                Leadership::Elsewhere(why) if why.differences.is_empty() => break,
                Leadership::Elsewhere(why) => return refused(&why),
            }
            tokio::time::sleep(lease.look_interval()).await;
        }
    }
    std::future::pending().await
}

fn refused(why: &NotLeader) -> Failure {
    Failure::config(format!(
        "{why}. Use the same entityConfig/ on every host; to change it, change it at the leader first, or stop the leader"
    ))
}

/// Says why this process does not lead; `None` while it does, and where it is alone.
pub fn waiting(replica: &Replica) -> Option<WaitingStatus> {
    match replica.lease()?.leadership() {
        Leadership::Here => None,
        Leadership::Elsewhere(why) => {
            let holder = why.holder.as_ref().map(ToString::to_string);
            Some(WaitingStatus { holder, message: why.to_string() })
        }
    }
}

/// Lets another host lead at once, when nothing here needs the lease any more.
pub async fn release(lease: Option<&ClusterLease>) {
    if let Some(lease) = lease {
        lease.release().await;
    }
}
