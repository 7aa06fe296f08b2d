//! Why a call to Elasticsearch gave no usable answer.
//!
//! The words that matter to a person (`UnknownIssuer`, `Connection refused`)
//! stand at the end of the chain of sources, so the chain is part of the message.
//! Credentials never are: they were taken out of the URL before.

use std::error::Error as StdError;
use std::fmt;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call gave no usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    call: Option<String>,
    status: Option<u16>,
    error_type: Option<String>,
    reason: String,
    attempts: u32,
}

/// What kind of failure it was, for code that decides on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The configuration is unusable: a bad URL, an unreadable certificate.
    Settings,
    /// No connection, or it broke.
    Unreachable,
    /// The certificate of the server was not accepted.
    Tls,
    /// No answer in time.
    Timeout,
    /// Credentials are missing, wrong or not enough (401, 403).
    Denied,
    /// The index, alias or document is not there (404).
    NotFound,
    /// The server does not take a body of that size (413).
    TooLarge,
    /// The server is too busy (429).
    Overloaded,
    /// The server understood and said no (other 4xx).
    Refused,
    /// The server failed (5xx).
    Fault,
    /// The call would write, and this process may only read now; nothing was sent.
    ReadOnly,
    /// The answer is not JSON: most often a proxy speaks instead of the server.
    Malformed,
}

impl Error {
    pub(super) fn new(kind: ErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, call: None, status: None, error_type: None, reason: reason.into(), attempts: 1 }
    }

    pub(super) fn settings(reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::Settings, reason)
    }

    pub(super) fn with_call(mut self, call: String) -> Self {
        self.call = Some(call);
        self
    }

    pub(super) fn with_status(mut self, status: u16, error_type: Option<String>) -> Self {
        self.status = Some(status);
        self.error_type = error_type;
        self
    }

    pub(super) fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Returns an error for a failure below HTTP: its whole chain, and what to do about it.
    pub(super) fn transport(error: &(dyn StdError + 'static)) -> Self {
        let chain = chain(error);
        match tls_advice(&chain) {
            Some(advice) => Self::new(ErrorKind::Tls, format!("{chain} ({advice})")),
            None => Self::new(ErrorKind::Unreachable, chain),
        }
    }

    /// Returns what kind of failure it was.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the HTTP status, when there was an answer at all.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Returns the server's word for the error, such as `index_not_found_exception`.
    pub fn error_type(&self) -> Option<&str> {
        self.error_type.as_deref()
    }

    /// Returns true when the same call may well work later without any intervention.
    pub fn is_transient(&self) -> bool {
        use ErrorKind::{Fault, Malformed, Overloaded, Timeout, Unreachable};
        matches!(self.kind, Unreachable | Timeout | Overloaded | Fault | Malformed)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(call) = &self.call {
            write!(f, "{call}: ")?;
        }
        if let Some(status) = self.status {
            write!(f, "status {status}: ")?;
        }
        if let Some(error_type) = &self.error_type {
            write!(f, "{error_type}: ")?;
        }
        f.write_str(&self.reason)?;
        if self.attempts > 1 {
            write!(f, " (after {} attempts)", self.attempts)?;
        }
        Ok(())
    }
}

impl StdError for Error {}

/// Returns the messages of `error` and of all its sources, each said once.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut current = Some(error);
    while let Some(cause) = current {
        let text = cause.to_string();
        // reqwest repeats the URL, which the error names already.
        let known = parts.iter().any(|part| part.contains(&text));
        if !known && !text.starts_with("error sending request") {
            parts.push(text);
        }
        current = cause.source();
    }
    if parts.is_empty() {
        parts.push("the request could not be sent".to_owned());
    }
    parts.join(": ")
}

/// Explains the refusals of certificates that studios meet most.
fn tls_advice(chain: &str) -> Option<&'static str> {
    let known = [
        (
            "CaUsedAsEndEntity",
            "the server shows a CA certificate as its own, which is what `openssl req -x509` makes by default; \
             give the server a certificate signed by that CA, with `basicConstraints=CA:FALSE` and its host name in `subjectAltName`",
        ),
        (
            "UnknownIssuer",
            "the certificate is signed by a CA that is not known here; put the CA's PEM file into `ca_certificate` \
             (the trust store of the operating system is not used)",
        ),
        (
            "UnsupportedCertVersion",
            "the server's certificate is of X.509 version 1; make one of version 3, with `subjectAltName`",
        ),
        ("NotValidForName", "the host name of the url does not stand in `subjectAltName` of the server's certificate"),
        (
            "certificate not valid for name",
            "the host name of the url does not stand in `subjectAltName` of the server's certificate",
        ),
        ("Expired", "the server's certificate has expired"),
        ("certificate expired", "the server's certificate has expired"),
        ("InvalidContentType", "the server does not speak TLS at this port; is it http:// instead of https://?"),
        ("received corrupt message", "the server does not speak TLS at this port; is it http:// instead of https://?"),
    ];
    known.iter().find(|(word, _)| chain.contains(word)).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Layer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            self.1.as_deref().map(|layer| layer as _)
        }
    }

    fn layers(texts: &[&'static str]) -> Layer {
        let (first, rest) = texts.split_first().unwrap();
        Layer(first, (!rest.is_empty()).then(|| Box::new(layers(rest))))
    }

    #[test]
    fn the_whole_chain_is_told_and_nothing_twice() {
        let error = layers(&[
            "error sending request for url (http://127.0.0.1:9/)",
            "error sending request for url (http://127.0.0.1:9/)",
            "client error (Connect)",
            "tcp connect error",
            "Connection refused (os error 111)",
        ]);
        let error = Error::transport(&error).with_call("GET http://127.0.0.1:9/".into()).with_attempts(3);
        assert_eq!(
            error.to_string(),
            "GET http://127.0.0.1:9/: client error (Connect): tcp connect error: Connection refused (os error 111) (after 3 attempts)"
        );
        assert_eq!(error.kind(), ErrorKind::Unreachable);
    }

    #[test]
    fn a_ca_used_as_server_certificate_is_explained() {
        let error = Error::transport(&layers(&[
            "client error (Connect)",
            "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
        ]));
        assert_eq!(error.kind(), ErrorKind::Tls);
        assert!(error.to_string().contains("give the server a certificate signed by that CA"), "{error}");
        assert!(!error.is_transient());
    }

    #[test]
    fn an_unknown_issuer_names_the_setting_to_change() {
        let error = Error::transport(&layers(&["client error (Connect)", "invalid peer certificate: UnknownIssuer"]));
        assert!(error.to_string().contains("`ca_certificate`"), "{error}");
    }
}
