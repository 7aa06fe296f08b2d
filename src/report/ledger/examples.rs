//! Requests that went to the site although a change of the configuration could let the
//! cache answer them: what advice is replayed from.
//!
//! Values of conditions are replaced before a request comes here, so nothing of the data
//! of a production is kept. Bounded: what is beyond the bounds is counted without its
//! request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Requests of a day.
const MAX_EXAMPLES: usize = 128;
/// Bytes that they take together.
const MAX_BYTES: usize = 96 << 10;
/// Bytes of one.
const MAX_EXAMPLE_BYTES: usize = 8 << 10;

/// One request that the site answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The method.
    pub method: String,
    /// Who asked, as in the access log.
    pub caller: String,
    /// Its argument, without the values of conditions.
    pub argument: Value,
}

/// The requests of a day, and how often each came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Examples {
    /// By their text.
    calls: BTreeMap<String, u64>,
    /// Requests beyond the bounds.
    pub unlisted: u64,
}

impl Examples {
    /// Adds a request and the number of its calls.
    pub fn add(&mut self, example: &Example, calls: u64) {
        // A map with text keys: this cannot fail.
        self.add_text(serde_json::to_string(example).unwrap_or_default(), calls);
    }

    /// Adds those of another day or process.
    pub fn merge(&mut self, other: &Self) {
        self.unlisted += other.unlisted;
        other.calls.iter().for_each(|(text, calls)| self.add_text(text.clone(), *calls));
    }

    /// Returns every request with the number of its calls.
    pub fn iter(&self) -> impl Iterator<Item = (Example, u64)> {
        let parse = |(text, calls): (&String, &u64)| Some((serde_json::from_str(text).ok()?, *calls));
        self.calls.iter().filter_map(parse)
    }

    fn add_text(&mut self, text: String, calls: u64) {
        if let Some(known) = self.calls.get_mut(&text) {
            *known += calls;
            return;
        }
        let bytes: usize = self.calls.keys().map(String::len).sum();
        let fits = text.len() <= MAX_EXAMPLE_BYTES && bytes + text.len() <= MAX_BYTES;
        if fits && self.calls.len() < MAX_EXAMPLES {
            self.calls.insert(text, calls);
        } else {
            self.unlisted += calls;
        }
    }
}
