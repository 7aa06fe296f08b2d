//! What a step of a run found and did: totals, numbers per type, mismatches.
//!
//! Plain data, part of the schema `sgcache.run/1` of `run`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::entity::EntityRef;

/// The number of mismatches that one step keeps by default.
pub const MISMATCH_LIMIT: usize = 10_000;

/// What a step found and did. A job fills in what applies and leaves the rest at zero.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepResult {
    /// What was compared; `None` for a job that compares nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<CheckKind>,
    /// Entities compared.
    pub checked: u64,
    /// Entities on the site and not in the cache.
    pub missing: u64,
    /// Entities in the cache and not on the site.
    pub extra: u64,
    /// Entities in both with at least one different field.
    pub differs: u64,
    /// Entities whose name links show wrongly, and nothing else is wrong with.
    pub names: u64,
    /// Entities that drifted: missing, extra, different or wrongly named.
    pub drift: u64,
    /// `drift / checked`; zero when nothing was checked.
    pub drift_ratio: f64,
    /// Drifted entities that were repaired and verified.
    pub repaired: u64,
    /// Drifted entities that were to be repaired and still differ.
    pub unresolved: u64,
    /// Entities left out because they changed while they were compared.
    pub touched: u64,
    /// Entities that changed each time they were looked at; not counted as drift.
    pub unverifiable: u64,
    /// Rows written to the store by an import, a rebuild or a repair.
    pub written: u64,
    /// Requests sent to the site.
    pub requests: u64,
    /// How long the last attempt took.
    pub duration_seconds: f64,
    /// Upper bound (95 %) of the share of stale entities; `None` unless a random sample was taken.
    pub stale_ratio_upper95: Option<f64>,
    /// The same numbers per entity type.
    pub by_type: BTreeMap<String, TypeResult>,
    /// The differences, at most [`MISMATCH_LIMIT`] unless the job says otherwise.
    pub mismatches: Vec<Mismatch>,
    /// Whether there were more differences than `mismatches` holds.
    pub truncated: bool,
    /// What only this kind of job has to say, for example the files it wrote.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, Value>,
}

impl StepResult {
    /// Sets the totals to the sums over `by_type`.
    pub fn sum_up(&mut self) {
        let sum = |of: fn(&TypeResult) -> u64| self.by_type.values().map(of).sum::<u64>();
        let (checked, drift) = (sum(|ty| ty.checked), sum(|ty| ty.drift));
        let (missing, extra, differs) = (sum(|ty| ty.missing), sum(|ty| ty.extra), sum(|ty| ty.differs));
        let (repaired, unresolved) = (sum(|ty| ty.repaired), sum(|ty| ty.unresolved));
        let (touched, unverifiable) = (sum(|ty| ty.touched), sum(|ty| ty.unverifiable));
        let written = sum(|ty| ty.written);
        (self.checked, self.drift) = (checked, drift);
        (self.missing, self.extra, self.differs) = (missing, extra, differs);
        self.names = sum(|ty| ty.names);
        (self.repaired, self.unresolved) = (repaired, unresolved);
        (self.touched, self.unverifiable) = (touched, unverifiable);
        self.written = written;
        self.drift_ratio = ratio(drift, checked);
    }

    /// Tells whether values were to be compared and none were: then "no drift" says
    /// nothing.
    pub fn looked_at_nothing(&self) -> bool {
        self.kind == Some(CheckKind::Sample) && self.checked == 0 && self.drift == 0
    }

    /// Keeps a mismatch, or notes that there were more than `limit`.
    pub fn push_mismatch(&mut self, mismatch: Mismatch, limit: usize) {
        if self.mismatches.len() < limit {
            self.mismatches.push(mismatch);
        } else {
            self.truncated = true;
        }
    }
}

/// Returns `part / whole`, and zero for an empty whole.
pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// How a validation looks at a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// Numbers of entities per range of ids.
    Count,
    /// All fields of some entities.
    Sample,
    /// All fields of all entities.
    Full,
}

impl CheckKind {
    /// Every kind.
    pub const ALL: [CheckKind; 3] = [CheckKind::Count, CheckKind::Sample, CheckKind::Full];

    /// Returns the word used in JSON and as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckKind::Count => "count",
            CheckKind::Sample => "sample",
            CheckKind::Full => "full",
        }
    }
}

/// What a validation has to say about a type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The cache equals the site.
    #[default]
    Ok,
    /// It does not.
    Drift,
    /// Sync was not healthy enough meanwhile to tell.
    Inconclusive,
}

/// What a step found and did for one entity type; the fields mean what they mean in [`StepResult`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TypeResult {
    /// What the validation has to say.
    pub verdict: Verdict,
    /// Why it has nothing to say, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Entities compared.
    pub checked: u64,
    /// Entities on the site and not in the cache.
    pub missing: u64,
    /// Entities in the cache and not on the site.
    pub extra: u64,
    /// Entities in both that differ.
    pub differs: u64,
    /// Entities, of any type, whose name links of this type show wrongly.
    pub names: u64,
    /// Entities that drifted.
    pub drift: u64,
    /// `drift / checked`.
    pub drift_ratio: f64,
    /// Drifted entities repaired and verified.
    pub repaired: u64,
    /// Drifted entities that still differ after the repair.
    pub unresolved: u64,
    /// Entities left out because they changed meanwhile.
    pub touched: u64,
    /// Entities that changed each time they were looked at.
    pub unverifiable: u64,
    /// Suspects that were gone at the second look.
    pub transient: u64,
    /// Rows written to the store.
    pub written: u64,
    /// Entities on the site; `None` when it was not asked.
    pub site_count: Option<u64>,
    /// Entities in the cache; `None` when they were not counted.
    pub cache_count: Option<u64>,
    /// Upper bound (95 %) of the share of stale entities of this type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_ratio_upper95: Option<f64>,
    /// How long this type took.
    pub duration_seconds: f64,
}

impl TypeResult {
    /// Sets `drift`, `drift_ratio` and, unless it is inconclusive, the verdict from the counts.
    pub fn sum_up(&mut self) {
        self.drift = self.missing + self.extra + self.differs + self.names;
        self.drift_ratio = ratio(self.drift, self.checked);
        if self.verdict != Verdict::Inconclusive {
            self.verdict = if self.drift == 0 { Verdict::Ok } else { Verdict::Drift };
        }
    }
}

/// One difference between the cache and the site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mismatch {
    /// Entity type.
    #[serde(rename = "type")]
    pub entity_type: String,
    /// Entity id.
    pub id: i64,
    /// The field that differs; `None` when the whole entity is missing or extra.
    pub field: Option<String>,
    /// What is different.
    pub kind: MismatchKind,
    /// Why it came to be, as far as it is known.
    pub class: Option<MismatchClass>,
    /// The value in the cache.
    pub cached: Value,
    /// The value on the site.
    pub shotgun: Value,
    /// `updated_at` on the site, as the site writes it.
    pub updated_at: Option<String>,
    /// Display name of `updated_by` on the site.
    pub updated_by: Option<String>,
    /// Read version of the cached row; `None` when there is none.
    pub cache_rv: Option<i64>,
    /// What was done about it.
    pub action: Action,
}

impl Mismatch {
    /// Returns what is noted of an entity that is to be repaired without having been
    /// compared.
    pub fn suspected(key: &EntityRef) -> Mismatch {
        Mismatch {
            entity_type: key.entity_type.to_string(),
            id: key.id,
            field: None,
            kind: MismatchKind::Differs,
            class: None,
            cached: Value::Null,
            shotgun: Value::Null,
            updated_at: None,
            updated_by: None,
            cache_rv: None,
            action: Action::Reported,
        }
    }
}

/// What is different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MismatchKind {
    /// On the site and not in the cache.
    Missing,
    /// In the cache and not on the site.
    Extra,
    /// In both with different values.
    Differs,
    /// Links show it under another name.
    Name,
}

impl MismatchKind {
    /// Returns the word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            MismatchKind::Missing => "missing",
            MismatchKind::Extra => "extra",
            MismatchKind::Differs => "differs",
            MismatchKind::Name => "name",
        }
    }
}

/// Why a difference came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MismatchClass {
    /// `updated_at` moved and no event said so.
    NoEvent,
    /// The value moved and `updated_at` did not.
    Silent,
    /// The event is in the log and was never seen.
    LostEvent,
    /// Only a display name differs.
    Name,
    /// The entity is in one set of the filter and not in the other.
    Membership,
    /// The same value in two forms.
    TypeFormat,
}

impl MismatchClass {
    /// Every class.
    pub const ALL: [MismatchClass; 6] = [
        MismatchClass::NoEvent,
        MismatchClass::Silent,
        MismatchClass::LostEvent,
        MismatchClass::Name,
        MismatchClass::Membership,
        MismatchClass::TypeFormat,
    ];

    /// Returns the word used in JSON and as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            MismatchClass::NoEvent => "no_event",
            MismatchClass::Silent => "silent",
            MismatchClass::LostEvent => "lost_event",
            MismatchClass::Name => "name",
            MismatchClass::Membership => "membership",
            MismatchClass::TypeFormat => "type_format",
        }
    }
}

/// What was done about a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Written down only.
    Reported,
    /// Read again from the site, and verified.
    Repaired,
    /// To be repaired, and still different.
    Unresolved,
    /// Known and accepted.
    Ignored,
}

impl Action {
    /// Returns the word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Reported => "reported",
            Action::Repaired => "repaired",
            Action::Unresolved => "unresolved",
            Action::Ignored => "ignored",
        }
    }
}
