//! Settings of the transport: where the servers are, who we are, how long to wait.
//!
//! These are resolved settings: references to secrets were looked up by `config`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;

use super::error::{Error, ErrorKind, Result};
use crate::redaction::Redaction;
use crate::retry::LONGEST_ASKED;
use crate::retry::doubled;

/// Where Elasticsearch is and how to talk to it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One URL per node, all of one cluster. `user:password@` is accepted and taken out.
    pub urls: Vec<String>,
    /// Who we are.
    pub auth: Auth,
    /// PEM file with the certificates of a private CA, added to the public ones.
    ///
    /// The trust store of the operating system is not used. A server certificate
    /// that is itself a CA is refused, even when it is listed here.
    pub ca_certificate: Option<PathBuf>,
    /// Sent as `x-opaque-id`; shows in the server's slow logs and task lists.
    pub opaque_id: String,
    /// How long one attempt may take.
    pub timeouts: Timeouts,
    /// How often and how soon a failed attempt is repeated.
    pub retry: RetryLimits,
}

impl Settings {
    /// Returns settings with the defaults for the servers at `urls`.
    pub fn new<S: Into<String>>(urls: impl IntoIterator<Item = S>) -> Self {
        Self {
            urls: urls.into_iter().map(Into::into).collect(),
            auth: Auth::None,
            ca_certificate: None,
            opaque_id: "sgcache".to_owned(),
            timeouts: Timeouts::default(),
            retry: RetryLimits::default(),
        }
    }

    /// Returns the parsed URLs without credentials, and who to log in as.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Settings`] when there is no URL or one of them is not `http(s)://host`.
    pub(super) fn resolve(&self) -> Result<(Vec<Url>, Auth)> {
        let mut auth = self.auth.clone();
        let mut urls = Vec::new();
        for text in &self.urls {
            let mut url = parse_url(text)?;
            if let (Auth::None, false) = (&auth, url.username().is_empty()) {
                auth = Auth::Basic {
                    user: url.username().to_owned(),
                    password: Secret::new(url.password().unwrap_or_default()),
                };
            }
            // Both fail only for URLs that cannot carry credentials: nothing to remove then.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            urls.push(url);
        }
        if urls.is_empty() {
            return Err(Error::settings("no url of an Elasticsearch is given"));
        }
        Ok((urls, auth))
    }
}

fn parse_url(text: &str) -> Result<Url> {
    let problem = match Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => "the scheme must be http or https",
        Ok(url) if url.host().is_none() => "there is no host in it",
        Ok(url) => return Ok(url),
        Err(_) => "it must look like https://host:9200",
    };
    // The text may hold a password, so only what stands behind an `@` is repeated.
    let shown = text.rsplit_once('@').map_or(text, |(_, host)| host);
    Err(Error::new(ErrorKind::Settings, format!("`{shown}` is not the url of an Elasticsearch: {problem}")))
}

/// Who we are to the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// No credentials.
    #[default]
    None,
    /// User and password.
    Basic {
        /// The user's name.
        user: String,
        /// The user's password.
        password: Secret,
    },
    /// An API key in its encoded form, as the server printed it.
    ApiKey(Secret),
    /// A bearer token, for example of a service account.
    Bearer(Secret),
}

impl Auth {
    /// Returns what takes the secrets out of answers that quote the `Authorization` header.
    pub(super) fn redaction(&self) -> Redaction {
        match self {
            Self::None => Redaction::default(),
            Self::Basic { user, password } => {
                let encoded = STANDARD.encode(format!("{user}:{}", password.reveal()));
                Redaction::of([password.reveal(), &encoded])
            }
            Self::ApiKey(secret) | Self::Bearer(secret) => Redaction::of([secret.reveal().trim()]),
        }
    }
}

/// A password, key or token. Prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// Returns the secret itself, to be sent and never to be shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How long one attempt may take, from connecting to the last byte of the answer.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// Searches, counts and gets of many documents.
    pub search: Duration,
    /// Bulk requests.
    pub bulk: Duration,
    /// Everything else.
    pub other: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { search: Duration::from_secs(30), bulk: Duration::from_secs(60), other: Duration::from_secs(10) }
    }
}

/// How often and how soon a failed attempt is repeated.
#[derive(Clone, Debug)]
pub struct RetryLimits {
    /// Attempts in all; 1 means no retry.
    pub attempts: u32,
    /// Upper bound of the first pause; doubles with each attempt.
    pub first_pause: Duration,
    /// Upper bound of any pause, also of one that the server asks for.
    pub longest_pause: Duration,
}

impl Default for RetryLimits {
    fn default() -> Self {
        Self { attempts: 5, first_pause: Duration::from_millis(250), longest_pause: Duration::from_secs(30) }
    }
}

impl RetryLimits {
    /// Returns how long to wait after attempt number `attempt` (from 1) has failed.
    ///
    /// Full jitter: anything between zero and the bound, so that many clients do
    /// not come back at the same moment. What the server asked for wins.
    pub(super) fn pause(&self, attempt: u32, asked: Option<Duration>, jitter: f64) -> Duration {
        if let Some(asked) = asked {
            return asked.min(LONGEST_ASKED);
        }
        doubled(self.first_pause, attempt.saturating_sub(1), self.longest_pause).mul_f64(jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_the_url() {
        let settings = Settings::new(["https://sgcache:s3cret@es.studio:9200"]);
        let (urls, auth) = settings.resolve().unwrap();
        assert_eq!(urls[0].as_str(), "https://es.studio:9200/");
        let Auth::Basic { user, password } = auth else { panic!("{auth:?}") };
        assert_eq!((user.as_str(), password.reveal()), ("sgcache", "s3cret"));
    }

    #[test]
    fn given_credentials_win_over_those_in_the_url() {
        let mut settings = Settings::new(["http://a:b@es:9200"]);
        settings.auth = Auth::ApiKey(Secret::new("key"));
        assert!(matches!(settings.resolve().unwrap().1, Auth::ApiKey(_)));
    }

    #[test]
    fn a_secret_is_never_printed() {
        let auth = Auth::Basic { user: "sgcache".into(), password: Secret::new("s3cret") };
        assert_eq!(format!("{auth:?}"), r#"Basic { user: "sgcache", password: *** }"#);
    }

    #[test]
    fn a_url_that_is_none_is_refused_without_repeating_its_password() {
        let message = |url: &str| Settings::new([url]).resolve().unwrap_err().to_string();
        assert_eq!(
            message("ftp://u:s3cret@es:9200"),
            "`es:9200` is not the url of an Elasticsearch: the scheme must be http or https"
        );
        assert_eq!(
            message("es.studio:9200"),
            "`es.studio:9200` is not the url of an Elasticsearch: the scheme must be http or https"
        );
        assert_eq!(message("9200"), "`9200` is not the url of an Elasticsearch: it must look like https://host:9200");
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_obey_the_server() {
        let limits = RetryLimits::default();
        let pauses: Vec<u128> = (1..=9).map(|attempt| limits.pause(attempt, None, 1.0).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        assert_eq!(limits.pause(3, None, 0.5).as_millis(), 500);
        assert_eq!(limits.pause(1, Some(Duration::from_secs(3)), 0.5).as_secs(), 3);
        assert_eq!(limits.pause(1, Some(Duration::from_secs(90)), 0.5).as_secs(), 90);
        assert_eq!(limits.pause(1, Some(Duration::from_secs(3600)), 0.5), LONGEST_ASKED);
    }
}
