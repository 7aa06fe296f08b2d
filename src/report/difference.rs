//! A difference that shadow mode has seen, as a document among the mismatches.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use ulid::Ulid;

use super::documents::{Document, Stream, Wording, wrap};

/// An answer of the cache that would not have been that of the site.
#[derive(Debug, Clone, Copy)]
pub struct ShadowDifference<'a> {
    /// The process that has seen it.
    pub instance: &'a str,
    /// What differs, such as `values` or `order`.
    pub class: &'a str,
    /// The method.
    pub method: &'a str,
    /// What was asked.
    pub argument: &'a Value,
    /// What the site said.
    pub site: &'a str,
    /// What the cache would have said.
    pub cache: &'a str,
}

impl ShadowDifference<'_> {
    /// Returns the document; `sgcache.mismatch.kind` is `shadow`.
    pub fn document(&self, at: DateTime<Utc>, wording: &Wording) -> Document {
        let value = |text: &str| wording.values.then(|| text.to_owned());
        let mut body = json!({
            "event": {
                "kind": "event", "dataset": "sgcache.mismatch", "type": ["info"],
                "action": "shadow", "outcome": "success",
            },
            "sgcache": {
                "entity": {"type": self.argument["type"]},
                "mismatch": {
                    "kind": "shadow", "class": self.class, "action": self.method,
                    "question": value(&self.argument.to_string()),
                    "source_value": value(self.site), "cache_value": value(self.cache),
                },
            },
        });
        wrap(&mut body, wording, at, env!("CARGO_PKG_VERSION"), self.instance);
        Document { stream: Stream::Mismatch, index: None, id: Ulid::new().to_string(), at, body }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    #[test]
    fn a_difference_says_what_differs_and_values_only_when_they_may_be_told() {
        let argument = json!({"type": "Shot", "filters": {"conditions": ["secret"]}});
        let seen = ShadowDifference {
            instance: "host:1",
            class: "values",
            method: "read",
            argument: &argument,
            site: "a secret",
            cache: "an older secret",
        };
        let at = Utc.with_ymd_and_hms(2026, 11, 26, 2, 0, 0).unwrap();
        let document = seen.document(at, &Wording::new("studio"));
        assert_eq!(document.body["sgcache"]["entity"]["type"], "Shot");
        assert_eq!(document.body["sgcache"]["mismatch"]["source_value"], "a secret");
        assert_ne!(document.id, seen.document(at, &Wording::new("studio")).id, "each one is another");
        let discreet = seen.document(at, &Wording { site: "studio".into(), values: false });
        assert!(!discreet.body.to_string().contains("secret"), "{}", discreet.body);
        assert_eq!(discreet.body["sgcache"]["mismatch"]["class"], "values");
    }
}
