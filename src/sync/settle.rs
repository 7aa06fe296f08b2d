//! Second looks at rows that may have been read too early.
//!
//! A site may show an event before the row that it is about, from a replica or
//! in the middle of a creation. What was created or revived is read once more;
//! so is a row that does not show what its events announced.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::entity::canonical_json;
use crate::entity_config::TypeLayout;
use crate::state::{Kinds, Mark, MarkRequest, RowState};

const FIRST_LOOK: Duration = Duration::from_secs(5);
const LAST_LOOK: Duration = Duration::from_secs(30);

/// What to do after the read of a marked key.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Settle {
    /// Nothing.
    Settled,
    /// Read it again later.
    Again(Box<MarkRequest>),
    /// It was read again and never showed what was announced.
    GivenUp,
}

/// Decides by what the read showed.
pub(super) fn settle(layout: &TypeLayout, mark: &Mark, state: RowState, row: Option<&Map<String, Value>>) -> Settle {
    let agrees = shows(layout, mark, row) && !(mark.kinds.any(Kinds::SETTLE) && state == RowState::Absent);
    let announced = mark.kinds.any(Kinds::NEW | Kinds::REVIVE);
    let again = |kinds, delay| {
        let expected = mark.expected.clone();
        let request = MarkRequest { delay, expected, ..MarkRequest::new(mark.key.clone(), kinds) };
        Settle::Again(Box::new(request))
    };
    if announced || !agrees && !mark.kinds.any(Kinds::SETTLE) {
        return again(Kinds::SETTLE, FIRST_LOOK);
    }
    if agrees {
        return Settle::Settled;
    }
    if mark.kinds.any(Kinds::LAST) {
        // An entity that nobody ever sees is no contradiction.
        return if state == RowState::Absent { Settle::Settled } else { Settle::GivenUp };
    }
    again(Kinds::SETTLE | Kinds::LAST, LAST_LOOK)
}

fn shows(layout: &TypeLayout, mark: &Mark, row: Option<&Map<String, Value>>) -> bool {
    let Some(row) = row else {
        return true;
    };
    mark.expected.iter().all(|(name, (_, announced))| {
        let Some(field) = layout.field(name) else {
            return true;
        };
        let value = row.get(name).unwrap_or(&Value::Null);
        canonical_json(field.data_type, value) == canonical_json(field.data_type, announced)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::{DataType, EntityRef, EventId};
    use crate::entity_config::LayoutField;
    use crate::filter::{Filter, RawFilter};
    use crate::state::SiteTime;
    use serde_json::json;

    fn check(kinds: Kinds, expected: Value, state: RowState, code: &str) -> String {
        let field =
            LayoutField { name: "code".into(), data_type: DataType::Text, valid_types: Vec::new(), mapping: None };
        let layout = TypeLayout {
            entity_type: "Shot".into(),
            fields: [field].into(),
            filter: Filter::everything(),
            raw_filter: RawFilter::everything(),
            hash: String::new(),
        };
        let mark = Mark {
            key: EntityRef::new("Shot", 1),
            generation: 1,
            kinds,
            since: SiteTime(0),
            last_event: None,
            event_created: None,
            events: 1,
            expected: [("code".to_owned(), (EventId(1), expected))].into(),
            attempts: 0,
            due_at: SiteTime(0),
        };
        let row = json!({"code": code});
        let row = row.as_object().filter(|_| state != RowState::Absent);
        match settle(&layout, &mark, state, row) {
            Settle::Settled => "settled".into(),
            Settle::GivenUp => "given up".into(),
            Settle::Again(again) => format!("again in {}s", again.delay.as_secs()),
        }
    }

    #[test]
    fn a_row_that_shows_what_was_announced_is_settled() {
        assert_eq!(check(Kinds::CHANGE, json!("a"), RowState::Active, "a"), "settled");
    }

    #[test]
    fn a_row_that_does_not_is_read_twice_more() {
        assert_eq!(check(Kinds::CHANGE, json!("b"), RowState::Active, "a"), "again in 5s");
        assert_eq!(check(Kinds::SETTLE, json!("b"), RowState::Active, "a"), "again in 30s");
        assert_eq!(check(Kinds::SETTLE | Kinds::LAST, json!("b"), RowState::Active, "a"), "given up");
    }

    #[test]
    fn what_was_created_is_read_once_more_in_any_case() {
        assert_eq!(check(Kinds::NEW, json!("a"), RowState::Active, "a"), "again in 5s");
        assert_eq!(check(Kinds::SETTLE, json!("a"), RowState::Active, "a"), "settled");
    }

    #[test]
    fn an_entity_that_no_read_returns_ends_after_the_last_look() {
        assert_eq!(check(Kinds::NEW, json!("a"), RowState::Absent, ""), "again in 5s");
        assert_eq!(check(Kinds::SETTLE, json!("a"), RowState::Absent, ""), "again in 30s");
        assert_eq!(check(Kinds::SETTLE | Kinds::LAST, json!("a"), RowState::Absent, ""), "settled");
    }
}
