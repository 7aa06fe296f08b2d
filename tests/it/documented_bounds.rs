//! `SECURITY.md` states every bound with its default, and states them as the code has them.

use std::fs;

use sgcache::api3::json::{MAX_DEPTH, MAX_TREE_BYTES};
use sgcache::proxy::Settings;

/// Bounds that are constants: the file, the constant as it stands there, and the words of
/// `SECURITY.md`. Who changes one has to change the other.
const CONSTANTS: &[(&str, &str, &str)] = &[
    (
        "src/proxy/progress.rs",
        "MIN_PROGRESS_BYTES: usize = 64 << 10",
        "the largest body of which fewer than 64 KiB came",
    ),
    ("src/proxy/memory.rs", "SMALL_BYTES: usize = 64 << 10", "what takes more than 64 KiB leaves an eighth"),
    ("src/proxy/memory.rs", "PARTS: usize = 8", "leaves an eighth to what takes less"),
    ("src/proxy/credential_cache.rs", "REFUSAL_REPEATED_FOR: Duration = Duration::from_secs(10)", "for 10 s; then"),
    (
        "src/proxy/credential_cache.rs",
        "MAX_OUTAGE_AGE: Duration = Duration::from_secs(8 * 3600)",
        "within 8 hours before",
    ),
    ("src/proxy/credential_cache.rs", "MAX_ACCEPTED: usize = 10_000", "| accepted credentials, in memory | 10,000 |"),
    (
        "src/proxy/credential_cache.rs",
        "MAX_REFUSED: usize = 2_000",
        "| refused credentials, in memory | 2,000, answers up to 4 KiB;",
    ),
    ("src/proxy/credential_cache.rs", "MAX_REFUSAL_BYTES: usize = 4 << 10", "2,000, answers up to 4 KiB;"),
    ("src/state/credentials.rs", "MAX_RECORDS: usize = 1_000", "| records of accepted credentials, on disk | 1,000 |"),
    (
        "src/proxy/session_bindings.rs",
        "MAX_BINDINGS: usize = 10_000",
        "| owners of session tokens, in memory | 10,000 |",
    ),
    (
        "src/proxy/session_bindings.rs",
        "QUESTION_PAUSE: Duration = Duration::from_secs(120)",
        "at most once in two minutes",
    ),
    (
        "src/proxy/session_bindings.rs",
        "BINDING_LIFETIME: Duration = Duration::from_secs(3600)",
        "is believed for an hour",
    ),
    (
        "src/proxy/plan_cache.rs",
        "MAX_CACHED_PLAN_BYTES: u64 = 32 << 20",
        "| parsed requests (plan cache) | 32 MiB; requests up to 4 KiB |",
    ),
    ("src/proxy/plan_cache.rs", "MAX_REQUEST_BYTES: usize = 4 << 10", "32 MiB; requests up to 4 KiB |"),
    (
        "src/proxy/address_cache.rs",
        "MAX_ADDRESS_BYTES: u64 = 32 << 20",
        "| signed addresses, in memory only | 32 MiB; half of their validity |",
    ),
    (
        "src/cli/hook_delivery.rs",
        "MAX_KEPT_MESSAGES: usize = 200",
        "about one pipeline of which is kept that they were sent | 200;",
    ),
    ("src/proxy/schema_cache.rs", "MAX_SCHEMA_BYTES: u64 = 64 << 20", "| schema answers | 64 MiB |"),
    (
        "src/config/api.rs",
        "LONGEST_VERIFY_EVERY: Duration = Duration::from_secs(8 * 3600)",
        "(5 minutes; at most 8 hours)",
    ),
    ("src/server/connections.rs", "MAX_HEAD_BYTES: usize = 32 << 10", "10 s, 32 KiB, 100 header fields: 408, 431"),
    ("src/server/listen.rs", "MAX_CONNECTIONS: usize = 256", "ops listener 256 |"),
    ("src/server/listen.rs", "MAX_PEER_CONNECTIONS: usize = 64", "ops listener 64 |"),
    ("src/proxy/listener.rs", "BODY_TOTAL_TIMEOUT: Duration = Duration::from_secs(600)", "| 600 s: 408 |"),
    ("src/proxy/listener.rs", "LARGE_REQUEST_BYTES: usize = 64 << 10", "| long requests (above 64 KiB) being read |"),
    (
        "src/proxy/listener.rs",
        "MAX_READING: usize = 2",
        "| 2 at a time, one for each address beyond loopback, on threads of their own",
    ),
    ("src/proxy/costly.rs", "COSTLY_CONDITIONS: usize = 50", "| reads of more than 50 conditions answered"),
    ("src/proxy/costly.rs", "MAX_COSTLY: usize = 1", "| 1 at a time; after 10 s of waiting the site is asked |"),
    (
        "src/proxy/progress.rs",
        "MIN_STALL: Duration = Duration::from_secs(1)",
        "came in 1 s, or answer that is taken as slowly, is cut off first",
    ),
    ("src/proxy/slots.rs", "of_peer: count.div_ceil(2)", "| 64, one address beyond loopback has half;"),
    (
        "src/proxy/progress.rs",
        "MIN_PROGRESS_BYTES: usize = 64 << 10",
        "one of which fewer than 64 KiB came in 1 s yields",
    ),
    (
        "src/proxy/progress.rs",
        "MIN_STALL: Duration = Duration::from_secs(1)",
        "64 KiB came in 1 s yields to one that waits",
    ),
    ("src/proxy/upstream.rs", "OWN_SLOTS: usize = 16", "| questions of the proxy itself, beside those | 16 |"),
    (
        "src/proxy/passthrough.rs",
        "BEGINNING_BYTES: usize = 64 << 10",
        "| bodies above 64 KiB that go through as they come",
    ),
    (
        "src/server/connections.rs",
        "MIN_TAKEN_BYTES: usize = 256 << 10",
        "an answer of which fewer than 256 KiB are taken",
    ),
    ("src/proxy/memory.rs", "max_peer: max_total / 2", "one address beyond loopback has half: 429"),
    (
        "src/proxy/freshness.rs",
        "MAX_PENDING_WRITES: usize = 1_000",
        "| writes that are not visible in the cache yet | 1,000;",
    ),
    (
        "src/proxy/freshness.rs",
        "LONGEST_BACKPRESSURE: Duration = Duration::from_secs(30)",
        "the answer to a further one waits up to 30 s",
    ),
    (
        "src/proxy/freshness.rs",
        "BYTES_PER_PENDING_WRITE: usize = 64 << 10",
        "| 1,000; one that remembers more than 64 KiB",
    ),
    ("src/shotgun/client.rs", "MAX_ANSWER_BYTES: usize = 256 << 20", "own requests | 256 MiB of the site"),
    ("src/elastic/client.rs", "MAX_ANSWER_BYTES: u64 = 1 << 30", "1 GiB of Elasticsearch, where it says its length"),
    (
        "src/store/embedded/mod.rs",
        "ResultCache::new(settings.memory / 8)",
        "| results that are remembered | an eighth of the store's memory",
    ),
];

fn security() -> String {
    let text = fs::read_to_string("SECURITY.md").expect("SECURITY.md");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn constants_are_documented_as_they_are() {
    let security = security();
    let mut wrong = Vec::new();
    for (file, constant, words) in CONSTANTS {
        let text = fs::read_to_string(file).expect("a file");
        if !text.contains(constant) {
            wrong.push(format!("{file} has no `{constant}`: does SECURITY.md still say the truth?"));
        }
        if !security.contains(words) {
            wrong.push(format!("SECURITY.md does not say `{words}` (`{constant}` in {file})"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn defaults_are_documented_as_they_are() {
    let (security, usual) = (security(), Settings::default());
    let (bounds, mib) = (usual.connections, |bytes: usize| bytes >> 20);
    let documented = [
        format!("`api.max_connections` ({})", bounds.max_connections),
        format!("`api.max_peer_connections` ({})", bounds.max_peer_connections),
        format!("TLS handshake included | {} s,", bounds.head_timeout.as_secs()),
        format!("are taken while more waits | {} s:", bounds.body_timeout.as_secs()),
        format!("on one connection | {} h |", bounds.idle_timeout.as_secs() / 3600),
        format!("| a JSON request | {} MiB: 413 | `api.max_request_mib`", mib(usual.max_request_bytes)),
        format!("in memory together | {} MiB: 503", mib(usual.max_memory_bytes)),
        format!("| requests to the site in flight | {}, one address", usual.max_upstream),
        format!("a request waits {} s for its slot", usual.max_slot_wait.as_secs()),
        format!("(uploads), beside those | {}, one address", usual.max_uploads),
        format!("| one answer of the site in memory | {} MiB: 503 |", mib(usual.max_answer_bytes)),
        format!("in the middle of an answer | {} s:", usual.max_answer_silence.as_secs()),
        format!("after {} s of waiting 503", usual.max_reading_wait.as_secs()),
        format!("| {MAX_DEPTH} levels, {} MiB as a tree;", mib(MAX_TREE_BYTES)),
        format!("`api.verify_every` ({} minutes;", usual.verify_every.as_secs() / 60),
        format!("| silence of a site that is asked | {} s with", usual.patience.as_secs()),
        format!("an older answer at hand, {} s without", usual.patience.as_secs() * 15),
    ];
    let missing: Vec<_> = documented.iter().filter(|words| !security.contains(words.as_str())).collect();
    assert!(missing.is_empty(), "SECURITY.md does not say: {missing:#?}");
}
