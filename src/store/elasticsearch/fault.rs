//! How failures of the server look to the users of a store.

use serde_json::Value;

use super::super::{StoreError, StoreErrorKind};
use crate::elastic::{Error, ErrorKind};

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        if error.kind() == ErrorKind::ReadOnly {
            return Self::new(StoreErrorKind::NotLeader, text);
        }
        let kind = match error.kind() {
            // Some studios forbid what scans the term dictionary; the site can answer it.
            ErrorKind::Refused if text.contains("search.allow_expensive_queries") => StoreErrorKind::Unsupported,
            ErrorKind::Refused if text.contains("index_closed_exception") => StoreErrorKind::Refused,
            ErrorKind::Denied | ErrorKind::Tls => StoreErrorKind::Refused,
            _ if error.is_transient() => StoreErrorKind::Unavailable,
            _ => StoreErrorKind::Fault,
        };
        Self::new(kind, format!("elasticsearch: {text}"))
    }
}

/// Tells whether a document was refused for a field that the index does not have.
pub(super) fn is_mapping(reason: &str) -> bool {
    reason.contains("strict_dynamic_mapping_exception")
}

/// Returns the error for one of several searches or gets that the server did not answer.
pub(super) fn search_fault(place: &str, status: u64, error: &Value) -> StoreError {
    let text = error.to_string();
    let kind = match status {
        _ if text.contains("search.allow_expensive_queries") => StoreErrorKind::Unsupported,
        _ if text.contains("index_closed_exception") => StoreErrorKind::Refused,
        401 | 403 => StoreErrorKind::Refused,
        429 | 500.. => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Fault,
    };
    StoreError::new(kind, format!("elasticsearch: {place}: {text}"))
}

/// Returns the error for a bulk item that failed through no fault of its document.
pub(super) fn item_fault(reason: &str) -> StoreError {
    let has = |word: &str| reason.contains(word);
    let kind = if has("read-only-allow-delete") || has("read_only_allow_delete") {
        StoreErrorKind::Full
    } else if has("cluster_block_exception") || has("security_exception") || has("index_closed_exception") {
        StoreErrorKind::Refused
    } else if has("status 429") || has("status 5") {
        StoreErrorKind::Unavailable
    } else {
        StoreErrorKind::Fault
    };
    let advice = match kind {
        StoreErrorKind::Full => " (the disk of the server is full)",
        _ if has("index_not_found_exception") => " (the index is gone; the type must be imported again)",
        _ => "",
    };
    StoreError::new(kind, format!("elasticsearch does not take writes: {reason}{advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_of_the_store_tells_what_can_be_done() {
        let table = [
            (
                "status 429: cluster_block_exception: [FORBIDDEN/12/index read-only-allow-delete (api)]",
                StoreErrorKind::Full,
            ),
            ("status 403: cluster_block_exception: index write (api)", StoreErrorKind::Refused),
            ("status 400: index_closed_exception: closed", StoreErrorKind::Refused),
            ("status 404: index_not_found_exception: no such index", StoreErrorKind::Fault),
            ("status 429: es_rejected_execution_exception: queue full", StoreErrorKind::Unavailable),
            ("status 503: unavailable_shards_exception: x", StoreErrorKind::Unavailable),
        ];
        for (reason, kind) in table {
            assert_eq!(item_fault(reason).kind(), kind, "{reason}");
        }
    }
}
