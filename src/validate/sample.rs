//! Which entities a data validation looks at.
//!
//! Keys come from both sides: an entity that the cache lost can only be found on
//! the site, one that it should have dropped only in the cache.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Result, ValidateError, Validator};
use crate::api3::{Paging, PagingInfo, Read};
use crate::entity_config::TypeLayout;
use crate::filter::{Page, Query, RawFilter, RawSort};
use crate::schema::Schema;
use crate::shotgun::{Answer, Purpose};
use crate::state::SiteTime;
use crate::store::{RowState, StoreErrorKind};

/// Which entities of a type are compared.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// Those that a query selects, evaluated on both sides.
    Query(Selection),
    /// The next so many by id; the place is remembered under the name, and starts
    /// again at the end.
    Rotate {
        /// Entities per run.
        rows: u32,
        /// The name of the place, such as the pipeline and step.
        name: String,
    },
    /// Pages that begin at ids drawn at random.
    RandomPages {
        /// How many pages.
        pages: u32,
        /// Entities per page.
        page_size: u32,
        /// The same seed draws the same ids.
        seed: u64,
    },
}

/// A query as a user wrote it.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// Which entities.
    pub filter: RawFilter,
    /// Their order.
    pub order: Vec<RawSort>,
    /// Which part of them.
    pub page: Page,
}

impl Selection {
    /// Selects the entities that were updated last.
    pub fn latest(rows: u32) -> Self {
        Self {
            filter: RawFilter::everything(),
            order: vec![RawSort { path: "updated_at".into(), descending: true }],
            page: Page::first(rows),
        }
    }
}

/// Where a rotation stands in a type, and when it began there from the start.
#[derive(Default, Serialize, Deserialize)]
struct Turn {
    after: i64,
    began: Option<SiteTime>,
}

impl Turn {
    /// Reads what the state kept: at first that was the id alone.
    fn read(kept: Value) -> Option<Self> {
        match kept.as_i64() {
            Some(after) => Some(Self { after, began: None }),
            None => serde_json::from_value(kept).ok(),
        }
    }
}

impl Sample {
    /// Tells whether the share of stale entities in the sample says something
    /// about the whole.
    pub fn is_random(&self) -> bool {
        matches!(self, Self::RandomPages { .. })
    }
}

impl Validator {
    /// Returns the ids to compare.
    pub(super) async fn choose(&self, layout: &TypeLayout, schema: &Schema, sample: &Sample) -> Result<BTreeSet<i64>> {
        match sample {
            Sample::Query(selection) => self.choose_by_query(layout, schema, selection).await,
            Sample::Rotate { rows, name } => self.choose_next(layout, *rows, name).await,
            Sample::RandomPages { pages, page_size, seed } => {
                let highest = self.highest_id(layout).await?;
                // Each type draws its own numbers from the one seed.
                let salt =
                    layout.entity_type.as_str().bytes().fold(*seed, |sum, b| sum.wrapping_mul(31) + u64::from(b));
                let mut random = StdRng::seed_from_u64(salt);
                let mut ids = BTreeSet::new();
                for _ in 0..*pages {
                    let after = random.random_range(0..=highest.max(1));
                    ids.extend(self.ids_after(layout, after, *page_size).await?.0);
                }
                Ok(ids)
            }
        }
    }

    async fn choose_by_query(
        &self,
        layout: &TypeLayout,
        schema: &Schema,
        selection: &Selection,
    ) -> Result<BTreeSet<i64>> {
        let ty = &layout.entity_type;
        let wrong = |message: String| ValidateError::Selection(format!("{ty}: {message}"));
        let filter = schema.filter(ty, &selection.filter).map_err(|fault| wrong(fault.message))?;
        let mut ids = self.site_page(layout, selection).await?;
        let mut order = schema.order(ty, &selection.order);
        order.truncate(8);
        let now = self.replica.now().timestamp();
        let query = Query::all(ty.clone()).filter(filter.at(now)).order(order).page(selection.page);
        match self.store.find(&query).await {
            Ok(found) => ids.extend(found.rows.iter().map(|row| row.key.id)),
            // What the store cannot evaluate is chosen by the site alone.
            Err(error) if error.kind() == StoreErrorKind::Unsupported => {}
            Err(error) => return Err(error.into()),
        }
        Ok(ids)
    }

    /// Reads the ids of the selection, in pages that the site allows: a larger
    /// page of ours is cut into several of the site.
    async fn site_page(&self, layout: &TypeLayout, selection: &Selection) -> Result<BTreeSet<i64>> {
        let filter =
            RawFilter::Group { any: false, conditions: vec![selection.filter.clone(), layout.raw_filter.clone()] };
        let size = selection.page.size.min(self.client.page_size());
        let mut read = Read::new(layout.entity_type.clone(), filter, size);
        read.order = selection.order.clone();
        read.paging_info = PagingInfo::WithoutCounts;
        let first = selection.page.offset();
        let last = first + u64::from(selection.page.size);
        let mut ids = BTreeSet::new();
        let mut page = first / u64::from(size);
        while page * u64::from(size) < last {
            read.paging = Paging { entities_per_page: size, current_page: u32::try_from(page + 1).unwrap_or(u32::MAX) };
            self.count_request();
            let answer: Answer = self.client.read(&read, Purpose::Validate).await?;
            let rows = answer.rows.iter().enumerate().filter_map(|(index, row)| {
                let position = page * u64::from(size) + index as u64;
                (first..last).contains(&position).then(|| Answer::id(row)).flatten()
            });
            ids.extend(rows);
            if !answer.has_next_page {
                break;
            }
            page += 1;
        }
        Ok(ids)
    }

    async fn choose_next(&self, layout: &TypeLayout, rows: u32, name: &str) -> Result<BTreeSet<i64>> {
        let place = format!("{name}/{}", layout.entity_type);
        let turn = self.state.rotation(&place).await?.and_then(Turn::read).unwrap_or_default();
        let (ids, end) = self.ids_after(layout, turn.after, rows).await?;
        let now = self.replica.now();
        let began = turn.began.unwrap_or(now);
        let next = match end {
            Some(end) => Turn { after: end, began: Some(began) },
            None => {
                let pipeline = name.split('/').next().unwrap_or_default();
                let took = now.since(began).as_secs_f64();
                self.metrics.validation.rotation_cycle.set(&[pipeline, layout.entity_type.as_str()], took);
                Turn { after: 0, began: Some(now) }
            }
        };
        self.state.set_rotation(&place, &serde_json::to_value(next).unwrap_or_default()).await?;
        Ok(ids)
    }

    /// Returns the next ids above `after`, of the site and of the cache between
    /// the same bounds, and the last of them; `None` at the end of the type.
    async fn ids_after(&self, layout: &TypeLayout, after: i64, rows: u32) -> Result<(BTreeSet<i64>, Option<i64>)> {
        let mut ids = BTreeSet::new();
        let mut place = after;
        let mut end = None;
        while (ids.len() as u64) < u64::from(rows) {
            let left = u64::from(rows) - ids.len() as u64;
            let size = u32::try_from(left).unwrap_or(u32::MAX).min(self.client.page_size());
            let read = Read::new(layout.entity_type.clone(), layout.raw_filter.clone(), size);
            self.count_request();
            let page = self.client.read_after(&read, place, Purpose::Validate).await?;
            ids.extend(page.rows.iter().filter_map(Answer::id));
            match page.last_id() {
                Some(last) if page.has_next_page => {
                    place = last;
                    end = Some(last);
                }
                _ => {
                    end = None;
                    break;
                }
            }
        }
        let last = end.unwrap_or(i64::MAX);
        ids.extend(self.cached_between(layout, after, last).await?);
        Ok((ids, end))
    }

    async fn cached_between(&self, layout: &TypeLayout, after: i64, last: i64) -> Result<Vec<i64>> {
        let mut ids = Vec::new();
        let mut place = after;
        loop {
            let rows = self.store.scan(&layout.entity_type, place, 1000).await?;
            let Some(highest) = rows.last().map(|row| row.id) else { return Ok(ids) };
            let wanted = rows.iter().filter(|row| row.id <= last && row.state == RowState::Active);
            ids.extend(wanted.map(|row| row.id));
            if highest >= last {
                return Ok(ids);
            }
            place = highest;
        }
    }

    async fn highest_id(&self, layout: &TypeLayout) -> Result<i64> {
        let mut read = Read::new(layout.entity_type.clone(), layout.raw_filter.clone(), 1);
        read.order = vec![RawSort { path: "id".into(), descending: true }];
        self.count_request();
        let answer: Answer = self.client.read(&read, Purpose::Validate).await?;
        Ok(answer.last_id().unwrap_or(0))
    }
}
