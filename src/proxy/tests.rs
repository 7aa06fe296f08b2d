//! Tests of the decision: requests in, reasons out.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::entity::{DataType, EntityType};
use crate::schema::{EntitySchema, FieldSchema, Schema};
use crate::state::{ReplicationStatus, SiteTime, TypeReplicationStatus, TypeState};
use crate::store::CachedType;

const NOW: SiteTime = SiteTime(1_700_000_000_000);
/// The name of a field, its data type, and what a link in it points to.
type Field = (&'static str, &'static str, &'static str);

const TYPES: &[(&str, &[Field])] = &[
    (
        "Shot",
        &[
            ("code", "text", ""),
            ("cut_in", "number", ""),
            ("sg_status_list", "status_list", ""),
            ("sg_sequence", "entity", "Sequence"),
            ("assets", "multi_entity", "Asset"),
            ("project", "entity", "Project"),
            ("created_at", "date_time", ""),
            ("created_by", "entity", "HumanUser"),
            ("image", "image", ""),
            ("movie", "url", ""),
            ("open_notes_count", "summary", ""),
            ("time_logs_sum", "duration", ""),
            ("done", "checkbox", ""),
            ("cost", "currency", ""),
            ("viewed_by_current_user", "checkbox", ""),
            ("tag_list", "tag_list", ""),
        ],
    ),
    (
        "Sequence",
        &[("code", "text", ""), ("done", "checkbox", ""), ("secret", "text", ""), ("project", "entity", "Project")],
    ),
    ("Asset", &[("code", "text", "")]),
    ("Project", &[("name", "text", ""), ("archived", "checkbox", "")]),
    ("HumanUser", &[("name", "text", ""), ("login", "text", "")]),
];
/// What the cache lacks: types, and fields of types.
const UNCACHED: &[&str] = &["HumanUser", "Sequence.secret", "Shot.time_logs_sum"];

fn schema() -> Schema {
    let mut schema = Schema::default();
    for (name, fields) in TYPES {
        let field = |(field, data_type, target): &(&str, &str, &str)| {
            let mut made = FieldSchema::new(data_type.parse().expect("a data type"), *field);
            made.valid_types = target.split(' ').filter(|name| !name.is_empty()).map(EntityType::new).collect();
            ((*field).to_owned(), made)
        };
        let id = ("id".to_owned(), FieldSchema::new(DataType::Number, "id"));
        let entity_type = EntityType::new(name);
        let fields = fields.iter().map(field).chain([id]).collect();
        let made =
            EntitySchema { entity_type: entity_type.clone(), display_name: (*name).into(), visible: true, fields };
        schema.types.insert(entity_type, made);
    }
    schema
}

pub(super) fn catalogue() -> Catalogue {
    let schema = schema();
    let (mut stored, mut standing) = (crate::store::Catalogue::default(), ReplicationStatus::default());
    standing.complete_as_of = Some(NOW.before(Duration::from_secs(2)));
    for (name, entity) in schema.types.iter().filter(|(name, _)| !UNCACHED.contains(&name.as_str())) {
        let fields = entity.fields.iter().filter(|(field, _)| !UNCACHED.contains(&format!("{name}.{field}").as_str()));
        let cached = CachedType {
            entity_type: name.clone(),
            fields: fields.map(|(field, schema)| (field.clone(), schema.data_type)).collect(),
            partial: false,
            hash: "h".into(),
        };
        stored.types.insert(name.clone(), cached);
        let live = TypeReplicationStatus {
            state: TypeState::Live,
            layout_hash: "h".into(),
            breaker: false,
            quarantined: Default::default(),
        };
        standing.types.insert(name.clone(), live);
    }
    Catalogue {
        schema: Arc::new(schema),
        schema_is_current: true,
        stored: Arc::new(stored),
        standing: Arc::new(standing),
        pending_writes: PendingWrites::default(),
        now: NOW,
        settings: Arc::default(),
        max_page: 500,
        site_is_down: false,
    }
}

/// What the client sends for `find(ty, filters, fields)`.
pub(super) fn find(ty: &str, filters: Value, fields: Value) -> Value {
    let raw = crate::filter::RawFilter::from_lists(&filters, false).expect("a filter");
    json!({"type": ty, "return_fields": fields, "filters": raw.to_wire(), "return_only": "active",
        "paging": {"entities_per_page": 500, "current_page": 1}, "api_return_image_urls": true,
        "return_paging_info_without_counts": true})
}

pub(super) fn asked(method: &str, argument: Value) -> Asked {
    let body = json!({"method_name": method, "params": [{"script_name": "s", "script_key": "k"}, argument]});
    Asked::parse(body.to_string().as_bytes()).expect("a request")
}

fn outcome_with(asked: &Asked, scope: &Scope, catalogue: &Catalogue) -> String {
    match decide(asked, scope, catalogue) {
        Decision::Serve(_) => "serve".into(),
        Decision::Pass(pass) => pass.reason.to_string(),
    }
}

fn outcome(method: &str, argument: Value) -> String {
    outcome_with(&asked(method, argument), &Scope::Full, &catalogue())
}

#[track_caller]
fn check(filters: Value, fields: Value, expected: &str) {
    assert_eq!(outcome("read", find("Shot", filters.clone(), fields.clone())), expected, "{filters} {fields}");
}

#[test]
fn what_is_cached_and_proven_is_served() {
    check(json!([]), json!(["code", "sg_status_list", "id", "code"]), "serve");
    check(
        json!([["project", "is", {"type": "Project", "id": 1, "name": "Demo", "valid": "valid"}]]),
        json!([]),
        "serve",
    );
    check(json!([["sg_sequence.Sequence.code", "is", "s"]]), json!(["sg_sequence.Sequence.code", "assets"]), "serve");
    check(json!([["id", "in", [1, 2]], ["cut_in", "between", 1, 5]]), json!(["movie"]), "serve");
    check(json!([["created_at", "in_last", 3, "HOUR"]]), json!(["created_by"]), "serve");
    check(json!([["assets.Asset.code", "is", "a"]]), json!(["assets.Asset.code"]), "serve");
}

#[test]
fn what_is_not_cached_passes() {
    assert_eq!(outcome("read", find("HumanUser", json!([]), json!([]))), "uncached_type");
    assert_eq!(outcome("read", find("Sequence", json!([]), json!(["secret"]))), "uncached_field");
    assert_eq!(outcome("read", find("Sequence", json!([["secret", "is", "x"]]), json!([]))), "uncached_field");
    check(json!([]), json!(["created_by.HumanUser.login"]), "uncached_type");
    check(json!([]), json!(["sg_sequence.Sequence.secret"]), "uncached_field");
    check(json!([]), json!(["nothing"]), "unknown_field");
    check(json!([["sg_nothing", "is", "x"]]), json!([]), "unknown_field");
    check(json!([]), json!(["$FROM$Task.entity.content"]), "unknown_field");
    assert_eq!(outcome("read", find("Nothing", json!([]), json!([]))), "unknown_field");
}

#[test]
fn fields_that_the_site_does_not_have_are_left_out_while_the_schema_is_current() {
    let fields = ["code", "sg_nothing", "login", "sg_sequence.Sequence.sg_nothing"];
    check(json!([]), json!(fields), "serve");
    for field in fields {
        let read = asked("read", find("Shot", json!([]), json!([field])));
        let older = Catalogue { schema_is_current: false, ..catalogue() };
        let expected = if field == "code" { "serve" } else { "unknown_field" };
        assert_eq!(outcome_with(&read, &Scope::Full, &older), expected, "{field}");
    }
    check(json!([]), json!(["sg_nothing.Sequence.code"]), "unknown_field");
}

#[test]
fn what_no_copy_can_hold_passes() {
    check(json!([]), json!(["viewed_by_current_user"]), "per_user");
    check(json!([["viewed_by_current_user", "is", true]]), json!([]), "per_user");
    check(json!([]), json!(["open_notes_count"]), "computed");
    check(json!([]), json!(["time_logs_sum"]), "derived_field");
    check(json!([["time_logs_sum", "greater_than", 5]]), json!(["code"]), "derived_field");
}

#[test]
fn what_is_not_settled_passes_until_a_reading_is_chosen() {
    let cases = [
        (json!([["created_at", "in_last", 3, "DAY"]]), Semantics::RelativeDays),
        (json!([["created_at", "in_calendar_week", 0]]), Semantics::Week),
        (json!([["sg_sequence.Sequence.done", "is", false]]), Semantics::DeepCheckbox),
        (json!([["assets.Asset.code", "is_not", null]]), Semantics::ListNotNull),
        (json!([["sg_sequence.Sequence.code", "is_not", "a"]]), Semantics::DeepNegation),
        (json!([["sg_sequence.Sequence.code", "is", null]]), Semantics::DeepNegation),
    ];
    for (filters, reading) in cases {
        let asked = asked("read", find("Shot", filters.clone(), json!([])));
        for chosen in [false, true] {
            let semantics = Semantics::EVERY.iter().copied().filter(|one| chosen || *one != reading).collect();
            let settings = Arc::new(Settings { semantics, ..Settings::default() });
            let expected = if chosen { "serve" } else { "ambiguous_semantics" };
            assert_eq!(
                outcome_with(&asked, &Scope::Full, &Catalogue { settings, ..catalogue() }),
                expected,
                "{filters}"
            );
        }
    }
    check(json!([["sg_sequence.Sequence.done", "is", true]]), json!([]), "serve");
}

#[test]
fn operands_that_a_site_may_refuse_pass() {
    for relation in ["is", "is_not", "less_than", "greater_than"] {
        check(json!([["cut_in", relation, 2_147_483_648_i64]]), json!([]), "unsupported_filter");
        check(json!([["cut_in", relation, 1001.0]]), json!([]), "unsupported_filter");
        check(json!([["created_at", relation, "2016-12-31T23:59:60Z"]]), json!([]), "unsupported_filter");
        check(json!([["cut_in", relation, -2_147_483_648_i64]]), json!([]), "serve");
        check(json!([["created_at", relation, "2016-12-31T23:59:59Z"]]), json!([]), "serve");
    }
    check(json!([["cut_in", "between", 1.0, 2]]), json!([]), "unsupported_filter");
    check(json!([["cut_in", "in", [1, 2_147_483_648_i64]]]), json!([]), "unsupported_filter");
}

#[test]
fn what_no_scenario_proves_passes() {
    check(json!([["cost", "is", 1.0]]), json!([]), "unsupported_filter");
    check(json!([["code", "starts_with", ""]]), json!([]), "unsupported_filter");
    check(json!([["code", "not_in", ["", "a"]]]), json!([]), "unsupported_filter");
    check(json!([["code", "is", "a<b"]]), json!([]), "unsupported_filter");
    check(json!([["tag_list", "is", "a"]]), json!([]), "unsupported_filter");
    check(json!([["sg_sequence", "in", [null, {"type": "Sequence", "id": 1}]]]), json!([]), "unsupported_filter");
}

#[test]
fn what_the_site_refuses_it_refuses_itself() {
    check(json!([["code", "less_than", "a"]]), json!([]), "malformed");
    check(json!([["code", "in", []]]), json!([]), "malformed");
    check(json!([["nothing", "is", 1]]), json!([]), "unknown_field");
    check(json!([["movie", "is", "x"]]), json!([]), "malformed");
    check(json!([["sg_sequence", "is", 5]]), json!([]), "malformed");
}

#[test]
fn parameters_that_nobody_knows_pass() {
    let changed = |key: &str, value: Value| {
        let mut argument = find("Shot", json!([["code", "is", "a"]]), json!(["code"]));
        argument[key] = value;
        outcome("read", argument)
    };
    assert_eq!(changed("return_only", json!("active")), "serve");
    assert_eq!(changed("include_archived_projects", json!(false)), "serve");
    assert_eq!(changed("locale", json!("fr")), "unknown_parameter");
    assert_eq!(changed("return_only", json!("both")), "unknown_parameter");
    assert_eq!(changed("return_only", json!("retired")), "retired");
    assert_eq!(changed("return_fields", json!(["code", 5])), "unknown_parameter");
    assert_eq!(changed("paging", json!({"entities_per_page": 501, "current_page": 1})), "too_large");
    assert_eq!(changed("paging", json!({"entities_per_page": "5", "current_page": 1})), "malformed");
    assert_eq!(changed("paging", json!({"entities_per_page": 5, "current_page": 1, "after": 7})), "unknown_parameter");
    assert_eq!(changed("sorts", json!([{"field_name": "code", "direction": "asc"}])), "serve");
    assert_eq!(changed("sorts", json!([{"field_name": "nothing", "direction": "asc"}])), "unknown_field");
    assert_eq!(changed("sorts", json!([{"column": "code", "direction": "asc"}])), "unknown_parameter");
    assert_eq!(changed("additional_filter_presets", json!([{"preset_name": "LATEST"}])), "preset");
    assert_eq!(changed("filters", json!({"logical_operator": "and", "conditions": [], "x": 1})), "unknown_parameter");
    assert_eq!(changed("return_paging_info", json!("yes")), "unknown_parameter");
    let odd = json!({"method_name": "read", "params": [{}, find("Shot", json!([]), json!([])), {}]});
    let odd = Asked::parse(odd.to_string().as_bytes()).expect("a request");
    assert_eq!(outcome_with(&odd, &Scope::Full, &catalogue()), "unknown_parameter");
}

#[test]
fn methods_are_told_apart() {
    assert_eq!(outcome("create", json!({"type": "Shot"})), "write");
    assert_eq!(outcome("batch", json!([])), "write");
    assert_eq!(outcome("follow", json!({})), "unknown_method");
    assert_eq!(outcome("activity_stream", json!({})), "uncacheable");
    assert_eq!(outcome("schema_field_read", json!({"type": "Shot"})), "serve");
    assert_eq!(outcome("schema_field_read", json!({"type": "Shot", "x": 1})), "unknown_parameter");
    let info = Asked::parse(br#"{"method_name": "info", "params": []}"#).expect("a request");
    assert_eq!(outcome_with(&info, &Scope::Nothing(Pass::new(Reason::UnknownCaller, "")), &catalogue()), "serve");
}

#[test]
fn summaries_without_groups_are_served() {
    let summary = |field: &str, kind: &str| {
        json!({"type": "Shot", "filters": {"logical_operator": "and", "conditions": []},
            "summaries": [{"field": field, "type": kind}]})
    };
    let cases = [
        ("id", "count", "serve"),
        ("code", "record_count", "serve"),
        ("code", "count", "serve"),
        ("cut_in", "sum", "serve"),
        ("cut_in", "average", "unsupported_filter"),
        ("created_at", "latest", "serve"),
        ("done", "checked", "serve"),
        ("sg_status_list", "status_list", "unsupported_filter"),
        ("cost", "sum", "unsupported_filter"),
    ];
    for (field, kind, expected) in cases {
        assert_eq!(outcome("summarize", summary(field, kind)), expected, "{kind} of {field}");
    }
    let mut grouped = summary("id", "count");
    grouped["grouping"] = json!([{"field": "code", "type": "exact", "direction": "asc"}]);
    assert_eq!(outcome("summarize", grouped), "unsupported_filter");
}

#[test]
fn a_cache_that_cannot_vouch_for_a_type_passes() {
    let asked = asked("read", find("Shot", json!([]), json!(["sg_sequence"])));
    let with = |change: &dyn Fn(&mut ReplicationStatus)| {
        let mut catalogue = catalogue();
        change(Arc::make_mut(&mut catalogue.standing));
        outcome_with(&asked, &Scope::Full, &catalogue)
    };
    let shot = EntityType::new("Shot");
    assert_eq!(with(&|_| {}), "serve");
    assert_eq!(
        with(&|standing| standing.types.get_mut("Shot").expect("a type").state = TypeState::Importing),
        "not_live"
    );
    assert_eq!(
        with(&|standing| standing.types.get_mut("Sequence").expect("a type").layout_hash = "x".into()),
        "not_live"
    );
    assert_eq!(with(&|standing| drop(standing.types.remove("Project"))), "serve");
    assert_eq!(with(&|standing| standing.types.get_mut("Shot").expect("a type").breaker = true), "quarantined");
    assert_eq!(
        with(&|standing| standing.types.get_mut("Shot").expect("a type").quarantined.extend([1])),
        "quarantined"
    );
    assert_eq!(with(&|standing| standing.complete_as_of = Some(NOW.before(Duration::from_secs(31)))), "stale");
    let recent = NOW.before(Duration::from_secs(5));
    assert_eq!(with(&|standing| standing.marked.extend([(shot.clone(), recent)])), "serve");
    let old = NOW.before(Duration::from_secs(40));
    assert_eq!(with(&|standing| standing.marked.extend([(shot.clone(), old)])), "stale");
    assert_eq!(with(&|standing| standing.complete_as_of = None), "not_live");
}

#[test]
fn a_row_that_is_put_aside_stops_only_what_it_may_be_in() {
    let mut catalogue = catalogue();
    let standing = Arc::make_mut(&mut catalogue.standing);
    standing.types.get_mut("Sequence").expect("a type").quarantined.insert(1);
    let cases = [
        ("Sequence", json!([["id", "is", 2]]), json!(["code", "project"]), "serve"),
        ("Sequence", json!([["code", "is", "x"], ["id", "in", [2, 3]]]), json!([]), "serve"),
        ("Sequence", json!([["id", "is", 1]]), json!([]), "quarantined"),
        ("Sequence", json!([["id", "in", [1, 2]]]), json!([]), "quarantined"),
        ("Sequence", json!([["id", "is_not", 1]]), json!([]), "quarantined"),
        ("Sequence", json!([["id", "greater_than", 1]]), json!([]), "quarantined"),
        ("Shot", json!([["id", "is", 2]]), json!(["code"]), "serve"),
        ("Shot", json!([["id", "is", 2]]), json!(["sg_sequence"]), "quarantined"),
        ("Shot", json!([["id", "is", 2]]), json!(["sg_sequence.Sequence.code"]), "quarantined"),
    ];
    for (ty, filters, fields, expected) in cases {
        let asked = asked("read", find(ty, filters.clone(), fields.clone()));
        assert_eq!(outcome_with(&asked, &Scope::Full, &catalogue), expected, "{ty} {filters} {fields}");
    }
    let any = json!({"logical_operator": "or", "conditions": [
        {"path": "id", "relation": "is", "values": [2]}, {"path": "code", "relation": "is", "values": ["x"]}]});
    let mut either = find("Sequence", json!([]), json!([]));
    either["filters"] = any;
    assert_eq!(outcome_with(&asked("read", either), &Scope::Full, &catalogue), "quarantined");
}

#[test]
fn an_older_answer_is_better_than_none_while_the_site_is_down() {
    let asked = asked("read", find("Shot", json!([]), json!([])));
    let mut catalogue = Catalogue { site_is_down: true, ..catalogue() };
    Arc::make_mut(&mut catalogue.standing).complete_as_of = Some(NOW.before(Duration::from_secs(3600)));
    assert_eq!(outcome_with(&asked, &Scope::Full, &catalogue), "serve");
    let of = [(EntityType::new("Shot"), Duration::from_secs(600))];
    catalogue.settings = Arc::new(Settings { stale_if_error_of: of.into(), ..Settings::default() });
    assert_eq!(outcome_with(&asked, &Scope::Full, &catalogue), "stale");
}

#[test]
fn marked_rows_are_served_waited_for_or_passed_on() {
    let asked = asked("read", find("Shot", json!([]), json!([])));
    for (on_dirty, expected) in [(OnDirty::Serve, "serve"), (OnDirty::Wait, "dirty"), (OnDirty::Pass, "dirty")] {
        let mut catalogue = catalogue();
        Arc::make_mut(&mut catalogue.standing).marked.insert("Shot".into(), NOW.before(Duration::from_secs(3)));
        catalogue.settings = Arc::new(Settings { on_dirty, ..Settings::default() });
        assert_eq!(outcome_with(&asked, &Scope::Full, &catalogue), expected);
    }
}

#[test]
fn every_reason_is_a_label_of_the_metric() {
    assert_eq!(Reason::NAMES, crate::metrics::PASS_REASONS);
    assert_eq!(Reason::EVERY.len(), Reason::NAMES.len());
}

fn limited(types: &[&str], projects: Option<&[i64]>) -> Scope {
    Scope::Limited(Limits {
        types: Some(types.iter().map(EntityType::new).collect()),
        fields: [(EntityType::new("Sequence"), ["code".to_owned()].into())].into(),
        projects: projects.map(|ids| ids.iter().copied().collect()),
    })
}

#[test]
fn a_scope_hides_before_anything_is_looked_at() {
    let with = |scope: &Scope, filters: Value, fields: Value| {
        outcome_with(&asked("read", find("Shot", filters, fields)), scope, &catalogue())
    };
    let some = limited(&["Shot", "Sequence"], None);
    assert_eq!(with(&some, json!([]), json!(["code", "sg_sequence.Sequence.code", "sg_sequence"])), "serve");
    assert_eq!(with(&some, json!([]), json!(["assets"])), "scope");
    assert_eq!(with(&some, json!([["assets", "is", {"type": "Asset", "id": 1}]]), json!([])), "scope");
    assert_eq!(with(&some, json!([["sg_sequence.Sequence.done", "is", true]]), json!([])), "scope");
    assert_eq!(with(&limited(&["Asset"], None), json!([]), json!([])), "scope");
    let one = limited(&["Shot", "Sequence", "Project"], Some(&[1]));
    assert_eq!(with(&one, json!([]), json!(["code", "project", "project.Project.name"])), "serve");
    assert_eq!(with(&one, json!([]), json!(["sg_sequence"])), "scope");
    assert_eq!(with(&one, json!([["sg_sequence.Sequence.code", "is", "a"]]), json!([])), "scope");
    // A name is the value of a field: without `Sequence.code` no link shows it, and no
    // filter or order looks at it.
    let mut nameless = limited(&["Shot", "Sequence"], None);
    let Scope::Limited(limits) = &mut nameless else { panic!("limits") };
    limits.fields.insert("Sequence".into(), ["done".to_owned()].into());
    assert_eq!(with(&nameless, json!([]), json!(["code", "sg_sequence.Sequence.done"])), "serve");
    assert_eq!(with(&nameless, json!([]), json!(["sg_sequence"])), "scope");
    assert_eq!(with(&nameless, json!([["sg_sequence", "name_contains", "a"]]), json!([])), "scope");
    assert_eq!(with(&nameless, json!([["sg_sequence", "is", {"type": "Sequence", "id": 1}]]), json!([])), "scope");
    let mut sorted = find("Shot", json!([]), json!(["code"]));
    sorted["sorts"] = json!([{"field_name": "sg_sequence", "direction": "asc"}]);
    assert_eq!(outcome_with(&asked("read", sorted), &nameless, &catalogue()), "scope");
    // Whether what is hidden is cached, or exists, shows neither.
    for field in ["secret", "nothing"] {
        let path = format!("sg_sequence.Sequence.{field}");
        assert_eq!(with(&some, json!([]), json!([path])), "scope");
        assert_eq!(with(&some, json!([[path, "is", "x"]]), json!([])), "scope");
    }
    assert_eq!(with(&some, json!([]), json!(["created_by.HumanUser.login"])), "scope");
    let nobody = Scope::Nothing(Pass::new(Reason::UnknownCaller, "a stranger"));
    assert_eq!(with(&nobody, json!([]), json!([])), "unknown_caller");
}

#[test]
fn the_projects_of_a_scope_are_part_of_the_filter() {
    let scope = limited(&["Shot", "Project"], Some(&[7]));
    let asked = asked("read", find("Shot", json!([["code", "is", "a"]]), json!([])));
    let decision = decide(&asked, &scope, &catalogue());
    match &decision {
        Decision::Serve(serve) => {
            let Serve::Read(plan) = &**serve else { panic!("{serve:?}") };
            assert_eq!(
                plan.question.query.filter.to_string(),
                r#"(project LinkTo([Project:7]) and (code OneOf([Text("a")])))"#
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cached_plan_is_decided_like_a_new_request() {
    let (known, plans) = (catalogue(), plan_cache::PlanCache::default());
    let caller = Arc::new(callers::Caller {
        digest: [0; 32],
        name: "s".into(),
        scope: Scope::Full,
        owner: None,
        is_session: false,
    });
    let keep = |digest: u8, asked: &Asked| {
        let planned = decide::plan(asked, &Scope::Full, &known).expect("a plan");
        plans.insert([digest; 32], asked, &caller, &planned, &known);
        plans.get(&[digest; 32])
    };
    let asked_for = asked("read", find("Shot", json!([["code", "is", "a"]]), json!(["sg_sequence"])));
    let cached = keep(1, &asked_for).expect("it is remembered");
    assert_eq!(
        (cached.asked.request.auth.as_ref(), &cached.asked.request.argument),
        (None, &asked_for.request.argument)
    );
    assert!(plans.get(&[2; 32]).is_none());

    let shot = || EntityType::new("Shot");
    let pending_writes = PendingWrites::new([Arc::new(PendingWrite::new(Vec::new(), true))]);
    let mut frozen = ReplicationStatus::clone(&known.standing);
    frozen.types.remove(&shot());
    let moments = [
        known.clone(),
        Catalogue { pending_writes, ..known.clone() },
        Catalogue { now: NOW.after(Duration::from_secs(86_400)), ..known.clone() },
        Catalogue { standing: Arc::new(frozen), ..known.clone() },
    ];
    let mut reasons = Vec::new();
    for moment in &moments {
        let again = cached.planned(moment).expect("it means the same").at(moment);
        let again = again.map_or_else(Decision::Pass, |serve| Decision::Serve(Box::new(serve)));
        assert_eq!(again, decide(&asked_for, &Scope::Full, moment));
        reasons.push(outcome_with(&asked_for, &Scope::Full, moment));
    }
    assert_eq!(reasons, ["serve", "pending_write", "stale", "not_live"]);

    // Another schema, other cached fields or another page may give it another meaning.
    let others = [
        Catalogue { schema: Arc::new(schema()), ..known.clone() },
        Catalogue { stored: Arc::new(crate::store::Catalogue::clone(&known.stored)), ..known.clone() },
        Catalogue { max_page: 100, ..known.clone() },
    ];
    assert!(others.iter().all(|other| cached.planned(other).is_none()));

    let of_now = asked("read", find("Shot", json!([["created_at", "in_last", 2, "HOUR"]]), json!(["code"])));
    assert!(keep(3, &of_now).is_none(), "it asks something else each time");
}

#[test]
fn a_decision_is_explained_with_what_to_change() {
    let decided = |argument: Value| {
        let asked = asked("read", argument);
        let decision = decide(&asked, &Scope::Full, &catalogue());
        explain::words(Some(&asked), &decision)
    };
    assert_eq!(
        decided(find("Sequence", json!([]), json!(["secret"]))),
        "read Sequence\n  goes to the site: uncached_field\n  `Sequence.secret` is not cached\n  \
         to answer it next time: add \"secret\": {} to `fields` in entityConfig/Sequence.json"
    );
    let served = decided(find("Shot", json!([["id", "is", 1]]), json!([])));
    assert!(served.starts_with("read Shot\n  answered from the cache, as of 2023-11-14T22:13:18Z\n"), "{served}");
}

pub(super) fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z_<]{0,6}".prop_map(Value::from),
        prop::sample::select(vec!["Shot", "code", "is", "and", "project"]).prop_map(Value::from)
    ];
    let keys =
        prop::sample::select(vec!["type", "id", "path", "relation", "values", "conditions", "logical_operator", "x"]);
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(keys.clone().prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
        ]
    })
}

proptest! {
    /// Whatever a parameter holds, the decision is made; and what was not valid is
    /// never served with a part of it ignored.
    #[test]
    fn no_value_of_a_parameter_breaks_the_decision(key in prop::sample::select(vec![
        "type", "return_fields", "filters", "return_only", "paging", "sorts", "include_archived_projects"]),
        value in json_value()) {
        let mut argument = find("Shot", json!([["code", "is", "a"]]), json!(["code"]));
        argument[key] = value.clone();
        let served = outcome("read", argument) == "serve";
        if served && key == "return_fields" {
            let known = |name: &Value| name.as_str().is_some_and(|name| matches!(name, "id" | "type" | "code" | "project"));
            prop_assert!(value.as_array().is_some_and(|names| names.iter().all(known)), "{value}");
        }
        if served && key == "return_only" {
            prop_assert_eq!(value, json!("active"));
        }
    }
}

#[test]
fn a_nest_that_no_parser_bears_passes() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = format!(r#"{{"method_name":"read","params":[{{}},{deep}]}}"#);
    let asked = Asked::parse(body.as_bytes()).expect("the envelope of a request");
    assert_eq!(
        (asked.unread.is_some(), outcome_with(&asked, &Scope::Full, &catalogue()).as_str()),
        (true, "malformed")
    );
}
