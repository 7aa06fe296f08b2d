//! Removes old reports from Elasticsearch.
//!
//! Whole indices only, by full name and through routes that every server has:
//! no data-stream API, no lifecycle policies. The index that is being written
//! to cannot be removed; when it is too old itself, a new one is begun first.

use std::collections::BTreeMap;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::documents::{Stream, is_index_name};
use super::elasticsearch::{Delivery, Layout};
use super::templates::stream_name;
use crate::elastic::{Call, Error};

/// One index behind a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Behind {
    name: String,
    created: DateTime<Utc>,
}

#[derive(Deserialize)]
struct Described {
    settings: Settings,
}

#[derive(Deserialize)]
struct Settings {
    index: IndexSettings,
}

#[derive(Deserialize)]
struct IndexSettings {
    creation_date: String,
}

impl Delivery {
    /// Removes the indices that hold only reports from before `cutoff`; returns their names.
    ///
    /// # Errors
    ///
    /// When the server is away or refuses; what was removed until then stays removed.
    pub async fn prune(&self, cutoff: DateTime<Utc>) -> Result<Vec<String>, Error> {
        let layout = self.layout().await?;
        let mut removed = Vec::new();
        for name in self.stream_names().await? {
            let mut indices = self.indices_behind(&name).await?;
            if layout == Layout::DataStream && begins_anew(&indices, cutoff) {
                self.client.send(&Call::post(format!("/{name}/_rollover"))).await?;
                indices = self.indices_behind(&name).await?;
            }
            let old = match layout {
                Layout::DataStream => rolled_over_before(&indices, cutoff),
                Layout::Daily => days_before(&indices, &name, cutoff),
            };
            for index in old {
                let call = Call::delete(format!("/{index}")).accept(&[404]);
                self.client.send(&call).await?;
                removed.push(index);
            }
        }
        Ok(removed)
    }

    /// Returns the names of all streams, and of all indices that pipelines name or once named.
    async fn stream_names(&self) -> Result<Vec<String>, Error> {
        let mut names: Vec<_> = Stream::ALL.into_iter().map(|stream| stream_name(&self.prefix, stream, None)).collect();
        let call = Call::get(format!("/_index_template/{}-*", self.prefix)).accept(&[404]);
        let answer = self.client.send(&call).await?;
        if !answer.is_success() {
            return Ok(names);
        }
        let found: Value = answer.json()?;
        for one in found["index_templates"].as_array().into_iter().flatten() {
            let of = &one["index_template"]["_meta"]["sgcache"]["of"];
            let stream = of["stream"].as_str().and_then(Stream::parse);
            let index = of["index"].as_str().filter(|index| is_index_name(index));
            if let (Some(stream), Some(index), true) = (stream, index, of["prefix"] == self.prefix.as_str()) {
                names.push(stream_name(&self.prefix, stream, Some(index)));
            }
        }
        Ok(names)
    }

    /// Returns the indices behind a name, oldest first; none if nothing was written yet.
    async fn indices_behind(&self, name: &str) -> Result<Vec<Behind>, Error> {
        let call = Call::get(format!("/{name}/_settings"))
            .param("filter_path", "*.settings.index.creation_date")
            .accept(&[404]);
        let answer = self.client.send(&call).await?;
        if !answer.is_success() {
            return Ok(Vec::new());
        }
        let described: BTreeMap<String, Described> = answer.json()?;
        let mut indices: Vec<_> = described
            .into_iter()
            .filter_map(|(name, one)| {
                let millis = one.settings.index.creation_date.parse().ok()?;
                Some(Behind { name, created: DateTime::from_timestamp_millis(millis)? })
            })
            .collect();
        // Backing indices carry a growing number, so their names order those of one instant.
        indices.sort_by(|one, other| (one.created, &one.name).cmp(&(other.created, &other.name)));
        Ok(indices)
    }
}

/// Whether the index that is written to holds reports from before `cutoff`.
fn begins_anew(indices: &[Behind], cutoff: DateTime<Utc>) -> bool {
    indices.last().is_some_and(|newest| newest.created < cutoff)
}

/// An index of a data stream ends when the next one begins.
fn rolled_over_before(indices: &[Behind], cutoff: DateTime<Utc>) -> Vec<String> {
    let pairs = indices.windows(2).filter(|pair| pair[1].created <= cutoff);
    pairs.map(|pair| pair[0].name.clone()).collect()
}

/// A daily index ends with its day, whenever it was created.
fn days_before(indices: &[Behind], stream: &str, cutoff: DateTime<Utc>) -> Vec<String> {
    let ended = |index: &&Behind| {
        let day = index.name.strip_prefix(stream).and_then(|rest| rest.strip_prefix('-'));
        let day = day.and_then(|day| NaiveDate::parse_from_str(day, "%Y.%m.%d").ok());
        let end = day.and_then(|day| day.checked_add_days(Days::new(1)));
        end.is_some_and(|end| end.and_time(NaiveTime::MIN).and_utc() <= cutoff)
    };
    indices.iter().filter(ended).map(|index| index.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    fn day(day: u32) -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 11, day, 0, 0, 0).unwrap()
    }

    fn behind(days: &[u32], name: impl Fn(u32) -> String) -> Vec<Behind> {
        days.iter().map(|at| Behind { name: name(*at), created: day(*at) }).collect()
    }

    #[test]
    fn a_backing_index_goes_when_the_next_one_is_old_enough() {
        let indices = behind(&[1, 8, 15], |at| format!("b{at}"));
        assert_eq!(rolled_over_before(&indices, day(8)), ["b1"]);
        assert_eq!(rolled_over_before(&indices, day(14)), ["b1"]);
        assert_eq!(rolled_over_before(&indices, day(30)), ["b1", "b8"]);
        assert!(begins_anew(&indices, day(16)) && !begins_anew(&indices, day(15)));
    }

    #[test]
    fn a_day_goes_when_it_is_over_and_a_strange_name_stays() {
        let mut indices = behind(&[1, 2], |at| format!("sgcache-runs-2026.11.0{at}"));
        indices.push(Behind { name: "sgcache-runs-old".into(), created: day(1) });
        assert_eq!(days_before(&indices, "sgcache-runs", day(2)), ["sgcache-runs-2026.11.01"]);
        assert_eq!(days_before(&indices, "sgcache-runs", day(30)).len(), 2);
    }
}
