//! The words for what can be made to happen to a site, as they are written in
//! YAML or JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::replica::Lag;
use super::rights::Permissions;
use crate::faults::{Latency, RateLimit, Rule};
use config_file::{duration, parse_duration};
use shotgun_model::entity::{EntityRef, Timestamp};

/// One thing that happens to the site.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Moves the clock on; steps that fall due on the way are made in between.
    Advance(#[serde(deserialize_with = "duration")] Duration),
    /// Stops the clock at a moment.
    StopClock(Timestamp),
    /// Lets the clock run, this far ahead of the real time: `5m`, `-2h`, `0s`.
    RunClock(Offset),
    /// Writes, all in one transaction.
    Write(Writes),
    /// Begins a transaction that is invisible until it is committed.
    Begin(Begin),
    /// Commits an open transaction.
    Commit(String),
    /// Rolls an open transaction back; its ids are never seen.
    RollBack(String),
    /// Uses up ids of the event log without a trace, as a rollback does.
    BurnIds(usize),
    /// Says how many workers the site has and how many event ids each takes at once.
    IdBlocks(IdBlocks),
    /// Keeps the state of this moment under a name.
    Backup(String),
    /// Makes the site what it was at a backup: ids are used again, the clock goes on.
    Restore(String),
    /// Makes the site what it was when it started.
    Reset,
    /// Adds rows that have always been there: `{Shot: [{code: x}]}`.
    Load(Value),
    /// Writes every row to a file, for `--snapshot`.
    Save(PathBuf),
    /// Removes old entries of the event log.
    Retention(Retention),
    /// Removes an entity as if it had never been, without a trace in the event log.
    Purge(EntityRef),
    /// Puts an entry into the event log, of whatever shape.
    Event(Box<RawEvent>),
    /// Shows rows, or the event log, later than they are written.
    Lag(Lag),
    /// Changes what a script may see and do.
    Permissions(Permissions),
    /// Calls a method of `/api3/json` as the site's own script.
    Call(Call),
    /// Orders trouble for requests from now on.
    Trouble(Box<Rule>),
    /// Limits the rate of requests; `null` ends the limit.
    RateLimit(Option<RateLimit>),
    /// Delays every answer from now on.
    Latency(Latency),
    /// Decides how the site behaves where sources disagree: `{null_checkbox: refuse}`.
    Reading(BTreeMap<String, String>),
    /// Ends all trouble of requests, and the limit.
    EndTrouble,
}

/// A distance in time with a sign, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Offset(pub i64);

impl TryFrom<String> for Offset {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (sign, rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(&text)),
        };
        let seconds = parse_duration(rest)?.as_secs();
        i64::try_from(seconds).map(|seconds| Self(sign * seconds)).map_err(|_| format!("`{text}` is too long"))
    }
}

/// Writes of one transaction.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Writes {
    /// What is written, in order.
    #[serde(default)]
    pub writes: Vec<WriteSpec>,
    /// Nothing of it is logged, as with a script whose events are off.
    #[serde(default)]
    pub silently: bool,
    /// The id of the person in whose name it is done; else it is the site's script.
    #[serde(default)]
    pub person: Option<i64>,
    /// The open transaction that it belongs to.
    #[serde(default)]
    pub transaction: Option<String>,
    /// How often the writes are made; `{n}` in a text becomes 1, 2, 3, ...
    #[serde(default = "once")]
    pub repeat: u32,
}

fn once() -> u32 {
    1
}

/// The begin of a transaction.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// What it is called until it ends.
    pub name: String,
    /// The event ids that it takes at once; more are taken when it needs them.
    #[serde(default)]
    pub ids: usize,
    /// The worker that runs it; else they take turns.
    #[serde(default)]
    pub worker: Option<usize>,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteSpec {
    /// Creates an entity.
    Create {
        /// The type.
        #[serde(rename = "type")]
        entity_type: String,
        /// Its values.
        #[serde(default)]
        fields: Map<String, Value>,
    },
    /// Changes an entity.
    Update {
        /// The type.
        #[serde(rename = "type")]
        entity_type: String,
        /// The id.
        id: i64,
        /// The new values; lists of links become the given ones.
        fields: Map<String, Value>,
    },
    /// Retires an entity.
    Retire(EntityRef),
    /// Revives an entity.
    Revive(EntityRef),
}

/// How event ids are handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdBlocks {
    /// The workers of the site.
    pub workers: usize,
    /// The ids that one takes at once.
    pub block: u32,
}

/// Which entries of the event log stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retention {
    /// The newest so many.
    Keep(usize),
    /// Those that are younger than this.
    Younger(#[serde(deserialize_with = "duration")] Duration),
}

/// An entry of the event log as it is shown, every part optional but its type.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawEvent {
    /// The type, which need not have three parts.
    pub event_type: String,
    /// The field.
    #[serde(default)]
    pub attribute_name: Option<String>,
    /// The metadata; may be null.
    #[serde(default)]
    pub meta: Value,
    /// The entity, which need not exist.
    #[serde(default)]
    pub entity: Option<EntityRef>,
    /// The project.
    #[serde(default)]
    pub project: Option<EntityRef>,
    /// Who did it; may be null.
    #[serde(default)]
    pub user: Option<EntityRef>,
    /// When; now if it is not said.
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    /// What it says to people.
    #[serde(default)]
    pub description: Option<String>,
    /// The session of the one who did it.
    #[serde(default)]
    pub session_uuid: Option<String>,
}

/// A request without its credentials.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The method.
    pub method: String,
    /// Its argument.
    #[serde(default)]
    pub argument: Value,
}
