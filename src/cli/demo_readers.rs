//! The same questions, asked of the site and of the cache while a demo runs, and how long
//! each took.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::Failure;
use super::demo_caller::Caller;
use super::output::number;

/// The pause between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(500);
/// Answers of each side that are remembered.
const MAX_TIMES: usize = 10_000;

/// A question, and how long its answers took.
struct Question {
    words: &'static str,
    method: &'static str,
    argument: Value,
    site: Vec<Duration>,
    cache: Vec<Duration>,
}

/// Programs that ask both.
pub struct DemoReaders {
    questions: Arc<Mutex<Vec<Question>>>,
    _task: AbortOnDropHandle<()>,
}

impl DemoReaders {
    /// Begins to ask.
    ///
    /// # Errors
    ///
    /// When no HTTP client can be made.
    pub fn start(site: SocketAddr, proxy: SocketAddr) -> Result<Self, Failure> {
        let (site, cache) = (Caller::new(site)?, Caller::new(proxy)?);
        let questions = Arc::new(Mutex::new(questions()));
        let asked = Arc::clone(&questions);
        let task = tokio::spawn(async move {
            loop {
                ask_all(&asked, &site, &cache).await;
                tokio::time::sleep(PAUSE).await;
            }
        });
        Ok(Self { questions, _task: AbortOnDropHandle::new(task) })
    }

    /// Returns a table of medians and of what 95 of 100 answers did not exceed; nothing
    /// while the cache has not answered.
    pub fn table(&self) -> String {
        let mut questions = self.questions.lock();
        let rounds = questions.iter().map(|one| one.cache.len()).max().unwrap_or_default();
        if rounds == 0 {
            return String::new();
        }
        let mut text = format!("  {:<38}{:>19}{:>20}\n", "", "asked of the site", "of the cache");
        let _ = writeln!(text, "  {:<38}{:>10}{:>9}{:>11}{:>9}", "", "median", "95 %", "median", "95 %");
        for one in questions.iter_mut() {
            let [site, site95] = quantiles(&mut one.site);
            let [cache, cache95] = quantiles(&mut one.cache);
            let _ = writeln!(text, "  {:<38}{site:>10}{site95:>9}{cache:>11}{cache95:>9}", one.words);
        }
        let _ = writeln!(text, "  each up to {} times, since the types were complete", number(rounds as u64));
        text
    }
}

async fn ask_all(questions: &Mutex<Vec<Question>>, site: &Caller, cache: &Caller) {
    let lock = || questions.lock();
    let asked: Vec<_> = lock().iter().map(|one| (one.method, one.argument.clone())).collect();
    for (index, (method, argument)) in asked.iter().enumerate() {
        let seen = cache.call(method, argument).await;
        // Until its type is complete the site answers both.
        if seen.how != "hit" && lock()[index].cache.is_empty() {
            continue;
        }
        let of_site = site.call(method, argument).await;
        let mut questions = lock();
        let one = &mut questions[index];
        for (times, seen) in [(&mut one.cache, seen), (&mut one.site, of_site)] {
            if seen.how != "failed" && times.len() < MAX_TIMES {
                times.push(seen.took);
            }
        }
    }
}

fn quantiles(times: &mut [Duration]) -> [String; 2] {
    times.sort_unstable();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
    let shown = |time: Option<&Duration>| match time.map(Duration::as_secs_f64) {
        None => "-".to_owned(),
        Some(s) if s < 0.01 => format!("{:.1} ms", s * 1e3),
        Some(s) if s < 1.0 => format!("{:.0} ms", s * 1e3),
        Some(s) => format!("{s:.2} s"),
    };
    [50, 95].map(|share| shown(at(share)))
}

fn questions() -> Vec<Question> {
    let read = |ty: &str, fields: &[&str], filters: Value, rows: u32| {
        json!({"type": ty, "return_fields": fields, "return_only": "active",
            "filters": {"logical_operator": "and", "conditions": filters}, "api_return_image_urls": true,
            "paging": {"entities_per_page": rows, "current_page": 1}, "return_paging_info_without_counts": true})
    };
    let condition =
        |path: &str, relation: &str, value: Value| json!([{"path": path, "relation": relation, "values": [value]}]);
    let question = |words, method, argument| Question { words, method, argument, site: Vec::new(), cache: Vec::new() };
    vec![
        question(
            "find_one Shot by id",
            "read",
            read("Shot", &["code", "sg_sequence"], condition("id", "is", json!(1)), 1),
        ),
        question(
            "find Shots by status",
            "read",
            read("Shot", &["code"], condition("sg_status_list", "is", json!("ip")), 500),
        ),
        question(
            "find 500 Versions with their shots",
            "read",
            read("Version", &["code", "entity", "entity.Shot.code"], json!([]), 500),
        ),
        question(
            "summarize Tasks by number",
            "summarize",
            json!({"type": "Task", "summaries": [{"field": "id", "type": "count"}], "include_archived_projects": true,
                "filters": {"logical_operator": "and", "conditions": condition("sg_status_list", "is", json!("ip"))}}),
        ),
    ]
}
