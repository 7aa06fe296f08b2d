//! The structure of the Grafana dashboards: the rules of the dashboard linter
//! that matter here, and that every query speaks of metrics that exist.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sgcache::metrics::{Declared, Kind, Metrics};

use crate::grafana_dashboards::DASHBOARDS;
use crate::prometheus::{dashboard, queries, repository};

/// Everything that can be exported.
pub fn registry() -> Vec<Declared> {
    Metrics::default().declared().to_vec()
}

/// The metric names in a text, with the endings of histograms taken off.
pub fn metric_names(text: &str) -> BTreeSet<String> {
    uses(text).into_iter().map(|(_, name)| base(name).to_owned()).collect()
}

/// Every `sgcache_` name in a text with its place.
fn uses(text: &str) -> Vec<(usize, &str)> {
    let part = |char: char| char.is_ascii_alphanumeric() || char == '_' || char == ':';
    let mut found = Vec::new();
    for (at, _) in text.match_indices("sgcache_") {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|char| part(char) && char != ':') {
            continue;
        }
        let length = text[at..].find(|char| !part(char)).unwrap_or(text.len() - at);
        found.push((at, &text[at..at + length]));
    }
    found
}

fn base(name: &str) -> &str {
    let endings = ["_bucket", "_sum", "_count"];
    endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name)
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().unwrap().iter()
}

fn dashboards() -> Vec<Value> {
    DASHBOARDS.map(dashboard).to_vec()
}

/// The queries of all dashboards, annotations included, with the title of their panel.
fn all_queries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for dashboard in dashboards() {
        found.extend(queries(&dashboard));
        let annotations = dashboard["annotations"]["list"].as_array().cloned().unwrap_or_default();
        let expressions = annotations.iter().filter_map(|one| Some((one["name"].as_str()?, one["expr"].as_str()?)));
        found.extend(expressions.map(|(name, expr)| (format!("annotation {name}"), expr.to_owned())));
    }
    assert!(found.len() > 100, "only {} queries", found.len());
    found
}

#[test]
fn a_dashboard_can_be_found_again_and_not_be_edited_by_accident() {
    for (dashboard, name) in dashboards().iter().zip(DASHBOARDS) {
        assert_eq!(dashboard["uid"], format!("sgcache-{name}"));
        assert_eq!(dashboard["editable"], false);
        assert_eq!(dashboard["schemaVersion"], 39);
        assert!(dashboard.get("id").is_none(), "an id belongs to one Grafana");
        // The others are one click away.
        assert_eq!(dashboard["links"][0]["tags"], dashboard["tags"]);
        let marked = dashboard["annotations"]["list"].as_array().unwrap().iter().filter(|one| one["expr"].is_string());
        let names: Vec<_> = marked.filter_map(|one| one["name"].as_str()).collect();
        assert_eq!(names, ["Restart", "Rebuild", "Drift", "Outage"]);
    }
    assert_eq!(dashboard("overview")["panels"][1]["title"], "From the cache", "first of all, what it gives");
}

#[test]
fn the_variables_choose_source_job_instance_and_type() {
    for dashboard in dashboards() {
        let list = dashboard["templating"]["list"].as_array().unwrap();
        let names: Vec<_> = list.iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["datasource", "job", "instance", "entity_type", "runbooks"]);
        assert_eq!((&list[0]["type"], &list[0]["query"]), (&"datasource".into(), &"prometheus".into()));
        for variable in &list[1..4] {
            let name = &variable["name"];
            assert_eq!(variable["multi"], true, "{name}");
            assert_eq!(variable["allValue"], ".+", "{name}");
            assert_eq!(variable["refresh"], 2, "{name} does not follow the time range");
            assert_eq!(variable["datasource"]["uid"], "${datasource}", "{name}");
            assert!(variable["query"]["query"].as_str().unwrap().starts_with("label_values("));
        }
    }
}

#[test]
fn every_panel_has_a_title_a_description_a_unit_and_a_query() {
    for dashboard in dashboards() {
        let mut ids = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_i64().unwrap()), "{title}: id twice");
            if panel["type"] == "row" {
                continue;
            }
            assert!(panel["description"].as_str().unwrap().ends_with('.'), "{title}: description");
            for link in panel["links"].as_array().into_iter().flatten() {
                let file = link["url"].as_str().unwrap().strip_prefix("${runbooks}/").expect("a runbook");
                assert!(repository("docs/runbooks").join(file).exists(), "{title}: there is no {file}");
            }
            if panel["type"] == "alertlist" {
                continue;
            }
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap();
            let known = ["s", "short", "none", "cps", "reqps", "ops", "percentunit", "bytes"];
            assert!(known.contains(&unit), "{title}: unit {unit}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{title}: no query");
            let letters: BTreeSet<_> = targets.iter().map(|one| one["refId"].as_str()).collect();
            assert_eq!(letters.len(), targets.len(), "{title}: refId twice");
            check_lines(title, panel);
        }
    }
}

/// Thresholds are drawn, and a line of zeros is not in the legend.
fn check_lines(title: &str, panel: &Value) {
    if panel["type"] != "timeseries" {
        return;
    }
    let defaults = &panel["fieldConfig"]["defaults"];
    let has_limit = defaults["thresholds"]["steps"].as_array().unwrap().len() > 1;
    let style = if has_limit { "line" } else { "off" };
    assert_eq!(defaults["custom"]["thresholdsStyle"]["mode"], style, "{title}");
    let hidden = &panel["fieldConfig"]["overrides"][0];
    assert_eq!(hidden["matcher"]["options"]["reducer"], "allIsZero", "{title}");
    assert_eq!(hidden["properties"][0]["value"]["legend"], true, "{title}");
}

#[test]
fn panels_fill_the_grid_and_do_not_overlap() {
    for dashboard in dashboards() {
        let mut taken = BTreeMap::new();
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap().to_owned();
            let part = |name: &str| panel["gridPos"][name].as_i64().unwrap();
            let (x, y, w, h) = (part("x"), part("y"), part("w"), part("h"));
            assert!(x >= 0 && w > 0 && h > 0 && x + w <= 24, "{title}: {x}+{w}");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                if let Some(other) = taken.insert(cell, title.clone()) {
                    panic!("{title} and {other} overlap at {cell:?}");
                }
            }
        }
        let bottom = taken.keys().map(|(_, y)| y + 1).max().unwrap();
        for y in 0..bottom {
            let width = taken.keys().filter(|(_, at)| *at == y).count();
            assert_eq!(width, 24, "{}: line {y} is not full", dashboard["uid"]);
        }
    }
}

#[test]
fn every_query_chooses_job_and_instance_at_every_metric() {
    for (panel, expr) in all_queries() {
        let names = uses(&expr).len() + expr.matches("process_").count();
        assert!(names > 0, "{panel}: {expr}");
        let chosen = expr.matches(r#"job=~"$job",instance=~"$instance""#).count();
        assert_eq!(chosen, names, "{panel}: {expr}");
    }
}

#[test]
fn every_query_speaks_of_metrics_and_labels_that_exist() {
    let known: BTreeMap<_, _> = registry().into_iter().map(|one| (one.name, one)).collect();
    for (panel, expr) in all_queries() {
        for (at, name) in uses(&expr) {
            let Some(declared) = known.get(base(name)) else { panic!("{panel}: there is no metric {name}") };
            let is_part = base(name) != name;
            assert_eq!(is_part, declared.kind == Kind::Histogram, "{panel}: {name}");
            let by_type = declared.labels.contains(&"entity_type");
            let rest = &expr[at + name.len()..];
            let selector = rest.split('}').next().unwrap();
            assert_eq!(selector.contains("entity_type=~"), by_type, "{panel}: {name}{selector}");
        }
    }
}

#[test]
fn counters_are_only_looked_at_through_their_growth() {
    let kinds: BTreeMap<_, _> = registry().into_iter().map(|one| (one.name, one.kind)).collect();
    for (panel, expr) in all_queries() {
        for (at, name) in uses(&expr) {
            let grows = kinds[base(name)] != Kind::Gauge;
            let before = &expr[..at];
            let wrapped = before.ends_with("rate(") || before.ends_with("increase(");
            assert_eq!(wrapped, grows, "{panel}: {expr}");
        }
        for range in expr.split('[').skip(1) {
            let known = range.starts_with("$__rate_interval]") || range.starts_with("$__range]");
            assert!(known, "{panel}: a range that does not follow the zoom: {expr}");
        }
    }
}

/// Metrics that no dashboard and no rule uses, and why they are exported all the same.
const NOT_DRAWN: [(&str, &str); 7] = [
    ("sgcache_build_info", "fills the variables of the dashboards"),
    ("sgcache_config_info", "says which file is in use; read by hand after a change"),
    ("sgcache_leader_epoch", "changes with the leader, which sgcache_leader_active shows"),
    ("sgcache_scrape_duration_seconds", "for who wonders about slow scrapes"),
    ("sgcache_source_received_bytes_total", "for who pays for traffic"),
    ("sgcache_store_info", "says which software the store is"),
    ("sgcache_validation_rotation_cycle_seconds", "known after the first full rotation only, which takes days"),
];

#[test]
fn every_metric_is_drawn_or_alerted_on_or_left_out_for_a_reason() {
    let rules = repository("metrics/prometheus/sgcache.rules.yml");
    let mut used = metric_names(&std::fs::read_to_string(rules).unwrap());
    for (_, expr) in all_queries() {
        used.extend(metric_names(&expr));
    }
    let unused = registry().into_iter().map(|one| one.name).filter(|name| !used.contains(*name));
    let unused: BTreeSet<_> = unused.collect();
    assert_eq!(unused, NOT_DRAWN.map(|(name, _)| name).into_iter().collect());
}
