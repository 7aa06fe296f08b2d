//! What the simulated site costs: `cargo bench --bench sim -- [ENTITIES]`.
//!
//! It must not be what other measurements measure: it prints the time to make its
//! data, the memory that takes, and the time of the pages that an import, a poll
//! and a check ask for; then reads over HTTP, a reset and a snapshot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sgcache::api3::Request;
use sgcache::sim::{Action, Sim, SimSettings, Site, SiteSettings};

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
    let ten = [
        "code",
        "sg_status_list",
        "description",
        "sg_cut_in",
        "sg_cut_out",
        "project",
        "sg_sequence",
        "created_at",
        "updated_at",
        "cached_display_name",
    ];
    let ten = read("Shot", json!([leaf("id", "greater_than", json!([1_000]))]), json!([]), &ten, 500);
    show("500 shots, 10 fields", &site, &ten);
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
    reads_of_one_row(&site);
    reset(site, entities);
}

/// Prints how many rows are read in a second, over HTTP, by eight clients that
/// keep their connections.
fn reads_of_one_row(site: &Arc<Site>) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let done = runtime.block_on(async {
        let sim = Sim::serve(Arc::clone(site), &SimSettings::default()).await.expect("a free port");
        let until = Instant::now() + Duration::from_secs(5);
        let clients = (0..8).map(|client| read_until(sim.url(), client, until));
        let done: u32 = futures::future::join_all(clients).await.into_iter().sum();
        sim.shutdown().await;
        done
    });
    println!("{:34} {:9} a second", "reads of one row over HTTP", done / 5);
}

async fn read_until(url: String, client: u32, until: Instant) -> u32 {
    let http = reqwest::Client::new();
    let mut done = 0;
    while Instant::now() < until {
        let id = client * 1_000 + done % 1_000 + 1;
        let body = json!({"method_name": "read", "params": [{"script_name": "sgcache", "script_key": "sgcache-sim"},
            {"type": "Task", "return_fields": ["content", "sg_status_list"], "paging": {"entities_per_page": 1, "current_page": 1},
            "filters": {"logical_operator": "and", "conditions": [leaf("id", "is", json!([id]))]}}]});
        let answer = http.post(format!("{url}/api3/json")).body(body.to_string()).send().await.expect("an answer");
        assert!(answer.bytes().await.expect("a body").starts_with(b"{\"results\""));
        done += 1;
    }
    done
}

/// Prints how long it takes to return to the start after a thousand writes, and to
/// save the site and load it again.
fn reset(site: Arc<Site>, entities: usize) {
    let writes = json!({"write": {"repeat": 1_000, "writes": [
        {"create": {"type": "Shot", "fields": {"code": "s{n}", "project": {"type": "Project", "id": 1}}}}]}});
    let writes: Action = serde_json::from_value(writes).expect("a step");
    site.backup("before");
    site.perform(&writes).expect("writes");
    let start = Instant::now();
    assert!(site.restore("before"));
    println!("{:34} {:9.3} ms", "return after 1,000 new shots", start.elapsed().as_secs_f64() * 1e3);
    let path = std::env::temp_dir().join(format!("sgcache-bench-{}.snapshot", std::process::id()));
    let start = Instant::now();
    site.save_snapshot(&path).expect("a file");
    let saved = start.elapsed().as_secs_f64();
    let size = std::fs::metadata(&path).map_or(0, |file| file.len()) >> 20;
    println!("{:34} {saved:9.1} s  {size:>6} MB", format!("{entities} entities saved"));
    drop(site);
    let start = Instant::now();
    let mut input = std::io::BufReader::with_capacity(1 << 20, std::fs::File::open(&path).expect("a file"));
    let again = Site::from_snapshot(&SiteSettings::default(), &mut input).expect("a site");
    println!("{:34} {:9.1} s  {:>6} MB resident", "loaded again", start.elapsed().as_secs_f64(), resident());
    drop(again);
    // A file that stays is only litter in the folder for temporary files.
    let _ = std::fs::remove_file(path);
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
