//! Addresses that are secrets: a signed one gives access to the file behind it.
//!
//! A site signs the addresses of its pictures and uploaded files anew at every read,
//! in the query (`X-Amz-Signature`, `Signature`, `token`, ...). They are stored without
//! it, and whatever quotes a text of a site shows `***` instead. An address that a
//! person typed into a link field is data, and stored as it is.

use std::borrow::Cow;

use serde_json::Value;

use super::DataType;

/// Keys of a query whose values open something, in lower case; also every key that
/// begins with `x-amz-`.
const SECRET_KEYS: &[&str] = &[
    "access_token",
    "auth_token",
    "awsaccesskeyid",
    "key-pair-id",
    "policy",
    "session_token",
    "sig",
    "signature",
    "token",
    "x-goog-credential",
    "x-goog-signature",
];
/// What stands in the place of a secret.
const REDACTED: &str = "***";

/// Returns the JSON text of a picture or an uploaded file without the query that signs
/// its address; `None` when there is nothing to leave out.
pub fn strip(data_type: DataType, json: &str) -> Option<String> {
    if !matches!(data_type, DataType::Image | DataType::Url) || matches!(redact(json), Cow::Borrowed(_)) {
        return None;
    }
    let mut value: Value = serde_json::from_str(json).ok()?;
    match &mut value {
        Value::String(url) => strip_query(url),
        Value::Object(link) => {
            // Links to files on disk and to web pages were typed by a person.
            if matches!(link.get("link_type").and_then(Value::as_str), Some("local" | "web" | "url")) {
                return None;
            }
            if let Some(Value::String(url)) = link.get_mut("url") {
                strip_query(url);
            }
        }
        _ => return None,
    }
    Some(value.to_string())
}

fn strip_query(url: &mut String) {
    if let Some(at) = url.find('?') {
        url.truncate(at);
    }
}

/// Returns a text with the secrets in its addresses replaced.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut redacted = String::new();
    let mut copied = 0;
    for at in memchr::memchr_iter(b'=', text.as_bytes()) {
        if at < copied || !is_secret(&text[..at]) {
            continue;
        }
        let value = &text[at + 1..];
        let length = value.find(ends_value).unwrap_or(value.len());
        redacted.push_str(&text[copied..=at]);
        redacted.push_str(REDACTED);
        copied = at + 1 + length;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    redacted.push_str(&text[copied..]);
    Cow::Owned(redacted)
}

/// Returns a value with the secrets in all its texts replaced.
pub fn redact_value(value: Value) -> Value {
    match value {
        Value::String(text) => match redact(&text) {
            Cow::Owned(redacted) => Value::String(redacted),
            Cow::Borrowed(_) => Value::String(text),
        },
        Value::Array(list) => list.into_iter().map(redact_value).collect(),
        Value::Object(object) => object.into_iter().map(|(key, value)| (key, redact_value(value))).collect(),
        other => other,
    }
}

/// Tells whether a text ends in a key of a query whose value is secret.
fn is_secret(text: &str) -> bool {
    let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let key_at = text.rfind(|c| !is_key(c)).map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    let (before, key) = text.split_at(key_at);
    // Some writers of JSON put `\u0026` for `&`, which then looks like a part of the key.
    let key = key.strip_prefix("u0026").filter(|_| before.ends_with('\\')).unwrap_or(key).to_ascii_lowercase();
    let in_query = before.ends_with(['?', '&', ';', '\\']);
    in_query && (key.starts_with("x-amz-") || SECRET_KEYS.contains(&key.as_str()))
}

fn ends_value(c: char) -> bool {
    c.is_whitespace() || matches!(c, '&' | '"' | '\'' | '\\' | '<' | '>' | '#' | ')' | ';' | ',')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SIGNED: &str = "https://media/1.png?X-Amz-Date=2026&X-Amz-Signature=s3cret&x=1";

    #[test]
    fn secrets_in_addresses_are_replaced_and_nothing_else() {
        assert_eq!(redact(SIGNED), "https://media/1.png?X-Amz-Date=***&X-Amz-Signature=***&x=1");
        assert_eq!(redact("see (https://a/b?token=abc) and c"), "see (https://a/b?token=***) and c");
        assert_eq!(
            redact(r#"{"u":"https://a?x=1\u0026Signature=abc"}"#),
            r#"{"u":"https://a?x=1\u0026Signature=***"}"#
        );
        for plain in ["", "a=b", "token=abc outside of an address", "https://a/?tokens=3", "é?=1&=2"] {
            assert!(matches!(redact(plain), Cow::Borrowed(_)), "{plain}");
        }
        assert_eq!(redact_value(json!({"a": [SIGNED, 1]}))["a"][0], json!(redact(SIGNED)));
    }

    #[test]
    fn pictures_and_uploads_lose_their_signature_and_typed_links_do_not() {
        let text = |value: Value| value.to_string();
        let image = strip(DataType::Image, &text(json!(SIGNED)));
        assert_eq!(image, Some(text(json!("https://media/1.png"))));
        let upload = json!({"link_type": "upload", "name": "a", "url": SIGNED});
        let stripped = json!({"link_type": "upload", "name": "a", "url": "https://media/1.png"});
        assert_eq!(strip(DataType::Url, &text(upload)), Some(text(stripped)));
        let typed = json!({"link_type": "web", "name": "a", "url": SIGNED});
        assert_eq!(strip(DataType::Url, &text(typed)), None);
        assert_eq!(strip(DataType::Text, &text(json!(SIGNED))), None);
        assert_eq!(strip(DataType::Image, "null"), None);
    }
}
