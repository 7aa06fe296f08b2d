//! The indices of a type: made, extended, replaced.
//!
//! New fields are added to the mapping in place. Any other change makes a new
//! generation beside the old one: writes to the old one are blocked on the server
//! itself (they fail as a fault of the store and are repeated), its rows are
//! copied with their versions, and one call swaps both aliases. Readers see every
//! row throughout. A crash on the way leaves a generation without aliases, which
//! the next start removes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{CachedType, ReadVersion, Result, StoreError, StoreErrorKind};
use super::document::{Document, read_value, written};
use super::fault::item_fault;
use super::mapping::{self, FORMAT};
use super::search::scan_step;
use super::types::Meta;
use super::{Inner, version};
use crate::elastic::{BulkOp, Call, ItemOutcome, VersionType};
use crate::entity::{EntityType, FieldValue};
use crate::entity_config::TypeLayout;

/// One index as the server describes it.
#[derive(Debug, Deserialize)]
struct Description {
    #[serde(default)]
    aliases: BTreeMap<String, Value>,
    #[serde(default)]
    mappings: Value,
    #[serde(default)]
    settings: Value,
}

/// One generation of a type.
struct Generation {
    name: String,
    number: u32,
    meta: Meta,
    description: Description,
}

impl Generation {
    fn is_current(&self, write_alias: &str) -> bool {
        self.description.aliases.contains_key(write_alias)
    }

    fn is_blocked(&self) -> bool {
        let blocked = self.description.settings.pointer("/index/blocks/write");
        blocked.is_some_and(|blocked| blocked == "true" || blocked == true)
    }

    /// Tells whether the new mapping only adds to what is there.
    fn can_become(&self, layout: &TypeLayout) -> bool {
        let old = &self.meta.cached.fields;
        let same_types =
            old.iter().all(|(name, data_type)| layout.field(name).is_some_and(|field| field.data_type == *data_type));
        let own: Vec<String> = self.meta.own_mapping.iter().cloned().collect();
        self.meta.format == FORMAT && same_types && own.is_empty() && mapping::own_mapping(layout).is_empty()
    }
}

/// Refuses an index that a newer program wrote.
pub(super) fn check_format(index: &str, meta: &Meta) -> Result<()> {
    if meta.format <= FORMAT {
        return Ok(());
    }
    let message = format!(
        "elasticsearch: index {index} was written by a newer sgcache (format {}, this one knows {FORMAT}): use that version, or another \
         `prefix`",
        meta.format
    );
    Err(StoreError::new(StoreErrorKind::Newer, message))
}

impl Inner {
    pub(super) async fn ensure_type(&self, layout: &TypeLayout) -> Result<()> {
        let _one_at_a_time = self.changing.lock().await;
        self.ensure_names().await?;
        let entity_type = &layout.entity_type;
        let write_alias = self.names.write(entity_type);
        let mut generations = self.generations(entity_type).await?;
        let next_number = generations.iter().map(|generation| generation.number).max().unwrap_or(0) + 1;
        let current = generations.iter().position(|generation| generation.is_current(&write_alias));
        let current = current.map(|position| generations.remove(position));
        match current {
            None => self.adopt_or_create(layout, generations, next_number).await?,
            Some(current) => {
                for leftover in generations {
                    self.delete_index(&leftover.name).await?;
                }
                self.bring_up_to_date(layout, current, next_number).await?;
            }
        }
        self.opened(Meta {
            format: FORMAT,
            cached: CachedType::of(layout),
            own_mapping: mapping::own_mapping(layout).into_iter().collect(),
        });
        Ok(())
    }

    /// No alias: nothing was ever there, or an operator removed the aliases of a good index.
    async fn adopt_or_create(&self, layout: &TypeLayout, found: Vec<Generation>, number: u32) -> Result<()> {
        let mut adopted = None;
        for generation in found.into_iter().rev() {
            if adopted.is_none() && generation.meta.cached.hash == layout.hash && generation.meta.format == FORMAT {
                adopted = Some(generation.name);
            } else {
                self.delete_index(&generation.name).await?;
            }
        }
        match adopted {
            Some(name) => self.point_aliases(&layout.entity_type, &name, None).await,
            None => self.create(layout, number, true).await.map(|_| ()),
        }
    }

    async fn bring_up_to_date(&self, layout: &TypeLayout, current: Generation, next_number: u32) -> Result<()> {
        if !current.meta.cached.partial && !layout.filter.is_everything() {
            // Rows that the filter leaves out from now on tell no names any more.
            self.keep_names(&layout.entity_type).await?;
        }
        if current.meta.cached.hash != layout.hash || current.meta.format != FORMAT {
            if !current.can_become(layout) {
                return self.replace(layout, &current, next_number).await;
            }
            let call = Call::put(format!("/{}/_mapping", current.name)).json(&mapping::mappings(layout));
            self.client.send(&call).await?;
        }
        if current.is_blocked() {
            self.block_writes(&current.name, false).await?;
        }
        if !current.description.aliases.contains_key(&self.names.read(&layout.entity_type)) {
            self.point_aliases(&layout.entity_type, &current.name, None).await?;
        }
        Ok(())
    }

    /// Builds a new generation beside the current one and swaps them.
    async fn replace(&self, layout: &TypeLayout, current: &Generation, number: u32) -> Result<()> {
        tracing::info!(entity_type = %layout.entity_type, from = %current.name, "building a new generation");
        let name = self.create(layout, number, false).await?;
        self.block_writes(&current.name, true).await?;
        if let Err(error) = self.copy(layout, current, &name).await {
            // Best effort: the next start does both again.
            let _ = self.block_writes(&current.name, false).await;
            let _ = self.delete_index(&name).await;
            return Err(error);
        }
        self.point_aliases(&layout.entity_type, &name, Some(&current.name)).await?;
        self.delete_index(&current.name).await
    }

    async fn copy(&self, layout: &TypeLayout, from: &Generation, to: &str) -> Result<()> {
        let mut after = -1;
        let query = json!({"match_all": {}});
        loop {
            let hits = scan_step(&self.client, &from.name, &query, &json!(true), after, 2000).await?;
            let Some(last) = hits.last() else { break };
            after = last.entity_id()?;
            let writes: Vec<BulkOp> = hits
                .into_iter()
                .map(|hit| {
                    let version = match from.meta.format {
                        1 => version::of_read(ReadVersion(hit.version))?,
                        _ => hit.version,
                    };
                    let document = Value::Object(projected(layout, hit.source)).to_string();
                    Ok(BulkOp::index(to, &hit.id, version, VersionType::External, document))
                })
                .collect::<Result<_>>()?;
            for outcome in self.client.bulk(&writes, false).await? {
                match outcome {
                    ItemOutcome::Done | ItemOutcome::Stale => {}
                    ItemOutcome::Refused(reason) => {
                        tracing::warn!(index = to, reason, "a row does not fit the new layout and must be read again");
                    }
                    ItemOutcome::StoreFault(reason) => return Err(item_fault(&reason)),
                }
            }
        }
        self.client.send(&Call::post(format!("/{to}/_refresh")).patient().repeatable()).await?;
        Ok(())
    }

    async fn create(&self, layout: &TypeLayout, number: u32, with_aliases: bool) -> Result<String> {
        let name = self.names.generation(&layout.entity_type, number);
        let mut body = mapping::index_body(layout, self.shape);
        if with_aliases {
            body["aliases"] = json!({
                self.names.read(&layout.entity_type): {"filter": active()},
                self.names.write(&layout.entity_type): {"is_write_index": true},
            });
        }
        self.create_index(&name, &body).await?;
        Ok(name)
    }

    /// Creates an index; one that is there already was created by a lost first attempt.
    async fn create_index(&self, name: &str, body: &Value) -> Result<()> {
        let call = Call::put(format!("/{name}")).param("wait_for_active_shards", 1).json(body).patient().accept(&[400]);
        let answer = self.client.send(&call).await?;
        if answer.is_success() {
            return Ok(());
        }
        let error = answer.into_error();
        if error.error_type() == Some("resource_already_exists_exception") {
            return Ok(());
        }
        Err(error.into())
    }

    /// Gives both aliases to `to`, away from `from`, in one step.
    async fn point_aliases(&self, entity_type: &EntityType, to: &str, from: Option<&str>) -> Result<()> {
        let (read, write) = (self.names.read(entity_type), self.names.write(entity_type));
        let mut actions = Vec::new();
        for alias in from.map(|from| [(from, &read), (from, &write)]).into_iter().flatten() {
            actions.push(json!({"remove": {"index": alias.0, "alias": alias.1}}));
        }
        actions.push(json!({"add": {"index": to, "alias": read, "filter": active()}}));
        actions.push(json!({"add": {"index": to, "alias": write, "is_write_index": true}}));
        self.client.send(&Call::post("/_aliases").json(&json!({ "actions": actions }))).await?;
        Ok(())
    }

    async fn block_writes(&self, index: &str, block: bool) -> Result<()> {
        let value = if block { json!(true) } else { Value::Null };
        let call = Call::put(format!("/{index}/_settings")).json(&json!({"index.blocks.write": value}));
        self.client.send(&call).await?;
        Ok(())
    }

    /// Deletes one index by its full name; wildcards are refused by most servers.
    pub(super) async fn delete_index(&self, name: &str) -> Result<()> {
        self.client.send(&Call::delete(format!("/{name}")).patient().accept(&[404])).await?;
        Ok(())
    }

    /// Returns the names of the indices of a type.
    pub(super) async fn generation_names(&self, entity_type: &EntityType) -> Result<Vec<String>> {
        Ok(self.generations(entity_type).await?.into_iter().map(|generation| generation.name).collect())
    }

    /// Returns the generations of a type by number.
    ///
    /// # Errors
    ///
    /// When one of the names that we need belongs to another program.
    async fn generations(&self, entity_type: &EntityType) -> Result<Vec<Generation>> {
        let (read, write) = (self.names.read(entity_type), self.names.write(entity_type));
        let found = self.describe(&format!("{read},{write},{}", self.names.any_generation(entity_type))).await?;
        let mut generations = Vec::new();
        for (name, description) in found {
            let number = self.names.generation_number(entity_type, &name);
            let (Some(number), Some(meta)) = (number, Meta::of(&description.mappings)) else {
                return Err(self.not_ours(&name, entity_type));
            };
            check_format(&name, &meta)?;
            if meta.cached.entity_type != *entity_type {
                return Err(self.not_ours(&name, entity_type));
            }
            generations.push(Generation { name, number, meta, description });
        }
        generations.sort_by_key(|generation| generation.number);
        Ok(generations)
    }

    fn not_ours(&self, index: &str, entity_type: &EntityType) -> StoreError {
        let message = format!(
            "elasticsearch: index {index} was not made by sgcache for `{entity_type}` (there is no such `_meta.sgcache` \
             in its mapping), so it is left alone; choose another `prefix`, or rename or delete that index"
        );
        StoreError::new(StoreErrorKind::Refused, message)
    }

    async fn describe(&self, expression: &str) -> Result<BTreeMap<String, Description>> {
        let call = Call::get(format!("/{expression}"))
            .param("ignore_unavailable", true)
            .param("allow_no_indices", true)
            .param("expand_wildcards", "all")
            .accept(&[404]);
        let answer = self.client.send(&call).await?;
        if answer.is_success() { Ok(answer.json()?) } else { Ok(BTreeMap::new()) }
    }

    /// Makes the index of display names.
    async fn ensure_names(&self) -> Result<()> {
        let name = self.names.display_names();
        let found = self.describe(&name).await?;
        match found.get(&name) {
            None => self.create_index(&name, &mapping::names_body(self.shape)).await,
            Some(description) if description.mappings.pointer("/_meta/sgcache/names").is_some() => Ok(()),
            Some(_) => {
                let message = format!(
                    "elasticsearch: index {name} was not made by sgcache, so it is left alone; choose another `prefix`, \
                     or rename or delete that index"
                );
                Err(StoreError::new(StoreErrorKind::Refused, message))
            }
        }
    }
}

fn active() -> Value {
    json!({"term": {"_sg.state": "active"}})
}

/// Returns what of a document fits a layout; the rest must be read again.
fn projected(layout: &TypeLayout, mut source: Document) -> Document {
    let mut document = Document::new();
    for name in ["id", "_sg"] {
        if let Some(value) = source.remove(name) {
            document.insert(name.to_owned(), value);
        }
    }
    for field in layout.fields.iter() {
        let Some(value) = source.remove(&field.name) else { continue };
        let plain = read_value(field.data_type, &value);
        if FieldValue::from_json(field.data_type, &plain).is_ok() {
            document.insert(field.name.clone(), written(field.data_type, &plain));
        }
    }
    document
}
