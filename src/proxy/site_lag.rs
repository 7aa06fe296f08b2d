//! Whether the site answers reads from rows that are behind its own writes, as one does
//! that reads from replicas of its database.
//!
//! The evidence is a row that was read after the acknowledgement of a write, lacks what the
//! site answered to that write, and shows it once everything that the event log says of the
//! write is read. A row that lacks it still was changed by a program that writes past this
//! proxy. A field is compared only while no other write through this proxy may have changed
//! it. Evidence is forgotten after some writes without any.
//!
//! Such a site may show one row of a transaction and not yet another, and the row that was
//! written before those on the other side of its links. What proves that all of them are
//! read is the event log (`sync::recheck`), so every write waits for it meanwhile. Order is
//! by the number of the write, never by time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::answered_values::{Answered, LIFE, is_same};
use super::write_effects::{Effect, Fields, Ids, WriteEffects};
use super::written_values::WrittenValues;
use crate::entity::EntityRef;
use crate::filter::FieldPath;
use crate::store::{self, Store};
use crate::sync::Tracked;

/// The number of writes without evidence after which the site counts as one without lag.
const FORGOTTEN_AFTER: u64 = 500;

/// What is known of the lag of the site.
#[derive(Debug, Default)]
pub(super) struct SiteLag(Mutex<Writes>);

/// The writes that were sent and are not visible in the cache yet, by their numbers.
#[derive(Debug, Default)]
struct Writes {
    last_number: u64,
    /// The number of the last write when a row was seen that had lacked one.
    last_evidence: Option<u64>,
    /// What the rows of a write lacked when they were read after it.
    doubtful: BTreeMap<u64, Vec<(EntityRef, String)>>,
    /// What may be changed by those without an answer.
    sent: BTreeMap<u64, Sent>,
    /// What the site answered to the others, as far as no other write may have changed it.
    answered: BTreeMap<u64, Vec<Answered>>,
}

impl Writes {
    fn is_suspected(&self) -> bool {
        let recently = |last| self.last_number - last < FORGOTTEN_AFTER;
        !self.doubtful.is_empty() || self.last_evidence.is_some_and(recently)
    }
}

/// The number of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WriteNumber(u64);

impl SiteLag {
    /// Takes note of a write that is about to be sent.
    pub fn send(&self, effects: &WriteEffects) -> WriteNumber {
        let mut writes = self.writes();
        writes.last_number += 1;
        let number = writes.last_number;
        let sent = Sent::new(effects);
        writes.answered.values_mut().for_each(|answered| sent.leave_out_of(answered));
        writes.sent.insert(number, sent);
        WriteNumber(number)
    }

    /// Takes note of the acknowledgement of a write.
    pub fn acknowledge(&self, WriteNumber(number): WriteNumber, effects: &mut WriteEffects) {
        let mut writes = self.writes();
        writes.sent.remove(&number);
        // More is known of it than when it was sent.
        let acknowledged = Sent::new(effects);
        writes.answered.values_mut().for_each(|answered| acknowledged.leave_out_of(answered));
        let mut answered = std::mem::take(&mut effects.answered);
        writes.sent.values().for_each(|sent| sent.leave_out_of(&mut answered));
        writes.answered.insert(number, answered);
    }

    /// Takes note of the end of a write: it is visible, or was not made.
    pub fn end(&self, WriteNumber(number): WriteNumber) {
        let mut writes = self.writes();
        writes.sent.remove(&number);
        writes.answered.remove(&number);
        writes.doubtful.remove(&number);
    }

    /// Compares the stored rows with what the site answered to a write whose rows were
    /// read since, and tells whether the site may lag.
    pub async fn may_lag(&self, WriteNumber(number): WriteNumber, store: &dyn Store, tracked: &Tracked) -> bool {
        let lacking = self.lacking(number, store, tracked).await;
        let mut writes = self.writes();
        if !lacking.is_empty() {
            tracing::debug!(?lacking, "a row that was read after a write does not show it");
            writes.doubtful.insert(number, lacking);
        }
        writes.is_suspected()
    }

    /// Tells whether rows that are read after a write may be older than it.
    pub fn is_suspected(&self) -> bool {
        self.writes().is_suspected()
    }

    /// Compares once more when everything that the event log says of a write is read.
    pub async fn compare_again(&self, WriteNumber(number): WriteNumber, store: &dyn Store, tracked: &Tracked) {
        if !self.writes().doubtful.contains_key(&number) {
            return;
        }
        let lacking = self.lacking(number, store, tracked).await;
        let mut writes = self.writes();
        let doubtful = writes.doubtful.remove(&number).unwrap_or_default();
        // What cannot be compared any more may have been shown.
        if doubtful.iter().any(|one| !lacking.contains(one)) {
            tracing::debug!(?doubtful, "the rows of the site lag behind its writes");
            writes.last_evidence = Some(writes.last_number);
        }
    }

    /// Returns the fields of a write that the stored rows do not show.
    async fn lacking(&self, number: u64, store: &dyn Store, tracked: &Tracked) -> Vec<(EntityRef, String)> {
        let answered = self.writes().answered.get(&number).cloned().unwrap_or_default();
        let mut lacking = Vec::new();
        for one in &answered {
            lacking.extend(lacking_fields(one, store, tracked).await);
        }
        // What another write may have changed meanwhile is no evidence.
        let writes = self.writes();
        let still = writes.answered.get(&number).map(Vec::as_slice).unwrap_or_default();
        lacking.retain(|(key, field)| still.iter().any(|one| one.key == *key && one.tells(field)));
        lacking
    }

    /// What it guards is complete after every statement.
    fn writes(&self) -> MutexGuard<'_, Writes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a write may change.
#[derive(Debug)]
struct Sent {
    effects: Vec<Effect>,
    everything: bool,
}

impl Sent {
    fn new(effects: &WriteEffects) -> Self {
        let revived = effects.revived.iter().map(|key| Effect {
            entity_type: key.entity_type.clone(),
            ids: Ids::Only([key.id].into()),
            fields: Fields::All,
            values: WrittenValues::default(),
            lifecycle: true,
        });
        let everything = effects.everything;
        Self { effects: effects.effects.iter().cloned().chain(revived).collect(), everything }
    }

    /// Leaves out of what was answered to another write what this one may change.
    fn leave_out_of(&self, answered: &mut Vec<Answered>) {
        if self.everything {
            answered.clear();
        }
        for effect in &self.effects {
            for one in answered.iter_mut().filter(|one| effect.touches(&one.key)) {
                one.leave_out(|field| effect.fields.touch(field), effect.lifecycle);
            }
        }
    }
}

/// Returns the fields of which the stored row does not show what the site answered. Rows
/// that a filter may leave out are not compared.
async fn lacking_fields(answered: &Answered, store: &dyn Store, tracked: &Tracked) -> Vec<(EntityRef, String)> {
    let Answered { key, is_active, values } = answered;
    let layout = tracked.layout(&key.entity_type).filter(|layout| layout.filter.is_everything());
    let Some(layout) = layout else { return Vec::new() };
    let lacks = |field: &str| vec![(key.clone(), field.to_owned())];
    let paths = values.keys().filter_map(|name| Some(FieldPath::local(name, layout.field(name)?.data_type)));
    let fields = store::Fields::Only(paths.collect());
    let Ok(rows) = store.get(std::slice::from_ref(key), &fields).await else { return lacks(LIFE) };
    let Some(row) = rows.first() else {
        return if *is_active == Some(true) { lacks(LIFE) } else { Vec::new() };
    };
    if *is_active == Some(false) {
        return lacks(LIFE);
    }
    let shows = |name: &str, value: &Value| {
        let shown = layout.field(name).and_then(|field| is_same(field.data_type, value, &row.get(name)?));
        shown.unwrap_or(true)
    };
    values.iter().filter(|(name, value)| !shows(name, value)).flat_map(|(name, _)| lacks(name)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::catalogue;
    use super::*;

    /// Sends an update of a Shot and returns its number and effects.
    fn sent(lag: &SiteLag, id: i64, field: &str, value: &Value) -> (WriteNumber, WriteEffects) {
        let fields = json!([{"field_name": field, "value": value}]);
        let argument = json!({"type": "Shot", "id": id, "fields": fields});
        let effects = WriteEffects::of_request("update", &argument, &catalogue());
        (lag.send(&effects), effects)
    }

    fn acknowledged(lag: &SiteLag, (number, effects): (WriteNumber, WriteEffects), answer: &Value) -> WriteNumber {
        lag.acknowledge(number, &mut effects.with_results(Some(answer)));
        number
    }

    fn compared(lag: &SiteLag, WriteNumber(number): WriteNumber) -> Vec<String> {
        let writes = lag.writes();
        let answered = writes.answered.get(&number).into_iter().flatten();
        answered.flat_map(|one| one.values.keys().map(move |name| format!("{}.{name}", one.key))).collect()
    }

    #[test]
    fn what_another_write_may_have_changed_is_not_compared() {
        let (lag, shot) = (SiteLag::default(), json!({"type": "Shot", "id": 1, "code": "a"}));
        let status = json!({"type": "Shot", "id": 1, "sg_status_list": "ip"});
        let first = acknowledged(&lag, sent(&lag, 1, "code", &json!("a")), &shot);
        acknowledged(&lag, sent(&lag, 1, "sg_status_list", &json!("ip")), &status);
        acknowledged(&lag, sent(&lag, 2, "code", &json!("b")), &json!({"type": "Shot", "id": 2, "code": "b"}));
        assert_eq!(compared(&lag, first), ["Shot:1.code"], "others changed other fields and entities");
        // A later one may be committed before its answer comes.
        let later = sent(&lag, 1, "code", &json!("c"));
        assert_eq!(compared(&lag, first), [""; 0]);
        let between = acknowledged(&lag, sent(&lag, 1, "code", &json!("a")), &shot);
        assert_eq!(compared(&lag, between), [""; 0]);
        // One that was refused changed nothing.
        lag.end(later.0);
        let last = acknowledged(&lag, sent(&lag, 1, "code", &json!("a")), &shot);
        assert_eq!(compared(&lag, last), ["Shot:1.code"]);
        lag.send(&WriteEffects::anything());
        assert_eq!(compared(&lag, last), [""; 0], "an unknown method may change anything");
    }
}
