//! [`Redaction`]: takes the secrets of a request out of what its server answers.
//!
//! Debug pages, gateways and firewalls quote the request that they refuse, and an error
//! quotes them. Only answers that become an error pass through here, never data: a
//! row that happens to hold the text of a short password stays as it is.

use std::borrow::Cow;
use std::sync::Arc;

/// What stands in the place of a secret.
const REDACTED: &[u8] = b"***";
/// A shorter text occurs in any answer by chance, and replacing it would make errors unreadable.
const MIN_SECRET_BYTES: usize = 4;

/// Secrets in the forms in which they are sent and quoted. Clones share them; they are never printed.
#[derive(Clone, Default)]
pub struct Redaction(Arc<[String]>);

impl Redaction {
    /// Replaces these texts, and the same as JSON quotes them.
    pub fn of<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Self {
        let mut forms = Vec::new();
        for secret in secrets.into_iter().filter(|secret| secret.len() >= MIN_SECRET_BYTES) {
            let quoted = serde_json::Value::from(secret).to_string();
            forms.extend([secret.to_owned(), quoted.trim_matches('"').to_owned()]);
        }
        // The longest first: a secret may be a part of another one.
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        Self(forms.into())
    }

    /// Returns an answer without the secrets; borrowed when it quotes none.
    pub fn apply<'b>(&self, answer: &'b [u8]) -> Cow<'b, [u8]> {
        let mut clean = Cow::Borrowed(answer);
        for secret in self.0.iter() {
            if let Some(replaced) = replaced(&clean, secret.as_bytes()) {
                clean = Cow::Owned(replaced);
            }
        }
        clean
    }
}

impl std::fmt::Debug for Redaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redaction(***)")
    }
}

fn replaced(bytes: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    let mut clean = Vec::new();
    let mut copied = 0;
    for at in memchr::memmem::find_iter(bytes, secret) {
        clean.extend_from_slice(&bytes[copied..at]);
        clean.extend_from_slice(REDACTED);
        copied = at + secret.len();
    }
    (copied > 0).then(|| [clean.as_slice(), &bytes[copied..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(secrets: &[&str], text: &str) -> String {
        let clean = Redaction::of(secrets.iter().copied()).apply(text.as_bytes()).into_owned();
        String::from_utf8(clean).expect("UTF-8")
    }

    #[test]
    fn secrets_are_replaced_as_they_are_and_as_json_quotes_them() {
        assert_eq!(redacted(&["s3cret"], "a s3cret, s3cret"), "a ***, ***");
        assert_eq!(redacted(&["a\"b\\c"], r#"{"key": "a\"b\\c"} a"b\c"#), r#"{"key": "***"} ***"#);
        assert_eq!(redacted(&["abcd", "abcdef"], "abcdef abcd"), "*** ***", "a secret within another one");
        assert_eq!(redacted(&["s3cret"], "nothing"), "nothing");
    }

    #[test]
    fn very_short_secrets_do_not_make_answers_unreadable() {
        assert_eq!(redacted(&["", "a", "no"], "no answer"), "no answer");
    }
}
