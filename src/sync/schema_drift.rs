//! Keeps the followed layouts in line with the schema of the site.
//!
//! A field that the site no longer has, or leaves out of its answers, is left out
//! of the layout; the type is imported again in place without it, and goes on.
//! When the schema is right again, so is the layout, by another import in place.
//! Only a type that is gone, or whose filter cannot be evaluated, waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Replica, Result, Tracked};
use crate::api3::Read;
use crate::entity::{EntityRef, EntityType};
use crate::entity_config::TypeLayout;
use crate::filter::{RawFilter, RawLeaf};
use crate::schema::Schema;
use crate::shotgun::{Answer, Purpose};
use crate::state::TypeState;

/// What cannot be cached although it is configured: by type, the fields and why.
/// A type that cannot be followed at all has its reason under [`WHOLE`].
pub type Lacking = BTreeMap<EntityType, BTreeMap<String, String>>;

/// Stands for the whole type among its fields.
pub const WHOLE: &str = "*";

/// What is followed, and what would be if the site had it.
#[derive(Debug, Default)]
pub(super) struct Followed {
    pub(super) configured: Vec<TypeLayout>,
    pub(super) tracked: Arc<Tracked>,
    pub(super) lacking: Lacking,
    /// Fields that the schema has and an answer had not, with the row of it.
    pub(super) hidden: BTreeMap<EntityType, BTreeMap<String, i64>>,
}

impl Followed {
    pub(super) fn new(configured: Vec<TypeLayout>) -> Self {
        let tracked = Arc::new(Tracked::new(configured.clone()));
        Self { configured, tracked, ..Self::default() }
    }
}

impl Replica {
    /// Returns the configured fields that are not cached because the site does not
    /// have them as configured, each with the reason.
    pub fn lacking(&self) -> Lacking {
        self.followed(|followed| followed.lacking.clone())
    }

    /// Returns the layout that the type really has: the configured one, as far as the
    /// site's schema allows it.
    pub fn current(&self, layout: &TypeLayout) -> TypeLayout {
        let found = self.tracked().layout(&layout.entity_type).cloned();
        found.map_or_else(|| layout.clone(), |found| (*found).clone())
    }

    /// Takes note of a field that an answer lacks although the schema has it.
    pub(super) fn hide(&self, key: &EntityRef, field: &str) {
        self.followed_mut(|followed| {
            followed.hidden.entry(key.entity_type.clone()).or_default().insert(field.to_owned(), key.id);
        });
    }

    /// Reads the schema and fits the layouts to it.
    pub(super) async fn check_schema(&self) -> Result<()> {
        let schema = self.client().schema().await?;
        self.state().keep_schema(self.client().site(), &schema).await?;
        let hidden = self.still_hidden().await?;
        self.fit_layouts(&schema, hidden).await?;
        Ok(self.state().schema_refreshed().await?)
    }

    /// Follows other layouts from now on, as far as the schema of the site allows it.
    /// Types that are new are imported; types that are gone keep their rows for a time.
    ///
    /// # Errors
    ///
    /// Only when the state fails.
    pub async fn follow_layouts(&self, layouts: Vec<TypeLayout>, schema: &Schema) -> Result<()> {
        self.set_layouts(layouts);
        self.fit_layouts(schema, BTreeMap::new()).await
    }

    /// Returns the layouts as they are configured.
    pub fn configured(&self) -> Vec<TypeLayout> {
        self.followed(|followed| followed.configured.clone())
    }

    /// Fits the configured layouts to a schema; `hidden` are fields that answers leave
    /// out although it has them.
    pub(super) async fn fit_layouts(
        &self,
        schema: &Schema,
        hidden: BTreeMap<EntityType, BTreeMap<String, i64>>,
    ) -> Result<()> {
        let (configured, tracked) =
            self.followed(|followed| (followed.configured.clone(), Arc::clone(&followed.tracked)));
        let (mut layouts, mut lacking) = (Vec::new(), Lacking::new());
        for layout in &configured {
            let entity_type = &layout.entity_type;
            let of_type = hidden.get(entity_type);
            let is_hidden = |field: &str| of_type.is_some_and(|fields| fields.contains_key(field));
            let state = self.state().type_record(entity_type).await?.map(|record| record.state);
            match layout.fit(schema, is_hidden) {
                Ok(fitted) => {
                    if state == Some(TypeState::Degraded) {
                        tracing::info!(%entity_type, "the type can be followed again");
                        self.state().set_type_state(entity_type, TypeState::Live).await?;
                    }
                    if !fitted.lacking.is_empty() {
                        lacking.insert(entity_type.clone(), fitted.lacking);
                    }
                    layouts.push(fitted.layout);
                }
                Err(problem) => {
                    if state == Some(TypeState::Live) {
                        self.state().set_type_state(entity_type, TypeState::Degraded).await?;
                    }
                    lacking.insert(entity_type.clone(), [(WHOLE.to_owned(), problem)].into());
                    // As it was, so that it is not imported again when it is back.
                    layouts.push(tracked.layout(entity_type).map_or_else(|| layout.clone(), |kept| (**kept).clone()));
                }
            }
        }
        self.log_changes(&lacking);
        self.followed_mut(|followed| {
            // Other layouts may have been configured meanwhile: the next check fits those.
            if followed.configured == configured {
                followed.tracked = Arc::new(Tracked::new(layouts));
                followed.lacking = lacking;
                followed.hidden = hidden;
            }
        });
        Ok(())
    }

    /// Returns the hidden fields that are still not shown.
    async fn still_hidden(&self) -> Result<BTreeMap<EntityType, BTreeMap<String, i64>>> {
        let mut hidden = self.followed(|followed| followed.hidden.clone());
        for (entity_type, fields) in &mut hidden {
            for (field, id) in fields.clone() {
                let row =
                    RawFilter::Leaf(RawLeaf { path: "id".into(), relation: "is".into(), values: vec![id.into()] });
                let read = Read::new(entity_type.clone(), row, 1).fields(vec![field.clone()]);
                let answer: Answer = self.heard(self.client().read(&read, Purpose::Schema).await?);
                // A row that is gone proves nothing; the next answer does.
                if answer.rows.iter().all(|row| row.contains_key(&field)) {
                    fields.remove(&field);
                }
            }
        }
        hidden.retain(|_, fields| !fields.is_empty());
        Ok(hidden)
    }

    fn log_changes(&self, lacking: &Lacking) {
        let known = self.lacking();
        for (entity_type, fields) in lacking {
            let before = known.get(entity_type);
            for (field, reason) in fields.iter().filter(|(field, _)| before.is_none_or(|b| !b.contains_key(*field))) {
                tracing::error!(%entity_type, field, reason, "not cached any more; the rest of the type goes on");
            }
        }
        for entity_type in known.keys().filter(|entity_type| !lacking.contains_key(*entity_type)) {
            tracing::info!(%entity_type, "the site has every configured field again");
        }
    }
}
