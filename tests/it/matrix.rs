//! The fault matrix: for each of its rows, the tests that assert what must hold at
//! the end. A test that is renamed or removed has to be looked for here.

use std::path::Path;

/// Row, what happens, and the tests; a row without any is not built, and why is said.
const ROWS: &[(&str, &str, &[&str])] = &[
    ("1", "a worker holds ids for hours", &["an_id_that_was_reserved_for_hours_is_not_lost"]),
    ("2", "a large transaction commits late", &["a_large_transaction_that_commits_late_arrives_whole"]),
    ("3", "a rollback burns ids", &["rolled_back_ids_stay_one_gap_in_one_request"]),
    ("4", "more events than a page", &["more_entries_than_a_page_leave_no_false_gap"]),
    ("5", "commits in the other order", &["commits_in_the_opposite_order_of_their_ids_end_with_the_last_one"]),
    ("6", "a link is added and removed in a tick", &["links_added_and_removed_in_one_tick_end_as_on_the_site"]),
    ("7", "one event adds and removes", &["links_added_and_removed_in_one_tick_end_as_on_the_site"]),
    ("8", "a page is delivered three times", &["a_page_of_entries_delivered_three_times_changes_nothing_more"]),
    ("9", "events are shuffled and late", &["entries_in_any_order_and_ten_minutes_late_end_with_the_site"]),
    (
        "10",
        "created and deleted before the first poll",
        &["an_entity_that_came_and_went_between_two_polls_leaves_nothing"],
    ),
    ("11", "retired, revived, retired in a tick", &["a_life_of_ups_and_downs_within_a_tick_ends_right"]),
    ("12", "a revived parent brings children", &["cascades_of_a_retirement_and_of_a_revival_are_followed"]),
    ("13", "a retired Shot takes Versions along", &["cascades_of_a_retirement_and_of_a_revival_are_followed"]),
    ("14", "a retired Task empties links", &["cascades_of_a_retirement_and_of_a_revival_are_followed"]),
    ("15", "a Project with many children returns", &["a_revival_with_many_children_is_followed_in_few_requests"]),
    ("16", "a linked entity is renamed", &["a_rename_shows_in_every_link_without_reading_the_linking_rows"]),
    ("17", "an event of the other side", &["both_sides_of_a_link_follow_a_change_of_one"]),
    ("18", "silent changes", &["a_thousand_silent_changes_are_found_within_the_fast_period_and_counted"]),
    ("19", "silent creations of long ago", &["silent_creations_of_long_ago_are_found_by_their_ids"]),
    ("20", "silent retirements", &["silent_retirements_and_dates_set_back_are_found_by_the_light_scan"]),
    ("21", "two changes in one second", &["a_silent_change_in_the_second_of_a_told_one_is_found_by_the_scrub"]),
    ("22", "replies are erased", &["erased_and_changed_replies_are_found_by_the_light_scan"]),
    ("23", "computed fields", &["a_computed_field_cannot_be_cached"]),
    ("24", "events for half of the effects", &["side_effects_of_which_half_is_told_arrive_within_the_fast_period"]),
    (
        "25",
        "an event is seen before its row",
        &[
            "a_row_that_was_read_too_early_is_read_again",
            "every_kind_of_edit_is_seen_when_rows_are_a_second_and_a_half_behind",
            "every_kind_of_edit_is_seen_when_rows_are_three_seconds_behind",
            "every_kind_of_edit_is_seen_on_elasticsearch",
            "random_edits_are_never_served_as_fresh_before_they_are_seen",
        ],
    ),
    ("26", "a row is seen before its event", &["a_row_that_was_there_before_its_event_is_only_read_again"]),
    ("27", "a row leaves its filter and returns", &["a_row_that_leaves_its_filter_leaves_the_cache_and_returns"]),
    ("28", "a deep filter changes far away", &["a_change_on_the_way_of_a_deep_filter_moves_the_filtered_rows"]),
    ("29", "a filter around now", &["rows_leave_a_filter_around_now_when_their_time_is_over"]),
    (
        "30",
        "fields are deleted, added, converted",
        &[
            "a_type_whose_field_was_deleted_goes_on_with_the_others_and_heals",
            "a_field_of_another_data_type_is_taken_as_what_it_is_now",
        ],
    ),
    ("31", "a field is dropped silently", &["a_field_that_answers_leave_out_is_never_stored_as_null"]),
    ("32", "rights are taken away", &["a_right_that_was_taken_away_deletes_nothing_and_its_return_needs_nobody"]),
    ("33", "rights return", &["a_right_that_was_taken_away_deletes_nothing_and_its_return_needs_nobody"]),
    ("34", "a key breaks every read", &["a_key_that_makes_every_read_fail_is_put_aside_alone_and_returns"]),
    (
        "35",
        "the store rejects a document",
        &["a_row_that_the_store_refuses_is_put_aside_alone", "a_bad_document_costs_only_itself"],
    ),
    ("36", "a bulk is refused in part", &["only_the_refused_items_of_a_bulk_are_sent_again"]),
    ("37", "the reply of a bulk is lost", &["a_lost_reply_of_a_bulk_is_found_done_the_second_time"]),
    (
        "38",
        "an index is dropped",
        &["an_index_that_was_dropped_is_filled_again", "a_store_that_was_removed_is_filled_again"],
    ),
    ("39", "a stale write after a delete", &["a_lower_version_loses_and_a_delete_needs_the_version_it_saw"]),
    ("39b", "a no-op read and a delayed write", &["every_random_history_ends_with_a_cache_that_equals_the_site"]),
    (
        "40",
        "kill -9 between any two steps",
        &["a_crash_at_any_step_changes_nothing_in_the_end", "a_crash_changes_nothing_on_elasticsearch_either"],
    ),
    ("41", "a crash in an import, another config", &["a_changed_config_imports_only_its_type_again_and_in_place"]),
    ("42", "retired and revived during an import", &["changes_during_an_import_are_neither_lost_nor_undone"]),
    ("43", "changed after its page was read", &["changes_during_an_import_are_neither_lost_nor_undone"]),
    (
        "44",
        "two daemons",
        &[
            "of_two_daemons_one_leads",
            "a_leader_that_was_replaced_is_not_heard",
            "a_second_daemon_waits_and_takes_over_from_one_that_was_killed",
            "what_a_stopped_leader_still_writes_after_a_take_over_loses",
        ],
    ),
    (
        "45",
        "clocks jump",
        &[
            "a_clock_that_jumps_loses_no_change",
            "a_wrong_date_for_seconds_changes_nothing",
            "a_clock_that_was_set_back_is_followed_when_all_answers_agree",
        ],
    ),
    (
        "46",
        "the site is down",
        &["a_site_that_is_away_costs_nothing_but_time", "the_client_works_on_while_the_site_is_away"],
    ),
    ("47", "large pages time out", &["pages_that_the_site_is_too_slow_for_are_read_in_smaller_ones"]),
    ("48", "the key is revoked", &["a_revoked_key_deletes_nothing_and_its_return_needs_nobody"]),
    ("49", "away longer than the log is kept", &["events_that_are_no_longer_kept_lead_to_an_import_in_place"]),
    (
        "50",
        "restored from a backup",
        &[
            "a_site_restored_from_a_backup_is_imported_again_in_place",
            "a_restored_site_is_noticed_by_the_next_poll_and_read_again_in_place",
        ],
    ),
    ("51", "events of unknown shape", &["entries_that_nobody_understands_are_kept_and_block_nothing"]),
    ("52", "a hot key", &["a_hot_key_is_read_once_a_poll_and_is_never_behind_it"]),
    ("53", "a storm of creations", &["a_fresh_change_does_not_wait_behind_a_bulk_of_old_ones"]),
    ("54", "counts of a correct cache under load", &["a_correct_cache_raises_no_alarm_while_people_work"]),
    ("55", "counts with one lost row", &["a_lost_row_is_found_among_others_that_come_and_go"]),
    ("56", "one missing, one extra", &["one_missing_and_one_extra_row_in_a_bucket_do_not_cancel_out"]),
    (
        "57",
        "addresses that expire",
        &["what_no_copy_can_hold_passes", "a_thumbnail_is_a_placeholder_first_and_then_signed_anew_at_each_read"],
    ),
    ("58", "webhooks: polling alone follows the site", &[]),
    ("59", "an empty answer for many keys", &["an_empty_answer_for_many_keys_deletes_nothing"]),
    ("60", "a phantom id", &["an_event_for_a_phantom_ends_without_a_row"]),
];

fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            text.push_str(&std::fs::read_to_string(path).expect("a file"));
        }
    }
}

#[test]
fn every_row_of_the_fault_matrix_has_its_tests() {
    let mut text = String::new();
    for folder in ["tests/it", "src", "crates"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut text);
    }
    let gone: Vec<_> = ROWS
        .iter()
        .flat_map(|(row, _, tests)| tests.iter().map(move |name| (row, name)))
        .filter(|(_, name)| !text.contains(&format!("fn {name}(")))
        .collect();
    assert!(gone.is_empty(), "no such tests: {gone:?}");
    let numbers: Vec<_> =
        ROWS.iter().map(|(row, ..)| row.trim_end_matches('b').parse::<u32>().expect("a row")).collect();
    assert!((1..=60).all(|row| numbers.contains(&row)), "{numbers:?}");
    let without: Vec<_> = ROWS.iter().filter(|(_, _, tests)| tests.is_empty()).map(|(row, ..)| *row).collect();
    assert_eq!(without, ["58"], "rows that are not built");
}
