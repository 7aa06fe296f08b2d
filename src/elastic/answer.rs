//! One answer of the server: status and body, kept together and read leniently.
//!
//! Servers of five lines (7, 8, 9, OpenSearch 2 and 3) answer here, and proxies
//! in front of them: nothing is assumed about a body before it was looked at.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{Error, ErrorKind, Result};
use crate::redaction::Redaction;

/// One answer that can be used: a 2xx, or a status that the call accepts.
#[derive(Debug, Clone)]
pub struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
    pub(super) call: String,
    pub(super) is_elasticsearch: bool,
    pub(super) redaction: Redaction,
}

impl Answer {
    /// Returns the HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns true for a 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the body as it came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Parses the body.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`] when the body is not what `T` expects.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let reason = format!("the answer cannot be read: {error}: {}", self.excerpt());
            Error::new(ErrorKind::Malformed, reason).with_call(self.call.clone()).with_status(self.status, None)
        })
    }

    /// Parses the body as any JSON; an empty body is `null`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Malformed`] when the body is not JSON.
    pub fn value(&self) -> Result<Value> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        self.json()
    }

    /// Turns the answer into the error that it would have been, had the call not accepted its status.
    pub fn into_error(self) -> Error {
        let (error_type, reason) = self.reason();
        Error::new(kind_of_status(self.status), reason).with_call(self.call).with_status(self.status, error_type)
    }

    /// Returns the server's word for an error and its explanation, without the credentials.
    pub(super) fn reason(&self) -> (Option<String>, String) {
        reason(&self.redaction.apply(&self.body))
    }

    /// Returns the beginning of the body, without the credentials.
    pub(super) fn excerpt(&self) -> String {
        excerpt(&self.redaction.apply(&self.body))
    }
}

/// Returns true when `body` may be JSON of a server: empty, an object or a list.
pub(super) fn looks_like_json(body: &[u8]) -> bool {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    matches!(first, None | Some(b'{' | b'['))
}

/// Returns the server's word for an error and its explanation, as far as the body has them.
fn reason(body: &[u8]) -> (Option<String>, String) {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return (None, excerpt(body));
    };
    reason_of(value.get("error").unwrap_or(&value)).unwrap_or_else(|| (None, excerpt(body)))
}

/// Reads `{"type", "reason", "root_cause", "caused_by"}`, or a plain string as some refusals are.
///
/// The cause that says most is the deepest: a shard failure says only "all shards failed".
pub(super) fn reason_of(error: &Value) -> Option<(Option<String>, String)> {
    if let Some(text) = error.as_str() {
        return Some((None, text.to_owned()));
    }
    let error_type = error.get("type").and_then(Value::as_str)?;
    let mut reasons = vec![error.get("reason").and_then(Value::as_str).unwrap_or("no reason given").to_owned()];
    let mut cause = error.pointer("/root_cause/0").or_else(|| error.get("caused_by"));
    while let Some(current) = cause {
        let text = current.get("reason").and_then(Value::as_str).unwrap_or_default();
        if !text.is_empty() && !reasons.iter().any(|reason| reason.contains(text)) {
            reasons.push(text.to_owned());
        }
        cause = current.get("caused_by");
    }
    Some((Some(error_type.to_owned()), reasons.join(": ")))
}

/// Returns what a status means when nothing else is known.
pub(super) fn kind_of_status(status: u16) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        413 => ErrorKind::TooLarge,
        429 => ErrorKind::Overloaded,
        500.. => ErrorKind::Fault,
        _ => ErrorKind::Refused,
    }
}

/// Returns the first 200 bytes of a body as one line.
fn excerpt(body: &[u8]) -> String {
    if body.is_empty() {
        return "no explanation given".to_owned();
    }
    if body.trim_ascii_start().starts_with(b"<") {
        return "a page of HTML".to_owned();
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
    let words: Vec<&str> = text.split_whitespace().collect();
    let dots = if body.len() > 200 { "..." } else { "" };
    format!("`{}{dots}`", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_refusal_is_found_in_every_form_servers_use() {
        let nested = br#"{"error":{"root_cause":[{"type":"x","reason":"deep"}],"type":"search_phase_execution_exception",
            "reason":"all shards failed","caused_by":{"type":"x","reason":"deep","caused_by":{"type":"y","reason":"deeper"}}},"status":400}"#;
        assert_eq!(reason(nested), (Some("search_phase_execution_exception".into()), "all shards failed: deep".into()));
        let plain = br#"{"error":"Incorrect HTTP method for uri [/x], allowed: [DELETE]","status":405}"#;
        assert_eq!(reason(plain), (None, "Incorrect HTTP method for uri [/x], allowed: [DELETE]".into()));
        assert_eq!(reason(b""), (None, "no explanation given".into()));
        assert_eq!(reason(b"<html>\n  gone</html>"), (None, "a page of HTML".into()));
    }

    #[test]
    fn html_is_not_taken_for_an_answer() {
        assert!(!looks_like_json(b"<html>"));
        assert!(looks_like_json(b" {}"));
        assert!(looks_like_json(b""));
    }
}
