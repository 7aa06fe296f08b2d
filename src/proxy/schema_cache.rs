//! Answers that are not rows, kept as the bytes of the site: `info`, and schemas by
//! the question that was asked.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde_json::Value;

use super::credential_proof::Proof;
use super::upstream::{BufferedResponse, Outgoing, Upstream};
use crate::api3;
use crate::schema::Schema;
use crate::state::State;

/// How long `info` is not asked for again.
const INFO_FOR: Duration = Duration::from_secs(180);
/// How long the site may take to answer.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How long a schema is not asked for again.
const SCHEMA_FOR: Duration = Duration::from_secs(60);
/// The memory that schema answers may take; what is used least gives way.
const MAX_SCHEMA_BYTES: u64 = 64 << 20;
/// The number of schema answers that the cache is sized for at its start.
const EXPECTED_SCHEMAS: usize = 256;
/// The name of `info` in the state.
const KEPT: &str = "proxy/info";
/// The largest page of a site that does not say.
const USUAL_PAGE: u32 = 500;
const INFO: &[u8] = br#"{"method_name": "info", "params": []}"#;

/// A kept schema: the answer, when it was given, and the schema that held then.
struct Kept {
    answer: Arc<BufferedResponse>,
    at: Instant,
    schema: Arc<Schema>,
}

/// Weighs an entry by the bytes of its question and its answer.
#[derive(Clone)]
struct Weight;

impl Weighter<String, Arc<Kept>> for Weight {
    fn weight(&self, question: &String, kept: &Arc<Kept>) -> u64 {
        (question.len() + kept.answer.body.len()) as u64
    }
}

/// The answers of the site that are not rows.
pub(super) struct SchemaCache {
    state: State,
    info: Mutex<Option<(String, Instant)>>,
    most_rows: AtomicU32,
    asking: tokio::sync::Mutex<()>,
    schemas: Cache<String, Arc<Kept>, Weight>,
}

impl SchemaCache {
    /// Begins with the `info` that was kept in the state, which counts as old.
    pub async fn new(state: State) -> Self {
        let long_ago = Instant::now().checked_sub(INFO_FOR).unwrap_or_else(Instant::now);
        let kept = state.kept::<String>(KEPT).await.ok().flatten().map(|text| (text, long_ago));
        Self {
            most_rows: AtomicU32::new(max_page(&state).await),
            info: Mutex::new(kept),
            asking: tokio::sync::Mutex::default(),
            schemas: Cache::with_weighter(EXPECTED_SCHEMAS, MAX_SCHEMA_BYTES, Weight),
            state,
        }
    }

    /// Returns what the site says that it is: new within minutes, older while it is
    /// down, nothing before the first answer.
    pub async fn info(&self, upstream: &Upstream) -> Option<String> {
        let known = lock(&self.info).clone();
        match known {
            Some((text, at)) if at.elapsed() < INFO_FOR => return Some(text),
            Some((text, _)) if upstream.is_down() => return Some(text),
            _ => {}
        }
        let _asking = self.asking.lock().await;
        if let Some((text, at)) = lock(&self.info).clone()
            && at.elapsed() < INFO_FOR
        {
            return Some(text);
        }
        let outgoing = Outgoing::own(api3::PATH, super::listener::JSON);
        let answer = upstream.ask(&outgoing, Bytes::from_static(INFO), MAX_WAIT).await.ok();
        let text = answer.filter(|answer| answer.status.is_success()).and_then(|answer| info_text(&answer));
        match text {
            Some(text) => {
                self.learn(text.clone());
                if let Err(error) = self.state.keep(KEPT, &text).await {
                    tracing::warn!(%error, "what the site says of itself could not be kept");
                }
                Some(text)
            }
            None => known.map(|(text, _)| text),
        }
    }

    /// Returns the largest page of the site, as far as it said.
    pub fn max_page(&self) -> u32 {
        self.most_rows.load(Ordering::Relaxed)
    }

    fn learn(&self, text: String) {
        self.most_rows.store(page_of(&text), Ordering::Relaxed);
        *lock(&self.info) = Some((text, Instant::now()));
    }

    /// Returns the answer that the site gave to the same question about its schema,
    /// if that was a moment ago and nothing is known to have changed since.
    pub fn schema(&self, question: &str, schema: &Arc<Schema>, schema_due: bool) -> Option<Arc<BufferedResponse>> {
        let kept = self.schemas.get(question)?;
        let fresh = kept.at.elapsed() < SCHEMA_FOR && Arc::ptr_eq(&kept.schema, schema) && !schema_due;
        fresh.then(|| Arc::clone(&kept.answer))
    }

    /// Keeps a successful answer about the schema. `schema` is the one that held before the
    /// question was sent.
    pub fn insert(&self, question: String, method: &str, answer: Arc<BufferedResponse>, schema: Arc<Schema>) {
        if Proof::of(method, answer.status, &answer.body) == Proof::Accepted {
            self.schemas.insert(question, Arc::new(Kept { answer, at: Instant::now(), schema }));
        }
    }

    /// Forgets every schema: one was written.
    pub fn clear(&self) {
        self.schemas.clear();
    }
}

/// Returns the largest page of the site, as far as its last `info` in the state said.
pub async fn max_page(state: &State) -> u32 {
    state.kept::<String>(KEPT).await.ok().flatten().map_or(USUAL_PAGE, |text| page_of(&text))
}

fn page_of(text: &str) -> u32 {
    let info: Value = serde_json::from_str(text).unwrap_or_default();
    let info = info.get("results").unwrap_or(&info);
    let most = info.get("api_max_entities_per_page").and_then(Value::as_u64);
    most.and_then(|most| u32::try_from(most).ok()).unwrap_or(USUAL_PAGE)
}

fn info_text(answer: &BufferedResponse) -> Option<String> {
    let text = std::str::from_utf8(&answer.body).ok()?;
    let info: Value = serde_json::from_str(text).ok()?;
    let results = api3::results(info).ok()?;
    results.get("version").is_some_and(Value::is_array).then(|| text.to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn schema_answers_take_no_more_memory_than_they_may() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = SchemaCache::new(State::open(directory.path()).await.expect("a state")).await;
        let body = format!(r#"{{"results":{{"Shot":{{"name":"{}"}}}}}}"#, "x".repeat(1 << 20));
        let (body, headers, status) = (Bytes::from(body), Default::default(), StatusCode::OK);
        let answer = Arc::new(BufferedResponse { status, headers, body, asked_at: Instant::now() });
        let schema = Arc::new(Schema::default());
        for number in 0..100 {
            let question = number.to_string();
            cache.insert(question.clone(), "schema_read", Arc::clone(&answer), Arc::clone(&schema));
            assert!(cache.schemas.weight() <= MAX_SCHEMA_BYTES, "{}", cache.schemas.weight());
        }
        assert!(cache.schemas.len() > 10);
    }
}
