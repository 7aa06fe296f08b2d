//! `sgcache job corrupt`: spoils stored rows, so that a validation has something
//! to find. Refused unless the site is a simulated one.

use std::path::Path;

use serde_json::Value;

use super::Failure;
use super::context::{Online, SiteAtStart, load_config, open_store};
use crate::entity::{DataType, EntityRef};
use crate::entity_config::TypeLayout;
use crate::filter::{FieldPath, Page, Query, Sort};

pub async fn run(config: Option<&Path>, rows: u32) -> Result<u8, Failure> {
    let online = Online::open(load_config(config)?, SiteAtStart::Required).await?;
    if !online.client.info().await?.simulated {
        let site = online.client.site();
        return Err(Failure::usage(format!("{site} is no simulated site: rows are corrupted on purpose only there")));
    }
    // Without the lease, as a fault of the cluster would change the rows.
    let store = open_store(&online.config, &online.metrics, None).await?;
    let mut done = 0;
    // One row of each type in turn, among those that the default validation
    // looks at.
    for round in 0..rows {
        for layout in &online.layouts {
            if done == rows {
                return Ok(0);
            }
            if let Some((key, field)) = victim(&online, layout, round).await? {
                let value = Value::from(format!("corrupted {}", done + 1));
                store.corrupt(&key, &field, value).await?;
                println!("{key} {field}");
                done += 1;
            }
        }
    }
    match done == rows {
        true => Ok(0),
        false => {
            Err(Failure::usage(format!("only {done} of {rows} rows were corrupted: no other row has a text field")))
        }
    }
}

/// Returns a row that was updated some time ago but is among the latest, and a
/// text field of it that nothing else follows from.
async fn victim(online: &Online, layout: &TypeLayout, round: u32) -> Result<Option<(EntityRef, String)>, Failure> {
    let text = |name: &&str| layout.field(name).is_some_and(|field| field.data_type == DataType::Text);
    let names = ["description", "sg_description", "content", "login", "short_name"];
    let Some(field) = names.into_iter().find(text) else {
        return Ok(None);
    };
    let Some(updated) = layout.field("updated_at") else { return Ok(None) };
    let path = FieldPath::local("updated_at", updated.data_type);
    let order = vec![Sort { path, descending: true }];
    let query = Query::all(layout.entity_type.clone()).order(order);
    // A small type has no row so far down: then the latest must do.
    for number in [100 + round, 1 + round] {
        let found = online.store.find(&query.clone().page(Page { size: 1, number })).await?;
        if let Some(row) = found.rows.first() {
            return Ok(Some((row.key.clone(), field.to_owned())));
        }
    }
    Ok(None)
}
