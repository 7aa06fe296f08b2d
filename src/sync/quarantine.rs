//! Keys that cannot be read: they are set apart, and what links to them is followed.
//!
//! Nothing waits for a key in quarantine, and the rows that link to it can be read. What the
//! events of the key say of links to it is all that is known, so those rows are asked for.

use super::{Replica, Result};
use crate::shotgun::{self, Purpose};
use crate::state::{DeadKind, DirtyKey, DirtyReasons, Finish};
use crate::store::{LinkTarget, ReadVersion, RowState};

impl Replica {
    /// Quarantines a key that makes every read of it fail.
    pub(super) async fn quarantine_key(&self, mark: &DirtyKey, error: &shotgun::Error) -> Result<()> {
        tracing::warn!(key = %mark.key, %error, "a key cannot be read and is quarantined");
        let token = self.begin_read(&mark.key.entity_type).await?;
        let mut finish = Finish::new((*token).clone(), self.now());
        let reason = error.detail().to_owned();
        finish.quarantine(mark.key.clone(), DeadKind::Read, String::new(), reason, mark.attempts);
        if let Err(error) = self.follow_quarantined(mark, &mut finish).await {
            self.state().abandon(&finish.token).await?;
            return Err(error);
        }
        self.finish(finish).await?;
        self.step("fetch: quarantined")
    }

    /// Follows what the events of a quarantined key say of links to it.
    pub(super) async fn follow_quarantined(&self, mark: &DirtyKey, finish: &mut Finish) -> Result<()> {
        if mark.was_revived() {
            let (key, rv) = (mark.key.clone(), ReadVersion(finish.token.rv));
            self.store().relink(&LinkTarget { key, name: None, state: RowState::Active, rv }).await?;
            self.mark_revived_links(&[(mark.key.clone(), Some(mark.since))], Purpose::Fetch, finish).await?;
        }
        if mark.was_retired() {
            // The store goes on showing the links until the rows are read, because no read
            // has shown the retirement: freshness waits for them as for the retirement itself.
            self.mark_referrers(&mark.key, Some(mark.since), DirtyReasons::CHANGE, finish).await?;
        }
        Ok(())
    }
}
