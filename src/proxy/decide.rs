//! Decides whether the cache answers a request: one pure function.
//!
//! What the caller may see comes first (`visibility`), so that no reason tells of more;
//! then what cannot change by itself (what is asked, what is cached), then what can
//! (freshness, pending writes), so that the reason shown is the one that lasts longest.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::catalogue::Catalogue;
use super::pending_writes::Dependency;
use super::question::{self, Question};
use super::reason::{Advice, Pass, Reason};
use super::settings::{Limits, OnDirty};
use super::summary::{self, Column};
use super::visibility;
use crate::api3::PagingInfo;
use crate::entity::EntityType;
use crate::filter::{Filter, Query};
use crate::state::SiteTime;

pub use super::envelope::Asked;
pub use super::summary::SummaryPlan;

/// How much of the cache a caller sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything: the credentials are the cache's own.
    Full,
    /// A part.
    Limited(Limits),
    /// Nothing.
    Nothing(Pass),
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The cache answers.
    Serve(Box<Serve>),
    /// The site answers.
    Pass(Pass),
}

/// What the cache answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Serve {
    /// What the site is.
    Info,
    /// A page of rows.
    Read(ReadPlan),
    /// Aggregates.
    Summarize(SummaryPlan),
    /// The schema, as the site answered this very question before.
    Schema,
}

/// How to answer a `read`.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadPlan {
    /// The rows, and what they depend on.
    pub question: Arc<Question>,
    /// What the answer says about the paging.
    pub paging_info: PagingInfo,
    /// Everything visible at this moment is in the answer.
    pub fresh_as_of: SiteTime,
    /// What pending writes mean for it.
    pub writes: Writes,
}

/// What pending writes mean for an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Writes {
    /// The answer must not be given if any row of the query passes this filter: it was
    /// changed by a write that is not visible yet.
    pub unless_any: Option<Filter>,
    /// Whether the answer may lack a write, because the site is down.
    pub is_unconfirmed: bool,
}

/// What the cache would answer; whether it may, each moment decides anew.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Planned {
    Info,
    Schema,
    Read(Arc<Question>, PagingInfo),
    Summarize(Arc<Question>, Arc<[Column]>),
}

/// Methods that change nothing and that only the site can answer.
const UNCACHEABLE: &[&str] = &[
    "get_session_token",
    "activity_stream",
    "note_thread_contents",
    "query_display_name_cache",
    "nav_expand",
    "nav_search",
    "preferences_read",
    "followers",
    "following",
    "work_schedule_read",
    "user_subscriptions_read",
    "export_page",
];
/// Methods that change something, in ways that are known.
const WRITES: &[&str] = &["create", "update", "delete", "revive", "batch"];

/// Methods that the cache may be able to answer.
const READS: &[&str] = &["info", "read", "summarize", "schema_read", "schema_entity_read", "schema_field_read"];

/// Tells whether a request may change something.
pub(super) fn changes(asked: &Asked) -> bool {
    !is_read(&asked.request.method)
}

/// Tells whether a method reads and nothing else.
pub(super) fn is_read(method: &str) -> bool {
    READS.contains(&method) || UNCACHEABLE.contains(&method)
}

/// Tells whether a request is one that the cache may answer to callers who are logged in.
pub(super) fn needs_login(asked: &Asked) -> bool {
    let method = asked.request.method.as_str();
    READS.contains(&method) && method != "info"
}

/// Decides whether the cache answers.
pub fn decide(asked: &Asked, scope: &Scope, catalogue: &Catalogue) -> Decision {
    match plan(asked, scope, catalogue).and_then(|planned| planned.at(catalogue)) {
        Ok(serve) => Decision::Serve(Box::new(serve)),
        Err(pass) => Decision::Pass(pass),
    }
}

/// Finds out what is asked, and whether the caller may: the part of a decision that
/// lasts as long as the schema, what is cached, and the largest page.
pub(super) fn plan(asked: &Asked, scope: &Scope, catalogue: &Catalogue) -> Result<Planned, Pass> {
    let Asked { request, odd, unread } = asked;
    let method = request.method.as_str();
    if WRITES.contains(&method) {
        return Err(Pass::new(Reason::Write, format!("`{method}` changes the site")));
    }
    if UNCACHEABLE.contains(&method) {
        return Err(Pass::new(Reason::Uncacheable, format!("only the site can answer `{method}`")));
    }
    if !READS.contains(&method) {
        return Err(Pass::new(Reason::UnknownMethod, format!("`{method}` is not known here")));
    }
    // Before anything that depends on what is cached: a caller without a scope learns
    // nothing of it.
    if let (Scope::Nothing(pass), true) = (scope, needs_login(asked)) {
        return Err(pass.clone());
    }
    if *odd {
        return Err(question::unknown("the request has more parts than the client sends"));
    }
    if let Some(why) = unread {
        return Err(Pass::new(Reason::Malformed, format!("the argument of `{method}` was not read: {why}")));
    }
    match (method, &request.auth) {
        ("info", None) => Ok(Planned::Info),
        ("info", Some(_)) => Err(question::unknown("`info` has no parameters")),
        (_, None) => Err(Pass::new(Reason::UnknownCaller, "the request has no credentials")),
        ("read", Some(_)) => {
            let (read, question) = question::read(&request.argument, scope, catalogue)?;
            Ok(Planned::Read(Arc::new(visibility::limit(question, scope, catalogue)?), read.paging_info))
        }
        ("summarize", Some(_)) => {
            let (columns, question) = summary::plan(&request.argument, scope, catalogue)?;
            Ok(Planned::Summarize(Arc::new(visibility::limit(question, scope, catalogue)?), columns.into()))
        }
        _ => schema(&request.argument, scope),
    }
}

impl Planned {
    /// Tells what to serve at this moment.
    pub fn at(self, catalogue: &Catalogue) -> Result<Serve, Pass> {
        match self {
            Self::Info => Ok(Serve::Info),
            Self::Schema => Ok(Serve::Schema),
            Self::Read(question, paging_info) => {
                let (fresh_as_of, writes) = vouch(&question, catalogue)?;
                Ok(Serve::Read(ReadPlan { question, paging_info, fresh_as_of, writes }))
            }
            Self::Summarize(question, columns) => {
                let (fresh_as_of, writes) = vouch(&question, catalogue)?;
                Ok(Serve::Summarize(SummaryPlan { question, columns, fresh_as_of, writes }))
            }
        }
    }
}

/// Schemas depend on what the reader may see, so only the cache's own credentials
/// get one that was read before.
fn schema(argument: &Value, scope: &Scope) -> Result<Planned, Pass> {
    if !argument.is_null() {
        question::strict(argument, &["type", "field_name", "project"])?;
    }
    match scope {
        Scope::Full => Ok(Planned::Schema),
        Scope::Limited(_) => {
            Err(Pass::new(Reason::Scope, "the schema that a limited caller sees is the site's matter"))
        }
        Scope::Nothing(pass) => Err(pass.clone()),
    }
}

/// Tells whether rows that are put aside can be in an answer: not when it asks for
/// others by their ids, and looks at no other row of their type.
fn may_show(question: &Question, entity_type: &EntityType, aside: &BTreeSet<i64>) -> bool {
    if aside.is_empty() {
        return false;
    }
    let Query { entity_type: root, filter, .. } = &question.query;
    let mut hops = question.needs.paths.iter().flat_map(|path| &path.hops);
    let leads_back = question.needs.names.contains(root) || hops.any(|hop| hop.entity_type == *root);
    let ids = filter.only_ids().filter(|_| root == entity_type && !leads_back);
    ids.is_none_or(|ids| !ids.is_disjoint(aside))
}

/// Checks that everything that an answer depends on follows the site closely
/// enough, and returns the moment up to which it does.
fn vouch(question: &Question, catalogue: &Catalogue) -> Result<(SiteTime, Writes), Pass> {
    if question.omits_unknown && !catalogue.schema_is_current && !catalogue.site_is_down {
        let detail = "a field is not in the schema as last read, and the schema may have changed since";
        return Err(Pass::new(Reason::UnknownField, detail).advise(Advice::Wait));
    }
    let (needs, standing) = (&question.needs, &catalogue.standing);
    let mut fresh_as_of = SiteTime(i64::MAX);
    let every: BTreeSet<&EntityType> = needs.rows.iter().chain(&needs.names).collect();
    for ty in every {
        if let Some(cached) = catalogue.stored.types.get(ty) {
            let wait = |pass: Pass| Err(pass.advise(Advice::Wait));
            match standing.types.get(ty) {
                Some(known) if known.is_live() && known.layout_hash == cached.hash => {
                    if known.breaker || may_show(question, ty, &known.quarantined) {
                        let detail = format!("some rows of `{ty}` cannot be vouched for");
                        return wait(Pass::new(Reason::Quarantined, detail));
                    }
                }
                _ => return wait(Pass::new(Reason::NotLive, format!("`{ty}` does not follow the site yet"))),
            }
        }
        let Some(fresh) = standing.fresh_as_of(ty) else {
            return Err(Pass::new(Reason::NotLive, "the event log was not read to its end yet").advise(Advice::Wait));
        };
        let age = catalogue.now.since(fresh);
        if age > catalogue.max_age(ty) {
            let detail = format!("`{ty}` is as it was {} s ago", age.as_secs());
            return Err(Pass::new(Reason::Stale, detail).advise(Advice::Wait));
        }
        if catalogue.settings.on_dirty != OnDirty::Serve && standing.is_marked(ty) {
            return Err(Pass::new(Reason::Dirty, format!("events marked rows of `{ty}`")).advise(Advice::Wait));
        }
        fresh_as_of = fresh_as_of.min(fresh);
    }
    Ok((fresh_as_of, check_pending_writes(question, catalogue)?))
}

/// Checks on which pending writes an answer depends. While the site is down an answer
/// that may lack a write is better than none, and says so.
fn check_pending_writes(question: &Question, catalogue: &Catalogue) -> Result<Writes, Pass> {
    let dependency = catalogue.pending_writes.dependency(question, catalogue);
    match dependency {
        Dependency::None => Ok(Writes::default()),
        _ if catalogue.site_is_down => Ok(Writes { unless_any: None, is_unconfirmed: true }),
        Dependency::IfAny(filter) => Ok(Writes { unless_any: Some(filter), is_unconfirmed: false }),
        Dependency::Possible => {
            let detail = format!("a write that may change `{}` is pending", question.query.entity_type);
            Err(Pass::new(Reason::PendingWrite, detail).advise(Advice::Wait))
        }
    }
}
