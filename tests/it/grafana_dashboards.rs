//! Makes the Grafana dashboards of `metrics/grafana/dashboards.yaml`, and checks that those in
//! the repository are up to date. `SGCACHE_TEST_LISTS=write` writes them.
//!
//! The labels of a metric are known to the program, so queries name metrics alone, and every
//! selector and range follows from the declaration.

use std::collections::BTreeMap;

use regex_lite::{Captures, Regex};
use serde::Deserialize;
use serde_json::{Value, json};
use sgcache::metrics::{Declared, Kind, Metrics};

use crate::prometheus::repository;

/// The dashboards, in the order of the links between them.
pub const DASHBOARDS: [&str; 6] = ["overview", "sync", "validation", "proxy", "store", "pipelines"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dashboard {
    name: String,
    title: String,
    about: String,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    title: String,
    height: i64,
    panels: Vec<Panel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Panel {
    title: String,
    #[serde(rename = "type", default = "timeseries")]
    kind: String,
    width: i64,
    unit: Option<String>,
    about: String,
    warn: Option<f64>,
    bad: Option<f64>,
    /// `up` or `valid`: words for 1 and 0.
    map: Option<String>,
    runbook: Option<String>,
    /// Legend and query.
    #[serde(default)]
    queries: serde_json::Map<String, Value>,
}

fn timeseries() -> String {
    "timeseries".to_owned()
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

/// Adds the selectors of the variables, and the range of a growth that has none.
struct Queries {
    known: BTreeMap<&'static str, Declared>,
    name: Regex,
}

impl Queries {
    fn new() -> Self {
        let known = Metrics::default().declared().iter().map(|one| (one.name, one.clone())).collect();
        let name = r"\b((?:sgcache|process)_\w+)(?:\{([^}]*)\})?(\[[^\]]*\])?";
        Self { known, name: Regex::new(name).expect("a pattern") }
    }

    fn complete(&self, expr: &str) -> String {
        let complete = |found: &Captures<'_>| {
            let name = &found[1];
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let declared = self.known.get(base).or_else(|| self.known.get(name));
            assert!(declared.is_some() || name.starts_with("process_"), "there is no metric {name}: {expr}");
            let mut selector = r#"job=~"$job",instance=~"$instance""#.to_owned();
            if declared.is_some_and(|one| one.labels.contains(&"entity_type")) {
                selector.push_str(r#",entity_type=~"$entity_type""#);
            }
            if let Some(more) = found.get(2) {
                selector = format!("{selector},{}", more.as_str());
            }
            let grows = declared.map_or(name.ends_with("_total"), |one| one.kind != Kind::Gauge);
            let range = found.get(3).map_or(if grows { "[$__rate_interval]" } else { "" }, |range| range.as_str());
            format!("{name}{{{selector}}}{range}")
        };
        self.name.replace_all(expr, complete).into_owned()
    }
}

fn targets(panel: &Panel, queries: &Queries) -> Vec<Value> {
    let is_table = panel.kind == "table";
    let target = |(index, (legend, expr)): (usize, (&String, &Value))| {
        let letter = char::from(b'A' + u8::try_from(index).expect("a few queries")).to_string();
        let expr = queries.complete(expr.as_str().expect("a query"));
        let mut target = json!({"refId": letter, "datasource": source(), "expr": expr, "editorMode": "code",
            "legendFormat": if is_table { "" } else { legend }, "range": !is_table});
        if is_table {
            (target["instant"], target["format"]) = (json!(true), json!("table"));
        }
        target
    };
    panel.queries.iter().enumerate().map(target).collect()
}

fn thresholds(panel: &Panel) -> Value {
    let mut steps = vec![json!({"color": "green", "value": null})];
    if panel.map.is_some() {
        steps = vec![json!({"color": "red", "value": null}), json!({"color": "green", "value": 1})];
    }
    steps.extend(panel.warn.map(|value| json!({"color": "orange", "value": value})));
    steps.extend(panel.bad.map(|value| json!({"color": "red", "value": value})));
    json!({"mode": "absolute", "steps": steps})
}

/// The field settings of a panel: unit, thresholds, and for lines that a series of zeros is
/// in neither the legend nor the plot.
fn field_config(panel: &Panel) -> Value {
    let is_line = panel.kind == "timeseries";
    let color = if is_line { "palette-classic" } else { "thresholds" };
    let mut defaults = json!({"unit": panel.unit, "color": {"mode": color}, "thresholds": thresholds(panel)});
    if let Some(map) = &panel.map {
        let words = if map == "up" { ("up", "down") } else { ("valid", "errors") };
        let options = json!({"1": {"text": words.0, "index": 0}, "0": {"text": words.1, "index": 1}});
        defaults["mappings"] = json!([{"type": "value", "options": options}]);
    }
    let mut overrides = Vec::new();
    if is_line {
        let drawn = if panel.warn.or(panel.bad).is_some() { "line" } else { "off" };
        defaults["custom"] = json!({"drawStyle": "line", "lineWidth": 1, "fillOpacity": 8, "showPoints": "never",
            "spanNulls": false, "stacking": {"mode": "none", "group": "A"}, "thresholdsStyle": {"mode": drawn}});
        let is_zero = json!({"id": "byValue", "options": {"op": "gte", "reducer": "allIsZero", "value": 0}});
        let hidden = json!({"legend": true, "tooltip": true, "viz": false});
        overrides.push(json!({"matcher": is_zero, "properties": [{"id": "custom.hideFrom", "value": hidden}]}));
    }
    if panel.kind == "table" {
        for name in ["Running", "Paused"] {
            let unit = json!({"id": "unit", "value": "bool_yes_no"});
            overrides.push(json!({"matcher": {"id": "byName", "options": name}, "properties": [unit]}));
        }
    }
    json!({"defaults": defaults, "overrides": overrides})
}

fn options(kind: &str) -> Value {
    match kind {
        "stat" => json!({"colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto",
            "textMode": "auto", "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false}}),
        "table" => json!({"showHeader": true}),
        "alertlist" => json!({"viewMode": "list", "groupMode": "default", "maxItems": 20, "sortOrder": 1,
            "alertName": "Sgcache", "dashboardAlerts": false, "datasource": "${datasource}",
            "stateFilter": {"firing": true, "pending": true, "noData": false, "normal": false, "error": true}}),
        _ => json!({"legend": {"displayMode": "list", "placement": "bottom", "showLegend": true},
            "tooltip": {"mode": "multi", "sort": "desc"}}),
    }
}

fn drawn(panel: &Panel, id: usize, place: [i64; 3], queries: &Queries) -> Value {
    let [x, y, height] = place;
    let mut drawn = json!({"id": id, "type": panel.kind, "title": panel.title, "description": panel.about,
        "datasource": source(), "gridPos": {"h": height, "w": panel.width, "x": x, "y": y},
        "fieldConfig": field_config(panel), "options": options(&panel.kind), "targets": targets(panel, queries)});
    if let Some(alert) = &panel.runbook {
        let url = format!("${{runbooks}}/{alert}.md");
        drawn["links"] = json!([{"title": format!("Runbook of {alert}"), "url": url, "targetBlank": true}]);
    }
    if panel.kind == "table" {
        let mut names =
            serde_json::Map::from_iter([("pipeline".into(), json!("Pipeline")), ("task".into(), json!("Task"))]);
        for (index, legend) in panel.queries.keys().enumerate() {
            let letter = char::from(b'A' + u8::try_from(index).expect("a few queries"));
            names.insert(format!("Value #{letter}"), json!(legend));
        }
        let organized = json!({"excludeByName": {"Time": true}, "renameByName": names});
        drawn["transformations"] = json!([{"id": "merge", "options": {}}, {"id": "organize", "options": organized}]);
    }
    drawn
}

/// A variable over the values of a label.
fn variable(name: &str, label: &str, query: &str) -> Value {
    json!({"name": name, "label": label, "type": "query", "datasource": source(), "definition": query,
        "query": {"query": query, "refId": format!("Prometheus-{name}")}, "refresh": 2, "sort": 1, "multi": true,
        "includeAll": true, "allValue": ".+", "current": {"selected": true, "text": ["All"], "value": ["$__all"]},
        "hide": 0, "options": [], "regex": "", "skipUrlSync": false})
}

fn variables() -> Value {
    let runbooks = json!({"name": "runbooks", "label": "Runbooks", "type": "textbox", "hide": 2,
        "description": "Where the folder docs/runbooks is published.", "query": "docs/runbooks",
        "current": {"selected": true, "text": "docs/runbooks", "value": "docs/runbooks"}, "skipUrlSync": false});
    json!([
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1,
            "multi": false, "includeAll": false, "current": {}, "hide": 0, "options": [], "regex": "", "skipUrlSync": false},
        variable("job", "Job", "label_values(sgcache_build_info, job)"),
        variable("instance", "Instance", r#"label_values(sgcache_build_info{job=~"$job"}, instance)"#),
        variable("entity_type", "Entity type", r#"label_values(sgcache_store_entities{job=~"$job",instance=~"$instance"}, entity_type)"#),
        runbooks,
    ])
}

/// What is marked in every plot: name, colour, query, text.
const ANNOTATIONS: [(&str, &str, &str, &str); 4] = [
    ("Restart", "blue", "time() - process_start_time_seconds < 60", "sgcache started on {{instance}}"),
    ("Rebuild", "purple", "sgcache_import_running == 1", "import of {{entity_type}}"),
    ("Drift", "orange", "sgcache_validation_drift_ratio > 0", "drift of {{entity_type}}"),
    ("Outage", "red", "sgcache_source_up == 0", "the site does not answer {{instance}}"),
];

fn annotations(queries: &Queries) -> Value {
    let drawn = ANNOTATIONS.iter().map(|(name, color, expr, text)| {
        json!({"name": name, "enable": true, "hide": false, "iconColor": color, "datasource": source(),
            "expr": queries.complete(expr), "step": "60s", "titleFormat": name, "textFormat": text})
    });
    let own = json!({"builtIn": 1, "datasource": {"type": "grafana", "uid": "-- Grafana --"}, "enable": true,
        "hide": true, "iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard"});
    json!({"list": std::iter::once(own).chain(drawn).collect::<Vec<_>>()})
}

fn generate(dashboard: &Dashboard, queries: &Queries) -> Value {
    let (mut panels, mut y) = (Vec::new(), 0);
    for row in &dashboard.rows {
        let grid = json!({"h": 1, "w": 24, "x": 0, "y": y});
        panels.push(json!({"id": panels.len() + 1, "type": "row", "title": row.title, "collapsed": false,
            "gridPos": grid, "panels": []}));
        let mut x = 0;
        for panel in &row.panels {
            panels.push(drawn(panel, panels.len() + 1, [x, y + 1, row.height], queries));
            x += panel.width;
        }
        y += 1 + row.height;
    }
    let links = json!([{"title": "sgcache", "type": "dashboards", "tags": ["sgcache"], "asDropdown": false,
        "includeVars": true, "keepTime": true, "targetBlank": false, "icon": "external link", "tooltip": "", "url": ""}]);
    json!({"uid": format!("sgcache-{}", dashboard.name), "title": format!("sgcache / {}", dashboard.title),
        "description": dashboard.about, "tags": ["sgcache"], "schemaVersion": 39, "version": 1, "editable": false,
        "graphTooltip": 1, "timezone": "browser", "refresh": "30s", "time": {"from": "now-6h", "to": "now"},
        "timepicker": {}, "weekStart": "", "fiscalYearStartMonth": 0, "liveNow": false, "links": links,
        "annotations": annotations(queries), "templating": {"list": variables()}, "panels": panels})
}

#[test]
fn the_dashboards_are_those_of_their_description() {
    let folder = repository("metrics/grafana");
    let text = std::fs::read_to_string(folder.join("dashboards.yaml")).expect("the description");
    let dashboards: Vec<Dashboard> = serde_yaml::from_str(&text).expect("a list of dashboards");
    assert_eq!(dashboards.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), DASHBOARDS);
    let queries = Queries::new();
    let is_writing = std::env::var("SGCACHE_TEST_LISTS").is_ok_and(|what| what == "write");
    for dashboard in &dashboards {
        let path = folder.join(format!("{}.json", dashboard.name));
        let made = format!("{:#}\n", generate(dashboard, &queries));
        if is_writing {
            std::fs::write(&path, &made).expect("the dashboard is written");
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == made, "{} is old: SGCACHE_TEST_LISTS=write cargo test --test it grafana", path.display());
    }
}
