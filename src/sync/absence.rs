//! Decides when an entity that no list shows is believed to be gone.
//!
//! A site answers an empty list under faults, while it hides projects, and before a
//! replica of it has caught up. A row that was there before is therefore given up only
//! after three reads, each after a later poll, and only on the word of answers that
//! showed another row of the type: a sign that they are no empty answers. An event
//! that says that the entity was retired, or an earlier comparison, stands for the
//! first reads. A row that is found in the list of retired ones needs none of it.
//!
//! A key of which nothing is known, as after the state was lost, hides links once it is
//! taken for absent. It takes two such reads; or one where events announced something of
//! it, because `recheck` reads it again for what they announced.

use std::collections::BTreeMap;
use std::time::Duration;

use super::write::Said;
use super::{Replica, Result, SyncError};
use crate::api3::RowText;
use crate::entity::RowState;
use crate::entity_config::TypeLayout;
use crate::filter::Only;
use crate::shotgun::{Answer, Purpose};
use crate::state::{DirtyKey, DirtyReasons, RowMeta, SuspectedAbsence};

/// Reads that must not find a row before it is believed to be gone.
const READS: u32 = 3;
/// The same for a key of which nothing is known: nothing vanishes with it.
const READS_OF_UNKNOWN: u32 = 2;
/// The pause after the first read that did not find a row: most faults are short.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The pause after each later one: longer than a change of rights or a failover lasts
/// as a rule.
const LATER_PAUSE: Duration = Duration::from_secs(30);
/// Known rows beside, at the end and at the beginning of the type that are asked for
/// as a sign that an answer is whole.
const CONTROLS: usize = 2;

/// What one read found of the keys that it asked for.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What the site says, by id.
    pub(super) said: BTreeMap<i64, Said>,
    /// Whether the answers that lack rows showed others.
    pub(super) whole: bool,
}

impl Findings {
    /// Makes the findings of a read that met rows and looked for none.
    pub(super) fn of_rows(said: impl IntoIterator<Item = (i64, Said)>) -> Self {
        Self { said: said.into_iter().collect(), whole: true }
    }

    fn shows(&self, state: RowState) -> bool {
        self.said.values().any(|said| matches!(said, Said::Row(found, _) if *found == state))
    }
}

/// What is to be done about a row that a read did not find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is gone, or the filter of the entity config leaves it out.
    Believed,
    /// It is read again after this time; until then it stays.
    Suspected(Duration),
}

/// What speaks for the absence of a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    /// Whether the answers that lack it showed other rows.
    pub(super) whole: bool,
    /// Whether it exists and only the filter leaves it out.
    pub(super) filtered: bool,
    /// Whether nothing is known of it.
    pub(super) unknown: bool,
    /// Whether events announced something that a later read must show.
    pub(super) announced: bool,
    /// Whether an event says that it was retired, and none that it was revived.
    pub(super) retired_by_event: bool,
    /// Whether a comparison found it missing before.
    pub(super) compared: bool,
    /// What earlier reads found.
    pub(super) before: Option<SuspectedAbsence>,
}

/// Decides by what speaks for the absence.
pub(super) fn judge(evidence: &Evidence) -> Verdict {
    if evidence.before.is_some_and(|before| before.confirmed) {
        return Verdict::Believed;
    }
    let before = evidence.before.map_or(0, |before| before.reads);
    // Reads between two polls count as one.
    let reads = before + u32::from(evidence.before.is_none_or(|before| before.poll_since));
    let enough = match evidence.unknown {
        true => evidence.announced || reads >= READS_OF_UNKNOWN,
        false => reads >= READS,
    };
    let proven = evidence.filtered || evidence.retired_by_event || evidence.compared || enough;
    match evidence.whole && proven {
        true => Verdict::Believed,
        false if reads <= 1 => Verdict::Suspected(FIRST_PAUSE),
        false => Verdict::Suspected(LATER_PAUSE),
    }
}

/// Tells whether the events that led to a read, or to the read before it, say that the
/// entity was retired.
pub(super) fn is_retired_by_event(mark: Option<&DirtyKey>) -> bool {
    mark.is_some_and(|mark| {
        let retired = mark.kinds.any(DirtyReasons::RETIRE) && !mark.kinds.any(DirtyReasons::REVIVE | DirtyReasons::NEW);
        retired || mark.expected.active() == Some(false)
    })
}

impl Replica {
    /// Reads keys, and looks a second time for those that the answers lack, together with
    /// rows that should be there.
    pub(super) async fn read_surely(&self, layout: &TypeLayout, ids: &[i64], purpose: Purpose) -> Result<Findings> {
        let said = self.read_keys(layout, ids, purpose).await?;
        let mut findings = Findings { said, whole: true };
        let known = self.state().rows(&layout.entity_type, ids).await?;
        // The filter may have been answered without the rows that it shows.
        let filtered = |said: &Said| matches!(said, Said::Filtered(RowState::Active, _));
        let doubt = |(id, said): &(&i64, &Said)| is_doubtful(said, known.get(id)) || filtered(said);
        let doubtful: Vec<i64> = findings.said.iter().filter(doubt).map(|(id, _)| *id).collect();
        if doubtful.is_empty() {
            return Ok(findings);
        }
        for (only, state) in [(Only::Active, RowState::Active), (Only::Retired, RowState::Retired)] {
            if !findings.shows(state) {
                let whole = self.look_again(layout, (only, state), &doubtful, &mut findings, purpose).await?;
                findings.whole &= whole;
            }
        }
        let new = |(id, said): (&i64, &Said)| filtered(said) && !is_doubtful(said, known.get(id));
        if !findings.whole && findings.said.iter().any(new) {
            // Of a known row absence is judged by several reads; of a new one this is the only one.
            return Err(SyncError::Unconfirmed(layout.entity_type.clone()));
        }
        Ok(findings)
    }

    /// Asks a list that showed none of the keys for them once more, with known rows
    /// of it; tells whether its answer can be believed.
    async fn look_again(
        &self,
        layout: &TypeLayout,
        (only, state): (Only, RowState),
        doubtful: &[i64],
        findings: &mut Findings,
        purpose: Purpose,
    ) -> Result<bool> {
        let entity_type = &layout.entity_type;
        let asked = findings.said.keys().copied().collect();
        let controls = self.state().neighbours(entity_type, state, asked, CONTROLS).await?;
        if controls.is_empty() {
            // Nothing that should be there: then the site has to count nothing.
            return match state {
                RowState::Active => {
                    let count = self.count_rows(entity_type, layout.raw_filter.clone(), purpose).await?;
                    Ok(count.is_none_or(|count| count == 0))
                }
                _ => Ok(true),
            };
        }
        let room = (self.client().page_size() as usize).saturating_sub(controls.len()).max(1);
        let mut whole = true;
        for doubtful in doubtful.chunks(room) {
            let wanted: Vec<i64> = doubtful.iter().chain(&controls).copied().collect();
            let answer: Answer<RowText> = self
                .client()
                .read_ids(entity_type, &wanted, &layout.raw_filter, layout.field_names(), only, purpose)
                .await?;
            let rows = self.heard(answer).rows;
            whole &= !rows.is_empty();
            for row in rows.into_iter().filter(|row| doubtful.contains(&row.id)) {
                findings.said.insert(row.id, Said::Row(state, row.text));
            }
        }
        Ok(whole)
    }
}

/// Tells whether a known row would vanish by what a read says of it, or links to a key of
/// which no read has shown that it is absent would be hidden.
pub(super) fn is_doubtful(said: &Said, known: Option<&RowMeta>) -> bool {
    let state = known.map(|meta| meta.state);
    match said {
        Said::Row(..) => false,
        Said::Filtered(..) => state == Some(RowState::Active),
        Said::Absent => state != Some(RowState::Absent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(reads: u32, poll_since: bool) -> Evidence {
        let before = SuspectedAbsence { reads, poll_since, confirmed: false };
        Evidence { whole: true, before: Some(before), ..Evidence::default() }
    }

    fn check(evidence: &Evidence) -> &'static str {
        match judge(evidence) {
            Verdict::Believed => "believed",
            Verdict::Suspected(FIRST_PAUSE) => "again soon",
            Verdict::Suspected(_) => "again later",
        }
    }

    #[test]
    fn a_row_is_gone_after_three_reads_with_polls_between_them() {
        assert_eq!(check(&Evidence { whole: true, ..Evidence::default() }), "again soon");
        assert_eq!(check(&after(1, false)), "again soon");
        assert_eq!(check(&after(1, true)), "again later");
        assert_eq!(check(&after(2, false)), "again later");
        assert_eq!(check(&after(2, true)), "believed");
    }

    #[test]
    fn an_answer_that_shows_no_other_row_proves_nothing() {
        assert_eq!(check(&Evidence { whole: false, ..after(9, true) }), "again later");
        let retired = Evidence { retired_by_event: true, ..Evidence::default() };
        assert_eq!(check(&retired), "again soon");
        assert_eq!(check(&Evidence { filtered: true, ..Evidence::default() }), "again soon");
    }

    #[test]
    fn a_key_of_which_nothing_is_known_is_absent_after_two_reads_or_as_events_announced_it() {
        let unknown = |evidence: Evidence| check(&Evidence { unknown: true, ..evidence });
        let whole = Evidence { whole: true, ..Evidence::default() };
        assert_eq!(unknown(whole), "again soon");
        assert_eq!(unknown(after(1, false)), "again soon");
        assert_eq!(unknown(after(1, true)), "believed");
        assert_eq!(unknown(Evidence { announced: true, ..whole }), "believed");
        assert_eq!(unknown(Evidence { announced: true, ..Evidence::default() }), "again soon");
        assert_eq!(unknown(Evidence { whole: false, ..after(9, true) }), "again later");
    }

    #[test]
    fn an_event_a_comparison_the_filter_or_an_operator_stands_for_earlier_reads() {
        let whole = Evidence { whole: true, ..Evidence::default() };
        assert_eq!(check(&Evidence { retired_by_event: true, ..whole }), "believed");
        assert_eq!(check(&Evidence { compared: true, ..whole }), "believed");
        assert_eq!(check(&Evidence { filtered: true, ..whole }), "believed");
        let confirmed = SuspectedAbsence { reads: 0, poll_since: false, confirmed: true };
        assert_eq!(check(&Evidence { before: Some(confirmed), ..Evidence::default() }), "believed");
    }
}
