//! The list of all metrics. The doc comment of a metric is its help text.
//!
//! Names: `sgcache_<noun>_<unit>`, base units, counters end in `_total`,
//! moments in `_timestamp_seconds`, ratios are 0 to 1. Labels come from fixed
//! sets; ids, messages and user names are never labels.

use prometheus::{Counter, Gauge, Histogram, IntCounter};

use super::declare::{First, metrics};
use super::family::{Axis, Counters, Gauges, Histograms};

const METHOD: Axis = Axis::Fixed(
    "method",
    &[
        "find",
        "find_one",
        "summarize",
        "schema_read",
        "event_poll",
        "auth",
        "info",
        "fetch",
        "import",
        "scan",
        "validate",
        "proxy",
        "write",
        "other",
    ],
);
const SOURCE_REASON: Axis = Axis::Fixed(
    "reason",
    &["timeout", "connect", "tls", "auth", "rate_limited", "http_4xx", "http_5xx", "fault", "decode", "other"],
);
const POLL_REASON: Axis = Axis::Fixed(
    "reason",
    &[
        "timeout",
        "connect",
        "tls",
        "auth",
        "rate_limited",
        "http_4xx",
        "http_5xx",
        "fault",
        "decode",
        "state",
        "history",
        "other",
    ],
);
const EVENT_OPERATION: Axis = Axis::Fixed("operation", &["create", "change", "retire", "revive", "link"]);
const SKIP_REASON: Axis = Axis::Fixed("reason", &["not_cached_type", "duplicate", "no_entity", "other"]);
/// Who turned a request away; the names of [`crate::supervisor::Loop`] without `_listener`.
const LISTENER: Axis = Axis::Fixed("listener", &["api", "ops"]);
/// Why a listener refuses a request or closes a connection: 408 (`head_timeout`,
/// `body_timeout`), 413 (`too_large`), 429 (`peer_memory`, `peer_connections`), 431
/// (`head_too_large`), 503 (`memory`, `busy`, `connections`, `site_busy`), or without an answer.
const REFUSAL: Axis = Axis::Fixed(
    "reason",
    &[
        "head_timeout",
        "head_too_large",
        "head_malformed",
        "body_timeout",
        "too_large",
        "memory",
        "peer_memory",
        "busy",
        "connections",
        "peer_connections",
        "evicted",
        "site_busy",
    ],
);
/// What the state holds; `state::Unreadable` has the same names.
const STATE_VALUE: Axis = Axis::Fixed("kind", &["expected", "type", "run", "plan", "credential", "cursor"]);
const EVENT_FAILURE: Axis = Axis::Fixed("reason", &["malformed", "refused", "other"]);
const ROW_OUTCOME: Axis = Axis::Fixed("outcome", &["written", "unchanged", "stale", "absent", "filtered", "refused"]);
const MARK_KIND: Axis = Axis::Fixed(
    "kind",
    &["new", "change", "retire", "revive", "inverse", "scan", "repair", "recheck", "unproven", "import"],
);
const GAP_RESOLUTION: Axis = Axis::Fixed("resolution", &["arrived", "retired", "resync"]);
const DEAD_KIND: Axis = Axis::Fixed("kind", &["event", "row", "read", "write", "stored"]);
const STORE_OPERATION: Axis = Axis::Fixed("operation", &["get", "search", "count", "bulk", "refresh", "scan", "other"]);
const STORE_REASON: Axis = Axis::Fixed("reason", &["unavailable", "full", "refused", "other"]);
const BULK_RESULT: Axis = Axis::Fixed("result", &["written", "stale", "refused"]);
const CHECK: Axis = Axis::Fixed("kind", &["count", "sample", "full"]);
const MISMATCH: Axis = Axis::Fixed("kind", &["missing", "extra", "differs", "name"]);
const MISMATCH_CLASS: Axis =
    Axis::Fixed("class", &["no_event", "silent", "lost_event", "name", "membership", "type_format", "other"]);
const REPAIR: Axis = Axis::Fixed("action", &["upsert", "delete"]);
const TASK_SKIP: Axis = Axis::Fixed("reason", &["overlap", "paused", "missed", "blackout", "other"]);
const DROP_REASON: Axis = Axis::Fixed("reason", &["full", "refused"]);
/// The methods of the api listener that only read.
pub const READ_METHODS: &[&str] =
    &["read", "summarize", "schema_read", "schema_entity_read", "schema_field_read", "info"];
const API_METHOD: Axis = Axis::Fixed(
    "method",
    &[
        "info",
        "read",
        "summarize",
        "schema_read",
        "schema_entity_read",
        "schema_field_read",
        "create",
        "update",
        "delete",
        "revive",
        "batch",
        "upload",
        "other",
    ],
);
/// Why a request to the api listener goes to the site; `proxy::Reason` has the same
/// names.
pub const PASS_REASONS: &[&str] = &[
    "uncached_type",
    "uncached_field",
    "partial_type",
    "unknown_field",
    "per_user",
    "computed",
    "derived_field",
    "signed_url",
    "unsupported_filter",
    "ambiguous_semantics",
    "preset",
    "retired",
    "too_large",
    "unknown_parameter",
    "malformed",
    "unknown_method",
    "uncacheable",
    "write",
    "path",
    "schema_unread",
    "not_live",
    "quarantined",
    "stale",
    "dirty",
    "pending_write",
    "scope",
    "unknown_caller",
    "unverified",
    "store",
    "mode",
];
const PASS_REASON: Axis = Axis::Fixed("reason", PASS_REASONS);
/// The loops of a process, `supervisor::Loop` has the same names, and the thread of the
/// access log.
const LOOP: Axis = Axis::Fixed(
    "loop",
    &[
        "poll",
        "fetch",
        "backfill",
        "maintenance",
        "scheduler",
        "heartbeat",
        "recorder",
        "reload",
        "outbox",
        "store_health",
        "freshness",
        "cluster_publisher",
        "api_listener",
        "ops_listener",
        "access_log",
    ],
);
const LOOP_FAILURE: Axis = Axis::Fixed("reason", &["panic", "ended", "stuck"]);
const SERVED_BY: Axis = Axis::Fixed("served_by", &["cache", "source"]);
const NOTIFICATION_RESULT: Axis = Axis::Fixed("result", &["sent", "failed", "duplicate"]);
const SHADOW: Axis = Axis::Fixed("result", &["equal", "different", "skipped"]);
const LEVEL: Axis = Axis::Fixed("level", &["error", "warn", "info"]);

const SOURCE_SECONDS: &[f64] = &[0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
const LAG_SECONDS: &[f64] = &[0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0];
const GAP_SECONDS: &[f64] = &[1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 21600.0, 86400.0];
const BATCH_EVENTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 250.0, 500.0];
// Shows both the 4 to 10 ms that the cache of 2015 promised and the 1 ms of this one.
const STORE_SECONDS: &[f64] = &[0.0005, 0.001, 0.002, 0.004, 0.006, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
const DELAY_SECONDS: &[f64] = &[0.01, 0.1, 1.0, 5.0, 30.0, 120.0, 600.0];

metrics! {
    /// The site's API as we use it.
    struct Source {
        /// Whether the last call to the site worked.
        up: Gauge = gauge("sgcache_source_up", First::Zero);
        /// Requests sent to the site, by what they were for.
        requests: Counters = counters("sgcache_source_requests_total", &[METHOD]);
        /// Requests to the site that failed.
        errors: Counters =
            counters("sgcache_source_request_errors_total", &[METHOD, SOURCE_REASON]);
        /// How long the site took to answer.
        duration: Histograms =
            histograms("sgcache_source_request_duration_seconds", &[METHOD], SOURCE_SECONDS);
        /// Requests that were sent again.
        retries: Counters = counters("sgcache_source_request_retries_total", &[METHOD]);
        /// Requests the site has not answered yet.
        in_flight: Gauge = gauge("sgcache_source_requests_in_flight", First::Zero);
        /// Time that requests waited for the request budget.
        throttle_wait: Counter =
            seconds_counter("sgcache_source_throttle_wait_seconds_total");
        /// Bytes of answers received from the site.
        received: IntCounter = counter("sgcache_source_received_bytes_total");
        /// Clock of the site minus the local clock. No decision uses the local clock.
        clock_offset: Gauge = gauge("sgcache_source_clock_offset_seconds", First::Zero);
        /// Highest event log id seen on the site.
        event_id: Gauge = gauge("sgcache_source_event_id", First::Unknown);
    }
}

metrics! {
    /// The event loop.
    struct Sync {
        /// From the creation of an event to its row being readable in the cache.
        lag: Histogram = histogram("sgcache_sync_lag_seconds", LAG_SECONDS);
        /// From the creation of an event to the last poll that should have shown it and did not.
        event_lateness: Histogram = histogram("sgcache_sync_event_lateness_seconds", LAG_SECONDS);
        /// Age of the oldest event whose row is not in the cache yet; 0 when caught up.
        lag_current: Gauge = gauge("sgcache_sync_lag_current_seconds", First::Zero);
        /// The moment up to which a type is known to equal the site; NaN until it was imported.
        fresh_as_of: Gauges = gauges(
            "sgcache_sync_fresh_as_of_timestamp_seconds", &[Axis::EntityType], First::Unknown);
        /// When the event log was last read.
        last_poll_success: Gauge =
            gauge("sgcache_sync_last_poll_success_timestamp_seconds", First::Start);
        /// Creation of the newest event whose row is in the cache.
        last_event_created: Gauge =
            gauge("sgcache_sync_last_event_created_timestamp_seconds", First::Unknown);
        /// Highest event log id with no open mark at or below it.
        visible_event_id: Gauge = gauge("sgcache_sync_visible_event_id", First::Unknown);
        /// Polls of the event log.
        polls: IntCounter = counter("sgcache_sync_polls_total");
        /// Polls of the event log that failed.
        poll_errors: Counters = counters("sgcache_sync_poll_errors_total", &[POLL_REASON]);
        /// Event log entries received.
        events_received: IntCounter = counter("sgcache_sync_events_received_total");
        /// Events whose marks were cleared by a later read.
        events_applied: Counters = counters(
            "sgcache_sync_events_applied_total", &[Axis::EntityType, EVENT_OPERATION]);
        /// Events that ask for nothing here.
        events_skipped: Counters = counters("sgcache_sync_events_skipped_total", &[SKIP_REASON]);
        /// Events that became dead letters.
        events_failed: Counters = counters("sgcache_sync_events_failed_total", &[EVENT_FAILURE]);
        /// Rows read again, by what became of them.
        rows: Counters = counters("sgcache_sync_rows_total", &[Axis::EntityType, ROW_OUTCOME]);
        /// Keys marked and not read again yet.
        marks: Gauges = gauges("sgcache_sync_marks", &[MARK_KIND], First::Zero);
        /// One fetch of the loop, from the request to the committed row.
        fetch_duration: Histogram =
            histogram("sgcache_sync_fetch_duration_seconds", SOURCE_SECONDS);
        /// Announcements of entries that no reread of their row ever showed.
        recheck_unresolved: IntCounter = counter("sgcache_sync_recheck_unresolved_total");
        /// Rows that the store refused for a newer version which this process does not know.
        version_conflicts: IntCounter = counter("sgcache_sync_version_conflicts_total");
        /// Changes found by scans that no event reported.
        silent_changes: Counters =
            counters("sgcache_sync_silent_changes_total", &[Axis::EntityType]);
        /// Ranges of event log ids that were skipped by the site.
        gaps: IntCounter = counter("sgcache_sync_event_gaps_total");
        /// Gaps that ended, by how.
        gaps_resolved: Counters =
            counters("sgcache_sync_event_gaps_resolved_total", &[GAP_RESOLUTION]);
        /// Ranges of event log ids still asked for.
        gaps_open: Gauge = gauge("sgcache_sync_event_gaps_open", First::Zero);
        /// Event log ids in open gaps.
        gap_ids: Gauge = gauge("sgcache_sync_event_gap_ids", First::Zero);
        /// Age of the oldest open gap. Ids of rolled-back transactions stay open for a day.
        gap_oldest_age: Gauge =
            gauge("sgcache_sync_event_gap_oldest_age_seconds", First::Zero);
        /// How long gaps were open that were filled.
        gap_lifetime: Histogram =
            histogram("sgcache_sync_event_gap_lifetime_seconds", GAP_SECONDS);
        /// Events that an audit found and the loop had missed. Must stay 0.
        audit_missed: IntCounter = counter("sgcache_sync_audit_missed_events_total");
        /// Stored rows that were not what sync had written, found by the scrub.
        damaged: Counters = counters("sgcache_sync_damaged_rows_total", &[Axis::EntityType]);
        /// Events per non-empty poll.
        batch_events: Histogram = histogram("sgcache_sync_batch_events", BATCH_EVENTS);
        /// When marks and position were last committed.
        checkpoint: Gauge = gauge("sgcache_sync_checkpoint_timestamp_seconds", First::Start);
        /// Whether deletions of a type wait for an operator.
        deletion_breaker_open: Gauges = gauges(
            "sgcache_sync_deletion_breaker_open", &[Axis::EntityType], First::Zero);
        /// Configured fields of a type that are not cached: the site does not have them as configured.
        fields_lacking: Gauges = gauges(
            "sgcache_sync_lacking_fields", &[Axis::EntityType], First::Zero);
        /// Changes when the site was restored from a backup.
        incarnation: Gauge = gauge("sgcache_sync_incarnation", First::Zero);
        /// What was refused for good, by what it is.
        dead_letters: Gauges = gauges("sgcache_dead_letters", &[DEAD_KIND], First::Zero);
        /// Whether what sync must remember can be written to the data directory.
        state_writable: Gauge = gauge("sgcache_state_writable", First::One);
        /// Values in `state.sqlite` that could not be read since the start, by what they are.
        /// What they stood for is read or done again.
        unreadable: Gauges = gauges("sgcache_state_unreadable_values", &[STATE_VALUE], First::Zero);
        /// Entities that the site answers for because the cache cannot hold them.
        quarantined: Gauges = gauges(
            "sgcache_quarantined_entities", &[Axis::EntityType], First::Zero);
    }
}

metrics! {
    /// The store behind the cache.
    struct Store {
        /// Whether the store answers.
        up: Gauge = gauge("sgcache_store_up", First::Zero);
        /// Active entities in the store.
        entities: Gauges = gauges("sgcache_store_entities", &[Axis::EntityType], First::Zero);
        /// Size of the store.
        size: Gauge = gauge("sgcache_store_size_bytes", First::Zero);
        /// Operations on the store.
        operations: Counters = counters("sgcache_store_operations_total", &[STORE_OPERATION]);
        /// Operations on the store that failed.
        errors: Counters =
            counters("sgcache_store_operation_errors_total", &[STORE_OPERATION, STORE_REASON]);
        /// How long operations on the store took.
        duration: Histograms = histograms(
            "sgcache_store_operation_duration_seconds", &[STORE_OPERATION], STORE_SECONDS);
        /// Rows handed to the store, by what became of them.
        bulk_items: Counters = counters("sgcache_store_bulk_items_total", &[BULK_RESULT]);
        /// Whether the store's layout of a type is not the configured one.
        schema_mismatch: Gauges = gauges(
            "sgcache_store_schema_mismatch", &[Axis::EntityType], First::Zero);
        /// The store in use.
        info: Gauges = gauges(
            "sgcache_store_info",
            &[Axis::Free("backend"), Axis::Free("flavour"), Axis::Free("server_version")],
            First::One);
    }
}

metrics! {
    /// Comparisons with the site, and repairs.
    struct Validation {
        /// Entities compared with the site.
        checked: Counters = counters(
            "sgcache_validation_entities_checked_total", &[Axis::EntityType, CHECK]);
        /// Entities that differ from the site.
        mismatches: Counters = counters(
            "sgcache_validation_mismatches_total", &[Axis::EntityType, MISMATCH]);
        /// Entities that differ from the site, by the likely cause.
        mismatch_classes: Counters = counters(
            "sgcache_validation_mismatch_classes_total", &[Axis::EntityType, MISMATCH_CLASS]);
        /// Differences that were gone at the second look.
        transient: Counters = counters("sgcache_validation_transient_total", &[Axis::EntityType]);
        /// Share of entities that the last validation found drifted and did not repair; NaN before it.
        drift_ratio: Gauges = gauges(
            "sgcache_validation_drift_ratio", &[Axis::EntityType], First::Unknown);
        /// Upper bound (95 %) of the share of stale entities; NaN before the first sample.
        stale_ratio_upper95: Gauges = gauges(
            "sgcache_validation_stale_ratio_upper95", &[Axis::EntityType], First::Unknown);
        /// Entities in the cache minus entities on the site; NaN before the first count.
        count_difference: Gauges = gauges(
            "sgcache_validation_count_difference", &[Axis::EntityType], First::Unknown);
        /// Ranges of ids in which the store does not hold what sync wrote.
        bucket_mismatches: Counters = counters(
            "sgcache_validation_bucket_mismatches_total", &[Axis::EntityType]);
        /// Time in which the rotation of a pipeline covers a type once.
        rotation_cycle: Gauges = gauges(
            "sgcache_validation_rotation_cycle_seconds",
            &[Axis::Free("pipeline"), Axis::EntityType],
            First::Unknown);
        /// When a validation of a type last came to its end.
        last_success: Gauges = gauges(
            "sgcache_validation_last_success_timestamp_seconds",
            &[Axis::EntityType, CHECK],
            First::Unknown);
        /// Entities repaired.
        repairs: Counters =
            counters("sgcache_repair_entities_total", &[Axis::EntityType, REPAIR]);
        /// Entities that still differ after their repair.
        repair_failures: Counters =
            counters("sgcache_repair_failures_total", &[Axis::EntityType, REPAIR]);
    }
}

metrics! {
    /// Imports of whole entity types.
    struct Imports {
        /// Entities imported.
        entities: Counters = counters("sgcache_import_entities_total", &[Axis::EntityType]);
        /// Entities still to import.
        remaining: Gauges = gauges(
            "sgcache_import_remaining_entities", &[Axis::EntityType], First::Zero);
        /// Whether a type is being imported.
        running: Gauges = gauges("sgcache_import_running", &[Axis::EntityType], First::Zero);
    }
}

metrics! {
    /// Scheduled tasks: the jobs of pipelines, under a name that Prometheus does not use itself.
    struct Tasks {
        /// Runs that came to an end.
        runs: Counters = counters("sgcache_task_runs_total", &[Axis::Task]);
        /// Runs that broke or ran out of time.
        failures: Counters = counters("sgcache_task_failures_total", &[Axis::Task]);
        /// Runs that worked and found drift.
        drifts: Counters = counters("sgcache_task_drifts_total", &[Axis::Task]);
        /// When the task last worked; the start of the process if that is not known.
        last_success: Gauges = gauges(
            "sgcache_task_last_success_timestamp_seconds", &[Axis::Task], First::Start);
        /// When the task last ended, however; NaN if it never did.
        last_completion: Gauges = gauges(
            "sgcache_task_last_completion_timestamp_seconds", &[Axis::Task], First::Unknown);
        /// How long the last run took; 0 before the first.
        last_duration: Gauges = gauges(
            "sgcache_task_last_duration_seconds", &[Axis::Task], First::Zero);
        /// When the task runs next; NaN if it is not scheduled.
        next_run: Gauges = gauges(
            "sgcache_task_next_run_timestamp_seconds", &[Axis::Task], First::Unknown);
        /// Longest pause between two planned runs; NaN if it is not scheduled.
        expected_interval: Gauges = gauges(
            "sgcache_task_expected_interval_seconds", &[Axis::Task], First::Unknown);
        /// Whether the task is running.
        running: Gauges = gauges("sgcache_task_running", &[Axis::Task], First::Zero);
        /// Whether the task is paused.
        paused: Gauges = gauges("sgcache_task_paused", &[Axis::Task], First::Zero);
        /// From the planned to the real start.
        schedule_delay: Histograms = histograms(
            "sgcache_task_schedule_delay_seconds", &[Axis::Pipeline], DELAY_SECONDS);
        /// Planned runs that did not take place.
        skipped: Counters = counters("sgcache_task_skipped_total", &[Axis::Task, TASK_SKIP]);
    }
}

metrics! {
    /// The scheduler itself.
    struct Scheduler {
        /// When the scheduler last looked at the plan.
        last_tick: Gauge = gauge("sgcache_scheduler_last_tick_timestamp_seconds", First::Start);
        /// Jumps of the local clock.
        clock_jumps: IntCounter = counter("sgcache_scheduler_clock_jumps_total");
    }
}

metrics! {
    /// The listeners.
    struct Listeners {
        /// Requests that were refused and connections that were closed to keep within the
        /// bounds, by why.
        refusals: Counters = counters("sgcache_listener_refusals_total", &[LISTENER, REFUSAL]);
    }
}

metrics! {
    /// The api listener.
    struct Proxy {
        /// Requests to the api listener.
        requests: Counters = counters("sgcache_proxy_requests_total", &[API_METHOD]);
        /// Requests to the api listener that ended with HTTP 5xx.
        errors: Counters = counters("sgcache_proxy_request_errors_total", &[API_METHOD]);
        /// Requests that the cache answered.
        hits: Counters = counters("sgcache_proxy_cache_hits_total", &[API_METHOD]);
        /// Requests that the site answered, by why.
        passthrough: Counters = counters("sgcache_proxy_passthrough_total", &[PASS_REASON]);
        /// How long answers of the api listener took, by who gave them.
        duration: Histograms = histograms(
            "sgcache_proxy_request_duration_seconds", &[API_METHOD, SERVED_BY], STORE_SECONDS);
        /// Requests to the api listener that are not answered yet.
        in_flight: Gauge = gauge("sgcache_proxy_in_flight", First::Zero);
        /// Answers older than usual, because the site was down.
        stale: IntCounter = counter("sgcache_proxy_stale_answers_total");
        /// Requests that were sent to the site once together with others.
        coalesced: IntCounter = counter("sgcache_proxy_coalesced_total");
        /// Lines of the audit for which there was no room.
        audit_dropped: IntCounter = counter("sgcache_proxy_audit_dropped_total");
        /// Answers of the site that shadow mode compared with the cache.
        shadow: Counters = counters("sgcache_proxy_shadow_comparisons_total", &[SHADOW]);
    }
}

metrics! {
    /// Documents about runs on their way to Elasticsearch, and what notifiers are sent.
    struct Reports {
        /// Documents delivered.
        documents: IntCounter = counter("sgcache_report_documents_total");
        /// Documents given up, by why.
        dropped: Counters = counters("sgcache_report_dropped_total", &[DROP_REASON]);
        /// Documents waiting to be delivered.
        outbox: Gauge = gauge("sgcache_report_outbox_documents", First::Zero);
        /// Messages to notifiers, by what became of them; `duplicate` was left out by `dedupe`.
        notifications: Counters = counters("sgcache_report_notifications_total", &[NOTIFICATION_RESULT]);
    }
}

metrics! {
    /// The lease on the site.
    struct Leader {
        /// Epoch of the lease; part of every read version.
        epoch: Gauge = gauge("sgcache_leader_epoch", First::Zero);
        /// Whether this process follows the site.
        active: Gauge = gauge("sgcache_leader_active", First::Zero);
    }
}

metrics! {
    /// The loops of this process.
    struct Loops {
        /// Loops that failed and were started again, or ended the process.
        restarts: Counters = counters("sgcache_loop_restarts_total", &[LOOP, LOOP_FAILURE]);
    }
}

metrics! {
    /// This process and its configuration.
    struct About {
        /// The program that runs.
        build_info: Gauges = gauges(
            "sgcache_build_info",
            &[Axis::Free("version"), Axis::Free("revision"), Axis::Free("rustc")],
            First::One);
        /// The configuration in use.
        config_info: Gauges =
            gauges("sgcache_config_info", &[Axis::Free("config_hash")], First::One);
        /// When the configuration was last read without an error.
        config_reloaded: Gauge = gauge(
            "sgcache_config_last_reload_success_timestamp_seconds", First::Start);
        /// Whether the configuration could be read the last time.
        config_valid: Gauge = gauge("sgcache_config_last_reload_successful", First::One);
        /// Log lines, by level.
        log_messages: Counters = counters("sgcache_log_messages_total", &[LEVEL]);
        /// How long the last scrape took to write.
        scrape_duration_seconds: Gauge = gauge("sgcache_scrape_duration_seconds", First::Zero);
    }
}
