//! What an answer of the site proves about the credential of its request: pure.
//!
//! A credential is good only after a *successful* answer of a method that needs a
//! login. The absence of a refusal proves nothing: a site answers `info` to any caller,
//! checks the form of a request before its keys (codes 103 and 104), and says with codes
//! 106, 108 and 110 that it has not even looked at a password. Gateways answer pages of
//! their own, with any status.

use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::api3::Fault;

/// What an answer says about a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// The site accepted it.
    Accepted,
    /// The site refused it.
    Refused,
    /// Nothing.
    Absent,
}

/// The envelope of an answer. A key that occurs twice is an error: readers differ on
/// which one counts.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    results: Option<&'a RawValue>,
    #[serde(default)]
    exception: Option<IgnoredAny>,
    #[serde(borrow, default)]
    error_code: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Rows {
    #[serde(rename = "entities")]
    _entities: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct Summary {
    #[serde(rename = "summaries")]
    _summaries: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Written {
    #[serde(rename = "id")]
    _id: i64,
}

impl Proof {
    /// Reads what the answer to a request of this method proves.
    pub fn of(method: &str, status: StatusCode, body: &[u8]) -> Self {
        // A site answers calls with 200; another success is that of something before it.
        if status != StatusCode::OK {
            return Self::Absent;
        }
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(body) else { return Self::Absent };
        match envelope {
            Envelope { results: Some(results), exception: None, error_code: None } => {
                let accepted = is_success(method, results.get()) && !reports_failure(body, results.get());
                if accepted { Self::Accepted } else { Self::Absent }
            }
            Envelope { results: None, exception: Some(_), error_code: Some(code) } => {
                // Clients recognise integers only, as a site sends them.
                let refused = code.get().parse().is_ok_and(|code: i64| Fault::CREDENTIAL_REFUSED.contains(&code));
                if refused { Self::Refused } else { Self::Absent }
            }
            _ => Self::Absent,
        }
    }
}

/// Tells whether an answer with results reports a failure in another form than that of a site,
/// beside or within them.
fn reports_failure(body: &[u8], results: &str) -> bool {
    type Keys<'a> = std::collections::HashMap<std::borrow::Cow<'a, str>, IgnoredAny>;
    let signs = |key: &str| ["error", "exception", "message", "fault"].iter().any(|sign| key.contains(sign));
    let beside = serde_json::from_slice::<Keys<'_>>(body);
    beside.map_or(true, |keys| keys.keys().any(|key| signs(&key.to_ascii_lowercase())))
        // A created row may have a field that is called like a failure.
        || serde_json::from_str::<Keys<'_>>(results)
            .is_ok_and(|keys| keys.contains_key("error_code") || keys.contains_key("exception"))
}

/// Tells whether `results` have the form that the method gives to those who are logged in.
fn is_success(method: &str, results: &str) -> bool {
    fn has_form<'a, T: Deserialize<'a>>(text: &'a str) -> bool {
        serde_json::from_str::<T>(text).is_ok()
    }
    match method {
        "read" => has_form::<Rows>(results),
        "summarize" => has_form::<Summary>(results),
        "schema_read" | "schema_entity_read" | "schema_field_read" => {
            serde_json::from_str::<std::collections::HashMap<String, IgnoredAny>>(results)
                .is_ok_and(|types| !types.is_empty())
        }
        "create" | "update" => has_form::<Written>(results),
        "delete" | "revive" => has_form::<bool>(results),
        "batch" => serde_json::from_str::<Vec<IgnoredAny>>(results).is_ok_and(|done| !done.is_empty()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, body: &str) -> Proof {
        Proof::of(method, StatusCode::OK, body.as_bytes())
    }

    #[test]
    fn only_a_successful_answer_of_a_method_that_needs_a_login_accepts() {
        let good = [
            ("read", r#"{"results":{"entities":[],"paging_info":{}}}"#),
            ("summarize", r#"{"results":{"summaries":{"id":1},"groups":[]}}"#),
            ("schema_read", r#"{"results":{"Shot":{}}}"#),
            ("create", r#"{"results":{"type":"Shot","id":1}}"#),
            ("delete", r#"{"results":true}"#),
            ("batch", r#"{"results":[{"type":"Shot","id":1}]}"#),
        ];
        for (method, body) in good {
            assert_eq!(of(method, body), Proof::Accepted, "{method}");
            for status in [StatusCode::FOUND, StatusCode::UNAUTHORIZED, StatusCode::INTERNAL_SERVER_ERROR] {
                assert_eq!(Proof::of(method, status, body.as_bytes()), Proof::Absent, "{method} {status}");
            }
            for method in ["info", "get_session_token", "preferences_read", "follow"] {
                assert_eq!(of(method, body), Proof::Absent, "{method}");
            }
            let both = body.replacen('{', r#"{"exception":true,"error_code":104,"#, 1);
            assert_eq!(of(method, &both), Proof::Absent, "{both}");
            assert_eq!(of(method, &body[..body.len() - 1]), Proof::Absent, "cut off");
        }
    }

    #[test]
    fn odd_answers_prove_nothing() {
        let odd = [
            r#"{"errors":[{"status":401}],"results":{"entities":[]}}"#,
            r#"{"Exception":true,"ERROR_CODE":102,"results":{"entities":[]}}"#,
            r#"{"message":"no","results":{"entities":[]}}"#,
            r#"{"results":{"entities":[],"exception":true,"error_code":110}}"#,
            "",
            "{}",
            "[]",
            "null",
            "<html></html>",
            r#"{"results":null}"#,
            r#"{"results":{}}"#,
            r#"{"results":[]}"#,
            r#"{"results":{"entities":null}}"#,
            r#"{"results":{"entities":[]},"results":{"entities":[]}}"#,
            r#"[{"results":{"entities":[]}}]"#,
            r#"{"exception":true,"error_code":"102","message":"no"}"#,
            r#"{"exception":true,"message":"no"}"#,
            r#"{"error_code":102}"#,
        ];
        for body in odd {
            assert_eq!(of("read", body), Proof::Absent, "{body}");
        }
    }

    #[test]
    fn of_the_faults_those_that_name_the_credential_refuse_it() {
        for code in 100..=111 {
            let body = format!(r#"{{"exception":true,"error_code":{code},"message":"no"}}"#);
            let expected = if [102, 106, 108, 110].contains(&code) { Proof::Refused } else { Proof::Absent };
            assert_eq!(of("read", &body), expected, "{code}");
            assert_eq!(of("info", &body), expected, "{code}");
        }
    }
}
