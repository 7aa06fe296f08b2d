//! Values of the state that cannot be read: each is logged with its place and counted,
//! and what follows from it is the careful choice of the reader, never an empty value.
//!
//! The counts belong to the process, not to a handle: rows are parsed where only a
//! connection is at hand. They are shown as `sgcache_state_unreadable_values`.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};

/// What could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// What events announced about a dirty key: the row is read twice, without it.
    Expected,
    /// What is known of an entity type: the type is imported again.
    Type,
    /// The report of a run: the run is left out of the history.
    Run,
    /// The plan of the scheduler: it is planned anew.
    Plan,
    /// The proof of a credential: it is verified anew.
    Credential,
    /// Where work that goes round stands: it begins a new round.
    Cursor,
}

static COUNTS: [AtomicU64; Unreadable::ALL.len()] = [const { AtomicU64::new(0) }; Unreadable::ALL.len()];

impl Unreadable {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Expected, Self::Type, Self::Run, Self::Plan, Self::Credential, Self::Cursor];

    /// Returns its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::Type => "type",
            Self::Run => "run",
            Self::Plan => "plan",
            Self::Credential => "credential",
            Self::Cursor => "cursor",
        }
    }

    /// Logs and counts one value; `place` names its row, `error` quotes nothing of it.
    pub fn note(self, place: impl Display, error: impl Display) {
        COUNTS[self as usize].fetch_add(1, Ordering::Relaxed);
        tracing::warn!(kind = self.as_str(), %place, %error, "a stored value cannot be read");
    }

    /// Returns how many this process has met so far.
    pub fn count(self) -> u64 {
        COUNTS[self as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{Fixture, fixture};
    use super::super::{DirtyReasons, KeptValues, NewDirtyKey, Result, SiteTime, StateError, TypeState};
    use super::Unreadable;
    use crate::entity::{EntityRef, EntityType};

    impl Fixture {
        async fn damage(&self, sql: &'static str) {
            let changed: Result<()> = self.state.write(|transaction| Ok(transaction.execute_batch(sql)?)).await;
            changed.expect("the damage");
        }
    }

    #[tokio::test]
    async fn a_dirty_key_whose_expectation_is_unreadable_is_read_twice() {
        let test = fixture().await;
        let request = NewDirtyKey::new(EntityRef::new("Shot", 7), DirtyReasons::CHANGE);
        test.state.mark(std::slice::from_ref(&request), SiteTime(0)).await.expect("a mark");
        test.damage("UPDATE marks SET expected = '{\"fields\": 5}'").await;
        let before = Unreadable::Expected.count();
        let due = test.state.due_marks(SiteTime(0), 10).await.expect("the marks");
        assert_eq!(due[0].expected.read_again_after, Some(60), "one read is no proof");
        assert!(Unreadable::Expected.count() > before);

        let mut again = request;
        again.expected.note_edit(5);
        again.delay = Duration::ZERO;
        test.state.mark(&[again], SiteTime(0)).await.expect("a mark");
        let expected = &test.state.due_marks(SiteTime(0), 10).await.expect("the marks")[0].expected;
        assert_eq!((expected.read_again_after, expected.newest_edit), (Some(60), Some((5, 1))));
    }

    #[tokio::test]
    async fn a_type_that_is_unreadable_is_not_relied_on_and_holds_up_no_other() {
        let test = fixture().await;
        test.damage(
            "INSERT INTO types (type, state, layout_hash, import) VALUES
                ('Asset', 'live', 'a', NULL), ('Shot', 'lvie', 'a', NULL), ('Task', 'importing', 'a', '{')",
        )
        .await;
        let before = Unreadable::Type.count();
        let states: Vec<_> = test.state.types().await.expect("the types").into_iter().map(|one| one.state).collect();
        assert_eq!(states, [TypeState::Live, TypeState::Absent, TypeState::Absent]);
        assert!(Unreadable::Type.count() >= before + 2);
        let task = test.state.type_record(&EntityType::new("Task")).await.expect("a type").expect("a record");
        assert_eq!((task.state, task.import), (TypeState::Absent, None));
    }

    #[tokio::test]
    async fn a_value_that_is_unreadable_when_it_is_changed_is_set_apart_as_it_is() {
        let test = fixture().await;
        test.state.keep("ledger", &5_i64).await.expect("a value");
        test.damage("UPDATE kept SET value = 'five' WHERE name = 'ledger'").await;
        let before = Unreadable::Cursor.count();
        let add = |kept: &KeptValues<'_>| kept.update("ledger", |value: &mut i64| *value += 2);
        test.state.update_kept(add).await.expect("a change");
        assert!(Unreadable::Cursor.count() > before);
        assert_eq!(test.state.kept::<i64>("ledger").await.expect("a value"), Some(2));
        let sql = "SELECT value FROM kept WHERE name = 'unreadable/ledger'";
        let apart: Result<String> = test.state.write(|rows| Ok(rows.query_row(sql, [], |row| row.get(0))?)).await;
        assert_eq!(apart.expect("a row"), "five");
    }

    #[tokio::test]
    async fn a_cursor_that_is_unreadable_begins_anew_and_any_other_value_is_an_error_with_its_name() {
        let test = fixture().await;
        test.state.keep("place", &("Shot", 5)).await.expect("a value");
        test.damage("UPDATE kept SET value = '[\"Shot\"' WHERE name = 'place'").await;
        let before = Unreadable::Cursor.count();
        assert_eq!(test.state.cursor::<(String, i64)>("place").await.expect("no error"), None);
        assert!(Unreadable::Cursor.count() > before);
        let error = test.state.kept::<(String, i64)>("place").await.expect_err("an error");
        assert!(matches!(&error, StateError::Malformed { message, .. } if message.contains("`place`")), "{error}");
    }

    #[tokio::test]
    async fn what_cannot_be_understood_is_an_error_and_nothing_else() {
        let test = fixture().await;
        test.damage(
            "INSERT INTO dead VALUES (1, 'odd', 'Shot', 7, '', '', 1, 0, 0, 0);
            INSERT INTO rowmeta VALUES ('Shot', 7, 1, 9, NULL, zeroblob(16), 0, NULL, 0)",
        )
        .await;
        let error = test.state.dead(10).await.expect_err("an error").to_string();
        assert!(error.contains("`odd` is not the kind of a dead letter"), "{error}");
        assert!(test.state.rows(&EntityType::new("Shot"), &[7]).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_gone_or_another_one_is_missed() {
        let test = fixture().await;
        assert_eq!(test.state.lost_file().await, None);
        let (path, aside) = (test.state.directory().join("state.sqlite"), test.state.directory().join("aside"));
        std::fs::rename(&path, &aside).expect("it is moved");
        assert!(test.state.lost_file().await.expect("it is gone").contains("restart sgcache"));
        std::fs::write(&path, "").expect("another file");
        assert!(test.state.lost_file().await.is_some());
        std::fs::rename(&aside, &path).expect("it is back");
        assert_eq!(test.state.lost_file().await, None);
    }

    #[tokio::test]
    async fn a_damaged_file_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("state.sqlite"), "no database".repeat(1000)).expect("a file");
        let error = super::super::State::open(directory.path()).await.expect_err("it is damaged").to_string();
        assert!(error.contains("state.sqlite") && error.contains("imported anew"), "{error}");
    }
}
