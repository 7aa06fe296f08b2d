//! What the status page shows when one looks closer: outcomes of runs, single mismatches,
//! and what is set apart. Every list is bounded.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::report::{Action, Mismatch, MismatchKind, RunReport, Status};

/// Runs of a pipeline.
pub const MAX_OUTCOMES: usize = 30;
/// Entities with mismatches.
pub const MAX_CARDS: usize = 20;
/// Dead letters.
pub const MAX_DEAD: usize = 20;
/// Characters of a value.
const MAX_VALUE: usize = 120;

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its id.
    pub run_id: String,
    /// How it ended.
    pub status: Status,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// How long it took; `None` where that is not known.
    pub seconds: Option<f64>,
}

impl From<&RunReport> for Outcome {
    fn from(report: &RunReport) -> Self {
        Self {
            run_id: report.run_id.clone(),
            status: report.status,
            started_at: report.started_at,
            seconds: report.finished_at.map(|_| report.duration_seconds()),
        }
    }
}

/// An entity that differed from the site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftCard {
    /// Entity type.
    #[serde(rename = "type")]
    pub entity_type: String,
    /// Entity id.
    pub id: i64,
    /// What is different.
    pub kind: MismatchKind,
    /// The fields that differ; none when the whole entity is missing or extra.
    pub fields: Vec<FieldDifference>,
    /// Why it came to be, as far as it is known.
    pub class: Option<String>,
    /// Who changed it last on the site, as the site says.
    pub updated_by: Option<String>,
    /// What was done about it.
    pub action: Action,
    /// When the run that found it ended.
    pub found_at: DateTime<Utc>,
    /// The run that found it.
    pub run_id: String,
    /// Its pipeline or job.
    pub pipeline: String,
}

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldDifference {
    /// The field.
    pub field: String,
    /// The value in the cache as JSON, cut at 120 characters.
    pub cached: String,
    /// The value on the site, likewise.
    pub site: String,
}

/// Makes the cards of a report that ended at a moment, one per entity.
pub fn drift_cards(report: &RunReport, found_at: DateTime<Utc>) -> Vec<DriftCard> {
    let mut cards: Vec<DriftCard> = Vec::new();
    for mismatch in report.steps.iter().flat_map(|step| &step.result.mismatches) {
        let same = |card: &DriftCard| card.id == mismatch.id && card.entity_type == mismatch.entity_type;
        match cards.iter().position(same) {
            Some(known) => {
                let card = &mut cards[known];
                let is_known = card.fields.iter().any(|known| Some(&known.field) == mismatch.field.as_ref());
                card.fields.extend(difference(mismatch).filter(|_| !is_known));
                // A later step repaired what an earlier one reported.
                card.action = mismatch.action;
            }
            None if cards.len() < MAX_CARDS => cards.push(DriftCard {
                entity_type: mismatch.entity_type.clone(),
                id: mismatch.id,
                kind: mismatch.kind,
                fields: difference(mismatch).into_iter().collect(),
                class: mismatch.class.map(|class| class.as_str().to_owned()),
                updated_by: mismatch.updated_by.clone(),
                action: mismatch.action,
                found_at,
                run_id: report.run_id.clone(),
                pipeline: report.pipeline.clone(),
            }),
            None => {}
        }
    }
    cards
}

fn difference(mismatch: &Mismatch) -> Option<FieldDifference> {
    let cut = |value: &serde_json::Value| value.to_string().chars().take(MAX_VALUE).collect();
    let field = mismatch.field.clone()?;
    Some(FieldDifference { field, cached: cut(&mismatch.cached), site: cut(&mismatch.shotgun) })
}

/// What is set apart so that the rest goes on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SetApart {
    /// Entries and rows that cannot be applied, oldest first.
    pub dead: Vec<DeadLetter>,
    /// Types with keys whose reads fail.
    pub quarantine: Vec<Quarantine>,
    /// Deletions that wait for a person.
    pub breakers: Vec<HeldDeletions>,
}

/// Something that cannot be applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its number, for `sgcache deadLetters`.
    pub serial: i64,
    /// `event`, `row`, `read`, `write` or `stored`.
    pub kind: String,
    /// Entity type.
    #[serde(rename = "type")]
    pub entity_type: String,
    /// Entity id.
    pub id: i64,
    /// What was wrong.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it failed first.
    pub first_at: DateTime<Utc>,
}

/// Keys of a type whose reads fail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Entity type.
    #[serde(rename = "type")]
    pub entity_type: String,
    /// How many.
    pub rows: u64,
}

/// Deletions of a type that wait, because too many entities vanished at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldDeletions {
    /// Entity type.
    #[serde(rename = "type")]
    pub entity_type: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Rows whose deletion waits.
    pub held: u64,
    /// Rows in the cache, those among them.
    pub active: u64,
}
