//! `validateCounts`: numbers per thousand ids, then ids, then a second look.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::repair::Suspect;
use super::window::Window;
use super::{Result, TypeFindings, Validator};
use crate::api3::{Read, Summarize};
use crate::entity_config::TypeLayout;
use crate::filter::{RawFilter, RawLeaf};
use crate::report::MismatchKind;
use crate::shotgun::Purpose;
use crate::store::{BUCKET_SIZE, RowState};

/// Active rows per bucket.
type Counts = BTreeMap<i64, u64>;

/// What the two sides and our own memory say about the buckets of a type.
struct Buckets {
    site: Counts,
    cache: Counts,
    /// Buckets whose stored rows are not those that sync remembers.
    forgotten: BTreeSet<i64>,
}

impl Buckets {
    /// Returns the buckets that have to be looked at id by id: those that differ,
    /// and those that something touched.
    fn doubtful(&self, touched: &BTreeSet<i64>) -> Vec<i64> {
        let touched: BTreeSet<i64> = touched.iter().map(|id| id / BUCKET_SIZE).collect();
        let all: BTreeSet<i64> = self.site.keys().chain(self.cache.keys()).chain(&self.forgotten).copied().collect();
        let differs = |bucket: &i64| self.site.get(bucket) != self.cache.get(bucket) || self.forgotten.contains(bucket);
        all.into_iter().filter(|bucket| differs(bucket) || touched.contains(bucket)).collect()
    }
}

impl Validator {
    pub(super) async fn count_type(&self, layout: &TypeLayout, repair: bool) -> Result<TypeFindings> {
        if let Some(problem) = self.not_ready(layout).await? {
            return Ok(TypeFindings::inconclusive(problem));
        }
        let window = Window::open(&self.state, &layout.entity_type).await?;
        let buckets = self.buckets(layout).await?;
        self.past_polls(1).await?;
        let touched = window.touched(&self.state).await?;

        let mut findings = TypeFindings::default();
        let (site, cache) = (buckets.site.values().sum(), buckets.cache.values().sum::<u64>());
        findings.result.site_count = Some(site);
        findings.result.cache_count = Some(cache);
        findings.result.checked = site.max(cache);
        findings.result.touched = touched.len() as u64;
        let doubtful = buckets.doubtful(&touched);
        let suspects = self.locate(layout, &doubtful).await?;
        self.confirm_and_repair(layout, None, suspects, repair, &mut findings).await?;
        Ok(findings)
    }

    async fn buckets(&self, layout: &TypeLayout) -> Result<Buckets> {
        let (site, digest) = tokio::join!(self.site_counts(layout), self.store.digest(&layout.entity_type));
        let digest = digest?;
        let remembered = self.state.buckets(&layout.entity_type).await?;
        let remembered: BTreeMap<i64, (u64, i64)> =
            remembered.iter().map(|bucket| (bucket.bucket, (bucket.count, bucket.sum))).collect();
        // Sums of 1,000 hashes of 32 bits are far from the sign.
        let signed = |sum: u64| i64::try_from(sum).unwrap_or(i64::MAX);
        let stored: BTreeMap<i64, (u64, i64)> =
            digest.iter().map(|bucket| (bucket.number, (bucket.count, signed(bucket.sum)))).collect();
        let all: BTreeSet<i64> = remembered.keys().chain(stored.keys()).copied().collect();
        let forgotten: BTreeSet<i64> =
            all.into_iter().filter(|bucket| remembered.get(bucket) != stored.get(bucket)).collect();
        let label = layout.entity_type.as_str();
        self.metrics.validation.bucket_mismatches.add(&[label], forgotten.len() as u64);
        let cache =
            digest.iter().filter(|bucket| bucket.count > 0).map(|bucket| (bucket.number, bucket.count)).collect();
        Ok(Buckets { site: site?, cache, forgotten })
    }

    /// Asks the site for its numbers; a site that cannot group by id is asked for
    /// every id instead.
    async fn site_counts(&self, layout: &TypeLayout) -> Result<Counts> {
        let summarize = Summarize::count_by_thousands(layout.entity_type.clone(), layout.raw_filter.clone());
        self.count_request();
        match self.client.summarize(&summarize, Purpose::Validate).await {
            Ok(answer) => {
                if let Some(counts) = grouped_counts(&answer) {
                    return Ok(counts);
                }
            }
            Err(error) if error.kind() == crate::shotgun::ErrorKind::Fault => {}
            Err(error) => return Err(error.into()),
        }
        let ids = self.site_ids(layout, RawFilter::everything()).await?;
        let mut counts = Counts::new();
        for id in ids {
            *counts.entry(id / BUCKET_SIZE).or_default() += 1;
        }
        Ok(counts)
    }

    /// Compares the ids in these buckets and returns those that only one side has
    /// and nothing touched.
    async fn locate(&self, layout: &TypeLayout, buckets: &[i64]) -> Result<Vec<Suspect>> {
        if buckets.is_empty() {
            return Ok(Vec::new());
        }
        let window = Window::open(&self.state, &layout.entity_type).await?;
        let mut suspects = Vec::new();
        for bucket in buckets {
            suspects.extend(self.locate_in(layout, *bucket).await?);
        }
        if suspects.is_empty() {
            return Ok(suspects);
        }
        self.past_polls(1).await?;
        let touched = window.touched(&self.state).await?;
        suspects.retain(|suspect| !touched.contains(&suspect.id));
        Ok(suspects)
    }

    async fn locate_in(&self, layout: &TypeLayout, bucket: i64) -> Result<Vec<Suspect>> {
        let (first, last) = (bucket * BUCKET_SIZE, bucket * BUCKET_SIZE + BUCKET_SIZE - 1);
        let range = RawLeaf { path: "id".into(), relation: "between".into(), values: vec![first.into(), last.into()] };
        let site = self.site_ids(layout, RawFilter::Leaf(range)).await?;
        let size = usize::try_from(BUCKET_SIZE).unwrap_or(usize::MAX);
        let stored = self.store.scan(&layout.entity_type, first - 1, size).await?;
        let remembered = self.state.bucket_rows(&layout.entity_type, bucket).await?;
        let mut cache = BTreeSet::new();
        let mut suspects = Vec::new();
        for row in stored.iter().filter(|row| row.id <= last && row.state == RowState::Active) {
            cache.insert(row.id);
            // A stored row that is not the one that was written last: a write
            // that was lost behind our back.
            let known = remembered.get(&row.id);
            if site.contains(&row.id) && known.is_some_and(|known| known.hash != row.hash) {
                suspects.push(Suspect { id: row.id, kind: MismatchKind::Differs });
            }
        }
        suspects.extend(site.difference(&cache).map(|id| Suspect { id: *id, kind: MismatchKind::Missing }));
        suspects.extend(cache.difference(&site).map(|id| Suspect { id: *id, kind: MismatchKind::Extra }));
        Ok(suspects)
    }

    async fn site_ids(&self, layout: &TypeLayout, condition: RawFilter) -> Result<BTreeSet<i64>> {
        let filter = RawFilter::Group { any: false, conditions: vec![condition, layout.raw_filter.clone()] };
        let read = Read::new(layout.entity_type.clone(), filter, self.client.page_size());
        let mut ids = BTreeSet::new();
        let mut after = 0;
        loop {
            self.count_request();
            let page = self.client.read_after(&read, after, Purpose::Validate).await?;
            ids.extend(page.rows.iter().filter_map(crate::shotgun::Answer::id));
            match page.last_id() {
                Some(last) if page.has_next_page => after = last,
                _ => return Ok(ids),
            }
        }
    }
}

/// Reads the groups of a summary by thousands; `None` when they do not add up,
/// so that what they mean is not certain.
fn grouped_counts(answer: &Value) -> Option<Counts> {
    let mut counts = Counts::new();
    for group in answer.get("groups")?.as_array()? {
        let first = first_number(group.get("group_value")?).or_else(|| first_number(group.get("group_name")?))?;
        let count = group.get("summaries")?.get("id")?.as_u64()?;
        if count > 0 {
            *counts.entry(first / BUCKET_SIZE).or_default() += count;
        }
    }
    let total = answer.get("summaries")?.get("id")?.as_u64()?;
    (counts.values().sum::<u64>() == total).then_some(counts)
}

/// A group of ids is named by its first one: 2000, "2000" or "2000-2999".
fn first_number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => {
            let digits: String = text.chars().filter(|c| *c != ',').take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        }
        Value::Object(range) => first_number(range.get("min").or_else(|| range.get("start"))?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn groups_are_read_by_their_first_id() {
        let group =
            |value: Value, count: u64| json!({"group_name": "x", "group_value": value, "summaries": {"id": count}});
        let answer = json!({"groups": [group(json!(0), 3), group(json!("2000-2999"), 4)], "summaries": {"id": 7}});
        assert_eq!(grouped_counts(&answer), Some(Counts::from([(0, 3), (2, 4)])));
    }

    #[test]
    fn groups_that_do_not_add_up_are_not_believed() {
        let answer = json!({"groups": [{"group_value": 0, "summaries": {"id": 3}}], "summaries": {"id": 7}});
        assert_eq!(grouped_counts(&answer), None);
    }

    #[test]
    fn a_bucket_is_doubtful_when_it_differs_or_was_touched() {
        let buckets = Buckets {
            site: Counts::from([(0, 10), (1, 5), (2, 7)]),
            cache: Counts::from([(0, 10), (1, 4), (2, 7), (3, 1)]),
            forgotten: BTreeSet::new(),
        };
        assert_eq!(buckets.doubtful(&BTreeSet::from([2_500])), [1, 2, 3]);
    }
}
