//! Names of entities whose type is not cached, but which rows link to.
//!
//! Their name and state are read like a row and go into the links to them; no
//! row is kept.

use std::collections::{BTreeMap, BTreeSet};

use super::fetch::REFUSED_FOR;
use super::recheck::Shown;
use super::{Replica, Result, SyncError};
use crate::api3::Read;
use crate::entity::{DataType, EntityRef, EntityType};
use crate::entity_config::{LayoutField, TypeLayout};
use crate::filter::{Only, RawFilter, RawLeaf};
use crate::schema::display_name_field;
use crate::shotgun::{Answer, ErrorKind, Purpose};
use crate::state::{AsOf, DirtyKey, DirtyReasons, Finish, NewDirtyKey, ReadToken};
use crate::store::{LinkTarget, ReadVersion, RowState, display_name};

impl Replica {
    /// Reads the names of marked keys of a type that is not cached; returns how many were read.
    pub(super) async fn fetch_names(&self, entity_type: &EntityType, marks: &[DirtyKey]) -> Result<usize> {
        let token = self.begin_read(entity_type).await?;
        let ids: Vec<i64> = marks.iter().map(|mark| mark.key.id).collect();
        let mut finish = Finish { seen: ids.clone(), ..Finish::new((*token).clone(), self.now()) };
        let targets = match self.read_names(entity_type, &ids, ReadVersion(token.rv)).await {
            Ok(targets) => targets,
            Err(SyncError::Site(error)) if matches!(error.kind(), ErrorKind::Fault | ErrorKind::Rejected) => {
                // One refusal may be that of a site in trouble: the names would stay old.
                if marks.iter().any(|mark| mark.attempts == 0) || self.refuses_every_read().await {
                    self.state().abandon(&token).await?;
                    self.put_off(marks, REFUSED_FOR).await?;
                    return Ok(0);
                }
                // A type that cannot be read: links keep the names they came with.
                tracing::debug!(%entity_type, %error, "names cannot be read");
                self.finish(finish).await?;
                return Ok(ids.len());
            }
            Err(error) => {
                self.state().abandon(&token).await?;
                return Err(error);
            }
        };
        self.compare_names(&token, &targets, &mut finish).await?;
        let mut revived_targets = Vec::new();
        for target in &targets {
            self.store().relink(target).await?;
            let revived = |mark: &&DirtyKey| mark.key == target.key && mark.was_revived();
            if target.state.is_dead() {
                let since = marks.iter().find(|mark| mark.key == target.key).map(|mark| mark.since);
                self.mark_referrers(&target.key, since, DirtyReasons::INVERSE, &mut finish).await?;
            } else if marks.iter().any(|mark| revived(&mark)) {
                let since = marks.iter().find(|mark| mark.key == target.key).map(|mark| mark.since);
                revived_targets.push((target.key.clone(), since));
            }
        }
        self.mark_revived_links(&revived_targets, Purpose::Fetch, &mut finish).await?;
        self.mark_dependents(entity_type, &ids, &mut finish).await?;
        self.step("names: linked")?;
        self.finish(finish).await?;
        Ok(ids.len())
    }

    /// Tells whether the site refuses also a read of a followed type that can return nothing.
    async fn refuses_every_read(&self) -> bool {
        let Some(followed) = self.tracked().layouts().next().map(|layout| layout.entity_type.clone()) else {
            return false;
        };
        let (everything, client) = (RawFilter::everything(), self.client());
        let control: Result<Answer, _> =
            client.read_ids(&followed, &[0], &everything, Vec::new(), Only::Active, Purpose::Fetch).await;
        control.is_err()
    }

    /// Compares names with what the entries about them announced; those that may be
    /// older are read again.
    async fn compare_names(&self, token: &ReadToken, targets: &[LinkTarget], finish: &mut Finish) -> Result<()> {
        let mut marks = self.state().marks_of(&token.entity_type, &finish.seen).await?;
        marks.retain(|mark| mark.generation <= token.generation && !mark.expected.fields.is_empty());
        for mark in &marks {
            let target = targets.iter().find(|target| target.key == mark.key);
            let name = |target: &LinkTarget| serde_json::json!(target.name);
            let fields = [display_name_field(&token.entity_type), "cached_display_name"];
            let row = target.map(|target| fields.map(|field| (field.to_owned(), name(target))).into_iter().collect());
            let state = target.map_or(RowState::Absent, |target| target.state);
            let shown = Shown { state, row: row.as_ref(), updated_at: None, before: None, now: self.now() };
            let proof = shown.prove(&mark.expected, &|_| Some(DataType::Text), &BTreeSet::new());
            self.unprovable().learn(&token.entity_type, &proof);
            finish.marks.extend(self.unprovable().reread(&mark.key, Some(mark), &mark.expected, proof));
        }
        Ok(())
    }

    /// Marks the rows, active or retired, that the site shows with a link to any of
    /// these entities, which were revived, each with the `since` of its mark. Rows that were read while they were
    /// retired do not have the link, so the store cannot name them.
    pub(super) async fn mark_revived_links(
        &self,
        targets: &[(EntityRef, Option<AsOf>)],
        purpose: Purpose,
        finish: &mut Finish,
    ) -> Result<()> {
        let tracked = self.tracked();
        let mut reads = Vec::new();
        for layout in tracked.layouts() {
            let linking = |(target, _): &&(EntityRef, _)| tracked.may_link(&layout.entity_type, &target.entity_type);
            let linked: Vec<_> = targets.iter().filter(linking).map(|(target, _)| target).collect();
            if linked.is_empty() {
                continue;
            }
            let since = targets.iter().filter(linking).filter_map(|(_, since)| *since).reduce(AsOf::min);
            for only in [Only::Active, Only::Retired] {
                let read = Read::new(layout.entity_type.clone(), links_to(layout, &linked), self.client().page_size());
                reads.push(self.rows_found(Read { only, ..read }, since, purpose));
            }
        }
        // Side by side: every read of the revived type waits for the slowest of them.
        finish.marks.extend(futures::future::try_join_all(reads).await?.into_iter().flatten());
        Ok(())
    }

    /// Reads the ids that fit, all pages of them.
    async fn rows_found(&self, read: Read, since: Option<AsOf>, purpose: Purpose) -> Result<Vec<NewDirtyKey>> {
        let (mut marks, mut last_id) = (Vec::new(), 0);
        loop {
            let page: Answer = self.page_after(&read, last_id, purpose).await?;
            let keys = page.rows.iter().filter_map(Answer::id).map(|id| EntityRef::new(read.entity_type.clone(), id));
            marks.extend(keys.map(|key| NewDirtyKey { since, ..NewDirtyKey::new(key, DirtyReasons::CHANGE) }));
            match page.last_id() {
                Some(last) if page.has_next_page => last_id = last,
                _ => return Ok(marks),
            }
        }
    }

    /// Reads the names of entities again and brings them into every link to them,
    /// those of cached types after their rows. Returns the entities whose name is
    /// now the one that the site shows.
    ///
    /// # Errors
    ///
    /// When the site or the store gives no answer; some may be done.
    pub async fn refresh_names(&self, targets: &[EntityRef]) -> Result<Vec<EntityRef>> {
        let tracked = self.tracked();
        let cached: Vec<EntityRef> =
            targets.iter().filter(|target| tracked.follows(&target.entity_type)).cloned().collect();
        self.refetch(&cached).await?;
        let mut by_type: BTreeMap<&EntityType, Vec<i64>> = BTreeMap::new();
        for target in targets {
            by_type.entry(&target.entity_type).or_default().push(target.id);
        }
        let mut done = Vec::new();
        for (entity_type, ids) in by_type {
            for chunk in ids.chunks(self.client().page_size() as usize) {
                let token = self.begin_read(entity_type).await?;
                let read = self.read_names(entity_type, chunk, ReadVersion(token.rv)).await;
                self.state().abandon(&token).await?;
                for target in read? {
                    if !self.store().relink(&target).await?.stale {
                        done.push(target.key);
                    }
                }
            }
        }
        Ok(done)
    }

    async fn read_names(&self, entity_type: &EntityType, ids: &[i64], rv: ReadVersion) -> Result<Vec<LinkTarget>> {
        let fields = vec![display_name_field(entity_type).to_owned(), "cached_display_name".to_owned()];
        let everything = RawFilter::everything();
        let mut targets: Vec<LinkTarget> = Vec::new();
        for (only, state) in [(Only::Active, RowState::Active), (Only::Retired, RowState::Retired)] {
            let known = |id: &i64| targets.iter().any(|target| target.key.id == *id);
            let missing: Vec<i64> = ids.iter().copied().filter(|id| !known(id)).collect();
            let answer = self
                .client()
                .read_ids(entity_type, &missing, &everything, fields.clone(), only, Purpose::Fetch)
                .await?;
            for row in self.heard(answer).rows {
                let Some(id) = Answer::id(&row) else { continue };
                let name = display_name(entity_type, &row).map(str::to_owned);
                targets.push(LinkTarget { key: EntityRef::new(entity_type.clone(), id), name, state, rv });
            }
        }
        Ok(targets)
    }
}

/// Asks for rows that show a link to one of the targets in any cached field.
fn links_to(layout: &TypeLayout, targets: &[&EntityRef]) -> RawFilter {
    let holds = layout
        .fields
        .iter()
        .filter(|field| matches!(field.data_type, DataType::Entity | DataType::MultiEntity))
        .filter(|field| targets.iter().any(|target| field.valid_types.contains(&target.entity_type)));
    let leaf = |field: &LayoutField| {
        let fitting = targets.iter().filter(|target| field.valid_types.contains(&target.entity_type));
        let values =
            fitting.map(|target| serde_json::json!({"type": target.entity_type.as_str(), "id": target.id})).collect();
        RawFilter::Leaf(RawLeaf { path: field.name.clone(), relation: "in".into(), values })
    };
    let conditions: Vec<_> = holds.map(leaf).collect();
    match conditions.is_empty() {
        // No condition would be every row.
        true => RawFilter::Leaf(RawLeaf { path: "id".into(), relation: "is".into(), values: vec![0.into()] }),
        false => RawFilter::Group { any: true, conditions },
    }
}
