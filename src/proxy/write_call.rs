//! A call that may change something: sent to the site, and noted before its caller
//! learns that it worked.

use std::sync::Arc;

use serde_json::Value;

use super::call::{Call, hand_on};
use super::ledger_feed;
use super::listener::Inner;
use super::outcome::{Outcome, gone};
use super::pending_writes::PendingWrites;
use super::reason::{Pass, Reason};
use super::unnoted_write::UnnotedWrite;
use super::upstream::{BufferedResponse, Unreachable};
use super::write_effects::WriteEffects;
use crate::api3;
use crate::supervisor::meet_on_thread;

/// Sends what may change something. A task of its own: a caller who leaves does not
/// leave a write unnoted. One that leaves before it has a slot leaves nothing.
pub(super) async fn send(proxy: &Arc<Inner>, call: &Call, pass: Pass) -> Outcome {
    let slot = match proxy.upstream.slot(&call.outgoing).await {
        Ok(slot) => slot,
        Err(why) => return gone(&why, &pass),
    };
    let (shared, call) = (Arc::clone(proxy), call.clone());
    let task = tokio::spawn(async move {
        let catalogue = shared.freshness.catalogue(PendingWrites::default(), 0, false);
        let mut effects = match &call.asked {
            Ok(asked) => WriteEffects::of_request(&asked.request.method, &asked.request.argument, &catalogue),
            Err(_) => WriteEffects::anything(),
        };
        let unnoted = UnnotedWrite::new(&shared.freshness);
        // What a link leaves behind only the rows of before the write show.
        shared.freshness.look_up(&mut effects).await;
        let number = shared.freshness.site_lag().send(&effects);
        let sent = shared.upstream.send_buffered_in(slot, &call.outgoing, call.body.clone(), true).await;
        meet_on_thread("write_note");
        if let Some(effects) = made(effects, &sent) {
            if effects.schema {
                shared.schemas.clear();
            }
            shared.freshness.acknowledge(number, effects).await;
        } else {
            shared.freshness.site_lag().end(number);
            shared.freshness.ledger().write_failed(ledger_feed::now());
        }
        unnoted.noted();
        hand_on(&shared, &call, sent, &pass).await
    });
    task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "proxy request task panicked");
        let pass = Pass::new(Reason::Write, "");
        gone(&Unreachable::unknown("the request failed inside of sgcache"), &pass)
    })
}

/// Returns what a write changed, now that the site has answered or will not answer;
/// nothing when it refused, or was never sent.
fn made(effects: WriteEffects, sent: &Result<BufferedResponse, Unreachable>) -> Option<WriteEffects> {
    let whole = match sent {
        Ok(whole) => whole,
        Err(why) if why.never_sent => return None,
        // Lost on its way there or on the way back.
        Err(_) => return Some(effects.with_results(None)),
    };
    if !whole.status.is_success() {
        return (!whole.status.is_client_error()).then(|| effects.with_results(None));
    }
    let Ok(answer) = serde_json::from_slice::<Value>(&whole.body) else { return Some(effects.with_results(None)) };
    match api3::results(answer) {
        Ok(results) => Some(effects.with_results(Some(&results))),
        Err(_) => None,
    }
}
