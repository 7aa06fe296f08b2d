//! One call to the server: method, path, body, and how it may be treated.

use bytes::Bytes;
use elasticsearch::http::Method;
use serde::Serialize;

/// One call to the server.
///
/// `get`, `put` and `delete` may be repeated after a failure whose effect is not
/// known; `post` only when the call says so with [`Call::repeatable`].
#[derive(Debug, Clone)]
pub struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Bytes>,
    pub(super) patience: Patience,
    pub(super) repeatable: bool,
    pub(super) accepted: &'static [u16],
    pub(super) invalid: Option<String>,
}

/// Which of the timeouts applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    Search,
    Bulk,
    Other,
}

impl Call {
    fn new(method: Method, path: impl Into<String>, repeatable: bool) -> Self {
        Self {
            method,
            path: path.into(),
            query: Vec::new(),
            body: None,
            patience: Patience::Other,
            repeatable,
            accepted: &[],
            invalid: None,
        }
    }

    /// A `GET` of `path`.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::Get, path, true)
    }

    /// A `PUT` to `path`.
    pub fn put(path: impl Into<String>) -> Self {
        Self::new(Method::Put, path, true)
    }

    /// A `POST` to `path`, made once unless [`Call::repeatable`] or [`Call::search`] is said.
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::Post, path, false)
    }

    /// A `DELETE` of `path`. A repeated one may find the thing gone: accept 404.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::Delete, path, true)
    }

    /// Adds a parameter to the query string.
    pub fn param(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    /// Sets the body to `value` as JSON.
    pub fn json(mut self, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => self.body = Some(bytes.into()),
            Err(error) => self.invalid = Some(error.to_string()),
        }
        self
    }

    /// Sets the body to bytes that are JSON, or lines of JSON, already.
    pub fn raw(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Says that the call only reads, and may take as long as a search.
    pub fn search(mut self) -> Self {
        self.patience = Patience::Search;
        self.repeatable = true;
        self
    }

    /// Says that the call may take as long as a bulk request.
    pub fn patient(mut self) -> Self {
        self.patience = Patience::Bulk;
        self
    }

    /// Says that doing it twice is the same as doing it once.
    pub fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    /// Takes these statuses, from 400 up, as answers and not as errors.
    pub fn accept(mut self, statuses: &'static [u16]) -> Self {
        self.accepted = statuses;
        self
    }

    /// Tells whether the call may change what the cluster holds. A refresh only shows
    /// what was written before.
    pub(super) fn writes(&self) -> bool {
        match self.method {
            Method::Get | Method::Head => false,
            Method::Post => self.patience != Patience::Search && !self.path.ends_with("/_refresh"),
            Method::Put | Method::Delete => true,
        }
    }

    pub(super) fn method_name(&self) -> &'static str {
        match self.method {
            Method::Get => "GET",
            Method::Put => "PUT",
            Method::Post => "POST",
            Method::Delete => "DELETE",
            Method::Head => "HEAD",
        }
    }
}
