//! Reads a page of the event log, also around an entry that cannot be read.
//!
//! One entry can make a whole answer unreadable: a text that was cut in the middle of
//! a character, a byte that is not UTF-8, a bare line end. The page is narrowed until
//! that entry stands alone; what comes before it is an ordinary page. Alone it is
//! asked for once more without `meta`, which holds the values that users type, and
//! still names its entity then. Only where that fails, too, is it a dead letter.

use serde_json::{Map, Value};

use super::poll::{ENTRY_FIELDS, FINGERPRINT_FIELDS, in_order, request};
use super::{Replica, Result};
use crate::api3::Read;
use crate::entity::EntityRef;
use crate::shotgun::{Answer, Error, ErrorKind, Purpose};
use crate::state::{DeadKind, NewDead, PollStart};

/// One page of the event log.
pub(super) struct EventPage {
    /// The entries, by id.
    pub(super) entries: Vec<Map<String, Value>>,
    /// Whether there may be more, so that the page proves nothing about the present.
    pub(super) full: bool,
    /// The entry that could not be read; nothing but its id is known.
    pub(super) unreadable: Option<NewDead>,
}

impl Replica {
    /// Reads what a poll asks for.
    ///
    /// # Errors
    ///
    /// When the site fails, or answers nothing that can be read, ids included.
    pub(super) async fn read_event_page(&self, poll: &PollStart) -> Result<EventPage> {
        let (whole, high_water_mark) = (self.client().page_size(), poll.high_water_mark.0);
        // Not above the high-water mark, but from it on, and the known late entry.
        let mut asked = poll.clone();
        asked.gaps.extend(poll.late_entry.as_ref().map(|late| (late.id.0, late.id.0)));
        let first = match self.entries(&request(&asked, high_water_mark - 1, whole, &ENTRY_FIELDS)).await {
            Ok(answer) => return page(answer),
            Err(error) if error.kind() == ErrorKind::Malformed => error,
            Err(error) => return Err(error.into()),
        };
        let mut page = self.page_around_unreadable(poll, first).await?;
        self.add_known_entries(poll, &mut page).await?;
        Ok(page)
    }

    /// Adds the entries by which the history is recognised to a page that was asked for
    /// without them, because one of them may be the unreadable one. Of them nothing is asked
    /// that a user has typed.
    async fn add_known_entries(&self, poll: &PollStart, page: &mut EventPage) -> Result<()> {
        let at_high_water_mark = poll.fingerprint.iter().filter(|known| known.id == poll.high_water_mark);
        let known: Vec<i64> = at_high_water_mark.chain(&poll.late_entry).map(|known| known.id.0).collect();
        if known.is_empty() {
            return Ok(());
        }
        let asked = PollStart { gaps: known.iter().map(|id| (*id, *id)).collect(), ..poll.clone() };
        let size = u32::try_from(known.len()).unwrap_or(u32::MAX);
        let read = request(&asked, poll.high_water_mark.0, size, &FINGERPRINT_FIELDS);
        let is_unread = |id: &i64| poll.gaps.iter().any(|(lo, hi)| (*lo..=*hi).contains(id));
        let rows = self.entries(&read).await?.rows;
        page.entries.extend(
            rows.into_iter().filter(|row| Answer::id(row).is_some_and(|id| known.contains(&id) && !is_unread(&id))),
        );
        page.entries.sort_by_key(Answer::id);
        Ok(())
    }

    /// Reads a smaller page up to an entry that cannot be read, or that entry alone; `first` is
    /// the error of the whole page.
    async fn page_around_unreadable(&self, poll: &PollStart, first: Error) -> Result<EventPage> {
        let (whole, high_water_mark) = (self.client().page_size(), poll.high_water_mark.0);
        // The same question without anything that a user has typed: does it fail, too, it
        // is not an entry that is to blame.
        let Ok(ids) = self.entries(&request(poll, high_water_mark, 1, &["id"])).await else { return Err(first.into()) };
        let mut size = whole;
        loop {
            match self.entries(&request(poll, high_water_mark, size, &ENTRY_FIELDS)).await {
                Ok(answer) if answer.rows.is_empty() && !self.is_at_the_end(poll).await? => return Err(first.into()),
                Ok(answer) => return page(answer),
                Err(error) if error.kind() == ErrorKind::Malformed && size > 1 => size = size.div_ceil(2),
                Err(error) if error.kind() == ErrorKind::Malformed => break,
                Err(error) => return Err(error.into()),
            }
        }
        let Some(id) = ids.last_id() else { return Err(first.into()) };
        self.read_alone(poll, id, &first).await
    }

    /// Tells whether the entry at the high-water mark is the newest one, as one answer shows
    /// it. Answers without entries prove nothing: a site in trouble gives them, too.
    async fn is_at_the_end(&self, poll: &PollStart) -> Result<bool> {
        if poll.fingerprint.as_ref().is_none_or(|known| known.id != poll.high_water_mark) {
            return Ok(true);
        }
        let without_gaps = PollStart { gaps: Vec::new(), ..poll.clone() };
        let newest = self.entries(&request(&without_gaps, poll.high_water_mark.0 - 1, 2, &["id"])).await?;
        let ids: Vec<_> = newest.rows.iter().filter_map(Answer::id).collect();
        Ok(ids == [poll.high_water_mark.0])
    }

    /// Reads the first entry of a poll, which cannot be read whole, without `meta`.
    async fn read_alone(&self, poll: &PollStart, id: i64, error: &Error) -> Result<EventPage> {
        let fields: Vec<&str> = ENTRY_FIELDS.into_iter().filter(|field| *field != "meta").collect();
        match self.entries(&request(poll, poll.high_water_mark.0, 1, &fields)).await {
            Ok(answer) if answer.last_id() == Some(id) => {
                tracing::warn!(event_id = id, %error, "an entry of the event log was read without its `meta`");
                Ok(EventPage { full: true, ..page(answer)? })
            }
            // Another entry has become visible before it: the next poll begins there.
            Ok(answer) => page(answer),
            Err(again) if again.kind() == ErrorKind::Malformed => {
                tracing::error!(event_id = id, %error, "an entry of the event log cannot be read");
                let unreadable = NewDead {
                    kind: DeadKind::Event,
                    key: EntityRef::new("EventLogEntry", id),
                    payload: String::new(),
                    error: format!("the entry cannot be read: {}", again.detail()),
                };
                Ok(EventPage { entries: Vec::new(), full: true, unreadable: Some(unreadable) })
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn entries(&self, read: &Read) -> Result<Answer, Error> {
        Ok(self.heard(self.client().read(read, Purpose::EventPoll).await?))
    }
}

fn page(answer: Answer) -> Result<EventPage> {
    let full = answer.has_next_page;
    Ok(EventPage { entries: in_order(answer, full)?, full, unreadable: None })
}
