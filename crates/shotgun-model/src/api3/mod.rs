//! The `/api3/json` wire form, both ways.
//!
//! Requests are `{"method_name", "params": [auth, argument]}`, answers
//! `{"results": ...}` or, also with HTTP status 200, a [`Fault`]. Who sends and
//! who answers is not known here. Unknown keys are accepted everywhere, as a site
//! accepts them.

mod auth;
pub mod json;
mod read;
mod row;
mod summarize;
mod write;

use serde_json::{Value, json};

pub use auth::Auth;
pub use read::{Paging, PagingInfo, Read, ReadAnswer};
pub use row::{AnswerRow, RowText};
pub use summarize::{Grouping, Summarize, SummaryField};
pub use write::{BatchItem, Create, Delete, FieldWrite, Revive, Update, UpdateMode};

/// The path of the endpoint below the address of a site.
pub const PATH: &str = "/api3/json";

/// A refusal in the words of a site.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct Fault {
    /// The number that the official client maps to an exception.
    pub code: i64,
    /// The words, with `API <method>() ` in front where a site has it.
    pub message: String,
}

impl Fault {
    /// Credentials that the site does not accept.
    pub const AUTHENTICATION: i64 = 102;
    /// Codes that say that the credential was refused: 102 wrong or expired, 106 a second
    /// factor is missing, 108 and 110 the site takes no passwords.
    pub const CREDENTIAL_REFUSED: [i64; 4] = [Self::AUTHENTICATION, 106, 108, 110];
    /// A request that the site cannot read.
    pub const MALFORMED: i64 = 103;
    /// Data that the site does not accept.
    pub const DATA: i64 = 104;

    /// Makes a fault.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Makes a fault about a request that cannot be read.
    pub fn malformed(method: &str, message: impl std::fmt::Display) -> Self {
        Self::new(Self::MALFORMED, format!("API {method}() {message}"))
    }

    /// Makes a fault about data.
    pub fn data(method: &str, message: impl std::fmt::Display) -> Self {
        Self::new(Self::DATA, format!("API {method}() {message}"))
    }

    /// Returns the answer that carries the fault.
    pub fn to_wire(&self) -> Value {
        json!({"exception": true, "message": self.message, "error_code": self.code})
    }

    /// Tells whether the credentials were refused.
    pub fn is_authentication(&self) -> bool {
        self.code == Self::AUTHENTICATION
    }

    /// Tells whether who asked was known and may not do this. Sites have no code of
    /// its own for it; they name the rule that forbids it.
    pub fn is_permission(&self) -> bool {
        ["PermissionRule", " by this user", "does not have permission"].iter().any(|words| self.message.contains(words))
    }
}

/// A request as a site receives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The method, such as `read`.
    pub method: String,
    /// Who asks; `None` only for `info`.
    pub auth: Option<Auth>,
    /// The argument; null for methods without one.
    pub argument: Value,
}

impl Request {
    /// Reads the body of a request.
    ///
    /// # Errors
    ///
    /// A [`Fault`] when the body is no JSON object with `method_name` and a list
    /// of `params`.
    pub fn parse(body: &[u8]) -> Result<Self, Fault> {
        let body: Value = json::parse(body)
            .map_err(|error| Fault::new(Fault::MALFORMED, format!("invalid JSON in the request: {error}")))?;
        let Some(method) = body.get("method_name").and_then(Value::as_str) else {
            return Err(Fault::new(Fault::MALFORMED, "'method_name' missing"));
        };
        let Some(params) = body.get("params").and_then(Value::as_array) else {
            return Err(Fault::malformed(method, "'params' must be an array"));
        };
        let auth = params.first().map(Auth::from_wire).transpose().map_err(|words| Fault::malformed(method, words))?;
        Ok(Self { method: method.to_owned(), auth, argument: params.get(1).cloned().unwrap_or_default() })
    }

    /// Returns the body to send.
    pub fn to_wire(&self) -> Value {
        let mut params = Vec::new();
        if let Some(auth) = &self.auth {
            params.push(auth.to_wire());
            if !self.argument.is_null() {
                params.push(self.argument.clone());
            }
        }
        json!({"method_name": self.method, "params": params})
    }
}

/// Reads the body of an answer: the results, or the body itself where a site
/// sends it unwrapped (`info`).
///
/// # Errors
///
/// The [`Fault`] that the site answered.
pub fn results(mut body: Value) -> Result<Value, Fault> {
    if body.get("exception").and_then(Value::as_bool) == Some(true) {
        return Err(Fault {
            code: body.get("error_code").and_then(Value::as_i64).unwrap_or_default(),
            message: body.get("message").and_then(Value::as_str).unwrap_or("Unknown Error").to_owned(),
        });
    }
    match body.get_mut("results") {
        Some(results) => Ok(results.take()),
        None => Ok(body),
    }
}

/// Decodes a value of a row as the Python client does: a site stores `<` in a text as
/// `&lt;`. Other character references, and texts inside of links, stay as they are.
pub fn decoded_value(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains("&lt;") => Value::String(text.replace("&lt;", "<")),
        other => other,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
