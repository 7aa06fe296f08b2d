//! What can be set about the proxy: `api` in `config.yaml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::entity::EntityType;
use crate::server::{ConnectionBounds, Tls};

/// What can be set about the proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Who answers.
    pub mode: Mode,
    /// The oldest answer that the cache gives while the site is well.
    pub max_age: Duration,
    /// What a read of rows does that an event marked and nobody has read again.
    pub on_dirty: OnDirty,
    /// The longest wait for rows that a write or an event marked.
    pub wait: Duration,
    /// The oldest answer that the cache gives while the site is down.
    pub stale_if_error: Duration,
    /// The same for single types.
    pub stale_if_error_of: BTreeMap<EntityType, Duration>,
    /// The readings of unsettled rules that hold at this site.
    pub semantics: BTreeSet<Semantics>,
    /// How long a read that has an older answer waits for the site; one without waits 15
    /// times as long for a site that answers nothing at all.
    pub patience: Duration,
    /// How long 503 and 429 of the site are waited out before the caller sees them.
    pub upstream_retry_timeout: Duration,
    /// Requests to the site in flight.
    pub max_upstream: usize,
    /// Uploads to the site in flight, beside those.
    pub max_uploads: usize,
    /// How long a request waits for a slot of `max_upstream` or `max_uploads`. Not in the file.
    pub max_slot_wait: Duration,
    /// How long a long request waits until fewer long ones are being read. Not in the file.
    pub max_reading_wait: Duration,
    /// The longest silence of the site in the middle of an answer. Not in the file.
    pub max_answer_silence: Duration,
    /// The longest answer of the site that is held in memory whole, in bytes. Not in the file.
    pub max_answer_bytes: usize,
    /// The memory that requests and answers of the site take together, in bytes.
    pub max_memory_bytes: usize,
    /// What is granted to connections of callers.
    pub connections: ConnectionBounds,
    /// The longest JSON request, in bytes.
    pub max_request_bytes: usize,
    /// The share of reads that shadow mode compares, 0 to 1.
    pub shadow_share: f64,
    /// Whether a listener beyond loopback may do without TLS.
    pub insecure: bool,
    /// The certificate and the key of the listener.
    pub tls: Option<Tls>,
    /// How long an accepted credential is believed before the site is asked again.
    pub verify_every: Duration,
    /// Who else is answered from the cache.
    pub callers: Vec<CallerRule>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Serve,
            max_age: Duration::from_secs(30),
            on_dirty: OnDirty::Serve,
            wait: Duration::from_millis(500),
            stale_if_error: Duration::from_secs(8 * 3600),
            stale_if_error_of: BTreeMap::new(),
            semantics: Semantics::USUAL.iter().copied().collect(),
            patience: Duration::from_secs(2),
            upstream_retry_timeout: Duration::from_secs(30),
            max_upstream: 64,
            max_uploads: 64,
            max_slot_wait: Duration::from_secs(30),
            max_reading_wait: Duration::from_secs(10),
            max_answer_silence: Duration::from_secs(600),
            max_answer_bytes: 256 << 20,
            max_memory_bytes: 512 << 20,
            connections: ConnectionBounds::default(),
            max_request_bytes: 32 << 20,
            shadow_share: 0.1,
            insecure: false,
            tls: None,
            verify_every: Duration::from_secs(300),
            callers: Vec::new(),
        }
    }
}

impl Settings {
    /// Returns the oldest answer about a type that is given while the site is
    /// down.
    pub fn stale_if_error(&self, entity_type: &EntityType) -> Duration {
        self.stale_if_error_of.get(entity_type).copied().unwrap_or(self.stale_if_error)
    }
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// The cache, where it can.
    #[default]
    Serve,
    /// The site; a share of the answers is compared with the cache.
    Shadow,
    /// The site.
    Pass,
}

impl Mode {
    /// The words of `api.mode`.
    pub const NAMES: &'static [&'static str] = &["serve", "shadow", "pass"];
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Serve, Self::Shadow, Self::Pass]
            .into_iter()
            .zip(Self::NAMES)
            .find(|(_, name)| **name == word)
            .map(|(mode, _)| mode)
            .ok_or(())
    }
}

/// What a read of marked rows does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnDirty {
    /// It is answered: the promised lag is not over.
    #[default]
    Serve,
    /// It waits, then goes to the site.
    Wait,
    /// It goes to the site.
    Pass,
}

impl OnDirty {
    /// The words of `api.on_dirty`.
    pub const NAMES: &'static [&'static str] = &["serve", "wait", "pass"];
}

impl FromStr for OnDirty {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Serve, Self::Wait, Self::Pass]
            .into_iter()
            .zip(Self::NAMES)
            .find(|(_, name)| **name == word)
            .map(|(mode, _)| mode)
            .ok_or(())
    }
}

/// A rule of the site on which sources disagree, in the reading that the cache
/// has. Without its name in `api.semantics`, requests that depend on it pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Semantics {
    /// Texts are sorted without case, by code point.
    TextOrder,
    /// Links, lists and statuses are sorted by what they show, as texts are.
    LinkOrder,
    /// A path that ends at an empty link or a retired entity has no value:
    /// `is null` and negations hold.
    DeepNegation,
    /// `in_last` and `in_next` in days and more take in the whole of today, in UTC.
    RelativeDays,
    /// Weeks begin on Monday, in UTC.
    Week,
    /// A checkbox behind an empty link is neither true nor false.
    DeepCheckbox,
    /// `is_not null` through a list of links is the negation of `is null`.
    ListNotNull,
}

impl Semantics {
    /// Every reading.
    pub const EVERY: &'static [Self] = &[
        Self::TextOrder,
        Self::LinkOrder,
        Self::DeepNegation,
        Self::RelativeDays,
        Self::Week,
        Self::DeepCheckbox,
        Self::ListNotNull,
    ];

    /// Those for which there is only one reading in the sources; the default.
    pub const USUAL: &'static [Self] = &[Self::TextOrder, Self::LinkOrder, Self::DeepNegation];

    /// The words of `api.semantics`, in the order of [`Self::EVERY`].
    pub const NAMES: &'static [&'static str] =
        &["text_order", "link_order", "deep_negation", "relative_days", "week", "deep_checkbox", "list_not_null"];

    /// Returns the word of `api.semantics`.
    pub fn as_str(self) -> &'static str {
        let index = Self::EVERY.iter().position(|one| *one == self).unwrap_or_default();
        Self::NAMES[index]
    }

    /// Returns what the cache takes for granted under this name.
    pub fn words(self) -> &'static str {
        match self {
            Self::TextOrder => "texts are sorted without case",
            Self::LinkOrder => "links and lists are sorted by what they show, without case",
            Self::DeepNegation => "a path that ends at an empty link has no value, so negations hold",
            Self::RelativeDays => "`in_last` and `in_next` in days and more take in the whole of today, in UTC",
            Self::Week => "weeks begin on Monday, in UTC",
            Self::DeepCheckbox => "a checkbox behind an empty link is neither true nor false",
            Self::ListNotNull => "`is_not null` through a list of links is the negation of `is null`",
        }
    }
}

impl FromStr for Semantics {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Self::EVERY.iter().copied().find(|reading| reading.as_str() == word).ok_or(())
    }
}

impl fmt::Display for Semantics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Credentials that are answered from the cache, and how much of it they see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerRule {
    /// The name of a script or the login of a person.
    pub name: CallerName,
    /// What they see.
    pub limits: Limits,
}

/// Who a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallerName {
    /// A script user.
    Script(String),
    /// A person.
    Login(String),
}

impl fmt::Display for CallerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Script(name) => write!(f, "script {name}"),
            Self::Login(name) => write!(f, "login {name}"),
        }
    }
}

/// Reads what [`fmt::Display`] writes.
impl FromStr for CallerName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(' ') {
            Some(("script", name)) => Ok(Self::Script(name.to_owned())),
            Some(("login", name)) => Ok(Self::Login(name.to_owned())),
            _ => Err(()),
        }
    }
}

/// The part of the cache that a caller sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The types; `None` is all of them.
    pub types: Option<BTreeSet<EntityType>>,
    /// For single types, the only fields.
    pub fields: BTreeMap<EntityType, BTreeSet<String>>,
    /// The only projects; `None` is all of them.
    pub projects: Option<BTreeSet<i64>>,
}

impl Limits {
    /// Tells whether nothing is hidden.
    pub fn is_full(&self) -> bool {
        self.types.is_none() && self.fields.is_empty() && self.projects.is_none()
    }

    /// Tells whether entities of a type may be seen at all.
    pub fn sees_type(&self, entity_type: &EntityType) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(entity_type))
    }

    /// Tells whether a field may be seen.
    pub fn sees_field(&self, entity_type: &EntityType, field: &str) -> bool {
        let open = matches!(field, "id" | "type");
        self.sees_type(entity_type)
            && (open || self.fields.get(entity_type).is_none_or(|fields| fields.contains(field)))
    }
}
