//! One call of the JSON API, from its body to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{Response, header};
use serde_json::Value;

use super::answer::{self, Answered};
use super::callers::{self, Caller, Digest, Unverified};
use super::catalogue::Catalogue;
use super::decide::{self, Asked, Decision, Planned, Serve, Writes, decide};
use super::in_flight::InFlight;
use super::listener::Inner;
use super::outcome::{Outcome, Subject, gone, note, passed, repeat, served};
use super::pending_writes::PendingWrites;
use super::plan_cache::{self, CachedPlan};
use super::reason::{Pass, Reason};
use super::settings::{Mode, OnDirty};
use super::shadow::Comparison;
use super::upstream::{BufferedResponse, Outgoing, Unreachable, forwarded};
use super::write_call;
use crate::api3;
use crate::filter::Query;

/// A call and what is known of it when it arrives.
#[derive(Clone)]
pub(super) struct Call {
    pub outgoing: Outgoing,
    pub body: Bytes,
    pub asked: Result<Arc<Asked>, Pass>,
    pub caller: Arc<Caller>,
    /// The hash of the body, unless it is too long to be remembered.
    digest: Option<Digest>,
    /// The same request from before.
    cached: Option<Arc<CachedPlan>>,
    /// The writes that were acknowledged before it began.
    pending_writes: PendingWrites,
    writes: u64,
}

/// What the cache is about to answer.
enum Ready {
    Serve(Box<Serve>),
    Refuse(Arc<BufferedResponse>),
}

/// How long a read that waits for a write pauses after a failure of the site.
const PENDING_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Longer answers are not looked through for addresses: it is done before they are handed
/// on.
const MAX_SCANNED_ANSWER_BYTES: usize = 2 << 20;

/// Answers a call; `asked` is what its body says, where that was read before.
pub(super) async fn json(
    proxy: &Arc<Inner>,
    outgoing: Outgoing,
    body: Bytes,
    asked: Option<Result<Asked, Pass>>,
) -> Response<Body> {
    let begun = Instant::now();
    let (pending_writes, writes) = (proxy.freshness.pending_writes(), proxy.freshness.writes());
    let digest = (body.len() <= plan_cache::MAX_REQUEST_BYTES).then(|| proxy.callers.request_digest(&[&body]));
    let cached = digest.as_ref().and_then(|digest| proxy.plans.get(digest));
    let cached = cached.filter(|cached| proxy.callers.is_current(&cached.caller));
    let (asked, caller) = match &cached {
        Some(cached) => (Ok(Arc::clone(&cached.asked)), Arc::clone(&cached.caller)),
        None => {
            let asked = asked.unwrap_or_else(|| Asked::parse(&body));
            let caller = proxy.callers.identify(asked.as_ref().ok().and_then(|asked| asked.request.auth.as_ref()));
            (asked.map(Arc::new), Arc::new(caller))
        }
    };
    let call = Call { outgoing, body, asked, caller, digest, cached, pending_writes, writes };
    let subject = Subject {
        method: call.method().to_owned(),
        entity_type: call.entity_type(),
        caller: call.caller.name.clone(),
        asked: call.asked.as_ref().ok().filter(|_| call.digest.is_some()).cloned(),
    };
    let outcome = answer_to(proxy, call).await;
    note(proxy, subject, outcome, begun)
}

impl Call {
    fn method(&self) -> &str {
        self.asked.as_ref().map_or("malformed", |asked| asked.request.method.as_str())
    }

    fn entity_type(&self) -> Option<String> {
        let argument = &self.asked.as_ref().ok()?.request.argument;
        argument.get("type").and_then(Value::as_str).map(|name| name.chars().take(80).collect())
    }

    /// The question about the schema, by everything that its answer depends on.
    fn schema_question(&self) -> Option<String> {
        let request = &self.asked.as_ref().ok()?.request;
        Some(format!("{:?} {} {}", self.caller.digest, request.method, request.argument))
    }

    /// Tells whether images are to be addresses, as the client always asks.
    fn wants_urls(&self) -> bool {
        let flag = |asked: &Arc<Asked>| asked.request.argument.get("api_return_image_urls") == Some(&Value::Bool(true));
        self.asked.as_ref().is_ok_and(flag)
    }

    fn is_localized(&self) -> bool {
        self.outgoing.headers.contains_key("locale")
    }
}

async fn answer_to(proxy: &Arc<Inner>, call: Call) -> Outcome {
    let pass = match proxy.settings.mode {
        Mode::Serve => match serve(proxy, &call).await {
            Ok(outcome) => return outcome,
            // While the site is down there is no answer to wait for.
            Err(pass) if pass.reason == Reason::Unverified && !proxy.upstream.is_down() => {
                if can_prove(&call) {
                    return prove(proxy, &call, pass).await;
                }
                verify(proxy, &call);
                pass
            }
            Err(pass) => pass,
        },
        Mode::Shadow => return shadowed(proxy, call).await,
        Mode::Pass => Pass::new(Reason::Mode, "`api.mode` is `pass`"),
    };
    ask_site(proxy, &call, pass).await
}

/// Answers from the cache, or repeats a refusal; the error says why the site answers.
async fn serve(proxy: &Arc<Inner>, call: &Call) -> Result<Outcome, Pass> {
    match consider(proxy, call, false).await? {
        Ready::Refuse(whole) => Ok(repeat(proxy, &call.outgoing, &whole, "refused", None)),
        Ready::Serve(serve) => carry_out(proxy, call, &serve, "hit").await,
    }
}

/// Sends the first request of a credential to the site; the others wait for its answer,
/// and go to the site themselves when that has not proved the credential.
async fn prove(proxy: &Arc<Inner>, call: &Call, pass: Pass) -> Outcome {
    let first = proxy.verifications.begin(call.caller.digest, proxy.settings.patience).await;
    // Also the first one: the answer may have come between the decision and this.
    let outcome = match serve(proxy, call).await {
        Ok(outcome) => outcome,
        Err(again) => ask_site(proxy, call, if first.is_some() { pass } else { again }).await,
    };
    if let Some(first) = first {
        first.answered();
    }
    outcome
}

/// Has the site asked about the credential of the body, beside a request whose answer
/// proves nothing: the headers may hold another one.
fn verify(proxy: &Arc<Inner>, call: &Call) {
    if call.asked.as_ref().is_ok_and(|asked| asked.odd) {
        return;
    }
    let (proxy, caller, body) = (Arc::clone(proxy), Arc::clone(&call.caller), call.body.clone());
    tokio::spawn(async move {
        // One question of each credential at a time.
        let Some(first) = proxy.verifications.begin(caller.digest, Duration::ZERO).await else { return };
        renew(&proxy, &caller, &body).await;
        first.answered();
    });
}

async fn ask_site(proxy: &Arc<Inner>, call: &Call, pass: Pass) -> Outcome {
    let older = older_answer(proxy, call, &pass).await;
    // One failure of the site does not make an acknowledged write unseen: then it is asked.
    let gives_older = match pass.reason {
        Reason::PendingWrite => proxy.upstream.is_down_for(proxy.settings.patience),
        _ => proxy.upstream.is_down(),
    };
    if let Some(outcome) = older.as_ref().filter(|_| gives_older) {
        return older_outcome(proxy, call, outcome, &pass).await;
    }
    if pass.reason != Reason::PendingWrite {
        return forward(proxy, call, pass, older).await;
    }
    // The site has the write, the cache will: whoever has it first answers, so that a
    // read that waits costs no more than the site itself.
    tokio::select! {
        biased;
        outcome = when_visible(proxy, call) => outcome,
        outcome = forward_pending(proxy, call, pass, older) => outcome,
    }
}

/// Asks the site for what a pending write may have changed. An older answer would hide
/// the write, so a failure or a slow answer is not enough for it: it is given only
/// while the site has been down for `api.patience` without an answer between, or after
/// failures for `api.upstream_retry_timeout`.
async fn forward_pending(proxy: &Arc<Inner>, call: &Call, pass: Pass, older: Option<Box<Serve>>) -> Outcome {
    let patience = proxy.settings.patience;
    let begun = Instant::now();
    loop {
        let request = forward(proxy, call, pass.clone(), None);
        tokio::pin!(request);
        let outcome = loop {
            match tokio::time::timeout(patience, &mut request).await {
                Ok(outcome) => break Some(outcome),
                Err(_) if older.is_some() && proxy.upstream.is_down_for(patience) => break None,
                Err(_) => {}
            }
        };
        let outcome = match outcome {
            Some(outcome) if !outcome.response.status().is_server_error() => return outcome,
            outcome => outcome,
        };
        let is_given_up = begun.elapsed() >= proxy.settings.upstream_retry_timeout;
        match (&older, outcome) {
            (Some(serve), _) if is_given_up || proxy.upstream.is_down_for(patience) => {
                return older_outcome(proxy, call, serve, &pass).await;
            }
            (_, Some(outcome)) if is_given_up => return outcome,
            _ => tokio::time::sleep(PENDING_RETRY_PAUSE).await,
        }
    }
}

/// Answers from the cache as soon as the writes that the answer depends on are visible
/// there; never when something else is in the way.
async fn when_visible(proxy: &Arc<Inner>, call: &Call) -> Outcome {
    let mut watch = proxy.freshness.watch();
    loop {
        // Before the decision: what comes in between is not waited for.
        watch.see();
        let reason = match serve(proxy, call).await {
            Ok(outcome) => return outcome,
            Err(pass) => pass.reason,
        };
        if reason != Reason::PendingWrite {
            return std::future::pending().await;
        }
        watch.write_visible().await;
    }
}

/// Lets the site answer, and compares a share of its answers with the cache.
async fn shadowed(proxy: &Arc<Inner>, call: Call) -> Outcome {
    let pass = Pass::new(Reason::Mode, "`api.mode` is `shadow`");
    let serve = match &call.asked {
        Ok(asked) if rand::random::<f64>() < proxy.settings.shadow_share => {
            let catalogue = proxy.freshness.catalogue(PendingWrites::default(), proxy.schemas.max_page(), false);
            match decide(asked, &call.caller.scope, &catalogue) {
                Decision::Serve(serve) => Some((serve, asked.request.clone())),
                Decision::Pass(_) => None,
            }
        }
        _ => None,
    };
    let Some((serve, request)) = serve else { return forward(proxy, &call, pass, None).await };
    let generation = proxy.freshness.replica().state().generation().await;
    let (outgoing, body) = (call.outgoing.clone(), call.body.clone());
    let Ok(generation) = generation else { return forward(proxy, &call, pass, None).await };
    match proxy.upstream.send_buffered(&outgoing, body, true).await {
        Ok(whole) => {
            let (whole, answered) = (Arc::new(whole), proxy.freshness.replica().now());
            let (method, argument) = (request.method, request.argument);
            let comparison = Comparison { method, argument, serve, generation, whole: Arc::clone(&whole), answered };
            proxy.shadow.compare(&proxy.freshness, comparison);
            repeat(proxy, &call.outgoing, &whole, "pass", Some(&pass))
        }
        Err(why) => gone(&why, &pass),
    }
}

/// Decides, and waits a moment where that may help.
async fn consider(proxy: &Arc<Inner>, call: &Call, site_is_down: bool) -> Result<Ready, Pass> {
    let deadline = tokio::time::Instant::now() + proxy.settings.wait;
    let mut watch = proxy.freshness.watch();
    loop {
        // Before the decision: what comes in between is not waited for.
        watch.see();
        let catalogue = proxy.freshness.catalogue(call.pending_writes.clone(), proxy.schemas.max_page(), site_is_down);
        // Before the plan: what the cache has and how fresh it is, is nothing to a caller
        // whose credential is not known to be good.
        match check_credential(proxy, call, &catalogue) {
            Ok(()) => {}
            Err(Unverified::Refused(answer)) => return Ok(Ready::Refuse(answer)),
            Err(Unverified::Pass(pass)) => return Err(pass),
        }
        let decided = planned(proxy, call, &catalogue).and_then(|planned| planned.at(&catalogue));
        match decided {
            Ok(serve) => return Ok(Ready::Serve(Box::new(serve))),
            Err(pass) => {
                if pass.reason == Reason::UnknownField {
                    proxy.freshness.want_schema();
                }
                let helps = match pass.reason {
                    Reason::Dirty => proxy.settings.on_dirty == OnDirty::Wait,
                    _ => false,
                };
                if !helps || site_is_down || !watch.changed(deadline).await {
                    return Err(pass);
                }
            }
        }
    }
}

/// Finds out what is asked, or remembers it.
fn planned(proxy: &Inner, call: &Call, catalogue: &Catalogue) -> Result<Planned, Pass> {
    let asked = match &call.cached {
        Some(cached) => match cached.planned(catalogue) {
            Some(planned) => return Ok(planned),
            None => Arc::new(Asked::parse(&call.body)?),
        },
        None => call.asked.clone()?,
    };
    let planned = decide::plan(&asked, &call.caller.scope, catalogue)?;
    if let Some(digest) = call.digest {
        proxy.plans.insert(digest, &asked, &call.caller, &planned, catalogue);
    }
    Ok(planned)
}

/// Checks the credential of a request that needs one, and has it renewed in time.
fn check_credential(proxy: &Arc<Inner>, call: &Call, catalogue: &Catalogue) -> Result<(), Unverified> {
    let Ok(asked) = &call.asked else { return Ok(()) };
    if !decide::needs_login(asked) {
        return Ok(());
    }
    let outage = catalogue.site_is_down.then_some(catalogue.standing.complete_as_of);
    proxy.callers.check(&call.caller, outage)?;
    if !catalogue.site_is_down {
        bind_session(proxy, call);
    }
    if !catalogue.site_is_down && proxy.callers.claim_renewal(&call.caller) {
        let (proxy, caller, body) = (Arc::clone(proxy), Arc::clone(&call.caller), call.body.clone());
        tokio::spawn(async move { renew(&proxy, &caller, &body).await });
    }
    Ok(())
}

/// Asks the site about the credential of a request.
async fn renew(proxy: &Inner, caller: &Caller, body: &[u8]) {
    if let Some((auth, ty)) = credential_question(body) {
        proxy.callers.renew(&proxy.upstream, caller, &auth, &ty).await;
    }
}

/// Has the site asked, beside the caller, whose session its token is, where that is not
/// known lately and the token is known to be good.
fn bind_session(proxy: &Arc<Inner>, call: &Call) {
    if !proxy.callers.claim_binding(&call.caller) {
        return;
    }
    let (proxy, body) = (Arc::clone(proxy), call.body.clone());
    tokio::spawn(async move {
        if let Some((auth, _)) = credential_question(&body) {
            proxy.callers.bind(&proxy.upstream, proxy.freshness.replica().client(), &auth).await;
        }
    });
}

/// Returns the credentials of a request, and a type that the caller reads.
fn credential_question(body: &[u8]) -> Option<(api3::Auth, String)> {
    let request = Asked::parse(body).ok()?.request;
    let ty = request.argument.get("type").and_then(Value::as_str).unwrap_or("Project");
    Some((request.auth?, ty.to_owned()))
}

/// Tells whether an answer to the request can prove its credential: nothing else can have
/// led to it.
fn can_prove(call: &Call) -> bool {
    call.asked.as_ref().is_ok_and(|asked| !asked.odd) && callers::is_plain(&call.outgoing.headers)
}

/// Learns from an answer whether the credential of the request is good.
async fn learn(proxy: &Arc<Inner>, call: &Call, answer: &Arc<BufferedResponse>) {
    if let Ok(asked) = &call.asked
        && can_prove(call)
    {
        proxy.callers.learn(&call.caller, &asked.request.method, answer).await;
        bind_session(proxy, call);
    }
}

/// Keeps the addresses in an answer, for reads of the same rows.
fn learn_addresses(proxy: &Inner, call: &Call, answer: &BufferedResponse) {
    if !call.wants_urls() || !answer.status.is_success() || answer.body.len() > MAX_SCANNED_ANSWER_BYTES {
        return;
    }
    let catalogue = proxy.freshness.catalogue(PendingWrites::default(), proxy.schemas.max_page(), false);
    if let Ok(Planned::Read(question, _)) = planned(proxy, call, &catalogue) {
        let entity_type = &question.query.entity_type;
        proxy.addresses.learn(entity_type, &question.addresses, &answer.body, catalogue.now.timestamp());
    }
}

/// Finds the older answer that is better than none when the site turns out to be
/// down.
async fn older_answer(proxy: &Arc<Inner>, call: &Call, pass: &Pass) -> Option<Box<Serve>> {
    if !matches!(pass.reason, Reason::Stale | Reason::Unverified | Reason::PendingWrite)
        || proxy.settings.mode != Mode::Serve
    {
        return None;
    }
    match consider(proxy, call, true).await {
        Ok(Ready::Serve(serve)) => Some(serve),
        _ => None,
    }
}

/// Tells whether the site does not answer a short question with the same credential.
async fn confirms_outage(proxy: &Inner, call: &Call) -> bool {
    match credential_question(&call.body) {
        Some((auth, ty)) => proxy.callers.confirms_outage(&proxy.upstream, &call.caller, &auth, &ty).await,
        None => false,
    }
}

async fn older_outcome(proxy: &Arc<Inner>, call: &Call, serve: &Serve, pass: &Pass) -> Outcome {
    if pass.reason == Reason::Unverified && !confirms_outage(proxy, call).await {
        return match proxy.callers.check(&call.caller, None) {
            Err(Unverified::Refused(answer)) => repeat(proxy, &call.outgoing, &answer, "refused", None),
            _ => gone(&Unreachable::unknown("it has not accepted this credential lately"), pass),
        };
    }
    match carry_out(proxy, call, serve, "stale").await {
        Ok(outcome) => Outcome { pass: Some(pass.clone()), ..outcome },
        Err(pass) => gone(&Unreachable::unknown("it is down, and the cache has no answer"), &pass),
    }
}

async fn carry_out(proxy: &Arc<Inner>, call: &Call, serve: &Serve, how: &'static str) -> Result<Outcome, Pass> {
    let store = proxy.freshness.replica().store();
    match serve {
        Serve::Info => match proxy.schemas.info(&proxy.upstream).await {
            Some(text) => Ok(served(proxy, &call.outgoing, Answered { body: text.into_bytes(), rows: 0 }, None, how)),
            None => Err(Pass::new(Reason::NotLive, "the site has not said yet what it is")),
        },
        Serve::Read(plan) => {
            check_writes(proxy, &plan.question.query, &plan.writes).await?;
            let urls = call.wants_urls().then_some(&proxy.addresses);
            let answered = proxy.costly.read(call.outgoing.peer(), store, plan, urls).await?;
            Ok(served(proxy, &call.outgoing, answered, Some((plan.fresh_as_of, &plan.writes)), how))
        }
        Serve::Summarize(plan) => {
            check_writes(proxy, &plan.question.query, &plan.writes).await?;
            let answered = proxy.costly.summarize(call.outgoing.peer(), store, plan).await?;
            Ok(served(proxy, &call.outgoing, answered, Some((plan.fresh_as_of, &plan.writes)), how))
        }
        Serve::Schema => {
            let catalogue = proxy.freshness.catalogue(PendingWrites::default(), 0, false);
            let question = call.schema_question().filter(|_| !call.is_localized()).unwrap_or_default();
            match proxy.schemas.schema(&question, &catalogue.schema, catalogue.standing.schema_due) {
                Some(whole) => Ok(repeat(proxy, &call.outgoing, &whole, how, None)),
                None => {
                    Err(Pass::new(Reason::SchemaUnread, "this part of the schema was not read through here lately"))
                }
            }
        }
    }
}

/// Passes when a row of the answer was changed by a write that is not visible yet.
async fn check_writes(proxy: &Inner, query: &Query, writes: &Writes) -> Result<(), Pass> {
    let Some(filter) = &writes.unless_any else { return Ok(()) };
    match answer::has_any(proxy.freshness.replica().store().as_ref(), query, filter).await {
        true => Err(Pass::new(Reason::PendingWrite, "a row of the answer has a pending write")),
        false => Ok(()),
    }
}

/// Sends a call to the site.
async fn forward(proxy: &Arc<Inner>, call: &Call, pass: Pass, older: Option<Box<Serve>>) -> Outcome {
    match pass.reason {
        // What nothing here can read, the site may read as a write.
        Reason::Write | Reason::UnknownMethod => return write_call::send(proxy, call, pass).await,
        Reason::Malformed if call.asked.is_err() => return write_call::send(proxy, call, pass).await,
        Reason::Mode if changes(call) => return write_call::send(proxy, call, pass).await,
        Reason::Uncacheable if call.method() == callers::SESSION_METHOD => {
            return open_session(proxy, call, &pass).await;
        }
        Reason::Uncacheable => return stream(proxy, call, &pass).await,
        _ => {}
    }
    let mut outgoing = call.outgoing.clone();
    if matches!(pass.reason, Reason::Unverified | Reason::SchemaUnread | Reason::SignedUrl)
        || call.caller.is_unbound_session()
    {
        // The answer is read here, too: a compressed one would prove nothing.
        outgoing.headers.remove(header::ACCEPT_ENCODING);
    }
    let key = shared_key(proxy, call, &outgoing);
    let schema = proxy.freshness.schema();
    let patient = older.is_none();
    if older.is_none() && proxy.upstream.is_given_up() {
        return gone(&Unreachable::unknown("it has not answered for a while, and is probed in the background"), &pass);
    }
    let answer = proxy.upstream.coalesce(key, outgoing, call.body.clone(), patient);
    let answer = match &older {
        Some(_) => within_patience(proxy, &pass, answer).await,
        None => answer.await,
    };
    match answer {
        Ok(whole) if whole.status.as_u16() < 500 || older.is_none() => {
            learn(proxy, call, &whole).await;
            if pass.reason == Reason::SignedUrl {
                learn_addresses(proxy, call, &whole);
            }
            let unchanged = proxy.freshness.writes() == call.writes;
            let keeps = pass.reason == Reason::SchemaUnread && unchanged && !call.is_localized();
            if let Some(question) = call.schema_question().filter(|_| keeps) {
                proxy.schemas.insert(question, call.method(), Arc::clone(&whole), schema);
            }
            repeat(proxy, &call.outgoing, &whole, "pass", Some(&pass))
        }
        Ok(whole) => match &older {
            Some(serve) => older_outcome(proxy, call, serve, &pass).await,
            None => repeat(proxy, &call.outgoing, &whole, "pass", Some(&pass)),
        },
        Err(why) => match &older {
            Some(serve) => older_outcome(proxy, call, serve, &pass).await,
            None => gone(&why, &pass),
        },
    }
}

/// Returns what requests must have in common to share one answer of the site: all that goes
/// there, where it may find another credential than in the body, and the writes that were
/// acknowledged before.
fn shared_key(proxy: &Inner, call: &Call, outgoing: &Outgoing) -> Digest {
    let headers = forwarded(&outgoing.headers);
    let mut lines: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    // Several of one name stay in their order: a site may go by the first.
    lines.sort_by_key(|(name, _)| *name);
    let writes = call.writes.to_le_bytes();
    let parts = [outgoing.target.as_bytes(), call.body.as_ref(), &writes].into_iter();
    let parts = parts.chain(lines.iter().flat_map(|(name, value)| [name.as_bytes(), value]));
    proxy.callers.request_digest(&parts.collect::<Vec<_>>())
}

/// Waits for an answer as long as an older one may be kept back; of a credential that is to
/// be proved, as long as the site answers others.
async fn within_patience(proxy: &Inner, pass: &Pass, answer: InFlight) -> Result<Arc<BufferedResponse>, Unreachable> {
    loop {
        match tokio::time::timeout(proxy.settings.patience, answer.clone()).await {
            Ok(answer) => return answer,
            Err(_) if pass.reason == Reason::Unverified && !proxy.upstream.is_down() => {}
            Err(_) => break,
        }
    }
    // Its silence goes on to show that the site is down.
    tokio::spawn(async move { drop(answer.await) });
    Err(Unreachable::unknown("it does not answer"))
}

fn changes(call: &Call) -> bool {
    call.asked.as_ref().map_or(true, |asked| decide::changes(asked))
}

/// Asks the site for a session, each caller for its own, and notes whose it is.
async fn open_session(proxy: &Arc<Inner>, call: &Call, pass: &Pass) -> Outcome {
    let mut outgoing = call.outgoing.clone();
    // The answer is read here, too.
    outgoing.headers.remove(header::ACCEPT_ENCODING);
    let sent = proxy.upstream.send_buffered(&outgoing, call.body.clone(), true).await;
    hand_on(proxy, call, sent, pass).await
}

/// Hands on what the site has answered to this call alone.
pub(super) async fn hand_on(
    proxy: &Arc<Inner>,
    call: &Call,
    sent: Result<BufferedResponse, Unreachable>,
    pass: &Pass,
) -> Outcome {
    match sent {
        Ok(whole) => {
            let whole = Arc::new(whole);
            learn(proxy, call, &whole).await;
            repeat(proxy, &call.outgoing, &whole, "pass", Some(pass))
        }
        Err(why) => gone(&why, pass),
    }
}

/// Hands an answer through as it arrives.
async fn stream(proxy: &Inner, call: &Call, pass: &Pass) -> Outcome {
    let slot = match proxy.upstream.slot(&call.outgoing).await {
        Ok(slot) => slot,
        Err(why) => return gone(&why, pass),
    };
    match proxy.upstream.send_with_retry(slot, &call.outgoing, call.body.clone(), true).await {
        Ok(response) => passed(super::passthrough::answer(response), pass),
        Err(why) => gone(&why, pass),
    }
}
