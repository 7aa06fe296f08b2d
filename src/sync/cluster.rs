//! Messages between processes on several hosts, passed through their cluster.
//!
//! | index | document | who writes it |
//! |---|---|---|
//! | `{prefix}-follow` | `leader`: how fresh every type is | the leader, several times a second |
//! | | `lease`: who leads (`lease_document`) | the leader, every few seconds |
//! | `{prefix}-marks` | keys that a write through another process touched | that process; the leader takes it away |
//!
//! The status has the version of a read of the leader, so that of two leaders the
//! newer one wins, however late the other writes. Marks are taken in two steps, first
//! into the state, then out of the index: a crash in between marks the keys twice.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Replica;
use crate::elastic::{self, Call, Client};
use crate::entity::EntityRef;
use crate::state::{DirtyReasons, NewDirtyKey, ReplicationStatus, SiteTime, StateError};
use crate::supervisor::beat;

/// How often the leader looks whether its standing has changed.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often it writes when nothing has changed: readers have to see that the leader lives.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// How long a round may take, besides the waits for the cluster.
const ROUND_BOUND: Duration = Duration::from_secs(120);
/// More quarantined keys than this make the whole type uncertain for others.
const MOST_QUARANTINED: usize = 1_000;
/// How many handed marks are taken at once.
const AT_ONCE: usize = 500;
/// The id of the notice.
const LEADER: &str = "leader";

/// The cluster, as a place for short messages.
#[derive(Clone)]
pub struct ClusterChannel {
    client: Client,
    follow: String,
    marks: String,
}

/// What the leader says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaderStatus {
    /// Who leads: host and process.
    pub leader: String,
    /// The time of the site when it was written.
    pub now: SiteTime,
    /// How fresh the rows are.
    pub standing: ReplicationStatus,
}

/// Why the channel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The cluster gave no answer.
    #[error(transparent)]
    Cluster(#[from] elastic::Error),
    /// The state cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// An index of that name was not made by this program.
    #[error("elasticsearch: index {0} was not made by sgcache: choose another `store.prefix`, or remove it")]
    NotOurs(String),
    /// A document cannot be understood.
    #[error("elasticsearch: {index} holds a document that cannot be read: {source}")]
    Malformed {
        /// The index.
        index: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

type Result<T, E = ClusterError> = std::result::Result<T, E>;

#[derive(Deserialize)]
struct Got {
    #[serde(default)]
    found: bool,
    #[serde(default, rename = "_version")]
    version: i64,
    #[serde(rename = "_source")]
    source: Option<Value>,
}

#[derive(Deserialize)]
struct Found {
    hits: Hits,
}

#[derive(Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    #[serde(rename = "_id")]
    id: String,
    #[serde(rename = "_source")]
    source: Value,
}

impl ClusterChannel {
    /// Makes the channel of a store with this prefix; nothing is sent.
    pub fn new(client: Client, prefix: &str) -> Self {
        Self { client, follow: format!("{prefix}-follow"), marks: format!("{prefix}-marks") }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the index in which the leader speaks to other processes.
    pub(super) fn follow_index(&self) -> &str {
        &self.follow
    }

    /// Makes the indices that are missing.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NotOurs`] where one of that name was not made by this program.
    pub async fn prepare(&self) -> Result<()> {
        let follow = json!({"leader": {"type": "keyword"}, "now": {"type": "long"},
            "standing": {"type": "object", "enabled": false}, "lease": {"type": "object", "enabled": false}});
        let marks = json!({"keys": {"type": "keyword", "index": false, "doc_values": false}});
        for (index, properties) in [(&self.follow, follow), (&self.marks, marks)] {
            let body = json!({
                "settings": {"number_of_shards": 1, "auto_expand_replicas": "0-1"},
                "mappings": mappings_of(&properties),
            });
            let created = self.client.send(&Call::put(format!("/{index}")).json(&body).accept(&[400])).await?;
            if created.is_success() {
                continue;
            }
            let known = self.client.send(&Call::get(format!("/{index}/_mapping")).accept(&[404])).await?;
            let mappings: Value = known.value()?;
            if mappings.pointer(&format!("/{index}/mappings/_meta/sgcache/board")).is_none() {
                // Either this program did not make it, or it was refused for another reason.
                return Err(match known.is_success() {
                    true => ClusterError::NotOurs(index.clone()),
                    false => created.into_error().into(),
                });
            }
            // An earlier version may have made it with fewer fields.
            let call = Call::put(format!("/{index}/_mapping"));
            self.client.send(&call.json(&mappings_of(&properties))).await?;
        }
        Ok(())
    }

    /// Writes a notice; false when one of a newer leader is there.
    ///
    /// # Errors
    ///
    /// When the cluster does not take it.
    pub async fn publish(&self, notice: &LeaderStatus, version: i64) -> Result<bool> {
        let call = Call::put(format!("/{}/_doc/{LEADER}", self.follow))
            .param("version", version)
            .param("version_type", "external")
            .json(notice)
            .accept(&[409]);
        Ok(self.client.send(&call).await?.is_success())
    }

    /// Returns the newest notice with its version, which each later one exceeds;
    /// nothing before a leader wrote one.
    ///
    /// # Errors
    ///
    /// When the cluster gives no answer, or one of another version of sgcache.
    pub async fn read(&self) -> Result<Option<(i64, LeaderStatus)>> {
        let Some((version, source)) = self.get(&self.follow, LEADER).await? else { return Ok(None) };
        let notice = serde_json::from_value(source);
        let notice = notice.map_err(|source| ClusterError::Malformed { index: self.follow.clone(), source })?;
        Ok(Some((version, notice)))
    }

    async fn get(&self, index: &str, id: &str) -> Result<Option<(i64, Value)>> {
        let answer = self.client.send(&Call::get(format!("/{index}/_doc/{id}")).accept(&[404])).await?;
        // A missing index is a missing document: nobody has written yet.
        let got: Got = answer.json().unwrap_or(Got { found: false, version: 0, source: None });
        Ok(got.source.filter(|_| got.found).map(|source| (got.version, source)))
    }

    /// Tells the leader to read keys again, and returns the id of the message.
    ///
    /// # Errors
    ///
    /// When the cluster does not take it; then the leader may know of it or not.
    pub async fn forward_invalidations(&self, keys: &[EntityRef]) -> Result<String> {
        let id = ulid::Ulid::new().to_string();
        let keys: Vec<Value> = keys.iter().map(|key| key.to_string().into()).collect();
        let call = Call::put(format!("/{}/_doc/{id}", self.marks)).param("refresh", true).json(&json!({"keys": keys}));
        self.client.send(&call).await?;
        Ok(id)
    }

    /// Tells whether the leader has marked the keys of a message.
    ///
    /// # Errors
    ///
    /// When the cluster gives no answer.
    pub async fn is_consumed(&self, id: &str) -> Result<bool> {
        Ok(self.get(&self.marks, id).await?.is_none())
    }

    /// Marks the keys that others handed over; tells whether there were any.
    async fn consume_invalidations(&self, replica: &Replica) -> Result<bool> {
        let body = json!({"size": AT_ONCE, "sort": ["_doc"]});
        let call = Call::post(format!("/{}/_search", self.marks)).json(&body).search().accept(&[404]);
        let answer = self.client.send(&call).await?;
        if !answer.is_success() {
            return Ok(false);
        }
        let found: Found = answer.json()?;
        for hit in &found.hits.hits {
            let keys = hit.source["keys"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let keys = keys.filter_map(key_of);
            let tracked = replica.tracked();
            let marks = keys.filter(|key| tracked.follows(&key.entity_type));
            let marks: Vec<_> = marks.map(|key| NewDirtyKey::new(key, DirtyReasons::WRITE)).collect();
            let now = replica.now();
            replica.state().mark(&marks, now).await?;
            if !replica.may_write() {
                return Ok(false);
            }
            let gone = Call::delete(format!("/{}/_doc/{}", self.marks, hit.id)).param("refresh", true).accept(&[404]);
            self.client.send(&gone).await?;
        }
        Ok(!found.hits.hits.is_empty())
    }

    /// Tells others how fresh the rows are, and takes over what they hand in, until
    /// `stop`. `wake` makes the loop that follows the site poll at once.
    pub async fn lead(&self, replica: &Replica, leader: &str, wake: impl Fn(), stop: CancellationToken) {
        let mut last: Option<Published> = None;
        let mut ready = false;
        while !stop.is_cancelled() {
            beat(ROUND_BOUND).await;
            let published = async {
                if !ready {
                    self.prepare().await?;
                    ready = true;
                }
                // A replaced leader must not take away what is meant for the new one.
                if self.publish_status(replica, leader, &mut last).await? && self.consume_invalidations(replica).await?
                {
                    wake();
                }
                Ok::<(), ClusterError>(())
            };
            if replica.may_write()
                && let Err(error) = published.await
            {
                tracing::warn!(%error, "the status of the leader could not be published");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Writes how fresh the rows are, where that has changed or was not said for a
    /// while; tells whether this process leads.
    async fn publish_status(&self, replica: &Replica, leader: &str, last: &mut Option<Published>) -> Result<bool> {
        let mut standing = replica.state().replication_status().await?;
        if let Some(told) = last.as_ref().filter(|told| told.standing == standing && told.at.elapsed() < WRITE_EVERY) {
            return Ok(told.heard);
        }
        let version = replica.state().next_rv().await?;
        let told = standing.clone();
        for ty in standing.types.values_mut().filter(|ty| ty.quarantined.len() > MOST_QUARANTINED) {
            ty.quarantined.clear();
            ty.breaker = true;
        }
        let notice = LeaderStatus { leader: leader.to_owned(), now: replica.now(), standing };
        let heard = self.publish(&notice, version).await?;
        if !heard {
            tracing::warn!("not the leader any more; status not published");
        }
        *last = Some(Published { standing: told, at: Instant::now(), heard });
        Ok(heard)
    }
}

/// What was written last.
struct Published {
    standing: ReplicationStatus,
    at: Instant,
    /// Whether no newer leader had written.
    heard: bool,
}

fn mappings_of(properties: &Value) -> Value {
    json!({"dynamic": "strict", "_meta": {"sgcache": {"board": true}}, "properties": properties})
}

fn key_of(text: &str) -> Option<EntityRef> {
    let (entity_type, id) = text.split_once(':')?;
    Some(EntityRef::new(entity_type, id.parse().ok()?))
}
