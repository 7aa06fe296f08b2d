//! Why a request goes to the site, by name, in words, and with what to change.

use std::fmt;

use super::settings::Semantics;
use crate::entity::EntityType;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal),+ $(,)?) => {
        /// Why a request is not answered from the cache.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[doc = $doc])* $variant),+ }

        impl Reason {
            /// Every reason.
            pub const EVERY: &'static [Self] = &[$(Self::$variant),+];
            /// The name of every reason, for the label of a metric.
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            /// Returns the name for metrics and headers.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

reasons! {
    /// No entity config names the type.
    UncachedType "uncached_type",
    /// The entity config of the type lacks the field.
    UncachedField "uncached_field",
    /// The entity config of the type has a filter: entities are missing.
    PartialType "partial_type",
    /// The site, as last seen, has no such type or field.
    UnknownField "unknown_field",
    /// The value differs from user to user.
    PerUser "per_user",
    /// The site computes the value at every read.
    Computed "computed",
    /// The site derives the value from other entities, without an event.
    DerivedField "derived_field",
    /// The value is an address that expires.
    SignedUrl "signed_url",
    /// No scenario proves this relation on this data type with such operands.
    UnsupportedFilter "unsupported_filter",
    /// Sources disagree on the meaning, and `api.semantics` names no reading.
    AmbiguousSemantics "ambiguous_semantics",
    /// A filter preset.
    Preset "preset",
    /// Retired rows: what they link to changes without an event.
    Retired "retired",
    /// More rows per page than the site gives.
    TooLarge "too_large",
    /// A parameter that nothing here knows.
    UnknownParameter "unknown_parameter",
    /// Not a request that a site would accept.
    Malformed "malformed",
    /// A method that nothing here knows.
    UnknownMethod "unknown_method",
    /// A method that is never answered from a cache.
    Uncacheable "uncacheable",
    /// A write.
    Write "write",
    /// Another path than that of the JSON API.
    Path "path",
    /// The schema has not been read through here yet.
    SchemaUnread "schema_unread",
    /// The rows of the type do not follow the site yet.
    NotLive "not_live",
    /// Some rows of the type cannot be vouched for.
    Quarantined "quarantined",
    /// The cache is older than allowed.
    Stale "stale",
    /// An event marked rows of the type, and `api.on_dirty` is not `serve`.
    Dirty "dirty",
    /// A write that the answer may depend on is not visible in the cache yet.
    PendingWrite "pending_write",
    /// The scope of the caller does not cover the request.
    Scope "scope",
    /// The credentials are neither those of the cache nor mapped to a scope.
    UnknownCaller "unknown_caller",
    /// The credentials were not seen to be good lately.
    Unverified "unverified",
    /// The store cannot answer, or failed to.
    Store "store",
    /// `api.mode` is `shadow` or `pass`.
    Mode "mode",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request that goes to the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Why.
    pub reason: Reason,
    /// What in the request is the reason.
    pub detail: String,
    /// What would make the cache answer it.
    pub advice: Option<Advice>,
}

impl Pass {
    /// Passes a request on for a reason.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), advice: None }
    }

    /// Adds what would make the cache answer.
    #[must_use]
    pub fn advise(self, advice: Advice) -> Self {
        Self { advice: Some(advice), ..self }
    }

    /// Tells whether waiting a moment may change the decision.
    pub fn is_passing(&self) -> bool {
        matches!(self.reason, Reason::PendingWrite | Reason::Dirty)
    }
}

/// What an operator can change so that the cache answers a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Cache the type.
    AddType(EntityType),
    /// Cache the field.
    AddField(EntityType, String),
    /// Cache all entities of the type.
    DropFilter(EntityType),
    /// Choose a reading.
    ChooseSemantics(Semantics),
    /// Map the credentials.
    MapCaller,
    /// Let time pass.
    Wait,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddType(ty) => {
                write!(f, "`sgcache job generateEntityConfigs {ty}` caches the type (entityConfig/{ty}.json)")
            }
            Self::AddField(ty, field) => {
                write!(f, "add \"{field}\": {{}} to `fields` in entityConfig/{ty}.json")
            }
            Self::DropFilter(ty) => {
                write!(f, "remove `filters` from entityConfig/{ty}.json, so that no entity is missing")
            }
            Self::ChooseSemantics(reading) => {
                write!(
                    f,
                    "if your site reads it so: {}: add `{reading}` to `api.semantics` in config.yaml",
                    reading.words()
                )
            }
            Self::MapCaller => f.write_str("map the script or login under `api.callers` in config.yaml"),
            Self::Wait => f.write_str("nothing: it is a matter of time (`sgcache status` shows how far it is)"),
        }
    }
}
