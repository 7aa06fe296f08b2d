//! Where a missing value becomes an empty one, and why that is right. An error that becomes
//! an empty value hides damage: what is stored and cannot be read is an error, or the
//! careful choice of its reader.

use std::collections::BTreeMap;
use std::fs;

use crate::prometheus::repository;
use crate::source_files::{all_sources, is_test};

const CALL: &str = "unwrap_or_default";

/// The modules that read what is stored.
const MODULES: [&str; 4] = ["src/proxy", "src/state", "src/store", "src/sync"];

/// How often a file may do it, and of what.
const ALLOWED: &[(&str, usize, &str)] = &[
    ("src/proxy/advice.rs", 2, "a type that has no config yet; a config of ours as text"),
    ("src/proxy/call.rs", 1, "a question that is not for the schema cache"),
    ("src/proxy/memory.rs", 1, "a peer that holds nothing"),
    ("src/proxy/passthrough.rs", 1, "an address without a query"),
    ("src/proxy/question.rs", 1, "a field that may link to any type"),
    ("src/proxy/rest_effects.rs", 1, "a path without a next part"),
    ("src/proxy/schema_cache.rs", 1, "an `info` that is not JSON has the usual page size"),
    ("src/proxy/settings.rs", 1, "the place of a value in the table of all of them"),
    ("src/proxy/shadow.rs", 3, "no record yet, or one that was counted as unreadable; answers that are compared"),
    ("src/proxy/site_lag.rs", 3, "a write that is not remembered any more"),
    ("src/proxy/upstream.rs", 1, "an answer that does not say its length"),
    ("src/proxy/write_effects.rs", 1, "a write without an answer"),
    ("src/state/leader.rs", 1, "shown: without its file no process leads"),
    ("src/store/elasticsearch/admin.rs", 4, "numbers of aggregations; version 0 differs from every row of the state"),
    ("src/store/elasticsearch/document.rs", 1, "a field without hidden links"),
    ("src/store/elasticsearch/links.rs", 1, "an entity that was never seen"),
    ("src/store/elasticsearch/plan.rs", 2, "an aggregation that found nothing"),
    ("src/store/elasticsearch/targets.rs", 1, "a column without a value is null"),
    ("src/store/elasticsearch/write.rs", 1, "a row that cannot be stored was refused before"),
    ("src/store/embedded/fetch.rs", 1, "the place of a path in a list that has it"),
    ("src/store/embedded/memory/slots.rs", 1, "slots beyond the last one are free"),
    ("src/store/embedded/put.rs", 1, "a document of an older layout may hold a value of another data type"),
    ("src/store/embedded/verify.rs", 2, "no bytes are no document, which is damage; a document of an older layout"),
    ("src/sync/extract.rs", 2, "an entry without an event type; a field that no filter names"),
    ("src/sync/integrity.rs", 2, "work that goes round begins anew; a row that the state does not know"),
    ("src/sync/loops.rs", 1, "a site that asks for no pause"),
    ("src/sync/periods.rs", 1, "work that goes round begins anew"),
    ("src/sync/poll.rs", 1, "an entry without a text: fingerprints of two such entries differ by id"),
    ("src/sync/scrub.rs", 1, "work that goes round begins anew"),
    ("src/sync/status.rs", 1, "a type that lacks no field"),
    ("src/sync/tracked.rs", 2, "a field that no filter names; a type on which no other depends"),
    ("src/sync/write.rs", 2, "a key that the answer does not name; a key of which nothing was announced"),
];

#[test]
fn an_empty_value_stands_for_a_missing_one_only_where_that_is_right() {
    let mut found = BTreeMap::new();
    let is_listed = |path: &str| MODULES.iter().any(|module| path.starts_with(module));
    for path in all_sources().iter().filter(|path| !is_test(path)) {
        let name = path.to_str().expect("a name in UTF-8");
        let text = fs::read_to_string(repository(name)).expect("a file");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let times = code.matches(CALL).count();
        if is_listed(name) && times > 0 {
            found.insert(name.to_owned(), times);
        }
    }
    let allowed: BTreeMap<String, usize> =
        ALLOWED.iter().map(|(name, times, _)| ((*name).to_owned(), *times)).collect();
    assert_eq!(found, allowed, "`{CALL}` needs a reason in the list of this test, or an error in its place");
}
