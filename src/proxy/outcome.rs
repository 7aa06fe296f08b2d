//! What became of a call: its response, its `x-sgcache` header, its metrics and its line in the access log.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};

use super::access_log::Entry;
use super::answer::Answered;
use super::decide::Writes;
use super::envelope::Asked;
use super::ledger_feed;
use super::listener::{FRESH, Inner, JSON, SAID, refuse, unavailable};
use super::reason::Pass;
use super::upstream::{BufferedResponse, Outgoing, Unreachable, forwarded};
use crate::state::SiteTime;

/// What became of a call.
pub(super) struct Outcome {
    pub response: Response<Body>,
    pub decision: &'static str,
    /// Why the cache did not answer, or only because the site is down.
    pub pass: Option<Pass>,
    pub rows: Option<usize>,
}

/// Gives an answer of the cache, as long as there is memory for it.
pub(super) fn served(
    proxy: &Inner,
    asked: &Outgoing,
    answered: Answered,
    fresh: Option<(SiteTime, &Writes)>,
    how: &'static str,
) -> Outcome {
    let memory = match proxy.memory.reserve(asked.peer(), answered.body.len()) {
        Ok(memory) => memory,
        Err(error) => {
            return Outcome { response: refuse(proxy, error.into()), decision: "refused", pass: None, rows: None };
        }
    };
    let body = memory.answering(asked.connection.as_ref(), answered.body);
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    let said = match fresh {
        Some((fresh, writes)) => {
            if let Ok(moment) = HeaderValue::from_str(&fresh.timestamp().to_string()) {
                headers.insert(FRESH, moment);
            }
            let age = proxy.freshness.replica().now().since(fresh);
            let lacks = if writes.is_unconfirmed { "; unconfirmed-write" } else { "" };
            format!("{how}; age={:.1}{lacks}", age.as_secs_f64())
        }
        None => how.to_owned(),
    };
    headers.insert(SAID, HeaderValue::from_str(&said).unwrap_or(HeaderValue::from_static("hit")));
    Outcome { response, decision: how, pass: None, rows: Some(answered.rows) }
}

/// Gives an answer of the site, byte for byte.
pub(super) fn repeat(
    proxy: &Inner,
    asked: &Outgoing,
    whole: &BufferedResponse,
    how: &'static str,
    pass: Option<&Pass>,
) -> Outcome {
    let body = proxy.memory.taking(asked.connection.as_ref(), whole.body.clone());
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = whole.status;
    *response.headers_mut() = forwarded(&whole.headers);
    let said = pass.map_or_else(|| how.to_owned(), |pass| format!("{how}; reason={}", pass.reason));
    response.headers_mut().insert(SAID, HeaderValue::from_str(&said).unwrap_or(HeaderValue::from_static("pass")));
    Outcome { response, decision: how, pass: pass.cloned(), rows: None }
}

pub(super) fn gone(why: &Unreachable, pass: &Pass) -> Outcome {
    passed(unavailable(why), pass)
}

/// Says in a header why the site was asked.
pub(super) fn passed(mut response: Response<Body>, pass: &Pass) -> Outcome {
    let said = format!("pass; reason={}", pass.reason);
    response.headers_mut().insert(SAID, HeaderValue::from_str(&said).unwrap_or(HeaderValue::from_static("pass")));
    Outcome { response, decision: "pass", pass: Some(pass.clone()), rows: None }
}

/// What a call was about.
pub(super) struct Subject {
    pub method: String,
    pub entity_type: Option<String>,
    pub caller: String,
    /// The request, where it is short.
    pub asked: Option<Arc<Asked>>,
}

/// Counts a call, writes its line in the access log, and returns its response.
pub(super) fn note(proxy: &Inner, subject: Subject, outcome: Outcome, begun: Instant) -> Response<Body> {
    let Subject { method, entity_type, caller, asked } = subject;
    let Outcome { response, decision, pass, rows } = outcome;
    let metrics = &proxy.freshness.replica().metrics().proxy;
    let hit = matches!(decision, "hit" | "stale");
    let took = begun.elapsed().as_secs_f64();
    metrics.requests.inc(&[&method]);
    metrics.duration.observe(&[&method, if hit { "cache" } else { "source" }], took);
    if hit {
        metrics.hits.inc(&[&method]);
    } else if let Some(pass) = &pass {
        metrics.passthrough.inc(&[pass.reason.as_str()]);
    }
    if decision == "stale" {
        metrics.stale.inc();
    }
    let status = response.status().as_u16();
    if status >= 500 {
        metrics.errors.inc(&[&method]);
    }
    let Some(access_log) = &proxy.access_log else { return response };
    let entry = Entry {
        at: chrono::Utc::now(),
        caller,
        method: method.chars().take(80).collect(),
        entity_type,
        decision,
        reason: pass.as_ref().map(|pass| pass.reason.as_str()),
        rows,
        status,
        milliseconds: (took * 1e6).round() / 1e3,
        asked: asked.filter(|_| pass.is_some()),
        pass,
    };
    if !access_log.record(entry) {
        metrics.audit_dropped.inc();
        ledger_feed::note_uncounted(proxy.freshness.ledger());
    }
    response
}
