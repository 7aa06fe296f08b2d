//! Signed addresses of pictures and files, while they may be given again.
//!
//! A site signs them anew at every read, and they are never stored
//! (`entity::signed_url`). Those that the site has answered through the proxy are kept
//! in memory. One is given again, to callers who may read the field, until half of its
//! validity is over, so that a program has as long again to fetch the file; and only
//! while the cached row shows the same address without its signature.
//!
//! Outside fact: the query of a signed address holds `X-Amz-Expires`, seconds from the
//! signature on, and mostly `X-Amz-Date`, when that was made. What does not say how long
//! it holds is not kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::reason::{Pass, Reason};
use crate::entity::{DataType, EntityRef, EntityType, Timestamp, signed_url};
use crate::store::Row;

/// The memory that addresses may take.
const MAX_ADDRESS_BYTES: u64 = 32 << 20;
/// The number of addresses that the cache is sized for at its start.
const EXPECTED_ADDRESSES: usize = 1_024;
/// What an entry takes besides the address, with and without its signature.
const BYTES_PER_ADDRESS: u64 = 256;

/// An entity and the name of its field.
type Key = (EntityRef, String);

/// A value with a signed address.
struct Address {
    value: Value,
    /// As a row is stored.
    unsigned: Value,
    bytes: u64,
    until: Instant,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Arc<Address>> for Weight {
    fn weight(&self, _: &Key, address: &Arc<Address>) -> u64 {
        address.bytes
    }
}

/// The addresses that the site has answered lately.
pub(super) struct AddressCache(Cache<Key, Arc<Address>, Weight>);

impl Default for AddressCache {
    fn default() -> Self {
        Self(Cache::with_weighter(EXPECTED_ADDRESSES, MAX_ADDRESS_BYTES, Weight))
    }
}

#[derive(Deserialize)]
struct ReadAnswer {
    results: Entities,
}

#[derive(Deserialize)]
struct Entities {
    entities: Vec<Map<String, Value>>,
}

impl AddressCache {
    /// Keeps the addresses in an answer of the site to a `read`; `now` is its time.
    pub fn learn(&self, entity_type: &EntityType, fields: &[String], answer: &[u8], now: Timestamp) {
        let Ok(answer) = serde_json::from_slice::<ReadAnswer>(answer) else { return };
        let received = Instant::now();
        for mut row in answer.results.entities {
            let Some(id) = row.get("id").and_then(Value::as_i64) else { continue };
            // Of what a path leads to the row does not tell the id.
            for field in fields.iter().filter(|field| !field.contains('.')) {
                let Some(value) = row.remove(field) else { continue };
                if let Some(address) = Address::new(value, received, now) {
                    self.0.insert((EntityRef::new(entity_type.clone(), id), field.clone()), Arc::new(address));
                }
            }
        }
    }

    fn get(&self, key: &EntityRef, field: &str, stored: &Value) -> Option<Arc<Address>> {
        let known = self.0.get(&(key.clone(), field.to_owned()))?;
        (known.unsigned == *stored && Instant::now() < known.until).then_some(known)
    }
}

/// Returns a row with signed addresses in the place of stored ones.
///
/// # Errors
///
/// The reason to ask the site, where one of them is not known.
pub(super) fn complete<'a>(
    row: &'a Row,
    fields: &[String],
    known: Option<&AddressCache>,
) -> Result<Cow<'a, str>, Pass> {
    let mut signed: Vec<(&str, Box<RawValue>)> = Vec::new();
    for field in fields {
        let Some(stored) = row.get(field).filter(|value| !value.is_null() && !is_lasting(value)) else { continue };
        let address = known.and_then(|known| known.get(&row.key, field, &stored));
        let value = address.and_then(|address| to_raw_value(&address.value).ok());
        signed.push((field, value.ok_or_else(|| expires(row, field))?));
    }
    if signed.is_empty() {
        return Ok(Cow::Borrowed(row.json()));
    }
    let unreadable = |error| Pass::new(Reason::Store, format!("{}: {error}", row.key));
    let mut values: BTreeMap<Cow<str>, &RawValue> = serde_json::from_str(row.json()).map_err(unreadable)?;
    values.extend(signed.iter().map(|(field, value)| (Cow::Borrowed(*field), &**value)));
    serde_json::to_string(&values).map(Cow::Owned).map_err(unreadable)
}

impl Address {
    fn new(value: Value, received: Instant, now: Timestamp) -> Option<Self> {
        let text = value.to_string();
        let unsigned = serde_json::from_str(&signed_url::strip(DataType::Image, &text)?).ok()?;
        let url = value.as_str().or_else(|| value.get("url")?.as_str())?;
        let until = received.checked_add(half_of_validity(url, now)?)?;
        let bytes = BYTES_PER_ADDRESS + 2 * text.len() as u64;
        Some(Self { value, unsigned, bytes, until })
    }
}

/// Returns how long an address may be given again at the time `now` of the site.
fn half_of_validity(url: &str, now: Timestamp) -> Option<Duration> {
    let url = reqwest::Url::parse(url).ok()?;
    let value = |name: &str| url.query_pairs().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let seconds: u64 = value("X-Amz-Expires")?.parse().ok()?;
    let age = match value("X-Amz-Date") {
        Some(date) => {
            let signed = chrono::NaiveDateTime::parse_from_str(&date, "%Y%m%dT%H%M%SZ").ok()?;
            u64::try_from(now.0 - signed.and_utc().timestamp()).unwrap_or(0)
        }
        None => 0,
    };
    (seconds / 2).checked_sub(age).map(Duration::from_secs)
}

/// Tells whether an address is the same at every read: that of a file on disk or of a
/// web page.
fn is_lasting(value: &Value) -> bool {
    matches!(value.get("link_type").and_then(Value::as_str), Some("local" | "web" | "url"))
}

fn expires(row: &Row, field: &str) -> Pass {
    Pass::new(Reason::SignedUrl, format!("`{field}` of {} is an address that expires", row.key))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000);

    fn row(image: Value) -> Row {
        Row::new(
            EntityRef::new("Version", 7),
            json!({"code": "a", "image": image}).as_object().expect("fields").clone(),
        )
    }

    fn shown(cache: &AddressCache, stored: Value) -> Option<Value> {
        let row = row(stored);
        let text = complete(&row, &["image".into()], Some(cache)).ok()?;
        Some(serde_json::from_str::<Value>(&text).expect("JSON")["image"].clone())
    }

    #[test]
    fn an_address_is_given_again_while_the_row_shows_the_same_picture() {
        let cache = AddressCache::default();
        let signed = "https://media/7.jpg?X-Amz-Expires=900&X-Amz-Signature=ab";
        assert_eq!(shown(&cache, json!("https://media/7.jpg")), None);
        let answer = json!({"results": {"entities": [{"type": "Version", "id": 7, "image": signed}]}}).to_string();
        cache.learn(&"Version".into(), &["image".into()], answer.as_bytes(), NOW);
        assert_eq!(shown(&cache, json!("https://media/7.jpg")), Some(json!(signed)));
        assert_eq!(shown(&cache, json!("https://media/8.jpg")), None);
        assert_eq!(shown(&cache, Value::Null), Some(Value::Null));
        let web = json!({"link_type": "web", "url": "https://x/?token=a"});
        assert_eq!(shown(&cache, web.clone()), Some(web));
    }

    #[test]
    fn a_validity_beyond_all_time_is_not_kept() {
        let url = format!("https://media/7.jpg?X-Amz-Expires={}&X-Amz-Signature=ab", u64::MAX);
        assert!(Address::new(json!(url), Instant::now(), NOW).is_none());
    }

    #[test]
    fn it_is_kept_for_half_of_its_validity() {
        let half = |url: &str| half_of_validity(url, NOW).map(|half| half.as_secs());
        assert_eq!(half("https://m/a?X-Amz-Expires=900&X-Amz-Signature=1"), Some(450));
        // 2027-01-15T08:00:00Z is `NOW`.
        assert_eq!(half("https://m/a?X-Amz-Date=20270115T075500Z&X-Amz-Expires=900&X-Amz-Signature=1"), Some(150));
        assert_eq!(half("https://m/a?X-Amz-Date=20270115T074500Z&X-Amz-Expires=900&X-Amz-Signature=1"), None);
        assert_eq!(half("https://m/a?X-Amz-Date=yesterday&X-Amz-Expires=900&X-Amz-Signature=1"), None);
        assert_eq!(half("https://m/a?X-Amz-Signature=1"), None);
    }
}
