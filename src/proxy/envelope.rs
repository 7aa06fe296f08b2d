//! Reads the envelope of a request: its method, who sends it, and its argument.
//!
//! The envelope itself costs no more than its length, whatever is in it; a tree is
//! built of the argument only, within the bounds of [`api3::json`]. What those exclude
//! is passed to the site as the method that it is, unread.
//!
//! A key that occurs twice, in the envelope or among the credentials, is an error: readers
//! of JSON differ on which one counts, so the site could answer one caller and the cache
//! take it for another.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::reason::{Pass, Reason};
use crate::api3::{self, Auth, Request};

/// The longest credentials that are read, in bytes.
const MAX_AUTH_BYTES: usize = 16 << 10;

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The request; its argument is null when it was not read.
    pub request: Request,
    /// Whether it had keys or parameters that nothing here knows.
    pub odd: bool,
    /// Why the argument was not read, if it was not.
    pub unread: Option<String>,
}

impl Asked {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// A pass: whatever is wrong with it, the site says so in its own words.
    pub fn parse(body: &[u8]) -> Result<Self, Pass> {
        Self::parse_if(body, |_, _| true)
    }

    /// Reads a body, and its argument only if `wanted` (of its method and credentials).
    ///
    /// # Errors
    ///
    /// As [`Self::parse`].
    pub fn parse_if(body: &[u8], wanted: impl FnOnce(&str, Option<&Auth>) -> bool) -> Result<Self, Pass> {
        let malformed = |words: String| Pass::new(Reason::Malformed, words);
        let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(|error| malformed(error.to_string()))?;
        let (Some(method), Some(params)) = (envelope.method, envelope.params) else {
            return Err(malformed("a request has `method_name` and `params`".to_owned()));
        };
        let odd = envelope.odd || params.more;
        let auth = params.auth.map(auth).transpose().map_err(malformed)?;
        let (argument, unread) = match params.argument {
            None => (Value::Null, None),
            Some(_) if !wanted(&method, auth.as_ref()) => (Value::Null, Some("who sends it is not known".to_owned())),
            Some(text) => match api3::json::parse(text.get().as_bytes()) {
                Ok(argument) => (argument, None),
                Err(error) => (Value::Null, Some(error.to_string())),
            },
        };
        Ok(Self { request: Request { method, auth, argument }, odd, unread })
    }
}

fn auth(text: &RawValue) -> Result<Auth, String> {
    if text.get().len() > MAX_AUTH_BYTES {
        return Err(format!("the credentials are longer than {MAX_AUTH_BYTES} bytes"));
    }
    serde_json::from_str(text.get()).map_err(|error| error.to_string())
}

#[derive(Default)]
struct Envelope<'a> {
    method: Option<String>,
    params: Option<Params<'a>>,
    odd: bool,
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object with `method_name` and `params`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let (mut envelope, mut seen) = (Envelope::default(), (false, false));
        while let Some(key) = map.next_key::<String>()? {
            // What is of another kind is as good as missing.
            match key.as_str() {
                "method_name" if seen.0 => return Err(Error::duplicate_field("method_name")),
                "params" if seen.1 => return Err(Error::duplicate_field("params")),
                "method_name" => {
                    seen.0 = true;
                    envelope.method = serde_json::from_str(map.next_value::<&RawValue>()?.get()).ok();
                }
                "params" => {
                    seen.1 = true;
                    envelope.params = serde_json::from_str(map.next_value::<&RawValue>()?.get()).ok();
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    envelope.odd = true;
                }
            }
        }
        Ok(envelope)
    }
}

#[derive(Default)]
struct Params<'a> {
    auth: Option<&'a RawValue>,
    argument: Option<&'a RawValue>,
    more: bool,
}

impl<'de> Deserialize<'de> for Params<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_seq(ParamsVisitor)
    }
}

struct ParamsVisitor;

impl<'de> Visitor<'de> for ParamsVisitor {
    type Value = Params<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of credentials and an argument")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Params<'de>, A::Error> {
        let (auth, argument) = (list.next_element()?, list.next_element()?);
        let mut more = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            more = true;
        }
        Ok(Params { auth, argument, more })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reason(body: &str) -> Option<Reason> {
        Asked::parse(body.as_bytes()).err().map(|pass| pass.reason)
    }

    #[test]
    fn a_key_that_occurs_twice_is_refused_and_unknown_ones_are_noted() {
        for body in [
            r#"{"method_name":"read","params":[{}],"params":[{}]}"#,
            r#"{"method_name":"info","method_name":"read","params":[]}"#,
            r#"{"method_name":"read","params":[{"script_key":"a","script_key":"b"}]}"#,
            r#"{"method_name":"read","params":[{"script_key":"a","script\u005fkey":"b"}]}"#,
        ] {
            assert_eq!(reason(body), Some(Reason::Malformed), "{body}");
        }
        let body = r#"{"method_name": "read", "params": [{}, {"a": [1]}], "z": [[]]}"#;
        let asked = Asked::parse(body.as_bytes()).expect("a request");
        assert_eq!((asked.request.method.as_str(), asked.odd), ("read", true));
        assert_eq!(asked.request.argument, json!({"a": [1]}));
        let more = Asked::parse(br#"{"method_name": "read", "params": [{}, 1, 2]}"#).expect("a request");
        assert!(more.odd);
    }

    #[test]
    fn what_is_no_request_is_malformed() {
        let long = "x".repeat(MAX_AUTH_BYTES);
        for body in [
            "",
            "[]",
            "{",
            r#"{"method_name": 1, "params": []}"#,
            r#"{"method_name": "read", "params": {}}"#,
            r#"{"method_name": "read"}"#,
            r#"{"method_name": "read", "params": ["me"]}"#,
            r#"{"method_name": "read", "params": []} x"#,
            &format!(r#"{{"method_name": "read", "params": [{{"script_name": "{long}"}}]}}"#),
        ] {
            assert_eq!(reason(body), Some(Reason::Malformed), "{body}");
        }
    }

    #[test]
    fn an_argument_too_large_or_not_wanted_is_not_read_but_its_method_is_known() {
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        let body = format!(r#"{{"method_name": "read", "params": [{{}}, {deep}]}}"#);
        let asked = Asked::parse(body.as_bytes()).expect("a request");
        assert_eq!((asked.request.method.as_str(), &asked.request.argument), ("read", &Value::Null));
        assert!(asked.unread.is_some_and(|words| words.contains("1000 levels")));
        let body = br#"{"method_name": "read", "params": [{"script_name": "x"}, {"type": "Shot"}]}"#;
        let asked = Asked::parse_if(body, |method, auth| method == "read" && auth.is_none()).expect("a request");
        assert!(asked.unread.is_some() && asked.request.argument.is_null());
    }

    #[test]
    fn groups_are_read_as_deep_as_sites_take_them() {
        let mut filter = json!({"path": "id", "relation": "greater_than", "values": [0]});
        for _ in 0..265 {
            filter = json!({"logical_operator": "and", "conditions": [filter]});
        }
        let body = json!({"method_name": "read", "params": [{}, {"type": "Shot", "filters": filter}]}).to_string();
        assert_eq!(Asked::parse(body.as_bytes()).expect("a request").unread, None);
    }
}
