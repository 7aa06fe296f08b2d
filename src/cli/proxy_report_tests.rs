//! The report as a terminal shows it: whole, and never wider than 80 columns.

use chrono::{DateTime, TimeDelta};

use super::*;
use crate::report::ledger::{CallerSummary, Change, MethodSummary, SlowPass, WriteSummary};

fn example() -> Ledger {
    let until: DateTime<Utc> = "2026-11-26T13:43:00Z".parse().expect("a moment");
    let reason = |reason: &str, label: &str, remedy: Option<&str>, calls| ReasonSummary {
        reason: reason.to_owned(),
        entity_type: Some("Shot".to_owned()),
        label: label.to_owned(),
        remedy: remedy.map(str::to_owned),
        change: remedy.map(|_| Change::CacheType { entity_type: "Shot".to_owned() }),
        calls,
        waited_seconds: 1.0,
        gain: 0.1,
    };
    Ledger {
        since: until - TimeDelta::hours(15),
        until,
        reads: 1_284_316,
        hits: 1_249_640,
        passes: 34_676,
        hit_ratio: Some(0.973),
        previous_hit_ratio: Some(0.968),
        stale_hits: 0,
        failed: 3,
        uncounted: 0,
        saved_seconds: Some(412_380.0),
        per_hour: Vec::new(),
        methods: vec![MethodSummary {
            method: "schema_entity_read".to_owned(),
            calls: 1_201_877,
            hit_ratio: Some(0.974),
            cache_p50_ms: Some(0.5),
            cache_p95_ms: Some(2.1),
            site_p50_ms: Some(331.0),
            site_p95_ms: Some(1320.0),
        }],
        reasons: vec![
            reason("signed_url", "a picture or file of Version has an address that expires", None, 18_204),
            reason(
                "uncached_field",
                "`Shot.sg_cut_order` is not cached",
                Some("add \"sg_cut_order\": {} to `fields` in entityConfig/Shot.json"),
                7911,
            ),
        ],
        slowest: vec![SlowPass {
            at: until,
            method: "summarize".to_owned(),
            entity_type: Some("Task".to_owned()),
            caller: format!("script {}", "long".repeat(40)),
            ms: 4820.0,
            reason: "uncached_field".to_owned(),
        }],
        callers: vec![CallerSummary {
            caller: "script farm".to_owned(),
            reads: 902_114,
            hit_ratio: Some(0.9999),
            saved_seconds: None,
        }],
        writes: WriteSummary {
            count: 8614,
            failed: 0,
            visible_p50_seconds: Some(0.38),
            visible_p95_seconds: Some(0.92),
            visible_max_seconds: Some(2.4),
        },
    }
}

#[test]
fn the_report_answers_in_its_first_line_and_fits_a_terminal() {
    let said = text(&example(), chrono_tz::Europe::Paris, "127.0.0.1:8010", false);
    insta::assert_snapshot!(said, @r#"
    1 284 316 reads answered, 97.3 % from the cache, 5 d of waiting saved.
    since Wed 25 Nov 23:43 CET (15 h), before that 96.8 %
    ! 3 reads had no answer: the site was away and the cache had none.

      method                  reads   cache  here 50 %     95 %  site 50 %     95 %
      schema_entity_read  1 201 877  97.4 %     0.5 ms   2.1 ms     331 ms   1.32 s

      Why 34 676 reads went to the site                             reads
      a picture or file of Version has an address that expires     18 204  █████████
          nothing to change: signed_url
      `Shot.sg_cut_order` is not cached                             7 911  ████
          add "sg_cut_order": {} to `fields` in entityConfig/Shot.json

      caller                                        reads   cache       saved
      script farm                                 902 114  99.9 %           -

      slowest answers of the site
         4.82 s  summarize Task, script longlonglonglonglonglonglonglonglonglonglon…

    8 614 writes, shown by every read from the cache after 380 ms (median), 920 ms
    (95 %), 2.40 s (longest); 0 refused or without an answer.
    "#);
    for line in said.lines() {
        assert!(line.chars().count() <= COLUMNS, "{} columns: {line}", line.chars().count());
    }
}

#[test]
fn a_report_of_nothing_says_how_to_begin() {
    let mut nothing = example();
    (nothing.reads, nothing.hit_ratio, nothing.failed) = (0, None, 0);
    let said = text(&nothing, chrono_tz::UTC, "127.0.0.1:8010", false);
    assert!(said.starts_with("No read was answered through the proxy since "), "{said}");
    assert!(said.contains("http://127.0.0.1:8010"), "{said}");
}
