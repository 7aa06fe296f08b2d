//! Picks fields out of a document without parsing the others.
//!
//! Copying the bytes of the wanted values takes 3 us for a document of 1.7 KB,
//! parsing it 13.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::{Result, StoreError, StoreErrorKind};
use super::put::decode;

/// Returns the text of the wanted fields of a document, in their order; `None`
/// for those that it lacks. `wanted` is sorted.
pub(super) fn pick<'a>(body: &'a [u8], wanted: &[String]) -> Result<Vec<Option<&'a str>>> {
    let damaged = |error| StoreError::new(StoreErrorKind::Corrupt, "a document of the store is damaged").because(error);
    let mut text = serde_json::Deserializer::from_slice(decode(body)?);
    let found = Pick { wanted }.deserialize(&mut text).map_err(damaged)?;
    Ok(found.into_iter().map(|raw| raw.map(RawValue::get)).collect())
}

struct Pick<'w> {
    wanted: &'w [String],
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let mut found = vec![None; self.wanted.len()];
        while let Some(place) = map.next_key_seed(Key { wanted: self.wanted })? {
            match place {
                Some(place) => found[place] = Some(map.next_value::<&RawValue>()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// Reads a key as its place among the wanted ones.
struct Key<'w> {
    wanted: &'w [String],
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> std::result::Result<Self::Value, E> {
        Ok(self.wanted.binary_search_by(|wanted| wanted.as_str().cmp(key)).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_fields_keep_their_bytes() {
        let body = b"\x01{\"a\":1.50,\"b\":{\"x\":[1, 2]},\"c\":\"\\u00e9\"}";
        let wanted = ["a", "c", "z"].map(str::to_owned);
        let picked = pick(body, &wanted).map_err(|error| error.to_string());
        assert_eq!(picked, Ok(vec![Some("1.50"), Some("\"\\u00e9\""), None]));
        assert_eq!(pick(b"\x02{}", &wanted).map_err(|error| error.kind()), Err(StoreErrorKind::Corrupt));
    }
}
