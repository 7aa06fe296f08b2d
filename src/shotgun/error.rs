//! Why the site gave no usable answer.

use std::fmt;
use std::time::Duration;

use crate::api3::Fault;
use crate::entity::signed_url;

/// Why the site gave no usable answer, after the last attempt.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    site: String,
    method: String,
    attempts: u32,
    /// What went wrong, with the words of the site where it sent some.
    detail: String,
    /// The script is known and may not do this.
    forbidden: bool,
    /// How long the site asked us to wait.
    pub(super) retry_after: Option<Duration>,
}

/// What a caller decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No connection, or it broke.
    Unreachable,
    /// The certificate was not accepted.
    Tls,
    /// No answer in time.
    Timeout,
    /// The credentials or their rights were refused.
    Denied,
    /// The site asks for fewer requests (HTTP 429).
    RateLimited,
    /// The site failed, or is down for maintenance (HTTP 5xx).
    Server,
    /// HTTP 4xx other than the above: most likely not a Shotgun site.
    Rejected,
    /// The site refused the request in its own words.
    Fault,
    /// The answer is not what the protocol says.
    Malformed,
    /// Our own settings cannot work.
    Settings,
}

impl ErrorKind {
    /// Tells whether the same request may succeed later.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unreachable | Self::Timeout | Self::RateLimited | Self::Server | Self::Malformed)
    }

    /// Returns the value of the label `reason` in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Denied => "auth",
            Self::RateLimited => "rate_limited",
            Self::Server => "http_5xx",
            Self::Rejected => "http_4xx",
            Self::Fault => "fault",
            Self::Malformed => "decode",
            Self::Settings => "other",
        }
    }
}

impl Error {
    pub(super) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        // The words of a site can quote signed addresses.
        let detail = signed_url::redact(&detail.into()).into_owned();
        Self {
            kind,
            site: String::new(),
            method: String::new(),
            attempts: 1,
            detail,
            forbidden: false,
            retry_after: None,
        }
    }

    pub(super) fn at(self, site: &str, method: &str, attempts: u32) -> Self {
        Self { site: site.to_owned(), method: method.to_owned(), attempts, ..self }
    }

    pub(super) fn from_fault(fault: Fault) -> Self {
        let kind = if fault.is_authentication() { ErrorKind::Denied } else { ErrorKind::Fault };
        let forbidden = fault.is_permission();
        Self { forbidden, ..Self::new(kind, fault.message) }
    }

    pub(super) fn from_reqwest(error: &reqwest::Error) -> Self {
        let chain = chain(error);
        if error.is_timeout() {
            return Self::new(ErrorKind::Timeout, chain);
        }
        let tls = ["certificate", "Certificate", "TLS", "tls handshake", "InvalidContentType"];
        if tls.iter().any(|word| chain.contains(word)) {
            return Self::new(ErrorKind::Tls, chain);
        }
        Self::new(ErrorKind::Unreachable, chain)
    }

    /// Returns what kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the words of the site or of the system, without the place.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns how long the site asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Tells whether the script lacks the right to do this; other requests of it
    /// may well be answered.
    pub fn is_forbidden(&self) -> bool {
        self.forbidden
    }

    fn hint(&self) -> &'static str {
        match self.kind {
            _ if self.forbidden => "; check the rights of the script on the site: its permission role must allow this",
            ErrorKind::Unreachable => "; is `shotgun.site` right, and is the site up?",
            ErrorKind::Tls => "; give a private certificate authority as `shotgun.ca_certificate`",
            ErrorKind::Denied => "; check `shotgun.script` and `shotgun.key`, and the rights of the script",
            ErrorKind::Rejected | ErrorKind::Malformed => "; is `shotgun.site` the address of a Shotgun site?",
            _ => "",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, method, attempts, detail, .. } = self;
        write!(f, "{method} on {site} failed")?;
        if *attempts > 1 {
            write!(f, " after {attempts} attempts")?;
        }
        write!(f, ": {detail}{}", self.hint())
    }
}

impl std::error::Error for Error {}

/// The real reason of a reqwest error stands at the end of its chain. The URL is
/// left out: it could hold a password.
fn chain(error: &reqwest::Error) -> String {
    let mut words = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words.push(cause.to_string());
        source = cause.source();
    }
    if words.is_empty() { error.to_string() } else { words.join(": ") }
}
