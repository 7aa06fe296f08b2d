//! What became of one operation of a bulk request.
//!
//! The line that matters is between a *row* that the server refuses (a dead
//! letter, nothing else is held up) and a *store* that is not as it must be: a
//! closed or missing index, a write block, lost rights. Taking the second for the
//! first would throw a whole type away because an index was closed.

use serde_json::Value;

use super::answer::reason_of;

/// What became of one operation of a bulk request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemOutcome {
    /// Done (or, for a delete, already gone).
    Done,
    /// A newer version is there, or this very write after a lost reply. Nothing to do.
    Stale,
    /// The server refuses this document for what is in it.
    Refused(String),
    /// The index, the rights or the cluster are not as they must be; the document is not to blame.
    StoreFault(String),
}

/// What one item of an answer says, before retries are used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Final(ItemOutcome),
    Retry(String),
}

/// Reads one item of a bulk answer: `{"index": {"status": 201, ...}}`.
pub(super) fn judge(item: &Value) -> Verdict {
    let Some((action, result)) = item.as_object().and_then(|object| object.iter().next()) else {
        return Verdict::Retry("the answer has an empty item".to_owned());
    };
    let status = result.get("status").and_then(Value::as_u64).unwrap_or_default();
    let (error_type, reason) =
        result.get("error").and_then(reason_of).unwrap_or_else(|| (None, "no explanation given".to_owned()));
    let error_type = error_type.unwrap_or_default();
    let text = format!("status {status}: {error_type}: {reason}");
    match (status, error_type.as_str()) {
        (200..300, _) => Verdict::Final(ItemOutcome::Done),
        (404, "") if action == "delete" => Verdict::Final(ItemOutcome::Done),
        (409, _) => Verdict::Final(ItemOutcome::Stale),
        (429 | 408, _) | (500.., _) | (0, _) => Verdict::Retry(text),
        (401 | 403, _) => Verdict::Final(ItemOutcome::StoreFault(text)),
        (_, "index_closed_exception" | "index_not_found_exception" | "cluster_block_exception") => {
            Verdict::Final(ItemOutcome::StoreFault(text))
        }
        (_, "illegal_argument_exception") if is_alias_trouble(&reason) => Verdict::Final(ItemOutcome::StoreFault(text)),
        _ => Verdict::Final(ItemOutcome::Refused(text)),
    }
}

/// An alias without exactly one index to write to refuses every document alike.
fn is_alias_trouble(reason: &str) -> bool {
    reason.contains("no write index is defined for alias")
        || reason.contains("alias [") && reason.contains("more than one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn outcome(action: &str, status: u16, error_type: &str) -> &'static str {
        let mut result = json!({"status": status});
        if !error_type.is_empty() {
            result["error"] = json!({"type": error_type, "reason": "because"});
        }
        match judge(&json!({ action: result })) {
            Verdict::Retry(_) => "retry",
            Verdict::Final(ItemOutcome::Done) => "done",
            Verdict::Final(ItemOutcome::Stale) => "stale",
            Verdict::Final(ItemOutcome::Refused(_)) => "refused",
            Verdict::Final(ItemOutcome::StoreFault(_)) => "store fault",
        }
    }

    #[test]
    fn each_item_result_of_real_servers_has_its_meaning() {
        let table = [
            ("index", 200, "", "done"),
            ("index", 201, "", "done"),
            ("delete", 404, "", "done"),
            ("index", 409, "version_conflict_engine_exception", "stale"),
            ("index", 400, "strict_dynamic_mapping_exception", "refused"),
            ("index", 400, "mapper_parsing_exception", "refused"),
            ("index", 400, "document_parsing_exception", "refused"),
            ("index", 400, "index_closed_exception", "store fault"),
            ("index", 404, "index_not_found_exception", "store fault"),
            ("index", 403, "cluster_block_exception", "store fault"),
            ("index", 403, "security_exception", "store fault"),
            ("index", 429, "es_rejected_execution_exception", "retry"),
            ("index", 429, "cluster_block_exception", "retry"),
            ("index", 503, "unavailable_shards_exception", "retry"),
            ("index", 418, "surprise", "refused"),
        ];
        for (action, status, error_type, expected) in table {
            assert_eq!(outcome(action, status, error_type), expected, "{action} {status} {error_type}");
        }
    }

    #[test]
    fn a_refusal_carries_the_servers_words() {
        let item = json!({"index": {"status": 400, "error": {"type": "document_parsing_exception", "reason": "[1:9] failed",
            "caused_by": {"type": "illegal_argument_exception", "reason": "not a date"}}}});
        assert_eq!(
            judge(&item),
            Verdict::Final(ItemOutcome::Refused(
                "status 400: document_parsing_exception: [1:9] failed: not a date".into()
            ))
        );
    }
}
