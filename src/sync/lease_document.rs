//! What the lease of a cluster looks like in the cluster: one document, compared and
//! set by its sequence number.
//!
//! It lies beside the status of the leader, in `{prefix}-follow`. Gets by id are
//! answered from the transaction log of the server, so a look shows every write that
//! was acknowledged before it. Who may write the document is not known here.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::cluster::{ClusterChannel, ClusterError};
use crate::elastic::Call;
use crate::entity::{DataType, EntityType};
use crate::entity_config::TypeLayout;

/// The id of the document.
const LEASE: &str = "lease";

type Result<T, E = ClusterError> = std::result::Result<T, E>;

/// A process with its data directory, as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseHolder {
    /// Its host.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// Its data directory there.
    pub data_dir: String,
    /// The random name of the data directory.
    pub member: String,
    /// Since when it holds the lease, by its own clock; only shown.
    pub since: DateTime<Utc>,
}

impl LeaseHolder {
    /// Tells whether both work in one data directory: they share versions and the lease.
    /// A copy of the directory has the name of the original, but not its place.
    pub fn shares_directory(&self, other: &Self) -> bool {
        (&self.member, &self.host, &self.data_dir) == (&other.member, &other.host, &other.data_dir)
    }
}

impl fmt::Display for LeaseHolder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.since.format("%Y-%m-%d %H:%M:%S UTC");
        write!(out, "{}, process {} in {}, since {since}", self.host, self.pid, self.data_dir)
    }
}

/// What is configured for one entity type, as far as two hosts have to agree on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfiguredType {
    /// The hash of the layout.
    pub hash: String,
    /// The data type of every field.
    pub fields: BTreeMap<String, DataType>,
}

/// What is configured, by entity type.
pub type ConfiguredTypes = BTreeMap<EntityType, ConfiguredType>;

/// Returns what layouts mean for other hosts.
pub fn configured_types(layouts: &[TypeLayout]) -> ConfiguredTypes {
    let of = |layout: &TypeLayout| ConfiguredType {
        hash: layout.hash.clone(),
        fields: layout.fields.iter().map(|field| (field.name.clone(), field.data_type)).collect(),
    };
    layouts.iter().map(|layout| (layout.entity_type.clone(), of(layout))).collect()
}

/// Says how `own` entity configs differ from those of the leader, a part per type; nothing
/// where they are the same.
pub fn differences(own: &ConfiguredTypes, leader: &ConfiguredTypes) -> Vec<String> {
    let missing = leader.keys().filter(|ty| !own.contains_key(*ty)).map(|ty| format!("`{ty}` is only there"));
    let changed = own.iter().filter_map(|(ty, own)| match leader.get(ty) {
        None => Some(format!("`{ty}` is only here")),
        Some(leader) if leader.hash == own.hash => None,
        Some(leader) => Some(format!("`{ty}`: {}", field_differences(own, leader))),
    });
    changed.chain(missing).collect()
}

fn field_differences(own: &ConfiguredType, leader: &ConfiguredType) -> String {
    let here = own.fields.iter().filter_map(|(name, data_type)| match leader.fields.get(name) {
        None => Some(format!("field `{name}` is only here")),
        Some(other) if other != data_type => Some(format!("field `{name}` is {data_type} here and {other} there")),
        Some(_) => None,
    });
    let there = leader.fields.keys().filter(|name| !own.fields.contains_key(*name));
    let found: Vec<_> = here.chain(there.map(|name| format!("field `{name}` is only there"))).collect();
    if found.is_empty() { "its filters or mappings differ".to_owned() } else { found.join(", ") }
}

/// The lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LeaseDocument {
    /// Who has it.
    pub holder: LeaseHolder,
    /// The random name of the process that gives it back when it ends; others of its data
    /// directory only renew it.
    pub owner: String,
    /// The epoch in every read version of the holder.
    pub epoch: i64,
    /// How often it was renewed.
    pub renewals: u64,
    /// How long it holds without a renewal, in milliseconds.
    pub length_ms: u64,
    /// Whether it was given back.
    pub released: bool,
    /// The entity configs of the holder.
    pub configured: ConfiguredTypes,
}

impl LeaseDocument {
    /// Returns how long it holds without a renewal.
    pub fn length(&self) -> Duration {
        Duration::from_millis(self.length_ms)
    }
}

/// Which write of the document it is; a later write names the one that it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Revision {
    #[serde(rename = "_seq_no")]
    number: i64,
    #[serde(rename = "_primary_term")]
    term: i64,
}

#[derive(Deserialize)]
struct Got {
    #[serde(flatten)]
    revision: Option<Revision>,
    #[serde(rename = "_source")]
    source: Option<Source>,
}

#[derive(Deserialize)]
struct Source {
    lease: LeaseDocument,
}

impl ClusterChannel {
    /// Returns the lease; `None` where no process ever had it.
    pub(super) async fn read_lease(&self) -> Result<Option<(Revision, LeaseDocument)>> {
        let call = Call::get(self.lease_path()).accept(&[404]);
        let answer = self.client().send(&call).await?;
        if !answer.is_success() {
            return Ok(None);
        }
        let malformed = |source| ClusterError::Malformed { index: self.follow_index().to_owned(), source };
        let got: Got = serde_json::from_value(answer.value()?).map_err(malformed)?;
        Ok(got.revision.zip(got.source.map(|source| source.lease)))
    }

    /// Writes the lease in place of the given revision, or for the first time; `None`
    /// when another process was faster.
    pub(super) async fn write_lease(
        &self,
        lease: &LeaseDocument,
        replaced: Option<Revision>,
    ) -> Result<Option<Revision>> {
        let call = Call::put(self.lease_path()).json(&json!({ "lease": lease })).accept(&[409]);
        let call = match replaced {
            Some(Revision { number, term }) => call.param("if_seq_no", number).param("if_primary_term", term),
            None => call.param("op_type", "create"),
        };
        let answer = self.client().send(&call).await?;
        if !answer.is_success() {
            return Ok(None);
        }
        Ok(Some(answer.json()?))
    }

    fn lease_path(&self) -> String {
        format!("/{}/_doc/{LEASE}", self.follow_index())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields<'a> = &'a [(&'a str, DataType)];

    fn configured(types: &[(&str, &str, Fields<'_>)]) -> ConfiguredTypes {
        let fields = |fields: Fields<'_>| fields.iter().map(|(name, ty)| ((*name).to_owned(), *ty)).collect();
        let of = |(name, hash, list): &(&str, &str, Fields<'_>)| {
            (EntityType::from(*name), ConfiguredType { hash: (*hash).to_owned(), fields: fields(list) })
        };
        types.iter().map(of).collect()
    }

    #[test]
    fn differing_entity_configs_are_named_with_types_and_fields() {
        let shot: &[(&str, DataType)] = &[("code", DataType::Text), ("cut_in", DataType::Number)];
        let own = configured(&[("Shot", "1", shot), ("Task", "1", &[]), ("Note", "1", &[])]);
        assert_eq!(differences(&own, &own), [""; 0]);
        let other: &[(&str, DataType)] = &[("code", DataType::Number), ("sg_cut", DataType::Number)];
        let leader = configured(&[("Shot", "2", other), ("Note", "2", &[]), ("Asset", "1", &[])]);
        let expected = [
            "`Note`: its filters or mappings differ",
            "`Shot`: field `code` is text here and number there, field `cut_in` is only here, field `sg_cut` is only there",
            "`Task` is only here",
            "`Asset` is only there",
        ];
        assert_eq!(differences(&own, &leader), expected);
    }

    #[test]
    fn a_copy_of_a_data_directory_is_another_member() {
        let holder = LeaseHolder {
            host: "one".into(),
            pid: 7,
            data_dir: "/data".into(),
            member: "x".into(),
            since: DateTime::UNIX_EPOCH,
        };
        assert!(holder.shares_directory(&LeaseHolder { pid: 8, since: Utc::now(), ..holder.clone() }));
        assert!(!holder.shares_directory(&LeaseHolder { host: "two".into(), ..holder.clone() }));
        assert!(!holder.shares_directory(&LeaseHolder { data_dir: "/copy".into(), ..holder.clone() }));
    }
}
