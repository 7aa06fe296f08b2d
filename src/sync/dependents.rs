//! Rows whose derived fields follow from other entities.
//!
//! Closing a note empties `open_notes` of what it is about, without an event there and
//! without a new `updated_at`. So a change of a note marks both ends: the rows that show
//! the note, as the store knows them, and those that it links to now, as the site says.

use std::collections::BTreeSet;

use super::write::REFERRERS_LIMIT;
use super::{Replica, Result};
use crate::entity::{EntityRef, EntityType};
use crate::filter::{Only, RawFilter};
use crate::schema::Dependency;
use crate::shotgun::{Answer, ErrorKind, Purpose};
use crate::state::{DirtyReasons, Finish, NewDirtyKey};
use crate::store::StoreErrorKind;

impl Replica {
    /// Marks the rows with a derived field that follows from these entities, all of
    /// one type.
    pub(super) async fn mark_dependents(
        &self,
        entity_type: &EntityType,
        ids: &[i64],
        finish: &mut Finish,
    ) -> Result<()> {
        let tracked = self.tracked();
        for dependency in tracked.dependencies_on(entity_type).filter(|_| !ids.is_empty()) {
            let mut rows = self.linked_rows(dependency, entity_type, ids).await?;
            for id in ids {
                rows.extend(self.showing_rows(&EntityRef::new(entity_type.clone(), *id), finish).await?);
            }
            rows.retain(|key| tracked.shows(&key.entity_type, dependency));
            finish.marks.extend(rows.into_iter().map(|key| NewDirtyKey::new(key, DirtyReasons::INVERSE)));
        }
        Ok(())
    }

    /// Asks the site which rows the entities link to, also the retired ones.
    async fn linked_rows(
        &self,
        dependency: &Dependency,
        entity_type: &EntityType,
        ids: &[i64],
    ) -> Result<BTreeSet<EntityRef>> {
        let mut rows = BTreeSet::new();
        for chunk in ids.chunks(self.client().page_size() as usize) {
            for only in [Only::Active, Only::Retired] {
                let (everything, fields) = (RawFilter::everything(), vec![dependency.link.to_owned()]);
                let read = self.client().read_ids(entity_type, chunk, &everything, fields, only, Purpose::Fetch);
                let answer: Answer = match read.await {
                    Ok(answer) => self.heard(answer),
                    // A type that the script may not read: only the store knows who shows it.
                    Err(error) if matches!(error.kind(), ErrorKind::Fault | ErrorKind::Rejected) => {
                        tracing::debug!(%entity_type, %error, "links of derived fields cannot be read");
                        return Ok(rows);
                    }
                    Err(error) => return Err(error.into()),
                };
                let links = answer.rows.iter().filter_map(|row| row.get(dependency.link)?.as_array());
                rows.extend(links.flatten().filter_map(EntityRef::from_json));
            }
        }
        Ok(rows)
    }

    /// Returns the rows of the store that show an entity; of very many their types are
    /// compared as a whole.
    async fn showing_rows(&self, entity: &EntityRef, finish: &mut Finish) -> Result<Vec<EntityRef>> {
        let found = match self.store().referrers(entity, REFERRERS_LIMIT).await {
            Ok(found) => found,
            Err(error) if error.kind() == StoreErrorKind::Unsupported => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        if found.more {
            let tracked = self.tracked();
            let holders = tracked.layouts().map(|layout| layout.entity_type.clone());
            let holders = holders.filter(|holder| tracked.may_link(holder, &entity.entity_type));
            finish.sweeps.extend(holders.map(|holder| (holder, None)));
        }
        Ok(found.keys)
    }
}
