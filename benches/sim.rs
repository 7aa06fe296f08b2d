//! What the simulated site costs: `cargo bench --bench sim -- [ENTITIES]`.
//!
//! It must not be what other measurements measure: it prints the time to make its
//! data, the memory that takes, and the time of the pages that an import, a poll
//! and a check ask for.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sgcache::api3::Request;
use sgcache::sim::Site;

fn main() {
    let entities = std::env::args().filter_map(|word| word.parse().ok()).next().unwrap_or(1_000_000);
    let start = Instant::now();
    let site = Site::generated(1, entities);
    println!("{} entities made in {:.1} s, {} MB resident", site.entities(), start.elapsed().as_secs_f64(), resident());

    let shot = [
        "code",
        "project",
        "sg_sequence",
        "sg_status_list",
        "description",
        "image",
        "tags",
        "assets",
        "tasks",
        "sg_versions",
        "notes",
        "sg_cut_in",
        "sg_cut_out",
        "sg_cut_duration",
        "sg_cut_order",
        "sg_head_in",
        "sg_tail_out",
        "sg_shot_type",
        "created_at",
        "created_by",
        "updated_at",
        "updated_by",
        "parent_shots",
        "shots",
        "elements",
        "reel",
        "sg_scene",
        "sg_published_files",
        "cut_in",
        "cached_display_name",
    ];
    let page = |ty: &str, filter: Value, order: Value, size: u32| read(ty, filter, order, &shot, size);
    let all = json!([]);
    show(
        "500 shots, 30 fields",
        &site,
        &page("Shot", json!([leaf("id", "greater_than", json!([1_000]))]), all.clone(), 500),
    );
    let versions = site.count("Version") as i64 / 2;
    let keyset = json!([leaf("id", "greater_than", json!([versions]))]);
    show("500 versions from the middle", &site, &page("Version", keyset.clone(), all.clone(), 500));
    show(
        "newest 500 tasks of all",
        &site,
        &page("Task", all.clone(), json!([{"field_name": "updated_at", "direction": "desc"}]), 500),
    );
    let project = json!([
        leaf("project", "is", json!([{"type": "Project", "id": 1}])),
        leaf("sg_status_list", "is", json!(["fin"]))
    ]);
    show("500 final shots of a project", &site, &page("Shot", project, all.clone(), 500));
    show(
        "tasks whose name contains x",
        &site,
        &page("Task", json!([leaf("content", "contains", json!(["x"]))]), json!([{"field_name": "content"}]), 50),
    );
    let last = site.last_event_id().0;
    let poll = json!([{"logical_operator": "or", "conditions": [
        leaf("id", "greater_than", json!([last - 20])), leaf("id", "between", json!([last - 90, last - 60]))]}]);
    show(
        "a poll of the event log",
        &site,
        &read(
            "EventLogEntry",
            poll,
            all,
            &["event_type", "attribute_name", "meta", "entity", "project", "user", "created_at"],
            500,
        ),
    );
    let count = json!({"type": "Task", "summaries": [{"field": "id", "type": "count"}],
        "grouping": [{"field": "id", "type": "thousands"}]});
    show("tasks counted by thousands", &site, &request("summarize", count));
}

fn leaf(path: &str, relation: &str, values: Value) -> Value {
    json!({"path": path, "relation": relation, "values": values})
}

fn read(ty: &str, conditions: Value, order: Value, fields: &[&str], size: u32) -> Request {
    request(
        "read",
        json!({"type": ty, "return_fields": fields, "sorts": order,
        "filters": {"logical_operator": "and", "conditions": conditions},
        "paging": {"entities_per_page": size, "current_page": 1}}),
    )
}

fn request(method: &str, argument: Value) -> Request {
    let body = json!({"method_name": method,
        "params": [{"script_name": "sgcache", "script_key": "sgcache-sim"}, argument]});
    Request::parse(body.to_string().as_bytes()).expect("a request")
}

/// Prints the median of twenty answers.
fn show(name: &str, site: &Site, request: &Request) {
    let request = Ok(request.clone());
    let mut times: Vec<Duration> = Vec::new();
    let mut bytes = 0;
    for _ in 0..20 {
        let start = Instant::now();
        let answer = site.answer(&request);
        times.push(start.elapsed());
        assert!(!answer.starts_with(b"{\"error"), "{}", String::from_utf8_lossy(&answer));
        bytes = answer.len();
    }
    times.sort_unstable();
    println!("{name:34} {:9.3} ms {:>9} bytes", times[10].as_secs_f64() * 1e3, bytes);
}

/// Returns the memory of this process in megabytes; 0 where /proc is missing.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or_default() / 1024
}
